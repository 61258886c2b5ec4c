//! Which change the agent is to make next: because of facts, or as a part of its start.

use bond_monitors::Time;

use super::Instances;
use super::agenda::{Stage, Step};
use super::id::InstanceId;
use super::task::Task;
use super::unadopted::Unadopted;
use crate::status::writer::{START_LIMIT, warn_late};

impl Instances {
    /// The next task, if there is one. It is to be done before the next one is asked for, and if `links_are_read` is false only if
    /// it may come before link events that are not handled yet: what a bond was before it is taken over must not be told it
    /// afterwards.
    pub fn next_task(&mut self, now: Time, links_are_read: bool) -> Option<Task> {
        self.hurry_takeovers(now);
        let is_late = links_are_read && self.adopt_timeout().is_some_and(|due| due <= now);
        if self.agenda.stage() == Stage::Saved {
            // Nobody else moves the traffic of these bonds.
            self.turns.adopted_late = is_late && !self.turns.adopted_late;
            return match self.turns.adopted_late {
                true => Some(Task::AdoptLate),
                false if links_are_read => self.next_of_start(now),
                false => None,
            };
        }
        if let Some(at) = self.gone.pop_first() {
            return Some(Task::Remove(at));
        }
        if is_late {
            return Some(Task::AdoptLate);
        }
        // In turns: an interface that comes and goes all the time does not keep the agent from the rest.
        if std::mem::take(&mut self.turns.attached)
            && let Some(other) = self.next_other(now, links_are_read)
        {
            return Some(other);
        }
        if let Some((at, port)) = self.next_attachment(now) {
            self.turns.attached = true;
            return Some(Task::AttachWanted(at, port));
        }
        self.next_other(now, links_are_read)
    }

    fn next_other(&mut self, now: Time, links_are_read: bool) -> Option<Task> {
        // The disk may be slow.
        if self.owes_files() && self.agenda.stage() > Stage::Orphans {
            return Some(Task::Save);
        }
        if !self.has_started() {
            return if links_are_read { self.next_of_start(now) } else { None };
        }
        // Before that, a bond that is still to be taken over might have wanted it.
        if let Some(port) = self.next_return(now) {
            return Some(Task::GiveBack(port));
        }
        // Last of all: nothing forwards for it, and there may be many of them, each of which takes time.
        let is_due = links_are_read && self.make_timeout().is_some_and(|due| due <= now);
        is_due.then_some(Task::MakeLate)
    }

    /// When there is a task.
    pub fn task_timeout(&mut self) -> Option<Time> {
        if !(self.gone.is_empty() && self.to_attach.is_empty()) || self.owes_files() {
            return Some(Time::ZERO);
        }
        let parts = [
            self.bonds.attempts_timeout(),
            self.adopt_timeout(),
            match self.has_started() {
                true => [self.give_back_timeout(), self.make_timeout()]
                    .into_iter()
                    .flatten()
                    .min(),
                false => self.start_timeout(),
            },
        ];
        parts.into_iter().flatten().min()
    }

    /// Whether the work of the start is done. Until then no bond may be made or changed for a client: one that is still to be
    /// adopted may have the name, or the port.
    pub fn has_started(&self) -> bool {
        self.agenda.stage() == Stage::Done
    }

    /// Whether a bond may forward that this agent has not adopted yet.
    pub fn has_unadopted(&self) -> bool {
        !self.unadopted.iter().all(Unadopted::is_unmade)
    }

    fn next_attachment(&mut self, now: Time) -> Option<(InstanceId, String)> {
        let told = std::iter::from_fn(|| self.to_attach.pop_front());
        let mut told = told.filter(|(at, _)| self.bonds.get(*at).is_some());
        if let Some(next) = told.next() {
            return Some(next);
        }
        let due = self.bonds.attempts_due(now).into_iter();
        due.filter_map(|at| Some((at, self.bonds.get(at)?.attempts.due(now).into_iter().next()?)))
            .next()
    }

    /// When the next bond that could not be adopted is tried again.
    pub(super) fn adopt_timeout(&self) -> Option<Time> {
        let waits = self.unadopted.iter().filter(|bond| !bond.is_unmade());
        waits.filter_map(|bond| bond.retry).min()
    }

    /// When the next bond that could not be made is tried again.
    pub(super) fn make_timeout(&self) -> Option<Time> {
        let unmade = self.unadopted.iter().filter(|bond| bond.is_unmade());
        unmade.filter_map(|bond| bond.retry).min()
    }

    fn start_timeout(&mut self) -> Option<Time> {
        // While something is still to be handed over, or to be written, the thread that writes files wakes the loop.
        let owes = self.owed_files.as_ref().is_none_or(|owed| !owed.is_empty());
        let handed_over = !owes && !self.prune_due;
        let waits = self.files_limit.filter(|_| self.settling.is_some() || !handed_over);
        Some(waits.unwrap_or(Time::ZERO))
    }

    fn next_of_start(&mut self, now: Time) -> Option<Task> {
        loop {
            match self.agenda.pop() {
                Some(Step::Change(task)) => return Some(task),
                Some(Step::Prune) => {
                    self.prune_files();
                    return None;
                }
                Some(Step::Files) => return self.wait_for_files(now),
                None => self.begin_stage()?,
            }
        }
    }

    /// `None` if nothing is left.
    fn begin_stage(&mut self) -> Option<()> {
        let changes = match self.agenda.advance() {
            Stage::Saved | Stage::Done => return None,
            Stage::Orphans => vec![Task::FindOrphans],
            Stage::Examine => vec![Task::Examine],
            Stage::Change => self.changes(),
            Stage::Attach => {
                let all = self.bonds.ids().into_iter();
                all.flat_map(|at| self.attachments(at)).collect()
            }
            Stage::Make => {
                let specs = self.agenda.specs().iter();
                specs.map(|spec| Task::Follow(spec.name.clone())).collect()
            }
            Stage::End => {
                self.agenda.add([Step::Prune, Step::Files]);
                return Some(());
            }
        };
        self.agenda.add(changes.into_iter().map(Step::Change));
        Some(())
    }

    fn changes(&mut self) -> Vec<Task> {
        let named = self.agenda.specs().iter().map(|spec| spec.name.clone());
        let mut followed: Vec<String> = named.collect();
        followed.retain(|name| self.bonds.named(name).is_some());
        let once_named = self.bonds.iter().filter(|instance| instance.configured.is_some());
        let left = once_named.map(|instance| instance.name.clone());
        let left = left.filter(|name| !self.agenda.names(name));
        let followed = followed.into_iter().map(Task::Follow);
        followed.chain(left.map(Task::LeaveBehind)).collect()
    }

    /// In the order of the ports: the first one gives the bond its address.
    pub(super) fn attachments(&self, at: InstanceId) -> Vec<Task> {
        let Some(instance) = self.bonds.get(at) else {
            return Vec::new();
        };
        let attached = instance.bond.ports();
        let missing = instance.wanted.iter().filter(|port| attached.named(port).is_none());
        missing.map(|port| Task::Attach(at, port.clone())).collect()
    }

    /// The files show all bonds when the start is done, unless the disk does not answer.
    fn wait_for_files(&mut self, now: Time) -> Option<Task> {
        let limit = *self.files_limit.get_or_insert(now + START_LIMIT);
        let written = self.are_files_written();
        if !written && now < limit {
            self.agenda.add([Step::Files]);
            return None;
        }
        if !written {
            warn_late(START_LIMIT);
        }
        self.files_limit = None;
        self.look_at_files_anew();
        None
    }
}
