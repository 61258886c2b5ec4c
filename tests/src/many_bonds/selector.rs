//! Where the traffic of bonds goes, on either plane: seen without asking the agent.

use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};

use super::team::Teams;
use crate::daemon::Daemon;

/// A data plane of the agent, as `--plane` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Programs at the hooks of tc.
    Tc,
    /// The kernel's team driver.
    Team,
}

impl Plane {
    /// The plane of this name.
    pub fn named(name: &str) -> Option<Plane> {
        [Plane::Tc, Plane::Team].into_iter().find(|plane| plane.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Plane::Tc => "tc",
            Plane::Team => "team",
        }
    }
}

/// Of all bonds of an agent.
pub struct Selectors(Seen);

enum Seen {
    Pins(Pins),
    Teams(Teams),
}

impl Selectors {
    /// Of this agent, whose bonds are all on that plane.
    pub fn of(daemon: &Daemon, plane: Plane) -> Selectors {
        Selectors(match plane {
            Plane::Tc => Seen::Pins(Pins::of(daemon)),
            Plane::Team => Seen::Teams(Teams::of(daemon.netns())),
        })
    }

    /// That of the bond with this index, once the port with that index is attached to it, too.
    pub fn selector(&self, bond: u32, port: u32) -> Option<Selector> {
        match &self.0 {
            Seen::Pins(pins) => pins.selector(bond, port),
            Seen::Teams(teams) => teams.has(bond, port).then(|| Selector::Team(teams.clone(), bond)),
        }
    }
}

/// Where the frames of one bond leave.
pub enum Selector {
    /// As its program reads it for each frame.
    Map(Array<MapData, [u32; 2]>),
    /// As the driver last said of the team with this index.
    Team(Teams, u32),
}

impl Selector {
    /// Index of the port; 0 for none.
    pub fn port(&self) -> u32 {
        match self {
            Selector::Map(map) => map.get(&ACTIVE_BACKUP, 0).map_or(0, |[port, _]| port),
            Selector::Team(teams, team) => teams.active(*team),
        }
    }
}

/// The pins of an agent's bonds on the tc plane.
struct Pins {
    /// Where they may be: which bpffs the agent uses depends on what is mounted.
    places: Vec<PathBuf>,
}

impl Pins {
    /// Those of this agent.
    fn of(daemon: &Daemon) -> Pins {
        let own = daemon.dir().join("bpf");
        // As seen by PID 1, where the agent mounts a bpffs of its own if it may.
        let outside = Path::new("/proc/1/root").join(own.strip_prefix("/").unwrap_or(&own));
        let mounts = [own, outside, PathBuf::from("/sys/fs/bpf")];
        let inode = daemon.netns().inode().to_string();
        let places = mounts.map(|mount| mount.join("bondd").join(&inode));
        Pins { places: places.into() }
    }

    /// The selector of the bond with this index, once the port with that index is attached to it, too.
    fn selector(&self, bond: u32, port: u32) -> Option<Selector> {
        let folders = self.places.iter().map(|place| place.join(bond.to_string()));
        let folder = folders
            .into_iter()
            .find(|folder| folder.join(format!("rx-{port}")).exists())?;
        let data = MapData::from_pin(folder.join("transmit")).ok()?;
        let map = Map::from_map_data(data).and_then(Array::try_from);
        let map = map.unwrap_or_else(|e| panic!("{} is another map: {e}", folder.display()));
        Some(Selector::Map(map))
    }
}

/// The key of active-backup's program in `transmit`.
const ACTIVE_BACKUP: u32 = 0;
