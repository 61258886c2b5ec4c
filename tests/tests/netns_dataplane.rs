//! bond0 is an interface like any other: counters, captures, bridge, MTU, addresses, speed.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bondd_tests::capture::{Capture, transmit};
use bondd_tests::daemon::{LIMIT, refused};
use bondd_tests::lab::{LEFT, RIGHT};
use bondd_tests::load::blast;
use bondd_tests::machine::Machine;
use bondd_tests::proof::pins;
use bondd_tests::queue::Queue;
use bondd_tests::throughput::gigabits;
use bondd_tests::{BondAndSwitch, Cable, Daemon, Netns, Settings, TwoBonds, wait_for};

#[track_caller]
fn ping(from: &Netns, to: Ipv4Addr, more: &[&str]) {
    let to = to.to_string();
    let mut words = vec!["ping", "-q", "-c", "3", "-i", "0.05", "-W", "1"];
    words.extend(more);
    words.push(&to);
    let out = from.exec(&words);
    assert!(out.contains(" 0% packet loss"), "{out}");
}

fn link_counter(netns: &Netns, direction: &str) -> u64 {
    let link = netns.link("bond0").expect("bond0");
    link["stats64"][direction]["packets"]
        .as_u64()
        .expect("ip -s prints counters")
}

#[test]
fn the_bonds_own_counters_and_captures_see_both_directions() {
    let pair = TwoBonds::new(Machine::shared(), "miimon=100");
    let netns = &pair.left.netns;
    let (rx, tx) = (link_counter(netns, "rx"), link_counter(netns, "tx"));
    let capture = Capture::start(netns, "bond0", "icmp");
    ping(netns, RIGHT, &["-c", "20"]);
    assert!(link_counter(netns, "tx") >= tx + 20);
    assert!(link_counter(netns, "rx") >= rx + 20);
    capture.wait(20, &["echo request", &format!("{LEFT} > {RIGHT}")]);
    capture.wait(20, &["echo reply", &format!("{RIGHT} > {LEFT}")]);
    let port = pair.left.daemon.port("bond0", "eth0");
    for counter in ["tx_frames", "rx_frames"] {
        assert!(port[counter].as_u64().unwrap() >= 20, "{counter} in {port}");
    }
    for counter in ["tx_bytes", "rx_bytes"] {
        assert!(port[counter].as_u64().unwrap() >= 20 * 98, "{counter} in {port}");
    }
}

#[test]
fn frames_on_the_backup_port_are_dropped_and_counted_and_broadcasts_come_once() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    daemon.wait_active("bond0", "eth0");
    let dropped = daemon.port("bond0", "eth1")["rx_dropped"].as_u64().unwrap();
    let capture = Capture::start(netns, "bond0", "ether proto 0x88b5");
    let frame = |to: [u8; 6]| [&to[..], &[2, 0, 0, 0, 9, 9], &[0x88, 0xb5], &[0x5a; 46]].concat();
    for _ in 0..5 {
        transmit(&bench.switch.netns, "br0", &frame([0xff; 6]));
    }
    capture.wait(5, &["0x88b5"]);
    wait_for("the other copies counted", LIMIT, || {
        daemon.port("bond0", "eth1")["rx_dropped"].as_u64().unwrap() >= dropped + 5
    });
    assert_eq!(capture.matching(&["0x88b5"]).len(), 5, "{:#?}", capture.lines());

    daemon.ctl("set bond0 all_slaves_active 1");
    transmit(&bench.switch.netns, "br0", &frame([0xff; 6]));
    capture.wait(7, &["0x88b5"]);
}

#[test]
fn link_local_frames_go_up_the_backup_port_and_to_the_bond_from_the_active_one() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let on_bond = Capture::start(&bench.host.netns, "bond0", "ether proto 0x88cc");
    let frame = [&[1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 9, 9, 0x88, 0xcc][..], &[0; 46]].concat();
    for (switch_port, port) in [("p0", "eth0"), ("p1", "eth1")] {
        let on_port = Capture::start(&bench.host.netns, port, "ether proto 0x88cc");
        transmit(&bench.switch.netns, switch_port, &frame);
        on_port.wait(1, &["01:80:c2:00:00:0e"]);
    }
    on_bond.wait(1, &["01:80:c2:00:00:0e"]);
    // A frame that does cross, behind the one that must not.
    ping(&bench.switch.netns, LEFT, &[]);
    assert_eq!(on_bond.matching(&["01:80:c2:00:00:0e"]).len(), 1);
}

