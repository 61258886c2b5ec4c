//! The ARP monitor with real neighbours: a host behind a switch that answers, answers late or wrongly, falls silent, and paths
//! that die although the link stays up.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use bondd_tests::daemon::LIMIT;
use bondd_tests::lab::{LEFT, RIGHT};
use bondd_tests::machine::Machine;
use bondd_tests::process::resident;
use bondd_tests::raw::{Flood, Responder};
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, Cable, Daemon, Netns, wait_for};
use serde_json::Value;

const INTERVAL: Duration = Duration::from_millis(100);
/// `arp_missed_max` (2) intervals without an answer, and one until the tick that finds out.
const DETECTION: Duration = Duration::from_millis(300);
/// Tolerance for commands, the switch and a busy machine.
const SLACK: Duration = Duration::from_millis(40);
const TARGET_V6: &str = "fd00:77::2";
const SPREADING: [&str; 3] = ["balance-rr", "balance-xor", "broadcast"];

/// A bond that probes the switch's host, both ports in touch with it.
fn probing(machine: Machine, options: &str) -> BondAndSwitch {
    let bench = BondAndSwitch::new(machine, &format!("arp_interval=100 arp_ip_target={RIGHT} {options}"));
    in_touch(&bench, &RIGHT.to_string());
    bench
}

/// Waits until both ports are up and have just heard of the target.
fn in_touch(bench: &BondAndSwitch, target: &str) {
    for port in ["eth0", "eth1"] {
        bench.host.daemon.wait_link("bond0", port, "up");
        wait_for("an answer within the interval", LIMIT, || {
            answer(&bench.host.daemon, port, target).is_some_and(|(_, age)| age <= INTERVAL)
        });
    }
}

/// Kind and age of the target's last sign of life through a port.
fn answer(daemon: &Daemon, port: &str, target: &str) -> Option<(String, Duration)> {
    let evidence = daemon.port("bond0", port)["evidence"].take();
    let answers = evidence["answers"].as_array()?;
    let answer = answers.iter().find(|answer| answer["target"] == target)?;
    let age = Duration::from_millis(answer["ms_ago"].as_u64()?);
    Some((answer["by"].as_str()?.to_owned(), age))
}

fn failures(bench: &BondAndSwitch) -> [u64; 2] {
    ["eth0", "eth1"].map(|port| {
        let port = bench.host.daemon.port("bond0", port);
        port["link_failures"].as_u64().expect("a number")
    })
}

/// The host behind the switch answers no ARP request any more, or does again.
fn answer_arp(bench: &BondAndSwitch, answers: bool) {
    bench
        .switch
        .netns
        .set_sysctl("ipv4/conf/br0/arp_ignore", if answers { "0" } else { "8" });
}

/// Blocks a port of the switch and returns the time until the expected event of the agent.
fn time_to_notice(bench: &BondAndSwitch, port: &str, accept: impl Fn(&Value) -> bool) -> Duration {
    let monitor = bench.host.daemon.monitor();
    let start = Instant::now();
    bench.switch.block(port);
    let seen = monitor.wait(LIMIT, |event| accept(&event["notice"]));
    seen.expect("a dead path is noticed").at - start
}

/// Kills the active path six times while its carrier stays, at different moments between two ticks.
fn six_dead_paths(bench: &BondAndSwitch, target: &str) -> Vec<Duration> {
    let ways = [("p0", "eth1"), ("p1", "eth0")];
    let rounds = (0..6).map(|round| {
        let (port, next) = ways[round % 2];
        in_touch(bench, target);
        thread::sleep(INTERVAL / 6 * round as u32);
        let took = time_to_notice(bench, port, |notice| {
            notice["kind"] == "active_changed" && notice["to"] == next
        });
        bench.switch.unblock(port);
        took
    });
    let before = failures(bench);
    let took = rounds.collect();
    in_touch(bench, target);
    assert_eq!(failures(bench), before.map(|count| count + 3), "each dead path once");
    took
}

/// The machine may be busy with something else for a while: the best of three series counts.
fn in_time(what: &str, mut series: impl FnMut() -> Vec<Duration>) {
    let good = (0..3).any(|_| {
        let took = series();
        println!("{what}: moved after {took:?}, allowed {DETECTION:?}");
        took.iter().all(|took| *took <= DETECTION + SLACK)
    });
    assert!(good, "{what}: later than {:?} in every series", DETECTION + SLACK);
}

#[test]
fn answers_of_the_target_are_the_evidence_and_backups_go_by_its_questions() {
    let bench = probing(Machine::shared(), "arp_validate=all");
    let daemon = &bench.host.daemon;
    assert_eq!(daemon.active("bond0"), "eth0");
    for (port, by) in [("eth0", "reply"), ("eth1", "request")] {
        let (kind, age) = answer(daemon, port, &RIGHT.to_string()).expect("both are in touch");
        assert_eq!(kind, by, "{port}");
        assert!(age < INTERVAL * 2, "{port}: {age:?}");
        assert_eq!(daemon.port("bond0", port)["evidence"]["counts"], "validated");
    }
    wait_for("asked from the bond's address", LIMIT, || {
        daemon.bond("bond0")["targets"][0]["source"] == LEFT.to_string()
    });
    let bond = daemon.bond("bond0");
    assert_eq!(bond["targets"][0]["monitored"], true);
    assert_eq!((&bond["monitor"], &bond["unmonitored"]), (&"arp".into(), &false.into()));
}

