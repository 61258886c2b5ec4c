//! The real system: interface ioctls, as used by 1.1.0, and the agent's control socket.

use std::ffi::CString;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use bondd::control::client::{Client, ClientError, START_TIMEOUT};
use bondd::control::proto::{Call, PortPresence, warnings};
use nix::ifaddrs::getifaddrs;
use nix::libc::{self, ifreq};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, socket};

use crate::world::{Bonds, Settings, Warnings, World};

/// Limit of addresses removed from one interface.
const MAX_ADDRESSES: usize = 4096;

/// This machine.
pub(crate) struct System {
    /// Socket for ioctls.
    socket: OwnedFd,
    run_dir: PathBuf,
    client: Option<Client>,
}

impl System {
    /// Opens the socket for ioctls; the agent is asked later.
    pub(crate) fn open(run_dir: PathBuf) -> io::Result<System> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(System {
            socket,
            run_dir,
            client: None,
        })
    }

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        match &mut self.client {
            Some(client) => Ok(client),
            none => Ok(none.insert(Client::connect(&self.run_dir)?)),
        }
    }

    fn change(&mut self, call: Call) -> Result<Warnings, ClientError> {
        let answer = self.client()?.call(&call)?;
        Ok(warnings(&answer).map(str::to_owned).collect())
    }
}

impl World for System {
    fn bonds(&mut self, awaited: &str) -> Result<Bonds, ClientError> {
        let limit = Instant::now() + START_TIMEOUT;
        let report = self.client()?.report_once_started(awaited, limit)?;
        let attached = |bond: &bondd::control::proto::BondReport| {
            let ports = bond.ports.iter().filter(|port| port.state() == PortPresence::Attached);
            ports.map(|port| port.name.clone()).collect()
        };
        Ok(report
            .bonds
            .iter()
            .map(|bond| (bond.name.clone(), attached(bond)))
            .collect())
    }

    fn attach(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError> {
        self.change(Call::PortAttach {
            bond: bond.to_owned(),
            port: port.to_owned(),
        })
    }

    fn detach(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError> {
        self.change(Call::PortDetach {
            bond: bond.to_owned(),
            port: port.to_owned(),
        })
    }

    fn activate(&mut self, bond: &str, port: &str) -> Result<Warnings, ClientError> {
        self.change(Call::Active {
            bond: bond.to_owned(),
            port: Some(port.to_owned()),
        })
    }

    fn settings(&self, interface: &str) -> io::Result<Settings> {
        let mut request = request(interface)?;
        // SAFETY: the request is valid for the call; the kernel fills the member that belongs to the request.
        let flags = unsafe {
            get_flags(self.socket.as_raw_fd(), &mut request)?;
            request.ifr_ifru.ifru_flags
        };
        // SAFETY: as above.
        let hardware = unsafe {
            get_hardware_address(self.socket.as_raw_fd(), &mut request)?;
            request.ifr_ifru.ifru_hwaddr
        };
        // SAFETY: as above.
        let mtu = unsafe {
            get_mtu(self.socket.as_raw_fd(), &mut request)?;
            request.ifr_ifru.ifru_mtu
        };
        let mut address = [0; 6];
        for (to, from) in address.iter_mut().zip(hardware.sa_data) {
            *to = from as u8;
        }
        Ok(Settings {
            flags: flags as u16,
            mtu,
            hardware_type: hardware.sa_family,
            address,
        })
    }

    fn set_flags(&self, interface: &str, flags: u16) -> io::Result<()> {
        let mut request = request(interface)?;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the request is valid for the call, and the member that the kernel reads is set.
        unsafe { set_flags(self.socket.as_raw_fd(), &request)? };
        Ok(())
    }

    fn clear_addresses(&self, interface: &str) -> io::Result<()> {
        // Setting 0.0.0.0 removes one address. An address with its own label, eth0:1, belongs to that name.
        for _ in 0..MAX_ADDRESSES {
            if self.address(interface)?.is_none() {
                return Ok(());
            }
            let mut request = request(interface)?;
            request.ifr_ifru.ifru_addr.sa_family = libc::AF_INET as libc::sa_family_t;
            // SAFETY: the request is valid for the call, and the member that the kernel reads is set.
            unsafe { set_address(self.socket.as_raw_fd(), &request)? };
        }
        Err(io::Error::other("there is always one more"))
    }

    fn address(&self, interface: &str) -> io::Result<Option<Ipv4Addr>> {
        let mut request = request(interface)?;
        // The kernel looks for an address of this family.
        request.ifr_ifru.ifru_addr.sa_family = libc::AF_INET as libc::sa_family_t;
        // SAFETY: the request is valid for the call; the kernel fills the member that belongs to the request.
        let found = unsafe { get_address(self.socket.as_raw_fd(), &mut request).map(|_| request.ifr_ifru.ifru_addr) };
        match found {
            Err(nix::errno::Errno::EADDRNOTAVAIL) => Ok(None),
            Err(e) => Err(e.into()),
            // The port's two bytes come first.
            Ok(found) => {
                let [_, _, a, b, c, d, ..] = found.sa_data.map(|byte| byte as u8);
                Ok(Some(Ipv4Addr::new(a, b, c, d)))
            }
        }
    }

    fn addressed_interfaces(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in getifaddrs()? {
            let inet = entry.address.is_some_and(|a| a.family() == Some(AddressFamily::Inet));
            if inet && !names.contains(&entry.interface_name) {
                names.push(entry.interface_name);
            }
        }
        Ok(names)
    }

    fn show_links(&self) -> io::Result<()> {
        let status = Command::new("ip").args(["link", "show"]).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("ip link show: {status}")))
        }
    }
}

