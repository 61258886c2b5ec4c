//! What the kernel says about interfaces, and what we ask of it.
//!
//! [`Links`] asks and orders over request sockets, [`Events`] listens on a multicast socket of its own. Nothing here decides;
//! every error carries the kernel's errno. All sockets belong to the network namespace in which they were opened.

mod call;
pub mod events;
mod fdb;
pub mod groups;
pub mod link;
mod message;
pub mod mii;
mod qdisc;
pub mod queue;
mod route;
pub mod sysctl;

pub(crate) use call::{PATIENCE, readable_before};
pub use events::{Drained, Events, LinkEvent};
pub use fdb::Station;
pub use groups::Memberships;
pub use link::{Links, Statistics};
pub use message::Link;
pub use qdisc::Filter;
pub use route::Route;

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    /// What this thread has asked rtnetlink.
    pub(crate) mod asks {
        use std::cell::Cell;
        use std::io;

        thread_local! {
            static MADE: Cell<usize> = const { Cell::new(0) };
            static FAILS: Cell<Option<usize>> = const { Cell::new(None) };
            static LOST: Cell<bool> = const { Cell::new(false) };
        }

        /// How often it has asked so far.
        pub(crate) fn made() -> usize {
            MADE.get()
        }

        /// Lets a question fail: the next one for 0, the one after for 1.
        pub(crate) fn fail_at(later: usize) {
            FAILS.set(Some(MADE.get() + later));
        }

        /// Lets the answer to the next question be lost, whatever the kernel does.
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

    /// The same for any other program, such as bridge(8) and tc(8).
    pub(crate) fn run(program: &str, line: &str) {
        let done = Command::new(program).args(line.split(' ')).status();
        assert!(done.is_ok_and(|status| status.success()), "{program} {line}");
    }
}
