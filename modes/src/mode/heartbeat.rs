//! A mode for tests only: it shows that a mode with state, frames of its own kind, a timer and a rule for the carrier is one file.
//!
//! Every port sends a beat now and then. A port is alive while it hears beats of the far end; all ports that are alive send, and
//! the bond has carrier while at least two are. What was heard survives a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use bond_monitors::{Carrier, FrameKinds, Time};

use super::{Change, Forwarding, Mode, ModeSaved, View};
use crate::action::Action;
use crate::event::Counters;
use crate::ids::PortId;
use crate::outbox::Outbox;
use crate::plan::{ForwardingPlan, Spread, Tx};
use crate::status::{ModeStatus, Paragraph};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heartbeat {
    /// When each port last heard a beat; ports that are alive.
    alive: BTreeMap<PortId, Time>,
    /// When the next beat leaves; none without ports.
    next: Option<Time>,
    /// Frames that came in, by port.
    frames: BTreeMap<PortId, u64>,
}

impl Mode for Heartbeat {
    fn title(&self) -> &'static str {
        "fault-tolerance (heartbeat)"
    }

    fn on_change(&mut self, now: Time, change: &Change<'_>, view: &View<'_>, _out: &mut Outbox) {
        match change {
            Change::Leaving(port) => {
                self.alive.remove(port);
                self.frames.remove(port);
            }
            Change::Judged { .. } if view.ports.is_empty() => self.next = None,
            Change::Judged { .. } => self.next = self.next.or(Some(now)),
            _ => {}
        }
    }

    fn on_frame(&mut self, now: Time, port: PortId, frame: &[u8], view: &View<'_>, _out: &mut Outbox) {
        if frame.ends_with(BEAT) && view.ports.get(port).is_some() {
            self.alive.insert(port, now);
        }
    }

    fn on_counters(&mut self, _: Time, counters: &BTreeMap<PortId, Counters>, view: &View<'_>, _: &mut Outbox) {
        for (port, counters) in counters.iter().filter(|(port, _)| view.ports.get(**port).is_some()) {
            self.frames.insert(*port, counters.rx_frames);
        }
    }

    fn on_timeout(&mut self, now: Time, view: &View<'_>, out: &mut Outbox) {
        self.alive.retain(|_, heard| now < *heard + 3 * INTERVAL);
        for port in view.ports.iter() {
            let frame = [&[1, 0x80, 0xc2, 0, 0, 2], &port.own_mac.0[..], &[0x88, 9], BEAT].concat();
            out.act(Action::Transmit { port: port.id, frame });
        }
        out.act(Action::ReadCounters);
        self.next = Some(now + INTERVAL);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.next
    }

    fn wants(&self) -> FrameKinds {
        FrameKinds::SLOW
    }

    fn forwarding(&self, view: &View<'_>) -> Forwarding {
        let tx = Tx {
            kind: Spread::All,
            ports: self.alive.keys().copied().collect(),
        };
        Forwarding {
            carrier: Carrier::from_bool(self.alive.len() >= 2),
            ..Forwarding::new(tx, view)
        }
    }

    fn speaker(&self) -> Option<PortId> {
        self.alive.keys().next().copied()
    }

    fn status(&self, _now: Time, view: &View<'_>) -> ModeStatus {
        let line = |(port, frames): (&PortId, &u64)| Some((view.ports.name(*port)?, frames.to_string()));
        ModeStatus {
            paragraph: Some(Paragraph {
                title: "Frames heard".to_owned(),
                lines: self.frames.iter().filter_map(line).collect(),
            }),
            ..ModeStatus::default()
        }
    }

    fn save(&self) -> ModeSaved {
        let heard = |(port, at): (&PortId, &Time)| (port.0.to_string(), at.as_nanos().to_string());
        ModeSaved::Named(self.alive.iter().map(heard).collect())
    }

    fn adopt(&mut self, saved: &ModeSaved, _plan: &ForwardingPlan, view: &View<'_>, _out: &mut Outbox) {
        let ModeSaved::Named(state) = saved else { return };
        let heard = |(port, at): (&String, &String)| {
            let port = PortId(port.parse().ok()?);
            let at = Time::ZERO + Duration::from_nanos(at.parse().ok()?);
            view.ports.get(port).map(|_| (port, at))
        };
        self.alive = state.iter().filter_map(heard).collect();
    }

    fn check(&self, view: &View<'_>) {
        assert!(
            self.alive.keys().all(|port| view.ports.get(*port).is_some()),
            "only ports are alive"
        );
    }
}

