//! The shell command of Debian's package ifenslave, 2.1 to 2.9: options only in front, no test whether the bond is up, an end
//! at the first failure.
//!
//! differs: the interface is set up again after a refusal; messages name it; help is printed without man(1); there is a warning
//! about addresses that an attached interface keeps.

use bondd::control::client::ClientError;
use bondd::text::chain;
use nix::libc;

use crate::program::{Console, REFUSED, UP, restore};
use crate::text::{DEBIAN_HELP, DEBIAN_USAGE, DEBIAN_VERSION};
use crate::world::{Bonds, Settings, World};

/// `ip link set` failed; its own status.
const NOT_SET: u8 = 2;

/// Task of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Task {
    all: bool,
    change_active: bool,
    detach: bool,
    force: bool,
    verbose: bool,
    master: String,
    slaves: Vec<String>,
}

/// The task, or the exit code if the command line already decides it. Options are processed from left to right.
pub(crate) fn plan(words: &[String], console: &mut Console) -> Result<Task, u8> {
    let mut task = Task::default();
    let mut operands = words;
    while let Some((word, rest)) = operands.split_first() {
        match word.as_str() {
            "-a" | "--all-interfaces" => return Ok(Task { all: true, ..task }),
            "-c" | "--change-active" => task.change_active = true,
            "-d" | "--detach" => task.detach = true,
            "-f" | "--force" => task.force = true,
            "-v" | "--verbose" => task.verbose = true,
            "-h" | "--help" => return said(console, DEBIAN_HELP),
            "-u" | "--usage" => return said(console, DEBIAN_USAGE),
            "-V" | "--version" => return said(console, DEBIAN_VERSION),
            "--" => {
                operands = rest;
                break;
            }
            // Any other word is the bond's name.
            _ => break,
        }
        operands = rest;
    }
    match operands {
        [master, slaves @ ..] if !slaves.is_empty() => {
            task.master.clone_from(master);
            task.slaves = slaves.to_vec();
            Ok(task)
        }
        _ => {
            console.complain("ifenslave: not enough arguments, expected a bond and its ports; see ifenslave --usage");
            Err(REFUSED)
        }
    }
}

fn said(console: &mut Console, text: &str) -> Result<Task, u8> {
    console.say(text);
    Err(0)
}

/// Runs the task and returns the exit code.
pub(crate) fn perform(task: &Task, world: &mut dyn World, console: &mut Console) -> u8 {
    let mut run = Run { task, world, console };
    match run.run() {
        Ok(()) => 0,
        Err(Failed { code, why }) => {
            console.complain(&format!("ifenslave: {why}"));
            code
        }
    }
}

/// Reason of a failure, and the exit code.
struct Failed {
    code: u8,
    why: String,
}

fn failed(why: String) -> Failed {
    Failed { code: REFUSED, why }
}

struct Run<'a> {
    task: &'a Task,
    world: &'a mut dyn World,
    console: &'a mut Console,
}

impl Run<'_> {
    fn run(&mut self) -> Result<(), Failed> {
        let task = self.task;
        if task.all {
            // The shell command ignored the status, too.
            if let Err(e) = self.world.show_links() {
                self.console
                    .complain(&format!("ifenslave: cannot list interfaces: {e}"));
            }
            return Ok(());
        }
        let master = &task.master;
        let bonds = self.bonds();
        // Asked afterwards: the agent may have been making it.
        self.world
            .settings(master)
            .map_err(|e| failed(format!("{master}: no such interface ({e})")))?;
        if !bonds?.contains_key(master) {
            return Err(failed(format!("{master} is not a bond of bondd")));
        }
        if task.change_active {
            return self.change_active();
        }
        for slave in &task.slaves {
            if task.detach {
                self.detach(slave)?;
            } else {
                self.enslave(slave)?;
            }
        }
        Ok(())
    }

    fn change_active(&mut self) -> Result<(), Failed> {
        let master = &self.task.master;
        let [slave] = &self.task.slaves[..] else {
            return Err(failed(format!("{master}: only one port can be active")));
        };
        self.note(format!("making {slave} the active port of {master}"));
        let warnings = self
            .world
            .activate(master, slave)
            .map_err(|e| refused(&format!("{slave} cannot become the active port of {master}"), &e))?;
        self.warn(&warnings);
        Ok(())
    }

    fn enslave(&mut self, slave: &str) -> Result<(), Failed> {
        let master = &self.task.master;
        let settings = self.existing(slave)?;
        if self.is_port(slave)? {
            self.console
                .complain(&format!("ifenslave: {slave} is a port of {master} already"));
            return Ok(());
        }
        if settings.hardware_type != libc::ARPHRD_ETHER && !self.task.force {
            return Err(failed(format!(
                "{slave} is not an Ethernet interface (type {}); use -f to force it",
                settings.hardware_type
            )));
        }
        self.note(format!("attaching {slave} to {master}"));
        self.world.set_flags(slave, settings.flags & !UP).map_err(|e| Failed {
            code: NOT_SET,
            why: format!("{slave} cannot be set down: {e}"),
        })?;
        match self.world.attach(master, slave) {
            Ok(warnings) => self.warn(&warnings),
            Err(e) => {
                restore(self.world, self.console, slave, settings);
                return Err(refused(&format!("{slave} cannot be attached to {master}"), &e));
            }
        }
        if let Ok(Some(address)) = self.world.address(slave) {
            self.console.complain(&format!(
                "ifenslave: {slave} keeps its address {address}; what it routes bypasses {master}"
            ));
        }
        Ok(())
    }

    fn detach(&mut self, slave: &str) -> Result<(), Failed> {
        let master = &self.task.master;
        self.existing(slave)?;
        if !self.is_port(slave)? {
            self.console
                .complain(&format!("ifenslave: {slave} is not a port of {master}"));
            return Ok(());
        }
        self.note(format!("detaching {slave} from {master}"));
        let warnings = self
            .world
            .detach(master, slave)
            .map_err(|e| refused(&format!("{slave} cannot be detached from {master}"), &e))?;
        self.warn(&warnings);
        Ok(())
    }

    fn existing(&self, slave: &str) -> Result<Settings, Failed> {
        let settings = self.world.settings(slave);
        settings.map_err(|e| failed(format!("{slave}: no such interface ({e})")))
    }

    fn is_port(&mut self, slave: &str) -> Result<bool, Failed> {
        let bonds = self.bonds()?;
        Ok(bonds
            .get(&self.task.master)
            .is_some_and(|ports| ports.iter().any(|port| port == slave)))
    }

    fn bonds(&mut self) -> Result<Bonds, Failed> {
        self.world.bonds(&self.task.master).map_err(|e| failed(chain(&e)))
    }

    /// Prints warnings of the agent. The shell command had only the kernel's log for those of the driver.
    fn warn(&mut self, warnings: &[String]) {
        for warning in warnings {
            self.console.complain(&format!("ifenslave: warning: {warning}"));
        }
    }

    /// A step, for `-v`.
    fn note(&mut self, line: String) {
        if self.task.verbose {
            self.console.complain(&line);
        }
    }
}

fn refused(what: &str, why: &ClientError) -> Failed {
    failed(format!("{what}: {}", chain(why)))
}

#[cfg(test)]
mod tests;
