//! What does not work at the moment, so that the log says it once.

use std::collections::BTreeMap;
use std::fmt::Display;

/// What cannot be done at the moment, and why.
#[derive(Debug, Default)]
pub(super) struct LoggedFailures(BTreeMap<String, String>);

impl LoggedFailures {
    /// Takes note of how an attempt at `doing` ended, which completes "cannot ...". A failure is logged unless the one before
    /// had the same reason.
    pub(super) fn note<T, E: Display>(&mut self, bond: &str, doing: &str, result: Result<T, E>) -> Option<T> {
        let error = match result {
            Ok(done) => {
                self.0.remove(doing);
                return Some(done);
            }
            Err(error) => error.to_string(),
        };
        if self.is_new(doing, &error) {
            log::warn!("{bond}: cannot {doing}: {error}");
        }
        None
    }

    fn is_new(&mut self, doing: &str, error: &str) -> bool {
        let before = self.0.insert(doing.to_owned(), error.to_owned());
        before.as_deref() != Some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_again_for_another_reason_and_after_it_worked() {
        let mut failures = LoggedFailures::default();
        for (new, error) in [(true, "busy"), (false, "busy"), (true, "gone"), (false, "gone")] {
            assert_eq!(failures.is_new("hear eth0", error), new, "{error}");
        }
        assert!(failures.is_new("hear eth1", "gone"), "of its own");
        assert_eq!(failures.note("bond0", "hear eth0", Ok::<_, String>(7)), Some(7));
        assert_eq!(failures.note("bond0", "hear eth0", Err::<(), _>("gone")), None);
        assert!(!failures.is_new("hear eth0", "gone"), "noted");
        assert!(!failures.is_new("hear eth1", "gone"), "of its own");
    }
}
