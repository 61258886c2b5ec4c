//! A change of options.

use std::time::Duration;

use super::shown::millis;
use super::{ArpAllTargets, ArpValidate, BondOptions, OptionError};
use crate::warning::Warning;

/// State of the bond that decides whether an option may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The bond is administratively up.
    pub up: bool,
    /// The bond has ports.
    pub has_ports: bool,
}

/// Options after a change, and the requests of the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new options.
    pub options: BondOptions,
    /// The requested active port; `Some(None)` lets the bond choose.
    pub active: Option<Option<String>>,
    /// `primary` was given, so the next choice takes it, independent of `primary_reselect`.
    pub primary_given: bool,
    /// The active port is to be selected again.
    pub reselect: bool,
    /// Settings that were made differently.
    pub warnings: Vec<Warning>,
    pub(super) given: Given,
}

/// Monitor options of a set, which exclude each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// miimon above 0.
    miimon: bool,
    /// arp_interval above 0.
    arp_interval: bool,
    /// arp_validate other than none.
    pub arp_validate: bool,
}

impl Change {
    pub(super) fn new(options: BondOptions) -> Self {
        Change {
            options,
            active: None,
            primary_given: false,
            reselect: false,
            warnings: Vec::new(),
            given: Given::default(),
        }
    }

    /// The monitors exclude each other: the later one wins. [bond_options.c: bond_option_miimon_set]
    pub(super) fn set_miimon(&mut self, interval: Duration) {
        self.options.miimon = interval;
        if !interval.is_zero() {
            self.given.miimon = true;
            // Without an interval nothing was monitored by ARP.
            if self.options.asks_targets() {
                self.warnings.push(Warning::ArpMonitorReplaced {
                    arp_interval_ms: millis(self.options.arp_interval),
                    arp_validate: self.options.arp_validate.name(),
                });
            }
            self.options.arp_interval = Duration::ZERO;
            self.options.arp_validate = ArpValidate::None;
        }
    }

    /// As [`Change::set_miimon`]. [bond_options.c: bond_option_arp_interval_set]
    pub(super) fn set_arp_interval(&mut self, interval: Duration) {
        self.options.arp_interval = interval;
        if !interval.is_zero() {
            self.given.arp_interval = true;
            self.options.miimon = Duration::ZERO;
        } else {
            // The set itself ends the ARP monitor, so miimon does not replace it unasked.
            let unasked = |warning: &Warning| !matches!(warning, Warning::ArpMonitorReplaced { .. });
            self.warnings.retain(unasked);
        }
    }

    /// Error in the set as a whole.
    pub(super) fn conflict(&self) -> Option<OptionError> {
        let options = &self.options;
        // [bond_netlink.c: bond_changelink]
        let both = self.given.miimon && (self.given.arp_interval || self.given.arp_validate);
        // differs: the driver takes every port down, since nothing is ever validated.
        let never = options.asks_targets()
            && options.arp_all_targets == ArpAllTargets::All
            && !options.arp_validate.validates();
        if both {
            Some(OptionError::Conflict {
                option: if self.given.arp_interval {
                    "arp_interval"
                } else {
                    "arp_validate"
                },
                with: "miimon",
                why: "a bond has one monitor",
            })
        } else if never {
            Some(OptionError::Conflict {
                option: "arp_all_targets=all",
                with: "arp_validate=none and filter",
                why: "only validated answers tell one target from another",
            })
        } else {
            None
        }
    }

    /// Error about an option that needs a port, which a new bond does not have. [bond_options.c: bond_option_active_slave_set]
    pub(super) fn needs_ports(&self) -> Option<OptionError> {
        let value = self.active.clone()??;
        let option = "active_slave";
        Some(OptionError::NoPortsYet { option, value })
    }

    /// Rounds a delay in milliseconds down to a multiple of miimon. [bond_options.c: _bond_option_delay_set]
    pub(super) fn round(&mut self, option: &str, delay_ms: u32) -> u32 {
        let miimon_ms = millis(self.options.miimon);
        let rest = u64::from(delay_ms).checked_rem(miimon_ms).unwrap_or_default();
        if rest == 0 {
            return delay_ms;
        }
        // The rest is at most the delay.
        let used_ms = delay_ms - rest as u32;
        self.warnings.push(Warning::DelayRounded {
            option: option.to_owned(),
            asked_ms: delay_ms.into(),
            miimon_ms,
            used_ms: used_ms.into(),
        });
        used_ms
    }
}
