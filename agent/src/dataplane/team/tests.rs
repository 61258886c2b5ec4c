//! The plane's order of work against a driver in memory, and with a fault at every step.

mod memory;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bond_modes::options::PortOptions;
use bond_modes::plan::{Spread, Tx};
use bond_modes::{BondOptions, PortId};
use bond_monitors::Carrier;
use neli::ToBytes;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};

use self::memory::*;
use super::bond::Bond;
use super::driver::Mode;
use super::genl::Family;
use super::genl::tests::{FAMILY, TEAM, answer};
use super::options::{self, Key, Name, Value};
use super::{ORPHAN_LOCK, TeamPlane, device, exact, program};
use crate::dataplane::lock::lock;
use crate::dataplane::original;
use crate::dataplane::step::fault;
use crate::dataplane::{Plane, PlaneBond, PlaneError, PortBase, Report};
use crate::locks::tests::unprivileged;
use crate::netlink::tests::in_netns;
use crate::netlink::{Drained, Link, RouteSocket};

#[test]
fn a_failover_makes_before_it_breaks() {
    let mut lab = Lab::new(&Spread::One, &[5, 6]);
    let first = lab.plan(Tx::one(Some(PortId(5))));
    assert_eq!(
        lab.goes_to(&first),
        ["enabled[5]=1", "activeport=5", "user_linkup[5]=1"]
    );
    let second = lab.plan(Tx::one(Some(PortId(6))));
    assert_eq!(
        lab.goes_to(&second),
        [
            "enabled[6]=1",
            "activeport=6",
            "user_linkup[6]=1",
            "user_linkup[5]=0",
            "enabled[5]=0"
        ]
    );
    assert_eq!(lab.goes_to(&second), Vec::<String>::new(), "the same plan again");
    let nowhere = lab.plan(Tx::one(None));
    assert_eq!(lab.goes_to(&nowhere), ["user_linkup[6]=0", "enabled[6]=0"]);
}

#[test]
fn a_port_that_leaves_and_comes_back_is_made_active_again() {
    let mut lab = Lab::new(&Spread::One, &[5]);
    let plan = lab.plan(Tx::one(Some(PortId(5))));
    lab.goes_to(&plan);
    lab.leave(PortId(5));
    assert_eq!(
        lab.bond.settings,
        lock(&lab.kernel.0).settings,
        "nothing looks like the work of others"
    );
    join(&lab.kernel, &mut lab.bond, PortId(5));
    assert_eq!(lab.goes_to(&plan), ["enabled[5]=1", "activeport=5", "user_linkup[5]=1"]);
}

#[test]
fn while_the_number_of_ports_changes_every_hash_has_a_port_that_is_on() {
    let mut lab = Lab::new(&hash(&[]).kind, &[5, 6, 7]);
    let steps: [&[u32]; 5] = [&[5, 6, 7], &[6, 7], &[7], &[5, 7], &[5, 6, 7]];
    for (turn, usable) in steps.into_iter().enumerate() {
        let plan = lab.plan(hash(usable));
        lab.program(&plan).unwrap();
        let log = std::mem::take(&mut lock(&lab.kernel.0).log);
        assert!(!log.is_empty());
        for (line, settings) in log {
            let at_that_time = Bond {
                settings,
                ports: BTreeMap::new(),
                bases: BTreeMap::new(),
                ..lab.bond
            };
            let Some((_, count)) = program::hash_in_force(&at_that_time) else {
                assert_eq!(turn, 0, "a program is in force from the first plan on");
                continue;
            };
            for hash in 0..count {
                let cell = at_that_time.settings.get(&Key::cell(hash)).and_then(Value::as_u32);
                let port = PortId(cell.unwrap_or_else(|| panic!("{line}: no port for hash {hash}")));
                let on = at_that_time.settings.get(&Key::port(Name::Enabled, port));
                assert_eq!(on, Some(&Value::Flag(true)), "{line}: {port} for hash {hash}");
            }
        }
        assert_eq!(lab.found().tx, plan.tx);
    }
}

#[test]
fn a_copy_leaves_through_ports_whose_link_is_set() {
    let mut lab = Lab::new(&Spread::All, &[5, 6]);
    let both = lab.plan(all(&[5, 6]));
    assert_eq!(
        lab.goes_to(&both),
        ["enabled[5]=1", "enabled[6]=1", "user_linkup[5]=1", "user_linkup[6]=1"]
    );
    let one = lab.plan(all(&[6]));
    assert_eq!(lab.goes_to(&one), ["user_linkup[5]=0"], "it still receives");
    let none = lab.plan(all(&[]));
    assert_eq!(
        lab.goes_to(&none),
        ["user_linkup[6]=0", "enabled[5]=0", "enabled[6]=0"],
        "with no link at all the driver of 6.1 leaks what it is to send, unless no port is enabled"
    );
}

