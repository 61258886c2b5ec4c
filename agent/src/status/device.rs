//! State of interfaces as far as the status files show it.

use std::collections::BTreeMap;

use bond_monitors::LinkReport;

use crate::netlink::Link;

/// What was read last of interfaces, by index.
pub type Devices = BTreeMap<u32, Device>;

/// What was read last of an interface.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its state.
    pub report: LinkReport,
    /// Its `operstate`, if it was read.
    pub operstate: Option<&'static str>,
}

impl Device {
    /// What a link message says.
    pub fn of(link: &Link) -> Self {
        Device {
            report: link.report.clone(),
            operstate: Some(link.operstate),
        }
    }
}

impl From<LinkReport> for Device {
    fn from(report: LinkReport) -> Self {
        Device {
            report,
            operstate: None,
        }
    }
}
