//! Changes of bonds: for clients, for option files, and because interfaces came or went. A thread of its own makes them, one after the
//! other, because they wait for the kernel. The loop goes on meanwhile.
//!
//! | File | What |
//! |---|---|
//! | `change`, `changer` | a change at work, which has the instances on loan; the thread, and the loop's side of it |
//! | `start`, `adoption` | what a start does; bonds are taken over |
//! | `follow` | bonds become what the option files say |
//! | `calls`, `port_calls` | what clients ask for |
//! | `attach`, `give_back` | ports join, and get back what they were |
//! | `saving` | what a restart needs is on disk before it is needed |

mod adoption;
mod attach;
mod calls;
mod change;
mod changer;
mod follow;
mod give_back;
mod port_calls;
mod saving;
mod start;

#[cfg(test)]
pub(super) use change::Change;
pub use change::Desk;
pub use changer::{Changer, Outcome};
pub use start::{check_options, check_options_on};
