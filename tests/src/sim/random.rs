//! Seeded random walks of a [`World`], with invariants checked after each step.

mod checks;
mod choices;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bond_modes::options::ModeName;
use bond_modes::{LocalAddress, Machine, Notice, PortId, Saved};
use bond_monitors::wire::ethernet::Tag;
use bond_monitors::{Carrier, LinkState, MacAddr, Time};

use self::choices::{BAD, BEGINNINGS, GOOD, HOSTS};
use super::kernel::{PlanFailures, Undone};
use super::rng::Rng;
use super::world::{AttachFails, SetsMac, Slow, World};

/// One random walk.
pub struct Walk {
    world: World,
    rng: Rng,
    /// State as it was saved before the last step.
    stale: Saved,
    dead: BTreeMap<PortId, Dead>,
    names: u32,
}

/// How long a port has been without carrier while it was watched under the same rules.
#[derive(Clone, Copy, Debug)]
struct Dead {
    since: Time,
    /// How long the agent had been held up by then.
    held_up: Duration,
    /// The longest time that detection and downdelay may take.
    limit: Duration,
}

impl Walk {
    /// The walk of this seed, before its first step.
    pub fn new(seed: u64) -> Walk {
        let mut rng = Rng::new(seed);
        let mut world = World::empty(rng.pick(&BEGINNINGS).expect("there are some"));
        for _ in 0..rng.below(4) {
            // Some options do not go together; then the bond begins with fewer.
            let _ = world.try_set(rng.pick(&GOOD).expect("there are some"));
        }
        let address = |tags| LocalAddress {
            ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            mac: None,
            tags,
            router: false,
        };
        world.addresses(vec![address(vec![]), address(vec![Tag::c(7)])]);
        for name in ["a", "b", "c", "d"] {
            world.plug(name);
        }
        world.net.hosts.extend(HOSTS);
        world.fails_over(seed % 2 == 1);
        let stale = world.bond.saved();
        Walk {
            world,
            rng,
            stale,
            dead: BTreeMap::new(),
            names: 0,
        }
    }

    /// Prints every action from now on.
    pub fn print(&mut self) {
        self.world.print();
    }

    /// One random action, then the checks.
    pub fn step(&mut self) {
        let before = self.world.bond.saved();
        let rules = self.world.bond.options().clone();
        self.act();
        let timers_ran = self.rng.chance(80);
        if timers_ran {
            self.world.run_due();
        }
        self.check_detection(timers_ran);
        if rules != *self.world.bond.options() {
            self.rules_changed();
        }
        self.check_plan();
        self.check_guest();
        self.check_failovers();
        self.world.clear();
        self.stale = before;
    }

    /// Everything is mended; soon all must be well.
    pub fn finish(mut self) -> u64 {
        let world = &mut self.world;
        world.events_seen = true;
        world.events_late = false;
        world.deliver_events();
        world.kernel.failures = PlanFailures::default();
        world.net.dead.clear();
        world.net.hosts.extend(HOSTS);
        world.net.loss = 0;
        world
            .up(true)
            .set("arp_interval=100 arp_ip_target=10.0.0.2 arp_validate=all");
        self.all_come_up();
        let world = &mut self.world;
        world.set("miimon=100").set("updelay=0 downdelay=0");
        // A delay that runs keeps its end, which may be weeks away: all links start anew.
        let ids: Vec<PortId> = world.kernel.nics.keys().copied().collect();
        for carrier in [Carrier::Off, Carrier::On] {
            for id in &ids {
                world.set_carrier(*id, carrier);
            }
            world.run_due();
        }
        self.all_come_up();
        self.world.trace()
    }

    fn all_come_up(&mut self) {
        let world = &mut self.world;
        let ids: Vec<PortId> = world.kernel.nics.keys().copied().collect();
        for id in ids {
            world.set_carrier(id, Carrier::On);
        }
        world.run_due().after_ms(3000);
        assert!(world.programmed, "a plan that failed is tried until it comes about");
        let mut links = world.bond.ports().iter().map(|port| port.link());
        assert!(
            links.all(|link| link == LinkState::Up),
            "every mended port is up in the end"
        );
        self.check_plan();
    }

