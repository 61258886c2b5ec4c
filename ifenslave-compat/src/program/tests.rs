//! The rows of the reference's tables for 1.1.0, in a simulated system.

use super::*;
use crate::fake::{self, Agent, Fake, Ran};

fn run_in(world: Fake, line: &str) -> Ran {
    fake::run_in(world, line, |words, world, console| {
        plan(words, false, console).map_or_else(|code| code, |task| perform(&task, world, console))
    })
}

fn run(line: &str) -> Ran {
    run_in(Fake::new(), line)
}

#[test]
fn texts_about_itself_go_to_standard_output_and_end_with_0() {
    for (line, wanted) in [
        ("-V", BANNER.to_owned()),
        ("--version bond0 eth0", BANNER.to_owned()),
        ("-u", USAGE.to_owned()),
        ("-h", USAGE.to_owned() + HELP),
        ("--he", USAGE.to_owned() + HELP),
        ("-v -u", BANNER.to_owned() + USAGE),
        ("-vvV", BANNER.to_owned()),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.out, ran.err.as_str()), (0, wanted, ""), "{line}");
    }
    assert_eq!(BANNER.lines().count(), 5);
    assert!(BANNER.starts_with("ifenslave.c:v1.1.0 ("));
    assert_eq!(USAGE.lines().count(), 4);
}

#[test]
fn wrong_usage_is_2_with_the_usage_on_standard_error() {
    for line in [
        "",
        "-x",
        "-?",
        "-r bond0 eth0",
        "--howto",
        "--ver",
        "-f",
        "-v", // no operand, or no option of 1.1.0
        "-d -d bond0 eth2",
        "-dd bond0 eth2",
        "-V -u",
        "-f -d bond0 eth2",
        "-cf bond0 eth2",
        "-h -h", // more than one
        "-a bond0",
        "-a -v bond0",
        "-d",
        "-c",
        "-d bond0",
        "-c bond0", // operands too many or too few
    ] {
        let ran = run(line);
        assert_eq!(ran.code, 2, "{line:?}: {ran:?}");
        assert!(ran.err.ends_with(USAGE), "{line:?}: {ran:?}");
        assert!(ran.log.is_empty(), "{line:?}: {ran:?}");
    }
    for (line, banner) in [
        ("-v", BANNER),
        ("-vf", BANNER),
        ("-v -d -d bond0 eth2", ""),
        ("-v -x", ""),
        ("-V -u", ""),
    ] {
        assert_eq!(
            run(line).out,
            banner,
            "{line}: the banner comes after the first two tests"
        );
    }
    assert_eq!(run("-d nosuch").code, 1, "the handshake comes before the usage");
}

#[test]
fn all_shows_every_interface_with_an_address_and_needs_no_agent() {
    let ran = run_in(Fake::agent(Agent::Absent), "-a");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let shown: Vec<_> = ran
        .out
        .lines()
        .filter_map(|l| l.strip_prefix("The result of SIOCGIFFLAGS on "))
        .collect();
    assert_eq!(shown, ["bond0 is 1001.", "eth0 is 1.", "lo is 9."]);
}

#[test]
fn one_name_is_shown_with_0_whether_it_is_a_bond_has_an_address_or_not() {
    let ran = run("bond0");
    let wanted = "The result of SIOCGIFFLAGS on bond0 is 1001.\nThe result of SIOCGIFADDR is 192.0.2.1.\n\
                  The result of SIOCGIFHWADDR is type 1  02:00:00:00:00:01.\n";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, wanted, ""));
    let ran = run("eth1");
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("SIOCGIFADDR is none.\n"), "{ran:?}");
    assert_eq!(run("nosuch").code, 1);
}

#[test]
fn enslaving_sets_down_attaches_and_clears_in_the_order_given() {
    let ran = run("bond0 eth0 eth1");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    let wanted = [
        "eth0 flags 0",
        "bond0 attach eth0",
        "eth0 clear",
        "eth1 flags 0",
        "bond0 attach eth1",
        "eth1 clear",
    ];
    assert_eq!(ran.log, wanted);
    assert_eq!(run("-f infi0 eth0").code, 0);
    assert_eq!(run("eth0 bond0").code, 1);
}

#[test]
fn a_bond_that_cannot_take_ports_is_1_before_anything_is_touched() {
    for (line, wanted) in [
        (
            "nosuch eth0",
            "Master 'nosuch': Error: there is no such interface. Aborting",
        ),
        ("eth1 eth0", "is not a master"),
        ("lo eth0", "is not a master"),
        ("-d eth0 eth2", "is not a master"),
        ("-c eth0 eth2", "is not a master"),
        ("infi0 eth0", "is not ethernet-like"),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.log.len()), (1, 0), "{line}: {ran:?}");
        assert!(ran.err.contains(wanted), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    }
}