/// A request about this interface with nothing else set.
fn request(interface: &str) -> io::Result<ifreq> {
    // SAFETY: all bytes zero is a valid `ifreq`: an empty name and a union of plain numbers and a null pointer.
    let mut request: ifreq = unsafe { mem::zeroed() };
    let no_such_device = || io::Error::from_raw_os_error(libc::ENODEV);
    let name = CString::new(interface).map_err(|_| no_such_device())?;
    let name = name.as_bytes_with_nul();
    if name.len() > request.ifr_name.len() {
        return Err(no_such_device());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

nix::ioctl_read_bad!(
    /// Fills in the flags.
    get_flags, libc::SIOCGIFFLAGS, ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Changes the flags.
    set_flags, libc::SIOCSIFFLAGS, ifreq
);
nix::ioctl_read_bad!(
    /// Fills in the hardware's type and address.
    get_hardware_address, libc::SIOCGIFHWADDR, ifreq
);
nix::ioctl_read_bad!(
    /// Fills in the MTU.
    get_mtu, libc::SIOCGIFMTU, ifreq
);
nix::ioctl_read_bad!(
    /// Fills in the first IPv4 address with this name as its label.
    get_address, libc::SIOCGIFADDR, ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Replaces that address.
    set_address, libc::SIOCSIFADDR, ifreq
);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::{fs, thread};

    use bondd::control::SOCKET;

    use super::*;

    fn system() -> System {
        System::open(PathBuf::from("/nonexistent")).unwrap()
    }

    #[test]
    fn the_loopback_interface_is_read_as_it_is() {
        let lo = system().settings("lo").unwrap();
        assert_ne!(lo.flags & libc::IFF_LOOPBACK as u16, 0);
        assert_eq!((lo.hardware_type, lo.address), (libc::ARPHRD_LOOPBACK, [0; 6]));
        assert!(lo.mtu >= 1500, "{lo:?}");
        let addressed = system().addressed_interfaces().unwrap();
        let address = system().address("lo").unwrap();
        assert_eq!(addressed.contains(&"lo".to_owned()), address.is_some());
        assert!(address.is_none_or(|a| a.is_loopback()), "{address:?}");
    }

    #[test]
    fn a_name_that_cannot_be_is_no_device() {
        for name in ["nosuch0", "", "sixteen-bytes-xx", "nul\0byte"] {
            let error = system().settings(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }

    #[test]
    fn warnings_in_an_answer_of_the_agent_are_handed_on() {
        let run_dir = std::env::temp_dir().join(format!("ifenslave-system-{}", std::process::id()));
        fs::create_dir_all(&run_dir).unwrap();
        let listener = UnixListener::bind(run_dir.join(SOCKET)).unwrap();
        let agent = thread::spawn(move || {
            let mut client = BufReader::new(listener.accept().unwrap().0);
            let mut asked = Vec::new();
            for answer in [r#"{"warnings":["bond0: eth0: x","bond0: y"]}"#, "null"] {
                let mut line = String::new();
                client.read_line(&mut line).unwrap();
                let id = line.split("\"id\":").nth(1).unwrap();
                let id = id.split([',', '}']).next().unwrap();
                writeln!(client.get_mut(), r#"{{"id":{id},"ok":{answer}}}"#).unwrap();
                asked.push(line);
            }
            asked
        });
        let mut system = System::open(run_dir.clone()).unwrap();
        assert_eq!(system.attach("bond0", "eth0").unwrap(), ["bond0: eth0: x", "bond0: y"]);
        assert!(system.detach("bond0", "eth0").unwrap().is_empty());
        let asked = agent.join().unwrap();
        assert!(
            asked[0].contains("port-attach") && asked[1].contains("port-detach"),
            "{asked:?}"
        );
        fs::remove_dir_all(&run_dir).unwrap();
    }

    #[test]
    fn bonds_are_read_once_the_start_has_come_to_the_one_that_is_awaited() {
        let run_dir = std::env::temp_dir().join(format!("ifenslave-start-{}", std::process::id()));
        fs::create_dir_all(&run_dir).unwrap();
        let listener = UnixListener::bind(run_dir.join(SOCKET)).unwrap();
        let waiting = |bond: &str| format!(r#"{{"name":"{bond}","why":"x","next_attempt_ms":0,"starting":true}}"#);
        let report = |waiting: &str| format!(r#"{{"schema":1,"waiting":[{waiting}],"bonds":[]}}"#);
        let answers = ["bond0", "bond0", "bond1"].map(|bond| report(&waiting(bond)));
        let agent = thread::spawn(move || {
            let mut client = BufReader::new(listener.accept().unwrap().0);
            for (id, answer) in (1..).zip(answers) {
                let mut line = String::new();
                client.read_line(&mut line).unwrap();
                assert!(line.contains("show"), "{line}");
                writeln!(client.get_mut(), r#"{{"id":{id},"ok":{answer}}}"#).unwrap();
            }
        });
        let mut system = System::open(run_dir.clone()).unwrap();
        assert!(system.bonds("bond0").unwrap().is_empty());
        agent.join().unwrap();
        fs::remove_dir_all(&run_dir).unwrap();
    }

    #[test]
    fn without_an_agent_its_socket_is_named() {
        let error = system().bonds("bond0").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/control.sock"), "{error}");
    }
}
