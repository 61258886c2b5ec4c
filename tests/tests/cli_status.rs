//! The status file: the modern driver's text, always fresh.

use std::time::Duration;

use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::{BondAndSwitch, wait_for};

#[test]
fn the_status_file_is_the_modern_drivers_text() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100 updelay=200 downdelay=300 primary=eth1");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth1");
    let release = netns.exec(&["uname", "-r"]);
    let port = |name: &str| {
        let port = daemon.port("bond0", name);
        let speed = port["speed_mbps"]
            .as_u64()
            .map_or("Unknown".to_owned(), |mbps| format!("{mbps} Mbps"));
        let duplex = port["duplex"].as_str().unwrap_or("Unknown").to_owned();
        let mac = port["permanent_mac"].as_str().unwrap().to_owned();
        format!(
            "\nSlave Interface: {name}\nMII Status: up\nSpeed: {speed}\nDuplex: {duplex}\nLink Failure Count: 0\n\
             Permanent HW addr: {mac}\nSlave queue ID: 0\n"
        )
    };
    let expected = format!(
        "Ethernet Channel Bonding Driver: v{}\n\n\
         Bonding Mode: fault-tolerance (active-backup)\n\
         Primary Slave: eth1 (primary_reselect always)\n\
         Currently Active Slave: eth1\n\
         MII Status: up\nMII Polling Interval (ms): 100\nUp Delay (ms): 200\nDown Delay (ms): 300\n\
         Peer Notification Delay (ms): 0\n{}{}",
        release.trim(),
        port("eth0"),
        port("eth1")
    );
    wait_for("the expected text", LIMIT, || {
        daemon.status_file("bond0") == expected || !daemon.status_file("bond0").contains("going")
    });
    assert_eq!(daemon.status_file("bond0"), expected);
}

#[test]
fn without_primary_and_with_fail_over_mac_the_head_changes_as_the_drivers_does() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100 fail_over_mac=active");
    let daemon = &bench.host.daemon;
    wait_for("the head", LIMIT, || {
        let text = daemon.status_file("bond0");
        text.contains("\nBonding Mode: fault-tolerance (active-backup) (fail_over_mac active)\n")
            && text.contains("\nPrimary Slave: None\n")
    });
}

#[test]
fn the_status_file_is_fresh_within_50_ms_of_a_change() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100");
    let daemon = &bench.host.daemon;
    daemon.wait_active("bond0", "eth0");
    let mut took = vec![];
    for (pulled, next) in [(0, "eth1"), (1, "eth0"), (0, "eth1"), (1, "eth0")] {
        bench.cables[pulled].pull();
        let wished = format!("\nCurrently Active Slave: {next}\n");
        took.push(wait_for("the new active port in the file", LIMIT, || {
            daemon.status_file("bond0").contains(&wished)
        }));
        bench.cables[pulled].plug();
        daemon.wait_link("bond0", bench.cables[pulled].near_name(), "up");
    }
    println!("from the pull to the text of the file: {took:?}");
    took.sort_unstable();
    // The median: another process of the machine may hold any single one up.
    assert!(took[took.len() / 2] < Duration::from_millis(50), "{took:?}");
}

#[test]
fn failures_are_counted_in_the_file_and_a_bond_without_carrier_says_down() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let daemon = &bench.host.daemon;
    daemon.wait_active("bond0", "eth0");
    bench.cables[0].pull();
    daemon.wait_active("bond0", "eth1");
    wait_for("one failure", LIMIT, || {
        let text = daemon.status_file("bond0");
        text.contains("Slave Interface: eth0\nMII Status: down\n") && text.contains("Link Failure Count: 1\n")
    });
    bench.cables[1].pull();
    wait_for("no active port", LIMIT, || {
        let text = daemon.status_file("bond0");
        text.contains("\nCurrently Active Slave: None\nMII Status: down\n")
    });
    daemon.ctl("del bond0");
    assert!(!daemon.dir().join("proc/net/bonding/bond0").exists());
}

#[test]
fn a_delay_that_runs_is_in_the_file() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100 updelay=5000 downdelay=5000");
    let daemon = &bench.host.daemon;
    bench.cables[1].pull();
    let link = |word: &str| format!("Slave Interface: eth1\nMII Status: {word}\n");
    wait_for("going down", LIMIT, || {
        daemon.status_file("bond0").contains(&link("going down"))
    });
    daemon.ctl("set bond0 downdelay 0");
    wait_for("down", LIMIT + LIMIT, || {
        daemon.status_file("bond0").contains(&link("down"))
    });
    bench.cables[1].plug();
    wait_for("going back", LIMIT, || {
        daemon.status_file("bond0").contains(&link("going back"))
    });
}
