//! What differs on netkit devices. Kernels without them run the first test alone; the lab's machine runs all, and the other tests
//! of the plane once more, on netkit: `tests/tests/vm/netkit.rs`.

use bond_modes::plan::Tx;
use bond_monitors::Carrier;

use super::Hook;
use super::near::{KINDS, take_over_under_load};
use super::world::*;
use crate::dataplane::tc::pins::unpin;
use crate::dataplane::tc::{DeviceChoice, sys};
use crate::dataplane::{Plane, PlaneBond, PlaneError};

#[test]
fn new_bonds_are_netkit_devices_where_the_kernel_has_them_and_pairs_elsewhere() {
    in_world_of(Hook::Auto, DeviceChoice::Auto, |w| {
        let has_netkit = match w.links.add_netkit("nk0", "nk1") {
            Ok(()) => {
                let device = w.link("nk0").ifindex;
                w.links.delete(device).unwrap();
                true
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
                false
            }
        };
        let before = w.snapshot();
        w.plane.probe().unwrap();
        assert_eq!(w.snapshot(), before);
        let report = w.plane.examiner()(&bond_modes::BondOptions::default());
        w.create();
        let kind = w.link("bond0").kind.unwrap();
        match has_netkit {
            true => assert_eq!((kind.as_str(), report.device.as_deref()), ("netkit", Some("netkit"))),
            false => {
                let why = "veth, because this kernel has no netkit device; it needs CONFIG_NETKIT (6.7 and later)";
                assert_eq!((kind.as_str(), report.device.as_deref()), ("veth", Some(why)));
                w.reopen_with(DeviceChoice::Netkit);
                let refused = w.plane.probe();
                assert!(
                    matches!(
                        refused,
                        Err(PlaneError::Unsupported {
                            feature: "netkit device",
                            ..
                        })
                    ),
                    "{refused:?}"
                );
            }
        }
    });
}

#[test]
#[ignore = "needs a kernel with netkit, as the lab has"]
fn a_bond_on_a_pair_stays_one_and_the_next_bond_is_a_netkit_device() {
    in_world_of(Hook::Auto, DeviceChoice::Veth, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        let plan = w.plan(Some(p1), &[p0, p1]);
        w.program(&plan);
        let programs = w.programs();
        w.reopen_with(DeviceChoice::Netkit);
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        assert_eq!(w.programs(), programs);
        assert_eq!(w.link("bond0").kind.as_deref(), Some("veth"));
        let q1 = w.tap("q1");
        w.send("bond0", OTHER, 3);
        q1.expect(3);
        w.tear_down();
        w.create();
        assert_eq!(w.link("bond0").kind.as_deref(), Some("netkit"));
        // An agent that prefers pairs takes it over as it is.
        w.reopen_with(DeviceChoice::Veth);
        w.adopt().unwrap().unwrap();
        assert_eq!(w.link("bond0").kind.as_deref(), Some("netkit"));
        w.attach("p0", None);
        w.program(&w.plan(Some(p0), &[p0]));
        let q0 = w.tap("q0");
        w.send("bond0", OTHER, 3);
        q0.expect(3);
    });
}

#[test]
#[ignore = "needs a kernel with netkit, as the lab has"]
fn a_bond_on_a_pair_is_taken_over_without_loss_and_stays_one_until_it_is_made_anew() {
    for hook in [Hook::Auto, Hook::Clsact] {
        for kind in 0..KINDS {
            in_world_of(hook, DeviceChoice::Veth, move |w| {
                // The later agents' choice, which does not go with clsact.
                w.hook = Hook::Auto;
                take_over_under_load(w, kind, DeviceChoice::Netkit);
                assert_eq!(w.link("bond0").kind.as_deref(), Some("veth"));
                let plan = w.applied();
                let seen = w.frames_in_both_directions(|w| {
                    w.reopen();
                    assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
                });
                assert_eq!((seen.sent_lost, seen.received_lost), (0, 0));
                assert_eq!(w.link("bond0").kind.as_deref(), Some("veth"));
                w.tear_down();
                w.create();
                assert_eq!(w.link("bond0").kind.as_deref(), Some("netkit"));
            });
        }
    }
}

#[test]
#[ignore = "needs a kernel with netkit, as the lab has"]
fn a_frame_that_no_program_takes_is_dropped() {
    in_world_of(Hook::Auto, DeviceChoice::Netkit, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        let bond = w.link("bond0");
        let (wire, q0) = (w.tap(&format!("wire{}", bond.ifindex)), w.tap("q0"));
        w.send("bond0", OTHER, 1);
        q0.expect(1);
        let pin = w.kept().pins.tx();
        sys::detach_link(&pin).unwrap();
        unpin(&pin).unwrap();
        for _ in 0..3 {
            // The sender hears of it.
            w.socket.send(bond.ifindex, &frame(OTHER)).unwrap_err();
        }
        // The next agent puts a program back.
        w.reopen();
        let plan = w.adopt().unwrap().unwrap().plan;
        assert_eq!(plan, w.plan(Some(p0), &[p0, p1]));
        w.send("bond0", OTHER, 2);
        q0.expect(2);
        assert_eq!((wire.waiting(), q0.waiting()), (0, 0));
    });
}

#[test]
#[ignore = "needs a kernel with netkit, as the lab has"]
fn its_carrier_is_the_state_of_the_wire_and_its_address_changes_while_it_is_up() {
    in_world_of(Hook::Auto, DeviceChoice::Netkit, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        for active in [None, Some(p0), None, Some(p1)] {
            let mut plan = w.plan(active, &[p0, p1]);
            plan.mac.0[5] ^= 1;
            w.program(&plan);
            let bond = w.link("bond0").report;
            assert_eq!(
                (bond.carrier, bond.mac),
                (Carrier::from_bool(active.is_some()), plan.mac)
            );
        }
    });
}

#[test]
#[ignore = "needs a kernel with netkit, as the lab has"]
fn it_says_that_it_has_one_queue_and_does_the_rest_of_the_plan() {
    in_world_of(Hook::Auto, DeviceChoice::Netkit, |w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut wished = w.plan(Some(p1), &[p0, p1]);
        wished.steer = queues(&[(1, p0)]);
        let outcome = w.bond().program(&wished).result();
        assert!(matches!(outcome, Err(PlaneError::OneQueue { .. })), "{outcome:?}");
        assert_eq!(w.applied().tx, Tx::one(Some(p1)));
        let q1 = w.tap("q1");
        w.send("bond0", OTHER, 3);
        q1.expect(3);
    });
}
