//! Whole trees of bonds in every mode and state, as recorded in `testdata/status/`; `UPDATE_GOLDEN=1` records them anew.
//!
//! The fidelity suite compares them with the driver.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use bond_modes::{BondStatus, LinkWord, ModeStatus, OptionValue, PortId, PortStatus, Role, UpDown, options};
use bond_monitors::{Carrier, Duplex, LinkReport, MacAddr, Speed};

use super::*;
use crate::control::proto::PortReport;

/// A bond of this mode that is up, with these options and no ports.
pub(super) fn bond(mode: &str, given: &[(&str, &str)]) -> (BondReport, BondOptions) {
    let pairs = [&[("mode", mode)], given].concat();
    let pairs: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let options = options::parse(&pairs).unwrap().options;
    let report = BondReport {
        name: "bond0".into(),
        ifindex: 7,
        plane: "tc".into(),
        status: BondStatus {
            mode: mode.into(),
            mode_number: options.mode.number(),
            up: true,
            carrier: true,
            mii_status: UpDown::Up,
            mac: MacAddr([2, 0, 0, 0, 0, 0x10]),
            mtu: 1500,
            of_mode: ModeStatus {
                has_active: mode == "active-backup",
                ..ModeStatus::default()
            },
            active_port: None,
            primary: options.primary.clone(),
            monitor: None,
            unmonitored: false,
            targets: Vec::new(),
            options: options::show_all(&options, None),
        },
        polled_every_ms: None,
        unfulfilled: Vec::new(),
        failover: None,
        ports: Vec::new(),
        option_origins: Default::default(),
        options_for_ports: Default::default(),
    };
    (report, options)
}

/// An attached port that is up, with an address that ends in this byte.
pub(super) fn port(name: &str, last_byte: u8) -> PortReport {
    PortReport::attached(status(name, last_byte), None)
}

/// The bond's data about such a port.
pub(super) fn status(name: &str, last_byte: u8) -> PortStatus {
    PortStatus {
        name: name.to_owned(),
        ifindex: PortId(u32::from(last_byte)),
        link: LinkWord::Up,
        usable: true,
        role: Role::Active,
        carrier: true,
        speed_mbps: Speed(Some(10000)),
        duplex: Duplex::Full,
        mac: MacAddr([2, 0, 0, 0, 0, 0x10]),
        permanent_mac: MacAddr([2, 0, 0, 0, 0, last_byte]),
        ..PortStatus::default()
    }
}

/// The status of an attached port.
fn of(port: &mut PortReport) -> &mut PortStatus {
    port.status.as_mut().expect("the port is attached")
}

/// As a port whose cable was pulled.
fn dead(mut port: PortReport) -> PortReport {
    let status = of(&mut port);
    (status.link, status.usable, status.role) = (LinkWord::Down, false, Role::Backup);
    (status.carrier, status.link_failures) = (false, 1);
    port
}

/// `eth0` and `eth1`.
fn two_ports() -> Vec<PortReport> {
    vec![port("eth0", 0x10), port("eth1", 0x11)]
}

/// Makes that port the only active one.
fn activate(bond: &mut BondReport, active: &str) {
    bond.status.active_port = Some(active.to_owned());
    let value = OptionValue::Name(active.to_owned());
    bond.status.options.insert("active_slave".to_owned(), value);
    for port in bond.ports.iter_mut().filter(|port| port.name != active) {
        of(port).role = Role::Backup;
    }
}

fn without_carrier(bond: &mut BondReport) {
    bond.status.carrier = false;
    bond.status.mii_status = UpDown::Down;
}

