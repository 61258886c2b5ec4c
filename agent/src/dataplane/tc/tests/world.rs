//! A network namespace with four cables, and a plane in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bond_modes::plan::{Accept, Match, PortPlan, Rewrite, Spread, Steer, Tx};
use bond_modes::{ForwardingPlan, PortId, XmitHashPolicy};
use bond_monitors::{Carrier, MacAddr};
use clap::ValueEnum;

use crate::dataplane::lock::lock;
use crate::dataplane::tc::bond::Bond;
use crate::dataplane::tc::forwarding::InForce;
use crate::dataplane::tc::pins::Pins;
use crate::dataplane::tc::{DeviceChoice, FailoverChoice, Hook, NewBonds, TcBond, TcPlane, sys};
use crate::dataplane::{
    self, BondDevice, Observed, OriginalPort, Plane, PlaneBond, PlaneError, PortBase, PortCounters,
};
use crate::netlink::tests::in_netns;
use crate::netlink::{Link, RouteSocket, sysctl};
use crate::packet::PacketSocket;

/// A namespace with four cables, and a plane in it.
pub(super) struct World {
    pub(super) plane: TcPlane,
    pub(super) bond: Option<TcBond>,
    pub(super) hook: Hook,
    pub(super) device: DeviceChoice,
    pub(super) links: RouteSocket,
    pub(super) socket: PacketSocket,
    pub(super) run_dir: PathBuf,
    pub(super) originals: BTreeMap<PortId, OriginalPort>,
    pub(super) far_end_before: u64,
}

/// A copy through each of these ports.
pub(super) fn all(ports: Vec<PortId>) -> Tx {
    Tx::new(Spread::All, ports)
}

/// So many frames in a row through each of these ports, IGMP through the first.
pub(super) fn round_robin(ports: &[PortId], packets_per_port: u32) -> Tx {
    let igmp = ports.first().copied();
    Tx::new(Spread::RoundRobin { packets_per_port, igmp }, ports.to_vec())
}

pub(super) fn hashed(ports: Vec<PortId>, policy: XmitHashPolicy) -> Tx {
    Tx::new(Spread::Hash(policy), ports)
}

/// Frames of these queues leave through these ports.
pub(super) fn queues(queues: &[(u16, PortId)]) -> Vec<Steer> {
    let steer = |&(queue, to): &(u16, PortId)| Steer {
        what: Match::Queue(queue),
        to,
    };
    queues.iter().map(steer).collect()
}

/// Lets a plan accept these frames from a port.
pub(super) fn accept(plan: &mut ForwardingPlan, port: PortId, accept: Accept) {
    plan.ports.get_mut(&port).expect("the plan names the port").accept = accept;
}

/// In the machine whose kernel has netkit, instead of the two hooks of a pair: on that; see [`device`].
pub(super) fn for_both_hooks(body: impl Fn(&mut World) + Clone + Send + 'static) {
    match device() {
        DeviceChoice::Veth => for_pairs(body),
        _ => in_world(Hook::Auto, body),
    }
}

/// Whatever other tests are run on.
pub(super) fn for_pairs(body: impl Fn(&mut World) + Clone + Send + 'static) {
    in_world_of(Hook::Auto, DeviceChoice::Veth, body.clone());
    in_world_of(Hook::Clsact, DeviceChoice::Veth, body);
}

pub(super) fn in_world(hook: Hook, body: impl FnOnce(&mut World) + Send + 'static) {
    let device = match hook {
        Hook::Auto => device(),
        Hook::Clsact => DeviceChoice::Veth,
    };
    in_world_of(hook, device, body);
}

/// What bonds are in tests that do not ask for pairs: pairs, or what `BONDD_TEST_DEVICE` says.
pub(super) fn device() -> DeviceChoice {
    match std::env::var("BONDD_TEST_DEVICE") {
        Ok(name) => DeviceChoice::from_str(&name, false).unwrap(),
        Err(_) => DeviceChoice::Veth,
    }
}

