//! What the loop does while a change waits for the kernel.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bond_modes::{Event, LocalAddress, PortId};
use bond_monitors::{FrameKinds, MacAddr};

use super::super::agenda::{Agenda, Stage};
use super::super::looks::Look;
use super::super::table::FIRST;
use super::super::task::Task;
use super::adoption::{make_interface, make_interface_with, port, spec};
use super::{Change, NOW, Tests, attach, refusal, set_up, with_bond};
use crate::control::proto::Call;
use crate::netlink::tests::ip;
use crate::netlink::{LinkEvent, RouteSocket};
use crate::packet::PacketSocket;
use crate::packet::tests::{await_readable, pair};

#[test]
fn what_a_port_was_is_on_disk_until_it_is_given_back() {
    with_bond("disk-release", |instances, _, _| {
        make_interface(instances, "bond0");
        attach(instances, "a").unwrap();
        let looks = Arc::new(AtomicUsize::new(0));
        let looked = Arc::clone(&looks);
        let a = port(instances, "a");
        instances.meanwhile = Some(Box::new(move |instances| {
            instances.publish_all(NOW);
            let states = instances.store.load(&mut Tests).unwrap().states;
            let kept = states[0].originals.contains_key(&a) || states[0].unrestored.contains_key(&a);
            assert!(kept || instances.bonds[FIRST].unrestored.is_empty());
            looks.fetch_add(usize::from(kept), Ordering::SeqCst);
        }));
        instances.port_detach("bond0", "a").unwrap();
        assert!(looked.load(Ordering::SeqCst) > 0, "the loop never had its turn");
        assert!(instances.bonds[FIRST].unrestored.is_empty());
    });
}

#[test]
fn during_a_start_a_bond_that_is_not_known_may_still_come() {
    with_bond("so-far", |instances, _, _| {
        let refusal = |instances: &mut Change<'_>| instances.show(NOW, Some("bond7")).unwrap_err().message;
        assert_eq!(refusal(instances), "no bond bond7, expected one of bondd's: bond0");
        instances.agenda = Agenda::new([], &[]);
        let so_far = "no bond bond7 so far, bondd has just started, expected one of bondd's: bond0";
        assert_eq!(refusal(instances), so_far);
    });
}

#[test]
fn the_first_port_of_the_file_comes_first_whatever_events_come_meanwhile() {
    with_bond("order", |instances, _, _| {
        make_interface_with("bond0", instances.bonds[0].ifindex + 1);
        instances.remove(FIRST).unwrap();
        let spec = spec("mode=1", &["b", "a"]);
        instances.meanwhile = Some(Box::new(|instances| {
            let link = RouteSocket::open().unwrap().by_name("a").unwrap().unwrap();
            instances.on_link_event(NOW, LinkEvent::Link(Box::new(link)));
        }));
        instances.agenda = Agenda::new([], std::slice::from_ref(&spec));
        while instances.bonds.is_empty() || instances.bonds[0].bond.ports().is_empty() {
            let is_at_end = instances.agenda.stage() >= Stage::End;
            assert!(!is_at_end, "no port was attached: {:?}", instances.waiting(NOW));
            instances.next_step();
        }
        assert!(instances.bonds[0].bond.ports().named("b").is_some());
    });
}

#[test]
fn a_bond_that_is_removed_leaves_no_socket_open() {
    with_bond("sockets", |instances, _, _| {
        let options = [("arp_interval", "100"), ("arp_ip_target", "10.0.0.2"), ("miimon", "0")];
        let options: Vec<_> = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        instances.set("bond0", &options).unwrap();
        attach(instances, "a").unwrap();
        set_up(instances);
        instances.drain(FIRST);
        assert_eq!(instances.frame_sockets.open.len(), 1);
        instances.publish_all(NOW);
        instances.meanwhile = Some(Box::new(|instances| {
            if instances.bonds.get(FIRST).is_some() {
                instances.drain(NOW, FIRST);
            }
        }));
        // A newer state is on its way to the disk.
        instances.bonds[0].wanted.push("later".to_owned());
        instances.bonds[0].dirty = true;
        instances.publish(NOW);
        instances.remove(FIRST).unwrap();
        assert_eq!(instances.frame_sockets.open.len(), 0);
    });
}

