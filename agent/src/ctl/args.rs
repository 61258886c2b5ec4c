//! The command line of `bondctl`: grammar and help.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;

use bond_modes::hash::FIELDS;
use bond_modes::options::{PORT_TABLE, SetWhen, TABLE};
use clap::{Parser, Subcommand};

use crate::config::Grammar;
use crate::config::import::Format;
use crate::control::proto::OptionPairs;
use crate::control::run_dir;

/// Columns that help texts keep to.
const WIDTH: usize = 80;

const EXAMPLES: &str = "\
Exit status:
  0  done; also if the reader of the output closes it early
  1  refused or failed, with the reason on standard error
  2  wrong usage
  3  no bondd answers; see --wait
  (health: 0 to 3 as a Nagios plugin, see health --help)

Examples:
  Make a bond of two ports and give it an address:
      bondctl add bond0 mode active-backup miimon 100
      bondctl port add bond0 eth0 eth1
      ip addr add 192.0.2.10/24 dev bond0 && ip link set bond0 up
  See which port carries the traffic, and the state of the others:
      bondctl show bond0
  Prefer eth0, but use it again only after its link was up for 5 seconds:
      bondctl set bond0 primary=eth0 updelay=5000
  Move the traffic before pulling a cable:
      bondctl active bond0 eth1
  Names of the ports whose link is not up, for a script:
      bondctl -j show | jq -r '.bonds[].ports[] | select(.link != \"up\") | .name'
  Print changes as they happen:
      bondctl monitor";

const ADD_EXAMPLES: &str = "\
Examples:
  bondctl add bond0 mode active-backup
  bondctl add bond0 mode active-backup miimon 100 primary eth0
  bondctl add bond0 mode=1 miimon=50 updelay=200 fail-over-mac=active";

const SET_EXAMPLES: &str = "\
Examples:
  bondctl set bond0 miimon 50
  bondctl set bond0 updelay=300 downdelay=100 primary=eth1
  bondctl set bond0 primary none
  bondctl set bond0 arp_interval 200 arp_ip_target 10.0.0.1,10.0.0.2
  bondctl set bond0 arp_ip_target +10.0.0.5,10.0.0.6
  bondctl set bond0 arp_ip_target -10.0.0.5";

const HASH_EXAMPLES: &str = "\
The source MAC address is the bond's unless smac is given. A number may be written
with 0x.

Examples:
  bondctl hash bond0 src 10.0.0.1 dst 10.0.0.2 proto tcp sport 40000 dport 80
  bondctl hash bond0 src 10.0.0.1 dst 10.0.0.2 dmac 02:00:00:00:00:09
  bondctl hash bond0 ethertype arp dmac ff:ff:ff:ff:ff:ff vlan 100
  bondctl -j hash bond0 src fe80::1 dst fe80::2 type echo id 7 | jq -r '.ports[]'";

const PORT_SET_EXAMPLES: &str = "\
Examples:
  bondctl port set bond0 eth0 prio 10
  bondctl port set bond0 eth1 prio=-5
  bondctl port set bond0 eth1 queue_id 2";

/// Make, change and watch bonds of the agent bondd.
///
/// A bond joins several network interfaces, its ports, into one that works as
/// long as one of them does. bondctl sends commands to the running bondd over its
/// control socket: root and members of group bondd may change bonds, others may
/// read their state if they can connect. Options have the names and values of the
/// kernel's bonding driver.
#[derive(Debug, Parser)]
#[command(name = "bondctl", version, arg_required_else_help = true, after_long_help = EXAMPLES)]
#[command(verbatim_doc_comment)]
pub(super) struct Cli {
    /// Print JSON, for show, health, list, hash, doctor, check and monitor
    ///
    /// `show` prints {"schema":1,"bonds":[...]}; unknown values are null, and later
    /// versions add fields, but never rename or remove one. `list` prints an array of
    /// names, `health`, `hash`, `doctor` and `check` one object, `monitor` one object
    /// per line.
    #[arg(short, long, global = true, verbatim_doc_comment)]
    pub(super) json: bool,

