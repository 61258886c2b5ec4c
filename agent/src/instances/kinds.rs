//! The kinds of instances of this agent.

#[cfg(test)]
mod beacon;

use super::Instances;
use super::bonds::Bonds;
use super::kind::Kind;

/// All of them, in the order in which they get facts. To add one, make its folder beside this file and its row here.
pub fn all() -> Vec<Box<dyn Kind<Instances>>> {
    vec![
        Box::new(Bonds),
        #[cfg(test)]
        Box::new(beacon::Beacons::default()),
    ]
}