#[test]
fn a_bond_that_goes_down_and_up_keeps_the_socket_of_its_port_and_hears_nothing_while_it_is_down() {
    with_bond("flaps", |instances, plane, _| {
        let options = [("arp_interval", "100"), ("arp_ip_target", "10.0.0.2"), ("miimon", "0")];
        let options: Vec<_> = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        instances.set("bond0", &options).unwrap();
        let mut links = RouteSocket::open().unwrap();
        let (near, far) = pair(&mut links, "c", "d");
        plane.set_port(PortId(far), links.by_name("d").unwrap().unwrap().report);
        attach(instances, "d").unwrap();
        set_up(instances);
        instances.feed(
            FIRST,
            Event::Addresses {
                addresses: vec![own("10.0.0.1")],
            },
        );
        let socket = |instances: &Change<'_>| {
            let open = &instances.frame_sockets.open;
            open.get(&PortId(far)).expect("the port is not heard").as_raw_fd()
        };
        let (first, sender) = (socket(instances), PacketSocket::open().unwrap());
        let arp = |number: u8| {
            let mut frame = from_target();
            frame[59] = number;
            frame
        };
        for _ in 0..300 {
            let mut report = instances.bonds[0].devices.values().next().unwrap().report.clone();
            report.admin_up = false;
            instances.feed(FIRST, Event::BondLink { report });
            sender.send(near, &arp(1)).unwrap();
            assert_eq!(socket(instances), first);
            set_up(instances);
            sender.send(near, &arp(3)).unwrap();
            let mut heard = Vec::new();
            let socket = instances.frame_sockets.open.get_mut(&PortId(far)).unwrap();
            while heard.last() != Some(&arp(3)) {
                await_readable(&*socket);
                socket.read(1, &mut heard).unwrap();
                heard.retain(|frame| frame[12..14] == [8, 6]);
            }
            assert_eq!(heard, [arp(3)]);
        }
        assert!(!instances.frame_sockets.are_too_many_closing());
        // Nothing asks for frames any more.
        let none = [("arp_interval".to_owned(), "0".to_owned())];
        instances.set("bond0", &none).unwrap();
        instances.drain(FIRST);
        assert_eq!(instances.frame_sockets.open.len(), 0);
    });
}

/// An address of the bond.
fn own(ip: &str) -> LocalAddress {
    LocalAddress {
        ip: ip.parse().unwrap(),
        mac: None,
        tags: Vec::new(),
        router: false,
    }
}

/// An answer of 10.0.0.2 to 10.0.0.1.
fn from_target() -> Vec<u8> {
    let mut frame = vec![0xff; 60];
    frame[12..14].copy_from_slice(&[8, 6]);
    frame[28..32].copy_from_slice(&[10, 0, 0, 2]);
    frame[38..42].copy_from_slice(&[10, 0, 0, 1]);
    frame
}

#[test]
fn the_loop_does_not_wait_until_sockets_are_closed() {
    with_bond("closing", |instances, _, _| {
        let ports = ["a", "b"].map(|name| port(instances, name));
        // Half of many, because others want the processor, too, and closing waits less while others change interfaces.
        let mut took: Vec<_> = (0..20)
            .map(|_| {
                for port in ports {
                    instances.frame_sockets.hear(port, &FrameKinds::ARP.into()).unwrap();
                }
                assert_eq!(instances.frame_sockets.open.len(), 2);
                let before = Instant::now();
                ports.into_iter().for_each(|port| instances.frame_sockets.close(port));
                let took = before.elapsed();
                assert_eq!(instances.frame_sockets.open.len(), 0);
                took
            })
            .collect();
        took.sort();
        let took = took[took.len() / 2];
        assert!(took < Duration::from_millis(2), "closing was waited for: {took:?}");
    });
}

