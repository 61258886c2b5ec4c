//! The control socket: what a client may ask, the server in the loop, the client that the tools use.

use std::env;
use std::path::PathBuf;

pub mod client;
pub mod proto;
pub mod server;

/// Where the agent keeps its files unless told otherwise.
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
