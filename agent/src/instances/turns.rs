//! Which of several kinds of tasks had its turn last.

/// Kinds that take turns with others.
#[derive(Default)]
pub(super) struct Turns {
    /// The last task was to attach a port that is wanted.
    pub(super) attached: bool,
    /// The last bond that was taken over was one that could not be before.
    pub(super) adopted_late: bool,
}
