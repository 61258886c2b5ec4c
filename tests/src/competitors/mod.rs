//! bondd beside what a user would take instead, in the lab's machine: the kernel's bonding driver, teamd and Open vSwitch. What frames
//! and streams cost in instructions, what failures cost in frames, and whether a slow port holds its senders back.
//! `docs/competitors.md` has the tables, `docs/failover.svg` the picture.

use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;

use self::rival::Rival;
use self::slow_port::SlowPort;
use crate::bins::{bin, root};
use crate::vm::Lab;

pub mod chart;
pub mod costs;
pub mod failover;
pub mod page;
pub mod rival;
pub mod slow_port;
pub mod wire;

/// What a bond costs, in instructions.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Who makes the bond.
    pub name: String,
    /// Whether each flow has a port of its own; else one port sends all.
    pub spread: bool,
    /// Of a frame that is sent, one that is received, 64 KiB of a stream of TCP, and a question with its answer.
    pub instructions: [f64; 4],
}

/// What failures cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// Who makes the bond.
    pub name: String,
    /// How it finds that a port has failed.
    pub how: String,
    /// Whether the carrier stayed.
    pub dead: bool,
    /// Frames lost by each failure, of 10,000 a second, the fewest first.
    pub lost: Vec<u64>,
    /// The longest time without a frame, in microseconds.
    pub longest_gap: u64,
    /// After how many of the failures no frame came any more.
    pub unnoticed: u64,
}

/// All that was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The kernel and the competitors' versions.
    pub setting: String,
    /// The first is the cable without a bond.
    pub costs: Vec<Cost>,
    /// In the order in which they were measured.
    pub failovers: Vec<Failover>,
    /// Likewise.
    pub slow_ports: Vec<SlowPort>,
}

/// The lab's machine with all competitors in it.
#[derive(Debug)]
pub struct Guest<'a> {
    lab: &'a Lab,
    programs: Vec<PathBuf>,
    folder: PathBuf,
}

impl<'a> Guest<'a> {
    /// `programs` are the guest's own.
    ///
    /// # Errors
    /// The packages of the competitors are not unpacked: says so.
    pub fn new(lab: &'a Lab, programs: &[&Path]) -> Result<Guest<'a>, String> {
        let folder = root().join("target/competitors");
        let theirs: Vec<PathBuf> = THEIRS.iter().map(|path| folder.join(path)).collect();
        if let Some(missing) = theirs.iter().find(|path| !path.exists()) {
            return Err(format!(
                "there is no {}, which make competitors gets",
                missing.display()
            ));
        }
        let mut all = vec![bin("bondd"), bin("bondctl")];
        all.extend(programs.iter().map(|path| path.to_path_buf()));
        all.extend(theirs);
        Ok(Guest {
            lab,
            programs: all,
            folder,
        })
    }

    /// Boots one and returns what `bondd-competitors-guest` printed after these words.
    ///
    /// # Panics
    /// When the machine fails.
    fn play(&self, words: &[&str]) -> String {
        let schema = self.folder.join(SCHEMA);
        let schema_there = format!("/{SCHEMA}");
        let files = [(schema.as_path(), schema_there.as_str())];
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| self.folder.join(path));
        let [libraries, more] = libraries.each_ref().map(|path| path.display().to_string());
        let mut arguments = vec![
            "--libraries",
            &libraries,
            "--libraries",
            &more,
            "--env",
            "BONDD_BIN_DIR=/usr/bin",
        ];
        arguments.extend(["--timeout", "7200", "--guest-timeout", "3600", "--"]);
        arguments.push("/usr/bin/bondd-competitors-guest");
        arguments.extend(words);
        let programs: Vec<&Path> = self.programs.iter().map(PathBuf::as_path).collect();
        self.lab.run(MODULES, &programs, &files, &arguments)
    }
}

