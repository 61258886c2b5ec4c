//! Files for the kernel's module: modules.conf of Linux 2.4 (`modutils`), modprobe.d (`kmod`), and the module with its
//! parameters (`module`).

pub(super) mod kmod;
pub(super) mod module;
pub(super) mod modutils;
