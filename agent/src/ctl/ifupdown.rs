//! `bondctl ifupdown`: a hook of Debian's ifup and ifdown for one interface. The stanza's options, the interface and the phase
//! are in the environment. [interfaces(5)]
//!
//! A refused option or port is reported, and the rest is done, because this interface may be the only way to reach the machine.
//! The state of other interfaces comes from ifupdown's own commands. They report an interface that is being configured as up,
//! so that two interfaces that need each other do not wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use bond_modes::LinkWord;
use bond_modes::options::{TABLE, parse, show_all};

use super::failure::Failure;
use crate::config::import::{Line, Ports, Role, Stanza, read_stanza};
use crate::config::{Diagnostic, Place};
use crate::control::client::{Client, ClientError};
use crate::control::proto::{BondReport, Call, OptionPairs, PortPresence, warnings};
use crate::instances::check_options;

/// Longest wait for the agent to start, for a bond that another hook makes, and for the link of a new port.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// One run of the hook.
struct Hook<'a> {
    iface: String,
    /// Other interfaces that are being brought up and wait for this one.
    configured: Vec<String>,
    client: Client,
    err: &'a mut dyn Write,
    /// Reported texts, so that each is printed once.
    said: BTreeSet<String>,
}

/// Runs the phase that the environment names.
pub(super) fn hook(run_dir: &Path, err: &mut dyn Write) -> Result<(), Failure> {
    let variables =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let variables: BTreeMap<String, String> = variables.collect();
    let variable = |name| {
        variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let (Some(iface), Some(phase)) = (variable("IFACE"), variable("PHASE")) else {
        let text = "no IFACE and PHASE in the environment, expected ifup or ifdown to run this";
        return Err(Failure::Usage(text.to_owned()));
    };
    // ifup -a and ifdown -a also call hooks once before and after all interfaces.
    if variable("ADDRFAM") == Some("meta") {
        return Ok(());
    }
    let options = variables
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("IF_")?, value.clone())));
    let (stanza, findings) = stanza(iface, options);
    if !has_work(phase, &stanza) {
        return Ok(());
    }
    // ifupdown sets one such variable, with the phase, for each interface whose commands led to this call.
    let leading = variables
        .iter()
        .filter_map(|(name, phase)| Some((name.strip_prefix("IFUPDOWN_")?, phase)));
    let configured = leading.filter(|(name, phase)| *name != iface && *phase == "pre-up");
    let mut hook = Hook {
        iface: iface.to_owned(),
        configured: configured.map(|(name, _)| name.to_owned()).collect(),
        client: connect(run_dir)?,
        err,
        said: BTreeSet::new(),
    };
    match (phase, &stanza.bond) {
        ("pre-up", bond) => {
            findings.iter().for_each(|finding| hook.say(&finding.to_string()));
            match bond {
                Some((_, bond)) => hook.port_up(bond, &stanza),
                None => hook.bond_up(&stanza),
            }
        }
        ("post-up", Some((_, bond))) => hook.give_a_chance(bond, stanza.chance.unwrap_or_default()),
        ("post-up", None) => hook.activate(stanza.active.and_then(|(_, port)| port)),
        (_, Some((_, bond))) => hook.port_down(bond, &stanza),
        (_, None) => hook.bond_down(),
    }
}

fn has_work(phase: &str, stanza: &Stanza) -> bool {
    match (phase, stanza.role()) {
        (_, Role::Neither) => false,
        ("pre-up" | "post-down", _) => true,
        ("post-up", Role::Bond) => stanza.active.is_some(),
        ("post-up", Role::Port) => stanza.chance.is_some(),
        _ => false,
    }
}