#[test]
fn bond0_works_as_a_bridge_port_and_its_promiscuity_reaches_the_ports() {
    let pair = TwoBonds::new(Machine::shared(), "miimon=100");
    let (host, guest) = (&pair.left.netns, Netns::new("guest"));
    let _cable = Cable::new(host, "tap0", &guest, "eth0");
    host.ip("addr flush dev bond0");
    host.ip("link add br0 type bridge stp_state 0 forward_delay 0");
    host.ip("link set bond0 master br0");
    host.ip("link set tap0 master br0");
    host.ip("link set br0 up");
    guest.ip("addr add 10.77.0.9/24 dev eth0");
    let promiscuity = |link: &str| host.link(link).unwrap()["promiscuity"].as_u64().unwrap();
    wait_for("promiscuous ports", LIMIT, || {
        promiscuity("eth0") > 0 && promiscuity("eth1") > 0
    });
    wait_for("traffic through the bridge", LIMIT, || {
        guest
            .try_exec(&["ping", "-q", "-c", "1", "-W", "1", "10.77.0.2"])
            .status
            .success()
    });
    pair.cables[0].pull();
    pair.wait_active("eth1");
    ping(&guest, RIGHT, &[]);
    ping(&pair.right.netns, Ipv4Addr::new(10, 77, 0, 9), &[]);
    host.ip("link set bond0 nomaster");
    wait_for("ordinary ports again", LIMIT, || {
        promiscuity("eth0") == 0 && promiscuity("eth1") == 0
    });
    let allmulti = |link: &str| host.link(link).unwrap()["flags"].to_string().contains("ALLMULTI");
    assert!(allmulti("eth0") && allmulti("eth1"), "ports let all groups in");
}

#[test]
fn a_macvlan_on_the_bond_makes_ports_promiscuous_and_hears_what_is_for_it() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (host, guest) = (&bench.host.netns, Netns::new("guest"));
    let promiscuity = |link: &str| host.link(link).unwrap()["promiscuity"].as_u64().unwrap();
    let follows = |what: &str, on: bool| {
        // The kernel counts on the bond without a word, so the bond is polled. [dev.c: __dev_set_rx_mode]
        wait_for(what, LIMIT, || {
            ["bond0", "eth0", "eth1"]
                .iter()
                .all(|link| (promiscuity(link) > 0) == on)
        });
    };
    for (netns, last) in [(host, 1), (&guest, 2)] {
        let address = format!("02:00:00:00:0a:0{last}");
        host.ip(&format!(
            "link add mac0 link bond0 netns {} address {address} type macvlan mode bridge",
            netns.name()
        ));
        netns.ip("link set mac0 up");
        follows("promiscuous ports", true);
        let capture = Capture::start(netns, "mac0", "ether proto 0x88b5");
        let frame = [&[2, 0, 0, 0, 0x0a, last][..], &[2, 0, 0, 0, 9, 9, 0x88, 0xb5], &[0; 46]].concat();
        transmit(&bench.switch.netns, "br0", &frame);
        capture.wait(1, &["0x88b5"]);
        netns.ip("link del mac0");
        follows("ordinary ports again", false);
    }
}

#[test]
fn the_bonds_mtu_reaches_the_ports_and_full_frames_pass_from_1000_to_9000_bytes() {
    let pair = TwoBonds::new(Machine::shared(), "miimon=100");
    let sides = [&pair.left, &pair.right];
    for mtu in [1000, 9000, 1500] {
        for side in sides {
            side.netns.ip(&format!("link set bond0 mtu {mtu}"));
            for port in ["eth0", "eth1"] {
                wait_for("the port has the bond's MTU", LIMIT, || {
                    side.netns.link(port).unwrap()["mtu"] == mtu
                });
            }
        }
        let payload = (mtu - 28).to_string();
        wait_for("full frames pass", LIMIT, || {
            let words = [
                "ping",
                "-q",
                "-c",
                "1",
                "-W",
                "1",
                "-M",
                "do",
                "-s",
                &payload,
                "10.77.0.2",
            ];
            pair.left.netns.try_exec(&words).status.success()
        });
        ping(&pair.left.netns, RIGHT, &["-M", "do", "-s", &payload]);
        ping(&pair.right.netns, LEFT, &["-M", "do", "-s", &payload]);
        assert_eq!(pair.left.daemon.bond("bond0")["mtu"], mtu);
    }
}

