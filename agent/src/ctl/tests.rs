//! Commands against a real server on a socket of its own, in a thread that plays the agent.

use std::fs;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use bond_modes::Notice;
use mio::{Events, Poll, Token, Waker};
use serde_json::{Value, json};

use super::*;
use crate::control::SOCKET;
use crate::control::client::ANSWER_TIMEOUT;
use crate::control::proto::{BondEvent, ControlError, ErrorCode, EventLine};
use crate::control::server::Server;

/// Answers like an agent that has bond0 with port eth0; ends after two events.
struct Agent {
    dir: PathBuf,
    waker: Waker,
    thread: Option<JoinHandle<Vec<Call>>>,
}

impl Agent {
    fn start(name: &str) -> Agent {
        let dir = empty_dir(name);
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let mut server = Server::bind(&dir.join(SOCKET), poll.registry(), 1).unwrap();
        let thread = thread::spawn(move || {
            let mut asked = Vec::new();
            let mut events = Events::with_capacity(16);
            loop {
                poll.poll(&mut events, None).unwrap();
                for event in &events {
                    if !server.owns(event.token()) {
                        return asked;
                    }
                    server.ready(event.token());
                }
                while server.has_work() {
                    server.converse(poll.registry());
                    let Some(request) = server.next_change().or_else(|| server.next_read()) else {
                        continue;
                    };
                    server.answer(request.client, &request.id, answer(&request.call));
                    asked.push(request.call.clone());
                    if let Call::Monitor { bond } = request.call {
                        let is_killed = bond.as_deref() == Some("bond9");
                        server.subscribe(request.client, bond);
                        server.publish(&event("eth0: link down"));
                        server.publish(&event("active port is eth1"));
                        if !is_killed {
                            server.stopping();
                        }
                        return asked;
                    }
                }
            }
        });
        Agent {
            dir,
            waker,
            thread: Some(thread),
        }
    }

