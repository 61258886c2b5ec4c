//! Failures of the kernel and of other programs, on a scripted data plane.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bond_modes::{Event, PortId, Reach, TargetPath};
use bond_monitors::{ReceiveStamps, Time};
use parking_lot::FairMutex;

use super::agenda::Agenda;
use super::changes::Change;
use super::id::InstanceId;
use super::looks::Look;
use super::table::FIRST;
use super::tools::Tools;
use super::{Counters, Desk, Instances, check_options, kinds};
use crate::config::{self, BondSpec};
use crate::control::proto::{Call, ErrorCode};
use crate::dataplane::script::{self, ScriptPlane};
use crate::dataplane::{Plane, PlaneError, Planes};
use crate::may_wait::MayWait;
use crate::netlink::tests::{asks, in_netns, ip};
use crate::netlink::{Drained, RouteSocket};
use crate::threads::Threads;

mod adoption;
mod attach;
mod circling;
mod follow;
mod give_back;
mod guard;
mod held;
mod hurried;
mod late;
mod losses;
mod meanwhile;
mod owned;
mod planes;
mod publish;
mod put_back;
mod renames;
mod row;
mod saving;
mod second_kind;
mod timers;
mod unmade;
mod untold;

const NOW: Time = Time::ZERO;

/// May wait, as tests do.
struct Tests;

impl MayWait for Tests {}

/// What the loop does, in the thread that makes changes, at a time that stands still.
impl Change<'_> {
    fn at(&mut self, now: Time) -> &mut Self {
        self.stopped = Some(now);
        self
    }

    /// A whole start, as the loop makes it.
    fn start(&mut self, now: Time, specs: &[BondSpec], files: &[PathBuf]) -> std::io::Result<()> {
        self.at(now).begin_start(specs, files)?;
        self.finish_start(now);
        Ok(())
    }

    /// The rest of a start.
    fn finish_start(&mut self, now: Time) {
        while !self.has_started() {
            while Instances::read_links(self, now, 1024) == Drained::More {}
            self.settle(now);
            self.next_step();
            self.publish(now);
            // Else the loop would sleep until something happens.
            let is_woken = self.settling.is_some() || self.has_unpublished();
            assert!(is_woken || self.has_started() || self.task_timeout() <= Some(now));
        }
        while self.read_links(now, 1024) == Drained::More {}
        self.settle(now);
        self.publish_all(now);
    }

    /// Lets the bonds that are there follow these lines as at a start.
    fn start_over(&mut self, specs: &[BondSpec]) {
        self.agenda = Agenda::new([], specs);
        while !self.has_started() {
            self.settle(NOW);
            self.next_step();
            self.publish(NOW);
        }
    }

    /// Carries out the next task, if there is one.
    fn next_step(&mut self) -> bool {
        let now = self.now();
        let task = self.next_task(now, true);
        let is_one = task.is_some();
        if let Some(task) = task {
            self.carry_out(task);
        }
        is_one
    }

    /// Carries out the tasks that there are, outside a start.
    fn do_tasks(&mut self) {
        while self.has_started() && self.next_step() {}
    }

    /// As [`Instances::handle_timeout`], with the tasks that are due.
    fn handle_timeout(&mut self, now: Time) {
        Instances::handle_timeout(self.at(now), now);
        self.ask_rests();
        self.do_tasks();
    }

    /// As [`Instances::read_links`], with the tasks to which that leads.
    fn read_links(&mut self, now: Time, budget: usize) -> Drained {
        let drained = Instances::read_links(self.at(now), now, budget);
        self.ask_rests();
        self.do_tasks();
        drained
    }

    /// Compares everything with the state in the kernel.
    fn resync(&mut self) {
        let now = self.now();
        self.begin_reading(now);
        let read = self.unlocked(|tools| super::events::read_all(&mut tools.links));
        let now = self.now();
        self.finish_reading(now, read);
        self.tell_all(now);
    }

    /// As [`Instances::poll_timeout`], with the tasks.
    fn poll_timeout(&mut self) -> Option<Time> {
        let due = [Instances::poll_timeout(self), self.task_timeout()];
        due.into_iter().flatten().min()
    }

    /// Has the threads asked and takes their answers, until nothing is left to ask; and carries out the tasks to which that leads.
    fn settle(&mut self, now: Time) {
        loop {
            self.tell_all(now);
            self.ask_threads(now);
            if self.take_answers(now, 1) == Drained::Empty {
                break;
            }
        }
        self.at(now).do_tasks();
    }

    /// When a port that could not be attached is tried again.
    fn attach_timeout(&self) -> Option<Time> {
        let due = self.bonds.iter().filter_map(|instance| instance.attempts.timeout());
        due.min()
    }

    fn repair_now(&mut self) {
        self.repair(FIRST);
        self.settle(NOW);
    }

    /// The bond's own interface has changed.
    fn on_bond_device(&mut self, now: Time, at: InstanceId) {
        self.look_at(at, Look::Device);
        self.settle(now);
    }
}