#[test]
fn the_bonds_address_reaches_the_ports_and_stays_when_set_by_the_operator() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let first = daemon.port("bond0", "eth0")["permanent_mac"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        [netns.mac("bond0"), netns.mac("eth0"), netns.mac("eth1")],
        [first.clone(), first.clone(), first]
    );
    let wished = "02:aa:bb:cc:dd:ee";
    netns.ip(&format!("link set bond0 address {wished}"));
    wait_for("ports follow", LIMIT, || {
        netns.mac("eth0") == wished && netns.mac("eth1") == wished
    });
    bench
        .switch
        .netns
        .ip(&format!("neigh replace {LEFT} lladdr {wished} dev br0 nud permanent"));
    ping(netns, RIGHT, &[]);
    daemon.ctl("port del bond0 eth0 eth1");
    assert_eq!(netns.mac("bond0"), wished);
}

#[test]
fn fail_over_mac_active_gives_the_bond_the_address_of_its_active_port() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100 fail_over_mac=active");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let own = ["eth0", "eth1"].map(|port| netns.mac(port));
    assert_ne!(own[0], own[1]);
    wait_for("the first port's address", LIMIT, || netns.mac("bond0") == own[0]);
    bench.cables[0].pull();
    daemon.wait_active("bond0", "eth1");
    wait_for("the second port's address", LIMIT, || netns.mac("bond0") == own[1]);
    assert_eq!([netns.mac("eth0"), netns.mac("eth1")], own);
}

#[test]
fn fail_over_mac_follow_moves_the_bonds_address_to_the_active_port() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100 fail_over_mac=follow");
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let bond = netns.mac("bond0");
    assert_eq!(netns.mac("eth0"), bond);
    assert_ne!(netns.mac("eth1"), bond);
    bench.cables[0].pull();
    daemon.wait_active("bond0", "eth1");
    wait_for("eth1 has the bond's address", LIMIT, || {
        netns.mac("eth1") == bond && netns.mac("eth0") != bond
    });
    assert_eq!(netns.mac("bond0"), bond);
}

#[test]
fn no_kernel_ipv6_speaks_on_ports_and_wire() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let netns = &bench.host.netns;
    let wire = format!("wire{}", bench.host.daemon.bond("bond0")["ifindex"]);
    for link in ["eth0", "eth1", &wire] {
        assert_eq!(netns.sysctl(&format!("ipv6/conf/{link}/disable_ipv6")), "1", "{link}");
        assert_eq!(netns.ip(&format!("-6 addr show dev {link}")), "", "{link}");
    }
    assert_eq!(netns.link("eth0").unwrap()["ifalias"], "port of bond0");
    // Below 1280 the kernel takes IPv6 off an interface, and puts it back with its defaults.
    for mtu in [1000, 1500] {
        netns.ip(&format!("link set bond0 mtu {mtu}"));
        wait_for("the port has the bond's MTU", LIMIT, || {
            netns.link("eth1").unwrap()["mtu"] == mtu
        });
    }
    for port in ["eth0", "eth1"] {
        wait_for("IPv6 is off again", LIMIT, || {
            netns.sysctl(&format!("ipv6/conf/{port}/disable_ipv6")) == "1"
        });
        assert_eq!(netns.ip(&format!("-6 addr show dev {port}")), "", "{port}");
    }
}

#[test]
fn segmentation_offload_survives_the_bond() {
    offload_survives(Settings::default());
}

#[test]
fn segmentation_offload_survives_the_clsact_hook() {
    offload_survives(Settings::args(&["--tc-hook", "clsact"]));
}

