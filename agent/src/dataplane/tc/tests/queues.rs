//! Frames that were given to a queue leave through its port, all others never. Not every kernel has tc's `skbedit`, so a mark is
//! made by tying all CPUs to a queue other than the first; `tests/vm/queues.sh` marks the way operators do.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use bond_modes::plan::Tx;

use super::world::*;
use crate::dataplane::step::fault;
use crate::dataplane::tc::pins::unpin;
use crate::dataplane::{PlaneBond, PlaneError};
use crate::netlink::queue::{in_own_sysfs, mask_of};

#[test]
fn a_frame_that_was_given_to_a_queue_leaves_through_its_port() {
    for_pairs(|w| {
        let ports = w.bond_with_four_ports();
        let far = w.far_ends();
        let policies = [Tx::one(Some(ports[0])), all(vec![ports[0]])];
        for (turn, tx) in (0..).zip(policies) {
            let mut plan = w.list_plan(tx, &ports[..1]);
            plan.steer = queues(&[(2, ports[1]), (7, ports[3]), (255, ports[2])]);
            w.program(&plan);
            let mut expected = [const { Vec::new() }; 4];
            for (number, queue, place) in [(0, 0, 0), (1, 2, 1), (2, 3, 0), (3, 7, 3), (4, 15, 0)] {
                tie_all("bond0", queue);
                let number = turn * 10 + number;
                w.send_frame(&numbered(frame(OTHER), number));
                expected[place].push(number);
            }
            assert_eq!(w.gather(&far, 5), expected);
        }
        // Where the plan steers no queue, a frame's queue does not matter.
        tie_all("bond0", 7);
        w.send_by(Tx::one(Some(ports[0])), &ports[..1]);
        w.send_frame(&numbered(frame(OTHER), 99));
        assert_eq!(w.gather(&far, 1)[0], [99]);
    });
}

#[test]
fn queues_outlive_the_agent_and_a_port_that_leaves_has_none() {
    for_pairs(|w| {
        let ports = w.bond_with_four_ports();
        let mut plan = w.list_plan(Tx::one(Some(ports[0])), &ports[..1]);
        plan.steer = queues(&[(1, ports[1]), (2, ports[1]), (3, ports[2])]);
        w.program(&plan);
        w.reopen();
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
        let original = w.originals.remove(&ports[1]).unwrap();
        w.bond().detach(ports[1], &original).unwrap();
        w.reopen();
        let left = w.adopt().unwrap().unwrap().plan;
        assert_eq!(left.steer, queues(&[(3, ports[2])]));
        // A queue of a port that is not attached is an error, and the other queues are programmed.
        let mut wrong = left.clone();
        wrong.steer = queues(&[(1, ports[1]), (4, ports[3])]);
        let outcome = w.bond().program(&wrong).result();
        assert!(
            matches!(outcome, Err(PlaneError::PortGone { port }) if port == ports[1]),
            "{outcome:?}"
        );
        assert_eq!(w.in_force(|now| now.bpf.read_queues()).unwrap(), [(4, ports[3])].into());
    });
}

#[test]
fn queues_that_fail_at_any_step_are_completed_by_the_next_plan() {
    for_pairs(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        for step in 0.. {
            let mut from = w.plan(Some(p0), &[p0, p1]);
            from.steer = queues(&[(3, p1), (4, p0)]);
            if step > 0 {
                w.program(&from);
            }
            let mut to = w.plan(Some(p0), &[p0, p1]);
            to.steer = queues(&[(1, p0), (2, p1), (3, p0)]);
            let (outcome, reached) = fault::at(step, || w.bond().program(&to).result());
            assert_eq!(outcome.is_err(), reached);
            w.program(&to);
            w.reopen();
            assert_eq!(w.adopt().unwrap().unwrap().plan, to, "step {step}");
            if !reached {
                assert!(step > 4, "only {step} steps");
                break;
            }
        }
    });
}

#[test]
fn a_bond_of_an_agent_without_queues_goes_on_and_says_that_it_has_none() {
    for_pairs(|w| {
        w.links.add_veth_with_queues("bond0", "wire%d", 1).unwrap();
        let (bond, wire) = (w.link("bond0"), w.link("wire0"));
        w.links.rename(wire.ifindex, &format!("wire{}", bond.ifindex)).unwrap();
        w.links.set_alias(wire.ifindex, "wire of bond0").unwrap();
        w.links.set_up(bond.ifindex, true).unwrap();
        w.adopt().unwrap().unwrap();
        w.attach("p0", None);
        let p0 = w.port("p0");
        w.program(&w.plan(Some(p0), &[p0]));
        let pins = w.kept().pins.clone();
        unpin(&pins.map("queues")).unwrap();
        w.reopen();
        let plan = w.adopt().unwrap().unwrap().plan;
        let mut wished = plan.clone();
        wished.steer = queues(&[(1, p0)]);
        let outcome = w.bond().program(&wished).result();
        assert!(matches!(outcome, Err(PlaneError::OneQueue { .. })), "{outcome:?}");
        w.reopen();
        assert_eq!(w.adopt().unwrap().unwrap().plan, plan);
    });
}

