//! A network namespace with two cables, and a plane in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bond_modes::{Accept, ForwardingPlan, PortId, PortPlan, TxPolicy};
use bond_monitors::{Carrier, MacAddr};

use crate::dataplane::tc::pins::Pins;
use crate::dataplane::tc::{Hook, TcPlane};
use crate::dataplane::{Dataplane, OriginalPort, PortBase, PortCounters};
use crate::netlink::tests::in_netns;
use crate::netlink::{Link, Links, sysctl};
use crate::packet::PacketSocket;

/// A namespace with two cables, and a plane in it.
pub(super) struct World {
    pub(super) plane: TcPlane,
    pub(super) hook: Hook,
    pub(super) links: Links,
    pub(super) socket: PacketSocket,
    pub(super) run_dir: PathBuf,
    pub(super) originals: BTreeMap<PortId, OriginalPort>,
    pub(super) far_end_before: u64,
}

pub(super) fn for_both_hooks(body: impl Fn(&mut World) + Clone + Send + 'static) {
    in_world(Hook::Auto, body.clone());
    in_world(Hook::Clsact, body);
}

pub(super) fn in_world(hook: Hook, body: impl FnOnce(&mut World) + Send + 'static) {
    in_netns(move || {
        // The kernel's own IPv6 chatter would be counted too.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let mut links = Links::open().unwrap();
        for (port, far) in [("p0", "q0"), ("p1", "q1")] {
            links.add_veth(port, far).unwrap();
            let far = links.by_name(far).unwrap().unwrap();
            links.set_up(far.ifindex, true).unwrap();
        }
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let run_dir = std::env::temp_dir().join(format!("bondd-tc-{}-{number}", std::process::id()));
        let mut world = World {
            plane: TcPlane::open(&run_dir, hook).unwrap(),
            hook,
            links,
            socket: PacketSocket::open().unwrap(),
            run_dir,
            originals: BTreeMap::new(),
            far_end_before: 0,
        };
        body(&mut world);
    });
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.plane.destroy(&bond0());
        let released = self.plane.close();
        let _ = fs::remove_dir(&self.run_dir);
        if !thread::panicking() {
            released.unwrap();
            assert!(!self.run_dir.exists(), "{} is not empty", self.run_dir.display());
        }
    }
}

impl World {
    pub(super) fn link(&mut self, name: &str) -> Link {
        self.links.by_name(name).unwrap().unwrap_or_else(|| panic!("no {name}"))
    }

    pub(super) fn port(&mut self, name: &str) -> PortId {
        PortId(self.link(name).ifindex)
    }

    pub(super) fn create(&mut self) {
        let device = self.plane.create(&bond0()).unwrap();
        assert_eq!(device.report.carrier, Carrier::Off);
        assert!(!device.report.admin_up);
        self.links.set_up(device.ifindex, true).unwrap();
    }

    pub(super) fn attach(&mut self, name: &str, mac: Option<MacAddr>) {
        let port = self.port(name);
        let original = self.plane.original(port).unwrap();
        self.originals.insert(port, original);
        self.plane.attach(&bond0(), port, &PortBase { mac, mtu: 1500 }).unwrap();
    }

    /// `p0` is the active port, `p1` a backup.
    pub(super) fn bond_with_two_ports(&mut self) -> (PortId, PortId) {
        self.create();
        self.attach("p0", None);
        self.attach("p1", None);
        let (p0, p1) = (self.port("p0"), self.port("p1"));
        self.program(&self.plan(Some(p0), &[p0, p1]));
        self.far_end_before = statistic("q0", "rx_packets");
        (p0, p1)
    }

    /// The plan for this active port, addresses and MTU as they are.
    pub(super) fn plan(&self, active: Option<PortId>, ports: &[PortId]) -> ForwardingPlan {
        let now = &self.plane.bonds[&bond0()].applied;
        let settings = |port: &PortId| PortPlan {
            allmulti: false,
            ..now.ports[port]
        };
        ForwardingPlan {
            carrier: Carrier::from_bool(active.is_some()),
            mac: now.mac,
            ports: ports.iter().map(|port| (*port, settings(port))).collect(),
            tx: active.map_or(TxPolicy::Drop, TxPolicy::One),
            rx: active.iter().map(|port| (*port, Accept::All)).collect(),
        }
    }

    pub(super) fn program(&mut self, plan: &ForwardingPlan) {
        self.plane.program(&bond0(), plan).unwrap();
        assert_eq!(self.plane.bonds[&bond0()].applied, *plan);
    }