    /// Run directory of bondd [env: BONDD_RUN_DIR] [default: /run/bondd]
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = run_dir(), hide_default_value = true)]
    pub(super) run_dir: PathBuf,

    /// Wait for bondd, and for BOND if a start of bondd is still to come to it
    ///
    /// Changes wait for the end of the start. At most so long; for scripts that have
    /// just started it.
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value_t = 0,
        hide_default_value = true,
        verbatim_doc_comment
    )]
    pub(super) wait: u16,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a bond
    ///
    /// Makes the interface BOND, down and without ports. Options may be given as
    /// `OPTION VALUE` or `OPTION=VALUE`, also mixed; `-` and `_` in their names are
    /// the same. If an option is refused, no bond is made.
    #[command(verbatim_doc_comment, after_long_help = options_help(ADD_EXAMPLES))]
    Add {
        /// Name of the new interface, at most 15 bytes
        bond: String,
        /// Options to start with
        #[arg(value_name = "OPTION VALUE | OPTION=VALUE", allow_negative_numbers = true)]
        options: Vec<String>,
    },
    /// Change options of a bond, all or nothing
    ///
    /// Options may be given as `OPTION VALUE` or `OPTION=VALUE`, also mixed; `-` and
    /// `_` in their names are the same. If an option is refused, nothing changes.
    #[command(verbatim_doc_comment, after_long_help = options_help(SET_EXAMPLES))]
    Set {
        /// Which bond
        bond: String,
        /// Options to change
        #[arg(
            value_name = "OPTION VALUE | OPTION=VALUE",
            required = true,
            allow_negative_numbers = true
        )]
        options: Vec<String>,
    },
    /// Remove a bond and restore its ports
    ///
    /// Restores the address, MTU and flags of each port. The interface BOND is
    /// deleted, with the addresses and routes on it.
    #[command(verbatim_doc_comment)]
    Del {
        /// Which bond
        bond: String,
    },
    /// Show bonds and their ports
    ///
    /// Without BOND: all bonds. LINK is the monitor's verdict after its delays: up,
    /// going down (still used), down, or going back (not used yet), with the time
    /// left. CARRIER is the present signal. DROPPED counts frames that arrived on a
    /// backup port. UNMONITORED marks a bond without a monitor: its dead ports stay
    /// in use. NOT DONE marks a setting that the kernel refused, or that another
    /// program changed; CANNOT BE ATTACHED a port that is tried again later; NOT MADE
    /// a bond of the option files that is tried again later; NOT TAKEN OVER a bond of
    /// an earlier bondd, which forwards as before, unmonitored, and is tried again;
    /// NOT THERE YET a bond whose turn has not come since bondd started.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl show\n  bondctl show bond0\n  bondctl --json show bond0 | jq ."
    )]
    Show {
        /// Which bond
        bond: Option<String>,
    },
    /// Print the state in one line, for monitoring
    ///
    /// The line, its performance data (usable ports) and the exit status are those of
    /// a Nagios plugin:
    ///   0  OK: all ports are usable and monitored
    ///   1  WARNING: a port does not work or is not monitored, a setting is NOT DONE, a
    ///      target does not count, or a bond is NOT THERE YET after a start of bondd
    ///   2  CRITICAL: a bond carries no traffic, or is NOT TAKEN OVER or NOT MADE
    ///   3  UNKNOWN: no such bond, no bonds, no answer of bondd, or wrong usage
    /// Without BOND: all bonds, the worst first.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl health\n  bondctl health bond0 || echo bond0 needs a look"
    )]
    Health {
        /// Which bond
        bond: Option<String>,
    },
    /// List the names of all bonds, one per line
    List,
    /// Attach, detach or change ports
    #[command(subcommand)]
    Port(PortCommand),
    /// Make a port the active one
    ///
    /// The traffic moves at once, if the link of PORT is up. A failover, or a primary
    /// that comes back, moves it again. `none` lets the bond choose.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl active bond0 eth1\n  bondctl active bond0 none"
    )]
    Active {
        /// Which bond
        bond: String,
        /// Name of the port, or none
        #[arg(value_name = "PORT|none")]
        port: String,
    },
    /// Explain which port a flow takes
    ///
    /// Fields of the frames are given as `FIELD VALUE` or `FIELD=VALUE`, also mixed.
    /// In balance-xor the answer is the port, of those that send, that their hash
    /// selects, with the fields that the policy uses; if a field that it needs is
    /// missing, an error names it. In the other modes the answer names the rule that
    /// selects the port. Nothing is sent.
    #[command(verbatim_doc_comment, after_long_help = fields_help())]
    Hash {
        /// Which bond
        bond: String,
        /// Fields of the frames
        #[arg(value_name = "FIELD VALUE | FIELD=VALUE")]
        fields: Vec<String>,
    },
    /// Report what each data plane can do on this machine
    ///
    /// For each plane: whether it is usable here, what is missing if not, and whether
    /// a bond with these options would work exactly on it. The last line names the
    /// plane that such a bond would get; if there is none, the exit status is 1.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl doctor\n  bondctl doctor mode balance-rr packets_per_slave 3"
    )]
    Doctor {
        /// Options of the bond to judge
        #[arg(value_name = "OPTION VALUE | OPTION=VALUE", allow_negative_numbers = true)]
        options: Vec<String>,
    },
    /// Do what modprobe does to the kernel's bonding module
    ///
    /// Makes bond0, or with max_bonds=N the bonds from bond0 to bond(N-1), all with
    /// the same options, down and without ports. A bond that exists already does not
    /// change. If one bond is refused, no bond is made. Used by the `install` and
    /// `remove` lines of modprobe.d(5) that come with bondd.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl modprobe max_bonds=2 mode=1 miimon=100\n  bondctl modprobe --remove"
    )]
    Modprobe {
        /// Remove all bonds, or none if one of them has a port
        #[arg(short, long, conflicts_with = "options")]
        remove: bool,
        /// Parameters of the module; the last value of each counts
        #[arg(value_name = "OPTION=VALUE")]
        options: Vec<String>,
    },
    /// Work as a hook of Debian's ifup and ifdown
    ///
    /// Makes the bond or attaches the port of a stanza of interfaces(5), or undoes
    /// that. ifup and ifdown give the interface, its options and the phase in the
    /// environment. Used by the hook that comes with bondd.
    #[command(verbatim_doc_comment)]
    Ifupdown,
    /// Check option files and print the bonds they make
    ///
    /// FILE is an option file or a folder of *.conf files, by default the folders
    /// that bondd reads. Works without a running bondd. Every finding is printed to
    /// standard error as `FILE:LINE: problem, expected value`; warnings and notes are
    /// marked as such. After an error, with which bondd would not start, the exit
    /// status is 1; otherwise the bonds are printed with their options.
    ///
    /// modules.conf and conf.modules are read as by modutils of Linux 2.4,
    /// modprobe.conf and files in a folder modprobe.d as by kmod, all others by
    /// bondd.conf(5).
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl check\n  bondctl check /etc/modprobe.d\n  \
        bondctl check --grammar modules.conf old/modules.conf.bak\n  \
        bondctl -j check /etc/bondd | jq -r '.findings[] | \"\\(.file):\\(.line) \\(.text)\"'"
    )]
    Check {
        /// Option files, or folders of them
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The grammar of the files [default: by the name and folder of each]
        #[arg(long, value_name = "GRAMMAR", value_enum)]
        grammar: Option<Grammar>,
    },
    /// Print an option file made from another tool's configuration
    ///
    /// PATH is a file, a folder, or - for standard input; by default the tool's own
    /// files. Needs neither bondd nor the tool, and runs no program. Settings that
    /// bondd does not support are printed to standard error as `FILE:LINE: problem,
    /// expected value`, and stay in the option file as comments. If a bond, or a part
    /// of it, could not be imported, the exit status is 1; the rest is printed
    /// nevertheless, and bondd accepts it.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl import --from ifcfg > /etc/bondd/bonds.conf\n  \
        bondctl import --from interfaces /mnt/etc/network/interfaces\n  \
        bondctl import --from dracut\n  \
        echo bond=bond0:eth0,eth1:mode=1 | bondctl import --from dracut -"
    )]
    Import {
        /// The tool whose configuration is read
        #[arg(long, value_name = "FORMAT", value_enum)]
        from: Format,
        /// Files, or folders of them
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Print changes as they happen
    ///
    /// One line per event, with the local time, until interrupted or until bondd
    /// stops. With --json: one object per line, {"event":{"time":...,"bond":...,
    /// "text":...,"notice":{"kind":...}}}.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl monitor\n  \
        bondctl -j monitor bond0 | jq --unbuffered 'select(.event.notice.kind == \"active_changed\")'"
    )]
    Monitor {
        /// Only events of this bond
        bond: Option<String>,
    },
}

