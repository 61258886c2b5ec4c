//! Failures that last, each of which the log reports once.

use std::collections::BTreeMap;
use std::fmt::Display;

use bond_modes::PortId;

/// The last failure of each kind of attempt, until an attempt succeeds or its subject leaves.
#[derive(Debug, Default)]
pub(super) struct LoggedFailures(BTreeMap<(Subject, String), String>);

/// The object of an attempt. Its failures are forgotten with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The bond.
    Bond,
    /// An attached port.
    Port(PortId),
    /// A wanted port that is not attached, by name.
    Wanted(String),
}

impl LoggedFailures {
    /// Records how an attempt at `doing` ended, which completes "cannot ...". A failure is logged unless the one before had the
    /// same reason.
    pub(super) fn record<T, E: Display>(
        &mut self,
        bond: &str,
        subject: Subject,
        doing: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        let error = match result {
            Ok(done) => {
                self.0.remove(&(subject, doing.to_owned()));
                return Some(done);
            }
            Err(error) => error.to_string(),
        };
        if self.is_new(subject, doing, &error) {
            log::warn!("{bond}: cannot {doing}: {error}");
        }
        None
    }

    /// The log has this failure, in other words.
    pub(super) fn told(&mut self, subject: &Subject, doing: &str, error: &str) {
        self.is_new(subject.clone(), doing, error);
    }

    /// Forgets the failures of a port that has left.
    pub(super) fn forget(&mut self, subject: &Subject) {
        self.0.retain(|(of, _), _| of != subject);
    }

    /// How many failures last.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn is_new(&mut self, subject: Subject, doing: &str, error: &str) -> bool {
        let before = self.0.insert((subject, doing.to_owned()), error.to_owned());
        before.as_deref() != Some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_new_again_for_another_reason_after_a_success_and_for_another_port() {
        let port = |number| Subject::Port(PortId(number));
        let mut failures = LoggedFailures::default();
        for (new, error) in [(true, "busy"), (false, "busy"), (true, "gone"), (false, "gone")] {
            assert_eq!(failures.is_new(port(1), "hear it", error), new, "{error}");
        }
        assert!(failures.is_new(port(2), "hear it", "gone"), "another port");
        assert_eq!(
            failures.record("bond0", port(1), "hear it", Ok::<_, String>(7)),
            Some(7)
        );
        assert_eq!(failures.record("bond0", port(1), "hear it", Err::<(), _>("gone")), None);
        assert!(!failures.is_new(port(1), "hear it", "gone"), "recorded");
        assert!(!failures.is_new(port(2), "hear it", "gone"), "another port");
        failures.forget(&port(2));
        assert!(failures.is_new(port(2), "hear it", "gone"), "it left and came back");
        assert!(!failures.is_new(port(1), "hear it", "gone"), "this one stayed");
    }
}
