//! `bondctl hash`: which port a flow takes, and why.
//!
//! Everything is computed here from the agent's report; nothing is sent, and the bond does not change.

use std::fmt::Write;

use bond_modes::hash::{Explanation, FlowError, FlowSpec};
use bond_modes::options::ModeName;
use bond_modes::{BondOptions, Spread, XmitHashPolicy};
use serde::Serialize;
use serde_json::json;

use super::args::option_pairs;
use super::failure::Failure;
use crate::control::proto::{BondReport, SCHEMA};

/// The answer; the JSON has these fields.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    schema: u32,
    bond: String,
    mode: String,
    /// The rule that selects the port.
    choice: Rule,
    /// The ports to choose from, in the order of attaching: those that send now, or in active-backup those that count as up.
    candidates: Vec<String>,
    /// The ports that the frames of the flow leave through: none if they are dropped, several if each frame is copied or may
    /// leave through any of them.
    ports: Vec<String>,
    /// Index of the port in `candidates`, if a hash decides.
    index: Option<usize>,
    /// The computation of the hash, if it decides.
    hash: Option<Explanation>,
    /// The other ports, each with its link state or why it is not attached; for people.
    #[serde(skip)]
    others: Vec<String>,
}

/// The rule that selects the port of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Rule {
    /// The active port sends everything.
    ActivePort,
    /// Each frame is assigned anew, independent of its flow.
    EachFrame,
    /// The hash of its fields.
    Hash,
    /// Every port sends a copy.
    EveryPort,
}

/// Parses a flow from words.
pub(super) fn flow(words: &[String]) -> Result<FlowSpec, Failure> {
    let pairs = option_pairs(words).map_err(Failure::Usage)?;
    FlowSpec::parse(pairs.iter().map(|(field, value)| (field.as_str(), value.as_str()))).map_err(usage)
}

fn usage(error: FlowError) -> Failure {
    Failure::Usage(error.to_string())
}

impl Verdict {
    /// Finds the ports through which the bond in this state sends this flow.
    pub(super) fn new(bond: &BondReport, flow: &FlowSpec) -> Result<Self, Failure> {
        let spread = spread_of(&bond.status.mode).ok_or_else(|| Failure::UnknownMode {
            bond: bond.name.clone(),
            mode: bond.status.mode.clone(),
        })?;
        let one = matches!(spread, Spread::One);
        let (candidates, others): (Vec<_>, Vec<_>) = bond
            .ports
            .iter()
            .partition(|port| if one { port.is_usable() } else { port.sends() });
        let candidates: Vec<String> = candidates.iter().map(|port| port.name.clone()).collect();
        let others = others.iter().map(|port| {
            let why = port
                .status
                .as_ref()
                .map_or(port.absence(), |status| status.link.as_str());
            format!("{} ({why})", port.name)
        });
        let mut verdict = Verdict {
            schema: SCHEMA,
            bond: bond.name.clone(),
            mode: bond.status.mode.clone(),
            choice: Rule::Hash,
            ports: Vec::new(),
            index: None,
            hash: None,
            others: others.collect(),
            candidates,
        };
        match spread {
            Spread::One => {
                verdict.choice = Rule::ActivePort;
                verdict.ports.extend(bond.status.active_port.clone());
            }
            Spread::RoundRobin { .. } => {
                verdict.choice = Rule::EachFrame;
                verdict.ports.clone_from(&verdict.candidates);
            }
            Spread::All => {
                verdict.choice = Rule::EveryPort;
                verdict.ports.clone_from(&verdict.candidates);
            }
            Spread::Hash(_) => verdict.hashed(bond, flow)?,
            Spread::Buckets { .. } => {
                return Err(Failure::UnknownMode {
                    bond: verdict.bond,
                    mode: verdict.mode,
                });
            }
        }
        Ok(verdict)
    }

