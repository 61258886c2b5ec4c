//! Scenarios from a seed: the same seed gives the same text.

use super::random_probing;
use super::scenario::Scenario;
use crate::sim::rng::Rng;

/// The scenario of this seed.
///
/// # Panics
/// When the generator writes what the language does not know.
pub fn scenario(seed: u64) -> Scenario {
    let name = format!("{PREFIX}{seed}");
    // Every fourth.
    let text = match seed % 4 {
        3 => random_probing::story(seed),
        _ => Story::new(seed).tell(),
    };
    Scenario::parse(&name, &text).unwrap_or_else(|e| panic!("the generator wrote what nobody can read: {e}"))
}

/// The seed of a scenario made here; none of a written one.
pub fn seed(scenario: &Scenario) -> Option<u64> {
    scenario.name.strip_prefix(PREFIX)?.parse().ok()
}

const PREFIX: &str = "random_";

/// The generator's state of the story.
struct Story {
    rng: Rng,
    lines: Vec<String>,
    mode: &'static str,
    ports: u64,
    attached: Vec<bool>,
    pulled: Vec<bool>,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut rng = Rng::new(seed);
        let ports = 2 + rng.below(2);
        let all = vec![false; ports as usize];
        let mode = match rng.below(100) {
            0..60 => "active-backup",
            60..73 => "balance-rr",
            73..87 => "balance-xor",
            _ => "broadcast",
        };
        Story {
            rng,
            lines: vec![format!("ports {ports}")],
            mode,
            ports,
            attached: all.clone(),
            pulled: all,
        }
    }

    fn tell(mut self) -> String {
        self.bond();
        let mut order: Vec<u64> = (0..self.ports).collect();
        if self.rng.chance(50) {
            order.reverse();
        }
        for port in order {
            if self.rng.chance(85) {
                self.attached[port as usize] = true;
                self.lines.push(format!("attach eth{port}"));
            }
        }
        self.lines.push("up".to_owned());
        self.rest();
        for _ in 0..5 {
            self.act();
        }
        self.lines.push("look".to_owned());
        self.lines.join("\n") + "\n"
    }

    fn bond(&mut self) {
        let mut line = format!("bond mode={} miimon=50", self.mode);
        let options: &[(u64, &str, &[&str])] = match self.mode {
            "active-backup" => &[
                (25, "primary", &["eth0", "eth1", "eth2"]),
                (25, "primary_reselect", &["always", "better", "failure"]),
                (25, "fail_over_mac", &["none", "active", "follow"]),
                (20, "updelay", &["100", "200"]),
            ],
            "balance-rr" => &[(50, "packets_per_slave", &["1", "2", "5"])],
            "balance-xor" => &[(80, "xmit_hash_policy", &POLICIES), (20, "updelay", &["100", "200"])],
            _ => &[(20, "min_links", &["1", "2"])],
        };
        for (percent, name, values) in options {
            if self.rng.chance(*percent) {
                line += &format!(" {name}={}", self.rng.pick(values).expect("there are some"));
            }
        }
        self.lines.push(line);
    }

    fn act(&mut self) {
        let port = self.rng.below(self.ports) as usize;
        match self.rng.below(100) {
            0..45 => {
                let verb = if self.pulled[port] { "plug" } else { "pull" };
                self.pulled[port] = !self.pulled[port];
                self.lines.push(format!("{verb} eth{port}"));
                self.rest();
            }
            45..60 => {
                let verb = if self.attached[port] { "detach" } else { "attach" };
                self.attached[port] = !self.attached[port];
                self.settle();
                self.lines.push(format!("{verb} eth{port}"));
                self.rest();
            }
            60..70 => {
                self.lines.push(format!("?active eth{port}"));
                self.look();
            }
            70..75 => {
                self.lines.push("?active none".to_owned());
                self.look();
            }
            75..80 => {
                let prio = self.rng.below(3);
                self.settle();
                self.lines.push(format!("?port eth{port} prio {prio}"));
                self.look();
            }
            80..90 => self.send(),
            _ => self.option(),
        }
    }

    fn send(&mut self) {
        // Turns over dead ports are a wanted difference of their own.
        if self.mode == "balance-rr" && self.attached.iter().zip(&self.pulled).any(|(a, p)| *a && *p) {
            return;
        }
        let kinds = ["udp4", "tcp4", "udp6", "tcp6", "icmp4", "frag4", "arp", "raw"];
        let kind = self.rng.pick(&kinds).expect("there are some");
        let seed = self.rng.below(1000);
        self.lines
            .push(format!("send 12 {kind} vary=smac,dmac,sip,dip,sport,dport seed={seed}"));
    }

    fn option(&mut self) {
        let options = [
            ("primary", &["eth0", "eth1", "none"][..]),
            ("primary_reselect", &["always", "better", "failure", "default", "never"]),
            ("fail_over_mac", &["none", "active"]),
            ("downdelay", &["0", "-5"]),
            ("packets_per_slave", &["1", "3", "70000"]),
            ("xmit_hash_policy", &POLICIES),
            ("num_grat_arp", &["0", "2", "256"]),
            ("all_slaves_active", &["0", "1", "2"]),
            ("min_links", &["0", "2", "-1"]),
            ("mode", &["active-backup", "balance-rr"]),
        ];
        let (name, values) = self.rng.pick(&options).expect("there are some");
        self.settle();
        let value = self.rng.pick(values).expect("there are some");
        self.lines.push(format!("?set {name} {value}"));
        self.look();
    }

    /// Whenever the driver has a reason to select, it goes to the best port of the list; bondd stays where it is. That is a wanted
    /// difference of its own: both are made to choose before there is such a reason.
    fn settle(&mut self) {
        if self.mode == "active-backup" {
            self.lines.push("?active none".to_owned());
        }
    }

    /// Long enough for a poll and the longest updelay that is drawn.
    fn rest(&mut self) {
        self.lines.push("wait 300".to_owned());
        self.look();
    }

    fn look(&mut self) {
        self.lines.push("look".to_owned());
    }
}

const POLICIES: [&str; 6] = ["layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_gives_a_readable_scenario_and_always_the_same() {
        for seed in 0..500 {
            assert_eq!(scenario(seed).text, scenario(seed).text);
            assert!(scenario(seed).steps.len() > 5);
        }
    }
}
