//! Changes that the agent makes by itself.

use bond_modes::PortId;

use super::id::InstanceId;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// At the start: take over the saved bond of this name.
    Adopt(String),
    /// At the start: find bonds whose saved state was lost.
    FindOrphans,
    /// At the start: take over the bond of this name that no file describes.
    Orphan(String),
    /// At the start: find out whether this kernel has what a data plane needs.
    Examine,
    /// At the start: make the bond of this name what its lines of the files say.
    Follow(String),
    /// At the start: the files do not name this bond.
    LeaveBehind(String),
    /// At the start: attach a port that this bond wants, if it is there.
    Attach(InstanceId, String),
    /// The interface of a bond is gone.
    Remove(InstanceId),
    /// Attach a port that this bond wants, if that is still worth an attempt.
    AttachWanted(InstanceId, String),
    /// Take over a bond for which an earlier attempt failed.
    AdoptLate,
    /// Make a bond of the option files for which an earlier attempt failed.
    MakeLate,
    /// Do what is to be done in the folder of states.
    Save,
    /// Give back a port.
    GiveBack(PortId),
}
