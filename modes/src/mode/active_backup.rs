//! One port carries all traffic, the others wait. [bonding.rst: active-backup]

use bond_monitors::{LinkState, MacAddr, Pause, Time};

use super::{Announces, Change, Forwarding, Mode, ModeSaved, View};
use crate::action::Notice;
use crate::current::{Current, Situation, fail_over_mac};
use crate::ids::PortId;
use crate::options::{BondOptions, FailOverMac, OptionError};
use crate::outbox::Outbox;
use crate::plan::{Accept, ForwardingPlan, Spread, Tx};
use crate::port::Port;
use crate::roles::Roles;
use crate::status::ModeStatus;
use crate::warning::Warning;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ActiveBackup {
    current: Current,
}

impl ActiveBackup {
    fn accept(&self, port: &Port, view: &View<'_>) -> Accept {
        if self.current.active() == Some(port.id) || view.options.all_slaves_active {
            Accept::All
        } else if !port.is_usable() || self.current.was_just_left(port.id) {
            Accept::Unicast
        } else {
            Accept::Nothing
        }
    }
}

impl Mode for ActiveBackup {
    fn title(&self) -> &'static str {
        "fault-tolerance (active-backup)"
    }

    fn on_change(&mut self, now: Time, change: &Change<'_>, view: &View<'_>, out: &mut Outbox) {
        let situation = situation(view);
        let primary = view.options.primary.as_deref();
        match *change {
            Change::Joined(port) => self.current.joined(port, &situation),
            Change::Leaving(port) => self.current.leaving(now, port, &situation, out),
            // The primary goes by name. [bond_main.c: bond_slave_netdev_event, NETDEV_CHANGENAME]
            Change::Renamed { from, to } if [Some(from), Some(to)].contains(&primary) => self.current.ask(),
            Change::Renamed { .. } => {}
            Change::Options {
                primary_given,
                reselect,
            } => {
                if primary_given {
                    self.current.force_primary(primary.is_some());
                }
                if primary_given || reselect {
                    self.current.ask();
                }
            }
            Change::PortOptions { port, before } => {
                let Some(port) = view.ports.get(port).filter(|port| port.options.prio != before.prio) else {
                    return;
                };
                if primary.is_some_and(|name| view.ports.named(name).is_some()) {
                    // [bond_options.c: bond_option_prio_set]
                    let port = port.name.clone();
                    out.notify(Notice::warning(Warning::PrioWithoutEffect { port }));
                } else {
                    self.current.ask();
                }
            }
            Change::ActiveAsked(Some(port)) => self.current.take(now, port, &situation, out),
            Change::ActiveAsked(None) => self.current.ask_anew(),
            Change::Judged { came_up } => self.current.conclude(now, came_up, &situation, out),
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.current.poll_timeout()
    }

    fn held_up(&mut self, turn: Pause) {
        self.current.held_up(turn);
    }

    /// The active port accepts all frames, a backup port drops them. [bond_main.c: bond_should_deliver_exact_match]
    ///
    /// differs: because the two ends of a cable switch at slightly different times, unicast frames are accepted from a port
    /// that is not in use yet and from the former active port, so that no frame is lost.
    fn forwarding(&self, view: &View<'_>) -> Forwarding {
        Forwarding {
            accept: view
                .ports
                .iter()
                .map(|port| (port.id, self.accept(port, view)))
                .collect(),
            steer: view.queues(),
            ..Forwarding::new(Tx::one(self.current.active()), view)
        }
    }

    fn roles(&self) -> Roles {
        Roles::One(self.current.active())
    }

    /// Without any usable port updelay is skipped, but only in a bond with a monitor.
    fn joins_in_use(&self, port: &Port, view: &View<'_>) -> bool {
        let link_up = port.link() != LinkState::Down;
        self.current.active().is_none() && (port.is_usable() || link_up && view.watched)
    }

    fn manual_choice(&self, name: &str, view: &View<'_>) -> Result<PortId, OptionError> {
        self.current.manual_choice(name, &situation(view))
    }

    fn speaker(&self) -> Option<PortId> {
        self.current.active()
    }

    fn announces(&self) -> Announces {
        Announces {
            addresses: true,
            memberships: true,
        }
    }

    fn moving_macs(&self, options: &BondOptions) -> FailOverMac {
        options.fail_over_mac
    }

    fn mac_for_new_port(&self, own: MacAddr, view: &View<'_>) -> Option<MacAddr> {
        fail_over_mac::for_new_port(view.options.fail_over_mac, own, view.ports, view.device)
    }

    fn status(&self, _now: Time, _view: &View<'_>) -> ModeStatus {
        ModeStatus {
            has_active: true,
            ..ModeStatus::default()
        }
    }

    fn save(&self) -> ModeSaved {
        ModeSaved::Current(self.current.save())
    }

    /// The port that carries the traffic in the kernel overrides the file.
    fn adopt(&mut self, saved: &ModeSaved, plan: &ForwardingPlan, view: &View<'_>, out: &mut Outbox) {
        let forwards = plan.tx.ports.first().copied().filter(|_| plan.tx.kind == Spread::One);
        if let ModeSaved::Current(saved) = saved {
            self.current = Current::new(*saved);
        }
        self.current.adopt(forwards, &situation(view), out);
    }

    fn check(&self, view: &View<'_>) {
        self.current.check(view.ports);
    }
}

fn situation<'a>(view: &View<'a>) -> Situation<'a> {
    Situation {
        ports: view.ports,
        options: view.options,
        device: view.device,
        moving: view.options.fail_over_mac,
    }
}
