//! The answer to `show`, made bond by bond: with many bonds it takes long, and link events must not wait for it.

use std::collections::VecDeque;

use bond_monitors::Time;

use super::id::InstanceId;
use super::{Counters, Instances};
use crate::control::proto::{ControlError, SCHEMA};

/// An answer to `show` that is being made. Each bond in it is in the state of its turn.
#[derive(Debug)]
pub struct Showing {
    /// Bonds that are still missing.
    left: VecDeque<InstanceId>,
    /// A [`Report`](crate::control::proto::Report) as JSON, up to the last bond so far.
    text: String,
}

impl Instances {
    /// Begins an answer with the state of one bond or all. Refuses a bond that does not exist.
    pub fn show(&mut self, now: Time, bond: Option<&str>) -> Result<Showing, ControlError> {
        let (shown, waiting) = match bond {
            Some(name) => (vec![self.find(name)?], Vec::new()),
            None => (self.bonds.ids(), self.waiting(now)),
        };
        let waiting = serde_json::to_string(&waiting).expect("a report is plain data");
        Ok(Showing {
            left: shown.into(),
            text: format!(
                "{{\"schema\":{SCHEMA},\"waiting\":{waiting}{},\"bonds\":[",
                self.others(now)
            ),
        })
    }

    /// The instances of the other kinds, as fields of the report.
    fn others(&mut self, now: Time) -> String {
        let mut fields = String::new();
        self.each_kind(|kind, shared| {
            if let Some(shown) = kind.show(shared, now) {
                fields += &format!(",{:?}:{shown}", kind.name());
            }
        });
        fields
    }

    /// Adds the next bond to an answer and returns how many ports it has; `None` if no bond is left. A bond that was deleted in
    /// the meantime is left out.
    pub fn show_next(&mut self, now: Time, showing: &mut Showing) -> Option<usize> {
        let at = loop {
            let at = showing.left.pop_front()?;
            if self.bonds.get(at).is_some() {
                break at;
            }
        };
        let report = self.report(now, at, Counters::Read);
        if !showing.text.ends_with('[') {
            showing.text.push(',');
        }
        showing.text += &serde_json::to_string(&report).expect("a report is plain data");
        Some(report.ports.len())
    }
}

impl Showing {
    /// The whole answer as JSON, once no bond is left.
    pub fn finish(mut self) -> String {
        self.text.push_str("]}");
        self.text
    }
}
