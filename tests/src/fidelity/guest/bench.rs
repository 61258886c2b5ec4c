//! The namespaces of one scenario on one column, their cables, and ears at every end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::link::{End, Links};
use super::tap::Tap;
use crate::fidelity::frame;

/// Two new namespaces joined by cables; the calling thread is in the near one, for good.
#[derive(Debug)]
pub struct Bench {
    /// Devices here, among them the near ends `eth0`...
    pub near: Links,
    /// The far ends `p0`...
    pub far: Links,
    /// Near names of the cables, in order.
    pub ports: Vec<String>,
    far_namespace: File,
    ears: Vec<Tap>,
    heard: Heard,
}

/// What the far ends have heard since the last look.
#[derive(Clone, Debug, Default)]
struct Heard {
    /// By flow: how many frames at which port.
    flows: BTreeMap<u32, BTreeMap<String, u32>>,
    /// Announcements by port and kind.
    announced: BTreeMap<String, u32>,
}

impl Bench {
    /// Without cables; no IPv6 anywhere unless it is asked for.
    pub fn new() -> Result<Bench, String> {
        let doing = |what: &'static str| move |e: nix::Error| format!("cannot {what}: {e}");
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(doing("make the far namespace"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(doing("make mounts private"))?;
        quiet().map_err(|e| format!("cannot switch IPv6 off: {e}"))?;
        let far = Links::open().map_err(doing("open a netlink socket"))?;
        let far_namespace = File::open("/proc/thread-self/ns/net").map_err(|e| e.to_string())?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(doing("make the near namespace"))?;
        quiet().map_err(|e| format!("cannot switch IPv6 off: {e}"))?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).map_err(doing("mount sysfs"))?;
        Ok(Bench {
            near: Links::open().map_err(doing("open a netlink socket"))?,
            far,
            far_namespace,
            ports: Vec::new(),
            ears: Vec::new(),
            heard: Heard::default(),
        })
    }

    /// Adds so many cables: near ends down, far ends up.
    pub fn plug_in(&mut self, cables: usize) -> Result<(), String> {
        let doing = |what: &'static str| move |e: nix::Error| format!("cannot {what}: {e}");
        for number in 0..cables as u32 {
            let (name, peer) = (format!("eth{number}"), format!("p{number}"));
            let near = End {
                name: &name,
                index: 10 + number,
                mac: [2, 0, 0, 0, 0xe0, number as u8],
            };
            let far = End {
                name: &peer,
                index: 110 + number,
                mac: [2, 0, 0, 0, 0xf0, number as u8],
            };
            let namespace = self.far_namespace.as_raw_fd();
            self.near.cable(near, far, namespace).map_err(doing("make a cable"))?;
            self.far.admin(&peer, true).map_err(doing("set a far end up"))?;
            self.ports.push(name);
        }
        // A socket belongs to the namespace in which it was opened.
        let ears = || {
            (0..cables as u32)
                .map(|n| Tap::open(110 + n))
                .collect::<Result<Vec<_>, _>>()
        };
        self.ears = in_namespace(&self.far_namespace, ears)?.map_err(doing("listen at a far end"))?;
        Ok(())
    }

    /// Takes all cables away and forgets what was heard.
    pub fn clear(&mut self) -> nix::Result<()> {
        self.heard = Heard::default();
        self.ears.clear();
        self.ports.drain(..).try_for_each(|port| self.near.delete(&port))
    }

    /// Name of the far end of a port's cable.
    pub fn far_end(port: &str) -> String {
        port.replacen("eth", "p", 1)
    }

    /// Gives the bond an address, with IPv6 on it for one of that family.
    pub fn address(&self, address: &str) -> Result<(), String> {
        let mut words = vec!["addr", "add", address, "dev", "bond0"];
        if address.contains(':') {
            fs::write("/proc/sys/net/ipv6/conf/bond0/disable_ipv6", "0").map_err(|e| e.to_string())?;
            words.push("nodad");
        }
        ip(&words)
    }

    /// Makes a VLAN device above the bond, and sets it up.
    pub fn vlan(&self, id: u16) -> Result<(), String> {
        let (name, id) = (format!("bond0.{id}"), id.to_string());
        ip(&["link", "add", "link", "bond0", "name", &name, "type", "vlan", "id", &id])?;
        self.near.admin(&name, true).map_err(|e| format!("{e:?}"))
    }

    /// A way out of the bond or of a device above it.
    pub fn way_out(device: &str) -> Result<Tap, String> {
        let index = nix::net::if_::if_nametoindex(device).map_err(|e| format!("{e:?}"))?;
        Tap::open(index).map_err(|e| format!("{e:?}"))
    }

    /// Sends a frame into the far end of a port's cable.
    pub fn arrive(&self, port: &str, frame: &[u8]) -> Result<(), String> {
        let ear = self.ports.iter().position(|p| p == port).and_then(|n| self.ears.get(n));
        let ear = ear.ok_or_else(|| format!("no cable {port}"))?;
        ear.send(frame).map_err(|e| format!("{e:?}"))
    }

    /// Takes in what the far ends have heard.
    pub fn listen(&mut self) {
        for (port, ear) in self.ports.iter().zip(&self.ears) {
            for heard in ear.drain() {
                if let Some(flow) = frame::flow(&heard) {
                    let flow = self.heard.flows.entry(flow).or_default();
                    *flow.entry(port.clone()).or_default() += 1;
                } else if let Some(kind) = frame::announcement(&heard) {
                    *self.heard.announced.entry(format!("{kind} {port}")).or_default() += 1;
                }
            }
        }
    }

    /// Which ports each flow came out of, since the last time.
    pub fn flows(&mut self) -> BTreeMap<u32, BTreeMap<String, u32>> {
        self.listen();
        std::mem::take(&mut self.heard.flows)
    }

    /// Announcements since the last time.
    pub fn announced(&mut self) -> BTreeMap<String, u32> {
        self.listen();
        std::mem::take(&mut self.heard.announced)
    }
}

/// Runs iproute2, for what is rarely done.
fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("/usr/sbin/ip")
        .args(words)
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Otherwise the next one of this thread lies on top of it; a failure leaves it there, without harm.
        let _ = umount2("/sys", MntFlags::MNT_DETACH);
    }
}

/// Runs something on a thread inside a namespace.
fn in_namespace<T: Send>(namespace: &File, body: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|e| format!("cannot enter a namespace: {e}"))?;
            Ok(body())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// No IPv6 on new devices: its own frames would be counted with ours.
fn quiet() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
}
