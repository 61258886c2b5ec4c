//! A bond with many ports, each cabled to a neighbour, and the cost of monitoring them.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use crate::daemon::{Daemon, LIMIT};
use crate::machine::Machine;
use crate::netns::{Cable, Netns};
use crate::process::processor_time;
use crate::wait::wait_for;

/// A balance-xor bond whose ports all lead to one host, which answers for every target on every cable.
#[derive(Debug)]
pub struct ManyPorts {
    daemon: Daemon,
    netns: Netns,
    _far: Netns,
    _machine: Machine,
}

/// Work of the agent per second, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Share of one processor, between 0 and 1, with what the kernel does for it.
    pub share: f64,
    /// Frames that left by the ports.
    pub sent: f64,
    /// Frames that arrived at them.
    pub heard: f64,
}

impl ManyPorts {
    /// Makes this number of ports and targets with these monitor options; returns when all ports are up.
    #[track_caller]
    pub fn new(ports: usize, targets: u8, options: &str) -> ManyPorts {
        let machine = Machine::alone();
        let (netns, far) = (Netns::new("many"), Netns::new("far"));
        for target in targets_of(targets) {
            far.ip(&format!("addr add {target}/32 dev lo"));
        }
        let names: Vec<String> = (0..ports).map(|number| format!("eth{number}")).collect();
        for name in &names {
            Cable::new(&netns, name, &far, name);
        }
        let daemon = Daemon::start(&netns);
        daemon.ctl(&format!("add bond0 mode=balance-xor {options}"));
        daemon.ctl(&format!("port add bond0 {}", names.join(" ")));
        netns.ip("link set bond0 up");
        netns.ip("addr add 10.77.0.1/24 dev bond0");
        wait_for("all ports are up", LIMIT, || {
            let bond = daemon.bond("bond0");
            bond["ports"]
                .as_array()
                .is_some_and(|ports| ports.iter().all(|port| port["link"] == "up"))
        });
        ManyPorts {
            daemon,
            netns,
            _far: far,
            _machine: machine,
        }
    }

    /// Watches for so long.
    ///
    /// # Panics
    /// When a port goes down meanwhile.
    #[track_caller]
    pub fn effort(&self, time: Duration) -> Effort {
        // The work at the start of the ports is done.
        thread::sleep(Duration::from_secs(1));
        let pid = self.daemon.pid();
        let (used, frames) = (processor_time(pid), self.frames());
        thread::sleep(time);
        let (used, [sent, heard]) = (processor_time(pid) - used, self.frames());
        let bond = self.daemon.bond("bond0");
        let up = |port: &serde_json::Value| port["link"] == "up" && port["link_failures"] == 0;
        assert!(
            bond["ports"].as_array().is_some_and(|ports| ports.iter().all(up)),
            "{bond}"
        );
        let seconds = time.as_secs_f64();
        Effort {
            share: used.as_secs_f64() / seconds,
            sent: (sent - frames[0]) as f64 / seconds,
            heard: (heard - frames[1]) as f64 / seconds,
        }
    }

    /// Sent and heard by all ports since they were made.
    fn frames(&self) -> [u64; 2] {
        let links = self.netns.links();
        let ports = links
            .iter()
            .filter(|link| link["ifname"].as_str().is_some_and(|name| name.starts_with("eth")));
        ports.fold([0, 0], |[sent, heard], port| {
            let packets = |way: &str| port["stats64"][way]["packets"].as_u64().expect("ip -s counts");
            [sent + packets("tx"), heard + packets("rx")]
        })
    }
}

/// Addresses of that many targets.
pub fn targets_of(count: u8) -> Vec<Ipv4Addr> {
    (0..count)
        .map(|number| Ipv4Addr::new(10, 77, 0, 100 + number))
        .collect()
}