    fn act(&mut self) {
        match self.rng.below(100) {
            0..20 => self.flip_carrier(),
            20..25 => self.network(),
            25..28 => self.world.slow = Some(slow_turn(&mut self.rng)),
            28..29 => self.calm(),
            29..50 => self.next_deadline(),
            50..60 => {
                let ms = self.rng.below(400);
                self.world.after_ms(ms);
            }
            60..63 => self.attach(),
            63..64 => self.fail_to_attach(),
            64..67 => self.remove(),
            67..69 => self.rename(),
            69..73 => {
                let up = self.rng.chance(70);
                self.world.up(up);
            }
            73..75 => self.operator(),
            75..83 => self.set_option(),
            83..87 => self.set_active(),
            87..89 => self.set_prio(),
            89..92 => {
                let undone = [Undone::All, Undone::AllButPorts, Undone::Else];
                self.world.kernel.failures = PlanFailures {
                    left: self.rng.below(4) as u32,
                    undone: *self.rng.pick(&undone).expect("there are some"),
                    retry: true,
                }
            }
            92..93 => self.world.events_seen = self.rng.chance(60),
            93..94 => self.late_events(),
            _ => self.crash(),
        }
    }

    fn next_deadline(&mut self) {
        if let Some(due) = self.world.bond.poll_timeout() {
            // Nobody waits for the end of a delay of weeks.
            let latest = self.world.now() + Duration::from_secs(2);
            self.world.at(due.min(latest));
        }
    }

    fn flip_carrier(&mut self) {
        let ids = self.nics(|_| true);
        let Some(id) = self.rng.pick(&ids).copied() else { return };
        let on = !self.world.kernel.nics[&id].report.carrier.is_on();
        self.dead.remove(&id);
        self.world.set_carrier(id, Carrier::from_bool(on));
    }

    /// Something beyond the cables goes wrong or is mended.
    fn network(&mut self) {
        let net = &mut self.world.net;
        match self.rng.below(5) {
            4 => net.chatter = Duration::from_millis(self.rng.below(3) * 10),
            0 => net.loss = self.rng.below(3) * 10,
            1 => {
                let host = HOSTS[self.rng.below(HOSTS.len() as u64) as usize];
                if !net.hosts.remove(&host) {
                    net.hosts.insert(host);
                }
            }
            _ => {
                let ids = self.nics(|_| true);
                let Some(id) = self.rng.pick(&ids).copied() else { return };
                self.dead.remove(&id);
                let dead = &mut self.world.net.dead;
                if !dead.remove(&id) {
                    dead.insert(id);
                }
            }
        }
    }

    /// Nothing is wrong with any port for a while, but the agent is held up again and again: no port may be blamed for that.
    fn calm(&mut self) {
        let world = &mut self.world;
        world.kernel.failures = PlanFailures::default();
        world.net.dead.clear();
        world.net.hosts.extend(HOSTS);
        world.net.loss = 0;
        let ids: Vec<PortId> = world.kernel.nics.keys().copied().collect();
        for id in ids {
            world.set_carrier(id, Carrier::On);
        }
        world.deliver_events();
        world.up(true).after_ms(1500).clear();
        for _ in 0..2 + self.rng.below(20) {
            self.world.slow = Some(slow_turn(&mut self.rng));
            // A data plane that fails over by itself sees every loss, however short.
            if self.rng.chance(30) && !self.world.kernel.fails_over {
                self.stale_events();
            }
            // The first frame that answers a round is read in a turn of its own; so that turn may be the one that blocks.
            let ms = if self.rng.chance(50) { 1 } else { self.rng.below(200) };
            self.world.after_ms(ms);
        }
        self.dead.clear();
        let blamed = self.world.notices.iter().find(|(_, notice)| {
            matches!(
                notice,
                Notice::Silent { .. } | Notice::Down { .. } | Notice::GoingDown { .. }
            )
        });
        assert_eq!(blamed, None, "a port is blamed while only the agent was held up");
    }

    /// Link events come late from now on, in time again, or all that wait at once, perhaps behind a reading of everything.
    fn late_events(&mut self) {
        match self.rng.below(5) {
            0 => self.world.events_late = true,
            1 => {
                self.world.overrun();
            }
            2 => {
                self.world.deliver_losses();
            }
            _ => {
                self.world.events_late = false;
                self.world.deliver_events();
            }
        }
    }

