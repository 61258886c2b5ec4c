//! The control socket among badly behaved clients, and what `bondctl` prints.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bondd::control::client::{Client, ClientError};
use bondd_tests::control::Control;
use bondd_tests::daemon::LIMIT;
use bondd_tests::machine::Machine;
use bondd_tests::traffic::TEN_THOUSAND;
use bondd_tests::{BondAndSwitch, Daemon, Netns, wait_for};
use serde_json::{Value, json};

fn bench() -> BondAndSwitch {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    bench.host.daemon.wait_active("bond0", "eth0");
    bench
}

fn connect(daemon: &Daemon) -> Control {
    Control::connect(&daemon.socket()).expect("the daemon listens")
}

/// The daemon answers a new client at once and still does its work.
#[track_caller]
fn undisturbed(bench: &BondAndSwitch) {
    let start = Instant::now();
    let show = connect(&bench.host.daemon)
        .call(json!({"call": "show"}))
        .expect("an answer")
        .expect("no refusal");
    assert_eq!(show["bonds"][0]["name"], "bond0");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn garbage_is_answered_with_an_error_and_the_connection_stays_usable() {
    let bench = bench();
    let mut client = connect(&bench.host.daemon);
    for garbage in [
        "{",
        "[]",
        "42",
        "null",
        "{\"call\":\"nonsense\"}",
        "{\"call\":\"show\",\"extra\":1}",
        "\u{1}\u{2}",
        "{\"id\":7}",
    ] {
        client.send(format!("{garbage}\n").as_bytes()).expect("it listens");
        let answer: Value = serde_json::from_str(&client.line().expect("an answer")).expect("JSON");
        assert_eq!(answer["error"]["code"], "bad_request", "{garbage}: {answer}");
        assert!(
            answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{answer}"
        );
    }
    assert!(client.call(json!({"call": "list"})).expect("an answer").is_ok());
    undisturbed(&bench);
}

#[test]
fn bytes_that_are_not_text_end_the_connection_or_are_refused() {
    let bench = bench();
    let mut client = connect(&bench.host.daemon);
    client.send(b"\xff\xfe\x00\xc3\x28\n").expect("it listens");
    match client.line() {
        Ok(line) => assert!(line.contains("bad_request"), "{line}"),
        Err(e) => assert!(
            !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "{e}"
        ),
    }
    undisturbed(&bench);
}

#[test]
fn a_line_without_end_closes_its_connection_and_no_other() {
    let bench = bench();
    let mut client = connect(&bench.host.daemon);
    let megabyte = vec![b'x'; 1 << 20];
    // It may be closed before all of it is written.
    let _ = client.send(&megabyte);
    assert!(client.is_closed_by_peer());
    undisturbed(&bench);
}

#[test]
fn half_a_line_and_silence_hold_nobody_up() {
    let bench = bench();
    let mut half = connect(&bench.host.daemon);
    half.send(b"{\"call\":\"li").expect("it listens");
    let silent: Vec<Control> = (0..20).map(|_| connect(&bench.host.daemon)).collect();
    undisturbed(&bench);
    bench.cables[0].pull();
    bench.host.daemon.wait_active("bond0", "eth1");
    half.send(b"st\"}\n").expect("it listens still");
    assert!(half.line().expect("an answer").contains("bond0"));
    drop(silent);
    undisturbed(&bench);
}

#[test]
fn clients_that_vanish_in_the_middle_of_a_call_leave_no_trace() {
    let bench = bench();
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", bench.host.daemon.pid()))
            .unwrap()
            .count()
    };
    let before = descriptors();
    for _ in 0..200 {
        let mut client = connect(&bench.host.daemon);
        let _ = client.send(b"{\"call\":\"show\"}\n{\"call\":\"mon");
    }
    undisturbed(&bench);
    wait_for("their descriptors are closed", LIMIT, || descriptors() <= before);
}

#[test]
fn a_monitor_that_does_not_read_is_cut_and_holds_nobody_up() {
    let bench = bench();
    let mut lazy = connect(&bench.host.daemon);
    lazy.call(json!({"call": "monitor"}))
        .expect("an answer")
        .expect("no refusal");
    let mut busy = connect(&bench.host.daemon);
    for round in 0..4_000 {
        let port = ["eth0", "eth1"][round % 2];
        busy.call(json!({"call": "active", "bond": "bond0", "port": port}))
            .expect("an answer")
            .expect("no refusal");
    }
    undisturbed(&bench);
    // What was kept for it can be read, and then the stream either ends or goes on; it never stops the daemon.
    assert!(lazy.line().expect("the first event").contains("active_changed"));
    let resident = std::fs::read_to_string(format!("/proc/{}/status", bench.host.daemon.pid())).unwrap();
    let resident = resident
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap()
        .trim()
        .to_owned();
    let kib: u64 = resident.split_whitespace().next().unwrap().parse().unwrap();
    println!("resident after 4,000 unread events: {resident}");
    assert!(kib < 64 * 1024, "{resident}");
}

