//! Failovers while the kernel answers nobody: others have its RTNL lock. Only the order counts: what must not wait is seen before the
//! request is let go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bondd_tests::daemon::LIMIT;
use bondd_tests::held_thread::HeldThread;
use bondd_tests::lab::RIGHT;
use bondd_tests::machine::Machine;
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, TwoBonds, wait_for};

/// The thread of the agent that waits for the kernel.
const THREAD: &str = "bondd-kernel";

#[test]
fn pulled_cables_move_the_traffic_while_the_kernel_answers_nobody() {
    let pair = TwoBonds::new(Machine::alone(), "miimon=100");
    pair.wait_active("eth0");
    let flow = pair.flow(TEN_THOUSAND);
    flow.pass(1_000);
    // Polls send something every 100 ms.
    let held = [&pair.left, &pair.right].map(|host| HeldThread::at_next_send(host.daemon.pid(), THREAD));
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
    let held = hold(&bench);
    bench.switch.block("p0");
    daemon.wait_active("bond0", "eth1");
    assert_eq!(daemon.bond("bond0")["active_port"], "eth1");
    drop(held);
    daemon.wait_link("bond0", "eth0", "down");
}

/// Has the agent ask the kernel something, and holds it there.
fn hold(bench: &BondAndSwitch) -> HeldThread {
    let (netns, pid) = (&bench.host.netns, bench.host.daemon.pid());
    let held = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The agent looks at its bond after each change of it.
            for alias in (0..).take_while(|_| !held.load(Ordering::SeqCst)) {
                netns.ip(&format!("link set bond0 alias {alias}"));
            }
        });
        let thread = HeldThread::at_next_send(pid, THREAD);
        held.store(true, Ordering::SeqCst);
        thread
    })
}
