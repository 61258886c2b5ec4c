//! Routes each fact to a part of the bond.

use bond_monitors::{Fact, FrameKinds, Pause, Time};

use super::{Bond, Saved};
use crate::action::Action;
use crate::delays::Ends;
use crate::event::Event;
use crate::ids::PortId;
use crate::machine::Machine;
use crate::status::Snapshot;
use crate::watch;

impl Machine for Bond {
    type Event = Event;
    type Action = Action;
    type Saved = Saved;
    type Status = Snapshot;

    fn handle_event(&mut self, now: Time, event: Event) {
        match event {
            Event::PortAttached { port, facts } => self.on_attached(now, port, facts),
            Event::PortDetached { port, gone } => self.on_detached(now, port, gone),
            Event::Link { port, report } => self.on_link(now, port, report),
            Event::CarrierLost { port, at, failed_over } => self.on_carrier_lost(now, port, at, failed_over),
            Event::BondLink { report } => self.on_bond_link(now, &report),
            Event::Addresses { addresses } => {
                self.announcer.set_addresses(addresses);
                self.probing.forget_paths();
            }
            Event::HostsBehind { hosts } => self.announcer.set_hosts_behind(now, hosts),
            Event::Paths { paths } => {
                self.probe(|probing, ports, context, out| probing.on_paths(now, paths, ports, context, out));
                self.report_unmonitored();
            }
            Event::ReceiveStamps { ports: heard } => {
                // The probing step waits for its own reading, which comes after the ways to its targets.
                let is_last = !self.out.has(&Action::ReadReceiveStamps);
                watch::pass_stamps(now, &heard, &mut self.ports, &mut self.out);
                if !is_last {
                    return self.conclude(now, Vec::new());
                }
                let judged =
                    self.probe(|probing, ports, context, out| probing.on_stamps(now, &heard, ports, context, out));
                if let Some((step, came_up)) = judged {
                    // The mode chooses before the next probes leave.
                    self.conclude(now, came_up);
                    self.probe(|probing, ports, context, out| probing.after_choice(now, step, ports, context, out));
                }
            }
            // Probes count at the next tick; there may be many before.
            Event::Frame { port, frame } => return self.on_frame(now, port, &frame),
            Event::CarriersPolled { carriers } => {
                let known = self.is_known(&carriers);
                self.polls.answered();
                if known {
                    return;
                }
                for (port, carrier) in &carriers {
                    if let Some(port) = self.ports.get_mut(*port) {
                        watch::pass_fact(now, port, Fact::Carrier(*carrier), &mut self.out);
                    }
                }
                let read: Vec<PortId> = carriers.into_iter().map(|(port, _)| port).collect();
                return self.conclude_ending(now, Vec::new(), Ends::Of(&read));
            }
            Event::Counters { ports } => {
                self.run_mode(now, |mode, view, out| mode.on_counters(now, &ports, view, out));
            }
            Event::ProgramFailed { epoch, retry, mac } => {
                if self.planner.failed(now, epoch, retry) {
                    self.device.doubt(mac);
                }
            }
        }
        self.conclude(now, Vec::new());
    }

    fn handle_timeout(&mut self, now: Time) {
        let polled = self.polls() && self.polls.run(now, self.options.miimon, &self.ports, &mut self.out);
        if self.view().watched {
            watch::handle_timeout(now, &mut self.ports, &mut self.out);
        }
        self.probe(|probing, ports, context, out| probing.handle_timeout(now, ports, context, out));
        if self.mode.poll_timeout().is_some_and(|at| now >= at) {
            self.run_mode(now, |mode, view, out| mode.on_timeout(now, view, out));
        }
        // The answers of a poll come first, so that a delay does not end with outdated facts.
        let waits = polled || self.polls() && self.polls.unanswered(now).is_some();
        let ends = if waits { Ends::None } else { Ends::All };
        self.conclude_ending(now, Vec::new(), ends);
    }

    fn held_up(&mut self, since: Time, until: Time) {
        if let Some(turn) = Pause::between(since, until) {
            self.probe(|probing, ports, context, _| probing.held_up(turn, ports, context));
            self.announcer.held_up(turn);
            self.mode.held_up(turn);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.next_poll().into_iter().chain(self.unpolled_timeout()).min()
    }

    fn saved(&self) -> Saved {
        Saved::of(self)
    }

    fn status(&self, now: Time) -> Snapshot {
        self.snapshot(now)
    }
}

impl Bond {
    fn on_frame(&mut self, now: Time, port: PortId, frame: &[u8]) {
        let kind = FrameKinds::of(frame);
        watch::pass_frame(now, port, frame, &mut self.ports, &mut self.out);
        self.probe(|probing, ports, context, _| probing.on_frame(now, port, frame, ports, context));
        if self.mode.wants().meets(kind) {
            self.run_mode(now, |mode, view, out| mode.on_frame(now, port, frame, view, out));
            self.conclude(now, Vec::new());
        }
    }
}
