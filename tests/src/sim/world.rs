//! One bond, its kernel and virtual time.

mod agent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use bond_modes::options;
use bond_modes::{
    Accept, Bond, Event, ForwardingPlan, HostBehind, LinkWord, LocalAddress, Machine, Notice, OptionError, PortId,
    PortStatus, Reach, Saved,
};
use bond_monitors::{Carrier, LinkReport, MacAddr, Time};

use super::kernel::Kernel;
use super::net::Net;

/// A frame that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: Time,
    /// Through which port.
    pub port: PortId,
    /// From the destination address on.
    pub frame: Vec<u8>,
}

/// A side of the bridge above the bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Guest,
    Bond,
}

/// The step at which an attachment fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachFails {
    /// The data plane took the interface and gave it back; the bond never knew.
    BeforeTold,
    /// The bond knew already, so it is told that the port leaves.
    AfterTold,
}

/// A turn of the agent in which a call blocks, of this bond or of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// How many actions are done in that turn before the call.
    pub after: u32,
    /// How long the call takes. The agent does not read its clock meanwhile.
    pub takes: Duration,
}

/// The operator sets the bond's address in the middle of a turn of the agent, which reads the event in the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetsMac {
    /// How many actions are done in that turn before.
    pub after: u32,
    /// The address.
    pub mac: MacAddr,
}

/// A bond in a model kernel. Methods that change something return the world, so that a test reads as a story.
pub struct World {
    /// The bond under test.
    pub bond: Bond,
    /// The kernel that it programs.
    pub kernel: Kernel,
    /// The network beyond its ports.
    pub net: Net,
    /// How targets are reached that are not neighbours.
    pub routes: BTreeMap<IpAddr, Reach>,
    /// The table of a bridge above the bond: behind which side it last saw a sender.
    bridge: BTreeMap<MacAddr, Side>,
    /// Hosts behind the bond.
    pub hosts_behind: Vec<HostBehind>,
    /// Times at which memberships were reported, and through which port.
    pub rejoined: Vec<(Time, PortId)>,
    /// Probes that left.
    pub probes: Vec<Sent>,
    /// False: changes of carrier are found by polls only.
    pub events_seen: bool,
    /// Link events wait until they are delivered.
    pub events_late: bool,
    /// What the agent takes a link event for: a word that the interface changed, so that it reads it anew. Otherwise it believes
    /// the state that the event describes, however old that is.
    pub reads_anew: bool,
    /// Link events that wait: the port, and its state when each was made.
    queued: VecDeque<(PortId, LinkReport)>,
    /// Ports whose stamps cannot be read.
    pub unread: BTreeSet<PortId>,
    /// The next turn takes long.
    pub slow: Option<Slow>,
    /// The operator does something in the next turn.
    pub operator: Option<SetsMac>,
    /// How long the agent was held up so far.
    pub held_up: Duration,
    /// Whether the last plan came about.
    pub programmed: bool,
    /// Frames that left.
    pub sent: Vec<Sent>,
    /// Plans, with the time each was asked for.
    pub plans: Vec<(Time, ForwardingPlan)>,
    /// Notices, with their time.
    pub notices: Vec<(Time, Notice)>,
    /// Carriers asked for.
    pub polls: u64,
    /// How often the bond's own interface was looked at.
    pub looks: u64,
    now: Time,
    trace: DefaultHasher,
    printed: bool,
    announced: Vec<LocalAddress>,
}

impl World {
    /// A bond that is up, with these ports attached and without carrier.
    pub fn new<const N: usize>(options: &str, ports: [&str; N]) -> World {
        let mut world = World::empty(options);
        for port in ports {
            world.plug(port).attach(port);
        }
        world.forget()
    }

    /// As [`World::new`], with carrier on every port from the start.
    pub fn with_carrier<const N: usize>(options: &str, ports: [&str; N]) -> World {
        let mut world = World::empty(options);
        for port in ports {
            world.plug(port).carrier(port, Carrier::On).attach(port);
        }
        world.forget()
    }

    /// A bond that is up and has no ports. `mode` may be left out.
    pub fn empty(options: &str) -> World {
        let mut pairs = pairs(options);
        if !pairs.iter().any(|(name, _)| name == "mode") {
            pairs.push(("mode".to_owned(), "active-backup".to_owned()));
        }
        let change = options::parse(&pairs).expect("options of a test are good");
        let mut kernel = Kernel::new();
        // As the agent makes it.
        kernel.plan.tx.kind = bond_modes::spread(&change.options);
        let now = START;
        let mut world = World {
            bond: Bond::new(now, change, &kernel.device),
            kernel,
            net: Net::new(),
            routes: BTreeMap::new(),
            hosts_behind: Vec::new(),
            rejoined: Vec::new(),
            probes: Vec::new(),
            events_seen: true,
            events_late: false,
            reads_anew: true,
            queued: VecDeque::new(),
            bridge: BTreeMap::new(),
            unread: BTreeSet::new(),
            slow: None,
            operator: None,
            held_up: Duration::ZERO,
            programmed: true,
            sent: Vec::new(),
            plans: Vec::new(),
            notices: Vec::new(),
            polls: 0,
            looks: 0,
            now,
            trace: DefaultHasher::new(),
            printed: false,
            announced: Vec::new(),
        };
        world.drain();
        world.addresses(Vec::new()).up(true);
        world
    }

