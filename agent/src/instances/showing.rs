//! The answer to `show`, made bond by bond: with many bonds it takes long, and link events must not wait for it.

use std::collections::VecDeque;
use std::time::Duration;

use bond_monitors::Time;
use serde_json::{Value, json};

use super::id::InstanceId;
use super::{Counters, Instances};
use crate::control::proto::{Call, ControlError, SCHEMA};

/// An answer to `show` that is being made. Each bond in it is in the state of its turn.
#[derive(Debug)]
pub struct Showing {
    /// Bonds that are still missing.
    left: VecDeque<InstanceId>,
    /// How many of them were asked to be counted, and until when the whole answer waits for counts.
    counted: usize,
    limit: Time,
    /// A [`Report`](crate::control::proto::Report) as JSON, up to the last bond so far.
    text: String,
}

impl Instances {
    /// Answers a call that changes nothing and takes no time.
    pub fn answer(&mut self, call: &Call) -> Result<Value, ControlError> {
        match call {
            Call::List {} => {
                let to_be_made = self.still_to_make();
                let made = self.bonds.iter().map(|instance| &instance.name);
                // A client that finds a name here changes the bond instead of adding it.
                let unadopted = self.unadopted.iter().filter(|bond| !bond.is_unmade());
                let names = made.chain(unadopted.map(|bond| &bond.name));
                Ok(names
                    .chain(&to_be_made)
                    .map(|name| Value::from(name.as_str()))
                    .collect())
            }
            Call::Monitor { bond: Some(bond) } => self.find(bond).map(|_| json!({})),
            Call::Monitor { bond: None } => Ok(json!({})),
            _ => unreachable!("it is answered in other ways"),
        }
    }

    /// Begins an answer with the state of one bond or all. Refuses a bond that does not exist.
    pub fn show(&mut self, now: Time, bond: Option<&str>) -> Result<Showing, ControlError> {
        let (shown, waiting) = match bond {
            Some(name) => (vec![self.find(name)?], Vec::new()),
            None => (self.bonds.ids(), self.waiting(now)),
        };
        let waiting = serde_json::to_string(&waiting).expect("a report is plain data");
        Ok(Showing {
            left: shown.into(),
            counted: 0,
            limit: now + COUNTED_WITHIN,
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

    /// Adds the next bond to an answer. A bond that was deleted in the meantime is left out.
    pub fn show_next(&mut self, now: Time, showing: &mut Showing) -> Progress {
        let at = loop {
            match showing.left.front() {
                Some(&at) if self.bonds.get(at).is_some() => break at,
                Some(_) => showing.next(),
                None => return Progress::All,
            }
        };
        if showing.counted == 0 {
            showing.counted = COUNTED_AHEAD;
            self.count(showing.left.iter().copied().take(COUNTED_AHEAD));
        }
        if self.is_counting(at) && now < showing.limit {
            return Progress::Waits(showing.limit);
        }
        showing.next();
        let report = self.report(now, at, Counters::Read);
        if !showing.text.ends_with('[') {
            showing.text.push(',');
        }
        showing.text += &serde_json::to_string(&report).expect("a report is plain data");
        Progress::Bond
    }
}

/// How an answer to `show` went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// By a bond.
    Bond,
    /// Not yet: until this time at most it waits for what the ports of the next bond have counted.
    Waits(Time),
    /// It is complete.
    All,
}

impl Showing {
    /// The next bond is left behind.
    fn next(&mut self) {
        self.left.pop_front();
        self.counted = self.counted.saturating_sub(1);
    }

    /// The whole answer as JSON, once no bond is left.
    pub fn finish(mut self) -> String {
        self.text.push_str("]}");
        self.text
    }
}

/// How long an answer waits for what ports have counted: others may have the kernel's lock. It shows the last known then.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);

/// Bonds whose ports are counted together.
const COUNTED_AHEAD: usize = 8;
