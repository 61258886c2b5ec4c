//! Derives from carrier, the other monitors, recent failures and the delays whether a port may be used.
//!
//! Without carrier a port is down. With carrier the combined verdict of the other monitors counts, or carrier alone while they
//! have none. Then come damping, and updelay and downdelay. Only downdelay keeps a port up without carrier.

use crate::carrier::CarrierMonitor;
use crate::classic::ArpMonitor;
use crate::combine::Combine;
use crate::damping::{Damping, DampingRule};
use crate::debounce::{Debounce, Delays, LinkState};
use crate::frames::FrameKinds;
use crate::link::Carrier;
use crate::monitor::{Ask, Fact, Monitor, Verdict};
use crate::time::Time;

/// The health of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    carrier: CarrierMonitor,
    /// The other monitors.
    monitors: Vec<AnyMonitor>,
    combine: Combine,
    damping: Option<Damping>,
    /// The last verdict before damping.
    undamped: Carrier,
    debounce: Debounce,
}

/// Every kind of monitor besides carrier, one variant each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyMonitor {
    /// The kernel's ARP monitor, for IPv6 too.
    Arp(ArpMonitor),
    /// For tests: silence.
    #[cfg(test)]
    Silence(tests::Silence),
}

impl AnyMonitor {
    fn monitor(&self) -> &dyn Monitor {
        match self {
            AnyMonitor::Arp(monitor) => monitor,
            #[cfg(test)]
            AnyMonitor::Silence(monitor) => monitor,
        }
    }

    fn monitor_mut(&mut self) -> &mut dyn Monitor {
        match self {
            AnyMonitor::Arp(monitor) => monitor,
            #[cfg(test)]
            AnyMonitor::Silence(monitor) => monitor,
        }
    }

    fn arp(&self) -> Option<&ArpMonitor> {
        match self {
            AnyMonitor::Arp(arp) => Some(arp),
            #[cfg(test)]
            AnyMonitor::Silence(_) => None,
        }
    }

    fn arp_mut(&mut self) -> Option<&mut ArpMonitor> {
        match self {
            AnyMonitor::Arp(arp) => Some(arp),
            #[cfg(test)]
            AnyMonitor::Silence(_) => None,
        }
    }
}

impl Health {
    /// A port in a known state, with carrier or not, and without other monitors.
    pub fn new(carrier: Carrier, state: LinkState) -> Self {
        Health::restored(CarrierMonitor::new(carrier), Debounce::in_state(state))
    }

    /// A port that was just attached. Without other monitors carrier decides, with updelay. [bond_main.c: bond_enslave]
    pub fn attached(now: Time, carrier: Carrier, delays: Delays) -> Self {
        Health::restored(CarrierMonitor::new(carrier), Debounce::attached(now, carrier, delays))
    }

    /// The saved state.
    pub fn restored(carrier: CarrierMonitor, debounce: Debounce) -> Self {
        Health {
            undamped: Carrier::from_bool(debounce.state().is_usable()),
            carrier,
            monitors: Vec::new(),
            combine: Combine::default(),
            damping: None,
            debounce,
        }
    }

    /// Sets all monitors besides carrier at once; a bond has none but the ARP monitor so far, see [`Health::set_arp`]. The present
    /// state stays until they have a verdict.
    pub fn set_monitors(&mut self, now: Time, monitors: Vec<AnyMonitor>, combine: Combine) {
        self.monitors = monitors;
        self.combine = combine;
        let usable = self.is_usable();
        self.pass_on(now, Fact::Before { usable }, &mut Vec::new());
    }

    /// Replaces, adds or removes the ARP monitor, whose verdict begins with the present state. The other monitors go on.
    pub fn set_arp(&mut self, now: Time, arp: Option<ArpMonitor>) {
        let usable = self.is_usable();
        let new = arp.map(|mut arp| {
            arp.on_fact(now, Fact::Before { usable }, &mut Vec::new());
            AnyMonitor::Arp(arp)
        });
        let place = self.monitors.iter().position(|monitor| monitor.arp().is_some());
        let place = place.map_or(self.monitors.len()..self.monitors.len(), |at| at..at + 1);
        self.monitors.splice(place, new);
    }