const INTERVAL: Duration = Duration::from_millis(50);
const BEAT: &[u8] = b"beat";

#[cfg(test)]
mod tests {
    use bond_monitors::{Duplex, LinkReport, MacAddr, Speed};

    use super::*;
    use crate::options::parse;
    use crate::{AdoptedState, Bond, Event, Machine, PortFacts};

    fn at(ms: u64) -> Time {
        Time::from_millis(1000 + ms)
    }

    fn report(name: &str, last: u8) -> LinkReport {
        LinkReport {
            name: name.to_owned(),
            admin_up: true,
            carrier: Carrier::On,
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            mtu: 1500,
            promisc: false,
            allmulti: false,
            speed: Speed(Some(1000)),
            duplex: Duplex::Full,
        }
    }

    fn facts(port: u32) -> PortFacts {
        let report = report(["a", "b"][port as usize - 1], port as u8);
        PortFacts {
            permanent_mac: report.mac,
            report,
        }
    }

    /// A bond that is up, with the ports 1 and 2.
    fn bond() -> Bond {
        let pairs =
            [("mode", "test-heartbeat"), ("miimon", "0")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut bond = Bond::new(at(0), parse(&pairs).unwrap(), &report("bond0", 0xff));
        for port in [1, 2] {
            let (id, facts) = (PortId(port), facts(port));
            bond.handle_event(at(0), Event::PortAttached { port: id, facts });
        }
        actions(&mut bond);
        bond
    }

    fn actions(bond: &mut Bond) -> Vec<Action> {
        std::iter::from_fn(|| bond.poll_action()).collect()
    }

    /// Lets time pass as an agent does; the frames that left, by port.
    fn run(bond: &mut Bond, until: Time) -> Vec<(PortId, Vec<u8>)> {
        let mut sent = Vec::new();
        let mut turns = 0;
        while let Some(due) = bond.poll_timeout().filter(|due| *due <= until) {
            turns += 1;
            assert!(turns < 1000, "it wants to be woken again and again at {due:?}");
            bond.handle_timeout(due);
            sent.extend(actions(bond).into_iter().filter_map(|action| match action {
                Action::Transmit { port, frame } => Some((port, frame)),
                _ => None,
            }));
        }
        sent
    }

    fn hear(bond: &mut Bond, now: Time, port: u32) {
        let frame = [&[0; 12], &[0x88, 9][..], BEAT].concat();
        let port = PortId(port);
        bond.handle_event(now, Event::Frame { port, frame });
    }

    #[test]
    fn its_timer_sends_a_frame_through_every_port() {
        let mut bond = bond();
        let sent = run(&mut bond, at(100));
        assert_eq!(sent.len(), 6, "at 0, 50 and 100 ms: {sent:?}");
        assert!(sent.iter().all(|(_, frame)| FrameKinds::of(frame) == FrameKinds::SLOW));
        assert_eq!(bond.poll_timeout(), Some(at(150)));
    }

    #[test]
    fn its_frames_change_the_plan_and_its_rule_the_carrier() {
        let mut bond = bond();
        assert_eq!(bond.wants(), FrameKinds::SLOW.into());
        assert_eq!(
            (bond.plan().carrier, &bond.plan().tx.ports[..]),
            (Carrier::Off, &[][..])
        );
        hear(&mut bond, at(10), 2);
        let one = bond.plan().clone();
        assert_eq!(
            (one.carrier, &one.tx.ports[..]),
            (Carrier::Off, &[PortId(2)][..]),
            "one is not enough"
        );
        assert!(
            matches!(actions(&mut bond).as_slice(), [Action::Program { .. }]),
            "the change is published"
        );
        hear(&mut bond, at(20), 1);
        let both = bond.plan().clone();
        assert_eq!(
            (both.carrier, &both.tx.ports[..]),
            (Carrier::On, &[PortId(1), PortId(2)][..])
        );
    }

    #[test]
    fn without_beats_a_port_is_given_up_in_time() {
        let mut bond = bond();
        for ms in [10, 60, 110] {
            run(&mut bond, at(ms));
            hear(&mut bond, at(ms), 1);
        }
        hear(&mut bond, at(110), 2);
        run(&mut bond, at(250));
        assert_eq!(bond.plan().carrier, Carrier::On);
        run(&mut bond, at(300));
        assert_eq!(
            (bond.plan().carrier, &bond.plan().tx.ports[..]),
            (Carrier::Off, &[][..])
        );
    }

    #[test]
    fn its_counters_are_read_and_shown() {
        let mut bond = bond();
        assert_eq!(bond.status(at(0)).bond.of_mode.paragraph.unwrap().lines, []);
        bond.handle_timeout(at(50));
        let asked = actions(&mut bond);
        assert!(asked.contains(&Action::ReadCounters), "{asked:?}");
        let counters = |rx_frames| Counters {
            rx_frames,
            ..Counters::default()
        };
        // One of a port that has left meanwhile counts for nothing.
        let ports = [(1, 7), (2, 9), (3, 5)].map(|(port, frames)| (PortId(port), counters(frames)));
        bond.handle_event(at(51), Event::Counters { ports: ports.into() });
        let lines = |bond: &Bond| bond.status(at(52)).bond.of_mode.paragraph.unwrap().lines;
        let shown = [("a", "7"), ("b", "9")].map(|(port, frames)| (port.to_owned(), frames.to_owned()));
        assert_eq!(lines(&bond), shown);
        let (port, gone) = (PortId(1), false);
        bond.handle_event(at(53), Event::PortDetached { port, gone });
        assert_eq!(lines(&bond), shown[1..]);
        assert!(!bond.status(at(54)).bond.of_mode.has_active);
    }

    #[test]
    fn a_frame_of_another_kind_is_not_its_own() {
        let mut bond = bond();
        let frame = [&[0; 12], &[8, 6][..], BEAT].concat();
        bond.handle_event(at(10), Event::Frame { port: PortId(1), frame });
        assert!(bond.plan().tx.is_nowhere());
    }

    #[test]
    fn a_port_that_leaves_is_forgotten() {
        let mut bond = bond();
        hear(&mut bond, at(10), 1);
        hear(&mut bond, at(10), 2);
        let (port, gone) = (PortId(1), false);
        bond.handle_event(at(20), Event::PortDetached { port, gone });
        let plan = bond.plan();
        assert_eq!((plan.carrier, &plan.tx.ports[..]), (Carrier::Off, &[PortId(2)][..]));
    }

    #[test]
    fn adopting_what_was_saved_changes_nothing() {
        let mut bond = bond();
        hear(&mut bond, at(10), 1);
        hear(&mut bond, at(10), 2);
        let text = serde_json::to_string(&bond.saved()).unwrap();
        let found = AdoptedState {
            report: report("bond0", 1),
            ports: [1, 2].map(|port| (PortId(port), facts(port))).into(),
            plan: bond.plan().clone(),
            fails_over: false,
        };
        let options = bond.options().clone();
        let mut adopted = Bond::adopt(at(30), options, found, Some(serde_json::from_str(&text).unwrap()));
        assert_eq!(actions(&mut adopted), []);
        assert_eq!(adopted.plan(), bond.plan());
        assert_eq!(adopted.saved(), bond.saved());
    }
}
