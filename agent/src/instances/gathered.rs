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
        if self.asked || self.questions.is_empty() {
            return None;
        }
        self.asked = true;
        Some(std::mem::take(&mut self.questions))
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
}
