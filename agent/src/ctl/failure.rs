//! Failures of commands, and the exit status of each.

use std::io;

use super::health::Level;
use crate::control::client::ClientError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Wrong usage that the parser does not detect.
    #[error("{0}")]
    Usage(String),
    /// The agent refused, or is not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer does not fit the request.
    #[error("cannot parse bondd's answer; are bondctl and bondd of the same version?")]
    Answer(#[from] serde_json::Error),
    /// Some ports were refused; each was reported.
    #[error("{failed} of {tried} ports failed")]
    Ports {
        /// How many were refused.
        failed: usize,
        /// How many were tried.
        tried: usize,
    },
    /// Module parameters with which no bond can be made.
    #[error("{0}")]
    Parameters(String),
    /// A bond that is to be removed has ports.
    #[error("no bond was removed: {ports}; detach ports first, with `bondctl port del` or `ifenslave -d`")]
    InUse {
        /// The bonds with their ports.
        ports: String,
    },
    /// A stanza's bond was refused; the reason was reported.
    #[error("no bond {bond} was made")]
    NoBond {
        /// The bond.
        bond: String,
    },
    /// A port's bond is unknown to ifupdown.
    #[error("{port}: bond-master {bond} has no stanza of its own, expected `iface {bond} ...` in the interfaces file")]
    NoStanza {
        /// The port.
        port: String,
        /// The bond.
        bond: String,
    },
    /// A program that ifupdown or the hook needs cannot be run.
    #[error("cannot run {program}")]
    Program {
        /// The program.
        program: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The agent is newer than this client.
    #[error(
        "cannot tell where {bond} sends: bondctl does not know mode {mode}; are bondctl and bondd of the same version?"
    )]
    UnknownMode {
        /// The bond.
        bond: String,
        /// Its name as reported by the agent.
        mode: String,
    },
    /// The agent left out the bond that was asked for.
    #[error("bondd did not report {bond}")]
    NotReported {
        /// The bond.
        bond: String,
    },
    /// Option files have errors, which were reported.
    #[error("{errors} {} in the option files", if *errors == 1 { "error" } else { "errors" })]
    Findings {
        /// Number of errors.
        errors: usize,
    },
    /// A bond has a problem, which was printed.
    #[error("not all bonds are well")]
    Unhealthy(Level),
    /// A part of a configuration is not in the option file; it was reported.
    #[error("{errors} {}: not everything was imported", if *errors == 1 { "error" } else { "errors" })]
    LeftOut {
        /// Number of errors.
        errors: usize,
    },
    /// Printing failed.
    #[error("cannot print")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Exit status of the program.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Unhealthy(level) => *level as u8,
            Failure::Client(ClientError::NoDaemon { .. } | ClientError::Closed { .. }) => 3,
            _ => 1,
        }
    }
}
