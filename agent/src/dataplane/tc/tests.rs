//! The plane against the kernel, each test in a network namespace of its own: `p0` and `p1` are ports, `q0` and `q1` the far
//! ends of their cables. Frames of a protocol of our own are put on a cable or on the bond and looked for elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use bond_modes::{Accept, ForwardingPlan, PortId, PortPlan, TxPolicy};
use bond_monitors::{Carrier, MacAddr};

use super::step::fault;
use super::{Hook, TcPlane};
use crate::dataplane::{Dataplane, OriginalPort, PlaneError, PortBase, PortCounters};
use crate::netlink::tests::in_netns;
use crate::netlink::{Link, Links, sysctl};
use crate::packet::PacketSocket;

#[test]
fn frames_cross_the_bond_in_both_directions_and_are_counted() {
    for_both_hooks(|w| {
        let (p0, _) = w.bond_with_two_ports();
        let (bond, q0) = (w.tap("bond0"), w.tap("q0"));
        w.send("bond0", OTHER, 3);
        q0.expect(3);
        w.send("q0", OTHER, 2);
        bond.expect(2);
        let counted = w.counters(p0);
        assert_eq!((counted.tx_frames, counted.tx_bytes), (3, 3 * FRAME as u64));
        assert_eq!(
            (counted.rx_frames, counted.rx_bytes, counted.rx_dropped),
            (2, 2 * FRAME as u64, 0)
        );
        assert!(counted.last_rx > 0);
        let bond0 = w.link("bond0");
        assert_eq!(bond0.report.carrier, Carrier::On);
    });
}

#[test]
fn an_accept_rule_lets_in_what_it_says() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let (bond, port) = (w.tap("bond0"), w.tap("p1"));
        let mut plan = w.plan(Some(p0), &[p0, p1]);

        // A backup port: only what is for the cable itself, and that goes up the port.
        w.send("q1", OTHER, 1);
        w.send("q1", MacAddr::BROADCAST, 1);
        w.send("q1", LLDP, 1);
        port.expect(1);
        assert_eq!((w.counters(p1).rx_frames, w.counters(p1).rx_dropped), (0, 2));

        plan.rx.insert(p1, Accept::Unicast);
        w.program(&plan);
        w.send("q1", MacAddr::BROADCAST, 1);
        w.send("q1", LLDP, 1);
        w.send("q1", OTHER, 1);
        bond.expect(1);
        port.expect(1);
        assert_eq!((w.counters(p1).rx_frames, w.counters(p1).rx_dropped), (1, 3));

        plan.rx.insert(p1, Accept::All);
        w.program(&plan);
        w.send("q1", MacAddr::BROADCAST, 1);
        w.send("q1", LLDP, 1);
        w.send("q1", OTHER, 1);
        bond.expect(3);
        assert_eq!((w.counters(p1).rx_frames, w.counters(p1).rx_dropped), (4, 3));
        assert_eq!((bond.waiting(), port.waiting()), (0, 0));
    });
}

#[test]
fn a_changed_plan_moves_the_traffic() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let (q0, q1) = (w.tap("q0"), w.tap("q1"));
        w.program(&w.plan(Some(p1), &[p0, p1]));
        w.send("bond0", OTHER, 5);
        q1.expect(5);
        w.send("q0", OTHER, 1);
        assert_eq!(
            (w.counters(p0).rx_dropped, w.counters(p0).tx_frames, q0.waiting()),
            (1, 0, 0)
        );

        w.program(&w.plan(None, &[p0, p1]));
        assert_eq!(w.link("bond0").report.carrier, Carrier::Off);
        w.program(&w.plan(Some(p0), &[p0, p1]));
        assert_eq!(w.link("bond0").report.carrier, Carrier::On);
        w.send("bond0", OTHER, 1);
        q0.expect(1);
    });
}

