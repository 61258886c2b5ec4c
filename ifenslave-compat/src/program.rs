//! The steps of `ifenslave`, with the exit codes of 1.1.0.

use std::fmt::Display;
use std::io::{self, Write};

use bondd::control::client::ClientError;
use bondd::text::chain;
use nix::libc;

use crate::getopt::{self, Flag};
use crate::text::{BANNER, HELP, USAGE};
use crate::world::{Bonds, Settings, Warnings, World};

/// ABI version of 1.1.0 and the drivers of its time: the driver sets MAC addresses and opens the slaves, as bondd does.
const ABI: u8 = 2;
/// Refused.
pub(crate) const REFUSED: u8 = 1;
/// Wrong usage.
pub(crate) const WRONG_USAGE: u8 = 2;
/// A setting could not be changed.
const NOT_SET: u8 = 255;

/// Task of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    kind: Kind,
    /// Attach even if the bond is not Ethernet.
    force: bool,
    /// Print every step.
    verbose: bool,
    operands: Vec<String>,
}

/// The kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ShowAll,
    /// Shows the bond if no port is named.
    Enslave,
    Detach,
    ChangeActive,
}

impl Kind {
    /// The failed step, for messages.
    fn as_str(self) -> &'static str {
        match self {
            Kind::ShowAll => "show",
            Kind::Enslave => "enslave",
            Kind::Detach => "release",
            Kind::ChangeActive => "change active",
        }
    }
}

/// Output. An error in printing does not make the task fail.
pub(crate) struct Console {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Console {
    pub(crate) fn new(out: Box<dyn Write>, err: Box<dyn Write>) -> Console {
        Console { out, err }
    }

    /// Standard output and standard error.
    pub(crate) fn of_this_process() -> Console {
        Console::new(Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Text on standard output.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = write!(self.out, "{text}");
    }

    /// A line on standard error.
    pub(crate) fn complain(&mut self, line: &str) {
        let _ = writeln!(self.err, "{line}");
    }

    fn wrong_usage(&mut self) -> u8 {
        let _ = write!(self.err, "{USAGE}");
        WRONG_USAGE
    }
}

/// State of the named bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A bond of the agent.
    Bond,
    /// An interface that is not a bond of the agent.
    Other,
    /// An interface; this user has no access to the agent.
    Unknown,
}

/// The task, or the exit code if the command line already decides it.
pub(crate) fn plan(words: &[String], posixly_correct: bool, console: &mut Console) -> Result<Task, u8> {
    let parsed = getopt::parse(words, posixly_correct).map_err(|why| {
        console.complain(&format!("ifenslave: {why}"));
        console.wrong_usage()
    })?;
    if parsed.flags.iter().filter(|flag| flag.is_exclusive()).count() > 1 {
        return Err(console.wrong_usage());
    }
    let given = |flag| parsed.flags.contains(&flag);
    if given(Flag::Verbose) || given(Flag::Version) {
        console.say(BANNER);
    }
    if given(Flag::Version) {
        return Err(0);
    }
    if given(Flag::Usage) {
        console.say(USAGE);
        return Err(0);
    }
    if given(Flag::Help) {
        console.say(USAGE);
        console.say(HELP);
        return Err(0);
    }
    let kind = match () {
        () if given(Flag::AllInterfaces) => Kind::ShowAll,
        () if given(Flag::Detach) => Kind::Detach,
        () if given(Flag::ChangeActive) => Kind::ChangeActive,
        () => Kind::Enslave,
    };
    // `-a` takes no operands, all other tasks need some.
    if (kind == Kind::ShowAll) != parsed.operands.is_empty() {
        return Err(console.wrong_usage());
    }
    Ok(Task {
        kind,
        force: given(Flag::Force),
        verbose: given(Flag::Verbose),
        operands: parsed.operands,
    })
}

/// Runs the task and returns the exit code.
pub(crate) fn perform(task: &Task, world: &mut dyn World, console: &mut Console) -> u8 {
    let Some((master, slaves)) = task.operands.split_first() else {
        return show_all(world, console);
    };
    let mut run = Run {
        task,
        world,
        console,
        master,
        standing: Standing::Unknown,
    };
    run.on_master(slaves).unwrap_or_else(|code| code)
}

fn show_all(world: &mut dyn World, console: &mut Console) -> u8 {
    match world.addressed_interfaces() {
        Ok(names) => names.iter().for_each(|name| show(name, world, console)),
        Err(e) => console.complain(&format!("ifenslave: cannot list interfaces: {e}")),
    }
    0
}

fn show(name: &str, world: &mut dyn World, console: &mut Console) {
    let Ok(Settings {
        flags,
        hardware_type,
        address,
        ..
    }) = world.settings(name)
    else {
        console.complain(&format!("{name}: unknown interface."));
        return;
    };
    let ip = match world.address(name) {
        Ok(Some(ip)) => ip.to_string(),
        Ok(None) => "none".to_owned(),
        Err(e) => format!("unknown ({e})"),
    };
    console.say(&format!(
        "The result of SIOCGIFFLAGS on {name} is {flags:x}.\n\
         The result of SIOCGIFADDR is {ip}.\n\
         The result of SIOCGIFHWADDR is type {hardware_type}  {}.\n",
        mac(address)
    ));
}

/// A task on one bond.
struct Run<'a> {
    task: &'a Task,
    world: &'a mut dyn World,
    console: &'a mut Console,
    master: &'a str,
    standing: Standing,
}

