//! In the lab's machine: instructions of frames, streams and questions, through the bond of each competitor.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::rival::{Bond, Mode, PORTS, Programs, Rival};
use crate::netns::{Cable, Netns, run};
use crate::wait::wait_for;

/// Measures each, with so many frames, and prints a JSON object for it.
pub fn play(frames: u32) {
    println!("{}", json!({"setting": setting()}));
    for mode in [Mode::ActiveBackup, Mode::Spread] {
        for rival in Rival::ALL {
            if rival != Rival::Raw || mode == Mode::ActiveBackup {
                let seen = measure(rival, mode, frames);
                let spread = mode == Mode::Spread;
                println!(
                    "{}",
                    json!({"cost": rival.name(), "spread": spread, "instructions": seen})
                );
            }
        }
    }
}

/// The kernel and the competitors' versions.
fn setting() -> String {
    let uname = nix::sys::utsname::uname().expect("uname(2) cannot fail");
    let version = |program: &str| {
        let said = run(Command::new(program).arg("--version"));
        said.lines().next().unwrap_or_default().to_owned()
    };
    let kernel = uname.release().to_string_lossy().into_owned();
    format!("Linux {kernel}, {}, {}", version("teamd"), version("ovs-vswitchd"))
}

/// Of a frame sent, one received, 64 KiB of a stream, and a question with its answer.
fn measure(rival: Rival, mode: Mode, frames: u32) -> [f64; 4] {
    let wire = Wire::new();
    let watch = match rival {
        Rival::Raw | Rival::OpenVswitch => "",
        Rival::Kernel => "miimon 100",
        Rival::Teamd => r#"{"name": "ethtool"}"#,
        Rival::Tc | Rival::Netkit | Rival::Team => "miimon=100",
    };
    let bond = Bond::new(rival, &wire.near, mode, watch);
    let interface = rival.interface();
    wire.address(interface);
    wait_for("carrier", LIMIT, || wire.near.running(interface));
    // Router solicitations and the like are over.
    thread::sleep(QUIET);
    // Open vSwitch's kernel asks its daemon once what becomes of such frames.
    wire.ask_all(100);
    bond.signal(libc::SIGSTOP);
    let seen = wire.ask_all(frames);
    bond.signal(libc::SIGCONT);
    let passed = wire.near.link(interface).expect("it is there")["stats64"].take();
    for way in ["rx", "tx"] {
        let count = passed[way]["packets"].as_u64().unwrap_or_default();
        assert!(count >= u64::from(frames), "{count} frames went through {interface}");
    }
    seen
}

/// Two hosts with two cables between them. The far one has no bond: it takes what comes by either cable, and sends by the first.
struct Wire {
    near: Netns,
    far: Netns,
    _sinks: Programs,
}

impl Wire {
    fn new() -> Wire {
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

    fn ask_all(&self, frames: u32) -> [f64; 4] {
        let count = frames.to_string();
        let (near, far) = (NEAR.to_string(), FAR.to_string());
        [
            number(&self.near, &[SENDER, &far, &count]),
            number(&self.far, &[SENDER, &near, &count]),
            number(
                &self.near,
                &[SENDER, "--stream", &far, &(frames / 2).max(512).to_string()],
            ),
            number(&self.near, &[SENDER, "--ask", &far, &(frames / 4).max(100).to_string()]),
        ]
    }
}

fn number(netns: &Netns, words: &[&str]) -> f64 {
    let said = netns.exec(words);
    said.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{words:?} printed {said}"))
}

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const FAR_MAC: &str = "02:00:00:00:5b:02";
const SENDER: &str = "bondd-send-frames";
const LIMIT: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_secs(5);