#[test]
fn carrier_without_a_way_out_stays_on() {
    let mut lab = Lab::new(&Spread::One, &[5, 6]);
    let mut plan = lab.plan(Tx::one(None));
    plan.carrier = Carrier::On;
    assert_eq!(lab.goes_to(&plan), ["user_linkup[5]=1", "user_linkup[6]=1"]);
    assert_eq!(lab.found(), plan);
}

#[test]
fn a_new_agent_finds_the_plan_in_force() {
    let cases = [
        Tx::one(Some(PortId(6))),
        Tx::one(None),
        hash(&[5, 6, 7]),
        hash(&[]),
        all(&[5, 6, 7]),
        all(&[]),
    ];
    for tx in cases {
        let mut lab = Lab::new(&tx.kind, &[5, 6, 7]);
        let plan = lab.plan(tx);
        lab.program(&plan).unwrap();
        let mut found = lab.found();
        found.tx = found.tx.with_settings_of(plan.tx.kind.clone());
        assert_eq!(found, plan);
    }
}

#[test]
fn a_bond_is_taken_over_with_all_its_ports_or_left_as_it_is() {
    in_netns(|| {
        let mut links = RouteSocket::open().unwrap();
        links.add_veth("a", "b").unwrap();
        let found = ["a", "b"].map(|name| links.by_name(name).unwrap().unwrap());
        let mut both = found.each_ref().map(|link| PortId(link.ifindex));
        both.sort();
        let lab = Lab::new(&Spread::One, &both.map(|port| port.0));
        let plane = TeamPlane::open().unwrap();
        lock(&plane.shared).driver = lab.driver;
        let device = device::Found {
            link: Link {
                ifindex: TEAM,
                ..found[0].clone()
            },
            settings: lock(&lab.kernel.0).settings.clone(),
        };
        for failures in [1, 2] {
            let mut left_as_it_is = 0;
            for step in 0.. {
                let mut shared = lock(&plane.shared);
                let (outcome, reached) = fault::several(step, failures, || shared.adopt_found("bond0", &device));
                match outcome {
                    Ok((bond, observed)) => {
                        let ports: Vec<PortId> = observed.ports.iter().map(|(port, _)| *port).collect();
                        assert_eq!(ports, both, "step {step}");
                        assert!(ports.iter().eq(observed.plan.ports.keys()) && ports.iter().eq(bond.ports.keys()));
                    }
                    Err(_) => left_as_it_is += 1,
                }
                if !reached {
                    break;
                }
            }
            // The list of ports and each of the two ports are needed. A port is read a second time, so one failure is no harm.
            // Counters that cannot be read begin anew.
            assert_eq!(left_as_it_is, if failures == 1 { 1 } else { 3 });
        }
    });
}

#[test]
fn a_port_that_is_gone_costs_the_others_nothing() {
    let mut lab = Lab::new(&hash(&[]).kind, &[5, 6]);
    let plan = lab.plan(hash(&[5, 6, 99]));
    let error = lab.program(&plan).unwrap_err();
    assert!(matches!(error, PlaneError::PortGone { port: PortId(99) }), "{error}");
    assert_eq!(lab.found().tx, hash(&[5, 6]));
    // Port 6 has left the driver, and the plane has not heard of it.
    lock(&lab.kernel.0)
        .settings
        .retain(|key, _| key.port != Some(PortId(6)));
    let plan = lab.plan(hash(&[6, 5]));
    let error = lab.program(&plan).unwrap_err();
    assert!(matches!(error, PlaneError::PortGone { port: PortId(6) }), "{error}");
}

