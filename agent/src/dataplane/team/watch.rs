//! Options that another program changes, such as with teamnl(8).
//!
//! The driver also reports our own changes, some time later, and a value may have been changed and changed back. So a report that
//! differs from what is known is only a reason to read the options; what they say then decides.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::bond::{Bond, NAME, Shared};
use super::genl::{DATAGRAM_MAX, Events};
use super::options::{self, Key, Value};
use crate::dataplane::{Report, Watch};
use crate::netlink::Drained;

/// The loop's end of the stream of changes.
pub(super) struct TeamWatch {
    events: Arc<Events>,
    buffer: Box<[u8]>,
}

impl TeamWatch {
    pub(super) fn new(events: Arc<Events>) -> TeamWatch {
        TeamWatch {
            events,
            buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
        }
    }
}

impl Watch for TeamWatch {
    fn plane(&self) -> &'static str {
        NAME
    }

    fn event_fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }

    fn read_events(&mut self, budget: usize, sink: &mut Vec<Report>) -> io::Result<Drained> {
        self.events.read(&mut self.buffer, budget, sink)
    }
}

impl Shared {
    /// See [`PlaneBond::changed_by_others`](crate::dataplane::PlaneBond::changed_by_others).
    pub(super) fn is_changed(&mut self, bond: &mut Bond, reports: &[Report]) -> bool {
        if !reports.iter().any(|report| bond.differs(report)) {
            return false;
        }
        // A device that does not answer is going away, and its own event reports that.
        let Ok(now) = self.driver.options(bond.ifindex) else {
            return false;
        };
        let differs = |(key, value)| now.get(key).is_some_and(|now| now != value);
        let is_changed = bond.settings.iter().any(differs);
        if is_changed {
            // The next plan puts it back, and reports of it that are still to come are no news.
            bond.settings = now;
        }
        is_changed
    }
}

impl Bond {
    /// Whether a report says anything else than what is known. One that cannot be read may.
    fn differs(&self, report: &Report) -> bool {
        let Report::Settings { said, .. } = report else {
            return true;
        };
        let options = options::parse(said).and_then(|said| options::parse_options(&said));
        let differs = |(key, value): &(Key, Value)| self.settings.get(key).is_some_and(|known| known != value);
        options.is_none_or(|options| options.iter().any(differs))
    }
}
