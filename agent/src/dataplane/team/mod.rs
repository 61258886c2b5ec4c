//! The team data plane: the kernel's team driver, told over generic netlink what to forward.
//!
//! | File | What |
//! |---|---|
//! | `hash` | programs that make its loadbalance mode choose ports as the bonding driver does |

pub mod hash;