    fn hashed(&mut self, bond: &BondReport, flow: &FlowSpec) -> Result<(), Failure> {
        let policy = json!(bond.status.options.get("xmit_hash_policy"));
        let policy: XmitHashPolicy = serde_json::from_value(policy)?;
        let explanation = flow.explain(policy, bond.status.mac).map_err(usage)?;
        // No remainder without ports: then nothing is sent.
        if let Some(index) = (explanation.hash as usize).checked_rem(self.candidates.len()) {
            self.index = Some(index);
            self.ports.push(self.candidates[index].clone());
        }
        self.hash = Some(explanation);
        Ok(())
    }

    /// For people, with a line end.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}: {}", self.bond, self.mode);
        if let Some(hash) = &self.hash {
            text += &format!(", xmit_hash_policy {}\n{hash}", hash.policy);
        }
        let candidates: Vec<String> = self
            .candidates
            .iter()
            .enumerate()
            .map(|(i, name)| format!("{i} {name}"))
            .collect();
        text += &format!("\nports    {}", joined(&candidates));
        if !self.others.is_empty() {
            text += &format!("; not {}", self.others.join(", "));
        }
        text += "\nport     ";
        // Writing to a String cannot fail.
        let _ = match (self.choice, self.ports.first(), &self.hash, self.index) {
            (Rule::Hash, Some(port), Some(hash), Some(index)) => {
                write!(text, "{} % {} = {index} -> {port}", hash.hash, self.candidates.len())
            }
            (Rule::ActivePort, Some(port), ..) => write!(text, "{port}, the active port, for every flow"),
            (Rule::EachFrame, Some(_), ..) => {
                write!(text, "not fixed: each frame of a flow may take any of these ports")
            }
            (Rule::EveryPort, Some(_), ..) => write!(text, "a copy through each of {}", self.ports.join(", ")),
            (Rule::ActivePort, None, ..) => write!(text, "none: there is no active port, frames are dropped"),
            _ => write!(text, "none: no port sends, frames are dropped"),
        };
        text.push('\n');
        text
    }
}

/// How the mode of this name spreads traffic; `None` for a mode that this version does not know.
fn spread_of(mode: &str) -> Option<Spread> {
    let (mode, _, _) = ModeName::VALUES.iter().find(|(_, name, _)| *name == mode)?;
    Some(bond_modes::spread(&BondOptions {
        mode: *mode,
        ..BondOptions::default()
    }))
}

