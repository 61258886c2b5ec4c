//! What does not work at the moment, so that the log says it once.

use std::collections::BTreeMap;
use std::fmt::Display;

/// What cannot be done at the moment, and why.
#[derive(Debug, Default)]
pub(super) struct Failing(BTreeMap<String, String>);

impl Failing {
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
        if self.is_news(doing, &error) {
            log::warn!("{bond}: cannot {doing}: {error}");
        }
        None
    }

    fn is_news(&mut self, doing: &str, error: &str) -> bool {
        let before = self.0.insert(doing.to_owned(), error.to_owned());
        before.as_deref() != Some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_again_for_another_reason_and_after_it_worked() {
        let mut failing = Failing::default();
        for (news, error) in [(true, "busy"), (false, "busy"), (true, "gone"), (false, "gone")] {
            assert_eq!(failing.is_news("hear eth0", error), news, "{error}");
        }
        assert!(failing.is_news("hear eth1", "gone"), "of its own");
        assert_eq!(failing.note("bond0", "hear eth0", Ok::<_, String>(7)), Some(7));
        assert_eq!(failing.note("bond0", "hear eth0", Err::<(), _>("gone")), None);
        assert!(!failing.is_news("hear eth0", "gone"), "noted");
        assert!(!failing.is_news("hear eth1", "gone"), "of its own");
    }
}
