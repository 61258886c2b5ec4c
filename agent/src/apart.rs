//! Work on a thread of its own that is waited for: what the thread changes of itself, such as its namespaces, ends with it.

use std::io;
use std::thread;

/// Does `work` on a new thread.
///
/// # Errors
/// The thread cannot be made, and nothing was done; or it panicked.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    beside(work, || ()).0
}

/// Does `there` on a new thread, and meanwhile `here` on this one. The errors of the first are those of [`apart`].
pub fn beside<T: Send, H>(there: impl FnOnce() -> T + Send, here: impl FnOnce() -> H) -> (io::Result<T>, H) {
    thread::scope(|scope| {
        let thread = builder().spawn_scoped(scope, there);
        let done_here = here();
        let done_there = thread
            .map_err(|error| no_thread(&error))
            .and_then(|thread| thread.join().map_err(|_| io::Error::other("its thread panicked")));
        (done_there, done_here)
    })
}

/// That a thread is refused, and what to do.
pub fn no_thread(error: &io::Error) -> io::Error {
    io::Error::other(format!(
        "no thread can be made ({error}): bondd, its user or its control group may have no more threads or no more memory \
         (TasksMax= and MemoryMax= of systemd, ulimit -u)"
    ))
}

fn builder() -> thread::Builder {
    #[cfg(test)]
    if tests::REFUSED.get() {
        return thread::Builder::new().stack_size(tests::TOO_LARGE);
    }
    thread::Builder::new()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    /// Does `work` while the system makes no thread for the calling one.
    pub(crate) fn refused<T>(work: impl FnOnce() -> T) -> T {
        REFUSED.set(true);
        let done = work();
        REFUSED.set(false);
        done
    }

    thread_local! {
        pub(super) static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    /// A stack for which no machine has addresses.
    pub(super) const TOO_LARGE: usize = 1 << 62;

    #[test]
    fn a_thread_that_cannot_be_made_or_panics_is_an_error() {
        assert_eq!(apart(|| 7).unwrap(), 7);
        let refused = refused(|| apart::<()>(|| panic!("it is not run")));
        let said = refused.unwrap_err().to_string();
        assert!(
            said.starts_with("no thread can be made (") && said.contains("TasksMax="),
            "{said}"
        );
        let panicked = apart::<()>(|| panic!("as it is to be"));
        assert_eq!(panicked.unwrap_err().to_string(), "its thread panicked");
    }
}