#[test]
fn a_plan_sets_addresses_mtu_and_promiscuity() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p0), &[p0, p1]);
        plan.mac = MacAddr([2, 0, 0, 0, 0, 0xb0]);
        plan.ports.insert(
            p1,
            PortPlan {
                mac: plan.mac,
                mtu: 9000,
                promisc: true,
                allmulti: true,
            },
        );
        w.program(&plan);
        assert_eq!(w.link("bond0").report.mac, plan.mac);
        let port = w.link("p1");
        assert_eq!(
            (port.report.mac, port.report.mtu, port.promisc_flag),
            (plan.mac, 9000, true)
        );

        // What somebody changes by hand stays until the plan itself changes there.
        w.links.set_mtu(p1.0, 4000).unwrap();
        w.program(&plan);
        assert_eq!(w.link("p1").report.mtu, 4000);
    });
}

#[test]
fn a_vanished_port_does_not_stop_the_rest_of_a_plan() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        w.links.delete(p0.0).unwrap();
        let mut plan = w.plan(Some(p1), &[p1]);
        plan.mac = MacAddr([2, 0, 0, 0, 0, 0xb1]);
        let gone = PortPlan {
            mac: plan.mac,
            ..plan.ports[&p1]
        };
        plan.ports.insert(p0, gone);
        let outcome = w.plane.program(&bond0(), &plan);
        assert!(
            matches!(outcome, Err(PlaneError::PortGone { port }) if port == p0),
            "{outcome:?}"
        );
        let q1 = w.tap("q1");
        w.send("bond0", OTHER, 1);
        q1.expect(1);
        assert_eq!(w.link("bond0").report.mac, plan.mac);
        let original = w.originals[&p0].clone();
        w.plane.detach(&bond0(), p0, &original).unwrap();
    });
}

#[test]
fn a_port_is_given_back_as_it_was() {
    for clsact_before in [false, true] {
        for_both_hooks(move |w| {
            let p0 = w.port("p0");
            w.links.set_mtu(p0.0, 1400).unwrap();
            w.links.set_alias(p0.0, "the operator's own").unwrap();
            w.links.set_promisc(p0.0, true).unwrap();
            w.links.set_up(p0.0, !clsact_before).unwrap();
            sysctl::set_disable_ipv6("p0", false).unwrap();
            if clsact_before {
                aya::programs::tc::qdisc_add_clsact("p0").unwrap();
            }
            let before = w.snapshot();
            w.create();
            w.attach("p0", Some(MacAddr([2, 0, 0, 0, 0, 0xb2])));
            let attached = w.link("p0");
            assert_eq!(attached.alias, "port of bond0");
            assert_eq!(attached.report.mac, MacAddr([2, 0, 0, 0, 0, 0xb2]));
            assert!(attached.report.admin_up && attached.allmulti_flag && attached.report.mtu == 1500);
            assert_eq!(sysctl::disable_ipv6("p0").unwrap(), Some(true));
            w.program(&w.plan(Some(p0), &[p0]));
            w.tear_down();
            assert_eq!(w.snapshot(), before);
        });
    }
}

#[test]
fn a_new_process_takes_over_what_is_there() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        let mut plan = w.plan(Some(p1), &[p0, p1]);
        plan.rx.insert(p0, Accept::Unicast);
        w.program(&plan);
        w.send("bond0", OTHER, 7);
        w.reopen();
        let observed = w.plane.observe(&bond0()).unwrap().unwrap();
        assert_eq!(observed.plan, plan);
        assert_eq!(observed.report.name, "bond0");
        let ports: Vec<_> = observed
            .ports
            .iter()
            .map(|(port, report)| (*port, report.name.as_str()))
            .collect();
        assert_eq!(ports, [(p0, "p0"), (p1, "p1")]);
        assert_eq!(w.counters(p1).tx_frames, 7);

        // The hooks are the new process' now, and it can take them off.
        w.program(&w.plan(Some(p0), &[p0, p1]));
        let q0 = w.tap("q0");
        w.send("bond0", OTHER, 1);
        q0.expect(1);
    });
}

