//! Plays one scenario on one column.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::Pace;
use super::bench::Bench;
use super::column::{Column, Outcome};
use super::far::Far;
use crate::fidelity::compare::declares;
use crate::fidelity::frame::{self, Traffic};
use crate::fidelity::scenario::{Fault, Scenario, Step, Verb};

/// Every step's observation, in order, as far as the column does the scenario exactly: what comes after is not compared. An error
/// is the bench's, not the column's.
pub(super) fn play(
    scenario: &Scenario,
    bench: &mut Bench,
    column: &mut dyn Column,
    pace: &mut Pace,
) -> Result<Vec<Value>, String> {
    let mut observations = Vec::new();
    let start = Instant::now();
    for (number, step) in scenario.steps.iter().enumerate() {
        pace.step();
        let mut observation = observe(step, bench, column)?;
        observation["step"] = json!(number + 1);
        observation["text"] = json!(step.text);
        observation["ms"] = json!(start.elapsed().as_millis());
        let ends = declares(&observation);
        observations.push(observation);
        if ends {
            break;
        }
    }
    // To explain a difference; not compared.
    if let Some(last) = observations.last_mut() {
        last["log"] = json!(column.log());
    }
    Ok(observations)
}

fn observe(step: &Step, bench: &mut Bench, column: &mut dyn Column) -> Result<Value, String> {
    let kernel = |result: nix::Result<()>| result.map_err(|e| format!("{e:?}"));
    let outcome = match &step.verb {
        Verb::Bond(options) => column.create(options),
        Verb::Delete => column.delete(),
        Verb::Attach(port) => column.attach(port),
        Verb::Detach(port) => column.detach(port),
        Verb::Set(name, value) => column.set(name, value),
        Verb::PortSet(port, name, value) => column.set_port(port, name, value),
        Verb::Active(port) => column.active(port.as_deref()),
        Verb::Pull(port) => kernel(bench.far.links.admin(&Far::end_of(port), false)),
        Verb::Plug(port) => kernel(bench.far.links.admin(&Far::end_of(port), true)),
        Verb::Host(address, vlan) => bench.host(*address, *vlan),
        Verb::Answers(host, answers) => bench.far.answers(*host, *answers),
        Verb::Forwards(port, forwards) => bench.far.forwards(port, *forwards),
        Verb::Admin(device, up) => kernel(bench.near.admin(device, *up)),
        Verb::Mac(device, mac) => kernel(bench.near.set_mac(device, *mac)),
        Verb::Mtu(device, mtu) => kernel(bench.near.set_mtu(device, *mtu)),
        Verb::Address(address, prefix, device) => bench.address(*address, *prefix, device),
        Verb::Group(group, device) => bench.group(*group, device),
        Verb::Vlan(id) => bench.vlan(*id),
        Verb::Wait(millis) => {
            thread::sleep(Duration::from_millis(*millis));
            return Ok(json!({}));
        }
        Verb::Asks(time) => return Ok(asks(bench, Duration::from_millis(*time))),
        Verb::Send(traffic) => return Ok(send(bench, traffic)),
        Verb::Arrive(port, traffic) => return Ok(arrive(bench, port, traffic)),
        Verb::Fail(port, fault) => return fail(bench, port, *fault),
        Verb::Look => return Ok(look(bench, column)),
    };
    Ok(told(outcome))
}

/// Only success is compared; the reason is for people.
fn told(outcome: Outcome) -> Value {
    match outcome {
        Ok(()) => json!({"result": "done"}),
        Err(why) => json!({"result": "refused", "why": why}),
    }
}