#[test]
fn a_silent_target_takes_the_bond_down_until_it_answers_again() {
    let bench = probing(Machine::shared(), "arp_validate=all");
    let daemon = &bench.host.daemon;
    answer_arp(&bench, false);
    wait_for("no carrier", LIMIT, || !bench.host.netns.running("bond0"));
    assert_eq!(daemon.active("bond0"), "");
    // Whatever the link of the port that is being tried reads.
    wait_for("a port that was tried in vain", LIMIT, || {
        ["eth0", "eth1"]
            .iter()
            .any(|port| daemon.port("bond0", port)["link"] == "going down")
    });
    let health = daemon.bondctl(&["health", "bond0"]);
    let health = String::from_utf8_lossy(&health.stdout);
    assert!(health.contains("0 of 2 ports up"), "{health}");
    for port in ["eth0", "eth1"] {
        assert_eq!(daemon.port("bond0", port)["usable"], false, "{port}");
    }
    answer_arp(&bench, true);
    wait_for("carrier", LIMIT, || bench.host.netns.running("bond0"));
    in_touch(&bench, &RIGHT.to_string());
    bench.switch.netns.ip(&format!("addr del {RIGHT}/24 dev br0"));
    wait_for("no carrier without the address", LIMIT, || {
        !bench.host.netns.running("bond0")
    });
    bench.switch.netns.ip(&format!("addr add {RIGHT}/24 dev br0"));
    in_touch(&bench, &RIGHT.to_string());
}

/// Sends forty answers from another host in place of the target.
fn forty_answers(mac: [u8; 6], delay: Duration) {
    let bench = probing(Machine::shared(), "arp_validate=all");
    let responder = Responder::start(&bench.switch.netns, "br0", RIGHT, mac, delay);
    answer_arp(&bench, false);
    let monitor = bench.host.daemon.monitor();
    let before = responder.answered();
    wait_for("forty answers", LIMIT * 2, || responder.answered() >= before + 40);
    let (_, age) = answer(&bench.host.daemon, "eth0", &RIGHT.to_string()).expect("it answers");
    assert!(age <= INTERVAL + delay, "{age:?}");
    let events: Vec<_> = monitor.events().into_iter().map(|seen| seen.event).collect();
    assert_eq!(events, [] as [Value; 0], "nothing happens");
    assert_eq!(failures(&bench), [0, 0]);
}

#[test]
fn an_answer_after_sixty_percent_of_the_interval_is_in_time_every_time() {
    forty_answers([2, 0, 0, 0, 0x5b, 1], INTERVAL * 6 / 10);
}

#[test]
fn an_answer_from_another_mac_than_ever_before_is_an_answer() {
    forty_answers([2, 0, 0, 0, 0xbd, 1], Duration::ZERO);
}

#[test]
fn a_flood_of_broadcasts_delays_no_failover_blames_no_other_port_and_costs_no_memory() {
    let bench = probing(Machine::alone(), "arp_validate=all");
    let noisy = Netns::new("noisy");
    let _cable = bench.switch.connect(&noisy, "x0", "p2");
    let pid = bench.host.daemon.pid();
    let before = resident(pid);
    let flood = Flood::start(&noisy, "x0", 8_000);
    in_time("in a flood", || six_dead_paths(&bench, &RIGHT.to_string()));
    let (rate, grown) = (flood.rate(), resident(pid).saturating_sub(before));
    println!("{rate:.0} broadcasts a second, {grown} bytes more in memory");
    assert!(rate >= 4_000.0, "not much of a flood: {rate}");
    assert!(grown < 4 << 20, "{grown} bytes");
}

#[test]
fn a_dead_path_behind_a_good_link_is_left_in_time() {
    let bench = probing(Machine::alone(), "arp_validate=all");
    in_time("ARP", || six_dead_paths(&bench, &RIGHT.to_string()));
}

#[test]
fn a_dead_path_is_left_in_time_by_neighbour_solicitations_too() {
    let bench = BondAndSwitch::new(
        Machine::alone(),
        &format!("arp_interval=100 ns_ip6_target={TARGET_V6} arp_validate=all"),
    );
    with_ipv6(&bench);
    in_touch(&bench, TARGET_V6);
    in_time("IPv6", || six_dead_paths(&bench, TARGET_V6));
}

fn with_ipv6(bench: &BondAndSwitch) {
    let address = |netns: &Netns, address: &str, device: &str| {
        netns.ip(&format!("addr add {address}/64 dev {device} nodad"));
    };
    address(&bench.switch.netns, TARGET_V6, "br0");
    address(&bench.host.netns, "fd00:77::1", "bond0");
}