#[test]
fn hostile_clients_do_not_touch_the_traffic() {
    let bench = BondAndSwitch::new(Machine::alone(), "miimon=100");
    let flow = bench.flow(TEN_THOUSAND);
    for _ in 0..50 {
        let mut client = connect(&bench.host.daemon);
        let _ = client.send(&vec![b'{'; 100_000]);
    }
    flow.pass(1_000);
    let tally = flow.finish().tally();
    assert_eq!(tally.lost, 0, "{tally:?}");
    undisturbed(&bench);
}

#[test]
fn show_in_json_has_every_documented_field_and_is_what_the_socket_says() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    let shown: Value = serde_json::from_str(&daemon.ctl("--json show bond0")).expect("JSON");
    assert_eq!(shown["schema"], 1);
    let bond = &shown["bonds"][0];
    for field in BOND_FIELDS {
        assert!(bond.get(field).is_some(), "{field} is missing in {bond}");
    }
    assert_eq!(bond["ports"].as_array().map(Vec::len), Some(2));
    for port in bond["ports"].as_array().unwrap() {
        for field in PORT_FIELDS {
            assert!(port.get(field).is_some(), "{field} is missing in {port}");
        }
    }
    assert_eq!(
        (&bond["mode"], &bond["mode_number"], &bond["plane"]),
        (&json!("active-backup"), &json!(1), &json!("tc"))
    );
    assert_eq!(
        (&bond["options"]["miimon"], &bond["options"]["updelay"]),
        (&json!(100), &json!(0))
    );
    assert_eq!(
        (&bond["ports"][0]["role"], &bond["ports"][1]["role"]),
        (&json!("active"), &json!("backup"))
    );
    let answered = daemon.bond("bond0");
    for field in ["name", "mode", "active_port", "options", "mac"] {
        assert_eq!(bond[field], answered[field]);
    }
}

#[test]
fn show_and_list_for_people_name_bonds_ports_and_their_state() {
    let bench = bench();
    let shown = bench.host.daemon.ctl("show");
    for word in ["bond0", "active-backup", "eth0", "eth1", "active", "backup", "up"] {
        assert!(shown.contains(word), "{word} is not in:\n{shown}");
    }
    assert_eq!(bench.host.daemon.ctl("list").trim(), "bond0");
    let listed: Value = serde_json::from_str(&bench.host.daemon.ctl("-j list")).expect("JSON");
    assert_eq!(listed, json!(["bond0"]));
}

#[test]
fn values_go_by_name_or_number_and_dashes_are_underscores() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    daemon.ctl("set bond0 primary-reselect 2 num-unsol-na=2");
    assert_eq!(daemon.bond("bond0")["options"]["primary_reselect"], "failure");
    daemon.ctl("set bond0 primary_reselect better updelay 200 downdelay=300");
    let options = daemon.bond("bond0")["options"].clone();
    assert_eq!(
        (&options["primary_reselect"], &options["updelay"], &options["downdelay"]),
        (&json!("better"), &json!(200), &json!(300))
    );
    daemon.ctl("add bond1 mode 1 miimon 50");
    assert_eq!(daemon.bond("bond1")["mode"], "active-backup");
    daemon.ctl("del bond1");
    let log = daemon.log();
    for line in ["bond1: made, mode ", "bond1: removed"] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
}

#[test]
fn targets_are_given_whole_or_added_and_removed() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    let targets = || daemon.bond("bond0")["options"]["arp_ip_target"].clone();
    daemon.ctl("set bond0 arp_ip_target 10.77.0.2");
    daemon.ctl("set bond0 arp_ip_target +10.0.0.5,10.0.0.6");
    assert_eq!(targets(), json!(["10.77.0.2", "10.0.0.5", "10.0.0.6"]));
    daemon.ctl("set bond0 arp_ip_target=-10.77.0.2,10.0.0.6");
    assert_eq!(targets(), json!(["10.0.0.5"]));
    daemon.ctl("set bond0 arp_ip_target none");
    assert_eq!(targets(), json!([]));
    daemon.ctl("set bond0 ns_ip6_target fd00::5");
    assert_eq!(daemon.bond("bond0")["options"]["ns_ip6_target"], json!(["fd00::5"]));
}

#[test]
fn the_arp_monitor_tells_whom_it_asks_and_what_its_verdicts_rest_on() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    daemon.ctl("set bond0 arp_interval=100 arp_ip_target=10.77.0.2 arp_validate=all");
    let answers = || daemon.port("bond0", "eth0")["evidence"]["answers"].clone();
    wait_for("the target answers", LIMIT, || answers()[0]["by"] == "reply");
    let bond = daemon.bond("bond0");
    assert_eq!(
        (&bond["monitor"], &bond["options"]["miimon"], &bond["unmonitored"]),
        (&json!("arp"), &json!(0), &json!(false))
    );
    assert_eq!(
        bond["targets"],
        json!([{"target": "10.77.0.2", "monitored": true, "source": "10.77.0.1", "vlans": [], "elsewhere": null}])
    );
    let evidence = &bond["ports"][0]["evidence"];
    assert_eq!(
        (&evidence["counts"], &evidence["answers"][0]["target"]),
        (&json!("validated"), &json!("10.77.0.2"))
    );
    assert!(evidence["heard_ms_ago"].is_u64(), "{evidence}");
    let shown = daemon.ctl("show bond0");
    for words in [
        "10.77.0.2: asked from 10.77.0.1",
        "eth0: validated answers count, last heard",
    ] {
        assert!(shown.contains(words), "{words} is not in:\n{shown}");
    }
}