impl Seen {
    /// What bonds cost and lose.
    ///
    /// # Panics
    /// When the machine fails, or prints something else.
    pub fn measure(guest: &Guest<'_>, frames: u32, pulls: u32) -> Seen {
        let (frames, pulls) = (frames.to_string(), pulls.to_string());
        // The machines count instructions, so that they may run beside each other.
        let said = thread::scope(|scope| {
            let dead = scope.spawn(|| guest.play(&["dead", &pulls]));
            let others = guest.play(&["costs", &frames]) + &guest.play(&["pulled", &pulls]);
            others + &dead.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        Seen::parse(&said).unwrap_or_else(|| panic!("the machine printed\n{said}"))
    }

    /// What becomes of senders whose port is slow, for so many seconds each.
    ///
    /// # Panics
    /// When the machine fails, or prints something else.
    pub fn measure_slow_ports(guest: &Guest<'_>, seconds: u32) -> Seen {
        let (ours, theirs): (Vec<Rival>, Vec<Rival>) = Rival::ALL.into_iter().partition(|rival| rival.is_bondd());
        let play = |rivals: &[Rival]| {
            let seconds = seconds.to_string();
            let names = rivals.iter().map(|rival| rival.name());
            let words: Vec<&str> = ["slow-port", &seconds].into_iter().chain(names).collect();
            guest.play(&words)
        };
        let said = thread::scope(|scope| {
            let theirs = scope.spawn(|| play(&theirs));
            let ours = play(&ours);
            theirs.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) + &ours
        });
        Seen::parse(&said).unwrap_or_else(|| panic!("the machine printed\n{said}"))
    }

    /// Reads what the guest printed.
    fn parse(said: &str) -> Option<Seen> {
        let mut seen = Seen::default();
        for line in said.lines() {
            let value: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| value[name].as_str().map(str::to_owned);
            if let Some(setting) = text("setting") {
                seen.setting = setting;
            } else if let Some(name) = text("cost") {
                let numbers = value["instructions"].as_array()?.iter().map(Value::as_f64);
                let instructions: Vec<f64> = numbers.collect::<Option<_>>()?;
                seen.costs.push(Cost {
                    name,
                    spread: value["spread"].as_bool()?,
                    instructions: instructions.try_into().ok()?,
                });
            } else if text("slow_port").is_some() {
                seen.slow_ports.push(SlowPort::parse(&value)?);
            } else {
                seen.failovers.push(Failover {
                    name: text("failover")?,
                    how: text("how")?,
                    dead: value["dead"].as_bool()?,
                    lost: value["lost"]
                        .as_array()?
                        .iter()
                        .map(Value::as_u64)
                        .collect::<Option<_>>()?,
                    longest_gap: value["longest_gap_us"].as_u64()?,
                    unnoticed: value["unnoticed"].as_u64()?,
                });
            }
        }
        Some(seen)
    }
}

/// Programs of the competitors, in the packages' folder.
const THEIRS: [&str; 6] = [
    "usr/bin/teamd",
    "usr/bin/teamdctl",
    "usr/bin/ovs-vsctl",
    "usr/bin/ovsdb-tool",
    "usr/sbin/ovsdb-server",
    "usr/lib/openvswitch-switch/ovs-vswitchd",
];

const SCHEMA: &str = "usr/share/openvswitch/vswitch.ovsschema";

/// Kernel modules that it needs.
const MODULES: &[&str] = &[
    "bonding",
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "team",
    "team_mode_activebackup",
    "team_mode_loadbalance",
    "openvswitch",
    "sch_tbf",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_prints_is_read_and_nothing_else() {
        let said = "{\"setting\": \"Linux 6.12.9\"}\n\
             {\"cost\": \"teamd\", \"spread\": true, \"instructions\": [1.5, 2, 3, 4]}\n\
             {\"failover\": \"teamd\", \"how\": \"ethtool\", \"dead\": false, \"lost\": [0, 7], \"longest_gap_us\": 800, \
             \"unnoticed\": 0}\n\
             {\"slow_port\": \"teamd\", \"queue\": \"fq_codel\", \"megabits\": 95.5, \"trips_us\": [180, 311], \"waiting\": [1, 2], \
             \"dropped\": 7, \"datagrams\": [8769, 78]}\n";
        let seen = Seen::parse(said).unwrap();
        assert_eq!(seen.setting, "Linux 6.12.9");
        assert_eq!(seen.costs[0].instructions, [1.5, 2.0, 3.0, 4.0]);
        assert!(seen.costs[0].spread);
        assert_eq!(
            (&seen.failovers[0].lost[..], seen.failovers[0].longest_gap),
            (&[0, 7][..], 800)
        );
        assert_eq!(seen.slow_ports[0].trips, [180, 311]);
        assert_eq!(Seen::parse("something else\n"), None);
        assert_eq!(
            Seen::parse("{\"cost\": \"teamd\", \"spread\": true, \"instructions\": [1]}\n"),
            None
        );
    }
}
