//! Which bond has an interface as a port, of whichever agent.

use std::io;

use super::plane::PORT_MARK;
use super::tc;
use crate::netlink::{Link, RouteSocket};

/// The bond as whose port an interface is marked, if there is one of that name: of this agent, of another one, or of one that has
/// crashed. The mark of a bond that is gone is left over.
pub fn marked_bond(links: &mut RouteSocket, link: &Link) -> io::Result<Option<Link>> {
    let Some(name) = link.alias.strip_prefix(PORT_MARK) else {
        return Ok(None);
    };
    let Some(bond) = links.by_name(name)? else {
        return Ok(None);
    };
    let is_bond = bond.kind.as_deref() == Some("team") || tc::is_bond(links, &bond)?;
    Ok(is_bond.then_some(bond))
}