#[test]
fn a_fault_at_any_step_is_made_good_by_the_next_plan() {
    let changes = [
        (Tx::one(Some(PortId(5))), Tx::one(Some(PortId(6)))),
        (hash(&[5, 6, 7]), hash(&[6, 7])),
        (hash(&[6]), hash(&[5, 6, 7])),
        (all(&[5, 6]), all(&[7])),
    ];
    for (before, after) in changes {
        for step in 0.. {
            let mut lab = Lab::new(&before.kind, &[5, 6, 7]);
            let spread = before.kind.clone();
            let (before, after) = (lab.plan(before.clone()), lab.plan(after.clone()));
            lab.program(&before).unwrap();
            let (done, failed) = fault::at(step, || lab.program(&after));
            if !failed {
                assert!(step >= 3, "{spread:?}: only {step} steps");
                break;
            }
            assert!(done.is_err(), "{spread:?}: step {step} failed without an error");
            let found = lab.found();
            assert!(
                !found.tx.is_nowhere() && found.carrier.is_on(),
                "{spread:?}: step {step}"
            );
            lab.program(&after).unwrap();
            assert_eq!(lab.found().tx, after.tx, "{spread:?}: after step {step}");
        }
    }
}

#[test]
fn the_mode_follows_the_plan_while_there_are_no_ports() {
    let mut lab = Lab::new(&Spread::One, &[]);
    let plan = lab.plan(hash(&[]));
    lab.program(&plan).unwrap();
    assert!(matches!(lab.found().tx.kind, Spread::Hash(_)));
    let turns = Spread::RoundRobin {
        packets_per_port: 1,
        igmp: None,
    };
    let turns = lab.plan(Tx::new(turns, Vec::new()));
    assert!(matches!(lab.program(&turns), Err(PlaneError::Inexact { .. })));
    for mode in Mode::ALL {
        assert_eq!(Mode::of(&mode.spread()), Some(mode));
        assert_eq!(Mode::named(mode.name()), Some(mode));
    }
}

#[test]
fn a_complaint_that_nobody_heard_of_a_change_is_no_failure() {
    for code in [libc::ESRCH, libc::ENOBUFS, libc::EMSGSIZE] {
        for carried_out in [true, false] {
            let mut lab = Lab::new(&Spread::One, &[5]);
            lock(&lab.kernel.0).complaint = Some((code, carried_out));
            let set = lab
                .driver
                .set(TEAM, Key::port(Name::Enabled, PortId(5)), &Value::Flag(true));
            let expected = if carried_out { None } else { Some(code) };
            assert_eq!(set.err().and_then(|error| error.raw_os_error()), expected);
        }
    }
}

#[test]
fn an_interface_that_is_still_to_be_given_back_is_so_after_an_attachment_that_fails() {
    in_netns(|| {
        let lab = Lab::new(&Spread::One, &[]);
        let mut links = RouteSocket::open().unwrap();
        links.add_veth("a", "b").unwrap();
        let port = PortId(links.by_name("a").unwrap().unwrap().ifindex);
        let before = original(&mut links, port).unwrap();
        let plane = TeamPlane::open().unwrap();
        lock(&plane.shared).driver = lab.driver;
        let mut bond = plane.handle("bond0", lab.bond);
        // As it comes back from another namespace, or after a return that failed half-way.
        links.set_mtu(port.0, 1450).unwrap();
        links.set_alias(port.0, "port of bond0").unwrap();
        // The team is in memory only, so that the kernel knows no such master.
        let refused = bond.attach(port, &PortBase { mac: None, mtu: 1400 });
        assert!(refused.is_err());
        bond.detach(port, &before).unwrap();
        let link = links.by_index(port.0).unwrap().unwrap();
        assert_eq!((link.report.mtu, link.alias.as_str()), (1500, ""));
    });
}

#[test]
fn a_port_of_a_bond_that_is_gone_is_given_back_only_if_it_has_the_mark_of_that_bond() {
    in_netns(|| {
        let mut links = RouteSocket::open().unwrap();
        links.add_veth("a", "b").unwrap();
        let port = PortId(links.by_name("a").unwrap().unwrap().ifindex);
        let before = original(&mut links, port).unwrap();
        let mut plane = TeamPlane::open().unwrap();
        links.add_veth("bond1", "c").unwrap();
        // No interface is called bond2: that is what the bond was called before, and it was renamed.
        let aliases = [
            ("", false),
            ("port of bond1", false),
            ("port of bond0", true),
            ("port of bond2", true),
        ];
        for (alias, is_ours) in aliases {
            links.set_mtu(port.0, 1450).unwrap();
            links.set_up(port.0, true).unwrap();
            links.set_alias(port.0, alias).unwrap();
            assert_eq!(plane.give_back("bond0", port, &before).unwrap(), is_ours, "{alias:?}");
            let link = links.by_index(port.0).unwrap().unwrap();
            let expected = match is_ours {
                true => (1500, false, ""),
                false => (1450, true, alias),
            };
            assert_eq!((link.report.mtu, link.report.admin_up, link.alias.as_str()), expected);
        }
    });
}

