//! What the agent has in the kernel and other programs take away: it is back within seconds, told once, and told where it cannot be.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bondd_tests::daemon::{Daemon, LIMIT};
use bondd_tests::lab::BondAndSwitch;
use bondd_tests::machine::Machine;
use bondd_tests::netns::Netns;
use bondd_tests::traffic::{Flow, Rate};
use bondd_tests::{until, wait_for};

/// A frame a millisecond.
const THOUSAND: Rate = Rate::PerSecond(1_000);

#[test]
fn a_stop_and_a_crash_after_the_pins_were_removed_lose_nothing() {
    for crashes in [false, true] {
        let mut bench = bench();
        let flows = [bench.flow(THOUSAND), bench.flow_back(THOUSAND)];
        remove_pins(&bench.host.daemon);
        if crashes {
            wait_for("they are pinned again", LIMIT, || {
                said(&bench.host.daemon, "removed pins of it") == 1
            });
            wait_for("all of them", LIMIT, || pins(&bench.host.daemon).len() > 10);
            bench.host.daemon.sigkill();
        } else {
            assert!(bench.host.daemon.sigterm());
        }
        flows[0].pass(1_000);
        bench.host.daemon.launch();
        bench.host.daemon.wait_active("bond0", "eth0");
        flows[0].pass(500);
        for flow in flows {
            let tally = flow.finish().tally();
            assert_eq!(tally.lost, 0, "crashes: {crashes}, {tally:?}");
        }
        let log = bench.host.daemon.log();
        assert!(!log.contains("its programs are gone"), "{log}");
    }
}

#[test]
fn programs_that_are_taken_off_are_attached_again_and_traffic_flows_within_the_round() {
    let bench = bench();
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let flows = [bench.flow(THOUSAND), bench.flow_back(THOUSAND)];
    let port = netns.link("eth0").expect("it is there")["ifindex"].clone();
    let wire = wire(netns);
    for (name, what) in [("tx".to_owned(), wire.as_str()), (format!("rx-{port}"), "eth0")] {
        let told = format!("took the program off {what}, attaching it again");
        detach(&pin_of(daemon, &name));
        wait_for("it is told", ROUND, || said(daemon, &told) > 0);
        flows.iter().for_each(flow_is_back);
        assert_eq!(said(daemon, &told), 1);
    }
    assert_eq!(undone(daemon), "[]");
    for flow in flows {
        let gap = flow.finish().tally().longest_gap;
        assert!(gap < ROUND, "{gap:?}");
    }
}

#[test]
fn a_program_that_is_taken_off_again_and_again_is_left_and_shown() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    let insists = || {
        if let Some(pin) = find_pin(daemon, "tx") {
            detach(&pin);
        }
        said(daemon, "again and again, so that is left for a minute") > 0
    };
    wait_for("it is left", LIMIT * 2, insists);
    let health = health(daemon);
    assert!(
        health.contains("CRITICAL") && health.contains("bond0 cannot send anything"),
        "{health}"
    );
    assert!(daemon.ctl("show bond0").contains("NOT DONE cannot send anything"));
}

#[test]
fn a_wire_in_another_namespace_is_told_with_what_moves_it_back_and_then_traffic_flows() {
    let bench = bench();
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let flow = bench.flow(THOUSAND);
    let (wire, elsewhere) = (wire(netns), Netns::new("elsewhere"));
    netns.ip(&format!("link set {wire} netns {}", elsewhere.name()));
    // Its event says so, so this takes no round.
    wait_for("it is told", LIMIT, || {
        health(daemon).contains("bond0 cannot send or receive anything")
    });
    assert!(health(daemon).contains("CRITICAL"));
    let shown = daemon.ctl("show bond0");
    let command = format!("link set {wire} netns {}", daemon.pid());
    assert!(
        shown.contains("to another network namespace") && shown.contains(&format!("`ip {command}`")),
        "{shown}"
    );
    assert_eq!(
        said(daemon, "bond0: cannot send or receive anything"),
        1,
        "{}",
        daemon.log()
    );
    elsewhere.ip(&command);
    flow_is_back(&flow);
    wait_for("nothing is left to tell", LIMIT, || undone(daemon) == "[]");
    assert!(health(daemon).contains("OK"), "{}", health(daemon));
    drop(flow);
}