    /// Runs a command; its outcome, standard output and standard error.
    fn run(&self, words: &[&str]) -> (Result<(), Failure>, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = run(&cli(&self.dir, words), &mut out, &mut err);
        (
            outcome,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    /// Ends the agent and returns the requests that it got.
    fn asked(mut self) -> Vec<Call> {
        self.waker.wake().unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.waker.wake();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn empty_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("bondctl-{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn cli(dir: &std::path::Path, words: &[&str]) -> Cli {
    let run_dir = ["bondctl", "--run-dir", dir.to_str().unwrap()];
    Cli::try_parse_from(run_dir.iter().chain(words)).unwrap()
}

fn answer(call: &Call) -> Result<Value, ControlError> {
    let refuse = |code, message: &str| Err(ControlError::new(code, message));
    match call {
        Call::Show { bond: None } => Ok(json!({"schema":1,"bonds":[],"from the future":true})),
        Call::Show { bond: Some(_) } => refuse(ErrorCode::NoSuchBond, "no bond bond9"),
        Call::List {} => Ok(json!(["bond0", "bond1"])),
        Call::Add { bond, .. } if bond == "bond4" => refuse(ErrorCode::NameTaken, "bond4: taken"),
        Call::Set { bond, .. } if bond == "bond5" => Ok(json!({"warnings":["bond5: not done: cannot x: y"]})),
        Call::PortAttach { port, .. } if port != "eth0" => refuse(ErrorCode::NoSuchDevice, &format!("no {port}")),
        _ => Ok(json!({})),
    }
}

fn event(text: &str) -> EventLine {
    let notice = Notice::warning(bond_modes::Warning::Unmonitored);
    EventLine {
        event: BondEvent {
            time: 1.5,
            bond: "bond0".to_owned(),
            text: text.to_owned(),
            notice,
        },
    }
}

#[test]
fn what_the_agent_warns_of_is_printed_and_is_no_failure() {
    let agent = Agent::start("warned");
    let (_, out, err) = agent.run(&["set", "bond5", "miimon=50"]);
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("", "bondctl: warning: bond5: not done: cannot x: y\n")
    );
}

#[test]
fn every_command_makes_its_call() {
    let agent = Agent::start("calls");
    for words in [
        &["add", "bond0", "mode", "active-backup", "fail-over-mac=1"][..],
        &["set", "bond0", "miimon=50"],
        &["port", "set", "bond0", "eth0", "prio", "-5"],
        &["port", "del", "bond0", "eth0", "eth1"],
        &["active", "bond0", "eth0"],
        &["active", "bond0", "none"],
        &["del", "bond0"],
    ] {
        let (outcome, out, err) = agent.run(words);
        assert!(outcome.is_ok(), "{words:?}: {outcome:?}");
        assert_eq!(out + &err, "", "{words:?}");
    }
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let (bond, eth0) = (|| "bond0".to_owned(), || "eth0".to_owned());
    let wanted = [
        Call::Add {
            bond: bond(),
            options: pairs(&[("mode", "active-backup"), ("fail_over_mac", "1")]),
        },
        Call::Set {
            bond: bond(),
            options: pairs(&[("miimon", "50")]),
        },
        Call::PortSet {
            bond: bond(),
            port: eth0(),
            options: pairs(&[("prio", "-5")]),
        },
        Call::PortDetach {
            bond: bond(),
            port: eth0(),
        },
        Call::PortDetach {
            bond: bond(),
            port: "eth1".to_owned(),
        },
        Call::Active {
            bond: bond(),
            port: Some(eth0()),
        },
        Call::Active {
            bond: bond(),
            port: None,
        },
        Call::Del { bond: bond() },
    ];
    assert_eq!(agent.asked(), wanted);
}

fn module(words: &str) -> Vec<&str> {
    ["modprobe"].into_iter().chain(words.split_whitespace()).collect()
}

fn add(bond: &str, options: &[(&str, &str)]) -> Call {
    Call::Add {
        bond: bond.to_owned(),
        options: options
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

#[test]
fn module_parameters_make_the_bonds_that_are_missing_and_the_last_of_a_name_counts() {
    let agent = Agent::start("module");
    for (words, said) in [
        (
            "max_bonds=0 mode=0 max-bonds=4 mode=1 fail-over-mac=1",
            "bondctl: bond0 is there already and keeps its options\n\
             bondctl: bond1 is there already and keeps its options\n",
        ),
        ("", ""),
        (
            "max_bonds=0",
            "bondctl: max_bonds=0 makes no bond; if a file of modprobe.d says so, max_bonds=1 on the command line makes one\n",
        ),
    ] {
        let (outcome, out, err) = agent.run(&module(words));
        assert!(outcome.is_ok(), "{words}: {outcome:?}");
        assert_eq!((out.as_str(), err.as_str()), ("", said), "{words}");
    }
    let options = [("mode", "active-backup"), ("fail_over_mac", "1")];
    let wanted = [
        Call::List {},
        add("bond2", &options),
        add("bond3", &options),
        Call::List {},
        Call::List {},
    ];
    assert_eq!(agent.asked(), wanted);
}

#[test]
fn a_bond_that_is_refused_takes_back_those_made_before_it() {
    let agent = Agent::start("module-refused");
    let failure = agent.run(&module("max_bonds=6")).0.unwrap_err();
    assert_eq!((failure.status(), failure.to_string().as_str()), (1, "bond4: taken"));
    let del = |bond: &str| Call::Del { bond: bond.to_owned() };
    let wanted = [
        Call::List {},
        add("bond2", &[]),
        add("bond3", &[]),
        add("bond4", &[]),
        del("bond3"),
        del("bond2"),
    ];
    assert_eq!(agent.asked(), wanted);
}

#[test]
fn what_the_module_corrects_or_ignores_is_noted_and_makes_a_bond() {
    let agent = Agent::start("module-corrects");
    let words = "max_bonds=3 miimon=100 updelay=250 primary=eth0 resend_igmp=999 lacp_rate=1 use_carrier=0x1";
    let (outcome, _, err) = agent.run(&module(words));
    assert!(outcome.is_ok(), "{outcome:?}");
    for option in [
        "updelay=250 is rounded down to 200",
        "primary=eth0",
        "resend_igmp=999",
        "lacp_rate",
    ] {
        let notes = err.lines().filter(|line| line.contains(option)).count();
        assert_eq!(notes, 1, "{option}: {err}");
    }
    let options = [("miimon", "100"), ("updelay", "200"), ("use_carrier", "1")];
    assert_eq!(agent.asked(), [Call::List {}, add("bond2", &options)]);
}

#[test]
fn module_parameters_that_are_wrong_make_nothing_and_are_all_named() {
    let agent = Agent::start("module-wrong");
    for (words, wanted) in [
        (&["modprobe", "mode=9"][..], &["mode=9: no such mode"][..]),
        (&["modprobe", "mdoe=1", "miimon=x"], &["\"mdoe\"", "miimon=x", "; "]),
        (
            &["modprobe", "miimon"],
            &["miimon without a value", "expected miimon=value"],
        ),
        (
            &["modprobe", "max_bonds=257"],
            &["max_bonds=257", "expected at most 256"],
        ),
        (&["modprobe", "slaves=eth0"], &["slaves"]),
        (&["modprobe", "primary=a b"], &["\"primary=a b\"", "a blank"]),
        (&["modprobe", "primary=a#b"], &["\"primary=a#b\""]),
    ] {
        let failure = agent.run(words).0.unwrap_err();
        let said = failure.to_string();
        assert_eq!(failure.status(), 1, "{words:?}: {said}");
        assert!(
            wanted.iter().all(|part| said.contains(part)),
            "{words:?}: {wanted:?} in {said}"
        );
    }
    assert_eq!(agent.asked(), []);
}

#[test]
fn json_is_what_the_daemon_said_and_text_is_for_people() {
    let agent = Agent::start("json");
    assert_eq!(
        agent.run(&["-j", "show"]).1,
        "{\"schema\":1,\"bonds\":[],\"from the future\":true}\n"
    );
    assert_eq!(agent.run(&["show"]).1, "no bonds\n");
    assert_eq!(agent.run(&["list", "--json"]).1, "[\"bond0\",\"bond1\"]\n");
    assert_eq!(agent.run(&["list"]).1, "bond0\nbond1\n");
}

#[test]
fn a_refusal_is_status_1_with_the_reason() {
    let agent = Agent::start("refused");
    for words in [&["show", "bond9"][..], &["hash", "bond9", "dport=80"]] {
        let (outcome, out, _) = agent.run(words);
        let failure = outcome.unwrap_err();
        assert_eq!((failure.status(), out.as_str()), (1, ""));
        let mut text = Vec::new();
        complain(&mut text, &failure).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "bondctl: no bond bond9\n");
    }
}

#[test]
fn every_port_is_tried_and_every_refusal_told() {
    let agent = Agent::start("ports");
    let (outcome, _, err) = agent.run(&["port", "add", "bond0", "no1", "eth0", "no2"]);
    let failure = outcome.unwrap_err();
    assert_eq!(
        (failure.status(), failure.to_string().as_str()),
        (1, "2 of 3 ports failed")
    );
    assert_eq!(err, "bondctl: no no1\nbondctl: no no2\n");
    let (outcome, _, err) = agent.run(&["port", "add", "bond0", "no1"]);
    assert_eq!(
        (outcome.unwrap_err().to_string().as_str(), err.as_str()),
        ("no no1", "")
    );
    assert_eq!(agent.asked().len(), 4);
}

#[test]
fn no_daemon_is_status_3_and_names_the_socket() {
    let dir = empty_dir("nobody");
    for words in [
        &["list"][..],
        &["port", "add", "bond0", "eth0"],
        &["hash", "bond0"],
        &["monitor"],
        &["modprobe", "max_bonds=0"],
        &["modprobe", "--remove"],
    ] {
        let failure = run(&cli(&dir, words), &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert_eq!(failure.status(), 3, "{words:?}");
        let text = failure.to_string();
        assert!(
            text.starts_with(&format!("no bondd answers at {}", dir.join(SOCKET).display())),
            "{text}"
        );
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn an_answer_is_waited_for_as_long_as_wait_says_if_that_is_longer_than_usual() {
    let agent = Agent::start("patience");
    let timeout = |seconds| {
        connect(&cli(&agent.dir, &["--wait", seconds, "add", "bond1"]))
            .unwrap()
            .timeout
    };
    assert_eq!(timeout("0"), ANSWER_TIMEOUT);
    let (longest, longer) = (Duration::from_secs(60), timeout("60"));
    assert!(longer > ANSWER_TIMEOUT && longer <= longest, "{longer:?}");
    agent.asked();
}

#[test]
fn a_value_that_is_missing_is_wrong_usage_before_anything_is_asked() {
    let dir = empty_dir("usage");
    let failure = run(
        &cli(&dir, &["set", "bond0", "miimon"]),
        &mut Vec::new(),
        &mut Vec::new(),
    )
    .unwrap_err();
    assert_eq!(failure.status(), 2);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn monitor_prints_events_until_the_daemon_stops() {
    let agent = Agent::start("monitor");
    let (outcome, out, err) = agent.run(&["monitor", "bond0"]);
    outcome.unwrap();
    assert_eq!(err, "bondctl: bondd stopped\n");
    let lines: Vec<&str> = out.lines().map(|line| &line[24..]).collect();
    assert_eq!(lines, ["bond0: eth0: link down", "bond0: active port is eth1"]);
    let agent = Agent::start("monitor-json");
    let (_, out, _) = agent.run(&["-j", "monitor"]);
    let first: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(first["event"]["text"], "eth0: link down");
    let agent = Agent::start("monitor-killed");
    let (outcome, _, err) = agent.run(&["monitor", "bond9"]);
    assert_eq!(
        (outcome.unwrap_err().status(), err.as_str()),
        (3, ""),
        "it did not stop in order"
    );
}

#[test]
fn a_closed_pipe_is_told_apart_from_other_trouble() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let agent = Agent::start("pipe");
    let outcome = run(&cli(&agent.dir, &["list"]), &mut Closed, &mut Vec::new());
    assert!(matches!(outcome, Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe));
}