/// The instances of an agent with these planes and this run directory, and no bond.
fn desk(dir: &std::path::Path, planes: Vec<Box<dyn Plane>>) -> Desk {
    let registry = mio::Poll::new().and_then(|poll| poll.registry().try_clone()).unwrap();
    let mut planes = Planes::new(planes);
    let instances = Instances::new(dir, registry, kinds::all(), &mut planes, Threads::at_once()).unwrap();
    Desk {
        instances: Arc::new(FairMutex::new(instances)),
        tools: Tools {
            planes,
            links: RouteSocket::open().unwrap(),
            wake: Box::new(|| {}),
            priority: None,
        },
    }
}

/// The only change of a test.
fn change(desk: &mut Desk) -> Change<'_> {
    let mut change = desk.change();
    change.at(NOW);
    change
}

/// An agent's instances with `bond0` in a namespace with the interfaces `a` and `b`; its data plane and its run directory.
fn with_bond(name: &str, body: impl FnOnce(&mut Change<'_>, &ScriptPlane, &std::path::Path) + Send + 'static) {
    let dir = std::env::temp_dir().join(format!("bondd-instances-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    in_netns(move || {
        let plane = ScriptPlane::default();
        let mut links = RouteSocket::open().unwrap();
        links.add_veth("a", "b").unwrap();
        for name in ["a", "b"] {
            let link = links.by_name(name).unwrap().unwrap();
            plane.set_port(PortId(link.ifindex), link.report);
        }
        let mut desk = desk(&dir, vec![Box::new(plane.clone())]);
        {
            let mut instances = change(&mut desk);
            instances.add("bond0", &[("mode".to_owned(), "1".to_owned())]).unwrap();
            body(&mut instances, &plane, &dir);
        }
        // Its last files are written by then.
        drop(desk);
        fs::remove_dir_all(&dir).unwrap();
    });
}

fn attach(instances: &mut Change<'_>, port: &str) -> Result<serde_json::Value, crate::control::proto::ControlError> {
    instances.call(&Call::PortAttach {
        bond: "bond0".to_owned(),
        port: port.to_owned(),
    })
}

/// Lets the bond's traffic be moved apart from the rest of a plan.
fn give_traffic(instances: &mut Change<'_>, plane: &ScriptPlane) {
    plane.give_traffic();
    let instance = &mut instances.bonds[0];
    instance.traffic = instance.plane.with(&mut Tests, |plane| plane.traffic());
}

/// Sets the bond's interface up, which the script's bond has not.
fn set_up(instances: &mut Change<'_>) {
    let mut report = instances.bonds[0].devices.values().next().unwrap().report.clone();
    report.name = "bond0".to_owned();
    report.mac = instances.bonds[0].bond.plan().mac;
    report.admin_up = true;
    instances.feed(FIRST, Event::BondLink { report });
}

/// Gives the instances the picture of the interfaces and nothing else.
fn look_around(instances: &mut Change<'_>) {
    let (links, addresses) = (
        instances.tools().links.all().unwrap(),
        instances.tools().links.addresses().unwrap(),
    );
    instances.host.begin_reading();
    instances.host.finish_reading(links, addresses);
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn events_from_before_a_reading_of_everything_take_no_port_down() {
    with_bond("overrun", |instances, _, _| {
        instances
            .set("bond0", &[("miimon".to_owned(), "100".to_owned())])
            .unwrap();
        ip("link set dev a up");
        ip("link set dev b up");
        let carrier = || {
            let link = RouteSocket::open().unwrap().by_name("a").unwrap().unwrap();
            link.report.carrier.is_on() && link.in_service
        };
        until("a has carrier", carrier);
        attach(instances, "a").unwrap();
        // The script's bond is no interface.
        ip("link add c type veth peer name d");
        ip("link set dev c up");
        instances.bonds[0].ifindex = instances.tools().links.by_name("c").unwrap().unwrap().ifindex;
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        let port = |instances: &Change<'_>| {
            let port = instances.bonds[0].bond.ports().named("a").unwrap();
            (port.carrier().is_on(), port.failures)
        };
        assert_eq!(port(instances), (true, 0));
        // The loss of carrier is queued, its end is lost.
        ip("link set dev b down");
        until("a has lost it", || !carrier());
        instances.events.shrink();
        for turn in 0..64 {
            instances.tools().links.set_alias(1, &format!("turn {turn}")).unwrap();
        }
        ip("link set dev b up");
        until("a has it again", carrier);
        while instances.read_links(NOW, 64) == crate::netlink::Drained::More {}
        assert_eq!(port(instances), (true, 0));
        // What comes later is heard.
        ip("link set dev b down");
        until("a has lost it", || !carrier());
        instances.read_links(NOW, 1024);
        instances.settle(NOW);
        assert_eq!(port(instances), (false, 1));
    });
}

#[test]
fn interfaces_that_could_not_be_read_after_an_overrun_are_read_later() {
    with_bond("resync", |instances, _, _| {
        asks::fail_at(0);
        instances.resync();
        instances.settle(NOW);
        let again = instances.poll_timeout().unwrap();
        assert!(again <= NOW + Duration::from_secs(1), "{again:?}");
        let before = asks::made();
        instances.handle_timeout(again);
        assert!(asks::made() > before, "they are read");
        assert_ne!(instances.poll_timeout(), Some(again));
    });
}

fn refusal() -> PlaneError {
    PlaneError::Kernel {
        doing: "attach a program".to_owned(),
        source: std::io::ErrorKind::ResourceBusy.into(),
    }
}

fn attempts(plane: &ScriptPlane) -> usize {
    let calls = plane.take_calls().into_iter();
    calls.filter(|call| matches!(call, script::Call::Attach(..))).count()
}

#[test]
fn files_follow_while_arp_candidates_take_turns() {
    with_bond("turns", |instances, _, dir| {
        let options = [("arp_interval", "100"), ("arp_ip_target", "10.0.0.2"), ("miimon", "0")];
        let options: Vec<_> = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        instances.set("bond0", &options).unwrap();
        for command in [
            "set dev a up",
            "set dev b up",
            "add c type veth peer name d",
            "set dev c up",
            "set dev d up",
        ] {
            ip(&format!("link {command}"));
        }
        ip("addr add 10.0.0.1/24 dev c");
        let carrier = |name| {
            RouteSocket::open()
                .unwrap()
                .by_name(name)
                .unwrap()
                .unwrap()
                .report
                .carrier
        };
        until("carrier", || ["a", "b", "c"].iter().all(|name| carrier(name).is_on()));
        attach(instances, "a").unwrap();
        attach(instances, "b").unwrap();
        set_up(instances);
        // The script's bond is no interface.
        instances.bonds[0].ifindex = instances.tools().links.by_name("c").unwrap().unwrap().ifindex;
        look_around(instances);
        instances.publish_all(NOW);
        let release = nix::sys::utsname::uname()
            .unwrap()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut shown = std::collections::BTreeSet::new();
        let mut now = NOW;
        for _ in 0..40 {
            now = now + Duration::from_millis(100);
            instances.handle_timeout(now);
            instances.publish_all(now);
            let file = fs::read_to_string(dir.join("proc/net/bonding/bond0")).unwrap();
            let report = instances.report(now, FIRST, Counters::Read);
            let wanted = crate::status::procfs::render(&report, instances.bonds[0].bond.options(), &release);
            assert_eq!(file, wanted, "after {:?}", now.since(NOW));
            shown.insert(file);
        }
        assert!(shown.len() > 2, "the candidates take turns: {shown:#?}");
    });
}

#[test]
fn a_driver_that_reports_no_link_is_a_warning_to_the_caller_and_a_mark_in_show() {
    with_bond("no-report", |instances, plane, _| {
        ip("link add f type ifb");
        let link = instances.tools().links.by_name("f").unwrap().unwrap();
        plane.set_port(PortId(link.ifindex), link.report);
        ip("link set dev f up");
        let options = [("miimon", "100"), ("use_carrier", "0")];
        let options: Vec<_> = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        instances.set("bond0", &options).unwrap();
        let answer = attach(instances, "f").unwrap();
        let warnings = answer["warnings"].as_array().unwrap();
        let said = |words: &str| warnings.iter().any(|text| text.as_str().unwrap().contains(words));
        assert!(said("MII and ETHTOOL support not available"), "{warnings:?}");
        assert!(
            said("fail_over_mac to active"),
            "an ifb keeps its address: {warnings:?}"
        );
        assert!(instances.report(NOW, FIRST, Counters::Read).ports[0].notes.unmonitored);
        assert_eq!(
            attach(instances, "a").unwrap().get("warnings"),
            None,
            "a veth says what it has"
        );
        assert!(!instances.report(NOW, FIRST, Counters::Read).ports[1].notes.unmonitored);
        let carrier = [("use_carrier".to_owned(), "1".to_owned())];
        instances.set("bond0", &carrier).unwrap();
        assert!(!instances.report(NOW, FIRST, Counters::Read).ports[0].notes.unmonitored);
    });
}

#[test]
fn a_port_that_cannot_change_its_address_is_taken_or_refused_as_by_the_kernels_driver() {
    with_bond("fixed", |instances, plane, _| {
        ip("link add f type ifb");
        let link = instances.tools().links.by_name("f").unwrap().unwrap();
        plane.set_port(PortId(link.ifindex), link.report);
        attach(instances, "a").unwrap();
        let refused = attach(instances, "f").unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadPort);
        assert!(refused.message.contains("fail_over_mac is not active"), "{refused}");
        assert_eq!(instances.bonds[0].bond.options().fail_over_mac.name(), "none");
        instances.port_detach("bond0", "a").unwrap();
        for mode in ["0", "2", "3"] {
            instances.set("bond0", &[("mode".to_owned(), mode.to_owned())]).unwrap();
            let refused = attach(instances, "f").unwrap_err();
            assert!(refused.message.contains("cannot change its address"), "{refused}");
        }
        instances.set("bond0", &[("mode".to_owned(), "1".to_owned())]).unwrap();
        attach(instances, "f").unwrap();
        assert_eq!(instances.bonds[0].bond.options().fail_over_mac.name(), "active");
        attach(instances, "a").unwrap();
    });
}

