//! Questions to a thread that are gathered while it is at work on earlier ones: one job answers them all, and a thread that is held
//! up is not left with more jobs all the time.

use std::collections::BTreeSet;

/// Questions of one kind, each once.
pub(super) struct Gathered<T> {
    questions: BTreeSet<T>,
    /// Earlier ones are not answered yet.
    asked: bool,
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Gathered {
            questions: BTreeSet::new(),
            asked: false,
        }
    }
}

impl<T: Ord> Gathered<T> {
    /// To be asked.
    pub(super) fn add(&mut self, question: T) {
        self.questions.insert(question);
    }

    /// The questions for the next job, if one is to begin now. [`Gathered::end`] ends it.
    pub(super) fn begin(&mut self) -> Option<BTreeSet<T>> {
        self.begin_with(usize::MAX, |_| true)
    }

    /// As [`Gathered::begin`], with the first `most` of those questions that can be asked now. The others are left to a later job.
    pub(super) fn begin_with(&mut self, most: usize, can_be_asked: impl Fn(&T) -> bool) -> Option<BTreeSet<T>> {
        if self.asked {
            return None;
        }
        let mut left = most;
        let goes = |question: &T| {
            let goes = left > 0 && can_be_asked(question);
            left -= usize::from(goes);
            goes
        };
        let (now, later) = std::mem::take(&mut self.questions).into_iter().partition(goes);
        self.questions = later;
        self.asked = !BTreeSet::is_empty(&now);
        self.asked.then_some(now)
    }

    /// The job was answered.
    pub(super) fn end(&mut self) {
        self.asked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_during_a_job_is_left_to_one_more() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.begin(), None);
        gathered.add(7);
        assert_eq!(gathered.begin(), Some([7].into()));
        for question in [8, 9, 8] {
            gathered.add(question);
            assert_eq!(gathered.begin(), None);
        }
        gathered.end();
        assert_eq!(gathered.begin(), Some([8, 9].into()));
        gathered.end();
        assert_eq!(gathered.begin(), None);
    }

    #[test]
    fn what_cannot_be_asked_yet_is_left_to_a_later_job() {
        let mut gathered = Gathered::default();
        gathered.add(7);
        assert_eq!(gathered.begin_with(9, |question| *question != 7), None);
        gathered.add(8);
        assert_eq!(gathered.begin_with(9, |question| *question != 7), Some([8].into()));
        gathered.end();
        assert_eq!(gathered.begin(), Some([7].into()));
    }

    #[test]
    fn more_than_a_job_is_to_have_is_left_to_the_next_one() {
        let mut gathered = Gathered::default();
        (1..=5).for_each(|question| gathered.add(question));
        let mut jobs = Vec::new();
        while let Some(job) = gathered.begin_with(2, |question| *question != 2) {
            gathered.end();
            jobs.push(job);
        }
        assert_eq!(jobs, [[1, 3].into(), [4, 5].into()]);
    }
}
