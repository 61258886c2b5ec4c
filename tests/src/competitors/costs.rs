//! In the lab's machine: instructions of frames, streams and questions, through the bond of each competitor.

use std::process::Command;

use serde_json::json;

use super::rival::{Bond, Mode, Rival};
use super::wire::{FAR, NEAR, SENDER, Wire};
use crate::netns::{Netns, run};

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
pub(super) fn setting() -> String {
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
    let bond = Bond::new(rival, &wire.near, mode, rival.watch());
    let interface = rival.interface();
    wire.settle(interface);
    // Open vSwitch's kernel asks its daemon once what becomes of such frames.
    ask_all(&wire, 100);
    bond.signal(libc::SIGSTOP);
    let seen = ask_all(&wire, frames);
    bond.signal(libc::SIGCONT);
    let passed = wire.near.link(interface).expect("it is there")["stats64"].take();
    for way in ["rx", "tx"] {
        let count = passed[way]["packets"].as_u64().unwrap_or_default();
        assert!(count >= u64::from(frames), "{count} frames went through {interface}");
    }
    seen
}

fn ask_all(wire: &Wire, frames: u32) -> [f64; 4] {
    let count = frames.to_string();
    let (near, far) = (NEAR.to_string(), FAR.to_string());
    [
        number(&wire.near, &[SENDER, &far, &count]),
        number(&wire.far, &[SENDER, &near, &count]),
        number(
            &wire.near,
            &[SENDER, "--stream", &far, &(frames / 2).max(512).to_string()],
        ),
        number(&wire.near, &[SENDER, "--ask", &far, &(frames / 4).max(100).to_string()]),
    ]
}

fn number(netns: &Netns, words: &[&str]) -> f64 {
    let said = netns.exec(words);
    said.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{words:?} printed {said}"))
}