#[test]
fn nothing_is_lost_while_the_process_is_replaced() {
    for_both_hooks(|w| {
        let (p0, _) = w.bond_with_two_ports();
        let bond = w.link("bond0").ifindex;
        let stop = AtomicBool::new(false);
        let sent = AtomicU32::new(0);
        let failed = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let socket = PacketSocket::open().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let outcome = socket.send(bond, &frame(OTHER));
                    sent.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(outcome.is_err().into(), Ordering::Relaxed);
                }
            });
            for _ in 0..5 {
                let mark = sent.load(Ordering::Relaxed);
                w.reopen();
                w.plane.observe(&bond0()).unwrap().unwrap();
                while sent.load(Ordering::Relaxed) < mark + 1000 {
                    thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let sent = u64::from(sent.into_inner());
        assert_eq!(failed.into_inner(), 0);
        w.eventually(|w| w.counters(p0).tx_frames == sent);
        // Not only sent on: it arrived at the far end too.
        let received = |w: &World| statistic("q0", "rx_packets") - w.far_end_before;
        w.eventually(|w| received(w) == sent);
    });
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    in_world(Hook::Auto, |w| {
        w.links.add_veth("bond0", "wire99").unwrap();
        let taken = w.link("bond0").ifindex;
        w.links.set_up(taken, true).unwrap();
        let before = w.snapshot();
        assert_eq!(w.plane.observe(&bond0()).unwrap(), None);
        let refused = w.plane.create(&bond0());
        assert!(
            matches!(&refused, Err(PlaneError::NameTaken { name }) if name == "bond0"),
            "{refused:?}"
        );
        assert_eq!(w.snapshot(), before);
    });
}

#[test]
fn a_bond_that_a_crash_left_half_made_is_made_anew_or_completed() {
    for_both_hooks(|w| {
        // Before the wire was marked as ours.
        w.links.add_veth("bond0", "wire%d").unwrap();
        assert_eq!(w.plane.observe(&bond0()).unwrap(), None);
        w.create();
        // Marked, and its pins gone.
        let ifindex = w.link("bond0").ifindex;
        w.plane.pins().unwrap().bond(ifindex).remove().unwrap();
        w.reopen();
        let observed = w.plane.observe(&bond0()).unwrap().unwrap();
        assert_eq!(
            (observed.ifindex, observed.plan.tx, observed.ports),
            (ifindex, TxPolicy::Drop, vec![])
        );
        w.attach("p0", None);
        let p0 = w.port("p0");
        w.program(&w.plan(Some(p0), &[p0]));
        let q0 = w.tap("q0");
        w.send("bond0", OTHER, 1);
        q0.expect(1);
        w.tear_down();
    });
}

#[test]
fn a_creation_that_fails_at_any_step_leaves_nothing() {
    for_both_hooks(|w| {
        let before = w.snapshot();
        for step in 0.. {
            let (outcome, reached) = fault::at(step, || w.plane.create(&bond0()));
            if !reached {
                outcome.unwrap();
                assert!(step > 8, "only {step} steps");
                break;
            }
            assert!(outcome.is_err(), "step {step}");
            assert_eq!(w.snapshot(), before, "step {step}");
        }
    });
}

#[test]
fn an_attachment_that_fails_at_any_step_leaves_nothing() {
    for_both_hooks(|w| {
        w.create();
        let p0 = w.port("p0");
        w.links.set_mtu(p0.0, 1400).unwrap();
        let before = w.snapshot();
        let base = PortBase {
            mac: Some(MacAddr([2, 0, 0, 0, 0, 0xb3])),
            mtu: 1500,
        };
        for step in 0.. {
            let (outcome, reached) = fault::at(step, || w.plane.attach(&bond0(), p0, &base));
            if !reached {
                outcome.unwrap();
                assert!(step > 8, "only {step} steps");
                break;
            }
            assert!(outcome.is_err(), "step {step}");
            assert_eq!(w.snapshot(), before, "step {step}");
            assert_eq!(w.plane.counters(&bond0()).unwrap(), [], "step {step}");
        }
        // Once more is harmless.
        w.plane.attach(&bond0(), p0, &base).unwrap();
    });
}

