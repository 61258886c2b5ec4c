//! Attaches wanted ports that are there, and again when [`Attempts`](super::super::attempts::Attempts) says so.

use super::super::id::InstanceId;
use super::super::logged_failures::Subject;
use super::change::Change;
use crate::control::proto::{ControlError, ErrorCode};

impl Change<'_> {
    /// Makes an attempt to attach a wanted port that is due, unless it is not worth one any more.
    pub(in crate::instances) fn attach_if_due(&mut self, at: InstanceId, name: &str) {
        self.await_closer();
        let Some(instance) = self.bonds.get(at) else { return };
        if !instance.wants(name) || instance.bond.ports().named(name).is_some() {
            return self.bonds[at].attempts.forget(name);
        }
        // One that cannot be read is tried, and again after a pause.
        let link = self.read_name(name).ok().flatten();
        let now = self.now();
        let instance = &mut self.bonds[at];
        if instance.attempts.is_still_due(now, name, link.as_ref(), &instance.bond) {
            self.attach_wanted(at, name);
        }
    }

    /// Attaches the ports of a bond that are missing.
    pub(in crate::instances) fn attach_all_wanted(&mut self, at: InstanceId) {
        for name in self.bonds[at].wanted.clone() {
            self.attach_if_there(at, &name);
        }
    }

    /// Attaches a port that is missing, or says that it is absent.
    pub(in crate::instances) fn attach_if_there(&mut self, at: InstanceId, port: &str) {
        if self.bonds[at].bond.ports().named(port).is_some() {
            return;
        }
        match self.read_name(port) {
            Ok(None) => log::info!("{}: {port} is absent, it joins when it appears", self.bonds[at].name),
            _ => self.attach_wanted(at, port),
        }
    }

    /// Attaches a port that was waited for; a refusal is logged once for each reason.
    pub(in crate::instances) fn attach_wanted(&mut self, at: InstanceId, name: &str) {
        let result = self.try_attach(at, name);
        let left = match &result {
            Err(error) if error.code != ErrorCode::NoSuchDevice => self.read_name(name),
            _ => Ok(None),
        };
        let now = self.now();
        let is_gone = result.is_err() && matches!(left, Ok(None));
        // What events told before is seen below. But of one that was gone they may tell that it is back.
        self.to_attach
            .retain(|(of, wanted)| is_gone || (*of, wanted.as_str()) != (at, name));
        let instance = &mut self.bonds[at];
        match &result {
            Err(error) if !is_gone => {
                // As it is if it can be read.
                let left = left.ok().flatten();
                let reason = error.message.clone();
                instance
                    .attempts
                    .failed(now, name, left.as_ref(), &instance.bond, reason);
                if left.is_some_and(|left| self.bonds_under(left.ifindex).contains(&at)) {
                    self.bonds[at].attempts.stands_on_its_bond(name);
                }
            }
            // Attached, or gone: then its own event says when it is back.
            _ => instance.attempts.forget(name),
        }
        let instance = &mut self.bonds[at];
        instance.dirty = true;
        let subject = Subject::Wanted(name.to_owned());
        instance
            .failures
            .record(&instance.name, subject, &format!("attach {name}"), result);
    }

    fn try_attach(&mut self, at: InstanceId, name: &str) -> Result<(), ControlError> {
        let link = self.possible_port(at, name)?;
        self.attach(at, &link)
    }
}
