//! The files of `/sys/class/net` that concern a bond, in sysfs' formats: those of the bonding driver, and those of the device
//! core that monitoring tools read next. [bond_sysfs.c, bond_sysfs_slave.c, net-sysfs.c]
//!
//! A file that cannot be read in the kernel, such as the carrier of an interface that is down, is not there.

use bond_modes::options::{TABLE, find};
use bond_modes::{BondOptions, LinkWord, OptionValue, PortStatus, Role, Spread, UpDown};
use bond_monitors::{Duplex, MacAddr};

use super::attached::{attached, attached_primary};
use super::device::{Device, Devices};
use super::tree::{Entry, Tree};
use crate::control::proto::BondReport;

/// The folder of all interfaces, under the run directory.
pub const FOLDER: &str = "sys/class/net";

/// The file with the names of all bonds, beside the folders of interfaces. [bond_sysfs.c: bonding_masters]
pub const MASTERS: &str = "bonding_masters";

/// Whether an interface of this name can have a folder there.
pub fn has_folder(interface: &str) -> bool {
    interface != MASTERS
}

/// Adds the folders of a bond with these options, and of its ports.
pub fn render(tree: &mut Tree, bond: &BondReport, options: &BondOptions, devices: &Devices) {
    let mut folder = Folder::of(tree, &bond.name);
    for (file, default) in files() {
        folder.file(&format!("bonding/{file}"), &option(bond, file, default));
    }
    DeviceFiles {
        ifindex: bond.ifindex,
        up: bond.status.up,
        carrier: bond.status.carrier,
        mac: bond.status.mac,
        mtu: bond.status.mtu,
        speed: bond_speed(bond, options),
        duplex: senders(bond).next().map_or(Duplex::Unknown, |port| port.duplex),
        // Not the interface's own: it stands behind the bond and knows nothing of its link.
        operstate: None,
        flags: IFF_MASTER,
    }
    .render(&mut folder, devices.get(&bond.ifindex));
    for port in attached(bond) {
        let to_port = format!("../{}", port.name);
        folder.link(&format!("lower_{}", port.name), &to_port);
        // As it was called in older kernels.
        folder.link(&format!("slave_{}", port.name), &to_port);
    }
    for port in attached(bond) {
        render_port(tree, &bond.name, port, devices);
    }
}

fn render_port(tree: &mut Tree, bond: &str, port: &PortStatus, devices: &Devices) {
    let mut folder = Folder::of(tree, &port.name);
    let role = match port.role {
        Role::Active => "active",
        Role::Backup => "backup",
    };
    for (file, value) in [
        ("state", role),
        ("mii_status", port.link.as_str()),
        ("link_failure_count", &port.link_failures.to_string()),
        ("perm_hwaddr", &port.permanent_mac.to_string()),
        ("queue_id", &port.queue_id.to_string()),
        // Numbers in 802.3ad only.
        ("ad_aggregator_id", "N/A"),
        ("ad_actor_oper_port_state", "N/A"),
        ("ad_partner_oper_port_state", "N/A"),
    ] {
        folder.file(&format!("bonding_slave/{file}"), value);
    }
    let ifindex = port.ifindex.0;
    let seen = devices.get(&ifindex);
    DeviceFiles {
        ifindex,
        up: seen.is_some_and(|seen| seen.report.admin_up),
        carrier: port.carrier,
        mac: port.mac,
        mtu: seen.map_or(0, |seen| seen.report.mtu),
        // The kernel asks the interface whether it has carrier or not. [net-sysfs.c: speed_show]
        speed: port.speed_mbps.0,
        duplex: port.duplex,
        operstate: seen.and_then(|seen| seen.operstate),
        flags: IFF_SLAVE,
    }
    .render(&mut folder, seen);
    let to_bond = format!("../{bond}");
    folder.link("master", &to_bond);
    folder.link(&format!("upper_{bond}"), &to_bond);
}

/// The text of a file under `bonding/` without its newline, or its default in modes without that option.
fn option(bond: &BondReport, file: &str, default: &str) -> String {
    let joined = |show: fn(&PortStatus) -> String| attached(bond).map(show).collect::<Vec<_>>().join(" ");
    match file {
        "slaves" => return joined(|port| port.name.clone()),
        "queue_id" => return joined(|port| format!("{}:{}", port.name, port.queue_id)),
        "mii_status" if bond.status.mii_status == UpDown::Up => return "up".to_owned(),
        "mii_status" => return "down".to_owned(),
        "primary" => return attached_primary(bond).map_or(String::new(), |port| port.name.clone()),
        _ => {}
    }
    match bond.status.options.get(file) {
        Some(OptionValue::Name(name)) => match find(file).and_then(|row| row.number_of(name)) {
            Some(number) => format!("{name} {number}"),
            None => name.clone(),
        },
        Some(OptionValue::Number(number)) => number.to_string(),
        Some(OptionValue::List(list)) => list.join(" "),
        Some(OptionValue::None) => String::new(),
        None => default.to_owned(),
    }
}

