//! `bondctl`: one command a run, over the control socket.
//!
//! Exit status: 0 done, 1 refused or failed, 2 usage, 3 no daemon. A closed pipe is success, because the reader has read
//! enough.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, CommandFactory, Parser};
use serde_json::Value;

use self::args::{Cli, Command, PortCommand, join_removed_targets, option_pairs};
use self::failure::Failure;
use self::health::{Health, Level};
use crate::control::client::{Client, ClientError, PAUSE};
use crate::control::proto::{Call, DoctorReport, ErrorCode, OptionPairs, Report, warnings};
use crate::text::chain;

mod args;
mod check;
mod doctor;
mod failure;
mod hash;
mod health;
mod ifupdown;
mod import;
mod modprobe;
mod monitor;
mod show;

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(join_removed_targets(env::args_os())) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && is_health() => {
            // If this fails, there is no way left to report it.
            let _ = error.print();
            return ExitCode::from(Level::Unknown as u8);
        }
        Err(error) => match to_come(&error) {
            Some(why) => Cli::command().error(ErrorKind::InvalidSubcommand, why).exit(),
            None => error.exit(),
        },
    };
    let outcome = run(&cli, &mut io::stdout().lock(), &mut io::stderr().lock());
    ExitCode::from(match outcome {
        Ok(()) => 0,
        Err(Failure::Usage(why)) => used_command().error(ErrorKind::InvalidValue, why).exit(),
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(failure @ (Failure::Unhealthy(_) | Failure::NoPlane)) => failure.status(),
        Err(failure) => {
            // If this fails, there is no way left to report it.
            let _ = complain(&mut io::stderr(), &failure);
            failure.status()
        }
    })
}

/// What to say of a command that is still to come, instead of the names of others that look like it.
fn to_come(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) if TO_COME.contains(&name.as_str()) => {
            Some(format!("bondctl does not have '{name}' yet"))
        }
        _ => None,
    }
}

/// Commands that this version does not have yet.
const TO_COME: [&str; 4] = ["history", "reload", "metrics", "completion"];

/// Whether the wrong command line is one of `health`, whose status must be 3, because 2 means critical. [Nagios Plugin
/// Development Guidelines: return codes]
fn is_health() -> bool {
    let words = Cli::command().ignore_errors(true).try_get_matches();
    words.is_ok_and(|words| words.subcommand_name() == Some("health"))
}

/// The subcommand of the command line, for its usage.
fn used_command() -> clap::Command {
    let mut command = Cli::command();
    let words = command.clone().ignore_errors(true);
    let mut matches = words.try_get_matches_from(join_removed_targets(env::args_os())).ok();
    command.build();
    while let Some((name, below)) = matches.as_ref().and_then(ArgMatches::subcommand) {
        let Some(found) = command.find_subcommand(name) else {
            break;
        };
        command = found.clone();
        matches = Some(below.clone());
    }
    command
}

fn run(cli: &Cli, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let options = |words: &[String]| option_pairs(words).map_err(Failure::Usage);
    let call = match &cli.command {
        Command::Show { bond } => return show(cli, bond.clone(), out),
        Command::Health { bond } => return health(cli, bond.clone(), out),
        Command::List => return list(cli, out),
        Command::Hash { bond, fields } => return explain(cli, bond, fields, out),
        Command::Doctor { options: words } => return diagnose(cli, options(words)?, out),
        Command::Check { files, grammar } => return check::check(files, *grammar, cli.json, out, err),
        Command::Import { from, paths } => return import::import(*from, paths, out, err),
        Command::Monitor { bond } => return follow(cli, bond.clone(), out, err),
        Command::Modprobe { remove: true, .. } => return modprobe::remove(&mut connect(cli)?),
        Command::Modprobe { options, .. } => return modprobe::load(&mut connect(cli)?, options, err),
        Command::Ifupdown => return ifupdown::hook(&cli.run_dir, err),
        Command::Port(PortCommand::Add { bond, ports }) => {
            return each_port(cli, ports, err, |port| Call::PortAttach {
                bond: bond.clone(),
                port,
            });
        }
        Command::Port(PortCommand::Del { bond, ports }) => {
            return each_port(cli, ports, err, |port| Call::PortDetach {
                bond: bond.clone(),
                port,
            });
        }
        Command::Port(PortCommand::Set {
            bond,
            port,
            options: words,
        }) => Call::PortSet {
            bond: bond.clone(),
            port: port.clone(),
            options: options(words)?,
        },
        Command::Add { bond, options: words } => Call::Add {
            bond: bond.clone(),
            options: options(words)?,
        },
        Command::Set { bond, options: words } => Call::Set {
            bond: bond.clone(),
            options: options(words)?,
        },
        Command::Del { bond } => Call::Del { bond: bond.clone() },
        Command::Active { bond, port } => Call::Active {
            bond: bond.clone(),
            port: Some(port.clone()).filter(|port| port != "none"),
        },
    };
    let answer = connect(cli)?.call(&call)?;
    Ok(warn(err, &answer)?)
}