    /// Switches damping on or off. Bonds have it off; no option asks for it yet.
    pub fn damp(&mut self, rule: Option<DampingRule>) {
        self.damping = rule.map(Damping::new);
    }

    /// Sets the port's state, known from elsewhere: it forwarded before the agent started, say.
    pub fn assume(&mut self, now: Time, state: LinkState) {
        self.debounce = Debounce::in_state(state);
        let usable = state.is_usable();
        self.undamped = Carrier::from_bool(usable);
        self.pass_on(now, Fact::Before { usable }, &mut Vec::new());
    }

    /// Adds a fact. It counts when the port is next judged.
    pub fn on_fact(&mut self, now: Time, fact: Fact<'_>, asks: &mut Vec<Ask>) {
        match fact {
            // The other monitors get it when the port is judged, because ports are not judged while the bond is down.
            Fact::Carrier(_) => self.carrier.on_fact(now, fact, asks),
            _ => self.pass_on(now, fact, asks),
        }
    }

    /// Lets the time of the monitors and of damping pass.
    pub fn on_timeout(&mut self, now: Time, asks: &mut Vec<Ask>) {
        for monitor in &mut self.monitors {
            monitor.monitor_mut().on_timeout(now, asks);
        }
        if let Some(damping) = &mut self.damping {
            damping.on_timeout(now);
        }
    }

    /// Judges the port by all facts so far; returns the new state if it changed. A delay whose time has come ends in
    /// [`Health::end_delay`] only.
    pub fn judge(&mut self, now: Time, delays: Delays) -> Option<LinkState> {
        let carrier = self.carrier.carrier();
        self.pass_on(now, Fact::Carrier(carrier), &mut Vec::new());
        let undamped = Carrier::from_bool(carrier.is_on() && self.combined() != Verdict::Down);
        let failed = self.undamped.is_on() && !undamped.is_on();
        self.undamped = undamped;
        let damping = self.damping.as_mut().filter(|_| failed);
        damping.into_iter().for_each(|damping| damping.failed(now));
        let left_out = self.damping.and_then(|damping| damping.suppressed_until()).is_some();
        let counts = if left_out { Carrier::Off } else { undamped };
        self.debounce.observe(now, counts, delays)
    }

    /// Ends a delay whose time has come; returns the new state if one ended. See [`Debounce::end`].
    pub fn end_delay(&mut self, now: Time) -> Option<LinkState> {
        self.debounce.end(now)
    }

    /// Ends a running updelay before its time. See [`Debounce::skip_updelay`].
    pub fn skip_updelay(&mut self) {
        self.debounce.skip_updelay();
    }

