//! Answers of the kernel that come late: the agent, or an event, knows better by then.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bond_modes::{Event, PortId};
use bond_monitors::Time;

use super::super::looks::Look;
use super::super::table::FIRST;
use super::Change;
use super::{NOW, attach, set_up, until, with_bond};
use crate::clock;
use crate::instances::Counters;
use crate::netlink::tests::ip;
use crate::netlink::{Link, LinkEvent, RouteSocket};
use crate::threads::Threads;

fn link(name: &str) -> Link {
    RouteSocket::open().unwrap().by_name(name).unwrap().unwrap()
}

#[test]
fn an_address_that_was_read_before_the_first_port_came_is_not_the_operators() {
    with_bond("late-address", |instances, _, _| {
        // The script's bond is no interface.
        ip("link add bond0 type veth peer name far");
        instances.bonds[0].ifindex = link("bond0").ifindex;
        let random = instances.bonds[0].bond.plan().mac;
        instances.tools().links.set_mac(link("bond0").ifindex, random).unwrap();
        instances.look_at(FIRST, Look::Device);
        instances.polls.devices.push(FIRST);
        instances.ask_polled();
        attach(instances, "a").unwrap();
        let of_port = link("a").report.mac;
        assert_eq!(instances.bonds[0].bond.plan().mac, of_port);
        instances.tools().links.set_mac(link("bond0").ifindex, of_port).unwrap();
        instances.settle(NOW);
        assert_eq!(instances.bonds[0].bond.plan().mac, of_port);
    });
}

#[test]
fn a_poll_from_before_an_event_takes_no_port_up_or_down() {
    with_bond("late-poll", |instances, _, _| {
        let miimon = [("miimon".to_owned(), "100".to_owned())];
        instances.set("bond0", &miimon).unwrap();
        ip("link set dev a up");
        ip("link set dev b up");
        until("carrier", || link("a").report.carrier.is_on() && link("a").in_service);
        attach(instances, "a").unwrap();
        set_up(instances);
        let port = PortId(link("a").ifindex);
        let carrier = |instances: &Change<'_>| {
            let port = instances.bonds[0].bond.ports().get(port).unwrap();
            port.carrier().is_on()
        };
        // How long polls rest is told by the clock.
        let mut now = clock::now();
        for on in [false, true] {
            now = now + Duration::from_millis(100);
            instances.handle_timeout(now);
            ip(&format!("link set dev b {}", if on { "up" } else { "down" }));
            until("the carrier changes", || {
                let link = link("a");
                link.report.carrier.is_on() == on && link.in_service == on
            });
            instances.on_port(now, FIRST, port, &link("a"));
            assert_eq!(carrier(instances), on);
            instances.settle(now);
            assert_eq!(carrier(instances), on, "the poll was before the event");
            // The next one counts.
            poll(instances, &mut now);
            assert_eq!(carrier(instances), on);
        }
        ip("link set dev b down");
        until("the carrier goes", || !link("a").report.carrier.is_on());
        poll(instances, &mut now);
        assert!(!carrier(instances), "a poll alone says so");
    });
}

#[test]
fn the_time_in_which_a_bond_was_down_is_no_pace_of_its_polls() {
    with_bond("late-pace", |instances, _, _| {
        let miimon = [("miimon".to_owned(), "100".to_owned())];
        instances.set("bond0", &miimon).unwrap();
        attach(instances, "a").unwrap();
        set_up(instances);
        let mut report = link("a").report;
        let told = |instances: &mut Change<'_>, now| instances.report(now, FIRST, Counters::Unread).polled_every_ms;
        let at = |seconds| NOW + Duration::from_secs(seconds);
        instances.handle_timeout(at(1));
        instances.handle_timeout(at(2));
        assert_eq!(told(instances, at(2)), Some(1_000));
        for up in [false, true] {
            report.admin_up = up;
            instances
                .at(at(3600))
                .feed(FIRST, Event::BondLink { report: report.clone() });
            assert_eq!(told(instances, at(3600)), None, "up: {up}");
        }
        instances.handle_timeout(at(3601));
        assert_eq!(told(instances, at(3601)), None, "the first poll");
    });
}

#[test]
fn a_carrier_that_went_with_lost_events_counts_before_everything_is_read() {
    with_bond("late-reading", |instances, _, _| {
        let miimon = [("miimon".to_owned(), "100".to_owned())];
        instances.set("bond0", &miimon).unwrap();
        ip("link set dev a up");
        ip("link set dev b up");
        until("a runs", || link("a").is_running());
        attach(instances, "a").unwrap();
        // The script's bond is no interface.
        ip("link add bond0 type veth peer name far");
        ip("link set dev bond0 up");
        instances.bonds[0].ifindex = link("bond0").ifindex;
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        let poll = mio::Poll::new().unwrap();
        instances.threads = Threads::start(Arc::new(mio::Waker::new(poll.registry(), mio::Token(9)).unwrap())).unwrap();
        let (go, held) = mpsc::channel::<()>();
        instances.threads.kernel.ask(move |_| {
            let _ = held.recv();
            Box::new(|_, _| {})
        });
        ip("link set dev b down");
        until("a has lost its carrier", || !link("a").is_running());
        for _ in 0..2 {
            instances.on_link_event(NOW, LinkEvent::Overrun);
            instances.read_links(NOW, 1024);
        }
        let carrier = |instances: &Change<'_>| instances.bonds[0].bond.ports().named("a").unwrap().carrier().is_on();
        assert!(!carrier(instances));
        ip("link set dev b up");
        until("a runs", || link("a").is_running());
        go.send(()).unwrap();
        until("everything is read", || {
            instances.settle(NOW);
            carrier(instances)
        });
    });
}

fn poll(instances: &mut Change<'_>, now: &mut Time) {
    *now = *now + Duration::from_millis(500);
    instances.handle_timeout(*now);
    instances.settle(*now);
}
