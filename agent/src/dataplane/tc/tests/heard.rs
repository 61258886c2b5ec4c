//! What arrives at a port is stamped by who sent it.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use aya::maps::{HashMap, Map, MapData};
use bond_modes::PortId;
use bond_modes::plan::{Accept, ForwardingPlan, Tx};
use bond_monitors::{MacAddr, ReceiveStamps};

use super::world::*;
use crate::dataplane::PlaneBond;
use crate::dataplane::tc::pins::unpin;

#[test]
fn a_frame_of_somebody_else_counts_and_one_that_is_arp_or_ipv6_as_a_probe_too() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        for (far, port) in [("q0", p0), ("q1", p1)] {
            assert_eq!(w.heard(port), ReceiveStamps::default());
            assert_eq!(w.hears(far, port, &of_type(STRANGER, &[ETHERTYPE])), ANY);
            for probe in [&[ARP][..], &[IPV6], &[VLAN, ARP], &[VLAN, IPV6], &[QINQ, VLAN, ARP]] {
                assert_eq!(w.hears(far, port, &of_type(STRANGER, probe)), PROBE, "{probe:x?}");
            }
            for other in [&[IPV4][..], &[VLAN, IPV4], &[QINQ, VLAN, VLAN], &[LLC]] {
                assert_eq!(w.hears(far, port, &of_type(STRANGER, other)), ANY, "{other:x?}");
            }
        }
    });
}

#[test]
fn a_probe_counts_also_right_behind_other_frames() {
    in_world(super::Hook::Auto, |w| {
        let (p0, _) = w.bond_with_two_ports();
        for _ in 0..100 {
            let before = w.heard(p0).probes;
            w.send("q0", OTHER, 1);
            assert_eq!(w.heard(p0).probes, before);
            w.arrive("q0", p0, &of_type(STRANGER, &[ARP]));
            assert!(w.heard(p0).probes > before);
        }
    });
}

#[test]
fn what_our_own_ports_sent_counts_apart() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let own = [w.link("bond0"), w.link("p0"), w.link("p1")].map(|link| link.report.mac);
        for mac in own {
            assert_eq!(w.hears("q1", p1, &of_type(mac, &[ETHERTYPE])), OWN);
            assert_eq!(w.hears("q1", p1, &of_type(mac, &[ARP])), OWN);
        }
        // With a new plan only its addresses are ours, those of the plan before are not.
        let wished = MacAddr([2, 0, 0, 0, 0, 0xb5]);
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        plan.mac = wished;
        plan.ports.get_mut(&p1).unwrap().mac = wished;
        w.program(&plan);
        assert_eq!(w.hears("q0", p0, &of_type(wished, &[ARP])), OWN);
        assert_eq!(w.hears("q0", p0, &of_type(own[1], &[ARP])), OWN);
        for old in [own[0], own[2]] {
            assert_eq!(w.hears("q0", p0, &of_type(old, &[ARP])), PROBE);
        }
        // Nor is the address of a port that was detached.
        let original = w.originals.remove(&p0).unwrap();
        w.bond().detach(p0, &original).unwrap();
        assert_eq!(w.hears("q1", p1, &of_type(own[1], &[ARP])), PROBE);
    });
}

#[test]
fn who_sends_to_groups_through_the_bond_is_one_of_ours() {
    for_both_hooks(|w| {
        let ports = w.bond_with_four_ports();
        let p1 = ports[1];
        w.send_by(Tx::one(Some(ports[0])), &ports[..1]);
        let guests = [1, 2, 3].map(|last| MacAddr([2, 0, 0, 0, 9, last]));
        let groups = [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1])];
        let q0 = w.tap("q0");
        for (guest, to) in guests.into_iter().zip([OTHER, groups[0], groups[1]]) {
            let mut frame = of_type(guest, &[ETHERTYPE]);
            frame[..6].copy_from_slice(&to.0);
            w.send_frame(&frame);
            q0.expect(1);
            let expected = if to == OTHER { PROBE } else { OWN };
            if expected == OWN {
                w.set_sent(guest, Duration::ZERO);
            }
            assert_eq!(w.hears("q1", p1, &of_type(guest, &[ARP])), expected, "{to}");
        }
        w.reopen();
        w.adopt().unwrap().unwrap();
        w.set_sent(guests[2], Duration::ZERO);
        assert_eq!(w.hears("q1", p1, &of_type(guests[2], &[ARP])), OWN);
        // A guest that was silent for long may have moved to a host outside, whose answers count as evidence.
        w.set_sent(guests[2], LONG_SILENCE);
        assert_eq!(w.hears("q1", p1, &of_type(guests[2], &[ARP])), PROBE);
    });
}

