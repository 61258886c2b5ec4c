//! State of the ARP monitor for one port: times of the last question and the last sign of life, and the verdict.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::window::Window;
use crate::evidence::{Answer, AnswerKind, Evidence};
use crate::monitor::{Ask, Fact, Monitor, Verdict};
use crate::time::{Pause, Time};

/// Evidence of the probes about one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArpMonitor {
    last_tx: Time,
    /// When a frame that counts last arrived. Pauses and restarts move this time forward, but not `heard`.
    last_rx: Time,
    heard: Option<Time>,
    since: Time,
    asked_since: Time,
    answers: BTreeMap<IpAddr, Answer>,
    /// Questions of the active port to these targets that arrived here and do not count yet.
    overheard: BTreeMap<IpAddr, Answer>,
    trial: Trial,
    /// When the port's time for an answer last began anew; pauses do not move it.
    fresh: Time,
    /// The verdict; after a restart it follows from the port's link state.
    verdict: Option<Works>,
}

/// Verdict about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Works {
    Yes,
    No,
}

/// State of a port while no port of an active-backup bond works and they are tried one after the other.
/// [bond_main.c: bond_ab_arp_probe]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// Not tried since it last worked.
    #[default]
    None,
    /// Probed at the moment.
    Candidate,
    /// Probed without success.
    Failed,
}

/// The lasting state of an [`ArpMonitor`], for the next start of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArpState {
    /// See [`ArpMonitor::last_tx`].
    pub last_tx: Time,
    /// See [`ArpMonitor::last_rx`].
    pub last_rx: Time,
    /// When a frame that counts last arrived; pauses do not move it.
    pub heard: Option<Time>,
    /// See [`ArpMonitor::became_active_at`].
    pub since: Time,
    /// Since when the targets are asked.
    pub asked_since: Time,
    /// The last sign of life of each target.
    pub answers: BTreeMap<IpAddr, Answer>,
    /// See [`ArpMonitor::trial`].
    pub trial: Trial,
}

impl ArpMonitor {
    /// The state before the agent started. The verdict follows from the port's link state.
    pub fn restored(state: ArpState) -> Self {
        ArpMonitor {
            last_tx: state.last_tx,
            last_rx: state.last_rx,
            heard: state.heard,
            since: state.since,
            asked_since: state.asked_since,
            answers: state.answers,
            trial: state.trial,
            ..ArpMonitor::default()
        }
    }

    /// The state for [`ArpMonitor::restored`].
    pub fn state(&self) -> ArpState {
        ArpState {
            last_tx: self.last_tx,
            last_rx: self.last_rx,
            heard: self.heard,
            since: self.since,
            asked_since: self.asked_since,
            answers: self.answers.clone(),
            trial: self.trial,
        }
    }

    /// A port without any sign of life. If it is in use, its silence begins now. [bond_main.c: bond_enslave]
    pub fn new(now: Time, in_use: bool, window: Window) -> Self {
        if !in_use {
            return ArpMonitor::default();
        }
        let before = now.since(Time::ZERO).saturating_sub(window.interval + TICK);
        let never = Time::ZERO + before;
        ArpMonitor {
            last_tx: never,
            last_rx: never,
            since: now,
            asked_since: never,
            fresh: now,
            ..ArpMonitor::default()
        }
    }

    /// Restarts the port's time for an answer, for example after a restart of the agent, before which it worked.
    pub fn restart_grace(&mut self, now: Time) {
        (self.last_tx, self.last_rx) = (now, now);
        (self.since, self.asked_since) = (now, now);
        self.fresh = now;
    }

    /// Subtracts a pause, in which the agent could neither probe nor look, from the port's silence. Silence that began before
    /// `unless_before` counts in full: since then several rounds of probes were sent without an answer.
    pub fn leave_out(&mut self, pause: Pause, unless_before: Time) {
        if self.fresh.max(self.heard.unwrap_or(Time::ZERO)) >= unless_before {
            self.last_rx = pause.leave_out(self.last_rx);
        }
        if self.fresh >= unless_before {
            for time in [&mut self.since, &mut self.asked_since] {
                *time = pause.leave_out(*time);
            }
        }
        self.last_tx = pause.leave_out(self.last_tx);
        let fresh = self.fresh;
        let recent = |answer: &&mut Answer| answer.at.max(fresh) >= unless_before;
        let answers = self.answers.values_mut().chain(self.overheard.values_mut());
        for answer in answers.filter(recent) {
            answer.paused = pause.leave_out(answer.counts_from()).since(answer.at);
        }
    }

