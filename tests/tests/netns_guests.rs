//! A guest behind a bridge above the bond stays where the bridge saw it, whatever a switch floods back to a port that waits; one
//! that moved to another host is found there.

use std::time::{Duration, Instant};

use bondd_tests::capture::Capture;
use bondd_tests::daemon::LIMIT;
use bondd_tests::lab::{LEFT, RIGHT};
use bondd_tests::machine::Machine;
use bondd_tests::raw::Raw;
use bondd_tests::{BondAndSwitch, Cable, Netns, wait_for};

/// Why a port is not in use although it lets in frames to one station.
#[derive(Clone, Copy, Debug)]
enum Reason {
    Updelay,
    DownByArp,
    JustLeft,
}

impl Reason {
    fn options(self) -> String {
        match self {
            Reason::DownByArp => format!("arp_interval=100 arp_ip_target={RIGHT} arp_validate=all"),
            Reason::Updelay | Reason::JustLeft => "miimon=100".to_owned(),
        }
    }

    /// Makes a port wait; returns its name and the switch port of the one in use.
    fn bring_about(self, bench: &BondAndSwitch) -> (&'static str, &'static str) {
        let daemon = &bench.host.daemon;
        daemon.wait_active("bond0", "eth0");
        match self {
            Reason::Updelay => {
                daemon.ctl("set bond0 updelay=60000");
                bench.cables[1].pull();
                daemon.wait_link("bond0", "eth1", "down");
                bench.cables[1].plug();
                daemon.wait_link("bond0", "eth1", "going back");
                ("eth1", "p0")
            }
            Reason::DownByArp => {
                // The backup port is judged by the active one's requests, which are broadcast.
                let quiet = [
                    "bridge",
                    "link",
                    "set",
                    "dev",
                    "p1",
                    "bcast_flood",
                    "off",
                    "mcast_flood",
                    "off",
                ];
                bench.switch.netns.exec(&quiet);
                daemon.wait_link("bond0", "eth1", "down");
                ("eth1", "p0")
            }
            Reason::JustLeft => {
                daemon.wait_link("bond0", "eth1", "up");
                daemon.ctl("active bond0 eth1");
                ("eth0", "p1")
            }
        }
    }
}

/// A bridge above the bond, with a guest behind it.
struct Hosting {
    bench: BondAndSwitch,
    guests: Netns,
    cable: Cable,
}

impl Hosting {
    fn new(reason: Reason) -> Hosting {
        let bench = BondAndSwitch::new(Machine::alone(), &reason.options());
        let (netns, guests) = (&bench.host.netns, Netns::new("guests"));
        let cable = Cable::new(netns, "tap0", &guests, "eth0");
        netns.ip(&format!("addr del {LEFT}/24 dev bond0"));
        netns.ip("link add br0 address 02:00:00:00:5b:02 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        netns.ip(&format!("addr add {LEFT}/24 dev br0"));
        for port in ["bond0", "tap0"] {
            netns.ip(&format!("link set {port} master br0"));
        }
        netns.ip("link set br0 up");
        bench.switch.netns.ip(&format!("neigh del {LEFT} dev br0"));
        let promiscuous = |port: &str| {
            netns
                .link(port)
                .is_some_and(|link| link["flags"].to_string().contains("PROMISC"))
        };
        wait_for("the ports hear what is for others", LIMIT, || {
            promiscuous("eth0") && promiscuous("eth1")
        });
        Hosting { bench, guests, cable }
    }

    /// The guest sends frames to a station that the switch does not know.
    fn guest_sends(&self) {
        self.guests.enter(|| {
            let raw = Raw::open("eth0", 0);
            (0..3).for_each(|_| raw.send(&frame([2, 0, 0, 0, 0x77, 0x77], GUEST_MAC)));
        });
    }

    /// Whether the bridge above the bond knows a station behind this port.
    fn known_at(&self, station: &str, port: &str) -> bool {
        let table = self
            .bench
            .host
            .netns
            .exec(&["bridge", "fdb", "show", "br", "br0", "dev", port]);
        table.lines().any(|line| line.starts_with(station))
    }
}

/// Whether the bridge above the bond takes the guest for somebody outside after the switch flooded its frames, so that it gets
/// nothing from there.
fn is_lost(reason: Reason) -> bool {
    let hosting = Hosting::new(reason);
    let (bench, guests) = (&hosting.bench, &hosting.guests);
    let netns = &bench.host.netns;
    let at_waiting = ["eth0", "eth1"].map(|port| (port, Capture::start(netns, port, &format!("ether src {GUEST}"))));
    let at_guest = Capture::start(guests, "eth0", &format!("ether dst {GUEST}"));
    let (waiting, in_use) = reason.bring_about(bench);
    hosting.guest_sends();
    let (_, came_back) = at_waiting
        .iter()
        .find(|(port, _)| *port == waiting)
        .expect("one of the two");
    came_back.wait(3, &[]);
    // What a stranger sends behind them is let in at the port that waits: all of them have been dealt with.
    let other_end = if waiting == "eth0" { "p0" } else { "p1" };
    bench
        .switch
        .netns
        .enter(|| Raw::open(other_end, 0).send(&frame([2, 0, 0, 0, 0x77, 0x78], [2, 0, 0, 0, 0x55, 1])));
    wait_for("the bridge knows the stranger", LIMIT, || {
        hosting.known_at("02:00:00:00:55:01", "bond0")
    });
    let lost = hosting.known_at(GUEST, "bond0");
    if !lost {
        assert!(hosting.known_at(GUEST, "tap0"));
        let answer = frame(GUEST_MAC, [2, 0, 0, 0, 0x55, 2]);
        bench.switch.netns.enter(|| Raw::open(in_use, 0).send(&answer));
        at_guest.wait(1, &[]);
    }
    lost
}

#[test]
fn a_guest_that_moved_behind_the_switch_is_heard_through_a_port_that_waits() {
    let hosting = Hosting::new(Reason::Updelay);
    let (waiting, _) = Reason::Updelay.bring_about(&hosting.bench);
    assert_eq!(waiting, "eth1");
    let start = Instant::now();
    hosting.guest_sends();
    wait_for("the bridge knows the guest", LIMIT, || hosting.known_at(GUEST, "tap0"));
    hosting.cable.delete();
    // What it sends from there comes in when it has been silent here for a second.
    hosting.bench.switch.netns.enter(|| {
        let raw = Raw::open("p1", 0);
        wait_for("the bridge knows the guest behind the bond", LIMIT, || {
            raw.send(&frame([2, 0, 0, 0, 0x5b, 2], GUEST_MAC));
            hosting.known_at(GUEST, "bond0")
        });
    });
    println!("heard {:?} after it sent from here", start.elapsed());
    assert!(start.elapsed() > Duration::from_millis(800), "{:?}", start.elapsed());
    hosting.bench.host.daemon.wait_link("bond0", "eth1", "going back");
}

#[test]
fn a_guest_whose_frames_a_switch_floods_back_to_a_port_that_waits_is_not_lost() {
    let reasons = [Reason::Updelay, Reason::DownByArp, Reason::JustLeft];
    let lost: Vec<Reason> = reasons.into_iter().filter(|reason| is_lost(*reason)).collect();
    println!("lost behind a port that waits: {lost:?} of {reasons:?}");
    assert!(lost.is_empty(), "{lost:?}");
}

fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], &[0; 46]].concat()
}

const GUEST: &str = "02:00:00:00:66:01";
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0x66, 1];
