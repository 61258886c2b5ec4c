//! A start with many bonds: those that are there fail over while the others come.

use std::time::Duration;

use bondd_tests::daemon::refused;
use bondd_tests::machine::Machine;
use bondd_tests::netns::Hands;
use bondd_tests::{Cable, Daemon, Netns, Settings, until, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BONDS: usize = 40;

/// A client waits 10 s until they are made, on a busy machine, too.
const FEW: usize = 12;

/// Longest wait for one thing.
const LIMIT: Duration = Duration::from_secs(20);

/// What the log says after this place.
fn since(daemon: &Daemon, place: usize) -> String {
    daemon.log().split_off(place)
}

/// Waits until the log says this after that place.
#[track_caller]
fn wait_for_line(daemon: &Daemon, place: usize, line: &str) {
    let said = until(LIMIT, || since(daemon, place).contains(line).then_some(()));
    assert!(said.is_some(), "the log does not say {line:?}");
}

/// Whether the log after a place says one line before another.
#[track_caller]
fn assert_order(daemon: &Daemon, place: usize, first: &str, then: &str) {
    wait_for_line(daemon, place, "ready at ");
    let log = since(daemon, place);
    let at = |line: &str| log.find(line).unwrap_or_else(|| panic!("{line:?} is not in the log"));
    assert!(at(first) < at(then), "{then:?} before {first:?}");
}

/// Does this while the agent does nothing, so that it is done before the agent's next step.
fn meanwhile(daemon: &Daemon, act: impl FnOnce()) {
    let send = |signal| kill(Pid::from_raw(daemon.pid() as i32), signal).unwrap();
    send(Signal::SIGSTOP);
    act();
    send(Signal::SIGCONT);
}

/// Two cables a bond, whose ends have the same name in both namespaces: `a0` and `b0` for `bond0`.
fn make_cables(near: &Netns, far: &Netns) {
    let ports = || (0..BONDS).flat_map(|bond| [format!("a{bond}"), format!("b{bond}")]);
    let cable = |(number, port): (usize, String)| {
        // Ends with the same index would look like physical devices, see `Cable::create`.
        let index = 1000 + number;
        format!(
            "link add {port} up index {index} type veth peer name {port} index {} netns {}\n",
            index + 1,
            far.name()
        )
    };
    near.batch(&ports().enumerate().map(cable).collect::<String>());
    far.batch(&ports().map(|port| format!("link set {port} up\n")).collect::<String>());
}

#[test]
fn a_bond_fails_over_while_others_are_made_and_while_others_are_adopted() {
    let _machine = Machine::shared();
    let (near, far) = (Netns::new("start"), Netns::new("far"));
    make_cables(&near, &far);
    let config = (0..BONDS).map(|bond| {
        format!("alias bond{bond} bonding\noptions bond{bond} mode=active-backup miimon=100 slaves=a{bond},b{bond}\n")
    });
    let mut daemon = Daemon::prepare(&near, Settings::config(&config.collect::<String>()));
    let mut hands = Hands::new(&near);
    let mut far_hands = Hands::new(&far);
    let last = format!("bond{}", BONDS - 1);

    daemon.spawn();
    wait_for_line(&daemon, 0, "bond0: made");
    hands.tell("link set bond0 up");
    wait_for_line(&daemon, 0, "bond0: active port a0");
    wait_for_line(&daemon, 0, "bond0: b0");
    meanwhile(&daemon, || far.ip("link set a0 down").truncate(0));
    assert_order(
        &daemon,
        0,
        "bond0: active port b0 instead of a0",
        &format!("{last}: made"),
    );
    let all = daemon.show();
    assert_eq!(all["bonds"].as_array().map(Vec::len), Some(BONDS));
    assert_eq!(all["waiting"].as_array().map(Vec::len), Some(0));

    far_hands.tell("link set a0 up");
    daemon.wait_link("bond0", "a0", "up");
    let place = daemon.log().len();
    daemon.sigkill();
    daemon.spawn();
    wait_for_line(&daemon, place, "bond0: adopted");
    meanwhile(&daemon, || far.ip("link set b0 down").truncate(0));
    assert_order(
        &daemon,
        place,
        "bond0: active port a0 instead of b0",
        &format!("{last}: adopted"),
    );
    wait_for("all are there", LIMIT, || {
        daemon.show()["bonds"].as_array().map(Vec::len) == Some(BONDS)
    });
    assert!(daemon.sigterm());
}

#[test]
fn a_stop_is_obeyed_before_all_bonds_are_made_and_a_change_waits_for_them() {
    let host = Netns::new("stop");
    let config = (0..FEW).map(|bond| format!("alias bond{bond} bonding\noptions bond{bond} mode=1\n"));
    let mut daemon = Daemon::prepare(&host, Settings::config(&config.collect::<String>()));
    let last = format!("bond{}: made", FEW - 1);
    daemon.spawn();
    wait_for_line(&daemon, 0, "bond0: made");
    assert!(daemon.sigterm());
    let log = daemon.log();
    assert!(!log.contains("ready at ") && !log.contains(&last), "{log}");

    let place = log.len();
    daemon.spawn();
    wait_for_line(&daemon, place, "bond0: adopted");
    let line = format!("set bond{} miimon=70", FEW - 1);
    daemon.ctl(&line);
    let log = since(&daemon, place);
    assert!(log.contains("ready at ") && log.contains(&last), "{log}");
    assert_eq!(daemon.bond(&format!("bond{}", FEW - 1))["options"]["miimon"], 70);
}

/// The names of the bonds that could not be made, each with the reason.
fn unmade(daemon: &Daemon) -> Vec<(String, String)> {
    let all = daemon.show();
    let waiting = all["waiting"].as_array().expect("an array");
    let of = |bond: &serde_json::Value, field: &str| bond[field].as_str().expect("a text").to_owned();
    assert!(waiting.iter().all(|bond| bond["unmade"] == true), "{all}");
    waiting.iter().map(|bond| (of(bond, "name"), of(bond, "why"))).collect()
}

#[test]
fn a_bond_whose_name_is_taken_is_told_until_it_can_be_made_while_all_others_work() {
    let _machine = Machine::shared();
    let (near, far) = (Netns::new("taken"), Netns::new("far"));
    let cables = ["p0", "p1", "p2"].map(|port| Cable::new(&near, port, &far, port));
    near.ip("link add bond1 type veth peer name other");
    let config = ["p0", "p1", "p2"].iter().enumerate().map(|(bond, port)| {
        format!("alias bond{bond} bonding\noptions bond{bond} mode=active-backup miimon=100 slaves={port}\n")
    });
    let daemon = Daemon::start_with(&near, Settings::config(&config.collect::<String>()));
    let carries = |bond: &str, port: &str| {
        near.ip(&format!("link set {bond} up"));
        daemon.wait_active(bond, port);
    };
    carries("bond0", "p0");
    carries("bond2", "p2");

    let why = "bond1 is the name of another device already";
    assert_eq!(unmade(&daemon), [("bond1".to_owned(), why.to_owned())]);
    let shown = daemon.ctl("show");
    let line = shown
        .lines()
        .find(|line| line.starts_with("bond1: "))
        .expect("it is shown");
    assert!(
        line.starts_with("bond1: NOT MADE, for ") && line.contains(why),
        "{line}"
    );
    let (status, sentence) = refused(&daemon.bondctl(&["show", "bond1"]));
    assert_eq!(status, 1, "{sentence}");
    assert!(
        sentence.contains(&format!("bond1 is not made yet, bondd tries again: {why}")),
        "{sentence}"
    );
    for words in [&["health"][..], &["health", "bond1"]] {
        let health = daemon.bondctl(words);
        let line = String::from_utf8_lossy(&health.stdout);
        assert_eq!(health.status.code(), Some(2), "{line}");
        let reason = format!("bond1 is not there, because it cannot be made ({why})");
        assert!(line.contains(&reason), "{line}");
    }
    assert_eq!(
        daemon.log().matches("bond1: cannot be made").count(),
        1,
        "told in one line"
    );

    near.ip("link del bond1");
    wait_for("it is made", MADE, || unmade(&daemon).is_empty());
    carries("bond1", "p1");
    cables[0].pull();
    wait_for("bond0 notices", LIMIT, || daemon.active("bond0").is_empty());
}

#[test]
fn bonds_without_descriptors_are_told_and_made_when_others_are_deleted() {
    let _machine = Machine::shared();
    let host = Netns::new("descriptors");
    let config = (0..BONDS).map(|bond| format!("alias bond{bond} bonding\noptions bond{bond} mode=1\n"));
    let mut daemon = Daemon::prepare(
        &host,
        Settings {
            config: Some(config.collect()),
            ..Settings::args(&["--plane", "tc"])
        },
    );
    daemon.limit_descriptors("48:200");
    daemon.launch();
    let left = unmade(&daemon);
    assert!((1..BONDS).contains(&left.len()), "{left:?}");
    assert!(left.iter().all(|(_, why)| why.contains("RLIMIT_NOFILE")), "{left:?}");
    assert!(daemon.try_show().is_some(), "a client is answered");

    // A client that deletes one of them ends the attempts.
    let (last, _) = left.last().expect("there is one");
    daemon.ctl(&format!("del {last}"));
    daemon.ctl("del bond0");
    wait_for("the room is used", MADE, || unmade(&daemon).len() + 2 <= left.len());
    let health = daemon.bondctl(&["health"]);
    let line = String::from_utf8_lossy(&health.stdout);
    assert!(health.status.code() == Some(2) && !line.contains(last), "{line}");
}

/// Longest wait for an attempt: the pause grows while a test looks on.
const MADE: Duration = Duration::from_secs(70);
