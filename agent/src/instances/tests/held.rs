//! Facts while the thread that waits for the kernel is at work on a bond: the loop asks the kernel for nothing that may wait, and does
//! not wait for the thread.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};

use super::super::forwarder::Forwarder;
use super::super::table::FIRST;
use super::super::unadopted::{State, Unadopted};
use super::adoption::{make_interface, port};
use super::{NOW, Tests, attach, give_traffic, programs, until, with_bond};
use crate::dataplane::{PlaneError, Planes};
use crate::instances::Instances;
use crate::instances::task::Task;
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
        instances.adopt_later(Unadopted::new("other", State::Lost), error);
        let poll = Poll::new().unwrap();
        instances.threads = Threads::start(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap())).unwrap();

        let mut taken = instances.host.link(b.0).unwrap().clone();
        taken.master = Some(renamed.ifindex);
        instances.host.changed(taken);
        let (let_go, at_work) = hold(instances.bonds[0].plane.clone());
        let begin = Instant::now();
        let forbidden = asks::forbid();
        let name = "a".to_owned();
        instances.pending_events.push_back(LinkEvent::Gone {
            ifindex: a.0,
            name,
            moved: None,
        });
        Instances::read_links(instances, NOW, 0);
        instances.on_device_seen(NOW, FIRST, renamed);
        instances.on_taken_away(FIRST, b, "b");
        let later = instances.adopt_timeout().unwrap();
        Instances::handle_timeout(instances, later);
        assert_eq!(instances.next_task(later, true), Some(Task::AdoptLate));
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
fn a_report_of_a_change_waits_for_no_plane_and_is_put_back_when_the_plane_can() {
    with_bond("held-report", |instances, plane, _| {
        let device = instances.bonds[0].ifindex;
        plane.change_by_others(device);
        // Another thread may have the planes.
        let mut planes = std::mem::replace(&mut instances.tools().planes, Planes::new(Vec::new()));
        instances.watches = planes.watches();
        let poll = Poll::new().unwrap();
        instances.threads = Threads::start(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap())).unwrap();
        let (let_go, at_work) = hold(instances.bonds[0].plane.clone());
        plane.take_calls();
        let begin = Instant::now();
        let forbidden = asks::forbid();
        instances.read_planes(crate::clock::now(), 8);
        instances.settle(NOW);
        drop(forbidden);
        assert!(begin.elapsed() < WORK / 2, "it waited {:?}", begin.elapsed());
        assert_eq!(programs(plane), 0, "nobody has judged it");
        let _ = let_go.send(());
        at_work.join().unwrap();
        until("it is put back", || {
            instances.settle(NOW);
            programs(plane) == 1
        });
    });
}

/// Has another thread at work on a bond, until it is let go.
fn hold(forwarder: Arc<Forwarder>) -> (Sender<()>, JoinHandle<()>) {
    let (let_go, wait) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let at_work = thread::spawn(move || {
        forwarder.with(&mut Tests, |_| {
            begun.send(()).unwrap();
            let _ = wait.recv_timeout(WORK);
        });
    });
    begins.recv().unwrap();
    (let_go, at_work)
}