    /// When [`Health::on_timeout`] or [`Health::end_delay`] is to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let monitors = self
            .monitors
            .iter()
            .filter_map(|monitor| monitor.monitor().poll_timeout());
        let damping = self.damping.and_then(|damping| damping.suppressed_until());
        monitors.chain(damping).chain(self.debounce.state().deadline()).min()
    }

    /// Kinds of frames that its monitors want to see.
    pub fn wants(&self) -> FrameKinds {
        let kinds = self.monitors.iter().map(|monitor| monitor.monitor().wants());
        kinds.fold(FrameKinds::NONE, |all, kind| all | kind)
    }

    /// The verdict, after delays.
    pub fn state(&self) -> LinkState {
        self.debounce.state()
    }

    /// Whether the port may carry traffic.
    pub fn is_usable(&self) -> bool {
        self.state().is_usable()
    }

    /// Signal on the wire.
    pub fn carrier(&self) -> Carrier {
        self.carrier.carrier()
    }

    /// The state of its ARP monitor, if it has one.
    pub fn arp(&self) -> Option<&ArpMonitor> {
        self.monitors.iter().find_map(AnyMonitor::arp)
    }

    /// As [`Health::arp`].
    pub fn arp_mut(&mut self) -> Option<&mut ArpMonitor> {
        self.monitors.iter_mut().find_map(AnyMonitor::arp_mut)
    }

    fn pass_on(&mut self, now: Time, fact: Fact<'_>, asks: &mut Vec<Ask>) {
        for monitor in &mut self.monitors {
            monitor.monitor_mut().on_fact(now, fact, asks);
        }
    }

    fn combined(&self) -> Verdict {
        self.combine
            .verdict(self.monitors.iter().map(|monitor| monitor.monitor().verdict()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::classic::Window;
    use crate::evidence::Evidence;
    use crate::stamps::ReceiveStamps;

    /// Down when nothing was heard for a second. A monitor needs no more than this.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Silence {
        next: Time,
        heard: Option<Time>,
        verdict: Verdict,
    }

    impl Silence {
        fn new(now: Time) -> Self {
            Silence {
                next: now,
                heard: None,
                verdict: Verdict::Unknown,
            }
        }
    }

    impl Monitor for Silence {
        fn on_fact(&mut self, now: Time, fact: Fact<'_>, _asks: &mut Vec<Ask>) {
            match fact {
                Fact::Stamps(Some(stamps)) => {
                    self.heard = stamps.any;
                    let recent = stamps.any.is_some_and(|at| now.since(at) < Duration::from_secs(1));
                    self.verdict = if recent { Verdict::Up } else { Verdict::Down };
                }
                Fact::Stamps(None) => self.verdict = Verdict::Unknown,
                Fact::Carrier(_) | Fact::Frame(_) | Fact::Before { .. } => {}
            }
        }

        fn on_timeout(&mut self, now: Time, asks: &mut Vec<Ask>) {
            if now >= self.next {
                self.next = now + Duration::from_millis(500);
                asks.push(Ask::ReadStamps);
            }
        }

        fn poll_timeout(&self) -> Option<Time> {
            Some(self.next)
        }

        fn verdict(&self) -> Verdict {
            self.verdict
        }

        fn evidence(&self) -> Evidence {
            Evidence {
                heard: self.heard,
                ..Evidence::default()
            }
        }

        fn wants(&self) -> FrameKinds {
            FrameKinds::SLOW
        }
    }

    const NO_DELAYS: Delays = Delays {
        up: Duration::ZERO,
        down: Duration::ZERO,
    };

    fn at(ms: u64) -> Time {
        Time::from_millis(10_000 + ms)
    }

    fn carrier(health: &mut Health, ms: u64, carrier: Carrier) -> Option<LinkState> {
        health.on_fact(at(ms), Fact::Carrier(carrier), &mut Vec::new());
        health.judge(at(ms), NO_DELAYS)
    }

    fn arp() -> AnyMonitor {
        let window = Window {
            interval: Duration::from_millis(100),
        };
        AnyMonitor::Arp(ArpMonitor::new(at(0), true, window))
    }

    #[test]
    fn without_carrier_a_port_is_down_whatever_its_monitors_say() {
        let mut health = Health::new(Carrier::On, LinkState::Up);
        let others = vec![arp(), AnyMonitor::Silence(Silence::new(at(0)))];
        health.set_monitors(at(0), others, Combine::Any);
        assert_eq!(carrier(&mut health, 1, Carrier::Off), Some(LinkState::Down));
        health.arp_mut().unwrap().judged(true);
        assert_eq!(health.judge(at(2), NO_DELAYS), None);
    }

    #[test]
    fn after_a_lost_carrier_the_arp_monitor_wants_an_answer_first() {
        let mut health = Health::new(Carrier::On, LinkState::Up);
        health.set_monitors(at(0), vec![arp()], Combine::All);
        carrier(&mut health, 1, Carrier::Off);
        assert_eq!(carrier(&mut health, 2, Carrier::On), None);
        health.arp_mut().unwrap().judged(true);
        assert_eq!(health.judge(at(3), NO_DELAYS), Some(LinkState::Up));
    }

    #[test]
    fn while_no_monitor_knows_carrier_alone_decides() {
        let mut health = Health::new(Carrier::On, LinkState::Down);
        health.set_monitors(at(0), vec![arp()], Combine::All);
        assert_eq!(
            health.judge(at(1), NO_DELAYS),
            None,
            "down before, and nobody knows better"
        );
        health.arp_mut().unwrap().can_judge(false, false);
        assert_eq!(health.judge(at(2), NO_DELAYS), Some(LinkState::Up));
        assert_eq!(carrier(&mut health, 3, Carrier::Off), Some(LinkState::Down));
        assert_eq!(carrier(&mut health, 4, Carrier::On), Some(LinkState::Up));
    }

    #[test]
    fn a_monitor_asks_learns_and_is_combined_with_the_others() {
        let mut health = Health::new(Carrier::On, LinkState::Up);
        health.set_monitors(
            at(0),
            vec![arp(), AnyMonitor::Silence(Silence::new(at(0)))],
            Combine::All,
        );
        assert_eq!(health.wants(), FrameKinds::SLOW);
        assert_eq!(health.poll_timeout(), Some(at(0)));
        let mut asks = Vec::new();
        health.on_timeout(at(0), &mut asks);
        assert_eq!(
            (asks.as_slice(), health.poll_timeout()),
            (&[Ask::ReadStamps][..], Some(at(500)))
        );
        let quiet = ReceiveStamps::default();
        health.on_fact(at(0), Fact::Stamps(Some(&quiet)), &mut asks);
        assert_eq!(
            health.judge(at(0), NO_DELAYS),
            Some(LinkState::Down),
            "one of all says so"
        );
        health.on_fact(at(1), Fact::Stamps(None), &mut asks);
        assert_eq!(
            health.judge(at(1), NO_DELAYS),
            Some(LinkState::Up),
            "it does not know any more"
        );
        health.combine = Combine::Any;
        health.on_fact(at(2), Fact::Stamps(Some(&quiet)), &mut asks);
        assert_eq!(health.judge(at(2), NO_DELAYS), None);
    }

    #[test]
    fn another_arp_monitor_leaves_the_others_as_they_are() {
        let mut health = Health::new(Carrier::On, LinkState::Up);
        health.set_monitors(
            at(0),
            vec![arp(), AnyMonitor::Silence(Silence::new(at(0)))],
            Combine::All,
        );
        let quiet = ReceiveStamps::default();
        health.on_fact(at(0), Fact::Stamps(Some(&quiet)), &mut Vec::new());
        assert_eq!(health.judge(at(0), NO_DELAYS), Some(LinkState::Down));
        let AnyMonitor::Arp(again) = arp() else {
            panic!("it is an ARP monitor");
        };
        for (new, count) in [(None, 1), (Some(again.clone()), 2), (Some(again), 2)] {
            let has = new.is_some();
            health.set_arp(at(1), new);
            assert_eq!((health.monitors.len(), health.arp().is_some()), (count, has));
            assert_eq!(health.combined(), Verdict::Down, "the other one still says so");
        }
        health.on_fact(at(2), Fact::Stamps(None), &mut Vec::new());
        assert_eq!(
            health.combined(),
            Verdict::Down,
            "the new ARP monitor begins with the state of the port"
        );
    }

    #[test]
    fn damping_comes_before_the_delays() {
        let mut health = Health::new(Carrier::On, LinkState::Up);
        health.damp(Some(DampingRule {
            half_life: Duration::from_secs(10),
            suppress: 2500,
            reuse: 1000,
            longest: Duration::from_secs(60),
        }));
        for flap in 0..3 {
            assert_eq!(carrier(&mut health, flap * 100, Carrier::Off), Some(LinkState::Down));
            let back = carrier(&mut health, flap * 100 + 50, Carrier::On);
            assert_eq!(back, (flap < 2).then_some(LinkState::Up), "flap {flap}");
        }
        let until = health.poll_timeout().expect("it is left out for a while only");
        let delays = Delays {
            up: Duration::from_millis(300),
            down: Duration::ZERO,
        };
        health.on_timeout(until, &mut Vec::new());
        let waits = LinkState::GoingBack {
            until: until + delays.up,
        };
        assert_eq!(health.judge(until, delays), Some(waits));
        assert_eq!(health.end_delay(until + delays.up), Some(LinkState::Up));
    }
}
