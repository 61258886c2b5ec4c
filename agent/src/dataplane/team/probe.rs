//! What this kernel has of the team driver.

use std::io;

use super::driver::{Driver, Mode};
use super::genl::{Events, Genl};
use super::options::{Key, Name, Value};
use crate::dataplane::PlaneError;
use crate::dataplane::interface::probe_apart;
use crate::dataplane::step::step;
use crate::netlink::RouteSocket;

/// The modes that it has.
#[derive(Debug, Default)]
pub struct Abilities {
    modes: Vec<Mode>,
}

impl Abilities {
    /// Whether it has this mode.
    pub fn can(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }

    /// Whether it has none at all.
    pub fn is_empty(&self) -> bool {
        self.modes.is_empty()
    }
}

/// Tries every mode on a device that goes away.
pub fn run() -> Result<Abilities, PlaneError> {
    let doing = "find out what the team driver can do";
    probe_apart(doing, || step(|| doing.to_owned(), try_modes))
}

fn try_modes() -> io::Result<Abilities> {
    let mut links = RouteSocket::open()?;
    match links.add_team(PROBE) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Abilities::default()),
        made => made?,
    }
    let Some(team) = links.by_name(PROBE)? else {
        return Ok(Abilities::default());
    };
    let modes = modes_of(team.ifindex);
    links.delete(team.ifindex)?;
    Ok(Abilities { modes: modes? })
}

fn modes_of(team: u32) -> io::Result<Vec<Mode>> {
    let mut driver = Driver::over(Genl::open()?);
    let events = Events::open()?;
    events.join(driver.look_up()?)?;
    let mut modes = Vec::new();
    for mode in Mode::ALL {
        match driver.set(team, Key::team(Name::Mode), &Value::text(mode.name())) {
            Ok(()) => modes.push(mode),
            // Its module is missing. [team.c: team_change_mode]
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(modes)
}

const PROBE: &str = "bondd-probe";