fn show(cli: &Cli, bond: Option<String>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut client = connect(cli)?;
    if cli.json {
        writeln!(out, "{}", client.call(&Call::Show { bond })?)?;
    } else {
        out.write_all(show::report(&client.report(bond)?).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn health(cli: &Cli, bond: Option<String>, out: &mut dyn Write) -> Result<(), Failure> {
    let asked = connect(cli).and_then(|mut client| asked_for_health(&mut client, bond));
    let health = asked.map_or_else(|why| Health::unknown(&why), |report| Health::new(&report));
    if cli.json {
        writeln!(out, "{}", serde_json::to_string(&health)?)?;
    } else {
        out.write_all(health.text().as_bytes())?;
    }
    out.flush()?;
    match health.state {
        Level::Ok => Ok(()),
        level => Err(Failure::Unhealthy(level)),
    }
}

/// As `show`, but one bond may also be one that waits.
fn asked_for_health(client: &mut Client, bond: Option<String>) -> Result<Report, ClientError> {
    match (client.report(bond.clone()), bond) {
        (Err(ClientError::Refused(why)), Some(name)) if why.code == ErrorCode::NoSuchBond => {
            let mut report = client.report(None)?;
            report.bonds.clear();
            report.waiting.retain(|waiting| waiting.name == name);
            match report.waiting.is_empty() {
                true => Err(why.into()),
                false => Ok(report),
            }
        }
        (asked, _) => asked,
    }
}

fn diagnose(cli: &Cli, options: OptionPairs, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = connect(cli)?.call(&Call::Doctor { options })?;
    let report: DoctorReport = serde_json::from_value(answer.clone())?;
    if cli.json {
        writeln!(out, "{answer}")?;
    } else {
        out.write_all(doctor::report(&report).as_bytes())?;
    }
    out.flush()?;
    report.choice.map(drop).ok_or(Failure::NoPlane)
}

fn explain(cli: &Cli, bond: &str, fields: &[String], out: &mut dyn Write) -> Result<(), Failure> {
    let flow = hash::flow(fields)?;
    let report = connect(cli)?.report(Some(bond.to_owned()))?;
    let bond = report
        .bonds
        .first()
        .ok_or_else(|| Failure::NotReported { bond: bond.to_owned() })?;
    let verdict = hash::Verdict::new(bond, &flow)?;
    if cli.json {
        writeln!(out, "{}", serde_json::to_string(&verdict)?)?;
    } else {
        out.write_all(verdict.text().as_bytes())?;
    }
    Ok(out.flush()?)
}

fn list(cli: &Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = connect(cli)?.call(&Call::List {})?;
    if cli.json {
        writeln!(out, "{answer}")?;
    } else {
        let names: Vec<String> = serde_json::from_value(answer)?;
        for name in names {
            writeln!(out, "{name}")?;
        }
    }
    Ok(out.flush()?)
}

/// With `--wait` both bondd and the named bond are waited for, and so is the answer, which for a change comes after a start.
fn connect(cli: &Cli) -> Result<Client, ClientError> {
    let deadline = Instant::now() + Duration::from_secs(cli.wait.into());
    let mut client = loop {
        match Client::connect(&cli.run_dir) {
            Err(ClientError::NoDaemon { .. }) if Instant::now() < deadline => thread::sleep(PAUSE),
            connected => break connected?,
        }
    };
    client.wait_for_answers(deadline);
    if let Some(bond) = cli.command.bond().filter(|_| cli.wait > 0) {
        client.report_once_started(bond, deadline)?;
    }
    Ok(client)
}

/// Tries every port; a refusal is reported and does not stop the others.
fn each_port(cli: &Cli, ports: &[String], err: &mut dyn Write, call: impl Fn(String) -> Call) -> Result<(), Failure> {
    let mut client = connect(cli)?;
    let mut refused = Vec::new();
    for port in ports {
        match client.call(&call(port.clone())) {
            Ok(answer) => warn(err, &answer)?,
            Err(e @ ClientError::Refused(_)) => refused.push(e),
            Err(e) => return Err(e.into()),
        }
    }
    match refused.len() {
        0 => Ok(()),
        1 if ports.len() == 1 => Err(refused.remove(0).into()),
        failed => {
            for error in &refused {
                complain(err, error)?;
            }
            Err(Failure::Ports {
                failed,
                tried: ports.len(),
            })
        }
    }
}

fn follow(cli: &Cli, bond: Option<String>, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    for event in connect(cli)?.monitor(bond)? {
        let event = event?;
        if cli.json {
            writeln!(out, "{event}")?;
        } else {
            writeln!(out, "{}", monitor::line(&event))?;
        }
        out.flush()?;
    }
    Ok(writeln!(err, "bondctl: bondd stopped")?)
}

/// Prints the warnings of an answer.
fn warn(err: &mut dyn Write, answer: &Value) -> io::Result<()> {
    for warning in warnings(answer) {
        writeln!(err, "bondctl: warning: {warning}")?;
    }
    Ok(())
}

/// One line with the whole chain of causes.
fn complain(err: &mut dyn Write, error: &dyn Error) -> io::Result<()> {
    writeln!(err, "bondctl: {}", chain(error))
}

#[cfg(test)]
mod tests;
