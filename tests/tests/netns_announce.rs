//! After a failover the new active port tells the neighbours: gratuitous ARP and unsolicited neighbour advertisements, reports of
//! multicast memberships, and learning frames for hosts behind a bridge above the bond.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use bondd_tests::capture::Capture;
use bondd_tests::daemon::LIMIT;
use bondd_tests::lab::{LEFT, RIGHT};
use bondd_tests::machine::Machine;
use bondd_tests::raw::Raw;
use bondd_tests::{BondAndSwitch, Cable, Netns, wait_for};
use serde_json::Value;

const V6: &str = "fd00:77::1";

/// A bond with IPv6 addresses that are ready to use, and what the switch hears on the second cable.
fn bench(options: &str) -> (BondAndSwitch, Capture) {
    let bench = BondAndSwitch::new(Machine::shared(), options);
    bench.host.netns.ip(&format!("addr add {V6}/64 dev bond0 nodad"));
    bench.host.netns.ip("addr add 10.77.0.11/24 dev bond0");
    wait_for("addresses are not tentative", LIMIT, || {
        let addresses = bench.host.netns.ip("-6 addr show dev bond0");
        addresses.contains("fe80") && !addresses.contains("tentative")
    });
    bench.host.daemon.wait_active("bond0", "eth0");
    let heard = Capture::start(&bench.switch.netns, "p1", "arp or icmp6 or ether proto 0x88b6");
    (bench, heard)
}

/// Waits until the bond has failed over to `eth1` and has no announcement left to send, then sends a frame through it and waits
/// until the switch has captured that: everything that was announced is captured by then.
fn wait_for_the_end_of_announcements(bench: &BondAndSwitch, heard: &Capture) {
    let daemon = &bench.host.daemon;
    let port = daemon.port("bond0", "eth1")["ifindex"].clone();
    wait_for("an end of the announcements", LIMIT, || {
        let state = fs::read_to_string(daemon.dir().join("state/bond0.json")).unwrap_or_default();
        let bond = &serde_json::from_str::<Value>(&state).unwrap_or_default()["bond"];
        bond["mode"]["active"] == port && bond["notifier"]["left"] == 0 && bond["rejoin"]["left"] == 0
    });
    let marker = [&[0xff; 6][..], &[2, 0, 0, 0, 0x77, 1], &[0x88, 0xb6], &[0; 46]].concat();
    bench.host.netns.enter(|| Raw::open("bond0", 0).send(&marker));
    heard.wait(1, &["02:00:00:00:77:01"]);
}

fn announced(heard: &Capture, bench: &BondAndSwitch) -> (Vec<String>, Vec<String>) {
    let mac = bench.host.netns.mac("bond0");
    let arp = heard.matching(&[&mac, "ff:ff:ff:ff:ff:ff", &format!("who-has {LEFT} tell {LEFT}")]);
    let na = heard.matching(&[
        &mac,
        "33:33:00:00:00:01",
        "neighbor advertisement",
        &format!("tgt is {V6}"),
    ]);
    (arp, na)
}

/// Pulls the active cable and returns how many announcements of each kind the switch hears on the other one.
fn announcements(options: &str) -> (usize, usize) {
    let (bench, heard) = bench(options);
    bench.cables[0].pull();
    bench.host.daemon.wait_active("bond0", "eth1");
    wait_for_the_end_of_announcements(&bench, &heard);
    let (arp, na) = announced(&heard, &bench);
    println!("{options}: {} gratuitous ARP, {} unsolicited NA", arp.len(), na.len());
    let other = heard.matching(&["who-has 10.77.0.11 tell 10.77.0.11"]);
    assert_eq!(other.len(), arp.len(), "every IPv4 address is announced alike");
    (arp.len(), na.len())
}

#[test]
fn one_gratuitous_arp_and_one_neighbour_advertisement_by_default() {
    assert_eq!(announcements("miimon=100"), (1, 1));
}

#[test]
fn num_grat_arp_says_exactly_how_many() {
    assert_eq!(announcements("miimon=100 num_grat_arp=3"), (3, 3));
}

#[test]
fn num_unsol_na_is_the_same_option_and_zero_switches_both_off() {
    assert_eq!(announcements("miimon=100 num_unsol_na=0"), (0, 0));
}

fn since_1970() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is after 1970").as_secs_f64()
}

