//! Why a data plane could not do something.

use std::io;

use bond_modes::PortId;

use crate::text::chain;

/// Why a data plane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The port's interface does not exist any more.
    #[error("the interface with index {} has gone away", port.0)]
    PortGone {
        /// Which one.
        port: PortId,
    },
    /// The kernel lacks something.
    #[error("this kernel has no {feature}; it needs {config}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// The kernel options that bring it.
        config: &'static str,
    },
    /// The process may not do it.
    #[error("{}", cannot(self))]
    Permission {
        /// What was tried.
        doing: String,
        /// Which capability is missing.
        capability: &'static str,
    },
    /// A bond with these options would not do exactly what they say.
    #[error("{}", cannot(self))]
    Inexact {
        /// This plane.
        plane: &'static str,
        /// The option and its value.
        what: String,
        /// What would differ.
        why: &'static str,
        /// A plane that can.
        other: &'static str,
    },
    /// A part of the plan that the core can express and no plane of this agent can do.
    #[error("{}", cannot(self))]
    NotYet {
        /// Which part.
        what: &'static str,
    },
    /// No plane can do it.
    #[error("no data plane can do it: {reasons}")]
    NoPlane {
        /// One for each plane.
        reasons: String,
    },
    /// A bond that was saved by an agent that has another plane.
    #[error("this bondd has no data plane {name}")]
    UnknownPlane {
        /// The name of the plane.
        name: String,
    },
    /// The name is taken by a device that is not ours.
    #[error("{name} is the name of another device already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// An interface that is a bond of ours does not look like one.
    #[error(
        "the interface {name} is there, but plane {plane} does not recognise it: another program changed its mark or the name \
         of its wire"
    )]
    NotRecognised {
        /// The interface.
        name: String,
        /// The plane of the bond.
        plane: String,
    },
    /// The bond lacks something that only a new one can have.
    #[error("{}", cannot(self))]
    OneQueue {
        /// The bond's name.
        bond: String,
    },
    /// Something failed half-way, and so did undoing it.
    #[error("{}; undoing the attempt failed too: {undo}", chain(error.as_ref()))]
    NotUndone {
        /// Why it failed.
        error: Box<PlaneError>,
        /// The failures to undo it.
        undo: String,
    },
    /// A limit leaves no room for it.
    #[error("{}", cannot(self))]
    Limit {
        /// What was tried, naming the object.
        doing: String,
        /// Which limit, and what to do.
        limit: String,
    },
    /// Anything else the kernel refused.
    #[error("cannot {doing}")]
    Kernel {
        /// What was tried, naming the object.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl PlaneError {
    /// Whether trying again can help. Not if the port has gone (its event makes another plan), if kernel, plane or bond lacks
    /// the feature, or if the kernel calls the value invalid.
    pub fn may_pass(&self) -> bool {
        match self {
            PlaneError::PortGone { .. }
            | PlaneError::Unsupported { .. }
            | PlaneError::NotYet { .. }
            | PlaneError::OneQueue { .. }
            | PlaneError::UnknownPlane { .. }
            | PlaneError::Inexact { .. } => false,
            PlaneError::Kernel { source, .. } => source.raw_os_error() != Some(libc::EINVAL),
            PlaneError::NotUndone { error, .. } => error.may_pass(),
            _ => true,
        }
    }

    /// What was tried, which completes "cannot ...", and why it failed.
    pub fn what_and_why(&self) -> (String, String) {
        match self {
            PlaneError::Kernel { doing, source } => (doing.clone(), chain(source)),
            PlaneError::Limit { doing, limit } => (doing.clone(), limit.clone()),
            PlaneError::Permission { doing, capability } => (
                doing.clone(),
                format!("no permission; bondd needs {capability} (run it as root)"),
            ),
            PlaneError::Inexact {
                plane,
                what,
                why,
                other,
            } => (
                format!("do {what} exactly on plane {plane}"),
                format!("{why}; give the bond plane={other}, which takes a new bond"),
            ),
            PlaneError::NotYet { what } => (format!("do {what}"), "no data plane of this agent has it".to_owned()),
            PlaneError::OneQueue { bond } => (
                format!("use a queue_id on {bond}"),
                "it has one transmit queue; delete it and make it anew as a veth pair (bondd --tc-device veth, on a kernel from 5.15 on)".to_owned(),
            ),
            PlaneError::NotUndone { error, undo } => {
                let (what, why) = error.what_and_why();
                (what, format!("{why}; undoing the attempt failed too: {undo}"))
            }
            PlaneError::PortGone { .. }
            | PlaneError::Unsupported { .. }
            | PlaneError::NotRecognised { .. }
            | PlaneError::NoPlane { .. }
            | PlaneError::UnknownPlane { .. }
            | PlaneError::NameTaken { .. } => ("carry out the plan".to_owned(), self.to_string()),
        }
    }

    /// How much it matters in the log.
    pub fn level(&self) -> log::Level {
        match self {
            PlaneError::PortGone { .. } => log::Level::Debug,
            _ => log::Level::Error,
        }
    }
}

/// Both halves as one sentence.
fn cannot(error: &PlaneError) -> String {
    let (what, why) = error.what_and_why();
    format!("cannot {what}: {why}")
}
