//! State that a test compares to show that nothing was left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::netns::Netns;

/// Everything of an interface that attaching it to a bond may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortState {
    mac: String,
    mtu: u64,
    flags: BTreeSet<String>,
    promiscuity: u64,
    allmulti: u64,
    ifalias: String,
    qdiscs: BTreeSet<String>,
    disable_ipv6: String,
    master: Option<String>,
}

impl PortState {
    /// As it is now.
    #[track_caller]
    pub fn of(netns: &Netns, port: &str) -> PortState {
        let link = netns
            .link(port)
            .unwrap_or_else(|| panic!("{} has no {port}", netns.name()));
        let text = |key: &str| link[key].as_str().unwrap_or_default().to_owned();
        let flags = link["flags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        let qdiscs = netns.exec(&["tc", "-j", "qdisc", "show", "dev", port]);
        let qdiscs: Value = serde_json::from_str(&qdiscs).expect("tc -j prints JSON");
        PortState {
            mac: text("address"),
            mtu: link["mtu"].as_u64().unwrap_or_default(),
            flags: flags.collect(),
            promiscuity: link["promiscuity"].as_u64().unwrap_or_default(),
            allmulti: link["allmulti"].as_u64().unwrap_or_default(),
            ifalias: text("ifalias"),
            qdiscs: qdiscs
                .as_array()
                .into_iter()
                .flatten()
                .map(|q| q["kind"].to_string())
                .collect(),
            disable_ipv6: netns.sysctl(&format!("ipv6/conf/{port}/disable_ipv6")),
            master: link["master"].as_str().map(str::to_owned),
        }
    }
}

/// Names of all links in a namespace.
pub fn link_names(netns: &Netns) -> BTreeSet<String> {
    netns
        .links()
        .iter()
        .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
        .collect()
}

/// Pinned objects of the agent with that run dir, wherever its bpffs is, as seen by process `pid` (which may have a mount
/// namespace of its own).
pub fn pins(netns: &Netns, run_dir: &Path, pid: u32) -> Vec<PathBuf> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let places = [
        PathBuf::from("sys/fs/bpf/bondd").join(netns.inode().to_string()),
        run_dir.strip_prefix("/").unwrap_or(run_dir).join("bpf/bondd"),
    ];
    let mut found = Vec::new();
    for place in places {
        collect_files(&root.join(place), &mut found);
    }
    found
}

fn collect_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// A kind of object in the kernel's BPF subsystem, and the number of the command that walks over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BpfKind {
    /// BPF_PROG_GET_NEXT_ID
    Program = 11,
    /// BPF_MAP_GET_NEXT_ID
    Map = 12,
    /// BPF_LINK_GET_NEXT_ID
    Link = 31,
}

/// All BPF objects of the machine at the moment.
pub fn bpf_objects() -> BTreeSet<(BpfKind, u32)> {
    [BpfKind::Program, BpfKind::Map, BpfKind::Link]
        .into_iter()
        .flat_map(|kind| ids(kind).map(move |id| (kind, id)))
        .collect()
}

fn ids(kind: BpfKind) -> impl Iterator<Item = u32> {
    let mut last = 0;
    std::iter::from_fn(move || {
        // start_id, next_id, open_flags of union bpf_attr
        let mut attr = [last, 0_u32, 0];
        // SAFETY: the kernel reads and writes at most the twelve bytes it is told about, which `attr` has.
        let code = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                kind as libc::c_int,
                attr.as_mut_ptr(),
                size_of_val(&attr),
            )
        };
        last = attr[1];
        (code == 0).then_some(last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_attaching_changes_is_noticed() {
        let netns = Netns::new("state");
        netns.ip("link add eth0 type veth peer name other");
        let state = || PortState::of(&netns, "eth0");
        let mut last = state();
        assert_eq!(state(), last);
        let mut changed = |how: &str| {
            let now = state();
            assert_ne!(now, last, "{how}");
            last = now;
        };
        for how in [
            "address 02:00:00:00:00:07",
            "mtu 1400",
            "up",
            "promisc on",
            "allmulticast on",
            "alias x",
        ] {
            netns.ip(&format!("link set eth0 {how}"));
            changed(how);
        }
        netns.exec(&["tc", "qdisc", "add", "dev", "eth0", "clsact"]);
        changed("a qdisc");
        netns.set_sysctl("ipv6/conf/eth0/disable_ipv6", "1");
        changed("disable_ipv6");
    }
}
