//! bondd, asked over its control socket; its events tell what happens in which order.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::column::{Column, Happening, Outcome, Port, State};
use crate::control::Control;

/// A bondd of its own in this namespace, killed with this value.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    dir: PathBuf,
    control: Control,
    events: Receiver<Value>,
}

impl Agent {
    /// Starts one with this run dir and these words on its command line.
    pub fn start(dir: &Path, words: &[&str]) -> io::Result<Agent> {
        fs::create_dir_all(dir)?;
        let log = File::create(dir.join("log"))?;
        let child = Command::new("/usr/bin/bondd")
            .arg("--run-dir")
            .arg(dir)
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let socket = dir.join("control.sock");
        let start = Instant::now();
        let mut monitor = loop {
            match Control::connect_patiently(&socket, PATIENCE) {
                Ok(control) => break control,
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        monitor
            .call(json!({"call": "monitor"}))?
            .map_err(|e| io::Error::other(e.to_string()))?;
        let (sink, events) = channel();
        thread::spawn(move || {
            loop {
                match monitor.line() {
                    Ok(line) => {
                        let Ok(mut event) = serde_json::from_str::<Value>(&line) else {
                            continue;
                        };
                        if sink.send(event["event"]["notice"].take()).is_err() {
                            return;
                        }
                    }
                    // Nothing happened for a while.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Agent {
            child,
            dir: dir.to_owned(),
            control: Control::connect_patiently(&socket, PATIENCE)?,
            events,
        })
    }

    fn ask(&mut self, request: Value) -> Result<Value, String> {
        match self.control.call(request) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Err(format!("{}: {}", text(&refusal["code"]), text(&refusal["message"]))),
            Err(error) => Err(format!("bondd does not answer: {error}")),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has no one to tell: the namespace goes at the same time.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Column for Agent {
    fn create(&mut self, options: &[(String, String)]) -> Outcome {
        let options: Vec<Value> = options.iter().map(|(name, value)| json!([name, value])).collect();
        self.ask(json!({"call": "add", "bond": "bond0", "options": options}))
            .map(drop)
    }

    fn delete(&mut self) -> Outcome {
        self.ask(json!({"call": "del", "bond": "bond0"})).map(drop)
    }

    fn attach(&mut self, port: &str) -> Outcome {
        self.ask(json!({"call": "port-attach", "bond": "bond0", "port": port}))
            .map(drop)
    }

    fn detach(&mut self, port: &str) -> Outcome {
        self.ask(json!({"call": "port-detach", "bond": "bond0", "port": port}))
            .map(drop)
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome {
        self.ask(json!({"call": "set", "bond": "bond0", "options": [[name, value]]}))
            .map(drop)
    }

    fn set_port(&mut self, port: &str, name: &str, value: &str) -> Outcome {
        let request = json!({"call": "port-set", "bond": "bond0", "port": port, "options": [[name, value]]});
        self.ask(request).map(drop)
    }

    fn active(&mut self, port: Option<&str>) -> Outcome {
        self.ask(json!({"call": "active", "bond": "bond0", "port": port}))
            .map(drop)
    }

    fn status_text(&mut self) -> Option<String> {
        fs::read_to_string(self.dir.join("proc/net/bonding/bond0")).ok()
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("sys/class/net")
    }

    fn state(&mut self) -> Option<State> {
        let report = self.ask(json!({"call": "show", "bond": "bond0"})).ok()?;
        let bond = report["bonds"].get(0)?;
        let options = bond["options"]
            .as_object()?
            .iter()
            .map(|(name, value)| (name.clone(), text(value)));
        let ports = bond["ports"]
            .as_array()?
            .iter()
            .filter(|port| port["state"] == "attached")
            .map(|port| {
                let state = Port {
                    link: text(&port["link"]),
                    role: text(&port["role"]),
                    failures: text(&port["link_failures"]),
                    permanent_mac: text(&port["permanent_mac"]),
                };
                (text(&port["name"]), state)
            });
        Some(State {
            active: text(&bond["active_port"]),
            mii_status: text(&bond["mii_status"]),
            options: options.collect(),
            ports: ports.collect(),
        })
    }

    fn lasts(&self) -> usize {
        // Its start is dear in the slow guest. An agent that has seen other bonds must treat the next as if it were the first.
        12
    }

    fn clear(&mut self) -> Outcome {
        if self.state().is_some() {
            self.delete()?;
        }
        self.happenings();
        Ok(())
    }

    fn happenings(&mut self) -> Vec<String> {
        self.events.try_iter().filter_map(|notice| happening(&notice)).collect()
    }

    fn log(&mut self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// The event of a notice, if it is compared.
fn happening(notice: &Value) -> Option<String> {
    let port = notice["port"].as_str().unwrap_or_default();
    let delay = || {
        let (secs, nanos) = (notice["delay"]["secs"].as_u64()?, notice["delay"]["nanos"].as_u64()?);
        // The driver says whole polls; ours says what is left at the moment of the event.
        Some(secs * 1000 + nanos.div_ceil(1_000_000))
    };
    let happening = match notice["kind"].as_str()? {
        "going_down" => Happening::GoingDown(port, delay()?),
        "up_again" => Happening::UpAgain(port),
        "going_back" => Happening::GoingBack(port, delay()?),
        "down_again" => Happening::DownAgain(port),
        "up" => Happening::Up(port),
        "down" => Happening::Down(port),
        "active_changed" => Happening::Active(notice["to"].as_str()?),
        "attached" => Happening::Attached(port, if notice["link_up"] == true { "up" } else { "down" }),
        "detached" => Happening::Detached(port),
        "mac_still_in_use" => Happening::MacStillInUse(port),
        _ => return None,
    };
    Some(happening.show())
}

/// A JSON value as plain text; null is empty, a list has commas.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// How long a bondd may take to answer after its start: the guest is slow.
const PATIENCE: Duration = Duration::from_secs(30);
