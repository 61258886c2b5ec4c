//! Ports that were moved to another network namespace.

use bond_modes::PortId;
use bond_modes::plan::PortPlan;

use super::error::PlaneError;
use super::owner::marked_bond;
use super::plane::OriginalPort;
use super::port::{is_mark, name_of, restore};
use super::step::{Failures, port_step, step};
use crate::netlink::{Link, RouteSocket};

/// A port that was moved while its bond had it.
#[derive(Clone, Debug)]
pub struct MovedPort {
    /// Its index where it is now.
    pub ifindex: u32,
    /// The bond that had it.
    pub bond: String,
    /// What it was before that.
    pub original: OriginalPort,
    /// What the bond gave it; `None` if that is not known.
    pub given: Option<PortPlan>,
}

/// What came of an attempt to give a moved port back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It has its own settings.
    Restored,
    /// It is not there any more, or has lost the mark: nothing of it is ours to change.
    NotOurs,
}

impl MovedPort {
    /// What gives it its own settings back, for an operator.
    pub fn commands(&self, name: &str) -> String {
        let OriginalPort {
            mac,
            mtu,
            allmulti,
            promisc,
            ifalias,
            ..
        } = &self.original;
        let word = |on: bool| if on { "on" } else { "off" };
        format!(
            "ip link set {name} address {mac} mtu {mtu} allmulticast {} promisc {} alias '{ifalias}'",
            word(*allmulti),
            word(*promisc)
        )
    }

    /// What is to be restored of it: not what has been set there since. It is down after the move, and for whoever moved it to set up;
    /// IPv6 and qdiscs begin anew in each namespace.
    fn wanted(&self, now: &Link) -> OriginalPort {
        let mut wanted = OriginalPort {
            admin_up: false,
            disable_ipv6: None,
            ..self.original.clone()
        };
        if let Some(given) = self.given {
            if now.report.mac != given.mac {
                wanted.mac = now.report.mac;
            }
            if now.report.mtu != given.mtu {
                wanted.mtu = now.report.mtu;
            }
            if now.promisc_flag != given.promisc {
                wanted.promisc = now.promisc_flag;
            }
        }
        wanted
    }
}

/// Gives a port back in the network namespace of the calling thread. The kernel holds its RTNL lock from the event of the move to the
/// end of that, so the port is there by now.
///
/// # Errors
/// A setting cannot be restored; or a bond here has the name of the one that had it, and it may be a port of that.
pub fn restore_moved(moved: &MovedPort) -> Result<Settled, PlaneError> {
    let port = PortId(moved.ifindex);
    let mut links = step(
        || "open a socket for requests to the kernel".to_owned(),
        RouteSocket::open,
    )?;
    let read = || format!("read {}", name_of(port));
    let Some(mut link) = step(read, || links.by_index(port.0))? else {
        return Ok(Settled::NotOurs);
    };
    if !is_mark(&link.alias) {
        return Ok(Settled::NotOurs);
    }
    let name = link.report.name.clone();
    let of = || format!("tell whether {name} is a port there");
    if let Some(bond) = port_step(port, of, || marked_bond(&mut links, &link))? {
        let text = format!("there is a bond {} there, whose port it may be", bond.report.name);
        return step(of, || Err(std::io::Error::other(text)));
    }
    // So it is neither set up nor, for a driver that wants that before it takes an address, down: its routes would go.
    link.report.admin_up = false;
    let wanted = moved.wanted(&link);
    let mut errors = Failures::default();
    restore(&mut links, port, &link, &wanted, &mut errors);
    errors.result().map(|()| Settled::Restored)
}