/// Plain link reports for the interfaces of a bond.
pub(super) fn devices(bond: &BondReport) -> Devices {
    let device = |name: &str, up: bool| LinkReport {
        name: name.to_owned(),
        admin_up: up,
        carrier: Carrier::On,
        mac: MacAddr::default(),
        mtu: 1500,
        promisc: false,
        allmulti: false,
        speed: Speed::default(),
        duplex: Duplex::default(),
    };
    let ports = bond
        .ports
        .iter()
        .filter_map(|port| Some((port.status.as_ref()?.ifindex.0, device(&port.name, true).into())));
    ports
        .chain([(bond.ifindex, device(&bond.name, bond.status.up).into())])
        .collect()
}

/// All files of a bond.
fn render(bond: &BondReport, options: &BondOptions, devices: &Devices, release: &str) -> Tree {
    let (report, options, devices) = (bond.clone(), options.clone(), devices.clone());
    let files = StatusFiles::All;
    Page {
        report,
        options,
        devices,
        files,
        age: 0,
    }
    .render(release)
}

#[test]
fn without_the_tree_of_sysfs_a_bond_has_the_files_of_proc() {
    let (report, options) = bond("active-backup", &[]);
    let (devices, files) = (devices(&report), StatusFiles::Proc);
    let tree = Page {
        report,
        options,
        devices,
        files,
        age: 0,
    }
    .render("6.1.0");
    let paths: Vec<&String> = tree.keys().collect();
    assert_eq!(paths, ["proc/net/bond0/info", "proc/net/bonding/bond0"]);
}

#[track_caller]
fn is_golden(case: &str, bond: &BondReport, options: &BondOptions) {
    is_golden_with(case, bond, options, &devices(bond));
}

#[track_caller]
fn is_golden_with(case: &str, bond: &BondReport, options: &BondOptions, devices: &Devices) {
    let mut dump = String::new();
    for (path, entry) in render(bond, options, devices, "6.1.0") {
        match entry {
            Entry::Link(target) => writeln!(dump, "{path} -> {target}").unwrap(),
            // Of several lines.
            Entry::File(text) if path.starts_with("proc/") => writeln!(dump, "{path}:\n{text}---").unwrap(),
            Entry::File(text) => writeln!(dump, "{path}: {text:?}").unwrap(),
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/status/{case}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &dump).unwrap();
    }
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(dump, recorded, "{} (UPDATE_GOLDEN=1 records it anew)", file.display());
}

#[test]
fn balance_rr_with_a_queue_and_all_ports_up() {
    let (mut bond, options) = bond("balance-rr", &[("packets_per_slave", "3"), ("all_slaves_active", "1")]);
    bond.ports = two_ports();
    of(&mut bond.ports[1]).queue_id = 2;
    is_golden("balance-rr", &bond, &options);
}

#[test]
fn balance_rr_with_a_dead_port() {
    let (mut bond, options) = bond("balance-rr", &[]);
    bond.ports = two_ports();
    bond.ports[0] = dead(bond.ports[0].clone());
    is_golden("balance-rr-degraded", &bond, &options);
}

#[test]
fn active_backup_with_a_primary_in_use() {
    let (mut bond, options) = bond(
        "active-backup",
        &[("primary", "eth1"), ("updelay", "200"), ("num_grat_arp", "3")],
    );
    bond.ports = two_ports();
    activate(&mut bond, "eth1");
    let mut devices = devices(&bond);
    for device in devices.values_mut() {
        let device = &mut device.report;
        (device.promisc, device.allmulti, device.mtu) = (true, true, 9000);
    }
    is_golden_with("active-backup", &bond, &options, &devices);
}

#[test]
fn a_port_has_the_operstate_of_its_interface_and_the_bond_that_of_the_bond() {
    let (mut bond, options) = bond("active-backup", &[]);
    bond.ports = two_ports();
    let mut devices = devices(&bond);
    for device in devices.values_mut() {
        device.operstate = Some("lowerlayerdown");
    }
    let tree = render(&bond, &options, &devices, "6.1.0");
    let shown = |name: &str| match &tree[&format!("sys/class/net/{name}/operstate")] {
        Entry::File(text) => text.clone(),
        Entry::Link(_) => panic!("{name}: a link"),
    };
    assert_eq!(["bond0", "eth0"].map(shown), ["up\n", "lowerlayerdown\n"]);
}