/// The exit code of a failure that was reported.
type Outcome = Result<(), u8>;

impl Run<'_> {
    fn on_master(&mut self, slaves: &[String]) -> Result<u8, u8> {
        let (master, kind) = (self.master, self.task.kind);
        self.handshake()?;
        self.note(|| format!("ABI version {ABI}"));
        let Some(first) = slaves.first() else {
            return if kind == Kind::Enslave {
                show(master, self.world, self.console);
                Ok(0)
            } else {
                Err(self.console.wrong_usage())
            };
        };
        self.check_master()?;
        if kind == Kind::ChangeActive {
            if slaves.len() > 1 {
                let ignored = slaves[1..].join(" ");
                self.console.complain(&format!(
                    "Master '{master}': Warning: only one slave can be active, ignored: {ignored}"
                ));
            }
            return self.on_slave(first).map(|()| 0);
        }
        // The last failure decides.
        Ok(slaves
            .iter()
            .fold(0, |code, slave| self.on_slave(slave).err().unwrap_or(code)))
    }

    /// Checks that the bond exists and that the agent answers. 1.1.0 asked the driver.
    fn handshake(&mut self) -> Outcome {
        let master = self.master;
        let bonds = self.world.bonds(master);
        // Asked afterwards: the agent may have been making it.
        let exists = self.world.settings(master).is_ok();
        let why = match bonds {
            Ok(bonds) if bonds.contains_key(master) => {
                self.standing = Standing::Bond;
                return Ok(());
            }
            Ok(_) if exists => {
                self.standing = Standing::Other;
                return Ok(());
            }
            Ok(_) => "there is no such interface".to_owned(),
            Err(e @ ClientError::Starting { .. }) => chain(&e),
            // 1.1.0 noticed this only at the first change.
            Err(ClientError::Permission { .. }) if exists => return Ok(()),
            Err(e) => format!("handshake with bondd failed: {}", chain(&e)),
        };
        self.console
            .complain(&format!("Master '{master}': Error: {why}. Aborting"));
        Err(REFUSED)
    }

    fn check_master(&mut self) -> Outcome {
        let master = self.master;
        let settings = self.world.settings(master).map_err(|e| {
            self.console.complain(&format!(
                "Master '{master}': Error: getting settings failed: {e}. Aborting"
            ));
            errno(&e)
        })?;
        let why = if self.standing == Standing::Other {
            format!("the specified interface '{master}' is not a master (not a bond of bondd). Aborting")
        } else if self.task.kind == Kind::Enslave && !self.task.force && settings.hardware_type != libc::ARPHRD_ETHER {
            format!(
                "the specified master interface '{master}' is not ethernet-like (type {}). \
                 This program is meant for masters that are; use -f to force it",
                settings.hardware_type
            )
        } else {
            if self.task.kind == Kind::Enslave {
                // differs: 1.1.0 refused, as the driver of its time took ports only while the bond was up.
                if settings.flags & UP == 0 {
                    self.console.complain(&format!(
                        "Master '{master}': Warning: it is not up and carries nothing until it is (ip link set {master} up)"
                    ));
                }
                self.note(|| {
                    format!(
                        "Master '{master}': hardware address {}, type {}",
                        mac(settings.address),
                        settings.hardware_type
                    )
                });
            }
            return Ok(());
        };
        self.console.complain(&format!("Illegal operation: {why}"));
        Err(REFUSED)
    }

    fn on_slave(&mut self, slave: &str) -> Outcome {
        let settings = self.slave_settings(slave)?;
        let outcome = self.check_slave(slave, settings).and_then(|()| match self.task.kind {
            Kind::Detach => self.ask(|world, master| world.detach(master, slave)),
            Kind::ChangeActive => self.ask(|world, master| world.activate(master, slave)),
            Kind::Enslave | Kind::ShowAll => self.enslave(slave, settings),
        });
        outcome.map_err(|Failed { code, why }| {
            let what = self.task.kind.as_str();
            self.console.complain(&why);
            self.console.complain(&format!(
                "Master '{}', Slave '{slave}': Error: {what} failed",
                self.master
            ));
            code
        })
    }

    fn slave_settings(&mut self, slave: &str) -> Result<Settings, u8> {
        self.world.settings(slave).map_err(|e| {
            let (what, then, code) = match self.task.kind {
                Kind::Detach => ("flags", "Skipping", NOT_SET),
                Kind::ChangeActive => ("flags", "Aborting", NOT_SET),
                Kind::Enslave | Kind::ShowAll => ("settings", "Skipping", errno(&e)),
            };
            self.console
                .complain(&format!("Slave '{slave}': Error: getting {what} failed: {e}. {then}"));
            code
        })
    }

    fn check_slave(&mut self, slave: &str, settings: Settings) -> Result<(), Failed> {
        if self.task.kind != Kind::Enslave {
            self.note(|| format!("Slave '{slave}': flags {:04X}", settings.flags));
        }
        if self.standing == Standing::Unknown {
            return Ok(());
        }
        let bonds = self.world.bonds(self.master).map_err(Failed::refused)?;
        let enslaved = settings.flags & SLAVE != 0 || is_port(&bonds, slave);
        match (self.task.kind == Kind::Enslave, enslaved) {
            (true, true) => Err(Failed::illegal(format!(
                "the specified slave interface '{slave}' is already a slave"
            ))),
            (false, false) => Err(Failed::illegal(format!(
                "the specified slave interface '{slave}' is not a slave"
            ))),
            _ if settings.flags & LOOPBACK != 0 => Err(Failed::illegal(format!(
                "the specified slave interface '{slave}' is a loopback interface"
            ))),
            _ => Ok(()),
        }
    }

    /// Sets the interface down, attaches it and removes its addresses; restores it after a failure.
    ///
    /// differs: 1.1.0 removed the addresses before it asked the driver, and left the interface down after a refusal.
    fn enslave(&mut self, slave: &str, settings: Settings) -> Result<(), Failed> {
        if self.standing == Standing::Unknown {
            let why = io::Error::from_raw_os_error(libc::EPERM);
            return Err(Failed::not_set(slave, "bringing interface down", &why));
        }
        let down = settings.flags & !UP;
        self.world
            .set_flags(slave, down)
            .map_err(|e| Failed::not_set(slave, "bringing interface down", &e))?;
        self.note(|| format!("Slave '{slave}': flags set to {down:04X}"));
        let master = self.master;
        let watched = [("Master", master), ("Slave", slave)];
        let before = watched.map(|(_, name)| self.world.settings(name));
        match self.world.attach(master, slave) {
            Ok(warnings) => self.warn(&warnings),
            Err(e) => {
                restore(self.world, self.console, slave, settings);
                return Err(Failed::refused(e));
            }
        }
        for ((role, name), before) in watched.into_iter().zip(before) {
            self.note_changes(role, name, before);
        }
        if let Err(e) = self.world.clear_addresses(slave) {
            if let Err(e) = self.world.detach(master, slave) {
                self.console.complain(&format!(
                    "Slave '{slave}': Error: cannot be released again: {}",
                    chain(&e)
                ));
            }
            restore(self.world, self.console, slave, settings);
            return Err(Failed::not_set(slave, "clearing address", &e));
        }
        self.note(|| format!("Slave '{slave}': address cleared"));
        self.note(|| format!("Master '{master}', Slave '{slave}': enslaved"));
        Ok(())
    }

    /// Prints the changes by bondd, for `-v`.
    fn note_changes(&mut self, role: &str, name: &str, before: io::Result<Settings>) {
        let (Ok(before), Ok(after)) = (before, self.world.settings(name)) else {
            return;
        };
        if after.mtu != before.mtu {
            self.note(|| format!("{role} '{name}': MTU set to {}", after.mtu));
        }
        if after.address != before.address {
            self.note(|| format!("{role} '{name}': hardware address set to {}", mac(after.address)));
        }
    }

    fn ask(&mut self, call: impl FnOnce(&mut dyn World, &str) -> Result<Warnings, ClientError>) -> Result<(), Failed> {
        let warnings = call(self.world, self.master).map_err(Failed::refused)?;
        self.warn(&warnings);
        Ok(())
    }

    /// Prints warnings of the agent. The driver of 1.1.0 had only the kernel's log for its own.
    fn warn(&mut self, warnings: &[String]) {
        let master = self.master;
        for warning in warnings {
            let own = warning.strip_prefix(master).and_then(|rest| rest.strip_prefix(": "));
            let text = own.unwrap_or(warning);
            self.console.complain(&format!("Master '{master}': Warning: {text}"));
        }
    }

    /// A step, for `-v`.
    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.task.verbose {
            self.console.complain(&line());
        }
    }
}

