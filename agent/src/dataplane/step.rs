//! One step against the kernel, and what its failure means.

use std::io;

use bond_modes::PortId;

use super::error::PlaneError;
use crate::descriptors;
use crate::text::chain;

/// Part of the kernel that a step needs, and how the kernel answers without it.
pub struct Feature {
    name: &'static str,
    config: &'static str,
    missing: &'static [i32],
}

impl Feature {
    /// That the kernel lacks it.
    pub fn unsupported(&self) -> PlaneError {
        PlaneError::Unsupported {
            feature: self.name,
            config: self.config,
        }
    }
}

/// The bond's own interface and its wire.
pub const VETH: Feature = Feature {
    name: "veth device",
    config: "CONFIG_VETH",
    missing: &[libc::EOPNOTSUPP],
};

/// The same, with a place for programs in what it transmits.
pub const NETKIT: Feature = Feature {
    name: "netkit device",
    config: "CONFIG_NETKIT (6.7 and later)",
    missing: &[libc::EOPNOTSUPP],
};

/// Programs, maps and the file system for pins.
pub const BPF: Feature = Feature {
    name: "eBPF",
    config: "CONFIG_BPF_SYSCALL",
    missing: &[libc::ENOSYS, libc::ENODEV],
};

/// The bond's own interface, where the team driver is to forward.
pub const TEAM: Feature = Feature {
    name: "team driver",
    config: "CONFIG_NET_TEAM, with CONFIG_NET_TEAM_MODE_ACTIVEBACKUP, CONFIG_NET_TEAM_MODE_LOADBALANCE and \
             CONFIG_NET_TEAM_MODE_BROADCAST",
    missing: &[libc::EOPNOTSUPP, libc::ENOENT],
};

/// Active-backup on it.
pub const TEAM_ACTIVEBACKUP: Feature = Feature {
    name: "mode activebackup of the team driver",
    config: "CONFIG_NET_TEAM and CONFIG_NET_TEAM_MODE_ACTIVEBACKUP",
    missing: &[libc::EINVAL],
};

/// Balance-xor on it.
pub const TEAM_LOADBALANCE: Feature = Feature {
    name: "mode loadbalance of the team driver",
    config: "CONFIG_NET_TEAM and CONFIG_NET_TEAM_MODE_LOADBALANCE",
    missing: &[libc::EINVAL],
};

/// Broadcast on it.
pub const TEAM_BROADCAST: Feature = Feature {
    name: "mode broadcast of the team driver",
    config: "CONFIG_NET_TEAM and CONFIG_NET_TEAM_MODE_BROADCAST",
    missing: &[libc::EINVAL],
};

/// A place for programs on the ingress of an interface.
pub const HOOK: Feature = Feature {
    name: "traffic control hook for eBPF",
    config: "CONFIG_NET_XGRESS (6.6 and later), or CONFIG_NET_SCH_INGRESS with CONFIG_NET_CLS_BPF",
    missing: &[libc::ENOENT, libc::EOPNOTSUPP],
};

/// Transmit queues that CPUs are tied to.
pub const XPS: Feature = Feature {
    name: "choice of transmit queues, which a queue_id needs",
    config: "CONFIG_XPS and CONFIG_SYSFS",
    missing: &[libc::ENOENT, libc::ENODEV],
};

/// Runs one step; `doing` completes "cannot ...".
pub fn step<T>(doing: impl FnOnce() -> String, work: impl FnOnce() -> io::Result<T>) -> Result<T, PlaneError> {
    run(work).map_err(|source| failed(doing(), source))
}

/// Whether there are descriptors left for something that takes some.
pub fn room(doing: impl FnOnce() -> String) -> Result<(), PlaneError> {
    room_beside(0, doing)
}

/// As [`room`], beside those that it takes.
pub fn room_beside(taken: usize, doing: impl FnOnce() -> String) -> Result<(), PlaneError> {
    descriptors::room_beside(taken).map_err(|source| failed(doing(), source))
}

/// Runs one step for which the kernel may lack something.
pub fn step_with<T>(
    feature: &Feature,
    doing: impl FnOnce() -> String,
    work: impl FnOnce() -> io::Result<T>,
) -> Result<T, PlaneError> {
    run(work).map_err(|source| match source.raw_os_error() {
        Some(errno) if feature.missing.contains(&errno) => feature.unsupported(),
        _ => failed(doing(), source),
    })
}

/// Tries once more what failed, except on a port that has gone.
pub fn twice<T>(mut work: impl FnMut() -> Result<T, PlaneError>) -> Result<T, PlaneError> {
    match work() {
        Err(PlaneError::PortGone { port }) => Err(PlaneError::PortGone { port }),
        Err(error) => {
            log::debug!("trying again: {}", chain(&error));
            work()
        }
        done => done,
    }
}

/// Runs one step on a port, which may vanish at any moment.
pub fn port_step<T>(
    port: PortId,
    doing: impl FnOnce() -> String,
    work: impl FnOnce() -> io::Result<T>,
) -> Result<T, PlaneError> {
    run(work).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => PlaneError::PortGone { port },
        _ => failed(doing(), source),
    })
}

