//! What other programs take away of the plane's own is seen and put back.

use std::fs;
use std::sync::mpsc;
use std::thread;

use bond_modes::PortId;
use bond_modes::plan::Tx;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::world::*;
use crate::dataplane::tc::hook::Attached;
use crate::dataplane::tc::pins::names;
use crate::dataplane::tc::sys;
use crate::dataplane::{Amiss, Kept, Plane, PlaneBond};
use crate::netlink::tests::ip;

#[test]
fn what_is_as_it_is_to_be_is_left_alone() {
    for_both_hooks(|w| {
        w.create();
        assert_eq!(w.amiss(), []);
        w.attach("p0", None);
        assert_eq!(w.amiss(), []);
        // It is gone with its program, and its event says so.
        let p0 = w.port("p0");
        w.links.delete(p0.0).unwrap();
        assert_eq!(w.amiss(), []);
        w.reopen();
        w.adopt().unwrap().unwrap();
        assert_eq!(w.amiss(), []);
        let bond = w.link("bond0").ifindex;
        w.links.delete(bond).unwrap();
        assert_eq!(w.amiss(), []);
        w.originals.clear();
        w.bond = None;
        w.plane.forget(bond).unwrap();
    });
}

#[test]
fn pins_that_were_removed_are_pinned_again_and_the_next_agent_finds_all_of_it() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        for tx in [Tx::one(Some(p0)), all(vec![p0, p1]), round_robin(&[p0, p1], 2)] {
            w.send_by(tx.clone(), &[p0, p1]);
            let before = (w.applied(), w.pin_names(), w.counters(p0));
            w.remove_pins();
            assert_eq!(w.put_back(), [Kept::Pins]);
            assert_eq!((w.amiss(), w.pin_names()), (vec![], before.1));
            w.bond = None;
            w.forwards();
            let observed = w.adopt().unwrap().unwrap();
            assert_eq!(observed.plan, before.0);
            assert!(w.counters(p0).tx_frames >= before.2.tx_frames);
            w.forwards();
        }
    });
}

#[test]
fn a_bond_whose_pins_were_removed_outlives_an_orderly_stop() {
    for_both_hooks(|w| {
        w.bond_with_two_ports();
        w.remove_pins();
        w.bond().outlive().unwrap();
        w.bond = None;
        w.reopen();
        w.forwards();
        w.adopt().unwrap().unwrap();
        w.forwards();
    });
}

#[test]
fn programs_that_were_taken_off_are_attached_again() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        w.take_off_tx();
        assert_eq!(
            w.amiss()
                .iter()
                .map(|amiss| (amiss.what, amiss.is_cut))
                .collect::<Vec<_>>(),
            [(Kept::Tx, true)]
        );
        assert_eq!(w.put_back(), [Kept::Tx]);
        w.forwards();
        for port in [p0, p1] {
            w.take_off_rx(port);
            assert_eq!(
                w.amiss()
                    .iter()
                    .map(|amiss| (amiss.what, amiss.is_cut))
                    .collect::<Vec<_>>(),
                [(Kept::Rx(port), port == p0)]
            );
            assert_eq!(w.put_back(), [Kept::Rx(port)]);
            assert_eq!(w.amiss(), []);
            w.forwards();
        }
        // The next agent finds them as if nothing had been.
        w.reopen();
        w.adopt().unwrap().unwrap();
        assert_eq!(w.amiss(), []);
        w.forwards();
    });
}