    /// Probes left through the port.
    pub fn sent(&mut self, now: Time) {
        self.last_tx = now;
    }

    /// A frame that counts arrived.
    pub fn heard(&mut self, at: Time) {
        self.last_rx = self.last_rx.max(at);
        self.heard = self.heard.max(Some(at));
    }

    /// A target gave a sign of life.
    pub fn answered(&mut self, at: Time, target: IpAddr, by: AnswerKind) {
        let paused = Duration::ZERO;
        self.answers.insert(target, Answer { at, by, paused });
    }

    /// A question of the active port arrived here. It counts if the active port turns out to get answers, see
    /// [`ArpMonitor::count_overheard`]: after a long turn that port's answers may be read later than this.
    pub fn overheard(&mut self, at: Time, target: IpAddr) {
        let (by, paused) = (AnswerKind::Request, Duration::ZERO);
        self.overheard.insert(target, Answer { at, by, paused });
    }

    /// Counts the questions of the active port that arrived here, because that port gets answers.
    pub fn count_overheard(&mut self) {
        for (target, question) in std::mem::take(&mut self.overheard) {
            self.heard(question.at);
            self.last_rx = self.last_rx.max(question.counts_from());
            self.answers.insert(target, question);
        }
    }

    /// Forgets the questions that did not count: the active port gets no answers, or there is none.
    pub fn forget_overheard(&mut self) {
        self.overheard.clear();
    }

    /// The list of targets changed; the time of new ones begins now. [bond_options.c: _bond_options_arp_ip_target_set]
    pub fn retarget(&mut self, now: Time, targets: &[IpAddr]) {
        self.answers.retain(|target, _| targets.contains(target));
        self.overheard.retain(|target, _| targets.contains(target));
        self.asked_since = now;
        self.fresh = now;
    }

    /// The port was taken into use or made the active one. [bonding.h: last_link_up]
    pub fn became_active(&mut self, now: Time) {
        self.since = now;
        self.fresh = now;
    }

    /// Its state while no port works.
    pub fn trial(&self) -> Trial {
        self.trial
    }

    /// Changes it.
    pub fn set_trial(&mut self, trial: Trial) {
        self.trial = trial;
    }

    /// When probes last left.
    pub fn last_tx(&self) -> Time {
        self.last_tx
    }

    /// When a frame that counts last arrived.
    pub fn last_rx(&self) -> Time {
        self.last_rx
    }

    /// When it was last taken into use.
    pub fn became_active_at(&self) -> Time {
        self.since
    }

    /// When the most silent of these targets last gave a sign of life. [bonding.h: slave_oldest_target_arp_rx]
    pub fn oldest(&self, targets: impl Iterator<Item = IpAddr>) -> Option<Time> {
        let last = |target| self.answers.get(&target).map(|answer| answer.counts_from());
        targets.map(|target| last(target).max(Some(self.asked_since))).min()?
    }

    /// Stores the verdict.
    pub fn judged(&mut self, works: bool) {
        self.verdict = Some(if works { Works::Yes } else { Works::No });
    }

    /// Sets whether there is a target that can be asked; without one there is no verdict. When there is one again, the verdict
    /// begins with the port's present state.
    pub fn can_judge(&mut self, can: bool, usable: bool) {
        if !can {
            self.verdict = None;
        } else if self.verdict.is_none() {
            self.judged(usable);
        }
    }
}

impl Monitor for ArpMonitor {
    fn on_fact(&mut self, _now: Time, fact: Fact<'_>, _asks: &mut Vec<Ask>) {
        match fact {
            // Without carrier no answer can arrive; with carrier the port waits for an answer.
            Fact::Carrier(carrier) if !carrier.is_on() && self.verdict.is_some() => self.judged(false),
            Fact::Before { usable } => self.judged(usable),
            // The frames that count depend on the port's role, so the owner of all ports checks them.
            Fact::Carrier(_) | Fact::Stamps(_) | Fact::Frame(_) => {}
        }
    }

    fn verdict(&self) -> Verdict {
        match self.verdict {
            None => Verdict::Unknown,
            Some(Works::Yes) => Verdict::Up,
            Some(Works::No) => Verdict::Down,
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            heard: self.heard,
            answers: self.answers.clone(),
        }
    }
}

