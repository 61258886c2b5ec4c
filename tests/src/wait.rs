//! Waiting for a condition with a deadline, instead of sleeping and hoping.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(2);

/// Asks until there is an answer or the time is over.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until the condition holds and says how long that took.
///
/// # Panics
/// When it does not hold within the limit; the message has `what`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    match until(limit, || holds().then_some(())) {
        Some(()) => start.elapsed(),
        None => panic!("not within {limit:?}: {what}"),
    }
}
