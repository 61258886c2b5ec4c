//! What the kernel says about interfaces, and what we ask of it.
//!
//! [`Links`] asks and orders over request sockets, [`Events`] listens on a multicast socket of its own. Nothing here decides;
//! every error carries the kernel's errno. All sockets belong to the network namespace in which they were opened.

mod call;
pub mod events;
pub mod link;
mod message;
pub mod mii;
mod qdisc;
pub mod sysctl;

pub use events::{Drained, Events, LinkEvent};
pub use link::Links;
pub use message::Link;

#[cfg(test)]
pub(crate) mod tests {
    use nix::sched::{CloneFlags, unshare};

    /// Runs `body` in an empty network namespace of its own, which ends with it. Needs root.
    pub(crate) fn in_netns<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace; run it as root");
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
