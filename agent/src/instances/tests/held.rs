//! Facts while the thread that waits for the kernel is at work on a bond: the loop asks the kernel for nothing that may wait, and does
//! not wait for the thread.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};

use super::super::table::FIRST;
use super::super::unadopted::{State, Unadopted};
use super::adoption::{make_interface, port};
use super::{NOW, attach, give_traffic, until, with_bond};
use crate::dataplane::PlaneError;
use crate::netlink::tests::{asks, ip};
use crate::netlink::{LinkEvent, RouteSocket};
use crate::threads::Threads;

/// How long the thread is at work, unless it is let go.
const WORK: Duration = Duration::from_secs(10);

#[test]
fn no_fact_waits_for_the_kernel_or_for_a_plane_that_is_at_work() {
    with_bond("held", |instances, plane, _| {
        give_traffic(instances, plane);
        make_interface(instances, "bond0");
        let [a, b] = ["a", "b"].map(|name| {
            attach(instances, name).unwrap();
            port(instances, name)
        });
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        ip("link set dev bond0 name bond9");
        let renamed = RouteSocket::open().unwrap().by_name("bond9").unwrap().unwrap();
        let error = PlaneError::UnknownPlane { name: "tc".to_owned() };
        instances.adopt_later(NOW, Unadopted::new("other", State::Lost), &error);
        let poll = Poll::new().unwrap();
        instances.threads = Threads::start(Waker::new(poll.registry(), Token(0)).unwrap()).unwrap();

        let forwarder = instances.bonds[0].plane.clone();
        let (let_go, wait) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let at_work = thread::spawn(move || {
            forwarder.with(|_| {
                begun.send(()).unwrap();
                let _ = wait.recv_timeout(WORK);
            });
        });
        begins.recv().unwrap();
        let begin = Instant::now();
        let forbidden = asks::forbid();
        let name = "a".to_owned();
        instances
            .pending_events
            .push_back(LinkEvent::Gone { ifindex: a.0, name });
        instances.read_links(NOW, 0);
        instances.on_device_seen(NOW, FIRST, renamed);
        instances.on_taken_away(FIRST, b, "b");
        let later = instances.adopt_timeout().unwrap();
        instances.handle_timeout(later);
        assert_eq!(instances.adopt_timeout(), None, "it is asked for");
        drop(forbidden);
        assert!(begin.elapsed() < WORK / 2, "it waited {:?}", begin.elapsed());
        let _ = let_go.send(());
        at_work.join().unwrap();
        until("all of it is done", || {
            instances.settle(later);
            let instance = &instances.bonds[0];
            instance.name == "bond9" && instance.bond.ports().is_empty() && !instances.has_unadopted()
        });
    });
}

#[test]
fn a_stop_waits_for_the_kernel_and_takes_no_bond_over() {
    with_bond("stop", |instances, plane, _| {
        let error = PlaneError::UnknownPlane { name: "tc".to_owned() };
        instances.adopt_later(NOW, Unadopted::new("other", State::Lost), &error);
        let later = instances.adopt_timeout().unwrap();
        instances.handle_timeout(later);
        assert_eq!(instances.adopt_timeout(), None, "it is asked for");
        plane.take_calls();
        let forbidden = asks::forbid();
        instances.finish();
        drop(forbidden);
        assert!(instances.has_unadopted());
        assert_eq!(plane.take_calls(), []);
    });
}
