//! The control socket: the requests, the server in the loop, the client of the tools.

use std::env;
use std::path::PathBuf;

pub mod client;
pub mod proto;
pub mod server;

/// The default run directory.
pub const RUN_DIR: &str = "/run/bondd";

/// Environment variable that names another run directory, for the agent and for its clients.
pub const RUN_DIR_ENV: &str = "BONDD_RUN_DIR";

/// Name of the control socket inside the run directory.
pub const SOCKET: &str = "control.sock";

/// The run directory for a program without an option for it: [`RUN_DIR_ENV`] if it is set and not empty, else [`RUN_DIR`].
pub fn run_dir() -> PathBuf {
    env::var_os(RUN_DIR_ENV)
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from(RUN_DIR), PathBuf::from)
}