impl Command {
    /// The one bond that it is about.
    pub(super) fn bond(&self) -> Option<&str> {
        match self {
            Command::Add { bond, .. }
            | Command::Set { bond, .. }
            | Command::Del { bond }
            | Command::Active { bond, .. }
            | Command::Hash { bond, .. }
            | Command::Port(
                PortCommand::Add { bond, .. } | PortCommand::Del { bond, .. } | PortCommand::Set { bond, .. },
            ) => Some(bond),
            Command::Show { bond } | Command::Health { bond } | Command::Monitor { bond } => bond.as_deref(),
            Command::List
            | Command::Doctor { .. }
            | Command::Modprobe { .. }
            | Command::Ifupdown
            | Command::Check { .. }
            | Command::Import { .. } => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum PortCommand {
    /// Attach interfaces to a bond
    ///
    /// Each gets the settings of the bond (address, MTU, up, IPv6 off) and is used as
    /// soon as its link is up. Every PORT is tried; each refusal is reported, and
    /// makes the exit status 1. An interface that cannot change its address is
    /// accepted as the first port of an active-backup bond, or by one with
    /// fail_over_mac=active.
    #[command(
        verbatim_doc_comment,
        after_long_help = "Examples:\n  bondctl port add bond0 eth0\n  bondctl port add bond0 eth0 eth1"
    )]
    Add {
        /// Which bond
        bond: String,
        /// Names of the interfaces
        #[arg(value_name = "PORT", required = true)]
        ports: Vec<String>,
    },
    /// Detach ports from a bond
    ///
    /// Restores the address, MTU and flags of each port. Every PORT is tried; each
    /// refusal is reported, and makes the exit status 1.
    #[command(verbatim_doc_comment, after_long_help = "Examples:\n  bondctl port del bond0 eth1")]
    Del {
        /// Which bond
        bond: String,
        /// Names of the interfaces
        #[arg(value_name = "PORT", required = true)]
        ports: Vec<String>,
    },
    /// Change options of a port, all or nothing
    #[command(verbatim_doc_comment, after_long_help = port_options_help())]
    Set {
        /// Which bond
        bond: String,
        /// Name of the interface
        port: String,
        /// Options to change
        #[arg(
            value_name = "OPTION VALUE | OPTION=VALUE",
            required = true,
            allow_negative_numbers = true
        )]
        options: Vec<String>,
    },
}

