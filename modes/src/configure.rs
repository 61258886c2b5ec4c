//! Wishes: options of the bond and of its ports while it runs.

use bond_monitors::{LinkState, Time};

use crate::action::{Notice, SwitchReason};
use crate::bond::{Bond, Wish};
use crate::ids::PortId;
use crate::options::{self, BondOptions, Context, Monitor, OptionError, PORT_TABLE, PortOptions};
use crate::port::Port;

impl Bond {
    /// The options that [`Bond::configure`] would put in force, or why it would not.
    pub fn preview(&self, pairs: &[(String, String)]) -> Result<BondOptions, OptionError> {
        options::apply(&self.options, self.context(), pairs).map(|change| change.options)
    }

    /// Takes a set of options in; all or nothing.
    pub fn configure(&mut self, now: Time, pairs: &[(String, String)]) -> Result<(), OptionError> {
        let change = options::apply(&self.options, self.context(), pairs)?;
        let manual = match &change.active {
            Some(Some(name)) => Some(self.manual_choice(name)?),
            _ => None,
        };
        let before = std::mem::replace(&mut self.options, change.options);
        self.notices
            .extend(change.warnings.into_iter().map(|text| Notice::Warning { text }));
        self.note_changes(&before);
        self.follow_monitor(now, &before);
        if change.primary_given {
            self.choice.force_primary = self.options.primary.is_some();
        }
        if manual.is_some() {
            self.switch(now, manual, SwitchReason::Manual);
        }
        // What follows active_slave in the driver's order may move the active port once more.
        let wish = match change.active {
            Some(None) => Wish::ChooseAgain,
            _ if change.primary_given || change.reselect => Wish::Select,
            _ => Wish::Nothing,
        };
        self.settle(now, wish);
        Ok(())
    }

    fn context(&self) -> Context {
        Context {
            up: self.device.up,
            has_ports: !self.ports.is_empty(),
        }
    }

    /// The options of one port that [`Bond::configure_port`] would put in force, or why it would not.
    pub fn preview_port(&self, port: PortId, pairs: &[(String, String)]) -> Result<PortOptions, OptionError> {
        let before = self.ports.get(port).map(|port| port.options).unwrap_or_default();
        let options = before.apply(self.options.mode, pairs)?;
        self.check_queue(port, options.queue_id)?;
        Ok(options)
    }

    /// Takes a set of options of one port in; all or nothing.
    pub fn configure_port(&mut self, now: Time, port: PortId, pairs: &[(String, String)]) -> Result<(), OptionError> {
        let options = self.preview_port(port, pairs)?;
        let Some(port) = self.ports.get_mut(port) else {
            return Ok(());
        };
        let before = std::mem::replace(&mut port.options, options);
        let name = port.name.clone();
        let changed = PORT_TABLE
            .iter()
            .filter(|row| (row.show)(&before) != (row.show)(&options));
        self.notices.extend(changed.map(|row| Notice::OptionChanged {
            option: format!("{} of {name}", row.name),
            value: (row.show)(&options).to_string(),
        }));
        let primary = self.options.primary.as_ref();
        let has_primary = primary.is_some_and(|name| self.ports.named(name).is_some());
        let wish = match (before.prio != options.prio, has_primary) {
            (true, false) => Wish::Select,
            (true, true) => {
                // [bond_options.c: bond_option_prio_set]
                let text = format!("{name}: prio has no effect while a primary is attached");
                self.notices.push(Notice::Warning { text });
                Wish::Nothing
            }
            (false, _) => Wish::Nothing,
        };
        self.settle(now, wish);
        Ok(())
    }

    /// [bond_options.c: bond_option_active_slave_set]
    fn manual_choice(&self, name: &str) -> Result<PortId, OptionError> {
        let (option, value) = ("active_slave", name.to_owned());
        match self.ports.named(name) {
            None => Err(OptionError::NotAPort { option, value }),
            Some(port) if self.choice.active == Some(port.id) => Ok(port.id),
            Some(port) if port.link() != LinkState::Up || !self.seen_up(port) => {
                Err(OptionError::PortDown { option, value })
            }
            Some(port) => Ok(port.id),
        }
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

    /// Begins to watch in the way that the options now say.
    fn follow_monitor(&mut self, now: Time, before: &BondOptions) {
        let monitor = |options: &BondOptions| (options.monitor(), options.monitor_interval());
        if monitor(before) != monitor(&self.options) {
            self.next_poll = now;
            if before.arp_interval != self.options.arp_interval {
                self.start_probing(now);
            }
            self.warn_if_unmonitored();
        }
        let targets: Vec<_> = self.options.targets().collect();
        if before.targets().ne(targets.iter().copied()) {
            self.forget_paths();
            for port in self.ports.iter_mut() {
                port.arp.retarget(now, &targets);
            }
        }
    }

    /// Without a monitor nobody knows better than the operator.
    fn seen_up(&self, port: &Port) -> bool {
        self.options.monitor() == Monitor::None || port.carrier().is_on()
    }

    fn note_changes(&mut self, before: &BondOptions) {
        let old = options::show_all(before, None);
        for (option, value) in options::show_all(&self.options, None) {
            if old.get(&option) != Some(&value) {
                self.notices.push(Notice::OptionChanged {
                    option,
                    value: value.to_string(),
                });
            }
        }
    }

    pub(crate) fn warn_if_unmonitored(&mut self) {
        let text = match self.options.monitor() {
            Monitor::None => "unmonitored: with miimon=0 and no other monitor a failed port stays in use",
            Monitor::Arp if self.blind() => {
                "unmonitored: no target can be asked through this bond, so nothing but carrier tells whether a port works"
            }
            _ => return,
        };
        self.notices.push(Notice::Warning { text: text.to_owned() });
    }
}
