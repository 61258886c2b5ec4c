//! The namespaces of one scenario on one column, their cables, and ears at every end.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use super::far::Far;
use super::link::{End, RouteSocket};
use super::tap::Tap;
use crate::fidelity::heard::Heard;

/// Two new namespaces joined by cables; the calling thread is in the near one, for good.
#[derive(Debug)]
pub struct Bench {
    /// Devices here, among them the near ends `eth0`...
    pub near: RouteSocket,
    /// The far ends of the cables.
    pub far: Far,
    /// Near names of the cables, in order.
    pub ports: Vec<String>,
    frame_sockets: Vec<Tap>,
    members: Vec<UdpSocket>,
    /// Frames received at the far ends so far.
    pub heard: Heard,
}

impl Bench {
    /// Without cables; no IPv6 anywhere unless it is asked for.
    pub fn new() -> Result<Bench, String> {
        let doing = |what: &'static str| move |e: nix::Error| format!("cannot {what}: {e}");
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(doing("make the far namespace"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(doing("make mounts private"))?;
        let far = Far::new()?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(doing("make the near namespace"))?;
        quiet().map_err(|e| format!("cannot switch IPv6 off: {e}"))?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).map_err(doing("mount sysfs"))?;
        Ok(Bench {
            near: RouteSocket::open().map_err(doing("open a netlink socket"))?,
            far,
            ports: Vec::new(),
            frame_sockets: Vec::new(),
            members: Vec::new(),
            heard: Heard::default(),
        })
    }

    /// Adds this number of cables: near ends down, far ends up; with a switch between them and the hosts, or without.
    pub fn plug_in(&mut self, cables: usize, switch: bool) -> Result<(), String> {
        let doing = |what: &'static str| move |e: nix::Error| format!("cannot {what}: {e}");
        let near: Vec<String> = (0..cables).map(|number| format!("eth{number}")).collect();
        for (number, name) in (0..).zip(&near) {
            let near = End {
                name,
                index: 10 + number,
                mac: [2, 0, 0, 0, 0xe0, number as u8],
            };
            let (far, namespace) = (Far::end(number), self.far.namespace.as_raw_fd());
            self.near
                .cable(near, far.as_end(), namespace)
                .map_err(doing("make a cable"))?;
        }
        self.ports = near;
        self.far
            .begin(cables as u32, switch)
            .map_err(doing("set the far ends up"))?;
        // A socket belongs to the namespace in which it was opened.
        let ears = || {
            (0..cables as u32)
                .map(|n| Tap::open(Far::end(n).index))
                .collect::<Result<Vec<_>, _>>()
        };
        self.frame_sockets = in_namespace(&self.far.namespace, ears)?.map_err(doing("listen at a far end"))?;
        Ok(())
    }

    /// Takes all cables away and forgets what was heard.
    pub fn clear(&mut self) -> nix::Result<()> {
        self.heard = Heard::default();
        self.members.clear();
        self.frame_sockets.clear();
        self.far.clear()?;
        self.ports.drain(..).try_for_each(|port| self.near.delete(&port))
    }

    /// Puts a host at the far end; its questions and answers cross the cables only where IPv6 may.
    pub fn host(&mut self, address: IpAddr, vlan: u16) -> Result<(), String> {
        if address.is_ipv6() {
            let allow = |port: &String| allow_ipv6(port);
            self.ports.iter().try_for_each(allow).map_err(|e| e.to_string())?;
        }
        self.far.host(address, vlan)
    }

    /// Gives a device an address, with IPv6 on it for one of that family.
    pub fn address(&self, address: IpAddr, prefix: u8, device: &str) -> Result<(), String> {
        let index = if_nametoindex(device).map_err(|e| format!("{e:?}"))?;
        if address.is_ipv6() {
            allow_ipv6(device).map_err(|e| e.to_string())?;
        }
        self.near
            .add_address(index, address, prefix)
            .map_err(|e| format!("{e:?}"))
    }

    /// Joins a multicast group on a device, until the end of the scenario.
    pub fn group(&mut self, group: IpAddr, device: &str) -> Result<(), String> {
        if group.is_ipv6() {
            allow_ipv6(device).map_err(|e| e.to_string())?;
        }
        self.members.push(member(group, device).map_err(|e| e.to_string())?);
        self.heard.expect(group);
        Ok(())
    }

    /// Makes a VLAN device above the bond, and sets it up.
    pub fn vlan(&self, id: u16) -> Result<(), String> {
        let name = format!("bond0.{id}");
        let made = if_nametoindex("bond0").and_then(|bond| self.near.vlan(&name, 0, bond, id));
        made.and_then(|()| self.near.admin(&name, true))
            .map_err(|e| format!("{e:?}"))
    }

    /// A way out of the bond or of a device above it.
    pub fn way_out(device: &str) -> Result<Tap, String> {
        let index = if_nametoindex(device).map_err(|e| format!("{e:?}"))?;
        Tap::open(index).map_err(|e| format!("{e:?}"))
    }

    /// Sends a frame into the far end of a port's cable.
    pub fn arrive(&self, port: &str, frame: &[u8]) -> Result<(), String> {
        let ear = self
            .ports
            .iter()
            .position(|p| p == port)
            .and_then(|n| self.frame_sockets.get(n));
        let ear = ear.ok_or_else(|| format!("no cable {port}"))?;
        ear.send(frame).map_err(|e| format!("{e:?}"))
    }

    /// Takes in what the far ends have heard.
    pub fn listen(&mut self) {
        for (port, ear) in self.ports.iter().zip(&self.frame_sockets) {
            for frame in ear.drain() {
                self.heard.take(port, &frame);
            }
        }
    }

    /// Frames received at the far ends since the last call.
    pub fn all_heard(&mut self) -> Heard {
        self.listen();
        self.heard.forget()
    }
}

/// A socket that is a member of a group while it is open.
fn member(group: IpAddr, device: &str) -> io::Result<UdpSocket> {
    let index = if_nametoindex(device)?;
    match group {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr {
                    s_addr: u32::from(group).to_be(),
                },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: index as i32,
            };
            // SAFETY: the pointer is to a whole ip_mreqn, whose length is the one given, and outlives the call.
            let done = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::IPPROTO_IP,
                    libc::IP_ADD_MEMBERSHIP,
                    (&raw const request).cast(),
                    size_of_val(&request) as libc::socklen_t,
                )
            };
            Errno::result(done).map_err(io::Error::from).map(|_| socket)
        }
        IpAddr::V6(group) => {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            socket.join_multicast_v6(&group, index)?;
            Ok(socket)
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Otherwise the next one of this thread lies on top of it; a failure leaves it there, without harm.
        let _ = umount2("/sys", MntFlags::MNT_DETACH);
    }
}

/// Runs something on a thread inside a namespace.
pub fn in_namespace<T: Send>(namespace: &File, body: impl FnOnce() -> T + Send) -> Result<T, String> {
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

/// IPv6 on one device of this namespace.
pub fn allow_ipv6(device: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "0")
}