#[test]
fn a_cpu_that_comes_later_is_tied_to_the_first_queue_by_a_refresh() {
    for_pairs(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let first = "/sys/class/net/bond0/queues/tx-0/xps_cpus";
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        plan.steer = queues(&[(1, p1)]);
        w.program(&plan);
        for fresh_agent in [false, true] {
            in_own_sysfs(|| fs::write(first, "0")).unwrap();
            if fresh_agent {
                w.reopen();
                w.adopt().unwrap().unwrap();
            }
            w.bond().refresh().unwrap();
            in_own_sysfs(|| match fs::read_to_string(first)?.trim() {
                "0" => Err(std::io::Error::other("no CPU is tied")),
                _ => Ok(()),
            })
            .unwrap();
        }
    });
}

/// The kernel remembers for every TCP connection the queue that it took last, on whatever device. A queue of the port that it
/// remembers must not be taken for a queue of the bond.
#[test]
fn connections_over_a_port_with_many_queues_bear_no_marks() {
    for_pairs(|w| {
        w.links.add_veth_with_queues("p9", "q9", 16).unwrap();
        w.links.set_tx_queues("p9", 16).unwrap();
        w.create();
        let (listening, ready) = mpsc::channel();
        let (go, moved) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || far_side(&listening, &moved));
            let thread = ready.recv().unwrap();
            ip(&format!("link set q9 netns {thread}"));
            go.send(()).unwrap();
            for name in ["p9", "p1"] {
                w.attach(name, None);
            }
            let (p9, p1) = (w.port("p9"), w.port("p1"));
            let mut plan = w.plan(Some(p9), &[p9, p1]);
            plan.steer = queues(&(1..16).map(|queue| (queue, p1)).collect::<Vec<_>>());
            w.program(&plan);
            tie_all("p9", 5);
            ip("addr add 10.9.0.1/24 dev bond0");
            ready.recv().unwrap();
            let sent: usize = (0..20).map(|_| talk()).sum();
            let counted = [w.counters(p9).tx_frames, w.counters(p1).tx_frames];
            println!("{sent} bytes in {counted:?} frames");
            assert!(counted[0] > 20 * 10 && counted[1] == 0, "{counted:?}");
        });
    });
}

/// Sends over a new connection while the far side answers; how many bytes got there.
fn talk() -> usize {
    let mut stream = TcpStream::connect_timeout(&"10.9.0.2:9".parse().unwrap(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; ROUND];
    for _ in 0..10 {
        stream.write_all(&[7; ROUND]).unwrap();
        stream.read_exact(&mut answer).unwrap();
    }
    10 * ROUND
}

/// A namespace with the far end of the port's cable, where 20 connections are answered. Tells its thread, then that it is ready.
fn far_side(tell: &mpsc::Sender<i32>, moved: &mpsc::Receiver<()>) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let thread = nix::unistd::gettid().as_raw();
    tell.send(thread).unwrap();
    moved.recv().unwrap();
    ip("addr add 10.9.0.2/24 dev q9");
    ip("link set q9 up");
    let listener = TcpListener::bind("10.9.0.2:9").unwrap();
    tell.send(thread).unwrap();
    for _ in 0..20 {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = [0; ROUND];
        while stream.read_exact(&mut heard).is_ok() {
            if stream.write_all(&heard).is_err() {
                break;
            }
        }
    }
}

fn ip(words: &str) {
    run("ip", words);
}

fn run(program: &str, words: &str) {
    let done = Command::new(program).args(words.split(' ')).output().unwrap();
    assert!(done.status.success(), "{program} {words}: {done:?}");
}

/// From now on everything that is sent on the interface is on this queue.
fn tie_all(interface: &str, queue: u32) {
    in_own_sysfs(|| {
        let cpus = |number| format!("/sys/class/net/{interface}/queues/tx-{number}/xps_cpus");
        (0..16).try_for_each(|number| fs::write(cpus(number), "0"))?;
        fs::write(cpus(queue), mask_of(aya::util::nr_cpus().unwrap()))
    })
    .unwrap();
}

const ROUND: usize = 100_000;
