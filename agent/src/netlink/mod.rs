//! Interfaces of the kernel: reading, changing and listening to changes.
//!
//! [`RouteSocket`] sends requests, [`Events`] listens on a multicast socket of its own. Nothing here decides;
//! every error carries the kernel's errno. All sockets belong to the network namespace in which they were opened.

mod call;
pub mod carriers;
pub mod events;
mod fdb;
pub mod groups;
pub mod link;
mod message;
pub mod mii;
mod namespace;
mod netkit;
mod qdisc;
pub mod queue;
mod route;
pub mod sysctl;

pub(crate) use call::{PATIENCE, readable_before};
pub use events::{Drained, Events, LinkEvent, Moved};
pub use fdb::LearnedHost;
pub use groups::Groups;
pub use link::{RouteSocket, Statistics};
pub use message::{Address, Link, LinkState};
pub use qdisc::Filter;
pub use route::Route;

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    pub(crate) use super::call::tests::slow;

    /// Requests of this thread to rtnetlink.
    pub(crate) mod asks {
        use std::cell::{Cell, RefCell};
        use std::io;

        thread_local! {
            static MADE: Cell<usize> = const { Cell::new(0) };
            static FAILS: Cell<Option<usize>> = const { Cell::new(None) };
            static LOST: Cell<bool> = const { Cell::new(false) };
            static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
            static WATCHED: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
        }

        /// Has this done before each request of this thread.
        pub(crate) fn watch(work: impl FnMut() + 'static) {
            WATCHED.replace(Some(Box::new(work)));
        }

        /// Nothing that may wait for RTNL or a grace period may be done by this thread while this lives.
        pub(crate) struct Forbidden {
            before: bool,
        }

        pub(crate) fn forbid() -> Forbidden {
            let before = FORBIDDEN.replace(true);
            Forbidden { before }
        }

        impl Drop for Forbidden {
            fn drop(&mut self) {
                FORBIDDEN.set(self.before);
            }
        }

        /// To be called by what may wait for it.
        pub(crate) fn may_wait() {
            assert!(!FORBIDDEN.get(), "this may wait for the kernel");
        }

        /// Number of requests so far.
        pub(crate) fn made() -> usize {
            MADE.get()
        }

        /// Makes one request fail: 0 means the next one, 1 the one after it.
        pub(crate) fn fail_at(later: usize) {
            FAILS.set(Some(MADE.get() + later));
        }

        /// Drops the answer to the next request.
        pub(crate) fn lose_answer() {
            LOST.set(true);
        }

        pub(crate) fn lose<T>(answer: io::Result<T>) -> io::Result<T> {
            match LOST.take() {
                true => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
                false => answer,
            }
        }

        pub(crate) fn here() -> io::Result<()> {
            may_wait();
            if let Some(mut work) = WATCHED.take() {
                work();
                WATCHED.replace(Some(work));
            }
            let number = MADE.replace(MADE.get() + 1);
            match FAILS.get() {
                Some(fails) if fails == number => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                _ => Ok(()),
            }
        }
    }

    /// Runs `body` in an empty network namespace of its own, which ends with it. Needs root.
    pub(crate) fn in_netns<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace; run it as root");
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs ip(8) in the calling thread's namespace; the words of `line` are its arguments.
    pub(crate) fn ip(line: &str) {
        run("ip", line);
    }

    /// The same for another program, such as bridge(8) or tc(8).
    pub(crate) fn run(program: &str, line: &str) {
        let done = Command::new(program).args(line.split(' ')).status();
        assert!(done.is_ok_and(|status| status.success()), "{program} {line}");
    }
}