pub(super) fn in_world_of(hook: Hook, device: DeviceChoice, body: impl FnOnce(&mut World) + Send + 'static) {
    in_netns(move || {
        // The kernel's own IPv6 chatter would be counted too.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let mut links = RouteSocket::open().unwrap();
        for (port, far) in [("p0", "q0"), ("p1", "q1"), ("p2", "q2"), ("p3", "q3")] {
            links.add_veth(port, far).unwrap();
            let far = links.by_name(far).unwrap().unwrap();
            links.set_up(far.ifindex, true).unwrap();
        }
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let run_dir = std::env::temp_dir().join(format!("bondd-tc-{}-{number}", std::process::id()));
        let mut world = World {
            plane: TcPlane::open(&run_dir, NewBonds { hook, device }, FailoverChoice::Auto).unwrap(),
            bond: None,
            hook,
            device,
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
        let _ = self.take_bond().map(|bond| Box::new(bond).destroy());
        self.plane.in_kernel.settle();
        let released = self.plane.close();
        let _ = fs::remove_dir(&self.run_dir);
        if !thread::panicking() {
            released.unwrap();
            assert!(!self.run_dir.exists(), "{} is not empty", self.run_dir.display());
        }
    }
}

impl World {
    pub(super) fn new_bonds(&self) -> NewBonds {
        NewBonds {
            hook: self.hook,
            device: self.device,
        }
    }

    pub(super) fn link(&mut self, name: &str) -> Link {
        self.links.by_name(name).unwrap().unwrap_or_else(|| panic!("no {name}"))
    }

    pub(super) fn port(&mut self, name: &str) -> PortId {
        PortId(self.link(name).ifindex)
    }

    pub(super) fn bond(&mut self) -> &mut TcBond {
        self.bond.as_mut().expect("made or adopted before")
    }

    /// What the plane keeps for the bond.
    pub(super) fn kept(&self) -> &Bond {
        &self.bond.as_ref().expect("made or adopted before").bond
    }

    /// Reads or changes what counts as in force.
    pub(super) fn in_force<T>(&self, work: impl FnOnce(&mut InForce) -> T) -> T {
        self.kept().forwarding.with(work)
    }

    /// The plan in force.
    pub(super) fn applied(&self) -> ForwardingPlan {
        self.in_force(|now| now.applied.clone())
    }

    /// The bond, adopted if it is nobody's.
    fn take_bond(&mut self) -> Option<TcBond> {
        let known = self.bond.take();
        known.or_else(|| Some(self.plane.take_over("bond0").ok()??.0))
    }

    /// Takes the bond over, in place of the one that was made or adopted before.
    pub(super) fn adopt(&mut self) -> Result<Option<Observed>, PlaneError> {
        self.bond = None;
        let (bond, observed) = self.plane.take_over("bond0")?.unzip();
        self.bond = bond;
        Ok(observed)
    }

    pub(super) fn make(&mut self) -> Result<BondDevice, PlaneError> {
        let (bond, device) = self.plane.make("bond0")?;
        self.bond = Some(bond);
        Ok(device)
    }

    pub(super) fn create(&mut self) {
        let device = self.make().unwrap();
        assert_eq!(device.report.carrier, Carrier::Off);
        assert!(!device.report.admin_up);
        self.links.set_up(device.ifindex, true).unwrap();
    }

    pub(super) fn attach(&mut self, name: &str, mac: Option<MacAddr>) {
        let port = self.port(name);
        let original = dataplane::original(&mut self.links, port).unwrap();
        self.originals.insert(port, original);
        self.bond().attach(port, &PortBase { mac, mtu: 1500 }).unwrap();
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

    /// All four ports attached, and frames have got through each of them: an interface whose carrier has only just come drops
    /// what it is given until the kernel has dealt with that event.
    pub(super) fn bond_with_four_ports(&mut self) -> Vec<PortId> {
        self.create();
        let ports = ["p0", "p1", "p2", "p3"].map(|name| {
            self.attach(name, None);
            self.port(name)
        });
        for (port, far) in ports.into_iter().zip(["q0", "q1", "q2", "q3"]) {
            self.send_by(Tx::one(Some(port)), &[port]);
            let end = self.tap(far);
            self.eventually(|w| {
                w.send_frame(&frame(OTHER));
                end.waiting() > 0
            });
        }
        ports.to_vec()
    }

    /// Programs a transmit policy; the ports it names let everything in.
    pub(super) fn send_by(&mut self, tx: Tx, ports: &[PortId]) {
        let plan = self.list_plan(tx, ports);
        self.program(&plan);
    }

    /// The plan for a transmit policy over these ports, everything else as it is.
    pub(super) fn list_plan(&self, tx: Tx, ports: &[PortId]) -> ForwardingPlan {
        let attached: Vec<PortId> = self.kept().ports();
        let mut plan = self.plan(None, &attached);
        for port in ports {
            accept(&mut plan, *port, Accept::All);
        }
        ForwardingPlan {
            carrier: Carrier::On,
            tx,
            ..plan
        }
    }

    /// Taps at the far ends of all four cables.
    pub(super) fn far_ends(&mut self) -> [Tap; 4] {
        ["q0", "q1", "q2", "q3"].map(|name| Tap::whole(self.link(name).ifindex))
    }

    /// The plan for this active port, addresses and MTU as they are.
    pub(super) fn plan(&self, active: Option<PortId>, ports: &[PortId]) -> ForwardingPlan {
        let now = self.applied();
        let settings = |port: &PortId| PortPlan {
            allmulti: false,
            accept: match Some(*port) == active {
                true => Accept::All,
                false => Accept::Nothing,
            },
            ..now.ports[port]
        };
        ForwardingPlan {
            carrier: Carrier::from_bool(active.is_some()),
            mac: now.mac,
            ports: ports.iter().map(|port| (*port, settings(port))).collect(),
            tx: Tx::one(active),
            steer: Vec::new(),
            rewrite: Rewrite::default(),
            without_agent: None,
            if_lost: Default::default(),
        }
    }

    pub(super) fn program(&mut self, plan: &ForwardingPlan) {
        self.bond().program(plan).result().unwrap();
        assert_eq!(self.applied(), *plan);
    }

    /// As if the process had been killed and started again.
    pub(super) fn reopen(&mut self) {
        self.reopen_to(FailoverChoice::Auto);
    }

    pub(super) fn reopen_without_failover(&mut self) {
        self.reopen_to(FailoverChoice::Off);
    }
    fn reopen_to(&mut self, failover: FailoverChoice) {
        self.bond = None;
        self.plane.in_kernel.end();
        self.plane = TcPlane::open(&self.run_dir, self.new_bonds(), failover).unwrap();
    }

    /// As [`World::reopen`], by an agent that makes bonds of another device.
    pub(super) fn reopen_with(&mut self, device: DeviceChoice) {
        self.device = device;
        self.reopen();
    }

    pub(super) fn tear_down(&mut self) {
        for (port, original) in mem::take(&mut self.originals) {
            let given_back = match &mut self.bond {
                Some(bond) => bond.detach(port, &original),
                None => self.plane.give_back("bond0", port, &original),
            };
            given_back.unwrap();
        }
        if let Some(bond) = self.bond.take() {
            Box::new(bond).destroy().unwrap();
        }
        self.plane.close().unwrap();
    }

    /// The programs that are attached by links, by id; none where there are only filters.
    pub(super) fn programs(&self) -> Vec<u32> {
        let bond = self.kept();
        let links = bond.tx_hold.iter().chain(bond.port_holds.values().flatten());
        links.map(|link| sys::program_of(link.as_fd()).unwrap()).collect()
    }

    pub(super) fn counters(&mut self, port: PortId) -> PortCounters {
        self.bond().counters(port).unwrap()
    }

    pub(super) fn send(&mut self, from: &str, to: MacAddr, count: usize) {
        let ifindex = self.link(from).ifindex;
        (0..count).for_each(|_| self.socket.send(ifindex, &frame(to)).unwrap());
    }

    pub(super) fn send_frame(&mut self, frame: &[u8]) {
        let bond = self.kept().ifindex;
        self.socket.send(bond, frame).unwrap();
    }

    /// Waits for that many frames at all far ends together; their numbers in order of arrival.
    #[track_caller]
    pub(super) fn gather(&mut self, far: &[Tap; 4], count: usize) -> [Vec<u32>; 4] {
        let mut arrived = [const { Vec::new() }; 4];
        let deadline = Instant::now() + PATIENCE;
        while arrived.iter().map(Vec::len).sum::<usize>() < count {
            assert!(
                Instant::now() < deadline,
                "of {count} frames only these came: {arrived:?}"
            );
            for (numbers, end) in arrived.iter_mut().zip(far) {
                numbers.extend(end.numbers());
            }
            thread::yield_now();
        }
        arrived
    }

    pub(super) fn tap(&mut self, name: &str) -> Tap {
        Tap::on(self.link(name).ifindex)
    }

    /// Everything that the plane could have changed and not put back.
    pub(super) fn snapshot(&mut self) -> Vec<String> {
        self.plane.in_kernel.settle();
        let mut lines = Vec::new();
        for mut link in self.links.all().unwrap() {
            // The kernel tells these some time after an interface went up or down.
            link.report.carrier = Carrier::Off;
            link.in_service = false;
            link.operstate = "";
            let ipv6 = sysctl::disable_ipv6(&link.report.name).unwrap();
            let clsact = self.links.has_clsact(link.ifindex).unwrap();
            lines.push(format!("{link:?} disable_ipv6 {ipv6:?} clsact {clsact}"));
        }
        let pins = Pins::find(&self.run_dir, lock(&self.plane.shared).netns).unwrap();
        lines.extend(pins.map(|pins| pins.list()).unwrap_or_default());
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
        Tap::protocol(ifindex, ETHERTYPE)
    }

    /// Receives every frame.
    pub(super) fn whole(ifindex: u32) -> Tap {
        Tap::protocol(ifindex, libc::ETH_P_ALL as u16)
    }

    fn protocol(ifindex: u32, protocol: u16) -> Tap {
        // SAFETY: socket() takes no pointers, and its result is checked before it becomes an owned descriptor.
        let socket = unsafe {
            let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(raw >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(raw)
        };
        // SAFETY: all fields are integers or arrays of them; zero is a valid value for each.
        let mut at: libc::sockaddr_ll = unsafe { mem::zeroed() };
        at.sll_family = libc::AF_PACKET as u16;
        at.sll_protocol = protocol.to_be();
        at.sll_ifindex = ifindex as i32;
        let patience = libc::timeval {
            tv_sec: PATIENCE.as_secs() as i64,
            tv_usec: 0,
        };
        // Room for whatever comes while a test does something else.
        let room: libc::c_int = 256 << 20;
        // SAFETY: the pointers lead to live values of the lengths given with them.
        let bound = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                mem::size_of_val(&patience) as u32,
            ) | libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const room).cast(),
                mem::size_of_val(&room) as u32,
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
        self.read(&mut [0u8; 2048], flags).is_some()
    }

    /// The next frame; nothing if none comes.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1 << 17];
        self.read(&mut buffer, 0).map(|length| buffer[..length].to_vec())
    }

    /// The number that ends the next frame, if one is there already. [`numbered`]
    pub(super) fn number_waiting(&self) -> Option<u32> {
        let mut buffer = [0u8; 2048];
        let length = self.read(&mut buffer, libc::MSG_DONTWAIT)?;
        buffer[..length].last_chunk().map(|last| u32::from_be_bytes(*last))
    }

    /// The numbers that end the frames that have come.
    pub(super) fn numbers(&self) -> Vec<u32> {
        std::iter::from_fn(|| self.number_waiting()).collect()
    }

    /// Frames that came while the socket had no room.
    pub(super) fn missed(&self) -> u32 {
        let mut statistics = [0u32; 2];
        let mut length = mem::size_of_val(&statistics) as u32;
        // SAFETY: the pointers lead to live values, the first of the length that the second says.
        let asked = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        assert_eq!(asked, 0, "{}", io::Error::last_os_error());
        statistics[1]
    }

    fn read(&self, buffer: &mut [u8], flags: i32) -> Option<usize> {
        // SAFETY: the pointer and length are those of a live buffer.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
        usize::try_from(length).ok().filter(|length| *length > 0)
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

/// A frame that can be told from others by its last four bytes.
pub(super) fn numbered(mut frame: Vec<u8>, number: u32) -> Vec<u8> {
    frame.extend(number.to_be_bytes());
    frame
}

/// Puts a large TCP frame over IPv4 on an interface, to be cut into segments of this many bytes at the latest possible place.
/// [packet(7): PACKET_VNET_HDR]
pub(super) fn send_unsegmented(ifindex: u32, frame: &[u8], segment: u16) {
    const NEEDS_CHECKSUM: u8 = 1;
    const TCP_OVER_IPV4: u8 = 1;
    let mut bytes = vec![NEEDS_CHECKSUM, TCP_OVER_IPV4];
    // Length of the headers, of a segment, start of the checksummed part and place of the checksum in it.
    for word in [54, segment, 34, 16] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(frame);
    let on: libc::c_int = 1;
    // SAFETY: all fields are integers or arrays of them; zero is a valid value for each.
    let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    to.sll_ifindex = ifindex as i32;
    // SAFETY: the pointers lead to live values of the lengths given with them; the socket is owned once it is known to be one.
    let sent = unsafe {
        let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(raw >= 0, "{}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(raw);
        let set = libc::setsockopt(
            raw,
            libc::SOL_PACKET,
            PACKET_VNET_HDR,
            (&raw const on).cast(),
            mem::size_of_val(&on) as u32,
        );
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const to).cast(),
            mem::size_of_val(&to) as u32,
        )
    };
    assert_eq!(sent, bytes.len() as isize, "{}", io::Error::last_os_error());
}

/// [linux/if_packet.h]
const PACKET_VNET_HDR: libc::c_int = 15;

/// Keeps the calling thread, and so the frames that it sends, on the first processor.
pub(super) fn stay_on_one_cpu() {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).unwrap();
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

/// An address of nobody.
pub(super) const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
pub(super) const LLDP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
/// Local experimental. [IEEE 802 9.2.4]
pub(super) const ETHERTYPE: u16 = 0x88b5;
pub(super) const FRAME: usize = 60;
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