#[test]
fn an_option_that_another_program_changed_is_reported_and_put_back() {
    in_netns(|| {
        let lab = Lab::new(&Spread::One, &[5, 6]);
        let plan = lab.plan(Tx::one(Some(PortId(5))));
        let plane = TeamPlane::open().unwrap();
        lock(&plane.planning).driver = lab.driver;
        let mut bond = plane.handle("bond0", lab.bond);
        bond.program(&plan).result().unwrap();
        let active = Key::team(Name::ActivePort);
        let is = |port| lock(&lab.kernel.0).settings[&active] == Value::U32(port);
        assert!(!bond.changed_by_others(&[Report::Lost]), "nobody changed anything");
        for report in [Report::Lost, said(active, 6)] {
            lock(&lab.kernel.0).set(active, Value::U32(6)).unwrap();
            let before = lock(&lab.kernel.0).asked;
            assert!(
                !bond.changed_by_others(&[said(active, 5)]),
                "it says what was programmed"
            );
            assert_eq!(lock(&lab.kernel.0).asked, before, "so the kernel is not asked");
            assert!(bond.changed_by_others(&[said(active, 5), report]));
            assert!(!bond.changed_by_others(&[said(active, 6)]), "it is known");
            bond.refresh().unwrap();
            bond.program(&plan).result().unwrap();
            assert!(is(5));
            let late = [Report::Lost, said(active, 6), said(active, 5)];
            assert!(!bond.changed_by_others(&late), "it was put back since");
        }
        let unreadable = Report::Settings {
            device: TEAM,
            said: vec![1, 0],
        };
        assert!(!bond.changed_by_others(std::slice::from_ref(&unreadable)));
        lock(&lab.kernel.0).set(active, Value::U32(6)).unwrap();
        assert!(bond.changed_by_others(&[unreadable]), "the kernel was asked");
    });
}

/// A report that an option has this value.
fn said(option: Key, value: u32) -> Report {
    let mut said = io::Cursor::new(Vec::new());
    options::setting(TEAM, option, &Value::U32(value))
        .to_bytes(&mut said)
        .unwrap();
    Report::Settings {
        device: TEAM,
        said: said.into_inner(),
    }
}

#[test]
fn reports_are_read_while_the_plane_waits_for_the_kernel() {
    in_netns(|| {
        let mut plane = TeamPlane::open().unwrap();
        let mut watch = plane.watch().unwrap();
        let at_work = lock(&plane.shared);
        // Without the driver there is no group of its own; this one is there.
        let group = libc::GENL_ID_CTRL as u32;
        at_work.events.join(Family { group, ..FAMILY }).unwrap();
        let sender = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )
        .unwrap();
        let members = NetlinkAddr::new(0, 1 << (group - 1));
        let report = answer(0, 2, TEAM, 2, &[]);
        socket::sendto(sender.as_raw_fd(), &report, &members, MsgFlags::empty()).unwrap();
        let (done, read) = mpsc::channel();
        thread::spawn(move || {
            let mut reports = Vec::new();
            let drained = watch.read_events(8, &mut reports).unwrap();
            done.send((drained, reports))
        });
        let read = read.recv_timeout(Duration::from_secs(10));
        let (drained, reports) = read.expect("reading does not wait for the plane");
        assert_eq!(drained, Drained::Empty);
        assert!(
            matches!(reports[..], [Report::Settings { device: TEAM, .. }]),
            "{reports:?}"
        );
        drop(at_work);
    });
}

#[test]
fn a_port_that_is_there_is_not_called_gone() {
    for code in [libc::ENOENT, libc::ENODEV] {
        let mut lab = Lab::new(&Spread::One, &[5]);
        let plan = lab.plan(Tx::one(Some(PortId(5))));
        lock(&lab.kernel.0).complaint = Some((code, false));
        let error = lab.program(&plan).unwrap_err();
        assert!(matches!(error, PlaneError::Kernel { .. }), "{error}");
    }
}

#[test]
fn a_bond_with_ports_keeps_the_mode_of_its_driver() {
    let lab = Lab::new(&hash(&[]).kind, &[5]);
    exact::check_mode(&lab.bond, &parsed("mode=2")).unwrap();
    let error = exact::check_mode(&lab.bond, &parsed("mode=1")).unwrap_err().to_string();
    assert!(error.contains("mode=active-backup"), "{error}");
}

