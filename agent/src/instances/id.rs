//! The name of an instance inside the agent.

/// Names an instance as long as the agent runs. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(pub(super) u32);