#[test]
fn a_bond_that_is_down_takes_ports_and_the_user_is_told() {
    let ran = run("bond1 eth0");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.log.contains(&"bond1 attach eth0".to_owned()), "{ran:?}");
    assert!(ran.err.contains("Master 'bond1': Warning: it is not up"), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
}

#[test]
fn no_agent_is_1_and_its_socket_is_named() {
    for line in ["bond0", "bond0 eth0", "-d bond0 eth2", "-c bond0 eth2"] {
        let ran = run_in(Fake::agent(Agent::Absent), line);
        assert_eq!((ran.code, ran.log.len()), (1, 0), "{line}: {ran:?}");
        assert!(
            ran.err.contains("no bondd answers at /run/bondd/control.sock"),
            "{line}: {ran:?}"
        );
    }
}

#[test]
fn a_port_that_cannot_be_taken_is_skipped_and_the_last_failure_decides() {
    for (line, code, log) in [
        (
            "bond0 nosuch eth1",
            19,
            &["eth1 flags 0", "bond0 attach eth1", "eth1 clear"][..],
        ),
        ("bond0 eth2", 1, &[]),
        ("bond0 nosuch eth2", 1, &[]),
        ("bond0 eth2 nosuch", 19, &[]),
        (
            "bond0 eth1 eth1",
            1,
            &["eth1 flags 0", "bond0 attach eth1", "eth1 clear"],
        ),
        ("bond0 metric 3", 19, &[]),
        ("bond0 lo", 1, &[]),
    ] {
        let ran = run(line);
        assert_eq!(
            (ran.code, &ran.log[..]),
            (code, log.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice()),
            "{line}: {ran:?}"
        );
    }
}

#[test]
fn a_bond_whose_settings_cannot_be_read_ends_it_with_the_errno() {
    for line in ["bond0 eth0", "-d bond0 eth2", "-c bond0 eth2"] {
        let world = Fake::new();
        world.devices.borrow_mut().remove("bond0");
        let ran = run_in(world, line);
        assert_eq!((ran.code, ran.log.len()), (19, 0), "{line}: {ran:?}");
        assert!(
            ran.err.starts_with("Master 'bond0': Error: getting settings failed: "),
            "{line}: {ran:?}"
        );
        assert!(ran.err.ends_with(" Aborting\n"), "{line}: {ran:?}");
    }
}

#[test]
fn each_failure_of_a_slave_says_what_was_done_and_whether_it_goes_on() {
    let unreadable = |what: &str, then: &str| {
        let why = io::Error::from_raw_os_error(libc::ENODEV);
        vec![format!("Slave 'nosuch': Error: getting {what} failed: {why}. {then}")]
    };
    let refused = |slave: &str, why: &str, what: &str| {
        vec![
            format!("Illegal operation: the specified slave interface '{slave}' is {why}"),
            format!("Master 'bond0', Slave '{slave}': Error: {what} failed"),
        ]
    };
    for (line, wanted) in [
        ("bond0 nosuch", unreadable("settings", "Skipping")),
        ("-d bond0 nosuch", unreadable("flags", "Skipping")),
        ("-c bond0 nosuch", unreadable("flags", "Aborting")),
        ("bond0 eth2", refused("eth2", "already a slave", "enslave")),
        ("bond0 lo", refused("lo", "a loopback interface", "enslave")),
        ("-d bond0 eth0", refused("eth0", "not a slave", "release")),
        ("-c bond0 eth0", refused("eth0", "not a slave", "change active")),
    ] {
        let ran = run(line);
        assert_eq!(ran.err.lines().collect::<Vec<_>>(), wanted, "{line}");
    }
}

#[test]
fn a_slave_of_another_driver_is_a_slave_too() {
    let world = Fake::new();
    world.devices.borrow_mut().get_mut("eth1").unwrap().settings.flags |= SLAVE;
    let ran = run_in(world, "bond0 eth1");
    assert_eq!((ran.code, ran.log.len()), (1, 0), "{ran:?}");
}

#[test]
fn a_refusal_leaves_the_interface_as_it_was() {
    let ran = run_in(Fake::agent(Agent::Refuses), "bond0 eth0 eth1");
    assert_eq!(ran.code, 1);
    assert_eq!(ran.log, ["eth0 flags 0", "eth0 flags 1", "eth1 flags 0"]);
    assert!(
        ran.err
            .contains("Error: not today\nMaster 'bond0', Slave 'eth0': Error: enslave failed\n"),
        "{ran:?}"
    );
}