/// The words of the command line, with those that take targets from a list (`-10.0.0.3`) joined to the option before them by a
/// `=`: alone they look like flags.
pub(super) fn join_removed_targets(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(option) if removes_targets(&word) && !option.as_encoded_bytes().starts_with(b"-") => {
                option.push("=");
                option.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

fn removes_targets(word: &OsStr) -> bool {
    let list = word.to_str().and_then(|word| word.strip_prefix('-'));
    list.is_some_and(|list| list.split(',').all(|target| target.parse::<IpAddr>().is_ok()))
}

/// Names and values from words, each pair either two words or one with `=`. An error names the missing part.
pub(super) fn option_pairs(words: &[String]) -> Result<OptionPairs, String> {
    let mut pairs = OptionPairs::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some(pair) => pair,
            None => match words.next() {
                Some(value) => (word.as_str(), value.as_str()),
                None => {
                    return Err(format!(
                        "option '{word}' has no value, expected '{word} VALUE' or '{word}=VALUE'"
                    ));
                }
            },
        };
        if name.is_empty() {
            return Err(format!("'{word}' has no option name, expected OPTION=VALUE"));
        }
        pairs.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(pairs)
}

fn options_help(examples: &str) -> String {
    let mut help = String::from("Options of a bond:\n");
    for row in TABLE {
        let mut text = format!("{} Takes {}.", plain(row.doc), row.expected());
        if !row.default.is_empty() {
            let unit = if row.unit.is_empty() {
                String::new()
            } else {
                format!(" {}", row.unit)
            };
            text += &format!(" Default {}{unit}.", row.default);
        }
        text += match row.set_when {
            SetWhen::Always => "",
            SetWhen::Empty => " Changes only while the bond has no ports.",
            SetWhen::EmptyAndDown => " Changes only while the bond is down and has no ports.",
        };
        let names: Vec<&str> = row.names().collect();
        describe(&mut help, &names.join(", "), &text);
    }
    describe(
        &mut help,
        "plane",
        "Data plane of the bond: the kernel's team driver (team), eBPF programs (tc), or the first of the two that does \
         exactly what the options say (auto). Takes auto, team or tc. Default is that of bondd. Only for a new bond.",
    );
    help + "\n" + examples
}

fn fields_help() -> String {
    let mut help = String::from("Fields of a frame:\n");
    for (name, expected) in FIELDS {
        help += &format!("  {name:<11}{expected}\n");
    }
    help + "\n" + HASH_EXAMPLES
}

fn port_options_help() -> String {
    let mut help = String::from("Options of a port:\n");
    for row in PORT_TABLE {
        describe(
            &mut help,
            row.name,
            &format!("{} Takes {}.", plain(row.doc), row.expected),
        );
    }
    help + "\n" + PORT_SET_EXAMPLES
}

/// A description without the reference to its source in brackets.
fn plain(doc: &str) -> &str {
    match doc.rsplit_once(" [") {
        Some((text, source)) if source.ends_with(']') => text,
        _ => doc,
    }
}

/// Adds a name and, indented below it, its description in lines of at most [`WIDTH`] columns.
fn describe(help: &mut String, name: &str, text: &str) {
    const INDENT: &str = "      ";
    *help += &format!("  {name}\n");
    let mut line = String::from(INDENT);
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            *help += line.trim_end();
            help.push('\n');
            line = String::from(INDENT);
        }
        line += word;
        line.push(' ');
    }
    *help += line.trim_end();
    help.push('\n');
}

#[cfg(test)]
mod tests;
