//! Ports and links as they come and go.

use bond_monitors::{Fact, LinkReport, LinkState, Time};

use super::Bond;
use crate::action::{Action, Notice};
use crate::delays;
use crate::ids::PortId;
use crate::mode::Change;
use crate::options::FailOverMac;
use crate::port::{Port, PortFacts};
use crate::watch;

impl Bond {
    pub(super) fn on_attached(&mut self, now: Time, id: PortId, facts: PortFacts) {
        if self.ports.get(id).is_some() {
            return;
        }
        let given = facts.report.mac;
        let mut port = Port::new(now, id, facts, &self.options);
        if self.moving_macs() == FailOverMac::Follow {
            port.own_mac = given;
        }
        if self.ports.is_empty() {
            self.device.take_mac_of_first(port.permanent_mac);
        }
        self.out.notify(Notice::Attached {
            port: port.name.clone(),
            active: self.mode.joins_in_use(&port, &self.view()),
            link_up: port.link() != LinkState::Down,
        });
        self.ports.push(port);
        self.notify_mode(now, Change::Joined(id));
    }

    pub(super) fn on_detached(&mut self, now: Time, id: PortId, gone: bool) {
        let was_active = self.mode.speaker() == Some(id);
        let active = self.active();
        if active == Some(id) && self.view().watched && self.options.polls_carrier() {
            let skipped = delays::skip_updelay(now, &mut self.ports, active, Some(id));
            self.report(skipped.into_iter().flat_map(|found| found.notices).collect());
        }
        if self.ports.get(id).is_some() {
            self.notify_mode(now, Change::Leaving(id));
        }
        let Some(port) = self.ports.remove(id) else { return };
        self.out.notify(Notice::Detached {
            port: port.name.clone(),
            was_active,
        });
        if self.ports.is_empty() {
            self.device.give_mac_back();
        } else if !gone && port.permanent_mac == self.device.mac && self.moving_macs() != FailOverMac::Active {
            self.out.notify(Notice::MacStillInUse {
                port: port.name,
                mac: port.permanent_mac,
            });
        }
    }

    pub(super) fn on_link(&mut self, now: Time, id: PortId, report: LinkReport) {
        let use_carrier = self.options.use_carrier;
        let Some(port) = self.ports.get_mut(id) else { return };
        if report.admin_up {
            // With carrier or without, the driver believes what the interface says now; it does not ask one that is set down.
            // [bond_main.c: bond_slave_netdev_event]
            (port.speed, port.duplex) = (report.speed, report.duplex);
        }
        if use_carrier {
            watch::pass_fact(now, port, Fact::Carrier(report.carrier), &mut self.out);
        } else {
            self.out.act(Action::PollCarriers { ports: vec![id] });
        }
        if port.name != report.name {
            let before = std::mem::replace(&mut port.name, report.name.clone());
            self.notify_mode(
                now,
                Change::Renamed {
                    from: &before,
                    to: &report.name,
                },
            );
        }
    }

    /// The operator's wishes for the bond's own interface.
    pub(super) fn on_bond_link(&mut self, now: Time, report: &LinkReport) {
        if report.admin_up && !self.device.up {
            self.polls.restart(now);
            self.probe(|probing, ports, context, _| probing.resume(now, now, ports, context));
        } else if !report.admin_up {
            self.announcer.stop();
        }
        self.device.update(report, self.moving_macs());
    }
}