/// The time at the start of a captured line, in seconds since 1970.
fn captured_at(line: &str) -> f64 {
    let stamp = line.split_whitespace().next();
    stamp.and_then(|stamp| stamp.parse().ok()).expect("a time stamp")
}

#[test]
fn the_first_announcement_leaves_at_once() {
    let (bench, heard) = bench("miimon=100");
    let mut took = vec![];
    for (pulled, next) in [(0, "eth1"), (1, "eth0"), (0, "eth1")] {
        let on_p1 = next == "eth1";
        let before = announced(&heard, &bench).0.len();
        let start = since_1970();
        bench.cables[pulled].pull();
        bench.host.daemon.wait_active("bond0", next);
        if on_p1 {
            wait_for("an announcement", LIMIT, || announced(&heard, &bench).0.len() > before);
            let line = announced(&heard, &bench).0.pop().unwrap();
            took.push(captured_at(&line) - start);
        }
        bench.cables[pulled].plug();
        bench
            .host
            .daemon
            .wait_link("bond0", bench.cables[pulled].near_name(), "up");
    }
    println!("seconds from the pull to the first announcement: {took:?}");
    assert!(took.iter().any(|&seconds| seconds < 0.05), "{took:?}");
}

#[test]
fn a_switch_that_knew_the_old_port_sends_to_the_new_one_after_the_announcement_alone() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let mac = bench.host.netns.mac("bond0");
    let learnt = |port: &str| {
        let table = bench
            .switch
            .netns
            .exec(&["bridge", "fdb", "show", "br", "br0", "dev", port]);
        table
            .lines()
            .any(|line| line.contains(&mac) && !line.contains("permanent"))
    };
    bench
        .host
        .netns
        .exec(&["ping", "-q", "-c", "1", "-W", "1", "10.77.0.2"]);
    wait_for("the switch knows the bond on p0", LIMIT, || learnt("p0"));
    bench.host.daemon.ctl("active bond0 eth1");
    wait_for("the switch knows the bond on p1", LIMIT, || learnt("p1"));
}

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 2);

/// Joins two groups on the bond in these versions of IGMP and MLD, kills the active path and checks that reports with these words
/// leave by the other port exactly `resend_igmp` times, 200 ms apart.
fn memberships_are_reported([igmp, mld]: [&str; 2], expected: [&[&str]; 2]) {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100 resend_igmp=3");
    let netns = &bench.host.netns;
    for (path, value) in [
        ("ipv4/conf/bond0/force_igmp_version", igmp),
        ("ipv6/conf/bond0/force_mld_version", mld),
        // The kernel's own reports soon come to an end.
        ("ipv4/conf/bond0/igmpv2_unsolicited_report_interval", "50"),
        ("ipv6/conf/bond0/mldv1_unsolicited_report_interval", "50"),
    ] {
        netns.set_sysctl(path, value);
    }
    let before = Capture::start(&bench.switch.netns, "p0", "igmp or ip6");
    let _joined = netns.enter(|| {
        let (v4, v6) = (UdpSocket::bind("0.0.0.0:0"), UdpSocket::bind("[::]:0"));
        let (v4, v6) = (v4.expect("a socket"), v6.expect("a socket"));
        v4.join_multicast_v4(&GROUP, &LEFT).expect("the bond takes groups");
        let bond = nix::net::if_::if_nametoindex("bond0").expect("there is a bond");
        v6.join_multicast_v6(&GROUP_V6, bond).expect("the bond takes groups");
        (v4, v6)
    });
    let quiet = || {
        before
            .lines()
            .last()
            .is_none_or(|line| since_1970() - captured_at(line) > 1.5)
    };
    before.wait(1, expected[0]);
    before.wait(1, expected[1]);
    wait_for("an end of the kernel's own reports", LIMIT * 2, quiet);

    let heard = Capture::start(&bench.switch.netns, "p1", "igmp or ip6 or ether proto 0x88b6");
    let pulled = since_1970();
    bench.cables[0].pull();
    heard.wait(3, expected[0]);
    heard.wait(3, expected[1]);
    wait_for_the_end_of_announcements(&bench, &heard);
    for words in expected {
        let times: Vec<f64> = heard
            .matching(words)
            .iter()
            .map(|line| captured_at(line) - pulled)
            .collect();
        println!("{words:?}: {times:.3?} s after the pull");
        assert_eq!(times.len(), 3, "{:?}", heard.lines());
        assert!(times[0] < 0.1, "the first one at once");
        assert!(times.windows(2).all(|pair| (0.18..0.26).contains(&(pair[1] - pair[0]))));
    }
    bench.host.daemon.wait_active("bond0", "eth1");
}