#[test]
fn a_bond_that_cannot_be_deleted_is_an_error_and_forgotten_with_its_ports() {
    with_bond("destroy", |instances, plane, _| {
        attach(instances, "a").unwrap();
        let source = std::io::ErrorKind::ResourceBusy.into();
        let doing = "delete the interface bond0".to_owned();
        // The first call gives the port back.
        plane.fail_at(1, PlaneError::Kernel { doing, source });
        let bond = "bond0".to_owned();
        let error = instances.call(&Call::Del { bond }).unwrap_err();
        assert!(error.message.contains("delete the interface"), "{error}");
        assert!(instances.planes_in_use().is_empty());
    });
}

#[test]
fn a_bond_whose_file_was_not_read_stays_and_one_whose_file_does_not_name_it_goes() {
    with_bond("files", |instances, _, dir| {
        let file = dir.join("bonds.conf");
        fs::write(&file, "").unwrap();
        let source = config::Source {
            path: file.clone(),
            text: "alias bond1 bonding\noptions bond1 mode=1\nalias bond0 bonding\noptions bond0 mode=1\n".to_owned(),
            grammar: config::Grammar::Own,
        };
        let parsed = config::parse(&[source], &config::NoFiles, &check_options);
        for spec in &parsed.bonds {
            instances.ensure(spec);
        }
        let names = |instances: &Change<'_>| {
            instances
                .bonds
                .iter()
                .map(|instance| instance.name.clone())
                .collect::<Vec<_>>()
        };
        instances.files.clone_from(&parsed.files);
        instances.start_over(&parsed.bonds);
        instances.files.clear();
        instances.start_over(&[]);
        assert_eq!(
            names(instances),
            ["bond0", "bond1"],
            "the file is there and was not read"
        );
        instances.files = parsed.files;
        instances.start_over(&[]);
        assert_eq!(names(instances), ["bond0"], "no file made bond0");
        assert_eq!(instances.bonds[0].configured, None);
    });
}