    /// Events from when a port was without carrier for no time at all are read after it has it again, perhaps behind a reading
    /// of everything.
    fn stale_events(&mut self) {
        let ids = self.nics(|attached| attached);
        let Some(id) = self.rng.pick(&ids).copied() else { return };
        let late = std::mem::replace(&mut self.world.events_late, true);
        for carrier in [Carrier::Off, Carrier::On] {
            self.world.set_carrier(id, carrier);
        }
        self.world.events_late = late;
        if self.rng.chance(50) {
            self.world.overrun();
        } else {
            self.world.deliver_events();
        }
    }

    fn fail_to_attach(&mut self) {
        if let Some(name) = self.some_nic(false) {
            let fails = if self.rng.chance(50) {
                AttachFails::BeforeTold
            } else {
                AttachFails::AfterTold
            };
            self.world.fail_to_attach(&name, fails);
        }
    }

    fn attach(&mut self) {
        if self.world.kernel.nics.len() < 4 {
            self.names += 1;
            let name = format!("n{}", self.names);
            self.world.plug(&name);
        }
        if let Some(name) = self.some_nic(false) {
            self.world.attach(&name);
        }
    }

    fn remove(&mut self) {
        let Some(name) = self.some_nic(true) else { return };
        if self.rng.chance(60) {
            self.world.detach(&name);
        } else {
            self.world.vanish(&name);
        }
    }

    fn rename(&mut self) {
        let Some(name) = self.some_nic(true) else { return };
        self.names += 1;
        let free = ["a", "b", "c", "d"]
            .into_iter()
            .find(|name| self.world.kernel.named(name).is_none());
        let to = free.map_or_else(|| format!("n{}", self.names), str::to_owned);
        self.world.rename(&name, &to);
    }

    /// The operator changes the bond's interface.
    fn operator(&mut self) {
        let mac = MacAddr([6, 0, 0, 0, 0, self.rng.below(4) as u8]);
        match self.rng.below(4) {
            0 => {
                self.world.set_mac(mac);
            }
            1 => {
                let after = self.rng.below(4) as u32;
                self.world.operator = Some(SetsMac { after, mac });
            }
            _ => {
                let mtu = 1400 + self.rng.below(3) as u32 * 100;
                self.world.set_mtu(mtu);
            }
        }
    }

    /// One to three options, good or bad; a refusal leaves all as it was.
    fn set_option(&mut self) {
        let count = 1 + self.rng.below(3);
        let words: Vec<&str> = (0..count)
            .map(|_| {
                let from: &[&str] = if self.rng.chance(15) { &BAD } else { &GOOD };
                *self.rng.pick(from).expect("there are some")
            })
            .collect();
        self.all_or_nothing(&words.join(" "));
    }

    fn set_active(&mut self) {
        let name = match self.rng.below(4) {
            0 => String::new(),
            1 => "absent".to_owned(),
            _ => self.some_nic(true).unwrap_or_default(),
        };
        let more = if self.rng.chance(20) { " primary=b" } else { "" };
        self.all_or_nothing(&format!("active_slave={name}{more}"));
    }

    fn all_or_nothing(&mut self, options: &str) {
        // What is due anyway must not be taken for a consequence.
        self.world.slow = None;
        self.world.operator = None;
        self.world.run_due();
        let before = self.world.bond.saved();
        if self.world.try_set(options).is_err() {
            assert_eq!(
                before,
                self.world.bond.saved(),
                "a refused set of options changes nothing"
            );
        }
    }

    fn set_prio(&mut self) {
        // Elsewhere it is refused; a rule test shows that.
        if self.world.bond.options().mode != ModeName::ActiveBackup {
            return;
        }
        if let Some(name) = self.some_nic(true) {
            let prio = self.rng.below(3) as i32 - 1;
            self.world.prio(&name, prio);
        }
    }

    fn crash(&mut self) {
        match self.rng.below(10) {
            0 => {
                self.world.restart(None);
                self.rules_changed();
            }
            1 => {
                let stale = through_json(&self.stale);
                self.world.restart(Some(stale));
                self.rules_changed();
            }
            2 if self.world.kernel.fails_over => self.be_away(),
            _ => {
                self.crash_with_fresh_state();
                if self.world.bond.options().asks_targets() {
                    // Nobody probed while no agent ran, so ports have their time anew.
                    self.rules_changed();
                }
            }
        }
    }

