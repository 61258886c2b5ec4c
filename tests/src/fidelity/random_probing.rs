//! Random stories of bonds that monitor their links by ARP: paths that die with their carrier on, hosts that fall silent.
//!
//! At least one path and one host is always good: while none is, ports are tried in turn, and no two columns are at the same one.
//! Nothing is announced: to choose the same port again is news to the driver.

use crate::sim::arp::VALIDATE;
use crate::sim::rng::Rng;

/// The story of this seed.
pub fn story(seed: u64) -> String {
    Story::new(seed).tell()
}

struct Story {
    rng: Rng,
    lines: Vec<String>,
    /// Port 0 or 1; there are two, as a third loses patience for a moment in the driver whenever the active one changes.
    attached: [bool; 2],
    blocked: [bool; 2],
    pulled: [bool; 2],
    mute: [bool; 2],
    /// One port is active, and a switch connects them; else each has hosts of its own.
    active_backup: bool,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut rng = Rng::new(seed);
        Story {
            active_backup: rng.chance(70),
            rng,
            lines: Vec::new(),
            attached: [false; 2],
            blocked: [false; 2],
            pulled: [false; 2],
            mute: [false; 2],
        }
    }

    fn tell(mut self) -> String {
        if self.active_backup {
            self.say("switch");
        }
        self.say("host 10.9.0.2");
        self.say("host 10.9.0.3");
        self.bond();
        self.say("address 10.9.0.1/24");
        self.say("up");
        for port in [0, 1] {
            if self.rng.chance(85) {
                self.attached[port] = true;
                self.say(&format!("attach eth{port}"));
            }
        }
        self.rest();
        for _ in 0..4 {
            self.act();
        }
        self.say("asks 500");
        self.lines.join("\n") + "\n"
    }

    fn bond(&mut self) {
        let (modes, options): (&[&str], &[(&str, &[&str])]) = if self.active_backup {
            let options: &[(&str, &[&str])] = &[
                ("arp_validate", &VALIDATE),
                ("arp_missed_max", &["2", "3"]),
                ("primary", &["eth0", "eth1"]),
                ("primary_reselect", &["always", "better", "failure"]),
                ("fail_over_mac", &["none", "active", "follow"]),
            ];
            (&["active-backup"], options)
        } else {
            (
                &["balance-rr", "balance-xor", "broadcast"],
                &[("arp_missed_max", &["2", "3"])],
            )
        };
        let mode = self.rng.pick(modes).expect("there are some");
        let mut line = format!("bond mode={mode} arp_interval=200 arp_ip_target=10.9.0.2,10.9.0.3 num_grat_arp=0");
        for (name, values) in options {
            if self.rng.chance(50) {
                line += &format!(" {name}={}", self.rng.pick(values).expect("there are some"));
            }
        }
        self.say(&line);
    }

    fn act(&mut self) {
        let port = self.rng.below(2) as usize;
        match self.rng.below(100) {
            0..40 if self.active_backup => self.turn_path(port),
            0..40 => self.turn_cable(port),
            40..55 => self.turn_host(port),
            55..70 => self.turn_cable(port),
            70..80 => self.turn_membership(port),
            80..90 if self.active_backup => {
                self.say(&format!("?active eth{port}"));
                self.rest();
            }
            _ => self.option(),
        }
    }

    fn turn_path(&mut self, port: usize) {
        if self.blocked[port] {
            self.say(&format!("unblock eth{port}"));
        } else if self.good(1 - port) {
            self.say(&format!("block eth{port}"));
        } else {
            return;
        }
        self.blocked[port] = !self.blocked[port];
        self.rest();
    }

    fn turn_cable(&mut self, port: usize) {
        if self.pulled[port] {
            self.say(&format!("plug eth{port}"));
        } else if self.good(1 - port) {
            self.say(&format!("pull eth{port}"));
        } else {
            return;
        }
        self.pulled[port] = !self.pulled[port];
        self.rest();
    }

    fn turn_host(&mut self, host: usize) {
        if self.mute[host] {
            self.say(&format!("unmute 10.9.0.{}", 2 + host));
        } else if !self.mute[1 - host] {
            self.say(&format!("mute 10.9.0.{}", 2 + host));
        } else {
            return;
        }
        self.mute[host] = !self.mute[host];
        self.rest();
    }

    fn turn_membership(&mut self, port: usize) {
        self.settle();
        if !self.attached[port] {
            // If such a port is preferred, both are silent for a while; who is given up first depends on the moment.
            if self.blocked[port] {
                return;
            }
            self.say(&format!("attach eth{port}"));
        } else if self.good(1 - port) {
            self.say(&format!("detach eth{port}"));
        } else {
            return;
        }
        self.attached[port] = !self.attached[port];
        self.rest();
    }

    fn option(&mut self) {
        let options = [
            ("arp_missed_max", &["2", "3", "0", "256"][..]),
            ("arp_interval", &["-1", "soon"]),
            (
                "arp_ip_target",
                &["+10.9.0.4", "-10.9.0.4", "+10.9.0.3", "+0.0.0.0", "-10.9.0.9"],
            ),
            ("arp_all_targets", &["any", "2"]),
            ("resend_igmp", &["0", "3", "256"]),
            ("lp_interval", &["5", "0"]),
            ("primary", &["eth0", "eth1", "none"]),
            ("num_grat_arp", &["256", "-1"]),
        ];
        let (name, values) = self.rng.pick(&options).expect("there are some");
        let value = self.rng.pick(values).expect("there are some");
        self.settle();
        self.say(&format!("?set {name} {value}"));
        self.rest();
    }

    /// Whether this port has a good path.
    fn good(&self, port: usize) -> bool {
        self.attached[port] && !self.blocked[port] && !self.pulled[port]
    }

    /// As in the other random stories.
    fn settle(&mut self) {
        if self.active_backup {
            self.say("?active none");
        }
    }

    /// Long enough for a failover or a return.
    fn rest(&mut self) {
        self.say("wait 1400");
        self.say("look");
    }

    fn say(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }
}