fn send(bench: &mut Bench, traffic: &Traffic) -> Value {
    bench.listen();
    bench.heard.flows.clear();
    let mut failed = BTreeMap::new();
    match Bench::way_out(&traffic.device) {
        Ok(way) => {
            for (number, (_, frame)) in traffic.frames().iter().enumerate() {
                if let Err(error) = way.send(frame) {
                    *failed.entry(format!("{error:?}")).or_insert(0) += 1;
                }
                if number % 64 == 63 {
                    bench.listen();
                }
            }
        }
        Err(why) => drop(failed.insert(why, traffic.flows)),
    }
    thread::sleep(DELIVERY);
    bench.listen();
    let heard = std::mem::take(&mut bench.heard.flows);
    let mut flows: Map<String, Value> = Map::new();
    for flow in 0..traffic.flows {
        let ports = heard.get(&flow).map(|ports| {
            let show = |(port, count): (&String, &u32)| match count {
                1 => port.clone(),
                _ => format!("{port} x{count}"),
            };
            ports.iter().map(show).collect::<Vec<_>>().join(" + ")
        });
        flows.insert(
            format!("flow {flow}"),
            json!(ports.unwrap_or_else(|| "lost".to_owned())),
        );
    }
    json!({"flows": flows, "send errors": failed})
}

/// Which port frames leave by after one has become a dead end, after how many milliseconds, and how many frames it cost.
fn fail(bench: &mut Bench, port: &str, fault: Fault) -> Result<Value, String> {
    let way = Bench::way_out("bond0")?;
    let flow = Traffic::parse(&["1", "udp4"])?;
    match fault {
        Fault::Path => bench.far.forwards(port, false)?,
        Fault::Cable => {
            let pulled = bench.far.links.admin(&Far::end_of(port), false);
            pulled.map_err(|e| format!("{e:?}"))?;
        }
    }
    let start = Instant::now();
    bench.listen();
    bench.heard.flows.clear();
    let (mut moved, mut sent) = (None, 0);
    while moved.is_none() && start.elapsed() < PATIENCE {
        for (_, frame) in flow.frames() {
            // No port is active for a moment.
            let _ = way.send(&frame);
            sent += 1;
        }
        thread::sleep(PACE);
        bench.listen();
        moved = bench
            .heard
            .flows
            .values()
            .flat_map(BTreeMap::keys)
            .find(|p| *p != port)
            .cloned();
    }
    let took = start.elapsed().as_millis();
    let arrived: u32 = bench.heard.flows.values().flat_map(BTreeMap::values).sum();
    bench.heard.flows.clear();
    Ok(json!({"moved to": moved, "took": took, "lost": sent - arrived.min(sent)}))
}

/// Targets that are asked for at each port, with the hardware addresses that ask.
fn asks(bench: &mut Bench, time: Duration) -> Value {
    bench.listen();
    bench.heard.asked.clear();
    thread::sleep(time);
    bench.listen();
    let joined = |macs: &BTreeSet<String>| json!(macs.iter().map(String::as_str).collect::<Vec<_>>().join(" or "));
    let ports = bench.heard.asked.iter().map(|(port, asked)| {
        let questions = asked.iter().map(|(question, macs)| (question.clone(), joined(macs)));
        (port.clone(), questions.collect::<Map<_, _>>())
    });
    json!({"asked": ports.collect::<BTreeMap<_, _>>()})
}

/// How many frames of ours a port's far end sends, and how many of them the bond hands up.
fn arrive(bench: &mut Bench, port: &str, traffic: &Traffic) -> Value {
    let heard = Bench::way_out(&traffic.device).and_then(|ear| {
        for (_, frame) in traffic.frames() {
            bench.arrive(port, &frame)?;
        }
        thread::sleep(DELIVERY);
        Ok(ear.drain().iter().filter(|heard| frame::flow(heard).is_some()).count())
    });
    match heard {
        Ok(count) => json!({"reached the bond": count}),
        Err(why) => json!({"reached the bond": format!("cannot: {why}")}),
    }
}