/// A path of a mode that spreads dies and comes back, and the other one is not touched by it.
fn out_and_back(mode: &str, bench: &BondAndSwitch, target: &str) {
    let role = |port| bench.host.daemon.port("bond0", port)["role"].take();
    in_touch(bench, target);
    // Targets were asked before the bond had its addresses.
    let before = failures(bench);
    let mut deaths = 0;
    in_time(mode, || {
        let took = time_to_notice(bench, "p0", |notice| {
            notice["kind"] == "down" && notice["port"] == "eth0"
        });
        assert_eq!(["eth0", "eth1"].map(role), ["backup", "active"]);
        let flow = bench.flow(TEN_THOUSAND);
        flow.pass(500);
        assert_eq!(
            flow.finish().tally().lost,
            0,
            "{mode}: nothing is sent on the dead path"
        );
        bench.switch.unblock("p0");
        in_touch(bench, target);
        assert_eq!(role("eth0"), "active");
        deaths += 1;
        vec![took]
    });
    assert_eq!(failures(bench), [before[0] + deaths, before[1]], "{mode}");
}

#[test]
fn modes_that_spread_leave_a_dead_path_and_take_it_back() {
    for mode in SPREADING {
        for validate in ["none", "all"] {
            let bench = probing(Machine::alone(), &format!("mode={mode} arp_validate={validate}"));
            out_and_back(mode, &bench, &RIGHT.to_string());
        }
    }
}

#[test]
fn modes_that_spread_leave_a_dead_path_by_neighbour_solicitations_too() {
    for mode in SPREADING {
        let options = format!("mode={mode} arp_interval=100 ns_ip6_target={TARGET_V6} arp_validate=all");
        let bench = BondAndSwitch::new(Machine::alone(), &options);
        with_ipv6(&bench);
        out_and_back(mode, &bench, TARGET_V6);
    }
}

#[test]
fn a_target_behind_another_interface_is_told_and_does_not_count() {
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
    let bench = probing(Machine::alone(), "arp_validate=all arp_all_targets=all");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let other = Netns::new("other");
    let _cable = Cable::new(netns, "other0", &other, "eth0");
    netns.ip("addr add 10.88.0.1/24 dev other0");
    let monitor = daemon.monitor();
    daemon.ctl(&format!("set bond0 arp_ip_target=+{ELSEWHERE}"));
    let warned = monitor.wait(LIMIT, |event| {
        let text = event["text"].as_str().unwrap_or_default();
        event["notice"]["kind"] == "warning" && text.contains("10.88.0.2") && text.contains("other0")
    });
    assert!(warned.is_some(), "{:?}", monitor.events());
    let bond = daemon.bond("bond0");
    assert_eq!(bond["unmonitored"], false);
    let told = bond["targets"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|target| target["target"] == ELSEWHERE.to_string());
    let told = told.expect("every target is shown");
    assert_eq!(
        (&told["monitored"], &told["elsewhere"]),
        (&false.into(), &"other0".into())
    );
    // If it counted, no path would be good, and a dead path could not be recognised.
    in_time("beside it", || six_dead_paths(&bench, &RIGHT.to_string()));

    daemon.ctl(&format!("set bond0 arp_ip_target=-{RIGHT}"));
    wait_for("unmonitored", LIMIT, || daemon.bond("bond0")["unmonitored"] == true);
    assert!(netns.running("bond0"), "nobody to ask: the ports stay");
}

#[test]
fn a_killed_agent_takes_no_port_down_and_loses_no_frame_while_it_probes() {
    for mode in ["active-backup", "balance-xor"] {
        let options = format!("mode={mode} arp_validate=all xmit_hash_policy=layer3+4");
        let mut bench = probing(Machine::alone(), &options);
        let flow = bench.flow(TEN_THOUSAND);
        for _ in 0..5 {
            flow.pass(1_000);
            bench.host.daemon.sigkill();
            // Longer than an answer may take.
            flow.pass(5_000);
            bench.host.daemon.launch();
            flow.pass(5_000);
        }
        let tally = flow.finish().tally();
        println!("{mode}: {tally:?}");
        assert_eq!((tally.lost, tally.failed_send, tally.doubled), (0, 0, 0), "{tally:?}");
        assert_eq!(failures(&bench), [0, 0], "{mode}");
        in_touch(&bench, &RIGHT.to_string());
        bench.switch.block("p0");
        bench.host.daemon.wait_link("bond0", "eth0", "down");
    }
}

#[test]
fn a_lost_carrier_does_not_wait_for_unanswered_probes() {
    let bench = BondAndSwitch::new(
        Machine::alone(),
        &format!("arp_interval=5000 arp_ip_target={RIGHT} arp_validate=all"),
    );
    bench.host.daemon.wait_active("bond0", "eth0");
    let monitor = bench.host.daemon.monitor();
    let start = Instant::now();
    bench.cables[0].pull();
    let moved = monitor.wait(LIMIT, |event| event["notice"]["kind"] == "active_changed");
    let took = moved.expect("a failover").at - start;
    println!("moved {took:?} after the pull, the interval being 5 s");
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(bench.host.daemon.active("bond0"), "eth1");
}