/// One tick of the driver's clock: "never" is an interval and this much ago.
const TICK: Duration = Duration::from_millis(4);

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        interval: Duration::from_millis(100),
    };

    fn at(ms: u64) -> Time {
        Time::from_millis(10_000 + ms)
    }

    #[test]
    fn a_pause_is_not_the_silence_of_a_port_or_of_a_target() {
        let [quiet, heard]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut port = ArpMonitor::new(at(0), true, WINDOW);
        port.retarget(at(0), &[quiet, heard]);
        port.answered(at(20), quiet, AnswerKind::Reply);
        port.heard(at(20));
        port.sent(at(100));
        port.answered(at(300), heard, AnswerKind::Reply);
        port.leave_out(Pause::between(at(100), at(400)).unwrap(), Time::ZERO);
        assert_eq!(port.last_rx(), at(320), "80 ms of silence before the pause");
        assert_eq!(port.last_tx(), at(400));
        assert_eq!(port.oldest([quiet, heard].into_iter()), Some(at(320)));
        assert_eq!(port.oldest([heard].into_iter()), Some(at(400)));
        port.leave_out(Pause::between(at(500), at(600)).unwrap(), Time::ZERO);
        assert_eq!(port.oldest([quiet].into_iter()), Some(at(420)), "pauses add up");
        let evidence = port.evidence();
        let shown = [evidence.heard, evidence.answers.get(&quiet).map(|answer| answer.at)];
        assert_eq!(shown, [Some(at(20)); 2], "what is shown is when it was");
        port.answered(at(650), quiet, AnswerKind::Reply);
        assert_eq!(port.oldest([quiet].into_iter()), Some(at(650)));
        let before = port.last_rx();
        port.leave_out(Pause::between(at(700), at(800)).unwrap(), at(500));
        assert_eq!(port.oldest([quiet].into_iter()), Some(at(750)));
        assert_eq!(port.last_rx(), before, "that silence began too long ago");
    }

    #[test]
    fn what_was_overheard_counts_later_and_from_when_it_came_but_for_pauses() {
        let target = IpAddr::from([10, 0, 0, 1]);
        let mut port = ArpMonitor::new(at(0), true, WINDOW);
        port.answered(at(50), target, AnswerKind::Request);
        port.heard(at(50));
        port.overheard(at(100), target);
        assert_eq!(
            (port.last_rx(), port.oldest([target].into_iter())),
            (at(50), Some(at(50)))
        );
        port.leave_out(Pause::between(at(150), at(400)).unwrap(), Time::ZERO);
        port.count_overheard();
        assert_eq!(
            (port.last_rx(), port.oldest([target].into_iter())),
            (at(350), Some(at(350)))
        );
        assert_eq!(port.evidence().heard, Some(at(100)));
        port.overheard(at(500), target);
        port.forget_overheard();
        port.count_overheard();
        assert_eq!(port.last_rx(), at(350));
    }

    #[test]
    fn a_new_port_has_less_than_its_windows_to_show_life() {
        let port = ArpMonitor::new(at(0), true, WINDOW);
        assert!(WINDOW.contains(port.last_rx(), at(146), 2));
        assert!(!WINDOW.contains(port.last_rx(), at(147), 2));
        assert_eq!(ArpMonitor::new(Time::ZERO, true, WINDOW).last_rx(), Time::ZERO);
    }

    #[test]
    fn the_most_silent_target_decides_where_all_must_answer() {
        let mut port = ArpMonitor::new(at(0), true, WINDOW);
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        port.answered(at(50), a, AnswerKind::Reply);
        assert_eq!(port.oldest([a, b].into_iter()), Some(port.last_tx()));
        assert_eq!(port.oldest([a].into_iter()), Some(at(50)));
        assert_eq!(port.oldest([].into_iter()), None);
        port.retarget(at(60), &[b]);
        assert_eq!(
            port.oldest([a, b].into_iter()),
            Some(at(60)),
            "new ones have their time"
        );
        assert_eq!(port.evidence().answers.get(&a), None);
    }

    #[test]
    fn an_older_stamp_does_not_undo_a_newer_one() {
        let mut port = ArpMonitor::new(at(0), true, WINDOW);
        port.heard(at(20));
        port.heard(at(10));
        assert_eq!(port.last_rx(), at(20));
    }
}