/// More than a round of the guard on a busy machine.
const ROUND: Duration = Duration::from_secs(8);

fn bench() -> BondAndSwitch {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    bench
}

fn flow_is_back(flow: &Flow) {
    // What was on its way has arrived by then.
    thread::sleep(Duration::from_millis(100));
    let before = flow.arrived();
    let back = until(ROUND, || (flow.arrived() > before + 100).then_some(()));
    assert!(back.is_some(), "traffic is not back");
}

fn said(daemon: &Daemon, what: &str) -> usize {
    daemon.log().matches(what).count()
}

fn undone(daemon: &Daemon) -> String {
    daemon.bond("bond0")["unfulfilled"].to_string()
}

fn health(daemon: &Daemon) -> String {
    String::from_utf8(daemon.bondctl(&["health"]).stdout).expect("text")
}

fn wire(netns: &Netns) -> String {
    let names = netns.links().into_iter();
    let mut names = names.filter_map(|link| Some(link["ifname"].as_str()?.to_owned()));
    names
        .find(|name| name.starts_with("wire"))
        .expect("the bond has a wire")
}

/// Where the pins of an agent are.
fn folder(daemon: &Daemon) -> PathBuf {
    let inode = daemon.netns().inode().to_string();
    let places = [PathBuf::from("/sys/fs/bpf"), daemon.dir().join("bpf")];
    let mut folders = places.iter().map(|place| place.join("bondd").join(&inode));
    folders.find(|folder| folder.is_dir()).unwrap_or_default()
}

/// All pins of an agent.
fn pins(daemon: &Daemon) -> Vec<PathBuf> {
    let below = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
    };
    let folders = below(folder(daemon)).into_iter();
    folders.flat_map(below).collect()
}

/// As `find -delete` of the folder.
fn remove_pins(daemon: &Daemon) {
    let (folder, all) = (folder(daemon), pins(daemon));
    assert!(all.len() > 10, "{all:?}");
    for pin in &all {
        fs::remove_file(pin).expect("it is there");
    }
    for below in fs::read_dir(&folder).expect("it is there") {
        fs::remove_dir(below.expect("it is there").path()).expect("it is empty");
    }
    fs::remove_dir(&folder).expect("it is empty");
}

fn find_pin(daemon: &Daemon, name: &str) -> Option<PathBuf> {
    pins(daemon).into_iter().find(|pin| pin.ends_with(name))
}

fn pin_of(daemon: &Daemon, name: &str) -> PathBuf {
    find_pin(daemon, name).unwrap_or_else(|| panic!("there is no pin {name}"))
}

/// Takes the program of a pinned link off, as `bpftool link detach` does.
fn detach(pin: &Path) {
    let path = CString::new(pin.to_str().expect("text")).expect("no zero in it");
    let mut get = [path.as_ptr() as u64, 0];
    let link = bpf(OBJ_GET, &mut get);
    let mut detach = [link as u64, 0];
    // Another thread may have unpinned it since.
    if link >= 0 {
        bpf(LINK_DETACH, &mut detach);
        // SAFETY: the descriptor was made above and is nobody else's.
        drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(link as i32) });
    }
}

fn bpf(command: i32, attributes: &mut [u64; 2]) -> i64 {
    // SAFETY: the pointer and the length are those of a live array; the path in it outlives the call.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) }
}

/// [linux/bpf.h: enum bpf_cmd]
const OBJ_GET: i32 = 7;
const LINK_DETACH: i32 = 34;