    /// As if the process had been killed and started again.
    pub(super) fn reopen(&mut self) {
        self.plane = TcPlane::open(&self.run_dir, self.hook).unwrap();
    }

    pub(super) fn tear_down(&mut self) {
        for (port, original) in mem::take(&mut self.originals) {
            self.plane.detach(&bond0(), port, &original).unwrap();
        }
        self.plane.destroy(&bond0()).unwrap();
        self.plane.close().unwrap();
    }

    pub(super) fn counters(&mut self, port: PortId) -> PortCounters {
        let all = self.plane.counters(&bond0()).unwrap();
        all.into_iter().find(|(counted, _)| *counted == port).unwrap().1
    }

    pub(super) fn send(&mut self, from: &str, to: MacAddr, count: usize) {
        let ifindex = self.link(from).ifindex;
        for _ in 0..count {
            self.socket.send(ifindex, &frame(to)).unwrap();
        }
    }

    pub(super) fn tap(&mut self, name: &str) -> Tap {
        Tap::on(self.link(name).ifindex)
    }

    /// Everything that the plane could have changed and not put back.
    pub(super) fn snapshot(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for mut link in self.links.all().unwrap() {
            // The kernel tells it some time after an interface went up.
            link.report.carrier = Carrier::Off;
            let ipv6 = sysctl::disable_ipv6(&link.report.name).unwrap();
            let clsact = self.links.has_clsact(link.ifindex).unwrap();
            lines.push(format!("{link:?} disable_ipv6 {ipv6:?} clsact {clsact}"));
        }
        let pins = Pins::find(&self.run_dir, self.plane.netns).map(|pins| pins.list());
        lines.extend(pins.unwrap_or_default());
        lines.sort();
        lines
    }

    pub(super) fn eventually(&mut self, mut condition: impl FnMut(&mut World) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "this did not come about");
            thread::yield_now();
        }
    }
}

/// Receives our frames from one interface, after its ingress hook.
pub(super) struct Tap(OwnedFd);

impl Tap {
    pub(super) fn on(ifindex: u32) -> Tap {
        // SAFETY: socket() takes no pointers, and its result is checked before it becomes an owned descriptor.
        let socket = unsafe {
            let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(raw >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(raw)
        };
        // SAFETY: all fields are integers or arrays of them; zero is a valid value for each.
        let mut at: libc::sockaddr_ll = unsafe { mem::zeroed() };
        at.sll_family = libc::AF_PACKET as u16;
        at.sll_protocol = ETHERTYPE.to_be();
        at.sll_ifindex = ifindex as i32;
        let patience = libc::timeval {
            tv_sec: PATIENCE.as_secs() as i64,
            tv_usec: 0,
        };
        // SAFETY: the pointers lead to live values of the lengths given with them.
        let bound = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                mem::size_of_val(&patience) as u32,
            ) | libc::bind(socket.as_raw_fd(), (&raw const at).cast(), mem::size_of_val(&at) as u32)
        };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Tap(socket)
    }

    /// Waits for that many frames.
    #[track_caller]
    pub(super) fn expect(&self, count: usize) {
        for number in 0..count {
            assert!(self.receive(0), "frame {number} of {count} did not come");
        }
    }

    /// Frames that have come and were not expected.
    pub(super) fn waiting(&self) -> usize {
        std::iter::repeat_with(|| self.receive(libc::MSG_DONTWAIT))
            .take_while(|came| *came)
            .count()
    }

    fn receive(&self, flags: i32) -> bool {
        let mut buffer = [0u8; 2048];
        // SAFETY: the pointer and length are those of a live buffer.
        unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) > 0 }
    }
}

pub(super) fn frame(to: MacAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME);
    bytes.extend(to.0);
    bytes.extend([2, 0, 0, 0, 0, 0xaa]);
    bytes.extend(ETHERTYPE.to_be_bytes());
    bytes.resize(FRAME, 0);
    bytes
}

pub(super) fn statistic(interface: &str, name: &str) -> u64 {
    // /sys shows the namespace it was mounted in, /proc/thread-self/net that of this thread.
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{interface}:")))
        .unwrap();
    let column = match name {
        "rx_packets" => 2,
        other => panic!("no column for {other}"),
    };
    line.split_whitespace().nth(column).unwrap().parse().unwrap()
}

pub(super) fn bond0() -> String {
    "bond0".to_owned()
}

/// An address of nobody.
pub(super) const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
pub(super) const LLDP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
/// Local experimental. [IEEE 802 9.2.4]
pub(super) const ETHERTYPE: u16 = 0x88b5;
pub(super) const FRAME: usize = 60;
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