fn programs(plane: &ScriptPlane) -> usize {
    let calls = plane.take_calls().into_iter();
    calls.filter(|call| matches!(call, script::Call::Program(..))).count()
}

#[test]
fn a_port_is_not_taken_in_unless_what_it_was_is_saved() {
    with_bond("save", |instances, plane, dir| {
        let file = dir.join("state/bond0.json");
        fs::create_dir_all(file.join("in the way")).unwrap();
        let error = attach(instances, "a").unwrap_err();
        assert!(error.message.contains("cannot save"), "{error}");
        assert!(plane.plan("bond0").unwrap().ports.is_empty());
        fs::remove_dir_all(&file).unwrap();
        attach(instances, "a").unwrap();
    });
}

#[test]
fn a_question_that_fails_changes_nothing_about_how_targets_are_reached() {
    with_bond("paths", |instances, _, _| {
        // The script's bond is no interface.
        ip("link set dev a up");
        ip("addr add 10.0.0.1/24 dev a");
        instances.bonds[0].ifindex = instances.tools().links.by_name("a").unwrap().unwrap().ifindex;
        look_around(instances);
        let targets = ["10.0.0.2".parse().unwrap()];
        asks::fail_at(0);
        assert_eq!(instances.find_paths(FIRST, &targets), None);
        let found = instances.find_paths(FIRST, &targets);
        let through = |path: &TargetPath| matches!(&path.reach, Reach::Through { source, .. } if source.is_some());
        assert!(
            matches!(&found, Some(Event::Paths { paths }) if paths.iter().all(through)),
            "{found:?}"
        );
    });
}