#[test]
fn a_port_takes_a_queue_and_gives_it_back() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    let queue = || daemon.port("bond0", "eth0")["queue_id"].clone();
    daemon.ctl("port set bond0 eth0 queue_id 2");
    assert_eq!(queue(), 2);
    daemon.ctl("port set bond0 eth0 queue-id=0");
    assert_eq!(queue(), 0);
    daemon.ctl("port set bond0 eth1 queue_id 2 prio 3");
    let port = daemon.port("bond0", "eth1");
    assert_eq!((&port["queue_id"], &port["prio"]), (&json!(2), &json!(3)));
}

#[test]
fn monitor_prints_each_change_with_its_reason_as_a_line() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    let mut command = bench.host.netns.command(bondd_tests::bins::bin("bondctl"));
    command
        .args(["-j", "monitor", "bond0"])
        .env("BONDD_RUN_DIR", daemon.dir());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("bondctl runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    // It subscribes in its own time: so the port changes until a line comes, and for as long as lines are wanted.
    let stop = AtomicBool::new(false);
    let seen: Value = thread::scope(|scope| {
        scope.spawn(|| {
            for cable in bench
                .cables
                .iter()
                .cycle()
                .take_while(|_| !stop.load(Ordering::Relaxed))
            {
                cable.pull();
                cable.plug();
            }
        });
        let wanted = lines.find_map(|line| {
            let value: Value = serde_json::from_str(&line.ok()?).ok()?;
            (value["event"]["notice"]["reason"] == "link_down").then_some(value)
        });
        stop.store(true, Ordering::Relaxed);
        wanted.expect("an event")
    });
    child.kill().and_then(|()| child.wait()).expect("bondctl ends");
    let event = &seen["event"];
    assert_eq!(event["bond"], "bond0");
    assert!(event["notice"]["from"].is_string(), "{event}");
    assert!(
        event["text"].as_str().is_some_and(|text| text.contains("eth")),
        "{event}"
    );
    assert!(event["time"].as_f64().is_some_and(|time| time > 1.6e9), "{event}");
}

#[test]
fn clients_that_watch_can_tell_a_stop_of_the_agent_from_a_crash() {
    let netns = Netns::new("watched");
    let mut daemon = Daemon::start(&netns);
    let watch = |daemon: &Daemon| Client::connect(daemon.dir()).and_then(|client| client.monitor(None));
    let mut events = watch(&daemon).expect("it answers");
    assert!(daemon.sigterm());
    assert!(events.all(|event| event.is_ok()), "it ended without a word");
    daemon.launch();
    let events = watch(&daemon).expect("it answers");
    daemon.sigkill();
    assert!(matches!(events.last(), Some(Err(ClientError::Closed { .. }))));
}

#[test]
fn help_goes_to_standard_output_and_names_every_command() {
    let bench = bench();
    let help = bench.host.daemon.ctl("--help");
    for command in ["add", "set", "del", "show", "list", "port", "active", "hash", "monitor"] {
        assert!(help.contains(command), "{command} is not in:\n{help}");
        let words: Vec<&str> = [command, "--help"].to_vec();
        assert!(bench.host.daemon.bondctl(&words).status.success(), "{command} --help");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = bench();
    let mut shell = bench.host.netns.command("sh");
    shell
        .env("BONDD_RUN_DIR", bench.host.daemon.dir())
        .env("BONDCTL", bondd_tests::bins::bin("bondctl"));
    shell.args(["-c", "{ \"$BONDCTL\" -j show; echo $? >&2; } | true"]);
    let output = shell.output().expect("sh runs");
    std::io::stdout().write_all(&output.stderr).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), "0");
}

const BOND_FIELDS: [&str; 19] = [
    "name",
    "ifindex",
    "plane",
    "mode",
    "mode_number",
    "up",
    "carrier",
    "mii_status",
    "mac",
    "mtu",
    "active_port",
    "primary",
    "monitor",
    "unmonitored",
    "unfulfilled",
    "targets",
    "options",
    "option_origins",
    "options_for_ports",
];
const PORT_FIELDS: [&str; 24] = [
    "name",
    "ifindex",
    "state",
    "link",
    "usable",
    "sends",
    "role",
    "carrier",
    "speed_mbps",
    "duplex",
    "mac",
    "permanent_mac",
    "link_failures",
    "prio",
    "queue_id",
    "evidence",
    "tx_frames",
    "tx_bytes",
    "rx_frames",
    "rx_bytes",
    "rx_dropped",
    "unmonitored",
    "attach_error",
    "next_attempt_ms",
];
