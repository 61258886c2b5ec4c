//! Status files: the text of the modern driver, that of Linux 2.4, and the tree of sysfs, always fresh.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::{BondAndSwitch, Daemon, wait_for};

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
fn a_bond_that_gets_the_name_of_the_list_is_in_the_list_and_says_that_it_needs_another() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let list = || fs::read_to_string(daemon.dir().join("sys/class/net/bonding_masters")).unwrap_or_default();
    netns.ip("link set bond0 name bonding_masters");
    wait_for("it is listed", LIMIT, || list() == "bonding_masters\n");
    assert!(
        daemon
            .status_file("bonding_masters")
            .contains("Slave Interface: eth0\n")
    );
    let health = || String::from_utf8_lossy(&daemon.bondctl(&["health"]).stdout).into_owned();
    wait_for("health says so", LIMIT, || {
        health().contains("WARNING - bonding_masters cannot show bonding_masters in sys/class/net")
    });
    let said = "cannot show bonding_masters in sys/class/net: the list of bonds has this name there; \
                `ip link set bonding_masters name` with another one mends it";
    assert_eq!(daemon.log().matches(said).count(), 1, "{}", daemon.log());
    netns.ip("link set bonding_masters name uplink");
    wait_for("all is well", LIMIT, || health().contains("OK - uplink"));
    let mode = daemon.dir().join("sys/class/net/uplink/bonding/mode");
    // Files are written after what they show.
    wait_for("the files show it", LIMIT, || list() == "uplink\n" && mode.exists());
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

/// A file under the run dir, without the end of its line; empty if it is not there.
fn file(daemon: &Daemon, path: &str) -> String {
    let text = fs::read_to_string(daemon.dir().join(path)).unwrap_or_default();
    text.trim_end_matches('\n').to_owned()
}

/// Every file and link in the trees, by path.
fn all_files(daemon: &Daemon) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => walk(&entry.path(), found),
                false => found.push(entry.path().display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    for root in ["proc", "sys"] {
        walk(&daemon.dir().join(root), &mut found);
    }
    found.sort();
    let prefix = format!("{}/", daemon.dir().display());
    found.iter().map(|path| path.replace(&prefix, "")).collect()
}

#[test]
fn the_tree_follows_the_bond_and_its_ports() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100 primary=eth0");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let shows = |path: &str, wanted: &str| {
        wait_for(&format!("{wanted:?} in {path}"), LIMIT, || file(daemon, path) == wanted);
    };
    let net = |path: &str| format!("sys/class/net/{path}");
    daemon.wait_active("bond0", "eth0");
    shows(&net("bonding_masters"), "bond0");
    shows(&net("bond0/bonding/mode"), "active-backup 1");
    shows(&net("bond0/bonding/slaves"), "eth0 eth1");
    shows(&net("bond0/bonding/active_slave"), "eth0");
    shows(&net("bond0/operstate"), "up");
    shows(&net("bond0/lower_eth1/bonding_slave/mii_status"), "up");
    shows(&net("eth1/master/bonding/primary"), "eth0");
    // The stack's data about the interfaces.
    for (device, name) in [
        ("bond0", "mtu"),
        ("bond0", "address"),
        ("eth0", "mtu"),
        ("eth1", "address"),
        ("eth1", "ifindex"),
    ] {
        let link = netns.link(device).expect("it is there");
        let said = link[name]
            .as_str()
            .map_or_else(|| link[name].to_string(), str::to_owned);
        shows(&net(&format!("{device}/{name}")), &said);
    }
    netns.ip("link set eth1 mtu 1400");
    shows(&net("eth1/mtu"), "1400");
    for state in ["dormant", "up"] {
        netns.ip(&format!("link set eth1 state {state}"));
        shows(&net("eth1/operstate"), state);
    }

    bench.cables[0].pull();
    shows(&net("bond0/bonding/active_slave"), "eth1");
    shows(&net("eth0/bonding_slave/mii_status"), "down");
    shows(&net("eth0/bonding_slave/link_failure_count"), "1");
    // Which word it is depends on the indexes of both ends of the cable.
    wait_for("eth0 has the kernel's operstate", LIMIT, || {
        let link = netns.link("eth0").expect("it is there");
        let kernel = link["operstate"].as_str().expect("a name").to_lowercase();
        kernel != "up" && file(daemon, &net("eth0/operstate")) == kernel
    });
    assert!(file(daemon, "proc/net/bond0/info").contains("\nCurrently Active Slave: eth1\nMII Status: up\n"));
    bench.cables[1].pull();
    shows(&net("bond0/operstate"), "down");
    shows(&net("bond0/bonding/mii_status"), "down");
    netns.ip("link set bond0 down");
    wait_for("no carrier to read while the bond is down", LIMIT, || {
        !daemon.dir().join(net("bond0/carrier")).exists()
    });
}

#[test]
fn what_is_gone_leaves_no_file_also_when_nobody_watched() {
    let mut bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let of = |daemon: &Daemon, name: &str| {
        let folder = format!("/{name}/");
        all_files(daemon)
            .into_iter()
            .filter(|path| path.contains(&folder) || path.ends_with(name))
            .count()
    };
    let daemon = &mut bench.host.daemon;
    wait_for("the files of both ports", LIMIT, || {
        of(daemon, "eth0") > 10 && of(daemon, "eth1") > 10
    });
    daemon.ctl("port del bond0 eth1");
    wait_for("none of the port's files", LIMIT, || of(daemon, "eth1") == 0);
    assert_eq!(file(daemon, "sys/class/net/bond0/bonding/slaves"), "eth0");

    bench.host.netns.ip("link set bond0 name uplink");
    wait_for("the files under the new name", LIMIT, || {
        file(daemon, "sys/class/net/bonding_masters") == "uplink" && of(daemon, "bond0") == 0
    });
    wait_for("the port's bond", LIMIT, || {
        file(daemon, "sys/class/net/eth0/master/bonding/slaves") == "eth0"
    });

    daemon.sigkill();
    let before = all_files(daemon);
    bench.host.netns.ip("link del uplink");
    daemon.launch();
    wait_for("nothing but the empty list of bonds", LIMIT, || {
        all_files(daemon) == ["sys/class/net/bonding_masters"]
    });
    assert!(before.len() > 50, "{before:?}");
    assert_eq!(file(daemon, "sys/class/net/bonding_masters"), "");
}