#[test]
fn what_was_sent_through_the_bond_does_not_come_back_in_by_a_port_that_waits() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        accept(&mut plan, p1, Accept::Unicast);
        w.program(&plan);
        let (bond, q0) = (w.tap("bond0"), w.tap("q0"));
        let ends = (&bond, &q0);
        let [first, second, third] = [1, 2, 3].map(|last| MacAddr([2, 0, 0, 0, 9, last]));
        let unicast = of_type(first, &[ETHERTYPE]);
        // Without a bridge above, only frames to groups make their sender known, and this one is unicast.
        w.sends(ends, &unicast);
        assert!(w.let_in(&bond, p1, &unicast));

        // A bridge makes the bond promiscuous, and the bond its ports: then unicast makes the sender known, too.
        promisc(&mut plan, true);
        w.program(&plan);
        w.sends(ends, &unicast);
        w.set_sent(first, Duration::ZERO);
        assert!(!w.let_in(&bond, p1, &unicast));
        let own = [w.link("bond0"), w.link("p0")].map(|link| link.report.mac);
        for mac in own {
            assert!(!w.let_in(&bond, p1, &of_type(mac, &[ETHERTYPE])));
        }
        assert!(w.let_in(&bond, p1, &of_type(STRANGER, &[ETHERTYPE])));

        // So it does under the next agent, and with the program of another way of spreading.
        w.reopen();
        w.adopt().unwrap().unwrap();
        plan.tx = all(vec![p0]);
        w.program(&plan);
        let another = of_type(second, &[ETHERTYPE]);
        w.sends(ends, &another);
        w.set_sent(second, Duration::ZERO);
        assert!(!w.let_in(&bond, p1, &another));

        // A port in use lets in everything.
        accept(&mut plan, p1, Accept::All);
        w.program(&plan);
        assert!(w.let_in(&bond, p1, &unicast));

        // Without the bridge, unicast does not make its sender known any more.
        accept(&mut plan, p1, Accept::Unicast);
        promisc(&mut plan, false);
        w.program(&plan);
        let unknown = of_type(third, &[ETHERTYPE]);
        w.sends(ends, &unknown);
        assert!(w.let_in(&bond, p1, &unknown));
    });
}

#[test]
fn a_guest_that_has_been_silent_for_a_second_may_come_in_by_a_port_that_waits() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        accept(&mut plan, p1, Accept::Unicast);
        promisc(&mut plan, true);
        w.program(&plan);
        let guest = MacAddr([2, 0, 0, 0, 9, 1]);
        let unicast = of_type(guest, &[ETHERTYPE]);
        for silent in [LONG_SILENCE, Duration::from_secs(60 * 24 * 3600)] {
            w.sends_and_is_refused(p1, &unicast);
            for (ago, expected) in [(Duration::ZERO, false), (silent, true), (SHORT_SILENCE, false)] {
                w.set_sent(guest, ago);
                assert_eq!(w.comes_in(p1, &unicast), expected, "{ago:?}");
            }
            w.set_sent(guest, silent);
        }
        // The time of a known sender is not written with every frame. [maps.bpf.h: SENT_STEP]
        let (q0, start) = (w.tap("q0"), clock::now());
        let mut times = BTreeSet::new();
        for _ in 0..200 {
            w.send_frame(&unicast);
            q0.expect(1);
            times.insert(w.sent(guest));
        }
        let most = 2 + (clock::now().as_nanos() - start.as_nanos()) / (64 << 20);
        assert!(times.len() as u64 <= most, "{} writes, not {most}", times.len());
    });
}

#[test]
fn a_bond_whose_known_senders_are_lost_is_taken_over() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let plan = w.plan(Some(p1), &[p0, p1]);
        w.program(&plan);
        let pins = w.kept().pins.clone();
        for map in ["own", "sent"] {
            unpin(&pins.map(map)).unwrap();
        }
        w.reopen();
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        let own = w.link("p0").report.mac;
        assert_eq!(w.hears("q1", p1, &of_type(own, &[ARP])), OWN);
        assert_eq!(w.hears("q0", p0, &of_type(STRANGER, &[ARP])), PROBE);
        // The stamps outlive the agent.
        let before = w.heard(p0);
        w.reopen();
        w.adopt().unwrap().unwrap();
        assert_eq!(w.heard(p0), before);
    });
}

impl World {
    pub(super) fn heard(&mut self, port: PortId) -> ReceiveStamps {
        self.bond().traffic().unwrap().heard(port).unwrap()
    }