#[test]
fn a_port_that_cannot_be_read_hides_none_of_the_others() {
    with_bond("heard", |instances, plane, _| {
        attach(instances, "a").unwrap();
        attach(instances, "b").unwrap();
        plane.take_calls();
        match instances.read_receive_stamps(FIRST) {
            Event::ReceiveStamps { ports } => {
                let never = |(_, stamps): &(PortId, ReceiveStamps)| *stamps == ReceiveStamps::default();
                assert!(ports.len() == 2 && ports.iter().all(never), "{ports:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            plane.take_calls(),
            [],
            "without traffic of its own the plane is not asked"
        );
        give_traffic(instances, plane);
        let source = std::io::ErrorKind::NotFound.into();
        let doing = "read the stamps".to_owned();
        plane.fail_at(0, PlaneError::Kernel { doing, source });
        let second = PortId(instances.tools().links.by_name("b").unwrap().unwrap().ifindex);
        let reported = |event| match event {
            Event::ReceiveStamps { ports } => ports.into_iter().map(|(port, _)| port).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reported(instances.read_receive_stamps(FIRST)), [second]);
        assert_eq!(reported(instances.read_receive_stamps(FIRST)).len(), 2);

        let unreadable = || PlaneError::Kernel {
            doing: "read the counters".to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        plane.fail_at(0, unreadable());
        let reported = |event| match event {
            Event::Counters { ports } => ports.into_keys().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reported(instances.counters_for_mode(FIRST).unwrap()), [second]);
        assert_eq!(reported(instances.counters_for_mode(FIRST).unwrap()).len(), 2);

        plane.fail_at(0, unreadable());
        let ports = instances.report(NOW, FIRST, Counters::Read).ports;
        let counted: Vec<_> = ports
            .iter()
            .map(|port| port.counters.map(|counters| counters.rx_frames))
            .collect();
        assert_eq!(counted, [None, Some(0)], "null where unknown");
    });
}
