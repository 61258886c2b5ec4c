//! A reading of all interfaces, while events go on.
//!
//! The answer is a state of some moment after the reading was asked for. What an event said of an interface since then is at least
//! as new, and complete: what was lost before was lost before the reading, too. So an answer counts only for interfaces without an
//! event since. Of addresses an event tells one change; the answer counts with the changes since.

use std::collections::{BTreeMap, BTreeSet};

use crate::netlink::{Address, Link};

/// A reading that is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Interfaces of which more is known since it was asked for, by events above all.
    pub(super) touched: BTreeSet<u32>,
    /// Addresses that came (`true`) or went since then.
    pub(super) addressed: BTreeMap<(u32, Address), bool>,
    /// Events were lost meanwhile.
    pub(super) outdated: bool,
}

/// What a reading found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Interfaces that are not there any more, with the names they had.
    pub gone: Vec<(u32, String)>,
    /// Interfaces whose state it brought, which differs from the one before.
    pub links: Vec<Link>,
    /// Interfaces that are as they were.
    pub same: Vec<u32>,
    /// Events were lost meanwhile: another reading is needed.
    pub outdated: bool,
}