    /// Cables are pulled and plugged in while no agent runs.
    fn be_away(&mut self) {
        self.world.run_due();
        let saved = through_json(&self.world.bond.saved());
        let ids = self.nics(|attached| attached);
        for _ in 0..self.rng.below(5) {
            let Some(id) = self.rng.pick(&ids).copied() else { break };
            let on = self.world.kernel.nics[&id].report.carrier.is_on();
            let now = self.world.now();
            self.world.kernel.set_carrier(now, id, Carrier::from_bool(!on));
            self.world
                .skip_to(now + Duration::from_millis(self.rng.below(3_600_000)));
        }
        self.world.forget_events().restart(Some(saved));
        self.dead.clear();
    }

    /// Adopting is silent if no fact changed meanwhile.
    fn crash_with_fresh_state(&mut self) {
        self.world.slow = None;
        self.world.operator = None;
        self.world.run_due();
        let quiet = self.nothing_new();
        let saved = self.world.bond.saved();
        let polls = self.world.bond.poll_timeout();
        self.world.plans.clear();
        self.world.notices.clear();
        self.world.restart(Some(through_json(&saved)));
        if quiet {
            assert!(self.world.plans.is_empty(), "adopting asks for {:?}", self.world.plans);
            assert!(
                self.world.notices.is_empty(),
                "adopting reports {:?}",
                self.world.notices
            );
            let after = self.world.bond.saved();
            assert_eq!(
                without_silence(&saved),
                without_silence(&after),
                "adopting forgets nothing"
            );
            let next = self.world.bond.poll_timeout();
            assert_eq!(polls.is_some(), next.is_some(), "adopting keeps deadlines");
        }
    }

    /// The bond knows all that the kernel knows, and the kernel does all that the bond wants.
    fn nothing_new(&self) -> bool {
        let bond = &self.world.bond;
        let known = bond.ports().iter().all(|port| {
            let nic = &self.world.kernel.nics[&port.id];
            nic.report.carrier == port.carrier() && nic.report.name == port.name
        });
        known && self.world.programmed && self.world.kernel.losses.is_empty()
    }

    fn nics(&self, wanted: impl Fn(bool) -> bool) -> Vec<PortId> {
        let nics = self.world.kernel.nics.values();
        nics.filter(|nic| wanted(nic.attached)).map(|nic| nic.id).collect()
    }

    fn some_nic(&mut self, attached: bool) -> Option<String> {
        let ids = self.nics(|is| is == attached);
        let id = self.rng.pick(&ids)?;
        Some(self.world.kernel.nics[id].report.name.clone())
    }
}

/// Longer than the longest turn of a walk.
const SLOWEST_TURN: Duration = Duration::from_millis(500);

/// A turn in which a call blocks at any place, as long as several intervals.
fn slow_turn(rng: &mut Rng) -> Slow {
    Slow {
        after: rng.below(8) as u32,
        takes: Duration::from_millis(rng.below(SLOWEST_TURN.as_millis() as u64)),
    }
}

/// Every step of a seed's walk; its trace.
pub fn walk(seed: u64, steps: u32, print: bool) -> u64 {
    walk_with(seed, steps, print, |_| ())
}

/// As [`walk`], in a world that is another one from the start.
pub fn walk_with(seed: u64, steps: u32, print: bool, change: impl FnOnce(&mut World)) -> u64 {
    let mut walk = Walk::new(seed);
    change(&mut walk.world);
    if print {
        walk.print();
    }
    let mut place = Place { seed, step: 0 };
    while place.step < steps {
        if print {
            println!("step {}", place.step);
        }
        walk.step();
        place.step += 1;
    }
    walk.finish()
}

/// Prints the place of a walk when an assertion failed.
struct Place {
    seed: u64,
    step: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("BONDD_SIM_SEED={:#x} step={}", self.seed, self.step);
        }
    }
}

fn through_json(saved: &Saved) -> Saved {
    let text = serde_json::to_string(saved).expect("a saved state is plain data");
    serde_json::from_str(&text).expect("what was written can be read")
}

/// A saved state but for when ports were last heard: that begins anew.
fn without_silence(saved: &Saved) -> serde_json::Value {
    let mut value = serde_json::to_value(saved).expect("a saved state is plain data");
    for port in value["ports"].as_array_mut().into_iter().flatten() {
        port["arp"] = serde_json::Value::Null;
    }
    value
}