    /// Prints every action as it comes.
    pub fn print(&mut self) -> &mut Self {
        self.printed = true;
        self
    }

    /// Lets time pass up to so many milliseconds after the start.
    pub fn at_ms(&mut self, ms: u64) -> &mut Self {
        self.at(START + Duration::from_millis(ms))
    }

    /// Lets time pass up to `until`, stopping at every deadline on the way.
    pub fn at(&mut self, until: Time) -> &mut Self {
        loop {
            let next = self
                .bond
                .poll_timeout()
                .into_iter()
                .chain(self.net.poll_timeout())
                .min();
            let Some(due) = next.filter(|due| *due <= until) else {
                break;
            };
            self.now = self.now.max(due);
            self.deliver();
            if self.bond.poll_timeout().is_some_and(|due| due <= self.now) {
                self.timers();
            }
        }
        self.now = self.now.max(until);
        self
    }

    /// Lets time pass by so many milliseconds.
    pub fn after_ms(&mut self, ms: u64) -> &mut Self {
        self.at(self.now + Duration::from_millis(ms))
    }

    /// Time passes while the agent always has something to do: one turn follows the other, each as long as `slow` says.
    pub fn busy_for_ms(&mut self, slow: Slow, ms: u64) -> &mut Self {
        let until = self.now + Duration::from_millis(ms);
        while self.now < until {
            self.deliver();
            self.slow = Some(slow);
            if self.bond.poll_timeout().is_some_and(|due| due <= self.now) {
                self.timers();
            } else {
                self.drain();
            }
        }
        self
    }