#[test]
fn settings_that_cannot_be_changed_are_255() {
    let ran = run_in(
        Fake {
            stubborn: vec!["eth0"],
            ..Fake::new()
        },
        "bond0 eth0 eth1",
    );
    assert_eq!(ran.code, 255, "the failure of the first is not made good by the second");
    assert_eq!(ran.log, ["eth1 flags 0", "bond0 attach eth1", "eth1 clear"]);
    assert!(
        ran.err.contains("'eth0': Error: bringing interface down failed: "),
        "{ran:?}"
    );
    let ran = run_in(
        Fake {
            sticky: vec!["eth0"],
            ..Fake::new()
        },
        "bond0 eth0",
    );
    assert_eq!(ran.code, 255);
    assert_eq!(
        ran.log,
        ["eth0 flags 0", "bond0 attach eth0", "bond0 detach eth0", "eth0 flags 1"]
    );
}

#[test]
fn detaching_tries_every_slave() {
    let ran = run("-d bond0 eth2");
    assert_eq!(
        (ran.code, ran.log, ran.err.as_str()),
        (0, vec!["bond0 detach eth2".to_owned()], "")
    );
    for (line, code) in [
        ("-d bond0 nosuch eth2", 255),
        ("-d bond0 eth0 eth2", 1),
        ("-d bond0 nosuch eth0 eth2", 1),
        ("--detach bond0 eth0 nosuch eth2", 255),
    ] {
        let ran = run(line);
        assert_eq!(
            (ran.code, ran.log),
            (code, vec!["bond0 detach eth2".to_owned()]),
            "{line}"
        );
    }
    assert!(run("-d bond0 eth0").err.contains("is not a slave"));
    assert_eq!(run_in(Fake::agent(Agent::Refuses), "-d bond0 eth2").code, 1);
}

#[test]
fn only_the_first_slave_becomes_active_and_the_rest_is_mentioned() {
    let ran = run("-c bond0 eth2");
    assert_eq!(
        (ran.code, ran.log, ran.err.as_str()),
        (0, vec!["bond0 active eth2".to_owned()], "")
    );
    let ran = run("-c bond0 eth2 eth0");
    assert_eq!((ran.code, ran.log), (0, vec!["bond0 active eth2".to_owned()]));
    assert!(ran.err.contains("ignored: eth0"));
    for (line, code) in [
        ("-c bond0 nosuch", 255),
        ("-c bond0 eth0", 1),
        ("-c bond0 eth0 eth2", 1),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.log.len()), (code, 0), "{line}");
    }
    assert_eq!(run_in(Fake::agent(Agent::Refuses), "-c bond0 eth2").code, 1);
}

#[test]
fn a_user_who_may_not_is_told_with_the_codes_that_the_kernel_used_to_cause() {
    for (line, code) in [
        ("bond0 eth0", 255),
        ("-d bond0 eth2", 1),
        ("-c bond0 eth2", 1),
        ("bond0", 0),
        ("nosuch", 1),
    ] {
        let ran = run_in(Fake::agent(Agent::Denies), line);
        assert_eq!((ran.code, ran.log.len()), (code, 0), "{line}: {ran:?}");
    }
}

#[test]
fn verbose_says_every_step_on_standard_error() {
    let ran = run("-v bond0 eth0");
    assert_eq!((ran.code, ran.out.as_str()), (0, BANNER));
    let wanted = [
        "ABI version 2",
        "Master 'bond0': hardware address 02:00:00:00:00:01, type 1",
        "Slave 'eth0': flags set to 0000",
        "Slave 'eth0': MTU set to 1400",
        "Slave 'eth0': hardware address set to 02:00:00:00:00:01",
        "Slave 'eth0': address cleared",
        "Master 'bond0', Slave 'eth0': enslaved",
    ];
    assert_eq!(ran.err.lines().collect::<Vec<_>>(), wanted);
    assert!(run("-dv bond0 eth2").err.contains("Slave 'eth2': flags 0001\n"));
}

#[test]
fn warnings_of_the_agent_go_to_standard_error_and_the_status_stays_0() {
    let warnings = ["bond0: eth0: its driver reports no link", "bond0x: not its own"];
    for (line, changed) in [
        ("bond0 eth0", "bond0 attach eth0"),
        ("-d bond0 eth2", "bond0 detach eth2"),
        ("-c bond0 eth2", "bond0 active eth2"),
    ] {
        let world = Fake {
            warnings: warnings.to_vec(),
            ..Fake::new()
        };
        let ran = run_in(world, line);
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{line}");
        assert!(ran.log.iter().any(|done| done == changed), "{line}: {ran:?}");
        let wanted = "Master 'bond0': Warning: eth0: its driver reports no link\n\
                      Master 'bond0': Warning: bond0x: not its own\n";
        assert_eq!(ran.err, wanted, "{line}");
    }
}
