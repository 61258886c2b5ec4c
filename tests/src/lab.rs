//! The two set-ups that most tests use: a bond on each side of two cables, and a bond that faces a switch.

use std::net::Ipv4Addr;

use crate::daemon::{Daemon, Settings};
use crate::machine::Machine;
use crate::netns::{Cable, Netns, Switch};
use crate::traffic::{Flow, Rate};
use crate::unsubscribe::unsubscribe_from_links;

/// A namespace with an agent and its `bond0` over `eth0` and `eth1`.
#[derive(Debug)]
pub struct Bench {
    /// The agent; dropped before the namespace.
    pub daemon: Daemon,
    /// Where it all is.
    pub netns: Netns,
}

impl Bench {
    /// Starts an agent in a namespace that has the ports already and makes the bond: up, addressed, ports attached.
    #[track_caller]
    pub fn new(netns: Netns, address: Ipv4Addr, settings: Settings, options: &str) -> Bench {
        let daemon = Daemon::start_with(&netns, settings);
        daemon.ctl(&format!("add bond0 mode=active-backup {options}"));
        daemon.ctl("port add bond0 eth0 eth1");
        netns.ip("link set bond0 up");
        netns.ip(&format!("addr add {address}/24 dev bond0"));
        let bench = Bench { daemon, netns };
        bench.daemon.wait_link("bond0", "eth0", "up");
        bench.daemon.wait_link("bond0", "eth1", "up");
        bench
    }

    /// Makes the neighbour known for ever, so that no ARP takes part in a measurement.
    pub fn know(&self, address: Ipv4Addr, mac: &str) {
        self.netns
            .ip(&format!("neigh replace {address} lladdr {mac} dev bond0 nud permanent"));
    }
}

/// `left` and `right`, a bond on each, two cables between them.
#[derive(Debug)]
pub struct TwoBonds {
    /// Has [`LEFT`].
    pub left: Bench,
    /// Has [`RIGHT`].
    pub right: Bench,
    /// `eth0` to `eth0` and `eth1` to `eth1`; the near end is the left one.
    pub cables: [Cable; 2],
    _machine: Machine,
}

impl TwoBonds {
    /// With these words for `bondctl add bond0 mode=active-backup` on both sides.
    #[track_caller]
    pub fn new(machine: Machine, options: &str) -> TwoBonds {
        TwoBonds::with(machine, Settings::default(), options)
    }

    /// With agents started this way.
    #[track_caller]
    pub fn with(machine: Machine, settings: Settings, options: &str) -> TwoBonds {
        let (left, right) = (Netns::new("left"), Netns::new("right"));
        let cables = ["eth0", "eth1"].map(|name| Cable::new(&left, name, &right, name));
        let left = Bench::new(left, LEFT, settings.clone(), options);
        let right = Bench::new(right, RIGHT, settings, options);
        left.know(RIGHT, &right.netns.mac("bond0"));
        right.know(LEFT, &left.netns.mac("bond0"));
        TwoBonds {
            left,
            right,
            cables,
            _machine: machine,
        }
    }

    /// Takes link events away from both agents, which are left with polls; see [`unsubscribe`](crate::unsubscribe).
    #[track_caller]
    pub fn unsubscribe_from_links(&self) {
        for side in [&self.left, &self.right] {
            unsubscribe_from_links(side.daemon.pid());
        }
    }

    /// Traffic from left to right.
    #[track_caller]
    pub fn flow(&self, rate: Rate) -> Flow {
        Flow::start(&self.left.netns, &self.right.netns, RIGHT, rate)
    }

    /// Waits until both sides use that port.
    #[track_caller]
    pub fn wait_active(&self, port: &str) {
        self.left.daemon.wait_active("bond0", port);
        self.right.daemon.wait_active("bond0", port);
    }
}

/// A host with a bond whose ports lead to one switch; the switch itself has [`RIGHT`].
#[derive(Debug)]
pub struct BondAndSwitch {
    /// Has [`LEFT`].
    pub host: Bench,
    /// Answers on `br0`.
    pub switch: Switch,
    /// From `eth0` to switch port `p0`, `eth1` to `p1`.
    pub cables: [Cable; 2],
    _machine: Machine,
}

impl BondAndSwitch {
    /// With these words for `bondctl add bond0 mode=active-backup`.
    #[track_caller]
    pub fn new(machine: Machine, options: &str) -> BondAndSwitch {
        BondAndSwitch::with(machine, Settings::default(), options)
    }

    /// With an agent started this way.
    #[track_caller]
    pub fn with(machine: Machine, settings: Settings, options: &str) -> BondAndSwitch {
        let (netns, switch) = (Netns::new("host"), Switch::new());
        let cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&netns, name, port));
        switch.netns.ip(&format!("addr add {RIGHT}/24 dev br0"));
        let host = Bench::new(netns, LEFT, settings, options);
        host.know(RIGHT, &switch.netns.mac("br0"));
        switch.netns.ip(&format!(
            "neigh replace {LEFT} lladdr {} dev br0 nud permanent",
            host.netns.mac("bond0")
        ));
        BondAndSwitch {
            host,
            switch,
            cables,
            _machine: machine,
        }
    }

    /// Traffic from the host to the switch.
    #[track_caller]
    pub fn flow(&self, rate: Rate) -> Flow {
        Flow::start(&self.host.netns, &self.switch.netns, RIGHT, rate)
    }

    /// Traffic from the switch to the host.
    #[track_caller]
    pub fn flow_back(&self, rate: Rate) -> Flow {
        Flow::start(&self.switch.netns, &self.host.netns, LEFT, rate)
    }
}

/// Address of the left host's bond.
pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the right host's bond, or of the switch.
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