    /// Time passes while the agent does nothing at all, and nothing moves in the network.
    pub fn skip_to(&mut self, until: Time) {
        self.now = self.now.max(until);
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Milliseconds since the start.
    pub fn ms(&self, time: Time) -> u64 {
        time.since(START).as_millis() as u64
    }

    /// Hands in every frame that has arrived, before time is looked at.
    fn deliver(&mut self) {
        self.pass();
        while let Some(delivery) = self.net.read() {
            let (port, frame) = (delivery.port, delivery.frame);
            self.feed(Event::Frame { port, frame });
        }
    }

    /// Runs what is due now, as the loop does after it has read everything.
    pub fn run_due(&mut self) -> &mut Self {
        while self.bond.poll_timeout().is_some_and(|due| due <= self.now) {
            self.timers();
        }
        self
    }

    /// Feeds one fact, with all that follows at this instant.
    pub fn feed(&mut self, event: Event) -> &mut Self {
        self.bond.handle_event(self.now, event);
        self.drain();
        self
    }

    /// A new interface without carrier.
    pub fn plug(&mut self, name: &str) -> &mut Self {
        self.kernel.plug(name);
        self
    }

    /// Attaches an interface, which fails half-way; what was done is undone.
    pub fn fail_to_attach(&mut self, name: &str, fails: AttachFails) -> &mut Self {
        let id = self.port(name);
        if fails == AttachFails::AfterTold {
            return self.attach(name).detach(name);
        }
        let mac = self.bond.mac_for_new_port(self.kernel.nics[&id].report.mac);
        self.kernel.attach(id, mac);
        self.link_event(id);
        self.kernel.detach(id);
        self.link_event(id);
        self.run_due()
    }

    /// Attaches an interface.
    pub fn attach(&mut self, name: &str) -> &mut Self {
        let id = self.port(name);
        // What was said of it meanwhile is older than what is read of it now.
        self.queued.retain(|(port, _)| *port != id);
        let permanent = self.kernel.nics[&id].report.mac;
        let mac = self.bond.mac_for_new_port(permanent);
        if let Some(facts) = self.kernel.attach(id, mac) {
            self.feed(Event::PortAttached { port: id, facts }).run_due();
        }
        self
    }

    /// Detaches a port as the agent does: first the traffic leaves, then the port.
    pub fn detach(&mut self, name: &str) -> &mut Self {
        let port = self.port(name);
        self.feed(Event::PortDetached { port, gone: false });
        self.kernel.detach(port);
        self.run_due()
    }

    /// The interface disappears, traffic or not.
    pub fn vanish(&mut self, name: &str) -> &mut Self {
        let port = self.port(name);
        self.kernel.unplug(port);
        self.feed(Event::PortDetached { port, gone: true }).run_due()
    }

    /// The carrier of a port changes.
    pub fn carrier(&mut self, name: &str, carrier: Carrier) -> &mut Self {
        let id = self.port(name);
        self.set_carrier(id, carrier);
        self.run_due()
    }

    /// As [`World::carrier`], without running what is due.
    pub fn set_carrier(&mut self, id: PortId, carrier: Carrier) {
        self.kernel.set_carrier(self.now, id, carrier);
        if self.events_seen {
            self.link_event(id);
        }
        if !self.events_late {
            self.deliver_losses();
        }
    }

    /// The agent reads what the data plane noted of losses.
    pub fn deliver_losses(&mut self) -> &mut Self {
        for loss in std::mem::take(&mut self.kernel.losses) {
            self.feed(Event::CarrierLost {
                port: loss.port,
                at: loss.at,
                failed_over: loss.failed_over,
            });
        }
        self
    }

    /// The data plane can fail over by itself from now on, or cannot any more.
    pub fn fails_over(&mut self, can: bool) -> &mut Self {
        self.kernel.fails_over = can;
        self.bond.set_plane_fails_over(self.now, can);
        self.drain();
        self.run_due()
    }

    /// A link message about an interface.
    pub fn link_event(&mut self, id: PortId) {
        if let Some(nic) = self.kernel.nics.get(&id) {
            self.queued.push_back((id, nic.report.clone()));
        }
        if !self.events_late {
            self.deliver_events();
        }
    }

    /// The agent reads the link events that wait. Those about interfaces that are no ports of the bond say nothing to it.
    pub fn deliver_events(&mut self) -> &mut Self {
        while let Some((port, old)) = self.queued.pop_front() {
            let nic = self.kernel.nics.get(&port).filter(|nic| nic.attached);
            let known = self.bond.ports().get(port).is_some();
            if let Some(nic) = nic.filter(|_| known) {
                let report = if self.reads_anew { nic.report.clone() } else { old };
                self.feed(Event::Link { port, report });
            }
        }
        self.deliver_losses()
    }

    /// Nobody reads the link events that wait: the agent has ended.
    pub fn forget_events(&mut self) -> &mut Self {
        self.queued.clear();
        self
    }

    /// Events were lost: the agent reads the state of every interface, and then what waited all the time.
    pub fn overrun(&mut self) -> &mut Self {
        let waiting = std::mem::take(&mut self.queued);
        let ports: Vec<PortId> = self.bond.ports().iter().map(|port| port.id).collect();
        self.queued = ports
            .iter()
            .filter_map(|id| Some((*id, self.kernel.nics.get(id)?.report.clone())))
            .chain(waiting)
            .collect();
        self.deliver_events()
    }

    /// A guest behind a bridge above the bond sends a frame to one station that the switch does not know, so that it floods it to
    /// all its other ports.
    pub fn guest_sends(&mut self, guest: MacAddr) -> &mut Self {
        self.bridge.insert(guest, Side::Guest);
        self.kernel.sent.insert(guest);
        let connected = self.connected();
        let works = |port: &PortId| connected.contains(port) && !self.net.dead.contains(port);
        let leaves: Vec<PortId> = self.kernel.plan.tx.ports.iter().copied().filter(works).collect();
        for from in leaves {
            let mut others = connected.iter().filter(|port| **port != from && works(port));
            if others.any(|port| self.kernel.lets_in(*port, guest)) {
                self.bridge.insert(guest, Side::Bond);
            }
        }
        self
    }

    /// Whether the bridge looks for a guest on the wrong side: what comes for it through the bond does not reach it.
    pub fn is_lost(&self, guest: MacAddr) -> bool {
        self.bridge.get(&guest) == Some(&Side::Bond)
    }

    /// An interface gets another name.
    pub fn rename(&mut self, from: &str, to: &str) -> &mut Self {
        let id = self.port(from);
        if let Some(nic) = self.kernel.nics.get_mut(&id) {
            nic.report.name = to.to_owned();
        }
        self.link_event(id);
        self.run_due()
    }

    /// The operator sets the bond up or down.
    pub fn up(&mut self, up: bool) -> &mut Self {
        self.kernel.device.admin_up = up;
        self.bond_link()
    }

    /// The operator sets the bond's address.
    pub fn set_mac(&mut self, mac: MacAddr) -> &mut Self {
        self.kernel.device.mac = mac;
        self.bond_link()
    }

    /// The operator sets the bond's MTU.
    pub fn set_mtu(&mut self, mtu: u32) -> &mut Self {
        self.kernel.device.mtu = mtu;
        self.bond_link()
    }

    /// A link message about the bond's own interface; an address that the bond does not take on is put back, by the agent.
    pub fn bond_link(&mut self) -> &mut Self {
        let report = self.kernel.device.clone();
        let mac = report.mac;
        self.feed(Event::BondLink { report });
        if self.bond.is_foreign_mac(mac) {
            self.put_back();
            let report = self.kernel.device.clone();
            self.feed(Event::BondLink { report });
        }
        self.run_due()
    }

    /// The addresses to announce.
    pub fn addresses(&mut self, addresses: Vec<LocalAddress>) -> &mut Self {
        self.announced.clone_from(&addresses);
        self.feed(Event::Addresses { addresses }).run_due()
    }

    /// The next plans fail.
    pub fn fail(&mut self, plans: u32, retry: bool) -> &mut Self {
        self.kernel.failures.left = plans;
        self.kernel.failures.retry = retry;
        self
    }

    /// Changes options that must be good: `"updelay=100 primary=a"`.
    pub fn set(&mut self, options: &str) -> &mut Self {
        self.try_set(options).expect("options of a test are good");
        self
    }

    /// Changes options.
    pub fn try_set(&mut self, options: &str) -> Result<(), OptionError> {
        let result = self.bond.configure(self.now, &pairs(options));
        self.drain();
        self.run_due();
        result
    }

    /// Changes a port's preference.
    pub fn prio(&mut self, name: &str, prio: i32) -> &mut Self {
        self.set_port(name, &format!("prio={prio}"))
            .expect("prio takes any number");
        self
    }

    /// Changes options of a port.
    pub fn set_port(&mut self, name: &str, options: &str) -> Result<(), OptionError> {
        let id = self.port(name);
        let result = self.bond.configure_port(self.now, id, &pairs(options));
        self.drain();
        self.run_due();
        result
    }

    /// The agent has no time for polls before then.
    pub fn hold_polls_until_ms(&mut self, ms: u64) -> &mut Self {
        self.bond.hold_polls(START + Duration::from_millis(ms));
        self
    }

    /// The agent dies and another one takes over, with what was saved.
    pub fn restart(&mut self, saved: Option<Saved>) -> &mut Self {
        let options = self.bond.options().clone();
        // A new bond takes what is in force for its plan.
        self.programmed = true;
        self.kernel.agent_ends();
        self.kernel.refresh();
        self.bond = Bond::adopt(self.now, options, self.kernel.seen(), saved);
        self.drain();
        let addresses = self.announced.clone();
        self.addresses(addresses).deliver_losses()
    }

    /// The interface index of a name.
    pub fn port(&self, name: &str) -> PortId {
        let nic = self.kernel.named(name);
        nic.unwrap_or_else(|| panic!("there is no interface {name}")).id
    }

    /// The plan in force.
    pub fn plan(&self) -> &ForwardingPlan {
        &self.kernel.plan
    }

    /// Name of the active port.
    pub fn active(&self) -> Option<String> {
        self.bond.active().and_then(|id| self.bond.ports().name(id))
    }

    /// What a port lets in.
    pub fn lets_in(&self, name: &str) -> Option<Accept> {
        let port = self.plan().ports.get(&self.port(name))?;
        Some(port.accept).filter(|accept| *accept != Accept::Nothing)
    }

    /// Status of an attached port.
    pub fn status(&self, name: &str) -> PortStatus {
        let ports = self.bond.status(self.now).ports;
        let port = ports.into_iter().find(|port| port.name == name);
        port.unwrap_or_else(|| panic!("{name} is not attached"))
    }

    /// Link state of an attached port.
    pub fn link(&self, name: &str) -> LinkWord {
        self.status(name).link
    }

    /// Whether such a notice came since the last [`World::forget`].
    pub fn saw(&self, what: impl Fn(&Notice) -> bool) -> bool {
        self.notices.iter().any(|(_, notice)| what(notice))
    }

    /// Forgets what was recorded so far.
    pub fn forget(mut self) -> Self {
        self.clear();
        self
    }

    /// As [`World::forget`].
    pub fn clear(&mut self) -> &mut Self {
        self.notices.clear();
        self.sent.clear();
        self.probes.clear();
        self.rejoined.clear();
        self.plans.clear();
        (self.polls, self.looks) = (0, 0);
        self
    }

    /// One number for all actions so far with their times.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }
}

/// Pairs of `"name=value name=value"`.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |word: &str| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (word.to_owned(), String::new()),
    };
    text.split_whitespace().map(pair).collect()
}

/// Not the clock's origin, so that a time of zero stands out.
const START: Time = Time::from_millis(1_000_000);
