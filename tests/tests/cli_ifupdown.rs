//! Debian's ifup and ifdown, as their package ships them, with the hook that is shipped here: stanzas of interfaces(5) make bonds
//! of bondd, and nothing of them is left behind.

use std::fs;

use bondd_tests::daemon::{LIMIT, refused, succeeded};
use bondd_tests::debian::{Debian, PORTS, says};
use bondd_tests::machine::Machine;
use bondd_tests::proof::link_names;
use bondd_tests::wait_for;
use serde_json::{Value, json};

/// The stanza of Debian's documents.
const DOCUMENTED: &str = "
auto bond0
iface bond0 inet static
    address 192.0.2.1/24
    bond-slaves eth0 eth1
    bond-mode active-backup
    bond-miimon 100
    bond-primary eth0
";

/// Interfaces, how they are brought up and down, what is said, and what the agent then says of bond0.
struct Case {
    interfaces: &'static str,
    up: &'static str,
    said: &'static [&'static str],
    down: &'static str,
    ports: &'static [&'static str],
    /// Pointers into the bond's JSON.
    shows: &'static [(&'static str, &'static str)],
}

const CASE: Case = Case {
    interfaces: DOCUMENTED,
    up: "ifup bond0",
    said: &[],
    down: "ifdown bond0",
    ports: &PORTS,
    shows: &[
        ("mode", "active-backup"),
        ("options/miimon", "100"),
        ("options/primary", "eth0"),
    ],
};