/// The state once it has come to rest, or what it is after two seconds.
fn look(bench: &mut Bench, column: &mut dyn Column) -> Value {
    let start = Instant::now();
    let (mut text, mut since) = (column.status_text(), start);
    while since.elapsed() < REST && start.elapsed() < RESTLESS {
        thread::sleep(Duration::from_millis(20));
        let now = column.status_text();
        if now != text {
            (text, since) = (now, Instant::now());
        }
    }
    let state = column.state();
    let heard = bench.all_heard();
    let lines: Vec<&str> = text.as_deref().unwrap_or_default().split('\n').collect();
    let mut look = json!({
        "status": lines,
        "happened": column.happenings(),
        "announced": heard.announced,
        "reported": heard.reported,
        "device bond0": device("bond0"),
        "files": files(&column.tree(), &bench.ports),
    });
    for port in &bench.ports {
        look[format!("device {port}")] = device(port);
    }
    if let Some(state) = state {
        look["active"] = json!(state.active);
        look["mii_status"] = json!(state.mii_status);
        look["options"] = json!(state.options);
        for (name, port) in &state.ports {
            look[format!("port {name}")] = json!({
                "link": port.link,
                "role": port.role,
                "failures": port.failures,
                "permanent_mac": port.permanent_mac,
            });
        }
    }
    look
}

/// The files of a tree of interfaces that are about the bond, by their path, each without the end of its line.
fn files(tree: &Path, ports: &[String]) -> BTreeMap<String, String> {
    let mut paths = vec!["bonding_masters".to_owned()];
    for file in ["address", "carrier", "duplex", "mtu", "operstate", "speed", "type"] {
        paths.push(format!("bond0/{file}"));
    }
    let ports = ports
        .iter()
        .filter(|port| tree.join(port).join("bonding_slave").exists());
    let ports: Vec<&String> = ports.collect();
    for port in &ports {
        paths.extend(["duplex", "speed"].map(|file| format!("{port}/{file}")));
    }
    let ports = ports.iter().map(|port| format!("{port}/bonding_slave"));
    for folder in ports.chain(["bond0/bonding".to_owned()]) {
        for entry in fs::read_dir(tree.join(&folder)).into_iter().flatten().flatten() {
            paths.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
        }
    }
    let lower = fs::read_dir(tree.join("bond0")).into_iter().flatten().flatten();
    let lower = lower.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for link in lower.filter(|name| name.starts_with("lower_")) {
        paths.push(format!("bond0/{link}/bonding_slave/state"));
        paths.push(format!("bond0/{link}/master/bonding/mode"));
    }
    // Some cannot be read at times, and then are not there.
    let read = |path: String| fs::read_to_string(tree.join(&path)).ok().map(|text| (path, text));
    let shown = |(path, text): (String, String)| match text.strip_suffix('\n') {
        Some(line) => (path, line.to_owned()),
        None if text.is_empty() => (path, text),
        None => (path, format!("{text} (without an end of the line)")),
    };
    paths.into_iter().filter_map(read).map(shown).collect()
}

/// The stack's data about a device; null if there is no device.
fn device(name: &str) -> Value {
    let read = |file: &str| fs::read_to_string(format!("/sys/class/net/{name}/{file}"));
    let Ok(flags) = read("flags") else { return Value::Null };
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
    let text = |file: &str| read(file).unwrap_or_default().trim().to_owned();
    json!({
        "mac": text("address"),
        "mtu": text("mtu"),
        "up": flags & libc::IFF_UP as u32 != 0,
        // Empty while the device is down.
        "carrier": text("carrier"),
    })
}

/// Longer than a frame needs over a cable in the slow guest.
const DELIVERY: Duration = Duration::from_millis(60);

/// Between two frames while a port fails.
const PACE: Duration = Duration::from_millis(2);

/// Longest wait for the first frame out of another port.
const PATIENCE: Duration = Duration::from_secs(5);

/// So long without a change, longer than a poll and a rewritten status file, counts as rest.
const REST: Duration = Duration::from_millis(130);

/// Longest wait for rest.
const RESTLESS: Duration = Duration::from_secs(2);
