//! After a failover the new active port tells the neighbours: gratuitous ARP and unsolicited neighbour advertisements.

use std::thread;
use std::time::Duration;

use bondd_tests::capture::Capture;
use bondd_tests::daemon::LIMIT;
use bondd_tests::lab::LEFT;
use bondd_tests::machine::Machine;
use bondd_tests::{BondAndSwitch, wait_for};

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
    let heard = Capture::start(&bench.switch.netns, "p1", "arp or icmp6");
    (bench, heard)
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
    // Absence can only be waited for: three times as long as the slowest of these series takes.
    thread::sleep(Duration::from_millis(1_200));
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

#[test]
fn the_first_announcement_leaves_at_once() {
    let (bench, heard) = bench("miimon=100");
    let mut took = vec![];
    for (pulled, next) in [(0, "eth1"), (1, "eth0"), (0, "eth1")] {
        let on_p1 = next == "eth1";
        let before = announced(&heard, &bench).0.len();
        let start = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        bench.cables[pulled].pull();
        bench.host.daemon.wait_active("bond0", next);
        if on_p1 {
            wait_for("an announcement", LIMIT, || announced(&heard, &bench).0.len() > before);
            let line = announced(&heard, &bench).0.pop().unwrap();
            took.push(line.split_whitespace().next().unwrap().parse::<f64>().unwrap() - start);
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
