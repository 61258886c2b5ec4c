//! What the program of the kernel checks before it moves any traffic. They need the lab's kernels, as most of `failover` does.

use std::thread;

use aya::maps::{HashMap, Map, MapData};
use bond_modes::PortId;
use bond_modes::plan::{Accept, Failover, Tx};
use nix::sched::{CloneFlags, unshare};

use super::failover::{in_one_world, lost, notes, plug, prepared, pull, sends, two_ports, two_prepared};
use super::failover_faults::failover_folder;
use super::world::*;
use crate::dataplane::tc::failover::layout::{Armed, PortKey};
use crate::dataplane::{PlaneBond, Traffic};
use crate::netlink::RouteSocket;

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn an_entry_that_is_anothers_or_not_whole_moves_nothing_and_ends_nothing() {
    in_one_world(|w| {
        let (p0, p1, _) = two_prepared(w);
        let good = armed(w, p0);
        let others = Armed { ifindex: p1.0, ..good };
        let torn = Armed {
            selector: good.selector + 1,
            ..good
        };
        for bad in [others.sealed(), torn] {
            arm(w, p0, bad);
            assert_eq!(lost(w, "q0"), [], "{bad:?}");
            assert_eq!(sends(w), Tx::one(Some(p0)), "{bad:?}");
            plug(w, "q0");
        }
        arm(w, p0, good);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
        assert_eq!(sends(w), Tx::one(Some(p1)));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn what_was_prepared_for_another_plan_or_another_port_in_use_moves_nothing() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        let plan = prepared(w.plan(Some(p0), &[p0, p1]), p0, p1);
        let changes: [fn(Armed) -> Armed; 2] = [
            |good| Armed {
                number: good.number + 1,
                ..good
            },
            |good| Armed {
                expected: good.expected + 100,
                ..good
            },
        ];
        for change in changes {
            w.program(&plan);
            let bad = change(armed(w, p0)).sealed();
            arm(w, p0, bad);
            assert_eq!(lost(w, "q0"), [(p0, false)], "{bad:?}");
            assert_eq!(sends(w), Tx::one(Some(p0)), "{bad:?}");
            plug(w, "q0");
            w.kept().forwarding.clone().overtaken().unwrap();
        }
        w.program(&plan);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn an_interface_of_another_namespace_with_the_index_of_a_port_is_not_that_port() {
    in_one_world(|w| {
        let (p0, _, _) = two_prepared(w);
        thread::spawn(move || pull_elsewhere(p0)).join().unwrap();
        assert_eq!(notes(w), []);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        assert_eq!(sends(w), Tx::one(Some(p0)));
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_carrier_that_comes_back_ends_nothing() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        w.attach("p2", None);
        let p2 = w.port("p2");
        pull(w, "q2");
        w.program(&prepared(w.plan(Some(p0), &[p0, p1, p2]), p0, p1));
        plug(w, "q2");
        assert_eq!(notes(w), []);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn entries_of_interfaces_that_are_no_ports_any_more_and_of_a_namespace_that_is_gone_are_removed() {
    in_one_world(|w| {
        let (p0, _, plan) = two_prepared(w);
        let (p2, p3) = (w.port("p2"), w.port("p3"));
        let entry = armed(w, p0);
        for port in [p2, p3] {
            arm(
                w,
                port,
                Armed {
                    ifindex: port.0,
                    ..entry
                }
                .sealed(),
            );
        }
        let gone = PortKey {
            netns: 1 << 60,
            ifindex: p0.0,
            unused: 0,
        };
        let map = MapData::from_pin(failover_folder(w).join("armed")).unwrap();
        let mut all: HashMap<_, PortKey, Armed> = Map::from_map_data(map).unwrap().try_into().unwrap();
        all.insert(gone, entry, 0).unwrap();
        w.reopen();
        w.adopt().unwrap();
        assert_eq!(all.keys().count(), 2, "those of p0 and p1");
        assert_eq!(w.applied(), plan);
        assert_eq!(lost(w, "q2"), []);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn what_is_in_force_stays_so_when_few_lists_are_left() {
    in_one_world(|w| {
        let ports = w.bond_with_four_ports();
        w.plane.in_kernel.settle();
        let mut plan = w.list_plan(round_robin(&ports, 1), &ports);
        let failover = Failover {
            tx: plan.tx.among(|port| port != ports[0]),
            accept: Default::default(),
        };
        plan.if_lost.insert(ports[0], failover);
        w.program(&plan);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        let left = w.in_force(|now| {
            while now.bpf.clean_lists() > 1 {
                let others = round_robin(&ports, 100 + now.bpf.clean_lists() as u32);
                now.bpf.spare_selector(&others).unwrap();
            }
            now.bpf.clean_lists()
        });
        assert_eq!(left, 1);
        w.kept().forwarding.clone().follow(&plan);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        assert_eq!(lost(w, "q0"), [(ports[0], true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn why_nothing_could_be_prepared_is_said_until_something_is() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        w.links.add_veth("p4", "q4").unwrap();
        let others = ["p2", "p3", "p4"].map(|name| {
            w.attach(name, None);
            w.port(name)
        });
        let plan = prepared(w.plan(Some(p0), &w.kept().ports()), p0, p1);
        let mut many = plan.clone();
        let failover = many.if_lost.get_mut(&p0).unwrap();
        failover.accept.extend(others.map(|port| (port, Accept::All)));
        assert!(w.bond().program(&many).is_complete());
        assert_eq!(w.kept().forwarding.fails_over(), Ok(false));
        let why = w.kept().forwarding.why_unprepared().unwrap();
        assert!(why.contains("more than 4 ports"), "{why}");
        w.program(&plan);
        assert_eq!(w.kept().forwarding.why_unprepared(), None);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

fn armed(w: &World, port: PortId) -> Armed {
    w.plane.in_kernel.armed(port).unwrap().unwrap()
}

/// What the agent believes to be there stays.
fn arm(w: &World, port: PortId, entry: Armed) {
    w.plane.in_kernel.arm(port, entry).unwrap();
}

/// Takes the carrier of an interface with this index, in a network namespace of its own.
fn pull_elsewhere(port: PortId) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut links = RouteSocket::open().unwrap();
    for pair in 0..port.0 {
        let (near, far) = (format!("n{pair}"), format!("f{pair}"));
        links.add_veth(&near, &far).unwrap();
        let ends = [near, far].map(|name| links.by_name(&name).unwrap().unwrap().ifindex);
        let Some(at) = ends.iter().position(|index| *index == port.0) else {
            continue;
        };
        ends.iter().for_each(|end| links.set_up(*end, true).unwrap());
        assert!(links.by_index(port.0).unwrap().unwrap().report.carrier.is_on());
        return links.set_up(ends[1 - at], false).unwrap();
    }
    panic!("no interface has the index {port}");
}