fn parsed(text: &str) -> BondOptions {
    let pairs: Vec<(String, String)> = text
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    bond_modes::options::parse(&pairs).unwrap().options
}

#[test]
fn what_would_differ_from_the_kernels_driver_is_refused_by_the_name_of_the_option() {
    let refused = [
        ("mode=0", "mode=balance-rr"),
        ("mode=0 packets_per_slave=3", "packets_per_slave=3"),
        ("mode=1 all_slaves_active=1", "all_slaves_active=1"),
        ("mode=2 xmit_hash_policy=encap2+3", "xmit_hash_policy=encap2+3"),
        ("mode=2 xmit_hash_policy=encap3+4", "xmit_hash_policy=encap3+4"),
        ("mode=1 arp_interval=100 arp_ip_target=10.0.0.1", "arp_validate=none"),
    ];
    for (text, option) in refused {
        let error = exact::check(&parsed(text)).unwrap_err().to_string();
        assert!(error.contains(option) && error.contains("plane=tc"), "{text}: {error}");
    }
    let exact = [
        "mode=1 miimon=100 fail_over_mac=follow num_grat_arp=3 resend_igmp=2 updelay=200",
        "mode=1 arp_interval=100 arp_ip_target=10.0.0.1 arp_validate=all",
        "mode=2 xmit_hash_policy=layer3+4 all_slaves_active=1",
        "mode=2 xmit_hash_policy=vlan+srcmac",
        "mode=3 miimon=100",
    ];
    for text in exact {
        exact::check(&parsed(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let port = |queue_id| PortOptions { prio: 7, queue_id };
    let error = exact::check_port(&port(2)).unwrap_err().to_string();
    assert!(error.contains("queue_id=2") && error.contains("plane=tc"), "{error}");
    exact::check_port(&port(0)).unwrap();
}

#[test]
fn one_agent_of_a_namespace_takes_over_what_is_left_behind() {
    in_netns(|| {
        let mut first = TeamPlane::open().unwrap();
        let mut second = TeamPlane::open().unwrap();
        assert!(first.orphan_lock.is_some() && second.orphan_lock.is_none());
        assert_eq!(first.bonds().unwrap(), Vec::<String>::new());
        assert_eq!(second.bonds().unwrap(), Vec::<String>::new());
        drop(first);
        assert!(TeamPlane::open().unwrap().orphan_lock.is_some());
    });
}

#[test]
fn a_process_without_rights_cannot_keep_an_agent_from_taking_over() {
    in_netns(|| {
        // Made by an agent that has gone.
        drop(TeamPlane::open().unwrap());
        // A lock file that others may open, as an earlier agent could have left it, is closed to them.
        fs::set_permissions(ORPHAN_LOCK, Permissions::from_mode(0o644)).unwrap();
        drop(TeamPlane::open().unwrap());
        let (socket, opened) = unprivileged(|| {
            let name = SocketAddr::from_abstract_name("bondd/team").unwrap();
            (UnixListener::bind_addr(&name), File::open(ORPHAN_LOCK))
        });
        assert!(socket.is_ok(), "everybody can bind an abstract socket");
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(TeamPlane::open().unwrap().orphan_lock.is_some());
    });
}

#[test]
fn a_kernel_without_the_driver_is_told_from_options_that_differ() {
    in_netns(|| {
        let mut plane = TeamPlane::open().unwrap();
        assert!(matches!(plane.can(&parsed("mode=0")), Err(PlaneError::Inexact { .. })));
        let usable = plane.probe();
        match &usable {
            Ok(()) => {}
            Err(PlaneError::Unsupported { config, .. }) => {
                assert!(config.contains("CONFIG_NET_TEAM_MODE_"), "{config}");
                let error = plane.can(&parsed("mode=1")).unwrap_err().to_string();
                assert!(error.contains("CONFIG_NET_TEAM_MODE_ACTIVEBACKUP"), "{error}");
            }
            Err(other) => panic!("{other}"),
        }
        let report = plane.examiner()(&parsed("mode=0"));
        assert_eq!((report.usable, report.exact), (usable.is_ok(), false));
        let report = plane.examiner()(&parsed("mode=1"));
        assert_eq!(report.exact, plane.can(&parsed("mode=1")).is_ok());
        let links = RouteSocket::open().unwrap().all().unwrap();
        assert_eq!(links.len(), 1, "probing leaves nothing behind");
    });
}