/// What leaves the port is as large as what a plain cable would carry: many frames in one, for the card to cut. How fast that
/// is, is for the benchmark to say.
fn offload_survives(settings: Settings) {
    let pair = TwoBonds::with(Machine::shared(), settings, "miimon=100");
    pair.wait_active("eth0");
    let (left, right) = (&pair.left.netns, &pair.right.netns);
    let sent = |what: &str| left.link("eth0").unwrap()["stats64"]["tx"][what].as_u64().unwrap();
    let before = [sent("bytes"), sent("packets")];
    gigabits(left, right, RIGHT);
    let [bytes, packets] = [sent("bytes") - before[0], sent("packets") - before[1]];
    println!("{packets} packets of {} bytes on average", bytes / packets);
    assert!(bytes / packets > 5 * 1514, "{bytes} bytes in {packets} packets");
}

#[test]
fn removing_the_pins_by_hand_does_not_cut_the_traffic() {
    let mut pair = TwoBonds::new(Machine::shared(), "miimon=100");
    pair.wait_active("eth0");
    // The first restart finds no pins and makes them, the second one takes over what is pinned.
    for restarts in [0, 2] {
        for _ in 0..restarts {
            pair.left.daemon.sigkill();
            pair.left.daemon.launch();
        }
        let daemon = &pair.left.daemon;
        let found = pins(&pair.left.netns, daemon.dir(), daemon.pid());
        assert!(!found.is_empty(), "the bond has pins");
        for pin in found {
            std::fs::remove_file(&pin).expect("root may remove a pin");
        }
        ping(&pair.left.netns, RIGHT, &[]);
        pair.cables[0].pull();
        pair.wait_active("eth1");
        ping(&pair.left.netns, RIGHT, &[]);
        pair.cables[0].plug();
        pair.left.daemon.wait_link("bond0", "eth0", "up");
        pair.right.daemon.wait_link("bond0", "eth0", "up");
        pair.left.daemon.ctl("active bond0 eth0");
        pair.right.daemon.ctl("active bond0 eth0");
    }
}

/// With room for some bonds under the hard limit, and for none under the soft one.
#[test]
fn a_bond_of_two_ports_keeps_six_descriptors_and_one_too_many_is_refused_in_plain_words() {
    let _machine = Machine::shared();
    let (near, far) = (Netns::new("near"), Netns::new("far"));
    let mut daemon = Daemon::prepare(&near, Settings::args(&["--plane", "tc"]));
    daemon.limit_descriptors("48:208");
    daemon.launch();
    let open = |daemon: &Daemon| {
        let found = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("the agent runs");
        let targets = found.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let is_of_bpf = |to: &std::path::PathBuf| to.to_string_lossy().starts_with("anon_inode:bpf");
        targets.filter(is_of_bpf).count()
    };
    let cables: Vec<Cable> = (0..2 * WITH_PORTS)
        .map(|port| Cable::new(&near, &format!("p{port}"), &far, &format!("p{port}")))
        .collect();
    let mut with_first = None;
    for bond in 0..WITH_PORTS {
        daemon.ctl(&format!("add bond{bond} mode active-backup miimon 100"));
        near.ip(&format!("link set bond{bond} up"));
        daemon.ctl(&format!("port add bond{bond} p{} p{}", 2 * bond, 2 * bond + 1));
        daemon.wait_active(&format!("bond{bond}"), &format!("p{}", 2 * bond));
        // Where the kernel can fail over by itself, all bonds share a program and its maps.
        with_first = with_first.or_else(|| Some(open(&daemon)));
    }
    let others = 6 * (WITH_PORTS - 1);
    let most = with_first.expect("there is a first") + others;
    wait_for("six descriptors a bond", LIMIT, || open(&daemon) <= most);
    let refusal = (WITH_PORTS..40)
        .map(|bond| daemon.bondctl(&["add", &format!("bond{bond}")]))
        .find(|answer| !answer.status.success());
    let (_, sentence) = refused(&refusal.expect("there is no room for 40"));
    assert!(
        sentence.contains("RLIMIT_NOFILE") && sentence.contains("208"),
        "{sentence}"
    );
    let monitor = [
        "set",
        "bond0",
        "miimon",
        "0",
        "arp_interval",
        "100",
        "arp_ip_target",
        "10.0.0.9",
    ];
    let (_, sentence) = refused(&daemon.bondctl(&monitor));
    assert!(
        sentence.contains("hear its ports") && sentence.contains("RLIMIT_NOFILE"),
        "{sentence}"
    );
    // All others go on.
    cables[0].pull();
    daemon.wait_active("bond0", "p1");
    let before = open(&daemon);
    daemon.sigkill();
    daemon.launch();
    daemon.wait_active("bond0", "p1");
    assert!(open(&daemon) <= before, "{} and {before}", open(&daemon));
}