    /// The senders that the programs remember.
    fn senders(&self) -> HashMap<MapData, [u8; 6], u32> {
        let pinned = MapData::from_pin(self.kept().pins.map("sent")).unwrap();
        Map::from_map_data(pinned).unwrap().try_into().unwrap()
    }

    /// When a sender last sent, as the programs remember it. [maps.bpf.h: SENT_CLOCK]
    pub(super) fn sent(&self, sender: MacAddr) -> u32 {
        self.senders().get(&sender.0, 0).expect("it has sent through the bond")
    }

    /// As if a sender that is remembered had last sent this long ago.
    pub(super) fn set_sent(&self, sender: MacAddr, ago: Duration) {
        self.sent(sender);
        let at = clock::now().as_nanos().wrapping_sub(ago.as_nanos() as u64) >> 20;
        self.senders().insert(sender.0, at as u32, 0).unwrap();
    }

    /// Sends a frame through the bond, which leaves by `p0`, and puts it on the cable of the other port, which must refuse it. If
    /// that took so long that the sender may be forgotten by then, it tries again.
    pub(super) fn sends_and_is_refused(&mut self, port: PortId, frame: &[u8]) {
        let q0 = self.tap("q0");
        loop {
            let mut start = Instant::now();
            // A bond whose carrier has only just come drops what it is given.
            self.eventually(|w| {
                start = Instant::now();
                w.send_frame(frame);
                q0.waiting() > 0
            });
            if !self.comes_in(port, frame) {
                return;
            }
            assert!(
                start.elapsed() > SHORT_SILENCE,
                "it came in after {:?}",
                start.elapsed()
            );
        }
    }

    /// Whether a frame that arrives at `p1` is let in.
    pub(super) fn comes_in(&mut self, port: PortId, frame: &[u8]) -> bool {
        let bond = self.tap("bond0");
        self.let_in(&bond, port, frame)
    }

    /// The same, with the bond's tap.
    fn let_in(&mut self, bond: &Tap, port: PortId, frame: &[u8]) -> bool {
        self.arrive("q1", port, frame);
        bond.waiting() > 0
    }

    /// Sends a frame through the bond, waits until it is at the far end, and empties the bond's tap; the ends are both taps.
    fn sends(&mut self, (bond, far): (&Tap, &Tap), frame: &[u8]) {
        self.send_frame(frame);
        far.expect(1);
        bond.waiting();
    }

    /// Puts a frame on a cable and waits until the port has dealt with it.
    fn arrive(&mut self, far: &str, port: PortId, frame: &[u8]) {
        let seen = |w: &mut World| {
            let counted = w.counters(port);
            counted.rx_frames + counted.rx_dropped
        };
        let (before, far) = (seen(self), self.link(far).ifindex);
        self.socket.send(far, frame).unwrap();
        self.eventually(|w| seen(w) > before);
    }

    /// Which stamps (any, probes, own) a frame moves.
    fn hears(&mut self, far: &str, port: PortId, frame: &[u8]) -> [bool; 3] {
        let before = self.heard(port);
        // In the tick of a stamp no other frame is stamped.
        thread::sleep(MORE_THAN_A_TICK);
        self.arrive(far, port, frame);
        let after = self.heard(port);
        [
            after.any > before.any,
            after.probes > before.probes,
            after.own > before.own,
        ]
    }
}

/// Makes all ports promiscuous, or none.
fn promisc(plan: &mut ForwardingPlan, on: bool) {
    plan.ports.values_mut().for_each(|port| port.promisc = on);
}

/// A frame with these EtherTypes, one behind the other.
pub(super) fn of_type(source: MacAddr, types: &[u16]) -> Vec<u8> {
    let mut bytes = [OTHER.0, source.0].concat();
    for (depth, kind) in types.iter().enumerate() {
        if depth > 0 {
            bytes.extend([0, 5]);
        }
        bytes.extend(kind.to_be_bytes());
    }
    bytes.resize(FRAME, 0);
    bytes
}

/// Surely shorter, and longer, than a sender is remembered. [maps.bpf.h: SENT_FOR]
const SHORT_SILENCE: Duration = Duration::from_millis(800);
const LONG_SILENCE: Duration = Duration::from_millis(1100);

/// The slowest clocks tick every ten milliseconds.
const MORE_THAN_A_TICK: Duration = Duration::from_millis(15);

const ANY: [bool; 3] = [true, false, false];
const PROBE: [bool; 3] = [true, true, false];
const OWN: [bool; 3] = [false, false, true];
const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xcc]);
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
/// A length, as in frames of 802.3.
const LLC: u16 = 46;
