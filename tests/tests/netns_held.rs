//! Failovers while the kernel answers nobody: others have its RTNL lock. Only the order counts: what must not wait is seen before the
//! request is let go.

use std::fs::OpenOptions;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bondd_tests::daemon::LIMIT;
use bondd_tests::held_thread::{HeldThread, KERNEL_THREAD};
use bondd_tests::lab::RIGHT;
use bondd_tests::machine::Machine;
use bondd_tests::netns::Hands;
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, TwoBonds, wait_for};

#[test]
fn pulled_cables_move_the_traffic_while_the_kernel_answers_nobody() {
    let pair = TwoBonds::new(Machine::alone(), "miimon=100");
    pair.wait_active("eth0");
    let flow = pair.flow(TEN_THOUSAND);
    flow.pass(1_000);
    // Polls send something every 100 ms.
    let held = [&pair.left, &pair.right].map(|host| HeldThread::at_next_send(host.daemon.pid(), KERNEL_THREAD));
    for (active, cable) in [("eth1", 0), ("eth0", 1)] {
        let from = flow.sent();
        pair.cables[cable].pull();
        pair.wait_active(active);
        flow.pass(1_000);
        let arrived = flow.arrived();
        wait_for("frames arrive by the other cable", LIMIT, || {
            flow.arrived() > arrived + 500
        });
        println!("{active} in place of the other after {} frames", flow.sent() - from);
        // The way back is a fact as well.
        pair.cables[cable].plug();
        for host in [&pair.left, &pair.right] {
            host.daemon.wait_link("bond0", pair.cables[cable].near_name(), "up");
        }
    }
    drop(held);
    let record = flow.finish();
    assert_eq!(record.tally().doubled, 0);
}

#[test]
fn a_silent_path_is_left_and_clients_are_answered_while_the_kernel_answers_nobody() {
    let options = format!("arp_interval=100 arp_ip_target={RIGHT}");
    let bench = BondAndSwitch::new(Machine::alone(), &options);
    let daemon = &bench.host.daemon;
    daemon.wait_active("bond0", "eth0");
    daemon.wait_link("bond0", "eth1", "up");
    let held = HeldThread::at_next_request(&bench.host.netns, daemon.pid());
    bench.switch.block("p0");
    daemon.wait_active("bond0", "eth1");
    assert_eq!(daemon.bond("bond0")["active_port"], "eth1");
    drop(held);
    daemon.wait_link("bond0", "eth0", "down");
}

#[test]
fn pulled_cables_move_the_traffic_while_a_plan_is_held_up_and_clients_ask_what_they_can() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=60000 fail_over_mac=active");
    let daemon = &bench.host.daemon;
    daemon.wait_active("bond0", "eth0");
    daemon.wait_link("bond0", "eth1", "up");
    let third = bench.switch.connect(&bench.host.netns, "eth2", "p2");
    daemon.ctl("port add bond0 eth2");
    daemon.wait_link("bond0", "eth2", "up");
    let mut hands = Hands::new(&bench.switch.netns);
    let mac = |name: &str| bench.host.netns.mac(name);
    // The first change of that failover is of the address of the bond, which follows the active port.
    let held = HeldThread::at_change_after(daemon.pid(), KERNEL_THREAD, || {
        bench.cables[0].pull();
        daemon.wait_active("bond0", "eth1");
    });
    thread::scope(|scope| {
        let over = Flag::default();
        for call in ["doctor", "doctor mode=balance-rr", "show", "list"] {
            let over = over.0.clone();
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    daemon.ctl(call);
                }
            });
        }
        daemon.ctl("doctor");
        third.delete();
        wait_for("the bond has two ports", LIMIT, || {
            daemon.log().contains("bond0: eth2 has disappeared")
        });
        for (back, pulled) in [(0, 1), (1, 0), (0, 1), (1, 0), (0, 1), (1, 0)] {
            let (active, left) = (bench.cables[back].near_name(), bench.cables[pulled].near_name());
            bench.cables[back].plug();
            daemon.wait_link("bond0", active, "up");
            let monitor = daemon.monitor();
            hands.tell(&format!("link set p{pulled} down"));
            let text = format!("active port {active} instead of {left}: link of {left} went down");
            let seen = monitor.wait(LIMIT, |event| event["text"] == *text);
            assert!(seen.is_some(), "no {text}");
        }
    });
    assert_eq!(mac("bond0"), mac("eth0"), "the plan is held up to the end");
    drop(held);
    wait_for("the bond has the address of its active port", LIMIT, || {
        mac("bond0") == mac("eth1")
    });
}

#[test]
fn pulled_cables_move_the_traffic_while_nobody_reads_the_log() {
    let mut pair = TwoBonds::new(Machine::alone(), "miimon=100");
    let logs = [&mut pair.left, &mut pair.right].map(|host| {
        let daemon = &mut host.daemon;
        assert!(daemon.sigterm());
        let (unread, full) = io::pipe().unwrap();
        daemon.spawn_with_log(full.try_clone().unwrap());
        wait_for("it has its bond", LIMIT, || {
            let shown = daemon.try_show();
            shown.is_some_and(|shown| shown["bonds"][0]["active_port"] == "eth0")
        });
        fill(&full);
        unread
    });
    let flow = pair.flow(TEN_THOUSAND);
    flow.pass(1_000);
    for (active, cable) in [("eth1", 0), ("eth0", 1), ("eth1", 0)] {
        pair.cables[cable].pull();
        pair.wait_active(active);
        let arrived = flow.arrived();
        wait_for("frames arrive by the other cable", LIMIT, || {
            flow.arrived() > arrived + 500
        });
        pair.cables[cable].plug();
        for host in [&pair.left, &pair.right] {
            host.daemon.wait_link("bond0", pair.cables[cable].near_name(), "up");
        }
    }
    flow.finish();
    for (host, mut unread) in [&mut pair.left, &mut pair.right].into_iter().zip(logs) {
        let read = thread::spawn(move || {
            let mut log = String::new();
            unread.read_to_string(&mut log).unwrap();
            log
        });
        assert!(host.daemon.sigterm());
        let log = read.join().unwrap();
        let moved = log.matches("bond0: active port eth1 instead of eth0").count();
        assert_eq!(moved, 2, "{log}");
        let last = log.lines().next_back().unwrap_or_default();
        assert!(last.contains("stopping; "), "{last}");
    }
}

/// Leaves no room in a pipe.
fn fill(pipe: &PipeWriter) {
    // A description of its own, so that other writers of the pipe wait.
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut options = OpenOptions::new();
    let mut pipe = options.write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    let refused = (0..).find_map(|_| pipe.write(b"\n").err()).unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
}

/// Set at the end of a scope.
#[derive(Default)]
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