/// Ports that send. [bonding.h: bond_slave_can_tx]
fn senders(bond: &BondReport) -> impl Iterator<Item = &PortStatus> {
    attached(bond).filter(|port| port.carrier && port.link == LinkWord::Up && port.role == Role::Active)
}

/// The sum of the speeds of all ports that send; the slowest where each sends everything. [bond_main.c: bond_ethtool_get_link_ksettings]
fn bond_speed(bond: &BondReport, options: &BondOptions) -> Option<u32> {
    let mut speeds = senders(bond).filter_map(|port| port.speed_mbps.0).peekable();
    speeds.peek()?;
    match bond_modes::spread(options) {
        Spread::All => speeds.min(),
        _ => Some(speeds.fold(0, u32::saturating_add)),
    }
}

/// The files that the device core has for an interface.
struct DeviceFiles {
    ifindex: u32,
    up: bool,
    carrier: bool,
    mac: MacAddr,
    mtu: u32,
    speed: Option<u32>,
    duplex: Duplex,
    /// What the kernel says; `None` to say what follows from `up` and `carrier`.
    operstate: Option<&'static str>,
    /// Flags besides those that every interface has.
    flags: u32,
}

impl DeviceFiles {
    fn render(&self, folder: &mut Folder, seen: Option<&Device>) {
        let switch = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = IFF_BROADCAST
            | IFF_MULTICAST
            | self.flags
            | switch(self.up, IFF_UP)
            | switch(seen.is_some_and(|seen| seen.report.promisc), IFF_PROMISC)
            | switch(seen.is_some_and(|seen| seen.report.allmulti), IFF_ALLMULTI);
        folder.file("address", &self.mac.to_string());
        folder.file("flags", &format!("{flags:#x}"));
        folder.file("ifindex", &self.ifindex.to_string());
        folder.file("mtu", &self.mtu.to_string());
        let implied = if self.up && self.carrier { "up" } else { "down" };
        folder.file("operstate", self.operstate.unwrap_or(implied));
        // Ethernet. [if_arp.h: ARPHRD_ETHER]
        folder.file("type", "1");
        if self.up {
            folder.file("carrier", if self.carrier { "1" } else { "0" });
            folder.file("duplex", &self.duplex.to_string());
            folder.file("speed", &self.speed.map_or("-1".to_owned(), |mbps| mbps.to_string()));
        }
    }
}

/// The folder of one interface, being filled.
struct Folder<'a> {
    tree: &'a mut Tree,
    path: String,
    /// Nothing can be in it otherwise.
    exists: bool,
}

impl<'a> Folder<'a> {
    fn of(tree: &'a mut Tree, interface: &str) -> Folder<'a> {
        Folder {
            tree,
            path: format!("{FOLDER}/{interface}"),
            exists: has_folder(interface),
        }
    }

    /// Adds a file with one line, or an empty one without a value.
    fn file(&mut self, name: &str, value: &str) {
        let newline = if value.is_empty() { "" } else { "\n" };
        let text = format!("{value}{newline}");
        self.add(name, Entry::File(text));
    }

    fn link(&mut self, name: &str, target: &str) {
        self.add(name, Entry::Link(target.to_owned()));
    }

    fn add(&mut self, name: &str, entry: Entry) {
        if self.exists {
            self.tree.insert(format!("{}/{name}", self.path), entry);
        }
    }
}

/// The driver's files in a bond's folder, in every mode, with the text for a bond without that option.
pub fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    let options = TABLE.iter().flat_map(|row| row.files().map(|file| (file, "")));
    options.chain(NO_OPTIONS.iter().copied())
}

/// Those of them that show no option of a bond here.
const NO_OPTIONS: &[(&str, &str)] = &[
    ("ad_actor_key", ""),
    ("ad_actor_sys_prio", ""),
    ("ad_actor_system", ""),
    ("ad_aggregator", ""),
    ("ad_num_ports", ""),
    ("ad_partner_key", ""),
    ("ad_partner_mac", ""),
    ("ad_select", "stable 0"),
    ("ad_user_port_key", ""),
    ("coupled_control", "1"),
    ("lacp_active", "on 1"),
    ("lacp_rate", "slow 0"),
    ("mii_status", "down"),
    ("queue_id", ""),
    ("slaves", ""),
    ("tlb_dynamic_lb", "1"),
];

const IFF_UP: u32 = libc::IFF_UP as u32;
const IFF_BROADCAST: u32 = libc::IFF_BROADCAST as u32;
const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;
const IFF_ALLMULTI: u32 = libc::IFF_ALLMULTI as u32;
const IFF_MASTER: u32 = libc::IFF_MASTER as u32;
const IFF_SLAVE: u32 = libc::IFF_SLAVE as u32;
const IFF_MULTICAST: u32 = libc::IFF_MULTICAST as u32;