#[test]
fn memberships_are_reported_in_igmp_2_and_mld_1() {
    memberships_are_reported(
        ["2", "1"],
        [
            &["igmp v2 report 239.1.2.3"],
            &["multicast listener report", "addr: ff05::1:2"],
        ],
    );
}

#[test]
fn memberships_are_reported_in_igmp_3_and_mld_2() {
    memberships_are_reported(
        ["3", "2"],
        [&["igmp v3 report, 1 group record"], &["multicast listener report v2"]],
    );
}

const HOSTS: u8 = 200;

/// A bridge above the bond has learned two hundred hosts by their frames; returns how often each was told of at the other port
/// after the active path died, and how long after the failover the last time was, in seconds.
fn hosts_told_of(options: &str) -> (BTreeMap<String, u32>, f64) {
    // The last of six announcements of addresses leaves long after the frames of all hosts.
    let options = format!("arp_interval=100 arp_ip_target={RIGHT} arp_validate=all num_grat_arp=6 {options}");
    let bench = BondAndSwitch::new(Machine::alone(), &options);
    let (netns, daemon, guests) = (&bench.host.netns, &bench.host.daemon, Netns::new("guests"));
    let _cable = Cable::new(netns, "tap0", &guests, "eth0");
    netns.ip(&format!("addr del {LEFT}/24 dev bond0"));
    netns.ip("link add br0 address 02:00:00:00:5b:02 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
    netns.ip(&format!("addr add {LEFT}/24 dev br0"));
    for port in ["bond0", "tap0"] {
        netns.ip(&format!("link set {port} master br0"));
    }
    netns.ip("link set br0 up");
    guests.enter(|| {
        let raw = Raw::open("eth0", 0);
        for host in 0..HOSTS {
            raw.send(&[&[0xff; 6][..], &[2, 0, 0, 0, 0x66, host], &[0x88, 0xb5], &[0; 46]].concat());
        }
    });
    let learnt = || {
        let table = netns.exec(&["bridge", "fdb", "show", "br", "br0", "dev", "tap0"]);
        table.lines().filter(|line| line.starts_with("02:00:00:00:66:")).count()
    };
    wait_for("the bridge knows all hosts", LIMIT, || learnt() == usize::from(HOSTS));
    wait_for("both ports are in touch", LIMIT, || {
        ["eth0", "eth1"]
            .iter()
            .all(|port| daemon.port("bond0", port)["evidence"]["heard_ms_ago"].as_u64() < Some(100))
            && daemon.bond("bond0")["targets"][0]["source"] == LEFT.to_string()
    });
    daemon.wait_active("bond0", "eth0");

    let heard = Capture::start(&bench.switch.netns, "p1", "ether proto 0x8035 or ether proto 0x88b6");
    let monitor = daemon.monitor();
    bench.switch.block("p0");
    let moved = monitor.wait(LIMIT, |event| event["notice"]["kind"] == "active_changed");
    let moved = moved.expect("a failover").event["time"].as_f64().expect("seconds");
    wait_for_the_end_of_announcements(&bench, &heard);
    let (mut told, mut last) = (BTreeMap::new(), 0.0);
    for line in heard.lines() {
        let from = line.split_whitespace().nth(1).unwrap_or_default();
        if from.starts_with("02:00:00:00:66:") {
            *told.entry(from.to_owned()).or_default() += 1;
            last = captured_at(&line) - moved;
        }
    }
    (told, last)
}

#[test]
fn two_hundred_hosts_behind_a_bridge_are_told_of_once_each_within_a_quarter_of_a_second() {
    let (told, last) = hosts_told_of("");
    println!(
        "{} hosts told of, the last {:.0} ms after the failover",
        told.len(),
        last * 1e3
    );
    assert_eq!(told.len(), usize::from(HOSTS));
    assert!(told.values().all(|count| *count == 1), "{told:?}");
    assert!(last < 0.25, "{last} s");
}

#[test]
fn without_learn_packets_no_host_behind_a_bridge_is_told_of() {
    assert_eq!(hosts_told_of("learn_packets=0").0, BTreeMap::new());
}