fn joined(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::control::proto::PortReport;

    const TCP: &str = "src 192.168.1.10 dst 192.168.1.20 proto=tcp sport 40000 dport 80";

    /// A bond of four ports: up, going back, up, and going down, which does not send while another is up; and one that is absent.
    fn bond(mode: &str) -> BondReport {
        let port = |name: &str, link: &str| {
            let usable = link != "going back";
            let sends = if mode == "active-backup" {
                name == "eth2"
            } else {
                link == "up"
            };
            json!({"name":name,"state":"attached","link":link,"usable":usable,"sends":sends})
        };
        let absent = serde_json::to_value(PortReport::absent("eth9")).unwrap();
        serde_json::from_value(
            json!({"name":"bond0","ifindex":7,"plane":"tc","mode":mode,"mode_number":2,"up":true,
            "carrier":true,"mii_status":"up","mac":"52:54:00:ab:cd:ef","mtu":1500,"active_port":"eth2","primary":null,
            "monitor":"mii","unmonitored":false,"options":{"xmit_hash_policy":"layer3+4"},
            "ports":[port("eth0", "up"), port("eth1", "going back"), port("eth2", "up"),
                port("eth3", "going down"), absent]}),
        )
        .unwrap()
    }

    fn spec(words: &str) -> FlowSpec {
        flow(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    fn text(bond: &BondReport, words: &str) -> String {
        Verdict::new(bond, &spec(words)).unwrap().text()
    }

    #[test]
    fn a_hash_is_shown_with_its_fields_and_the_port_it_names() {
        let wanted = "\
bond0: balance-xor, xmit_hash_policy layer3+4
fields   IP 192.168.1.10 > 192.168.1.20, layer 4 TCP 40000 > 80
hash     fold(0x5000409c of layer 4 ^ 0x1e000000 of IP) >> 1 = 0x27270749
ports    0 eth0, 1 eth2; not eth1 (going back), eth3 (going down), eth9 (absent)
port     656869193 % 2 = 1 -> eth2
";
        assert_eq!(text(&bond("balance-xor"), TCP), wanted);
    }

    #[test]
    fn other_modes_say_what_decides_instead() {
        for (mode, candidates, line) in [
            (
                "active-backup",
                "0 eth0, 1 eth2, 2 eth3",
                "port     eth2, the active port, for every flow\n",
            ),
            (
                "balance-rr",
                "0 eth0, 1 eth2",
                "port     not fixed: each frame of a flow may take any of these ports\n",
            ),
            (
                "broadcast",
                "0 eth0, 1 eth2",
                "port     a copy through each of eth0, eth2\n",
            ),
        ] {
            let text = text(&bond(mode), "dport 80");
            assert!(
                text.starts_with(&format!("bond0: {mode}\nports    {candidates}; not ")),
                "{text}"
            );
            assert!(text.ends_with(line), "{text}");
        }
        let failure = Verdict::new(&bond("802.3ad"), &spec(TCP)).unwrap_err();
        assert_eq!(failure.status(), 1);
        assert!(failure.to_string().contains("mode 802.3ad"), "{failure}");
    }

    #[test]
    fn without_a_port_the_flow_has_none() {
        for mode in ["active-backup", "balance-rr", "balance-xor", "broadcast"] {
            let mut bond = bond(mode);
            bond.ports.clear();
            bond.status.active_port = None;
            let text = text(&bond, TCP);
            assert!(text.contains("\nports    none\nport     none: "), "{text}");
            assert!(text.ends_with(", frames are dropped\n"), "{text}");
        }
    }

    #[test]
    fn the_json_has_every_field_in_every_mode() {
        let value = |mode: &str| serde_json::to_value(Verdict::new(&bond(mode), &spec(TCP)).unwrap()).unwrap();
        let hashed = value("balance-xor");
        assert_eq!(hashed["ports"], json!(["eth2"]));
        assert_eq!((&hashed["choice"], &hashed["index"]), (&json!("hash"), &json!(1)));
        assert_eq!(hashed["hash"]["hash"], 656_869_193);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let documented = [
            "bond",
            "candidates",
            "choice",
            "hash",
            "index",
            "mode",
            "ports",
            "schema",
        ];
        assert_eq!(keys(&hashed), documented.map(str::to_owned).into());
        for mode in ["active-backup", "balance-rr", "broadcast"] {
            let other = value(mode);
            assert_eq!(keys(&other), keys(&hashed));
            assert_eq!((&other["hash"], &other["index"]), (&Value::Null, &Value::Null));
        }
    }

    #[test]
    fn wrong_or_missing_fields_are_wrong_usage() {
        let failure = flow(&["colour".to_owned(), "red".to_owned()]).unwrap_err();
        assert_eq!(failure.status(), 2);
        let failure = flow(&["src".to_owned()]).unwrap_err();
        assert_eq!(failure.status(), 2);
        let failure = Verdict::new(&bond("balance-xor"), &spec("src ::1 dst ::2")).unwrap_err();
        assert_eq!(failure.status(), 2);
        assert!(
            failure
                .to_string()
                .contains("policy layer3+4 chooses by fields that are not given: add proto")
        );
    }

    #[test]
    fn an_earlier_agent_does_not_report_which_ports_send_so_usable_ones_count() {
        let mut report = serde_json::to_value(bond("balance-xor")).unwrap();
        for port in report["ports"].as_array_mut().unwrap() {
            port.as_object_mut().unwrap().remove("sends");
        }
        let verdict = Verdict::new(&serde_json::from_value(report).unwrap(), &spec(TCP)).unwrap();
        assert_eq!(verdict.candidates, ["eth0", "eth2", "eth3"]);
    }

    #[test]
    fn a_policy_from_the_future_is_not_guessed() {
        let mut bond = bond("balance-xor");
        bond.status.options.clear();
        assert!(matches!(Verdict::new(&bond, &spec(TCP)), Err(Failure::Answer(_))));
    }
}