/// Reason of a port's failure, and its exit code.
struct Failed {
    code: u8,
    why: String,
}

impl Failed {
    fn illegal(why: String) -> Failed {
        Failed {
            code: REFUSED,
            why: format!("Illegal operation: {why}"),
        }
    }

    fn not_set(slave: &str, step: &str, why: &dyn Display) -> Failed {
        Failed {
            code: NOT_SET,
            why: format!("Slave '{slave}': Error: {step} failed: {why}"),
        }
    }

    fn refused(error: ClientError) -> Failed {
        Failed {
            code: REFUSED,
            why: format!("Error: {}", chain(&error)),
        }
    }
}

/// Sets an interface up again, if it was.
pub(crate) fn restore(world: &dyn World, console: &mut Console, slave: &str, settings: Settings) {
    if settings.flags & UP == 0 {
        return;
    }
    if let Err(e) = world.set_flags(slave, settings.flags) {
        console.complain(&format!("Slave '{slave}': Error: cannot be set up again: {e}"));
    }
}

pub(crate) const UP: u16 = libc::IFF_UP as u16;
const SLAVE: u16 = libc::IFF_SLAVE as u16;
const LOOPBACK: u16 = libc::IFF_LOOPBACK as u16;

fn is_port(bonds: &Bonds, name: &str) -> bool {
    bonds.values().flatten().any(|port| port == name)
}

/// The exit code for settings that cannot be read.
fn errno(error: &io::Error) -> u8 {
    error
        .raw_os_error()
        .and_then(|errno| u8::try_from(errno).ok())
        .unwrap_or(NOT_SET)
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