#[test]
fn neither_clients_nor_ports_that_come_have_sockets_opened_faster_than_they_are_closed() {
    with_bond("too-many-closing", |instances, _, _| {
        let a = port(instances, "a");
        let opening: [fn(&mut Change<'_>); 2] = [
            |instances| {
                let (bond, options) = ("bond0".to_owned(), Vec::new());
                instances.call(&Call::Set { bond, options }).unwrap();
            },
            |instances| instances.attach_if_due(FIRST, "a"),
        ];
        for open in opening {
            let mut opened = 0;
            let mut more = 0;
            while more < 32 {
                instances.frame_sockets.hear(a, &FrameKinds::ARP.into()).unwrap();
                instances.frame_sockets.close(a);
                opened += 1;
                assert!(opened < 2000, "the kernel closes them as fast as they are opened");
                more += usize::from(instances.frame_sockets.are_too_many_closing());
            }
            open(instances);
            assert!(!instances.frame_sockets.are_too_many_closing());
        }
    });
}

#[test]
fn a_socket_that_cannot_be_bound_is_not_waited_for() {
    with_bond("unbound", |instances, _, _| {
        let mut took: Vec<_> = (0..20)
            .map(|_| {
                let before = Instant::now();
                let heard = instances.frame_sockets.hear(PortId(9999), &FrameKinds::ARP.into());
                assert_eq!(heard.unwrap_err().raw_os_error(), Some(libc::ENODEV));
                before.elapsed()
            })
            .collect();
        took.sort();
        let took = took[took.len() / 2];
        assert!(took < Duration::from_millis(2), "closing was waited for: {took:?}");
    });
}

#[test]
fn a_port_that_goes_while_it_is_attached_is_no_port() {
    with_bond("goes", |instances, plane, _| {
        ip("link add c type veth peer name d");
        let c = RouteSocket::open().unwrap().by_name("c").unwrap().unwrap();
        plane.set_port(PortId(c.ifindex), c.report);
        plane.set_attaching(|_| ip("link del c"));
        instances.meanwhile = Some(Box::new(|instances| {
            let _ = instances.read_links(NOW, 1024);
        }));
        attach(instances, "c").unwrap_err();
        assert!(instances.bonds[0].bond.ports().is_empty());
        assert!(instances.bonds[0].originals.is_empty());
        plane.set_attaching(|_| {});
        attach(instances, "a").unwrap();
    });
}

#[test]
fn a_file_is_followed_once_its_bond_can_be_looked_for() {
    with_bond("looked-for", |instances, plane, _| {
        make_interface_with("bond0", instances.bonds[0].ifindex + 1);
        instances.remove(FIRST).unwrap();
        plane.fail_at(0, refusal());
        instances.ensure(&spec("mode=1", &[]));
        assert!(instances.has_unadopted());
        let due = instances.adopt_timeout().unwrap();
        instances.handle_timeout(due);
        instances.settle(due);
        assert!(!instances.has_unadopted());
        assert_eq!(instances.bonds.len(), 1, "{:?}", instances.waiting(NOW));
    });
}

#[test]
fn an_address_that_a_plan_is_still_to_change_is_not_the_operators() {
    with_bond("address-meanwhile", |instances, _, _| {
        // The script's bond is no interface, so the plan never comes to this one.
        ip("link add bond0 type veth peer name far");
        let device = RouteSocket::open().unwrap().by_name("bond0").unwrap().unwrap().ifindex;
        instances.bonds[0].ifindex = device;
        let random = instances.bonds[0].bond.plan().mac;
        instances.tools().links.set_mac(device, random).unwrap();
        let looks = Arc::new(AtomicUsize::new(0));
        let looked = Arc::clone(&looks);
        instances.meanwhile = Some(Box::new(move |instances| {
            if instances.underway.at_work == Some(FIRST) && instances.bonds[FIRST].bond.plan().mac != random {
                instances.look_at(FIRST, Look::Device);
                instances.polls.devices.push(FIRST);
                instances.ask_polled();
                instances.ask_threads(NOW);
                let _ = instances.take_answers(NOW, 64);
                looks.fetch_add(1, Ordering::SeqCst);
            }
        }));
        attach(instances, "a").unwrap();
        let of_port = RouteSocket::open().unwrap().by_name("a").unwrap().unwrap().report.mac;
        assert!(looked.load(Ordering::SeqCst) > 0, "the loop never had its turn");
        assert_eq!(instances.bonds[0].bond.plan().mac, of_port);
        instances.tools().links.set_mac(device, of_port).unwrap();
        instances.settle(NOW);
        assert_eq!(instances.bonds[0].bond.plan().mac, of_port);
    });
}

#[test]
fn a_port_that_is_renamed_while_it_is_attached_is_known_by_its_new_name_only() {
    with_bond("renamed-meanwhile", |instances, plane, _| {
        plane.set_attaching(|_| ip("link set dev a name z"));
        attach(instances, "a").unwrap();
        plane.set_attaching(|_| {});
        assert_eq!(instances.bonds[0].wanted, ["z"]);
        assert_eq!(instances.bonds[0].origins.operator_ports, ["z".to_owned()].into());
        instances.port_detach("bond0", "z").unwrap();
        ip("link set dev z name a");
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        assert!(instances.bonds[0].bond.ports().is_empty(), "it came back by itself");
    });
}

#[test]
fn an_address_that_another_program_sets_while_a_port_is_attached_is_told() {
    with_bond("address-of-port", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let b = port(instances, "b");
        let of = |instances: &Change<'_>| instances.bonds[0].other_macs.get(&b).copied();
        attach(instances, "b").unwrap();
        instances.settle(NOW);
        assert_eq!(of(instances), None, "it is as it was set");
        instances.port_detach("bond0", "b").unwrap();
        plane.set_attached(|_| ip("link set dev b address 02:00:00:00:00:99"));
        attach(instances, "b").unwrap();
        instances.settle(NOW);
        assert_eq!(of(instances), Some(MacAddr([2, 0, 0, 0, 0, 0x99])));
    });
}

#[test]
fn a_wanted_port_that_is_back_when_its_attempt_ends_is_tried() {
    with_bond("back", |instances, _, _| {
        instances.bonds[0].wanted.push("x".to_owned());
        let mut link = RouteSocket::open().unwrap().by_name("a").unwrap().unwrap();
        link.report.name = "x".to_owned();
        link.ifindex = 777;
        // The kernel has answered that there is none; then it comes, and the loop is told before the change goes on.
        instances.meanwhile = Some(Box::new(move |instances| {
            if instances.to_attach.is_empty() {
                instances.on_link_event(NOW, LinkEvent::Link(Box::new(link.clone())));
            }
        }));
        let task = Task::AttachWanted(FIRST, "x".to_owned());
        instances.carry_out(task.clone());
        instances.meanwhile = None;
        assert_eq!(instances.next_task(NOW, true), Some(task));
    });
}
