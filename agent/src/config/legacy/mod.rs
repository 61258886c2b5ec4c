//! What the kernel's module and the programs that load it make of a file: modules.conf of Linux 2.4 (`modutils`), modprobe.d
//! (`kmod`), and the module with its parameters (`module`).

pub(super) mod kmod;
pub(super) mod module;
pub(super) mod modutils;
mod numbers;
