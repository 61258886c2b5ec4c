//! Changes of bonds: for clients, for option files, and because interfaces came or went.
//!
//! | File | What |
//! |---|---|
//! | `start`, `adoption` | what a start does; bonds are taken over |
//! | `follow` | bonds become what the option files say |
//! | `calls`, `port_calls` | what clients ask for |
//! | `attach`, `give_back` | ports join, and get back what they were |

mod adoption;
mod attach;
mod calls;
mod follow;
mod give_back;
mod port_calls;
mod start;

pub use start::{check_options, check_options_on};
