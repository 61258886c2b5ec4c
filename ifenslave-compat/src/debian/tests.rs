//! The rows of the reference's tables for Debian's shell command, in a simulated system.

use super::*;
use crate::fake::{self, Agent, Fake, Ran};

fn run_in(world: Fake, line: &str) -> Ran {
    fake::run_in(world, line, |words, world, console| {
        plan(words, console).map_or_else(|code| code, |task| perform(&task, world, console))
    })
}

fn run(line: &str) -> Ran {
    run_in(Fake::new(), line)
}

#[test]
fn options_are_obeyed_from_left_to_right() {
    for (line, text) in [
        ("-u", DEBIAN_USAGE),
        ("--usage bond0 eth0", DEBIAN_USAGE),
        ("-h", DEBIAN_HELP),
        ("-d -v --help", DEBIAN_HELP),
        ("-V", DEBIAN_VERSION),
        ("-c -d -f --version -u", DEBIAN_VERSION),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, text, ""), "{line}");
    }
    assert_eq!(DEBIAN_USAGE.lines().count(), 1);
    for line in ["-a", "--all-interfaces", "-v -d -a bond0 eth0", "-a -u"] {
        let ran = run_in(Fake::agent(Agent::Absent), line);
        assert_eq!((ran.code, ran.log), (0, vec!["ip link show".to_owned()]), "{line}");
    }
}

#[test]
fn failures_end_it_with_their_code_before_the_rest_is_tried() {
    for (line, code, wanted, log) in [
        ("", 1, "not enough arguments", ""),
        ("bond0", 1, "not enough arguments", ""),
        ("-d bond0", 1, "not enough arguments", ""),
        ("-- -u", 1, "not enough arguments", ""),
        // Any other word is a bond.
        ("-dv bond0 eth2", 1, "-dv: no such interface", ""),
        ("--verb bond0 eth2", 1, "--verb: no such interface", ""),
        ("-- -d bond0 eth2", 1, "-d: no such interface", ""),
        ("bond0 -d eth2", 1, "-d: no such interface", ""),
        ("nosuch eth0", 1, "nosuch: no such interface", ""),
        ("eth0 eth1", 1, "eth0 is not a bond of bondd", ""),
        ("bond0 nosuch eth0", 1, "nosuch: no such interface", ""),
        ("bond0 lo eth0", 1, "lo is not an Ethernet interface (type 772)", ""),
        ("-d bond0 nosuch eth2", 1, "nosuch: no such interface", ""),
        ("-c bond0 eth2 eth0", 1, "only one port can be active", ""),
        (
            "bond0 eth1 nosuch eth0",
            1,
            "nosuch: no such interface",
            "eth1 flags 0, bond0 attach eth1",
        ),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.log.join(", ").as_str()), (code, log), "{line}: {ran:?}");
        assert!(ran.err.contains(wanted), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    }
}

#[test]
fn what_is_done_is_done_in_order_also_to_a_bond_that_is_down() {
    for (line, log) in [
        ("bond0 eth1", "eth1 flags 0, bond0 attach eth1"),
        ("bond1 eth1", "eth1 flags 0, bond1 attach eth1"),
        ("infi0 eth1", "eth1 flags 0, infi0 attach eth1"),
        ("-f bond0 lo", "lo flags 8, bond0 attach lo"),
        ("-- bond0 eth1", "eth1 flags 0, bond0 attach eth1"),
        ("-d bond0 eth2", "bond0 detach eth2"),
        ("--detach -f bond0 eth2", "bond0 detach eth2"),
        ("-d -d bond0 eth2", "bond0 detach eth2"),
        ("-c bond0 eth2", "bond0 active eth2"),
        // Changing wins over detaching, and does not ask whether it is a port.
        ("-d -c bond0 eth2", "bond0 active eth2"),
        ("-c bond0 eth0", "bond0 active eth0"),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.log.join(", ").as_str()), (0, log), "{line}: {ran:?}");
    }
}

#[test]
fn attached_and_not_attached_are_said_and_are_no_failure() {
    for (line, wanted, log) in [
        (
            "bond0 eth2 eth1",
            "eth2 is a port of bond0 already",
            "eth1 flags 0, bond0 attach eth1",
        ),
        ("-d bond0 eth0 eth2", "eth0 is not a port of bond0", "bond0 detach eth2"),
        ("-d bond1 eth2", "eth2 is not a port of bond1", ""),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.log.join(", ").as_str()), (0, log), "{line}: {ran:?}");
        assert_eq!(ran.err, format!("ifenslave: {wanted}\n"), "{line}");
    }
}

#[test]
fn an_address_is_kept_and_warned_about() {
    let ran = run("bond0 eth0");
    assert_eq!(
        (ran.code, ran.log.join(", ").as_str()),
        (0, "eth0 flags 0, bond0 attach eth0")
    );
    assert!(ran.err.contains("eth0 keeps its address 198.51.100.7"), "{ran:?}");
}

#[test]
fn a_refusal_ends_it_and_leaves_the_interface_as_it_was() {
    let ran = run_in(Fake::agent(Agent::Refuses), "bond0 eth0 eth1");
    assert_eq!(
        (ran.code, ran.log.join(", ").as_str()),
        (1, "eth0 flags 0, eth0 flags 1")
    );
    assert_eq!(ran.err, "ifenslave: eth0 cannot be attached to bond0: not today\n");
    for (line, wanted) in [
        ("-d bond0 eth2", "eth2 cannot be detached from bond0: not today"),
        (
            "-c bond0 eth2",
            "eth2 cannot become the active port of bond0: not today",
        ),
    ] {
        let ran = run_in(Fake::agent(Agent::Refuses), line);
        assert_eq!((ran.code, ran.err), (1, format!("ifenslave: {wanted}\n")), "{line}");
    }
}

#[test]
fn an_interface_that_cannot_be_set_down_gives_the_status_of_ip() {
    let world = Fake {
        stubborn: vec!["eth0"],
        ..Fake::new()
    };
    let ran = run_in(world, "bond0 eth0 eth1");
    assert_eq!((ran.code, ran.log.len()), (2, 0), "{ran:?}");
    assert!(ran.err.contains("eth0 cannot be set down: "), "{ran:?}");
}

#[test]
fn no_agent_is_1_and_its_socket_is_named() {
    for line in ["bond0 eth0", "-d bond0 eth2", "-c bond0 eth2"] {
        let ran = run_in(Fake::agent(Agent::Absent), line);
        assert_eq!((ran.code, ran.log.len()), (1, 0), "{line}: {ran:?}");
        assert!(
            ran.err.contains("no bondd answers at /run/bondd/control.sock"),
            "{line}: {ran:?}"
        );
    }
}

#[test]
fn verbose_says_what_is_done_to_whom() {
    for (line, wanted) in [
        ("-v bond0 eth1", "attaching eth1 to bond0\n"),
        ("-v -d bond0 eth2", "detaching eth2 from bond0\n"),
        ("-c --verbose bond0 eth2", "making eth2 the active port of bond0\n"),
    ] {
        let ran = run(line);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", wanted), "{line}");
    }
}

#[test]
fn warnings_of_the_agent_go_to_standard_error_and_the_status_stays_0() {
    for line in ["bond0 eth1", "-d bond0 eth2", "-c bond0 eth2"] {
        let world = Fake {
            warnings: vec!["bond0: not done: cannot x: y"],
            ..Fake::new()
        };
        let ran = run_in(world, line);
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{line}");
        assert_eq!(ran.err, "ifenslave: warning: bond0: not done: cannot x: y\n", "{line}");
    }
}
