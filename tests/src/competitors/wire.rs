//! In the lab's machine: two hosts with two cables between them, and programs that take what is sent.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::rival::{PORTS, Programs};
use crate::netns::{Cable, Netns};
use crate::wait::wait_for;

/// Two hosts with two cables between them. The far one has no bond: it takes what comes by either cable, and sends by the first.
#[derive(Debug)]
pub struct Wire {
    /// Has the bond.
    pub near: Netns,
    /// Has none.
    pub far: Netns,
    _sinks: Programs,
}

impl Wire {
    /// Programs at both ends take frames, and the far one reads streams and answers questions, see [`SENDER`].
    pub fn new() -> Wire {
        let (near, far) = (Netns::new("near"), Netns::new("far"));
        for port in PORTS {
            Cable::new(&near, port, &far, port);
            far.ip(&format!("link set {port} address {FAR_MAC}"));
        }
        far.ip(&format!("addr add {FAR}/24 dev eth0"));
        let sink = |netns: &Netns, what: &str| {
            let mut command = netns.command(SENDER);
            let child = command.arg(what).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            child.unwrap_or_else(|e| panic!("cannot start {SENDER}: {e}"))
        };
        let sinks = vec![sink(&near, "--full"), sink(&far, "--full"), sink(&far, "--serve")];
        Wire {
            near,
            far,
            _sinks: Programs(sinks),
        }
    }

    /// Gives the bond its address, and waits until nothing but what is measured is on the wire.
    pub fn settle(&self, interface: &str) {
        self.address(interface);
        wait_for("carrier", LIMIT, || self.near.running(interface));
        // Router solicitations and the like are over.
        thread::sleep(QUIET);
    }

    fn address(&self, interface: &str) {
        self.near.ip(&format!("link set {interface} up"));
        self.near.ip(&format!("addr add {NEAR}/24 dev {interface}"));
        let mac = self.near.mac(interface);
        self.near.ip(&format!(
            "neigh replace {FAR} lladdr {FAR_MAC} dev {interface} nud permanent"
        ));
        self.far
            .ip(&format!("neigh replace {NEAR} lladdr {mac} dev eth0 nud permanent"));
    }
}

impl Default for Wire {
    fn default() -> Self {
        Wire::new()
    }
}

/// Of the bond.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Of the host without one.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Sends and takes frames, streams and questions.
pub const SENDER: &str = "bondd-send-frames";
const FAR_MAC: &str = "02:00:00:00:5b:02";
const LIMIT: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_secs(5);