impl Hook<'_> {
    fn bond_up(&mut self, stanza: &Stanza) -> Result<(), Failure> {
        let bond = self.iface.clone();
        self.make(stanza)?;
        let named = match &stanza.ports {
            Some((_, Ports::Named(ports))) => ports.clone(),
            Some((_, Ports::All)) => all_ports()?,
            Some((_, Ports::None)) | None => Vec::new(),
        };
        for port in &named {
            self.attach(&bond, port)?;
        }
        // A port waits for this bond: it may be the only way to the server that gives the bond an address.
        for port in self.configured.clone() {
            let of_this = stanza_of(&port)?
                .and_then(|stanza| stanza.bond)
                .is_some_and(|(_, of)| of == bond);
            if of_this {
                self.attach(&bond, &port)?;
            }
        }
        if let Some((_, queues)) = &stanza.queue_ids {
            let deferred = named.is_empty();
            let there = self.ports(&bond)?;
            for (port, queue) in queues.iter().filter(|(port, _)| !deferred || there.contains(port)) {
                self.set_queue(&bond, port, queue)?;
            }
        }
        self.prefer(&bond, &[stanza])?;
        let class = listed(&["--list", "--allow", &bond])?;
        for port in named.iter().filter(|port| class.contains(port)) {
            if !is_up(port)? {
                run("ifup", &["--allow", &bond, port])?;
            }
        }
        Ok(())
    }

    /// Makes the bond, or sets the stanza's options on an existing one.
    fn make(&mut self, stanza: &Stanza) -> Result<(), Failure> {
        let bond = self.iface.clone();
        let options: OptionPairs = stanza
            .options
            .iter()
            .map(|o| (o.name.clone(), o.value.clone()))
            .collect();
        if self.bonds()?.contains(&bond) {
            return self.set(&bond, options);
        }
        // Then without the options: setting them one by one shows which is refused.
        let mut refusal = None;
        for names in [None, Some(&["mode", "plane"][..]), Some(&["mode"])] {
            let is_first = |name: &str| names.is_none_or(|names| names.contains(&name));
            let (first, rest): (OptionPairs, OptionPairs) =
                options.iter().cloned().partition(|(name, _)| is_first(name));
            match self.call(&Call::Add {
                bond: bond.clone(),
                options: first,
            }) {
                Ok(()) => return self.set(&bond, rest),
                Err(ClientError::Refused(why)) => refusal = Some(why.message),
                Err(error) => return Err(error.into()),
            }
        }
        refusal.iter().for_each(|why| self.say(why));
        Err(Failure::NoBond { bond })
    }

    fn port_up(&mut self, bond: &str, stanza: &Stanza) -> Result<(), Failure> {
        let Some(bonds) = stanza_of(bond)? else {
            return Err(Failure::NoStanza {
                port: self.iface.clone(),
                bond: bond.to_owned(),
            });
        };
        if !is_up(bond)? {
            // The program prints its own error.
            run("ifup", &[bond])?;
        }
        self.wait(PATIENCE, |hook| Ok(hook.bond(bond)?.is_some() || !is_up(bond)?))?;
        let port = self.iface.clone();
        if !self.attach(bond, &port)? {
            return Ok(());
        }
        let queues = bonds.queue_ids.iter().flat_map(|(_, queues)| queues);
        for (_, queue) in queues.filter(|(name, _)| *name == port) {
            self.set_queue(bond, &port, queue)?;
        }
        self.prefer(bond, &[stanza, &bonds])
    }

    fn give_a_chance(&mut self, bond: &str, chance: Duration) -> Result<(), Failure> {
        let Some(report) = self.bond(bond)? else { return Ok(()) };
        let before = report
            .status
            .options
            .get("primary")
            .map_or_else(String::new, ToString::to_string);
        let prefer = |name: &str| vec![("primary".to_owned(), name.to_owned())];
        let port = self.iface.clone();
        self.set(bond, prefer(&port))?;
        self.wait(chance, |hook| hook.has_link(bond, &port))?;
        self.set(bond, prefer(&before))
    }

    fn bond_down(&mut self) -> Result<(), Failure> {
        let bond = self.iface.clone();
        for port in self.ports(&bond)? {
            if is_up(&port)? {
                run("ifdown", &[&port])?;
            }
        }
        let waiting = self.client.report(None)?.waiting;
        let is_unmade = waiting.iter().any(|waits| waits.unmade && waits.name == bond);
        if is_unmade || self.bonds()?.contains(&bond) {
            self.call(&Call::Del { bond })?;
        }
        Ok(())
    }

    fn port_down(&mut self, bond: &str, stanza: &Stanza) -> Result<(), Failure> {
        let port = self.iface.clone();
        if !self.ports(bond)?.contains(&port) {
            return Ok(());
        }
        self.ask(&Call::PortDetach {
            bond: bond.to_owned(),
            port,
        })?;
        self.prefer(bond, &[stanza])
    }

    /// Whether the interface is a port of this bond now; a refusal is reported.
    fn attach(&mut self, bond: &str, port: &str) -> Result<bool, Failure> {
        if self.ports(bond)?.iter().any(|there| there == port) {
            return Ok(true);
        }
        self.ask(&Call::PortAttach {
            bond: bond.to_owned(),
            port: port.to_owned(),
        })
    }

    /// Sets as primary the first attached port of the first stanza that names any, or the first port named if none is attached.
    fn prefer(&mut self, bond: &str, stanzas: &[&Stanza]) -> Result<(), Failure> {
        let there = self.ports(bond)?;
        let named = stanzas.iter().find(|stanza| stanza.primary.is_some());
        let primary = named.and_then(|stanza| {
            let is_there = |name: &str| there.iter().any(|port| port == name);
            stanza.primary_of(is_there).or(stanza.primary_of(|_| true))
        });
        let primary = primary.map(|name| ("primary".to_owned(), name.to_owned()));
        // If it comes from the bond's own stanza, it is already set.
        let reselect = stanzas.iter().flat_map(|stanza| &stanza.options);
        let reselect = reselect.filter(|option| option.name == "primary_reselect").take(1);
        let reselect = reselect.map(|option| (option.name.clone(), option.value.clone()));
        self.set(bond, primary.into_iter().chain(reselect).collect())
    }

    /// Only once the bond is up: before that no link is monitored.
    fn activate(&mut self, port: Option<String>) -> Result<(), Failure> {
        let bond = self.iface.clone();
        if let Some(port) = &port
            && self.ports(&bond)?.contains(port)
        {
            // A primary that is still in updelay would take over again.
            self.wait(PATIENCE, |hook| {
                Ok(hook.has_link(&bond, port)? && !hook.has_port_in_updelay(&bond)?)
            })?;
        }
        self.ask(&Call::Active { bond, port })?;
        Ok(())
    }

    fn set_queue(&mut self, bond: &str, port: &str, queue: &str) -> Result<(), Failure> {
        self.ask(&Call::PortSet {
            bond: bond.to_owned(),
            port: port.to_owned(),
            options: vec![("queue_id".to_owned(), queue.to_owned())],
        })?;
        Ok(())
    }

    /// Sets the options that differ, all at once; if that is refused, one by one.
    fn set(&mut self, bond: &str, mut options: OptionPairs) -> Result<(), Failure> {
        let Some(report) = self.bond(bond)? else { return Ok(()) };
        options.retain(|option| differs(option, &report));
        // With ports a new mode is refused anyway, and they may be in use. [ifenslave: setup_master_device]
        if report.status.up && report.ports.is_empty() && options.iter().any(|(name, _)| name == "mode") {
            run("ip", &["link", "set", "dev", bond, "down"])?;
            self.wait(PATIENCE, |hook| {
                Ok(hook.bond(bond)?.is_none_or(|report| !report.status.up))
            })?;
        }
        options.sort_by_key(|(name, _)| TABLE.iter().position(|row| row.is_called(name)));
        let set = |options| Call::Set {
            bond: bond.to_owned(),
            options,
        };
        if options.is_empty() {
            return Ok(());
        }
        match self.call(&set(options.clone())) {
            Err(ClientError::Refused(_)) => {}
            done => return Ok(done?),
        }
        for option in options {
            self.ask(&set(vec![option]))?;
        }
        Ok(())
    }

    fn call(&mut self, call: &Call) -> Result<(), ClientError> {
        let answer = self.client.call(call)?;
        for warning in warnings(&answer) {
            self.say(&format!("warning: {warning}"));
        }
        Ok(())
    }

    /// Whether the agent did it; a refusal is reported.
    fn ask(&mut self, call: &Call) -> Result<bool, Failure> {
        match self.call(call) {
            Ok(()) => Ok(true),
            Err(ClientError::Refused(why)) => {
                self.say(&why.message);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An error in printing must not end the command halfway.
    fn say(&mut self, text: &str) {
        let named = if text.starts_with(&format!("{}:", self.iface)) {
            text.to_owned()
        } else {
            format!("{}: {text}", self.iface)
        };
        if !self.said.contains(&named) {
            let _ = writeln!(self.err, "bondctl: {named}");
        }
        self.said.insert(named);
    }

    fn bonds(&mut self) -> Result<Vec<String>, Failure> {
        Ok(serde_json::from_value(self.client.call(&Call::List {})?)?)
    }

    /// The bond, if there is one.
    fn bond(&mut self, name: &str) -> Result<Option<BondReport>, Failure> {
        let bonds = self.client.report(None)?.bonds;
        Ok(bonds.into_iter().find(|bond| bond.name == name))
    }

    /// Names of the bond's attached ports; empty if there is no such bond.
    fn ports(&mut self, bond: &str) -> Result<Vec<String>, Failure> {
        let ports = self.bond(bond)?.map(|bond| bond.ports).unwrap_or_default();
        let attached = ports.into_iter().filter(|port| port.state() == PortPresence::Attached);
        Ok(attached.map(|port| port.name).collect())
    }

    fn has_link(&mut self, bond: &str, name: &str) -> Result<bool, Failure> {
        let ports = self.bond(bond)?.map(|bond| bond.ports).unwrap_or_default();
        let port = ports.iter().find(|port| port.name == name);
        Ok(port
            .and_then(|port| port.status.as_ref())
            .is_some_and(|status| status.link == LinkWord::Up))
    }

    fn has_port_in_updelay(&mut self, bond: &str) -> Result<bool, Failure> {
        let ports = self.bond(bond)?.map(|bond| bond.ports).unwrap_or_default();
        let mut links = ports.iter().filter_map(|port| port.status.as_ref());
        Ok(links.any(|status| status.link == LinkWord::GoingBack))
    }

    /// Waits until the condition holds or the time is over.
    fn wait(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&mut Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        while !holds(self)? && start.elapsed() < limit {
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

/// The agent may not listen yet, because it is started just before at boot, and may be restarted at any time. Then it has not come
/// to all of its bonds yet.
fn connect(run_dir: &Path) -> Result<Client, ClientError> {
    let start = Instant::now();
    loop {
        let connected = Client::connect(run_dir).and_then(|mut client| {
            let has_started = client.report(None)?.waiting.iter().all(|bond| !bond.starting);
            Ok((client, has_started))
        });
        match connected {
            Err(ClientError::NoDaemon { .. } | ClientError::Closed { .. }) | Ok((_, false))
                if start.elapsed() < PATIENCE =>
            {
                thread::sleep(POLL_INTERVAL)
            }
            connected => return connected.map(|(client, _)| client),
        }
    }
}

/// Reads options of an interface's stanza.
fn stanza(iface: &str, options: impl Iterator<Item = (impl Into<String>, String)>) -> (Stanza, Vec<Diagnostic>) {
    let place = Place {
        file: Arc::from(Path::new(iface)),
        line: 0,
    };
    let lines = options.map(|(name, value)| Line {
        place: place.clone(),
        name: name.into(),
        value,
    });
    read_stanza(lines.collect(), &check_options)
}

/// The stanza of another interface, if it has one.
fn stanza_of(iface: &str) -> Result<Option<Stanza>, Failure> {
    let answer = asked(&[iface])?;
    if !answer.status.success() {
        return Ok(None);
    }
    let mut options: Vec<(String, String)> = Vec::new();
    for line in String::from_utf8_lossy(&answer.stdout).lines() {
        match (line.split_once(": "), options.last_mut()) {
            (Some((name, value)), _) => options.push((name.to_owned(), value.to_owned())),
            // A further value of the same option.
            (None, Some((_, value))) => *value = format!("{value}\n{line}"),
            (None, None) => {}
        }
    }
    Ok(Some(stanza(iface, options.into_iter()).0))
}

/// Whether ifupdown has configured the interface or is about to.
fn is_up(iface: &str) -> Result<bool, Failure> {
    Ok(asked(&["--state", iface])?.status.success())
}

/// Interfaces that ifquery lists.
fn listed(words: &[&str]) -> Result<Vec<String>, Failure> {
    let answer = asked(words)?;
    Ok(String::from_utf8_lossy(&answer.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn asked(words: &[&str]) -> Result<Output, Failure> {
    let mut command = Command::new("ifquery");
    let output = command.args(words).stdin(Stdio::null()).output();
    output.map_err(|source| Failure::Program {
        program: "ifquery",
        source,
    })
}

/// Runs a program that prints its own errors; its failure does not count for this interface.
fn run(program: &'static str, words: &[&str]) -> Result<(), Failure> {
    let done = Command::new(program).args(words).stdin(Stdio::null()).status();
    done.map(|_| ()).map_err(|source| Failure::Program { program, source })
}

/// All interfaces named eth and a number, by number.
fn all_ports() -> io::Result<Vec<String>> {
    let text = fs::read_to_string(PathBuf::from("/proc/thread-self/net/dev"))?;
    let names = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim());
    let mut ports: Vec<(u32, String)> = names
        .filter_map(|name| Some((name.strip_prefix("eth")?.parse().ok()?, name.to_owned())))
        .collect();
    ports.sort();
    Ok(ports.into_iter().map(|(_, name)| name).collect())
}

/// Whether the option differs from the wanted value. An equal one is not set, so that it cannot be refused because of ports.
fn differs(option: &(String, String), bond: &BondReport) -> bool {
    let (name, value) = option;
    if name == "plane" {
        return *value != bond.plane && value != "auto";
    }
    let mode = ("mode".to_owned(), bond.status.mode.to_string());
    let asked = parse(&[mode, option.clone()]).ok();
    let asked = asked.and_then(|change| show_all(&change.options, None).remove(name));
    asked.is_none() || asked.as_ref() != bond.status.options.get(name)
}
