//! Attaches wanted ports when they appear, and again when [`Attempts`](super::super::attempts::Attempts) says so.

use bond_monitors::Time;

use super::super::Instances;
use super::super::id::InstanceId;
use super::super::logged_failures::Subject;
use crate::control::proto::ErrorCode;
use crate::netlink::Link;

impl Instances {
    /// A link message about a wanted interface that is not attached: attaches it if an attempt is due.
    pub(in crate::instances) fn on_wanted(&mut self, now: Time, at: InstanceId, link: &Link) {
        if self.bonds[at].attempts.is_due(now, link) {
            self.attach_wanted(now, at, &link.report.name);
        }
    }

    /// Makes the attempts of these bonds that are due.
    pub(in crate::instances) fn attach_due(&mut self, now: Time, due: &[InstanceId]) {
        for &at in due {
            for name in self.bonds[at].attempts.due(now) {
                let link = self.links.by_name(&name).ok().flatten();
                let instance = &mut self.bonds[at];
                if instance
                    .attempts
                    .is_still_due(now, &name, link.as_ref(), &instance.bond)
                {
                    self.attach_wanted(now, at, &name);
                }
            }
        }
    }

    /// Attaches a port that was waited for; a refusal is logged once for each reason.
    pub(in crate::instances) fn attach_wanted(&mut self, now: Time, at: InstanceId, name: &str) {
        let attach = |instances: &mut Instances| {
            let link = instances.possible_port(name)?;
            instances.attach(now, at, &link)
        };
        let result = self.as_a_change(attach);
        let left = match &result {
            Err(error) if error.code != ErrorCode::NoSuchDevice => self.links.by_name(name),
            _ => Ok(None),
        };
        let is_gone = result.is_err() && matches!(left, Ok(None));
        let instance = &mut self.bonds[at];
        match &result {
            Err(error) if !is_gone => {
                // As it is if it can be read.
                let left = left.ok().flatten();
                let reason = error.message.clone();
                instance
                    .attempts
                    .failed(now, name, left.as_ref(), &instance.bond, reason);
            }
            // Attached, or gone: then its own event says when it is back.
            _ => instance.attempts.forget(name),
        }
        instance.dirty = true;
        let subject = Subject::Wanted(name.to_owned());
        instance
            .failures
            .record(&instance.name, subject, &format!("attach {name}"), result);
    }
}
