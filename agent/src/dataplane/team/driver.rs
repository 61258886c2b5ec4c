//! Requests to the driver as the plane makes them: one option a request, and applied means applied.

use std::io;
use std::sync::{Arc, Mutex};

use bond_modes::plan::Spread;
use bond_modes::{PortId, XmitHashPolicy};

use super::genl::{Family, Genl};
use super::options::{Key, Settings, Value};
use crate::dataplane::lock::lock;
use crate::dataplane::step::{Feature, TEAM_ACTIVEBACKUP, TEAM_BROADCAST, TEAM_LOADBALANCE};

/// The team driver in one network namespace.
pub struct Driver {
    genl: Genl,
    /// Shared with those beside it.
    family: Arc<Mutex<Option<Family>>>,
}

impl Driver {
    /// Asks over this socket.
    pub fn over(genl: Genl) -> Driver {
        Driver {
            genl,
            family: Arc::default(),
        }
    }

    /// The same driver over another socket: a request waits for none of the other's.
    pub fn beside(&self, genl: Genl) -> Driver {
        Driver {
            genl,
            family: Arc::clone(&self.family),
        }
    }

    /// Finds the driver's family anew: its number changes when the module is loaded again.
    pub fn look_up(&mut self) -> io::Result<Family> {
        *lock(&self.family) = None;
        self.family()
    }

    fn family(&mut self) -> io::Result<Family> {
        let known = *lock(&self.family);
        if let Some(family) = known {
            return Ok(family);
        }
        let family = self.genl.family()?;
        *lock(&self.family) = Some(family);
        Ok(family)
    }

    /// Sets one option. The kernel also reports an error if it has set the option but could not notify every listener; then the
    /// option is read back. [team.c: team_nl_send_event_options_get]
    pub fn set(&mut self, team: u32, key: Key, value: &Value) -> io::Result<()> {
        let family = self.family()?;
        match self.genl.set(family, team, key, value) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOBUFS | libc::EMSGSIZE)) => {
                let now = self.genl.options(family, team)?;
                if now.get(&key) == Some(value) {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            done => done,
        }
    }

    /// Every option of a team that this agent sets.
    pub fn options(&mut self, team: u32) -> io::Result<Settings> {
        let family = self.family()?;
        self.genl.options(family, team)
    }

    /// The ports of a team, in the order in which they were added.
    pub fn ports(&mut self, team: u32) -> io::Result<Vec<PortId>> {
        let family = self.family()?;
        self.genl.ports(family, team)
    }
}

/// A mode of the driver that this agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through one port.
    ActiveBackup,
    /// By a hash.
    LoadBalance,
    /// A copy through each port.
    Broadcast,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::ActiveBackup, Mode::LoadBalance, Mode::Broadcast];

    /// The mode that spreads frames so; none if no mode does it exactly.
    pub fn of(kind: &Spread) -> Option<Mode> {
        match kind {
            Spread::One => Some(Mode::ActiveBackup),
            Spread::Hash(_) => Some(Mode::LoadBalance),
            Spread::All => Some(Mode::Broadcast),
            Spread::RoundRobin { .. } | Spread::Buckets { .. } => None,
        }
    }

    /// From its name in the driver.
    pub fn named(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// As the driver spells it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::ActiveBackup => "activebackup",
            Mode::LoadBalance => "loadbalance",
            Mode::Broadcast => "broadcast",
        }
    }

    /// What the kernel needs for it.
    pub fn feature(self) -> &'static Feature {
        match self {
            Mode::ActiveBackup => &TEAM_ACTIVEBACKUP,
            Mode::LoadBalance => &TEAM_LOADBALANCE,
            Mode::Broadcast => &TEAM_BROADCAST,
        }
    }

    /// How frames are spread in this mode before anything else is set.
    pub fn spread(self) -> Spread {
        match self {
            Mode::ActiveBackup => Spread::One,
            Mode::LoadBalance => Spread::Hash(XmitHashPolicy::Layer2),
            Mode::Broadcast => Spread::All,
        }
    }
}