#[test]
fn sockets_that_the_arp_monitor_has_yet_to_open_are_not_given_to_others() {
    let _machine = Machine::shared();
    let (near, far) = (Netns::new("near"), Netns::new("far"));
    let mut daemon = Daemon::prepare(&near, Settings::args(&["--plane", "tc"]));
    let most = 248;
    daemon.limit_descriptors(&format!("48:{most}"));
    daemon.launch();
    let open = |daemon: &Daemon| {
        let found = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("the agent runs");
        found.count()
    };
    daemon.ctl("add bond0 mode active-backup arp_interval 100 arp_ip_target 10.0.0.9");
    for port in 0..HEARD {
        let _cable = Cable::new(&near, &format!("p{port}"), &far, &format!("p{port}"));
        daemon.ctl(&format!("port add bond0 p{port}"));
    }
    let refusal = (1..most)
        .map(|bond| daemon.bondctl(&["add", &format!("bond{bond}")]))
        .find(|answer| !answer.status.success());
    let (_, sentence) = refused(&refusal.expect("there is no room for all"));
    assert!(sentence.contains("RLIMIT_NOFILE"), "{sentence}");
    near.ip("link set bond0 up");
    let heard = || {
        let sockets = std::fs::read_to_string(format!("/proc/{}/net/packet", daemon.pid())).expect("the agent runs");
        let interfaces = sockets
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(4));
        interfaces.filter(|interface| *interface != "0").count()
    };
    wait_for("all ports are heard", LIMIT, || heard() >= HEARD);
    // Loading the programs of the last bond took 20 of the reserve of 96, and left its own above them.
    let left = most - open(&daemon);
    assert!(left > CLIENTS, "{left} of {most} left");
    let clients: Vec<UnixStream> = (0..CLIENTS)
        .map(|_| UnixStream::connect(daemon.socket()).expect("the agent listens"))
        .collect();
    // Some of those that were open are not any more.
    wait_for("all clients are there", LIMIT, || {
        open(&daemon) + 8 >= most - left + CLIENTS
    });
    daemon.ctl("set bond0 arp_interval 200");
    drop(clients);
}

/// Clients at a time, with one more: as many as may be.
const CLIENTS: usize = 63;

/// Ports of a bond with the ARP monitor.
const HEARD: usize = 40;

/// Bonds with two ports.
const WITH_PORTS: usize = 4;

#[test]
fn a_slow_port_holds_back_the_socket_that_sends() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let netns = &bench.host.netns;
    bench.host.daemon.wait_active("bond0", "eth0");
    netns.exec(&[
        "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "8mbit", "burst", "2000", "limit", "8000000",
    ]);
    let queue = Queue::of(netns, "eth0");
    let begun = Instant::now();
    let tried = netns.enter(|| blast((RIGHT, 9), 1_400, Duration::from_millis(500)));
    // At a million bytes a second.
    let passed = begun.elapsed().as_micros() as u64;
    let state = queue.state();
    // A socket's send buffer, whose size the kernel counts with what it needs for each frame itself.
    let buffer: u64 = netns.sysctl("core/wmem_default").parse().expect("a number of bytes");
    // The queue may be empty again, if we waited for the processor meanwhile.
    assert!(
        tried > 20 && tried * 1_400 < passed + buffer && state.waiting < buffer,
        "{tried} tried, {passed} passed at most, {state:?}"
    );
    assert_eq!(state.dropped, 0);
}