#[test]
fn a_wire_that_comes_back_from_another_namespace_works_again_whatever_its_index() {
    for_pairs(|w| {
        for takes_index in [false, true] {
            let (p0, p1) = w.bond_with_two_ports();
            let plan = w.plan(Some(p0), &[p0, p1]);
            let bond = w.link("bond0").ifindex;
            let (wire, index) = (format!("wire{bond}"), w.kept().wire);
            let elsewhere = Elsewhere::new();
            ip(&format!("link set {wire} netns {}", elsewhere.id));
            let found = w.amiss();
            assert_eq!(found.iter().map(|amiss| amiss.what).collect::<Vec<_>>(), [Kept::Wire]);
            assert!(found[0].is_cut && found[0].mending.is_none(), "{found:?}");
            assert!(
                found[0].why.contains(&format!("`ip link set {wire} netns ")),
                "{found:?}"
            );
            if takes_index {
                ip(&format!("link add taken index {index} type veth peer name taken1"));
            }
            elsewhere.give_back(&wire);
            assert_eq!(w.put_back(), [Kept::Wire]);
            assert_eq!(w.amiss(), []);
            assert_eq!(w.kept().wire != index, takes_index);
            w.bond().refresh().unwrap();
            w.program(&plan);
            w.forwards();
            w.tear_down();
            if takes_index {
                ip("link del taken");
            }
            w.originals.clear();
        }
    });
}

impl World {
    fn amiss(&mut self) -> Vec<Amiss> {
        self.bond().amiss().unwrap()
    }

    /// Has everything put back that is amiss.
    fn put_back(&mut self) -> Vec<Kept> {
        let amiss = self.amiss();
        let what: Vec<Kept> = amiss.into_iter().map(|amiss| amiss.what).collect();
        what.iter().for_each(|what| self.bond().put_back(*what).unwrap());
        what
    }

    /// Frames cross in both directions, whichever port they take.
    fn forwards(&mut self) {
        let far = [self.tap("q0"), self.tap("q1")];
        self.eventually(|w| {
            w.send("bond0", OTHER, 1);
            far.iter().any(|end| end.waiting() > 0)
        });
        let bond = self.tap("bond0");
        self.eventually(|w| {
            w.send("q0", OTHER, 1);
            bond.waiting() > 0
        });
    }

    fn pin_names(&self) -> Vec<String> {
        let mut pinned = self.kept().pins.names().unwrap();
        pinned.sort();
        pinned
    }

    /// As `find -delete` of all pins of bonds of this namespace. Those of failover in the kernel stay.
    fn remove_pins(&mut self) {
        let dir = self.kept().pins.map("");
        let all = dir.parent().unwrap().to_owned();
        for folder in names(&all).unwrap() {
            if folder.parse::<u32>().is_ok() {
                for pin in names(&all.join(&folder)).unwrap() {
                    fs::remove_file(all.join(&folder).join(pin)).unwrap();
                }
                fs::remove_dir(all.join(&folder)).unwrap();
            }
        }
        let _ = fs::remove_dir(&all);
    }

    fn take_off_tx(&mut self) {
        let kept = self.kept();
        match &kept.tx_hold {
            Some(_) => sys::detach_link(&kept.pins.tx()).unwrap(),
            None => {
                let wire = kept.wire;
                self.links.remove_clsact(wire).unwrap();
            }
        }
    }

    fn take_off_rx(&mut self, port: PortId) {
        match self.kept().hook {
            Attached::Clsact => self.links.remove_clsact(port.0).unwrap(),
            _ => sys::detach_link(&self.kept().pins.rx(port)).unwrap(),
        }
    }
}

/// Another network namespace, on a thread.
struct Elsewhere {
    id: i32,
    orders: mpsc::Sender<String>,
    thread: thread::JoinHandle<()>,
}

impl Elsewhere {
    fn new() -> Elsewhere {
        let (orders, incoming) = mpsc::channel::<String>();
        let (report, id) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            report.send(gettid().as_raw()).unwrap();
            incoming.iter().for_each(|order| ip(&order));
        });
        Elsewhere {
            id: id.recv().unwrap(),
            orders,
            thread,
        }
    }

    /// Moves an interface into the namespace of the calling thread.
    fn give_back(self, interface: &str) {
        let order = format!("link set {interface} netns {}", gettid());
        self.orders.send(order).unwrap();
        drop(self.orders);
        self.thread.join().unwrap();
    }
}
