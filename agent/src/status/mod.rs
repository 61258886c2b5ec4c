//! What the agent publishes for tools that read files: the status texts of the kernel's drivers.

pub mod procfs;
pub mod publish;