#[test]
fn a_plan_that_fails_at_any_step_is_completed_by_the_next() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        for step in 0.. {
            let from = w.plan(None, &[p0, p1]);
            w.program(&from);
            let mut to = w.plan(Some(p1), &[p0, p1]);
            to.rx.insert(p0, Accept::Unicast);
            to.mac = MacAddr([2, 0, 0, 0, 1, step as u8]);
            for port in to.ports.values_mut() {
                port.mac = to.mac;
            }
            let (outcome, reached) = fault::at(step, || w.plane.program(&bond0(), &to));
            assert_eq!(outcome.is_err(), reached);
            w.program(&to);
            w.reopen();
            assert_eq!(w.plane.observe(&bond0()).unwrap().unwrap().plan, to, "step {step}");
            if !reached {
                assert!(step > 5, "only {step} steps");
                break;
            }
        }
    });
}

#[test]
fn a_port_that_is_gone_while_no_agent_ran_is_forgotten() {
    for_both_hooks(|w| {
        let (p0, p1) = w.bond_with_two_ports();
        w.links.delete(p0.0).unwrap();
        w.reopen();
        let observed = w.plane.observe(&bond0()).unwrap().unwrap();
        assert_eq!(observed.plan.ports.keys().copied().collect::<Vec<_>>(), [p1]);
        let counted: Vec<_> = w
            .plane
            .counters(&bond0())
            .unwrap()
            .into_iter()
            .map(|(port, _)| port)
            .collect();
        assert_eq!(counted, [p1]);
    });
}

#[test]
fn the_probe_leaves_nothing() {
    for hook in [Hook::Auto, Hook::Clsact] {
        in_world(hook, |w| {
            let before = w.snapshot();
            w.plane.probe().unwrap();
            assert_eq!(w.snapshot(), before);
        });
    }
}

#[test]
fn pins_of_bonds_whose_interface_is_gone_are_swept() {
    for_both_hooks(|w| {
        let before = w.snapshot();
        w.create();
        let ifindex = w.link("bond0").ifindex;
        w.links.delete(ifindex).unwrap();
        w.reopen();
        w.plane.pins().unwrap();
        assert_eq!(w.snapshot(), before);
    });
}

/// A namespace with two cables, and a plane in it.
struct World {
    plane: TcPlane,
    hook: Hook,
    links: Links,
    socket: PacketSocket,
    run_dir: PathBuf,
    originals: BTreeMap<PortId, OriginalPort>,
    far_end_before: u64,
}

fn for_both_hooks(body: impl Fn(&mut World) + Clone + Send + 'static) {
    in_world(Hook::Auto, body.clone());
    in_world(Hook::Clsact, body);
}

fn in_world(hook: Hook, body: impl FnOnce(&mut World) + Send + 'static) {
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
        let released = self.plane.unmount_if_empty();
        let _ = fs::remove_dir(&self.run_dir);
        if !thread::panicking() {
            released.unwrap();
            assert!(!self.run_dir.exists(), "{} is not empty", self.run_dir.display());
        }
    }
}

impl World {
    fn link(&mut self, name: &str) -> Link {
        self.links.by_name(name).unwrap().unwrap_or_else(|| panic!("no {name}"))
    }

    fn port(&mut self, name: &str) -> PortId {
        PortId(self.link(name).ifindex)
    }

    fn create(&mut self) {
        let device = self.plane.create(&bond0()).unwrap();
        assert_eq!(device.report.carrier, Carrier::Off);
        assert!(!device.report.admin_up);
        self.links.set_up(device.ifindex, true).unwrap();
    }