/// Failures of several steps, each of which is tried even if others fail.
#[derive(Default)]
pub struct Failures(Vec<PlaneError>);

impl Failures {
    /// Records the end of one step; says whether it was done.
    pub fn note(&mut self, result: Result<(), PlaneError>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                self.0.push(error);
                false
            }
        }
    }

    /// As [`Failures::note`], for giving a port back: one that has gone needs nothing given back.
    pub fn note_unless_gone(&mut self, result: Result<(), PlaneError>) {
        match result {
            Err(PlaneError::PortGone { .. }) => {}
            result => {
                self.note(result);
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The failure of something, when these are the failures to undo it: one error for all, so that the log repeats none of them
    /// while the attempt is repeated.
    pub fn after(self, error: PlaneError) -> PlaneError {
        let lasting = self
            .0
            .iter()
            .filter(|error| !matches!(error, PlaneError::PortGone { .. }));
        let undo: Vec<String> = lasting.map(|error| chain(error)).collect();
        match undo.is_empty() || matches!(error, PlaneError::PortGone { .. }) {
            true => error,
            false => PlaneError::NotUndone {
                error: Box::new(error),
                undo: undo.join(", "),
            },
        }
    }

    /// One failure for all of them: the first, but rather one that another try may mend. The others are logged.
    pub fn result(mut self) -> Result<(), PlaneError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let lead = self.0.iter().position(PlaneError::may_pass).unwrap_or(0);
        let error = self.0.remove(lead);
        for other in &self.0 {
            log::log!(other.level(), "{}", chain(other));
        }
        Err(error)
    }
}

/// The failure to do anything with a bond whose interface was deleted.
pub fn bond_gone(bond: &str) -> PlaneError {
    PlaneError::Kernel {
        doing: format!("use {bond}"),
        source: io::Error::new(io::ErrorKind::NotFound, "its interface is gone"),
    }
}

fn failed(doing: String, source: io::Error) -> PlaneError {
    match source.raw_os_error() {
        // EFAULT is the verifier's: without CAP_PERFMON it also walks what a processor may guess, and gives up on the hash.
        Some(libc::EPERM | libc::EACCES | libc::EFAULT) => PlaneError::Permission {
            doing,
            capability: "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON, and CAP_SYS_ADMIN to mount a bpf file system; before Linux \
                         5.11, also CAP_SYS_RESOURCE or more locked memory (RLIMIT_MEMLOCK)",
        },
        _ => match descriptors::limit_of(&source) {
            Some(limit) => PlaneError::Limit { doing, limit },
            None => PlaneError::Kernel { doing, source },
        },
    }
}

fn run<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    fault::here()?;
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_may_pass_is_not_hidden_by_one_that_never_will() {
        let gone = || PlaneError::PortGone { port: PortId(3) };
        let busy = |doing: &str| failed(doing.to_owned(), io::ErrorKind::ResourceBusy.into());
        let outcome = |all: Vec<PlaneError>| {
            let mut errors = Failures::default();
            for error in all {
                assert!(!errors.note(Err(error)));
            }
            assert!(errors.note(Ok(())));
            errors.result().unwrap_err().to_string()
        };
        let lasting = || XPS.unsupported();
        assert_eq!(
            outcome(vec![lasting(), busy("send"), busy("hear")]),
            busy("send").to_string()
        );
        assert_eq!(outcome(vec![busy("send"), lasting(), gone()]), busy("send").to_string());
        assert_eq!(outcome(vec![gone(), busy("send")]), busy("send").to_string());
        assert_eq!(outcome(vec![lasting(), gone()]), lasting().to_string());
    }
}

/// Lets a test fail the n-th step on its own thread.
#[cfg(test)]
pub mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local!(static STEPS_LEFT: Cell<Option<usize>> = const { Cell::new(None) });
    thread_local!(static FAILURES_LEFT: Cell<usize> = const { Cell::new(0) });

    /// Runs `body` with its n-th step failing, counted from 0; says whether it came so far.
    pub fn at<T>(step: usize, body: impl FnOnce() -> T) -> (T, bool) {
        several(step, 1, body)
    }

    /// As [`at`], with so many failures in a row.
    pub fn several<T>(step: usize, failures: usize, body: impl FnOnce() -> T) -> (T, bool) {
        FAILURES_LEFT.set(failures);
        STEPS_LEFT.set(Some(step));
        let result = body();
        STEPS_LEFT.set(None);
        (result, FAILURES_LEFT.replace(0) < failures)
    }

    /// Runs `body` with its n-th step and all after it failing.
    pub fn from<T>(step: usize, body: impl FnOnce() -> T) -> T {
        several(step, usize::MAX, body).0
    }

    pub(super) fn here() -> io::Result<()> {
        match STEPS_LEFT.get() {
            Some(0) => {
                let left = FAILURES_LEFT.get() - 1;
                FAILURES_LEFT.set(left);
                if left == 0 {
                    STEPS_LEFT.set(None);
                }
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            Some(left) => {
                STEPS_LEFT.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
