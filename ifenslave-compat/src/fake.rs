//! A simulated system for tests, and the output of a program in it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;

use bondd::control::client::ClientError;
use bondd::control::proto::{ControlError, ErrorCode};
use nix::libc;

use crate::program::Console;
use crate::world::{Bonds, Settings, Warnings, World};

/// Behaviour of the agent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    Answers,
    Absent,
    /// Its socket does not let this user connect.
    Denies,
    /// Refuses every change.
    Refuses,
}

pub(crate) struct Device {
    pub(crate) settings: Settings,
    pub(crate) ip: Option<Ipv4Addr>,
}

/// bond0 is up, has port eth2 and an MTU of 1400, all others 1500; bond1 is down; infi0 is a bond of another type; eth0 and eth1 are free; lo is lo.
pub(crate) struct Fake {
    pub(crate) agent: Agent,
    pub(crate) bonds: Bonds,
    pub(crate) devices: RefCell<BTreeMap<String, Device>>,
    /// Interfaces whose settings cannot be changed.
    pub(crate) stubborn: Vec<&'static str>,
    /// Interfaces whose addresses cannot be cleared.
    pub(crate) sticky: Vec<&'static str>,
    /// Warnings of the agent about each change.
    pub(crate) warnings: Vec<&'static str>,
    /// Everything that was changed, in order.
    pub(crate) log: Rc<RefCell<Vec<String>>>,
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let device = |flags: libc::c_int, hardware_type, last, ip: &str| Device {
            settings: Settings {
                flags: flags as u16,
                mtu: if last == 1 { 1400 } else { 1500 },
                hardware_type,
                address: [2, 0, 0, 0, 0, last],
            },
            ip: ip.parse().ok(),
        };
        let up = libc::IFF_UP;
        let devices = BTreeMap::from([
            ("bond0".to_owned(), device(up | libc::IFF_MULTICAST, 1, 1, "192.0.2.1")),
            ("bond1".to_owned(), device(0, 1, 2, "")),
            ("infi0".to_owned(), device(up, 32, 3, "")),
            ("eth0".to_owned(), device(up, 1, 4, "198.51.100.7")),
            ("eth1".to_owned(), device(0, 1, 5, "")),
            ("eth2".to_owned(), device(up, 1, 6, "")),
            ("lo".to_owned(), device(up | libc::IFF_LOOPBACK, 772, 0, "127.0.0.1")),
        ]);
        Fake {
            agent: Agent::Answers,
            bonds: [("bond0", &["eth2"][..]), ("bond1", &[]), ("infi0", &[])]
                .map(|(bond, ports)| (bond.to_owned(), ports.iter().map(|&port| port.to_owned()).collect()))
                .into(),
            devices: RefCell::new(devices),
            stubborn: Vec::new(),
            sticky: Vec::new(),
            warnings: Vec::new(),
            log: Rc::default(),
        }
    }

    pub(crate) fn agent(agent: Agent) -> Fake {
        Fake { agent, ..Fake::new() }
    }

    fn reach(&self) -> Result<(), ClientError> {
        let path = PathBuf::from("/run/bondd/control.sock");
        match self.agent {
            Agent::Absent => Err(ClientError::NoDaemon { path }),
            Agent::Denies => Err(ClientError::Permission { path }),
            Agent::Answers | Agent::Refuses => Ok(()),
        }
    }

    fn change(&self, what: String) -> Result<Warnings, ClientError> {
        self.reach()?;
        if self.agent == Agent::Refuses {
            return Err(ControlError::new(ErrorCode::Refused, "not today").into());
        }
        self.log.borrow_mut().push(what);
        Ok(self.warnings.iter().map(|&warning| warning.to_owned()).collect())
    }
}

impl World for Fake {
    fn bonds(&mut self, _: &str) -> Result<Bonds, ClientError> {
        self.reach().map(|()| self.bonds.clone())
    }

    fn attach(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError> {
        let warnings = self.change(format!("{bond} attach {port}"))?;
        let devices = self.devices.get_mut();
        let Settings { mtu, address, .. } = devices[bond].settings;
        let port_settings = &mut devices.get_mut(port).unwrap().settings;
        (port_settings.mtu, port_settings.address) = (mtu, address);
        self.bonds.get_mut(bond).unwrap().push(port.to_owned());
        Ok(warnings)
    }

    fn detach(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError> {
        let warnings = self.change(format!("{bond} detach {port}"))?;
        self.bonds.get_mut(bond).unwrap().retain(|p| p != port);
        Ok(warnings)
    }

    fn activate(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError> {
        self.change(format!("{bond} active {port}"))
    }

    fn settings(&self, interface: &str) -> io::Result<Settings> {
        let devices = self.devices.borrow();
        let device = devices
            .get(interface)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        Ok(device.settings)
    }

    fn set_flags(&self, interface: &str, flags: u16) -> io::Result<()> {
        if self.stubborn.contains(&interface) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.devices.borrow_mut().get_mut(interface).unwrap().settings.flags = flags;
        self.log.borrow_mut().push(format!("{interface} flags {flags:x}"));
        Ok(())
    }

    fn clear_addresses(&self, interface: &str) -> io::Result<()> {
        if self.sticky.contains(&interface) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.devices.borrow_mut().get_mut(interface).unwrap().ip = None;
        self.log.borrow_mut().push(format!("{interface} clear"));
        Ok(())
    }

    fn address(&self, interface: &str) -> io::Result<Option<Ipv4Addr>> {
        Ok(self.devices.borrow()[interface].ip)
    }

    fn addressed_interfaces(&self) -> io::Result<Vec<String>> {
        let devices = self.devices.borrow();
        Ok(devices
            .iter()
            .filter(|(_, device)| device.ip.is_some())
            .map(|(name, _)| name.clone())
            .collect())
    }

    fn show_links(&self) -> io::Result<()> {
        self.log.borrow_mut().push("ip link show".to_owned());
        Ok(())
    }
}

/// Result of a command line.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) log: Vec<String>,
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

/// Runs a program in a simulated system.
pub(crate) fn run_in(mut world: Fake, line: &str, program: impl Fn(&[String], &mut Fake, &mut Console) -> u8) -> Ran {
    let (out, err) = (Shared::default(), Shared::default());
    let mut console = Console::new(Box::new(out.clone()), Box::new(err.clone()));
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let code = program(&words, &mut world, &mut console);
    let log = world.log.borrow().clone();
    Ran {
        code,
        out: out.text(),
        err: err.text(),
        log,
    }
}
