//! Failover by the kernel itself when things go wrong: agents that were away, notes that come late, rights that are missing. They need
//! the lab's kernels, as most of `failover` does.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bond_modes::PortId;
use bond_modes::plan::{Accept, Failover, Tx};

use super::Hook;
use super::failover::{detach, in_one_world, lost, notes, plug, prepared, pull, sends, two_ports, two_prepared};
use super::world::*;
use crate::dataplane::tc::DeviceChoice;
use crate::dataplane::tc::failover::{NOTES_OF_TESTS, Standing};
use crate::dataplane::tc::sys::{MapOfMaps, WAITS};
use crate::dataplane::{Plane, PlaneBond, Report, Traffic, lock};
use crate::netlink::Drained;
use crate::netlink::tests::asks;

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn no_number_of_losses_that_nobody_reads_keeps_the_kernel_from_failing_over_once_and_the_next_agent_goes_on() {
    in_one_world(|w| {
        let (p0, p1, plan) = two_prepared(w);
        let bare = w.plan(Some(p0), &[p0, p1]);
        w.kept().forwarding.clone().follow(&bare);
        w.program(&bare);
        for _ in 0..2 * NOTES_OF_TESTS {
            pull(w, "q1");
            plug(w, "q1");
        }
        w.kept().forwarding.clone().follow(&plan);
        w.program(&plan);
        w.reopen();
        for _ in 0..3 {
            pull(w, "q0");
            plug(w, "q0");
        }
        let found = w.adopt().unwrap().unwrap().plan;
        assert_eq!(found, plan.failed_over(p0).unwrap());
        assert_eq!(notes(w), [(p0, true)]);
        let back = prepared(w.plan(Some(p1), &[p0, p1]), p1, p0);
        w.program(&back);
        assert_eq!(lost(w, "q1"), [(p1, true)]);
        assert_eq!(sends(w), Tx::one(Some(p0)));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn notes_for_which_there_is_no_room_are_missed_once_and_move_nothing() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        let plan = prepared(w.plan(Some(p0), &[p0, p1]), p0, p1);
        for _ in 0..NOTES_OF_TESTS + 2 {
            w.kept().forwarding.clone().overtaken().unwrap();
            w.program(&plan);
            pull(w, "q1");
            plug(w, "q1");
        }
        w.kept().forwarding.clone().overtaken().unwrap();
        w.program(&plan);
        pull(w, "q0");
        assert_eq!(sends(w), Tx::one(Some(p0)));
        plug(w, "q0");
        let mut watch = w.plane.watch().unwrap();
        let mut read = |budget| {
            let mut reports = Vec::new();
            (watch.read_events(budget, &mut reports).unwrap(), reports)
        };
        let (drained, first) = read(8);
        assert_eq!((drained, first.contains(&Report::Lost)), (Drained::More, false));
        let (drained, others) = read(1000);
        assert_eq!(drained, Drained::Empty);
        assert_eq!(others.last(), Some(&Report::Lost));
        assert!(others.len() > NOTES_OF_TESTS as usize / 2, "{}", others.len());
        assert_eq!(read(8), (Drained::Empty, vec![]));
        w.kept().forwarding.clone().overtaken().unwrap();
        w.program(&plan);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn nothing_is_prepared_over_a_loss_of_which_the_agent_does_not_know_yet() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        let bare = w.plan(Some(p0), &[p0, p1]);
        let plan = prepared(bare.clone(), p0, p1);
        w.program(&plan);
        // Noted, and not read.
        pull(w, "q1");
        assert_eq!(w.kept().forwarding.fails_over(), Ok(false));
        w.kept().forwarding.clone().follow(&plan);
        assert!(w.bond().program(&plan).is_complete());
        assert_eq!(w.kept().forwarding.fails_over(), Ok(false));
        pull(w, "q0");
        assert_eq!(sends(w), Tx::one(Some(p0)));
        assert_eq!(notes(w), [(p1, false)]);
        for far in ["q0", "q1"] {
            plug(w, far);
        }
        w.kept().forwarding.clone().overtaken().unwrap();
        w.program(&plan);
        // Not noted, as nothing was in force.
        w.kept().forwarding.clone().follow(&bare);
        w.program(&bare);
        pull(w, "q1");
        w.kept().forwarding.clone().follow(&plan);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(false));
        assert_eq!(lost(w, "q0"), []);
        assert_eq!(sends(w), Tx::one(Some(p0)));
        for far in ["q0", "q1"] {
            plug(w, far);
        }
        w.program(&plan);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_note_names_its_bond_also_when_the_port_has_left_and_what_was_prepared_is_prepared_again() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        w.attach("p2", None);
        let p2 = w.port("p2");
        let plan = prepared(w.plan(Some(p0), &[p0, p1, p2]), p0, p1);
        w.program(&plan);
        pull(w, "q2");
        assert_eq!(w.kept().forwarding.fails_over(), Ok(false), "the kernel has ended it");
        detach(w, p2);
        let plan = prepared(w.plan(Some(p0), &[p0, p1]), p0, p1);
        w.program(&plan);
        assert_eq!(w.kept().forwarding.fails_over(), Ok(true));
        assert_eq!(notes(w), [(p2, false)]);
        w.kept().forwarding.clone().overtaken().unwrap();
        w.program(&plan);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn what_is_prepared_is_taken_back_before_the_program_is_taken_off_a_port_that_leaves() {
    in_world_of(Hook::Clsact, DeviceChoice::Veth, |w| {
        let (_, p1, _) = two_prepared(w);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (saw, forwarding) = (Rc::clone(&seen), w.kept().forwarding.clone());
        asks::watch(move || {
            let number = forwarding.with(|now| Standing::read(&now.bpf).unwrap().number);
            saw.borrow_mut().push(number);
        });
        detach(w, p1);
        asks::watch(|| ());
        let seen = seen.borrow();
        let still = seen.iter().filter(|number| **number != 0).count();
        assert!(still <= 1 && seen.len() > 2, "only before the port was read: {seen:?}");
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn while_another_thread_waits_for_the_kernel_bonds_are_made_and_deleted_and_the_loop_reads_notes_and_prepares() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        let bare = w.plan(Some(p0), &[p0, p1]);
        let plan = prepared(bare.clone(), p0, p1);
        w.program(&plan);
        let in_kernel = w.plane.in_kernel.clone();
        let waits = in_kernel.wait();
        let (other, device) = w.plane.make("bond1").unwrap();
        assert!(other.bond.forwarding.fails_over().is_err());
        let mut traffic = w.kept().forwarding.clone();
        traffic.follow(&bare);
        assert_eq!(traffic.fails_over(), Ok(false));
        traffic.follow(&plan);
        assert_eq!(traffic.fails_over(), Ok(true));
        assert_eq!(lost(w, "q0"), [(p0, true)]);
        drop(waits);
        in_kernel.settle();
        assert_eq!(
            other.bond.forwarding.fails_over(),
            Ok(false),
            "nothing is prepared for it yet"
        );
        let mut told = Vec::new();
        w.plane.watch().unwrap().read_events(8, &mut told).unwrap();
        let bond = device.ifindex;
        assert_eq!(told, [Report::FailsOver { bond }]);
        let waits = in_kernel.wait();
        Box::new(other).destroy().unwrap();
        drop(waits);
        in_kernel.settle();
        let known = MapOfMaps::pinned(&failover_folder(w).join("transmits")).unwrap();
        assert_eq!(known.id(bond).unwrap(), None);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn the_rights_of_the_packaged_unit_are_enough() {
    in_one_world(|w| {
        let (_, _, plan) = two_prepared(w);
        let all = rights::effective();
        rights::set_effective(all & rights::of_the_unit());
        w.reopen();
        let found = w.adopt().unwrap().unwrap().plan;
        let can = w.kept().forwarding.fails_over();
        let other = w.plane.make("bond1").map(|(bond, _)| {
            w.plane.in_kernel.settle();
            bond.bond.forwarding.fails_over()
        });
        rights::set_effective(all);
        assert_eq!((can, found), (Ok(true), plan));
        assert_eq!(other.unwrap(), Ok(false), "nothing is prepared for it yet");
        let (bond, _) = w.plane.take_over("bond1").unwrap().unwrap();
        Box::new(bond).destroy().unwrap();
        // And to bring it in.
        w.reopen_without_failover();
        w.adopt().unwrap();
        rights::set_effective(all & rights::of_the_unit());
        w.reopen();
        w.adopt().unwrap();
        w.plane.in_kernel.settle();
        let can = w.kept().forwarding.fails_over();
        rights::set_effective(all);
        assert_eq!(can, Ok(false));
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn what_bonds_that_were_deleted_without_an_agent_left_is_removed_by_the_next() {
    in_one_world(|w| {
        let (p0, p1, _) = two_prepared(w);
        let (other, device) = w.plane.make("bond1").unwrap();
        w.plane.in_kernel.settle();
        drop(other);
        let gone = w.kept().ifindex;
        w.reopen();
        w.links.delete(gone).unwrap();
        let (other, _) = w.plane.take_over("bond1").unwrap().unwrap();
        assert_eq!(w.plane.bonds().unwrap(), ["bond1"]);
        let folder = failover_folder(w);
        for map in ["transmits", "rules_of"] {
            let bonds = MapOfMaps::pinned(&folder.join(map)).unwrap();
            assert_eq!(bonds.next_key(None).unwrap(), Some(device.ifindex));
            assert_eq!(bonds.next_key(Some(device.ifindex)).unwrap(), None);
        }
        for port in [p0, p1] {
            assert_eq!(w.plane.in_kernel.armed(port).unwrap(), None);
        }
        drop(other);
        w.reopen();
        w.links.delete(device.ifindex).unwrap();
        assert_eq!(w.plane.bonds().unwrap(), Vec::<String>::new());
        assert!(!failover_folder(w).exists());
        w.originals.clear();
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn the_pins_go_with_the_last_bond_and_come_with_the_next() {
    in_one_world(|w| {
        w.create();
        w.plane.in_kernel.settle();
        let folder = failover_folder(w);
        assert!(folder.exists());
        Box::new(w.bond.take().unwrap()).destroy().unwrap();
        assert!(!folder.exists());
        let (p0, _, _) = two_prepared(w);
        assert_eq!(lost(w, "q0"), [(p0, true)]);
    });
}

/// Those that are open, each with what it is of: others may be closed while a test looks, by threads of agents that are gone.
fn descriptors() -> BTreeSet<(OsString, PathBuf, Vec<String>)> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let described = all.filter_map(|entry| {
        let of = std::fs::read_link(entry.path()).ok()?;
        let about = std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).ok()?;
        let ids = about.lines().filter(|line| line.contains("_id:")).map(str::to_owned);
        Some((entry.file_name(), of, ids.collect()))
    });
    described.filter(|(_, of, _)| !of.ends_with("fd")).collect()
}

/// What `docs/measured.md` says of it.
#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_new_bond_takes_two_grace_periods_a_known_one_none_and_all_bonds_share_six_descriptors() {
    in_one_world(|w| {
        let before = WAITS.load(Relaxed);
        w.create();
        w.plane.in_kernel.settle();
        assert_eq!(WAITS.load(Relaxed) - before, 2);
        w.reopen();
        let (before, folder) = (WAITS.load(Relaxed), failover_folder(w));
        let others = descriptors();
        w.plane.in_kernel.open(&folder);
        let opened: Vec<_> = descriptors().difference(&others).cloned().collect();
        assert_eq!(opened.len(), 4, "and two that are always there: {opened:?}");
        w.adopt().unwrap();
        assert_eq!(WAITS.load(Relaxed), before);
    });
}

#[test]
#[ignore = "needs a kernel that allows tracing programs, as the lab's do"]
fn a_port_without_carrier_is_left_out_and_the_others_are_prepared() {
    in_one_world(|w| {
        let (p0, p1) = two_ports(w);
        w.attach("p2", None);
        let p2 = w.port("p2");
        pull(w, "q1");
        let ports = [p0, p1, p2];
        let mut plan = w.list_plan(all(ports.to_vec()), &ports);
        for lost in ports {
            let failover = Failover {
                tx: plan.tx.among(|port| port != lost),
                accept: [(lost, Accept::Unicast)].into(),
            };
            plan.if_lost.insert(lost, failover);
        }
        assert!(w.bond().program(&plan).is_complete());
        let armed: Vec<PortId> = w.applied().if_lost.into_keys().collect();
        assert_eq!(
            armed,
            [],
            "each of them sends through the port that has lost its carrier, or is it"
        );
        plug(w, "q1");
        w.program(&plan);
        assert_eq!(lost(w, "q1"), [(p1, true)]);
        assert_eq!(sends(w), all(vec![p0, p2]));
    });
}

pub(super) fn failover_folder(w: &World) -> PathBuf {
    lock(&w.plane.shared).pins().unwrap().failover()
}

/// Rights of this thread.
mod rights {
    /// Those that are in effect.
    pub(super) fn effective() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    }

    /// Those that the unit file leaves to bondd.
    pub(super) fn of_the_unit() -> u64 {
        let unit = include_str!("../../../../../packaging/bondd.service");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let bit = |name: &str| match name {
            "CAP_CHOWN" => 1u64 << 0,
            "CAP_NET_ADMIN" => 1 << 12,
            "CAP_NET_RAW" => 1 << 13,
            "CAP_SYS_NICE" => 1 << 23,
            "CAP_PERFMON" => 1 << 38,
            "CAP_BPF" => 1 << 39,
            other => panic!("{other} is new"),
        };
        line.unwrap().split(' ').map(bit).sum()
    }

    /// Puts these of the permitted ones in effect. [capset(2)]
    pub(super) fn set_effective(rights: u64) {
        const VERSION_3: u32 = 0x2008_0522;
        let header = [VERSION_3, 0];
        let mut sets = [0u32; 6];
        // SAFETY: the kernel reads the header and writes two times three words.
        let read = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
        assert_eq!(read, 0);
        (sets[0], sets[3]) = (rights as u32, (rights >> 32) as u32);
        // SAFETY: the kernel reads the header and two times three words.
        let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        assert_eq!(set, 0);
    }
}
