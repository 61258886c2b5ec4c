//! Data planes: they make the kernel match a [`ForwardingPlan`](bond_modes::ForwardingPlan) and decide nothing themselves.
//!
//! | File | What |
//! |---|---|
//! | `plane`, `applied`, `error` | what a plane is to the rest of the agent; the outcome of a plan |
//! | `kept` | what a plane puts back of its own, as no event reports that it is gone |
//! | `choice` | the planes of this agent, and which of them a bond gets |
//! | `can` | what a plan can say and no plane can do yet |
//! | `port`, `interface`, `step` | what every plane does with ports and other interfaces, and how a step fails |
//! | `owner` | which bond has a port, of whichever agent |
//! | `moved` | ports that were moved to another network namespace |
//! | `lock` | locks that outlive a panic |
//! | `tc/`, `team/` | one folder for each plane |

mod applied;
mod can;
mod choice;
mod error;
#[cfg(test)]
mod frames;
mod interface;
mod kept;
mod lock;
mod moved;
mod owner;
mod plane;
mod port;
#[cfg(test)]
pub(crate) mod script;
pub(crate) mod step;
pub mod tc;
pub mod team;

pub use applied::{Applied, PlanPart};
pub use choice::{Examiners, PLANES, PlaneChoice, PlaneRow, PlaneSetup, Planes};
pub use error::PlaneError;
pub use interface::probes_in_sight;
pub use kept::{Amiss, Kept};
pub(crate) use lock::lock;
pub use moved::{MovedPort, Settled, restore_moved};
pub use owner::marked_bond;
pub use plane::{
    Adopted, BondDevice, BondName, Examiner, Followed, Observed, OriginalPort, PORT_MARK, Plane, PlaneBond,
    PlaneReport, PortBase, PortCounters, PortSigns, Report, Traffic, Watch,
};
pub use port::{is_mark, name_of, original};