#[track_caller]
fn plays(cases: &[Case]) {
    let host = Debian::new(Machine::shared());
    let before = host.traces();
    for case in cases {
        println!("{}", case.interfaces);
        host.interfaces(case.interfaces);
        host.up(case.up, case.said);
        let bond = host.daemon.bond("bond0");
        let ports = bond["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| port["name"].clone());
        let mut ports: Vec<Value> = ports.collect();
        ports.sort_by_key(Value::to_string);
        assert_eq!(
            ports,
            case.ports.iter().map(|port| json!(port)).collect::<Vec<_>>(),
            "{bond:#}"
        );
        for (pointer, wanted) in case.shows {
            let shown = bond
                .pointer(&format!("/{pointer}"))
                .unwrap_or_else(|| panic!("{pointer} in {bond:#}"));
            let shown = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
            assert_eq!(shown, *wanted, "{pointer} of {}", case.interfaces);
        }
        host.down(case.down, &before);
    }
}

#[test]
fn the_stanza_of_debians_documents_makes_a_bond_that_carries_traffic_and_leaves_no_trace() {
    let host = Debian::new(Machine::shared());
    host.interfaces(DOCUMENTED);
    host.netns.ip("addr add 198.51.100.7/24 dev eth0");
    let before = host.traces();
    for _ in 0..2 {
        host.up("ifup bond0", &[]);
        assert_eq!(host.does("ifquery --state bond0"), "bond0=bond0\n");
        host.netns
            .exec(&["ping", "-c", "3", "-i", "0.2", "-w", "5", "192.0.2.254"]);
        assert_eq!(host.daemon.active("bond0"), "eth0");
        host.down("ifdown bond0", &before);
    }
}

#[test]
fn every_style_of_stanza_makes_the_same_bond() {
    plays(&[
        CASE,
        Case {
            interfaces: UNDERSCORES,
            ..CASE
        },
        Case {
            interfaces: OLD_SLAVES,
            ..CASE
        },
        Case {
            interfaces: MASTERS,
            up: "ifup -a",
            down: "ifdown -a",
            ..CASE
        },
        Case {
            interfaces: MASTERS,
            up: "ifup eth1 && ifup eth0",
            ..CASE
        },
        Case {
            interfaces: BOTH,
            up: "ifup -a --exclude=lo",
            ..CASE
        },
        Case {
            interfaces: BOTH,
            up: "ifup eth1",
            down: "ifdown -a",
            ..CASE
        },
        Case {
            interfaces: CLASS,
            said: &["up by class bond0"],
            ..CASE
        },
        Case {
            interfaces: "
iface bond0 inet manual
    bond-slaves all
    bond-mode active-backup
    bond-primary eth0
",
            ..CASE
        },
    ]);
}

const UNDERSCORES: &str = "
iface bond0 inet static
    address 192.0.2.1/24
    bond_slaves eth0
    bond_mode 1
    bond_slaves eth1
    bond_miimon 100
    bond_primary eth0
";

const OLD_SLAVES: &str = "
iface bond0 inet static
    address 192.0.2.1/24
    slaves eth0 eth1
    bond-mode active-backup
    bond-primary eth7 eth0 eth1
";

/// Every port says whose it is.
const MASTERS: &str = "
auto eth0 eth1 bond0
iface eth0 inet manual
    bond-master bond0
    bond-primary eth0
iface eth1 inet manual
    bond-master bond0
iface bond0 inet static
    address 192.0.2.1/24
    bond-slaves none
    bond-mode active-backup
    up ping -c 1 -w 5 192.0.2.254 >/dev/null || echo no way out >&2
";

/// The bond names its ports, and they name it.
const BOTH: &str = "
auto bond0 eth0 eth1
iface eth0 inet manual
    bond-master bond0
iface eth1 inet manual
    bond-master bond0
iface bond0 inet static
    address 192.0.2.1/24
    bond-slaves eth0 eth1
    bond-mode active-backup
    bond-primary eth0
";

const CLASS: &str = "
iface bond0 inet manual
    bond-slaves eth0 eth1
    bond-mode active-backup
    bond-primary eth0
allow-bond0 eth1
iface eth1 inet manual
    bond-master bond0
    up echo up by class $CLASS >&2
";

#[test]
fn every_option_reaches_the_agent() {
    plays(&[LINK_MONITOR, ARP_MONITOR, ROUND_ROBIN, WITHOUT_PORTS]);
}

/// Every option of active-backup beside those of the ARP monitor.
const LINK_MONITOR: Case = Case {
    interfaces: "
iface bond0 inet manual
    bond-slaves eth0 eth1
    bond-mode active-backup
    bond-miimon 50
    bond-updelay 100
    bond-downdelay 150
    bond-use-carrier 0
    bond-primary eth1 eth0
    bond-primary-reselect failure
    bond-fail-over-mac active
    bond-num-grat-arp 3
    bond-num-unsol-na 3
    bond-queue-id eth0:2 eth1:3
    bond-resend-igmp 4
    bond-all-slaves-active 1
    bond-min-links 1
    bond-lp-interval 7
    bond-peer-notif-delay 200
    bond-plane tc
    bond-active-slave eth0
",
    shows: &[
        ("plane", "tc"),
        ("options/miimon", "50"),
        ("options/updelay", "100"),
        ("options/downdelay", "150"),
        ("options/use_carrier", "0"),
        ("options/primary", "eth1"),
        ("options/primary_reselect", "failure"),
        ("options/fail_over_mac", "active"),
        ("options/num_grat_arp", "3"),
        ("options/resend_igmp", "4"),
        ("options/all_slaves_active", "1"),
        ("options/min_links", "1"),
        ("options/lp_interval", "7"),
        ("options/peer_notif_delay", "200"),
        ("ports/0/queue_id", "2"),
        ("ports/1/queue_id", "3"),
        ("active_port", "eth0"),
    ],
    ..CASE
};

/// Every option of the ARP monitor; a target that is named twice counts once.
const ARP_MONITOR: Case = Case {
    interfaces: "
iface bond0 inet manual
    bond-slaves eth0 eth1
    bond-mode active-backup
    bond-arp-interval 500
    bond-arp-ip-target 192.0.2.254,192.0.2.9 192.0.2.10
    bond-arp-ip-target 192.0.2.9
    bond-arp-validate all
    bond-arp-all-targets any
    bond-arp-missed-max 3
    bond-active-slave none
",
    said: &["arp_ip_target names 192.0.2.9 again"],
    shows: &[
        ("options/miimon", "0"),
        ("options/arp_interval", "500"),
        ("options/arp_ip_target", r#"["192.0.2.254","192.0.2.9","192.0.2.10"]"#),
        ("options/arp_validate", "all"),
        ("options/arp_missed_max", "3"),
    ],
    ..CASE
};

const ROUND_ROBIN: Case = Case {
    interfaces: "
iface bond0 inet manual
    bond-slaves eth0 eth1
    bond-mode 0
    bond-packets-per-slave 5
",
    shows: &[("mode", "balance-rr"), ("options/packets_per_slave", "5")],
    ..CASE
};

const WITHOUT_PORTS: Case = Case {
    interfaces: "
iface bond0 inet manual
    bond-slaves none
    bond-mode balance-xor
    bond-xmit-hash-policy layer3+4
",
    ports: &[],
    shows: &[("mode", "balance-xor"), ("options/xmit_hash_policy", "layer3+4")],
    ..CASE
};

#[test]
fn what_is_refused_is_reported_and_costs_nothing_else() {
    plays(&[
        Case {
            interfaces: "
iface bond0 inet static
    address 192.0.2.1/24
    bond-slaves eth0 eth9 eth1
    bond-mode active-backup
    bond-primary eth0
    bond-miimonn 100
    bond-updelay soon
    bond-lacp-rate fast
    bond-queue-id eth9:1 eth0:99
",
            said: &[
                "bondctl: bond0: no interface eth9",
                "bondctl: bond0: unknown option miimonn, expected miimon perhaps",
                "bondctl: bond0: updelay: bad value \"soon\"",
                "bondctl: bond0: warning: bond-lacp-rate is for modes that bondd does not have",
                "bondctl: bond0: eth9 is not a port of bond0",
                "queue_id: bad value \"99\"",
            ],
            ..CASE
        },
        Case {
            interfaces: "
iface bond0 inet manual
    bond-slaves eth0 eth1
    bond-mode balance-xor
    bond-primary eth0
    bond-give-a-chance 3
",
            said: &["primary is not for mode balance-xor"],
            shows: &[("mode", "balance-xor")],
            ..CASE
        },
        Case {
            interfaces: "
iface bond0 inet manual
    bond-slaves eth0 eth1
    bond-mode balance-rr
    bond-plane team
    bond-miimon 50
",
            said: &[
                "cannot do mode=balance-rr exactly on plane team",
                "it is on plane tc and stays there",
            ],
            shows: &[("mode", "balance-rr"), ("options/miimon", "50")],
            ..CASE
        },
    ]);
}

#[test]
fn a_bond_that_cannot_be_made_fails_and_changes_nothing() {
    let mut host = Debian::new(Machine::shared());
    let before = host.traces();
    let unmade: &[(&str, &[&str])] = &[
        (
            "iface bond0 inet manual\n bond-slaves eth0 eth1\n bond-mode 802.3ad\n",
            &[
                "bond0: mode=802.3ad: bondd does not have this mode, expected balance-rr, active-backup, balance-xor or broadcast (0 to 3)",
                "no bond bond0 was made",
            ],
        ),
        (
            "iface bond0 inet manual\n bond-slaves eth0\n bond-mode 6\n bond-miimon 100\n",
            &["bond0: mode=6: bondd does not have this mode", "no bond bond0 was made"],
        ),
        (
            "iface bond0 inet manual\n bond-master bond9\n",
            &["bond0: bond-master bond9 has no stanza of its own, expected `iface bond9"],
        ),
        (
            "iface bond0 inet manual\n bond-master bond9 eth0\n",
            &[
                "\"bond9 eth0\" is not an interface name",
                "bond0: bond-master bond9 eth0 has no stanza of its own",
            ],
        ),
    ];
    let fails = |host: &Debian, words: &[&str]| {
        let (code, said) = refused(&host.session("ifup bond0"));
        println!("{said}");
        assert_eq!(code, 1, "{said}");
        let more = [
            "run-parts: /etc/network/if-pre-up.d/bondd exited with return code",
            "ifup: failed to bring up bond0",
        ];
        says("ifup bond0", &said, &[words, &more].concat());
        assert_eq!(host.traces(), before);
    };
    for (interfaces, words) in unmade {
        host.interfaces(interfaces);
        fails(&host, words);
    }
    host.interfaces(DOCUMENTED);
    assert!(host.daemon.sigterm());
    let (code, said) = refused(&host.session("ifup bond0"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no bondd answers at /run/bondd/control.sock"), "{said}");
    assert!(host.netns.link("bond0").is_none());
    // A host without bonds does not need the agent.
    host.interfaces("iface eth1 inet manual\n mtu 1400\n");
    host.up("ifup eth1 && ifdown eth1", &[]);
}

#[test]
fn ifup_and_ifdown_wait_for_an_agent_that_is_still_starting() {
    let mut host = Debian::new(Machine::shared());
    let marked = "pre-up touch /run/network/waits\n    down touch /run/network/waits";
    host.interfaces(&format!("{DOCUMENTED}    {marked}\n"));
    assert!(host.daemon.sigterm());
    let links = link_names(&host.netns);
    let mut while_it_starts = |command: &str| {
        let marker = host.dir.join("run/network/waits");
        let _ = fs::remove_file(&marker);
        let mut shell = host.shell(command);
        let session = std::thread::spawn(move || shell.output());
        wait_for("the hook is next", LIMIT, || marker.exists());
        host.daemon.launch();
        let output = session.join().expect("it does not panic");
        succeeded(command, output.expect("unshare can be run"));
        if command.starts_with("ifup") {
            host.netns.exec(&["ping", "-c", "1", "-w", "5", "192.0.2.254"]);
        }
        host.daemon.sigkill();
    };
    while_it_starts("ifup bond0");
    while_it_starts("ifdown bond0");
    assert_eq!(link_names(&host.netns), links);
}

#[test]
fn a_port_that_is_plugged_in_later_joins_and_leaves_alone() {
    let host = Debian::new(Machine::shared());
    host.interfaces(
        "
iface bond0 inet static
    address 192.0.2.1/24
    bond-slaves none
    bond-mode active-backup
    bond-primary eth0 eth1
    bond-queue-id eth0:4 eth1:5
allow-hotplug eth0 eth1
iface eth0 inet manual
    bond-master bond0
iface eth1 inet manual
    bond-master bond0
    bond-give-a-chance 18446744073709551615
",
    );
    let before = host.traces();
    host.up("ifup --allow=hotplug eth1", &[]);
    assert_eq!(host.daemon.bond("bond0")["options"]["primary"], "eth1");
    host.up("ifup --allow=hotplug eth0", &[]);
    let bond = host.daemon.bond("bond0");
    assert_eq!(bond["options"]["primary"], "eth0");
    let queues: Vec<_> = PORTS
        .map(|port| host.daemon.port("bond0", port)["queue_id"].clone())
        .into();
    assert_eq!(queues, [json!(4), json!(5)]);
    host.daemon.wait_active("bond0", "eth0");
    host.up("ifdown eth0", &[]);
    assert_eq!(host.daemon.bond("bond0")["ports"].as_array().map(Vec::len), Some(1));
    host.netns.exec(&["ping", "-c", "1", "-w", "5", "192.0.2.254"]);
    host.down("ifdown bond0", &before);
}

#[test]
fn a_bond_and_its_ports_may_be_configured_all_at_once() {
    let host = Debian::new(Machine::shared());
    host.interfaces(&format!("allow-bond0 eth0 eth1\n{BOTH}"));
    let before = host.traces();
    for _ in 0..3 {
        host.does(
            "for each in eth0 bond0 eth1; do timeout 20 ifup $each & done; wait; ifquery --state bond0 eth0 eth1",
        );
        let bond = host.daemon.bond("bond0");
        assert_eq!(bond["ports"].as_array().map(Vec::len), Some(2), "{bond:#}");
        host.netns.exec(&["ping", "-c", "1", "-w", "5", "192.0.2.254"]);
        host.down(
            "for each in eth0 bond0 eth1; do timeout 20 ifdown $each & done; wait",
            &before,
        );
    }
}

#[test]
fn a_bond_that_is_there_gets_the_options_of_its_stanza() {
    let host = Debian::new(Machine::shared());
    host.interfaces(DOCUMENTED);
    let before = host.traces();
    host.daemon.ctl("add bond0 mode=active-backup miimon=70 primary=eth1");
    host.daemon.ctl("port add bond0 eth1");
    host.up("ifup bond0", &[]);
    let bond = host.daemon.bond("bond0");
    assert_eq!(
        (&bond["options"]["miimon"], &bond["options"]["primary"]),
        (&json!(100), &json!("eth0"))
    );
    host.netns.exec(&["ping", "-c", "1", "-w", "5", "192.0.2.254"]);
    host.down("ifdown bond0", &before);
    // Without ports it gets the mode, too, though it is up; with ports it keeps its own, and goes on with the rest.
    host.daemon.ctl("add bond0 mode=balance-rr packets_per_slave=4");
    host.netns.ip("link set bond0 up");
    wait_for("the bond is up", LIMIT, || host.daemon.bond("bond0")["up"] == true);
    host.up("ifup bond0", &[]);
    assert_eq!(host.daemon.bond("bond0")["mode"], "active-backup");
    host.interfaces(
        &DOCUMENTED
            .replace("active-backup", "balance-xor")
            .replace("miimon 100", "miimon 50"),
    );
    let said = refused(&host.session("ifup --force bond0")).1;
    assert!(
        said.contains("bond0: mode cannot change while the bond has ports"),
        "{said}"
    );
    let bond = host.daemon.bond("bond0");
    assert_eq!(
        (&bond["mode"], &bond["options"]["miimon"], &bond["up"]),
        (&json!("active-backup"), &json!(50), &json!(true))
    );
    host.interfaces(DOCUMENTED);
    host.down("ifdown bond0", &before);
    // It may be gone already.
    host.up("ifup bond0", &[]);
    host.daemon.ctl("del bond0");
    let said = refused(&host.session("ifdown bond0")).1;
    assert!(!said.contains("bondctl"), "{said}");
    assert_eq!(host.traces(), before);
}

#[test]
fn bonds_are_left_to_debians_ifenslave_while_that_is_installed() {
    let host = Debian::new(Machine::shared());
    host.interfaces("iface bond0 inet manual\n bond-slaves eth0 eth1\n bond-mode 1\n");
    let before = host.traces();
    fs::write(host.dir.join("network/if-pre-up.d/ifenslave"), "#!/bin/sh\n").expect("the folder takes a file");
    host.up("ifup bond0", &["bond0 is left to Debian's ifenslave"]);
    assert!(host.netns.link("bond0").is_none());
    host.down("ifdown bond0", &before);
}
