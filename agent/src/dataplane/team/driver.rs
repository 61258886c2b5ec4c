//! Requests to the driver as the plane makes them: one option a request, and applied means applied.

use std::io;

use crate::dataplane::wanted::Spread;
use bond_modes::PortId;

use super::genl::{Family, Genl};
use super::options::{Key, Settings, Value};
use crate::dataplane::step::{Feature, TEAM_ACTIVEBACKUP, TEAM_BROADCAST, TEAM_LOADBALANCE};

/// The team driver in one network namespace.
pub struct Driver {
    genl: Genl,
    family: Option<Family>,
}

impl Driver {
    /// Asks over this socket.
    pub fn over(genl: Genl) -> Driver {
        Driver { genl, family: None }
    }

    /// Finds the driver's family anew: its number changes when the module is loaded again.
    pub fn meet(&mut self) -> io::Result<Family> {
        self.family = None;
        self.family()
    }

    fn family(&mut self) -> io::Result<Family> {
        match self.family {
            Some(family) => Ok(family),
            None => Ok(*self.family.insert(self.genl.family()?)),
        }
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

/// The driver's mode that spreads so, and what the kernel needs for it; none that is exact for turns.
pub fn mode_of(spread: Spread) -> Option<(&'static str, &'static Feature)> {
    match spread {
        Spread::One => Some(("activebackup", &TEAM_ACTIVEBACKUP)),
        Spread::Hash => Some(("loadbalance", &TEAM_LOADBALANCE)),
        Spread::All => Some(("broadcast", &TEAM_BROADCAST)),
        Spread::RoundRobin => None,
    }
}

/// How this mode of the driver spreads traffic.
pub fn spread_of(mode: &str) -> Option<Spread> {
    let mut spreads = SPREADS.into_iter();
    spreads.find(|spread| mode_of(*spread).is_some_and(|(name, _)| name == mode))
}

/// Those that the driver can do.
pub const SPREADS: [Spread; 3] = [Spread::One, Spread::Hash, Spread::All];
