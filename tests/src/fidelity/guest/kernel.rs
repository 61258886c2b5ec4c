//! The oracle: the kernel's bonding driver, through sysfs, and its log for the order of events.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::net::Ipv6Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use super::column::{Column, Happening, Outcome, Port, State};
use super::link::{RouteSocket, Targets};

/// The driver in this machine.
#[derive(Debug)]
pub struct Kernel {
    log: File,
    /// The active port by the log so far, while its link is up.
    active: Option<String>,
    /// Events before the last bond was removed.
    before: Vec<String>,
    links: RouteSocket,
    /// Targets that only netlink can change, and only all at once.
    ns_ip6_target: Vec<Ipv6Addr>,
}

impl Kernel {
    /// Begins to listen to the kernel's log; only one at a time makes sense, as the log is the machine's.
    pub fn new() -> io::Result<Kernel> {
        // Otherwise some lines are left out when many come at once. [bond_main.c: net_ratelimit]
        fs::write("/proc/sys/net/core/message_cost", "0").or_else(only_missing)?;
        let mut log = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        Ok(Kernel {
            log,
            active: None,
            before: Vec::new(),
            links: RouteSocket::open()?,
            ns_ip6_target: Vec::new(),
        })
    }
}

impl Column for Kernel {
    fn create(&mut self, options: &[(String, String)]) -> Outcome {
        write("/sys/class/net/bonding_masters", "+bond0")?;
        // The mode decides which other options are possible.
        let (mode, rest): (Vec<_>, Vec<_>) = options.iter().partition(|(name, _)| name == "mode");
        for (name, value) in mode.into_iter().chain(rest) {
            if let Err(error) = self.set(name, value) {
                self.delete()?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn delete(&mut self) -> Outcome {
        self.before = self.happenings();
        write("/sys/class/net/bonding_masters", "-bond0")?;
        // The next bond has neither; and the log does not tell that the ports of this one left.
        self.active = None;
        self.ns_ip6_target.clear();
        Ok(())
    }

    fn attach(&mut self, port: &str) -> Outcome {
        self.set("slaves", &format!("+{port}"))
    }

    fn detach(&mut self, port: &str) -> Outcome {
        self.set("slaves", &format!("-{port}"))
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome {
        match name {
            "ns_ip6_target" => return self.set_ns_ip6_target(value),
            // sysfs takes one with a sign; a whole list is netlink's.
            "arp_ip_target" if !value.starts_with(['+', '-']) => return self.set_targets(Targets::V4(list(value)?)),
            _ => {}
        }
        let value = if value == "none" && PORT_NAMES.contains(&name) {
            ""
        } else {
            value
        };
        write(&format!("{OPTIONS}/{name}"), value)
    }

    fn set_port(&mut self, port: &str, name: &str, value: &str) -> Outcome {
        if name == "queue_id" {
            return self.set(name, &format!("{port}:{value}"));
        }
        // Netlink only.
        let words = ["link", "set", port, "type", "bond_slave", name, value];
        let output = Command::new("/usr/sbin/ip")
            .args(words)
            .output()
            .map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    fn active(&mut self, port: Option<&str>) -> Outcome {
        self.set("active_slave", port.unwrap_or("none"))
    }

    fn status_text(&mut self) -> Option<String> {
        fs::read_to_string("/proc/thread-self/net/bonding/bond0").ok()
    }

    fn tree(&self) -> PathBuf {
        PathBuf::from("/sys/class/net")
    }

    fn state(&mut self) -> Option<State> {
        let mut options = BTreeMap::new();
        for entry in fs::read_dir(OPTIONS).ok()?.flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            // A named value is shown with its number.
            let value = match text.trim().rsplit_once(' ') {
                Some((name, number)) if number.parse::<u32>().is_ok() => name,
                _ => text.trim(),
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            // A list has spaces here, and commas where it is set.
            let value = if name == "arp_ip_target" {
                value.replace(' ', ",")
            } else {
                value.to_owned()
            };
            options.insert(name, value);
        }
        let take = |options: &mut BTreeMap<String, String>, name: &str| options.remove(name).unwrap_or_default();
        let slaves = take(&mut options, "slaves");
        let ports = slaves.split_whitespace().map(|name| {
            let read = |file: &str| {
                let path = format!("/sys/class/net/{name}/bonding_slave/{file}");
                fs::read_to_string(path).unwrap_or_default().trim().to_owned()
            };
            let port = Port {
                link: read("mii_status"),
                role: read("state"),
                failures: read("link_failure_count"),
                permanent_mac: read("perm_hwaddr"),
            };
            (name.to_owned(), port)
        });
        Some(State {
            ports: ports.collect(),
            active: options.get("active_slave").cloned().unwrap_or_default(),
            mii_status: take(&mut options, "mii_status"),
            options,
        })
    }

    fn lasts(&self) -> usize {
        // A new namespace costs next to nothing.
        1
    }

    fn clear(&mut self) -> Outcome {
        match self.status_text() {
            Some(_) => self.delete(),
            None => Ok(()),
        }
    }

    fn happenings(&mut self) -> Vec<String> {
        let mut happenings = std::mem::take(&mut self.before);
        let mut record = [0; 8192];
        loop {
            match self.log.read(&mut record) {
                Ok(0) => return happenings,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    let line = text.split_once(';').map_or("", |(_, line)| line);
                    let happening = happening(line.lines().next().unwrap_or_default());
                    happenings.extend(happening.filter(|text| self.is_news(text)));
                }
                // The ring was overwritten before it was read; go on with what is left.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                Err(_) => return happenings,
            }
        }
    }
}

impl Kernel {
    fn set_targets(&self, targets: Targets) -> Outcome {
        self.links.set_targets("bond0", &targets).map_err(|e| format!("{e:?}"))
    }

    fn set_ns_ip6_target(&mut self, value: &str) -> Outcome {
        let mut wanted = self.ns_ip6_target.clone();
        match value.split_at_checked(1) {
            Some(("+", more)) => wanted.extend(list::<Ipv6Addr>(more)?),
            Some(("-", less)) => {
                let less = list(less)?;
                if less.iter().any(|address| !wanted.contains(address)) {
                    return Err("no such target".to_owned());
                }
                wanted.retain(|address| !less.contains(address));
            }
            _ => wanted = list(value)?,
        }
        if let Err(error) = self.set_targets(Targets::V6(wanted.clone())) {
            // A refusal leaves the part that was taken before it.
            self.set_targets(Targets::V6(self.ns_ip6_target.clone()))?;
            return Err(error);
        }
        self.ns_ip6_target = wanted;
        Ok(())
    }

    /// Whether there was a change: the driver reports a port that is chosen again, after the choice was cleared, as new.
    fn is_news(&mut self, happening: &str) -> bool {
        match happening.split_once(' ') {
            Some(("active", port)) => self.active.replace(port.to_owned()).as_deref() != Some(port),
            Some((port, "down" | "detached")) if self.active.as_deref() == Some(port) => {
                self.active = None;
                true
            }
            _ => true,
        }
    }
}

/// The event of a line of the log, if it is compared.
fn happening(line: &str) -> Option<String> {
    let rest = line.strip_prefix("bond0: (slave ")?;
    let (port, said) = rest.split_once("): ")?;
    let delay = || {
        let (number, _) = said.rsplit_once(' ')?;
        number.rsplit_once(' ')?.1.parse().ok()
    };
    let link = if said.ends_with("up link") { "up" } else { "down" };
    let happening = match said {
        _ if said.starts_with("link status down again") => Happening::DownAgain(port),
        _ if said.starts_with("link status down for") => Happening::GoingDown(port, delay()?),
        _ if said.starts_with("link status up again") => Happening::UpAgain(port),
        _ if said.starts_with("link status up, enabling") => Happening::GoingBack(port, delay()?),
        _ if said.starts_with("link status definitely up") => Happening::Up(port),
        _ if said.starts_with("link status definitely down") => Happening::Down(port),
        "interface is now up" => Happening::Up(port),
        "interface is now down" | "backup interface is now down" => Happening::Down(port),
        _ if said.starts_with("making interface the new active one") => Happening::Active(port),
        _ if said.starts_with("Enslaving as") => Happening::Attached(port, link),
        _ if said.starts_with("Releasing") => Happening::Detached(port),
        _ if said.contains("is still in use by bond") => Happening::MacStillInUse(port),
        _ => return None,
    };
    Some(happening.show())
}

/// Addresses with commas between them; an empty text or `none` has none.
fn list<T: FromStr>(text: &str) -> Result<Vec<T>, String> {
    let words = text.split(',').filter(|_| !text.is_empty() && text != "none");
    words
        .map(|word| word.parse().map_err(|_| format!("'{word}' is no address")))
        .collect()
}

/// One write, as an error the name of the errno. The driver ends an empty value at the newline.
fn write(path: &str, value: &str) -> Outcome {
    fs::write(path, format!("{value}\n")).map_err(|error| match error.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => error.to_string(),
    })
}

/// The switch belongs to the machine's first namespace; in another one it is not there.
fn only_missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

const OPTIONS: &str = "/sys/class/net/bond0/bonding";

/// Options whose value `none` is spelled as nothing in sysfs.
const PORT_NAMES: [&str; 2] = ["primary", "active_slave"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_log_lines_are_understood() {
        let said = |text: &str| happening(&format!("bond0: (slave eth1): {text}"));
        for (text, wanted) in [
            (
                "link status down for active interface, disabling it in 200 ms",
                "eth1 going down, 200 ms",
            ),
            ("link status up again after 100 ms", "eth1 up again"),
            ("link status up, enabling it in 0 ms", "eth1 going back, 0 ms"),
            ("link status down again after 100 ms", "eth1 down again"),
            ("link status definitely up, 10000 Mbps full duplex", "eth1 up"),
            ("link status definitely down, disabling slave", "eth1 down"),
            ("making interface the new active one 100 ms earlier", "active eth1"),
            (
                "Enslaving as a backup interface with a down link",
                "eth1 attached, link down",
            ),
            ("Releasing backup interface", "eth1 detached"),
        ] {
            assert_eq!(said(text).as_deref(), Some(wanted));
        }
        assert_eq!(happening("bond0: active interface up!"), None);
    }
}