#[test]
fn active_backup_while_delays_run() {
    let (mut bond, options) = bond(
        "active-backup",
        &[("updelay", "200"), ("downdelay", "300"), ("peer_notif_delay", "100")],
    );
    bond.ports = two_ports();
    let (going, coming) = bond.ports.split_at_mut(1);
    (of(&mut going[0]).link, of(&mut going[0]).carrier) = (LinkWord::GoingDown, false);
    (of(&mut coming[0]).link, of(&mut coming[0]).usable) = (LinkWord::GoingBack, false);
    activate(&mut bond, "eth0");
    is_golden("active-backup-delays", &bond, &options);
}

#[test]
fn active_backup_with_all_ports_dead_and_an_absent_primary() {
    let (mut bond, options) = bond("active-backup", &[("primary", "eth2"), ("primary_reselect", "failure")]);
    bond.ports = two_ports().into_iter().map(dead).collect();
    bond.ports.push(PortReport::absent("eth2"));
    without_carrier(&mut bond);
    is_golden("active-backup-down", &bond, &options);
}

#[test]
fn active_backup_that_is_down_and_has_no_ports() {
    let (mut bond, options) = bond("active-backup", &[]);
    bond.status.up = false;
    without_carrier(&mut bond);
    is_golden("active-backup-empty", &bond, &options);
}

#[test]
fn active_backup_with_the_arp_monitor_and_moving_addresses() {
    let given = [
        ("fail_over_mac", "follow"),
        ("primary", "eth0"),
        ("primary_reselect", "better"),
        ("arp_interval", "1000"),
        ("arp_validate", "filter_backup"),
        ("arp_all_targets", "all"),
        ("arp_ip_target", "10.0.0.1,10.0.0.2"),
        ("ns_ip6_target", "2001:db8::1,2001:db8::2"),
        ("arp_missed_max", "4"),
    ];
    let (mut bond, options) = bond("active-backup", &given);
    bond.ports = two_ports();
    // Unknown speeds, as of a bridge.
    let unknown = of(&mut bond.ports[0]);
    (unknown.speed_mbps, unknown.duplex) = (Speed(None), Duplex::Unknown);
    activate(&mut bond, "eth0");
    is_golden("active-backup-arp", &bond, &options);
}

#[test]
fn balance_xor_with_a_hash_policy() {
    let (mut bond, options) = bond(
        "balance-xor",
        &[("xmit_hash_policy", "layer3+4"), ("arp_interval", "500")],
    );
    bond.ports = two_ports();
    is_golden("balance-xor", &bond, &options);
}

#[test]
fn broadcast_is_as_fast_as_its_slowest_port() {
    let (mut bond, options) = bond("broadcast", &[]);
    bond.ports = two_ports();
    let slow = of(&mut bond.ports[1]);
    (slow.speed_mbps, slow.duplex) = (Speed(Some(100)), Duplex::Half);
    is_golden("broadcast", &bond, &options);
}

#[test]
fn broadcast_with_all_ports_dead() {
    let (mut bond, options) = bond("broadcast", &[]);
    bond.ports = two_ports().into_iter().map(dead).collect();
    without_carrier(&mut bond);
    is_golden("broadcast-down", &bond, &options);
}

#[test]
fn a_bond_named_as_the_folder_of_bonds_has_no_file_of_the_old_driver_in_it() {
    let (mut bond, options) = bond("balance-rr", &[]);
    bond.name = "bonding".to_owned();
    let tree = render(&bond, &options, &devices(&bond), "6.1.0");
    let proc: Vec<&String> = tree.keys().filter(|path| path.starts_with("proc/")).collect();
    assert_eq!(proc, ["proc/net/bonding/bonding"]);
}
