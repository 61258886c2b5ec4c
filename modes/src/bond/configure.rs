//! Changes of options of the bond and of its ports while it runs.

use bond_monitors::Time;

use super::Bond;
use super::unmonitored::Unmonitored;
use crate::action::Notice;
use crate::ids::PortId;
use crate::mode::{AnyMode, Change};
use crate::options::{self, BondOptions, Context, OptionError, PORT_TABLE, PortOptions};
use crate::port::Port;
use crate::warning::Warning;

impl Bond {
    /// The options that [`Bond::configure`] would set, or the reason for a refusal.
    pub fn preview(&self, pairs: &[(String, String)]) -> Result<BondOptions, OptionError> {
        options::apply(&self.options, self.context(), pairs).map(|change| change.options)
    }

    /// Sets options, all or nothing.
    pub fn configure(&mut self, now: Time, pairs: &[(String, String)]) -> Result<(), OptionError> {
        let change = options::apply(&self.options, self.context(), pairs)?;
        let manual = match &change.active {
            Some(Some(name)) => Some(self.mode.manual_choice(name, &self.view())?),
            _ => None,
        };
        let before = std::mem::replace(&mut self.options, change.options);
        if before.mode != self.options.mode {
            self.mode = AnyMode::new(self.options.mode);
        }
        for about in change.warnings {
            self.out.notify(Notice::warning(about));
        }
        self.note_changes(&before);
        self.follow_monitor(now, &before);
        self.notify_mode(
            now,
            Change::Options {
                primary_given: change.primary_given,
                reselect: change.reselect,
            },
        );
        // Options after active_slave in the driver's order may move the active port again.
        if change.active.is_some() {
            self.notify_mode(now, Change::ActiveAsked(manual));
        }
        self.conclude(now, Vec::new());
        Ok(())
    }

    fn context(&self) -> Context {
        Context {
            up: self.device.up,
            has_ports: !self.ports.is_empty(),
        }
    }

    /// The options of one port that [`Bond::configure_port`] would set, or the reason for a refusal.
    pub fn preview_port(&self, port: PortId, pairs: &[(String, String)]) -> Result<PortOptions, OptionError> {
        let before = self.ports.get(port).map(|port| port.options).unwrap_or_default();
        let options = before.apply(self.options.mode, pairs)?;
        self.check_queue(port, options.queue_id)?;
        Ok(options)
    }

    /// Sets options of one port, all or nothing.
    pub fn configure_port(&mut self, now: Time, port: PortId, pairs: &[(String, String)]) -> Result<(), OptionError> {
        let options = self.preview_port(port, pairs)?;
        let Some(attached) = self.ports.get_mut(port) else {
            return Ok(());
        };
        let before = std::mem::replace(&mut attached.options, options);
        for row in PORT_TABLE {
            let value = (row.show)(&options);
            if (row.show)(&before) != value {
                self.out.notify(Notice::OptionChanged {
                    option: row.name.to_owned(),
                    port: Some(attached.name.clone()),
                    value: value.to_string(),
                });
            }
        }
        self.notify_mode(now, Change::PortOptions { port, before });
        self.conclude(now, Vec::new());
        Ok(())
    }

    /// A queue is bound to one port. [bond_options.c: bond_option_queue_id_set]
    fn check_queue(&self, port: PortId, queue: u16) -> Result<(), OptionError> {
        let taken = |other: &&Port| queue != 0 && other.id != port && other.options.queue_id == queue;
        match self.ports.iter().find(taken) {
            Some(other) => Err(OptionError::QueueTaken {
                queue,
                port: other.name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Starts the monitor of the new options.
    fn follow_monitor(&mut self, now: Time, before: &BondOptions) {
        let monitor = |options: &BondOptions| (options.asks_targets(), options.monitor_interval());
        if monitor(before) != monitor(&self.options) {
            self.polls.restart(now);
            if before.arp_interval != self.options.arp_interval {
                self.probe(|probing, ports, context, _| probing.start(now, ports, context));
            }
        }
        let targets: Vec<_> = self.options.targets().collect();
        if before.targets().ne(targets.iter().copied()) {
            self.probing.forget_paths();
            for port in self.ports.iter_mut() {
                if let Some(arp) = port.arp_mut() {
                    arp.retarget(now, &targets);
                }
            }
        }
        self.report_unmonitored();
    }

    fn note_changes(&mut self, before: &BondOptions) {
        let old = options::show_all(before, None);
        for (option, value) in options::show_all(&self.options, None) {
            if old.get(&option) != Some(&value) {
                self.out.notify(Notice::OptionChanged {
                    option,
                    port: None,
                    value: value.to_string(),
                });
            }
        }
    }

    /// Why the bond is unmonitored, if it is.
    pub(super) fn unmonitored(&self) -> Option<Unmonitored> {
        if !self.options.watches_links() {
            Some(Unmonitored::NoMonitor)
        } else if self.options.asks_targets() && self.probing.has_no_target(&self.options) {
            Some(Unmonitored::NoTarget)
        } else {
            None
        }
    }

    /// Reports once that the bond is unmonitored, and once that it is monitored again.
    pub(super) fn report_unmonitored(&mut self) {
        let now = self.unmonitored();
        if std::mem::replace(&mut self.reported_unmonitored, now) == now {
            return;
        }
        self.out.notify(match now {
            Some(Unmonitored::NoMonitor) => Notice::warning(Warning::Unmonitored),
            Some(Unmonitored::NoTarget) => Notice::warning(Warning::NoTarget),
            None => Notice::Monitored {
                targets: self.options.asks_targets(),
            },
        });
    }
}
