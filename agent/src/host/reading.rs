//! A reading of all interfaces, while events go on.
//!
//! The answer is a state of some moment after the reading was asked for. What an event said since then is at least as new, and
//! complete: what was lost before was lost before the reading, too. So an answer counts only for interfaces without an event since.

use std::collections::BTreeSet;

use crate::netlink::Link;

/// Names a reading that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadingId(pub(super) u64);

/// A reading that is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) id: ReadingId,
    /// Interfaces that events described since it was asked for.
    pub(super) touched: BTreeSet<u32>,
    /// Interfaces whose addresses changed since then.
    pub(super) addressed: BTreeSet<u32>,
}

/// What a reading found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Interfaces that are not there any more, with the names they had.
    pub gone: Vec<(u32, String)>,
    /// Interfaces whose state it brought, the same as before or not.
    pub links: Vec<Link>,
}