    fn attach(&mut self, name: &str, mac: Option<MacAddr>) {
        let port = self.port(name);
        let original = self.plane.original(port).unwrap();
        self.originals.insert(port, original);
        self.plane.attach(&bond0(), port, &PortBase { mac, mtu: 1500 }).unwrap();
    }

    /// `p0` is the active port, `p1` a backup.
    fn bond_with_two_ports(&mut self) -> (PortId, PortId) {
        self.create();
        self.attach("p0", None);
        self.attach("p1", None);
        let (p0, p1) = (self.port("p0"), self.port("p1"));
        self.program(&self.plan(Some(p0), &[p0, p1]));
        self.far_end_before = statistic("q0", "rx_packets");
        (p0, p1)
    }

    /// The plan for this active port, addresses and MTU as they are.
    fn plan(&self, active: Option<PortId>, ports: &[PortId]) -> ForwardingPlan {
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

    fn program(&mut self, plan: &ForwardingPlan) {
        self.plane.program(&bond0(), plan).unwrap();
        assert_eq!(self.plane.bonds[&bond0()].applied, *plan);
    }

    /// As if the process had been killed and started again.
    fn reopen(&mut self) {
        self.plane = TcPlane::open(&self.run_dir, self.hook).unwrap();
    }

    fn tear_down(&mut self) {
        for (port, original) in mem::take(&mut self.originals) {
            self.plane.detach(&bond0(), port, &original).unwrap();
        }
        self.plane.destroy(&bond0()).unwrap();
        self.plane.unmount_if_empty().unwrap();
    }

    fn counters(&mut self, port: PortId) -> PortCounters {
        let all = self.plane.counters(&bond0()).unwrap();
        all.into_iter().find(|(counted, _)| *counted == port).unwrap().1
    }

    fn send(&mut self, from: &str, to: MacAddr, count: usize) {
        let ifindex = self.link(from).ifindex;
        for _ in 0..count {
            self.socket.send(ifindex, &frame(to)).unwrap();
        }
    }

    fn tap(&mut self, name: &str) -> Tap {
        Tap::on(self.link(name).ifindex)
    }

    /// Everything that the plane could have changed and not put back.
    fn snapshot(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for link in self.links.all().unwrap() {
            let ipv6 = sysctl::disable_ipv6(&link.report.name).unwrap();
            let clsact = self.links.has_clsact(link.ifindex).unwrap();
            lines.push(format!("{link:?} disable_ipv6 {ipv6:?} clsact {clsact}"));
        }
        let pins = super::Pins::find(&self.run_dir, self.plane.netns).map(|pins| pins.list());
        lines.extend(pins.unwrap_or_default());
        lines.sort();
        lines
    }

    fn eventually(&mut self, mut condition: impl FnMut(&mut World) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(std::time::Instant::now() < deadline, "this did not come about");
            thread::yield_now();
        }
    }
}

/// Receives our frames from one interface, after its ingress hook.
struct Tap(OwnedFd);

impl Tap {
    fn on(ifindex: u32) -> Tap {
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
    fn expect(&self, count: usize) {
        for number in 0..count {
            assert!(self.receive(0), "frame {number} of {count} did not come");
        }
    }

    /// Frames that have come and were not expected.
    fn waiting(&self) -> usize {
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

fn frame(to: MacAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME);
    bytes.extend(to.0);
    bytes.extend([2, 0, 0, 0, 0, 0xaa]);
    bytes.extend(ETHERTYPE.to_be_bytes());
    bytes.resize(FRAME, 0);
    bytes
}

fn statistic(interface: &str, name: &str) -> u64 {
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

fn bond0() -> String {
    "bond0".to_owned()
}

/// An address of nobody.
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
const LLDP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
/// Local experimental. [IEEE 802 9.2.4]
const ETHERTYPE: u16 = 0x88b5;
const FRAME: usize = 60;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
