//! Whole turns of the loop, with real link events and clients, on a scripted data plane that records its calls.

mod start;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use bond_modes::PortId;
use bond_modes::plan::Tx;
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::*;
use crate::control::SOCKET;
use crate::dataplane::Planes;
use crate::dataplane::script::{self, ScriptPlane};
use crate::instances::{Tools, kinds};
use crate::netlink::RouteSocket;
use crate::netlink::tests::{in_netns, ip};
use crate::status::writer::STUCK_LIMIT;
use crate::threads::Threads;

/// Bonds, each with [`PORTS`] ports.
const BONDS: usize = 12;
const PORTS: usize = 4;

/// For what happens within some turns, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(30);

const SHOW: &str = "{\"id\":1,\"call\":\"show\"}\n";

/// An agent in a namespace of its own, and its clients.
struct AgentUnderTest {
    agent: Agent,
    plane: ScriptPlane,
    dir: PathBuf,
    ready: mio::Events,
}

/// What the data plane was asked in one turn.
struct Turn(Vec<script::Call>);

impl Turn {
    /// How many ports were read for readers.
    fn shown(&self) -> usize {
        let counters = |call: &&script::Call| matches!(call, script::Call::Counters(..));
        self.0.iter().filter(counters).count()
    }

    /// The place of the last call that programs a bond.
    fn programs(&self, bond: &str) -> Option<usize> {
        let programs = |call: &script::Call| matches!(call, script::Call::Program(name, _) if name == bond);
        self.0.iter().rposition(programs)
    }
}

impl AgentUnderTest {
    /// Ports of `bond3` are `p3-0`, `p3-1`, ...; they lead to `q3-0`, `q3-1`, ...
    fn new(name: &str) -> AgentUnderTest {
        let dir = std::env::temp_dir().join(format!("bondd-run-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let plane = ScriptPlane::default();
        plane.make_bonds_up();
        let mut links = RouteSocket::open().unwrap();
        let poll = Poll::new().unwrap();
        let mut desk = desk(&poll, &dir, &plane);
        let names = (0..BONDS).flat_map(|bond| (0..PORTS).map(move |port| (bond, port)));
        for (bond, port) in names.clone() {
            let [near, far] = ["p", "q"].map(|end| format!("{end}{bond}-{port}"));
            links.add_veth(&near, &far).unwrap();
            for end in [&far, &near] {
                let link = links.by_name(end).unwrap().unwrap();
                links.set_up(link.ifindex, true).unwrap();
            }
            let link = links.by_name(&near).unwrap().unwrap();
            plane.set_port(PortId(link.ifindex), link.report);
        }
        let mut call = |call: Call| desk.change().call(&call).unwrap();
        for bond in 0..BONDS {
            // Carrier is polled so seldom that link events come first.
            let options = [("mode", "active-backup"), ("miimon", "60000")];
            call(Call::Add {
                bond: format!("bond{bond}"),
                options: options
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec(),
            });
        }
        for (bond, port) in names {
            call(Call::PortAttach {
                bond: format!("bond{bond}"),
                port: format!("p{bond}-{port}"),
            });
        }
        let agent = agent(poll, desk, &dir);
        let ready = mio::Events::with_capacity(64);
        let mut world = AgentUnderTest {
            agent,
            plane,
            dir,
            ready,
        };
        // What was set up above comes as link events.
        while world.link_event_waits(0) {
            world.turn();
        }
        world
    }

    /// Gives every bond an interface, without which a start finds it gone; starts another agent in place of this one.
    fn start_again(&mut self) {
        self.agent.instances.lock().publish_all(clock::now());
        self.replace_agent();
    }

    /// As [`AgentUnderTest::start_again`], for an agent that was stopped.
    fn replace_agent(&mut self) {
        let names: Vec<String> = (0..BONDS).map(|bond| format!("bond{bond}")).collect();
        for name in &names {
            let index = self.plane.device(name);
            ip(&format!("link add {name} index {index} up type veth peer name w{name}"));
        }
        let poll = Poll::new().unwrap();
        let mut desk = desk(&poll, &self.dir, &self.plane);
        desk.change().begin_start(&[], &[]).unwrap();
        self.agent = agent(poll, desk, &self.dir);
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(self.dir.join(SOCKET)).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }

    fn turn(&mut self) -> Turn {
        self.plane.take_calls();
        self.agent.next_turn(&mut self.ready, Some(Duration::ZERO)).unwrap();
        Turn(self.plane.take_calls())
    }

    /// Turns until this holds.
    #[track_caller]
    fn turn_until(&mut self, what: &str, mut holds: impl FnMut(&mut Agent) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !holds(&mut self.agent) {
            assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
            self.turn();
        }
    }

    /// Waits for a link event, at most so many milliseconds; whether there is one.
    fn link_event_waits(&self, limit: u16) -> bool {
        // SAFETY: `Instances` keeps its socket open for as long as it lives.
        let events = unsafe { BorrowedFd::borrow_raw(self.agent.instances.lock().link_events()) };
        poll(&mut [PollFd::new(events, PollFlags::POLLIN)], limit).unwrap() > 0
    }

    /// The active port of a bond by the plan in force.
    fn sends_through(&self, bond: &str) -> Tx {
        self.plane.plan(bond).unwrap().tx
    }
}

fn desk(poll: &Poll, dir: &Path, plane: &ScriptPlane) -> Desk {
    let registry = poll.registry().try_clone().unwrap();
    let mut planes = Planes::new(vec![Box::new(plane.clone())]);
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

fn agent(poll: Poll, desk: Desk, dir: &Path) -> Agent {
    let server = Server::bind(&dir.join(SOCKET), poll.registry(), CONTROL).unwrap();
    let instances = Arc::clone(&desk.instances);
    Agent::new(
        poll,
        Signals::none().unwrap(),
        server,
        instances,
        Changer::at_once(desk),
    )
    .unwrap()
}

impl Drop for AgentUnderTest {
    fn drop(&mut self) {
        self.agent.instances.lock().publish_all(clock::now());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Appends what has come to `answers`; how many are complete.
fn receive(client: &mut UnixStream, answers: &mut Vec<u8>) -> usize {
    let mut piece = [0; 65536];
    loop {
        match client.read(&mut piece) {
            Ok(0) => panic!("the agent closed a connection"),
            Ok(n) => answers.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return answers.iter().filter(|&&byte| byte == b'\n').count();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn readers_get_a_limited_part_of_each_turn_and_all_of_their_answers() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("readers");
        world.agent.share_of_readers = Duration::ZERO;
        const ASKED: usize = 3;
        let mut readers: Vec<_> = (0..8).map(|_| (world.connect(), Vec::new())).collect();
        for (client, _) in &mut readers {
            client.write_all(SHOW.repeat(ASKED).as_bytes()).unwrap();
        }
        let (mut shown, mut turns) = (0, 0);
        while readers
            .iter_mut()
            .any(|(client, answers)| receive(client, answers) < ASKED)
        {
            let turn = world.turn();
            turns += 1;
            shown += turn.shown();
            let counts: Vec<usize> = readers
                .iter_mut()
                .map(|(client, answers)| receive(client, answers))
                .collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "unfair: {counts:?}");
        }
        assert_eq!(shown, 8 * ASKED * BONDS * PORTS);
        assert!(turns >= 8 * ASKED * BONDS, "more than one bond in a turn");
        for (_, answers) in readers {
            for line in String::from_utf8(answers).unwrap().lines() {
                let answer: Value = serde_json::from_str(line).unwrap();
                let bonds = answer["ok"]["bonds"].as_array().unwrap();
                let names: Vec<_> = bonds.iter().map(|bond| bond["name"].as_str().unwrap()).collect();
                assert_eq!(names, (0..BONDS).map(|n| format!("bond{n}")).collect::<Vec<_>>());
                assert!(
                    bonds
                        .iter()
                        .all(|bond| bond["ports"].as_array().unwrap().len() == PORTS)
                );
                assert!(bonds.iter().all(|bond| bond["ports"][0]["rx_frames"] == 0));
            }
        }
        // One more look at each of them finds nothing, and the loop sleeps.
        for _ in 0..2 {
            assert_eq!(world.turn().shown(), 0);
        }
        assert_ne!(world.agent.wait(), Some(Duration::ZERO));
    });
}

#[test]
fn a_failover_waits_for_no_reader() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("failover");
        let mut readers: Vec<_> = (0..8).map(|_| (world.connect(), Vec::new())).collect();
        for (client, _) in &mut readers {
            client.write_all(SHOW.repeat(32).as_bytes()).unwrap();
        }
        for bond in ["bond0", "bond7", "bond11"] {
            while world.turn().shown() == 0 {}
            let before = world.sends_through(bond);
            ip(&format!("link set {}-0 down", bond.replace("bond", "q")));
            // The event that tells of the carrier may have others before it. It comes while a turn is under way, at worst at its
            // start: so a failover waits for what is left of that turn.
            let moved = loop {
                assert!(world.link_event_waits(5000), "{bond} is still on {before:?}");
                let turn = world.turn();
                for (client, answers) in &mut readers {
                    receive(client, answers);
                }
                if world.sends_through(bond) != before {
                    break turn;
                }
            };
            let programmed = moved.programs(bond).unwrap();
            assert_eq!(Turn(moved.0[..programmed].to_vec()).shown(), 0, "readers came first");
            assert!(world.agent.showing.is_some(), "no reader was waiting");
        }
    });
}

#[test]
fn a_change_comes_after_all_link_events_that_are_older() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("older");
        let before = world.sends_through("bond5");
        let (mut client, mut answers) = (world.connect(), Vec::new());
        client
            .write_all(b"{\"id\":2,\"call\":\"active\",\"bond\":\"bond5\",\"port\":\"p5-3\"}\n")
            .unwrap();
        world.turn_until("the request is read", |agent| agent.server.has_changes());
        // Its event is there when this returns, unlike that of a pulled cable.
        ip("link set p5-3 down");
        world.turn_until("the change is answered", |_| receive(&mut client, &mut answers) == 1);
        let answer: Value = serde_json::from_slice(&answers).unwrap();
        assert!(
            answer["error"]["message"].as_str().unwrap().contains("link"),
            "{answer}"
        );
        assert_eq!(world.sends_through("bond5"), before);
    });
}

#[test]
fn a_change_does_not_wait_for_the_readers_before_it() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("change");
        let mut readers: Vec<_> = (0..8).map(|_| world.connect()).collect();
        for client in &mut readers {
            client.write_all(SHOW.repeat(16).as_bytes()).unwrap();
        }
        while world.turn().shown() == 0 {}
        let link = RouteSocket::open().unwrap().by_name("p5-3").unwrap().unwrap();
        let chosen = Tx::one(Some(PortId(link.ifindex)));
        let (mut root, mut answers) = (world.connect(), Vec::new());
        root.write_all(b"{\"id\":2,\"call\":\"active\",\"bond\":\"bond5\",\"port\":\"p5-3\"}\n")
            .unwrap();
        let mut turns = 0;
        while world.sends_through("bond5") != chosen {
            world.turn();
            assert!(world.agent.showing.is_some(), "readers are served meanwhile");
            turns += 1;
        }
        // One to accept it, one to read it, one to make the change.
        assert!(turns <= 3, "{turns} turns");
        while receive(&mut root, &mut answers) == 0 {
            // However slow the machine is.
            for answer in &mut world.agent.unpublished {
                answer.limit = clock::now() + Duration::from_secs(60);
            }
            world.turn();
        }
        let file = world.dir.join("proc/net/bonding/bond5");
        let shown = fs::read_to_string(file).unwrap();
        assert!(shown.contains("Currently Active Slave: p5-3\n"), "{shown}");
        assert_eq!(answers, b"{\"id\":2,\"ok\":{}}\n");
    });
}

#[test]
fn a_disk_that_does_not_answer_holds_up_no_failover_and_no_client_for_long() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("disk");
        world.agent.instances.lock().publish_all(clock::now());
        world.agent.instances.lock().hold_files(true);
        let state = world.dir.join("state/bond0.json");
        let saved = fs::read_to_string(&state).unwrap();
        let before = world.sends_through("bond0");
        ip("link set q0-0 down");
        while world.sends_through("bond0") == before {
            assert!(world.link_event_waits(5000), "bond0 is still on {before:?}");
            world.turn();
        }
        let (mut root, mut answers) = (world.connect(), Vec::new());
        let change = b"{\"id\":2,\"call\":\"active\",\"bond\":\"bond5\",\"port\":\"p5-3\"}\n";
        root.write_all(change).unwrap();
        world.turn_until("the change is made and waits for the files", |agent| {
            // The turn took longer than a client waits: the machine is busy.
            if receive(&mut root, &mut answers) > 0 {
                answers.clear();
                root.write_all(change).unwrap();
            }
            !agent.unpublished.is_empty()
        });
        let limit = &mut world.agent.unpublished[0].limit;
        assert!(*limit <= clock::now() + CLIENT_LIMIT);
        *limit = clock::now() + 2 * LIMIT;
        // Another client is not held up by it.
        let (mut other, mut shown) = (world.connect(), Vec::new());
        other.write_all(SHOW.as_bytes()).unwrap();
        world.turn_until("the other one has its answer", |_| receive(&mut other, &mut shown) > 0);
        assert_eq!(receive(&mut root, &mut answers), 0);
        world.turn_until("the loop comes to rest", |agent| agent.wait() != Some(Duration::ZERO));
        world.agent.unpublished[0].limit = clock::now() + CLIENT_LIMIT;
        let wait = world.agent.wait();
        assert!(wait.is_some_and(|wait| wait <= CLIENT_LIMIT), "{wait:?}");
        world.agent.unpublished[0].limit = Time::ZERO;
        world.turn();
        assert_eq!(receive(&mut root, &mut answers), 1);
        let answer: Value = serde_json::from_slice(&answers).unwrap();
        let told: Vec<&str> = crate::control::proto::warnings(&answer["ok"]).collect();
        assert_eq!(
            told,
            ["the change is in force, but the status files do not show it yet"]
        );
        assert_eq!(fs::read_to_string(&state).unwrap(), saved, "the loop wrote it");
        world.agent.instances.lock().hold_files(false);
        world.agent.instances.lock().publish_all(clock::now());
        assert_ne!(fs::read_to_string(&state).unwrap(), saved);
    });
}

#[test]
fn a_stop_on_a_disk_that_does_not_answer_takes_a_few_seconds_in_all() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("stop");
        world.agent.instances.lock().publish_all(clock::now());
        world.agent.instances.lock().hold_files(true);
        let release = world.agent.instances.lock().files_releaser();
        ip("link set q0-0 down");
        assert!(world.link_event_waits(5000));
        while world.link_event_waits(0) {
            world.turn();
        }
        // A cable is pulled in the middle of the stop.
        let plane = world.plane.clone();
        plane.take_calls();
        let netns = fs::File::open("/proc/thread-self/ns/net").unwrap();
        let pulled = thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            thread::sleep(STUCK_LIMIT / 3);
            ip("link set q1-0 down");
        });
        // A change that comes too late waits, and nobody turns round and round for it.
        let mut late = world.connect();
        late.write_all(b"{\"id\":1,\"call\":\"set\",\"bond\":\"bond2\",\"options\":[[\"updelay\",\"1\"]]}\n")
            .unwrap();
        let worked = clock::worked();
        let began = Instant::now();
        world.agent.stop(&mut mio::Events::with_capacity(16), |_| {}).unwrap();
        let worked = clock::worked() - worked;
        assert!(worked < STUCK_LIMIT / 6, "{worked:?} of work");
        pulled.join().unwrap();
        let moved = |call: &script::Call| matches!(call, script::Call::Program(bond, _) if bond == "bond1");
        assert!(plane.take_calls().iter().any(moved), "nobody moved its traffic");
        world.replace_agent();
        let took = began.elapsed();
        assert!(took >= STUCK_LIMIT, "{took:?}: nothing was to be written");
        assert!(took < STUCK_LIMIT + Duration::from_secs(2), "{took:?}");
        release();
    });
}

#[test]
fn readers_cannot_keep_the_agent_busy_with_examinations_of_the_kernel() {
    let millis = Duration::from_millis;
    assert_eq!(
        [0, 5, 50, 900].map(|took| pause_after(millis(took))),
        [100, 100, 450, 1_000].map(millis)
    );
    in_netns(|| {
        let mut world = AgentUnderTest::new("doctor");
        let mut readers: Vec<_> = (0..4).map(|_| (world.connect(), Vec::new())).collect();
        for (client, _) in &mut readers {
            client
                .write_all(b"{\"id\":3,\"call\":\"doctor\",\"options\":[]}\n")
                .unwrap();
        }
        let (mut other, mut shown) = (world.connect(), Vec::new());
        other.write_all(SHOW.as_bytes()).unwrap();
        let examinations = |turn: Turn| {
            let examines = |call: &&script::Call| matches!(call, script::Call::Probe);
            turn.0.iter().filter(examines).count()
        };
        let answered = |readers: &mut Vec<(UnixStream, Vec<u8>)>| -> usize {
            readers
                .iter_mut()
                .map(|(client, answers)| receive(client, answers))
                .sum()
        };
        let of_one = loop {
            match examinations(world.turn()) {
                0 => {}
                made => break made,
            }
        };
        for done in 1..=readers.len() {
            let answering = world.turn();
            assert_eq!(examinations(answering), 0, "one at a time");
            // As if the last one had taken some minutes.
            world.agent.next_examination = clock::now() + Duration::from_secs(3600);
            for _ in 0..4 {
                assert_eq!(examinations(world.turn()), 0, "the next one waits");
            }
            assert_eq!(answered(&mut readers), done);
            let limit = clock::now() + Duration::from_secs(10);
            while receive(&mut other, &mut shown) == 0 {
                assert!(clock::now() < limit, "others wait");
                assert_eq!(examinations(world.turn()), 0);
            }
            while world.agent.wait() == Some(Duration::ZERO) {
                assert!(clock::now() < limit, "the loop does not come to rest");
                assert_eq!(examinations(world.turn()), 0);
            }
            if done < readers.len() {
                world.agent.next_examination = clock::now() + Duration::from_secs(1);
                let wait = world.agent.wait();
                assert!(wait.is_some_and(|wait| wait <= Duration::from_secs(1)), "{wait:?}");
                world.agent.next_examination = Time::ZERO;
                assert_eq!(examinations(world.turn()), of_one);
            }
        }
    });
}

/// Whether ports that are attached have to wait.
static HELD: AtomicBool = AtomicBool::new(false);

fn wait_while_held(_: PortId) {
    let limit = Instant::now() + LIMIT;
    while HELD.load(Ordering::SeqCst) && Instant::now() < limit {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn no_failover_and_no_reader_waits_for_a_change_that_waits_for_the_kernel() {
    in_netns(|| {
        let mut world = AgentUnderTest::new("waits");
        let mut links = RouteSocket::open().unwrap();
        links.add_veth("more", "far").unwrap();
        let link = links.by_name("more").unwrap().unwrap();
        world.plane.set_port(PortId(link.ifindex), link.report);
        while world.link_event_waits(0) {
            world.turn();
        }
        world.plane.set_attaching(wait_while_held);
        let waker = Arc::new(mio::Waker::new(world.agent.poll.registry(), ANSWERS).unwrap());
        let mut desk = desk(&world.agent.poll, &world.dir.join("unused"), &world.plane);
        desk.instances = Arc::clone(&world.agent.instances);
        world.agent.changer = Changer::start(desk, move || waker.wake()).unwrap();
        HELD.store(true, Ordering::SeqCst);
        let (mut root, mut answers) = (world.connect(), Vec::new());
        root.write_all(b"{\"id\":2,\"call\":\"port-attach\",\"bond\":\"bond5\",\"port\":\"more\"}\n")
            .unwrap();
        let (mut other, mut next) = (world.connect(), Vec::new());
        world.turn_until("the change has begun", |agent| agent.changing.is_some());
        other
            .write_all(b"{\"id\":3,\"call\":\"active\",\"bond\":\"bond6\",\"port\":\"p6-1\"}\n")
            .unwrap();
        for bond in ["bond0", "bond11"] {
            let before = world.sends_through(bond);
            ip(&format!("link set {}-0 down", bond.replace("bond", "q")));
            let plane = world.plane.clone();
            world.turn_until("it fails over", |_| plane.plan(bond).unwrap().tx != before);
        }
        let (mut reader, mut shown) = (world.connect(), Vec::new());
        reader.write_all(SHOW.as_bytes()).unwrap();
        world.turn_until("the reader is answered", |_| receive(&mut reader, &mut shown) > 0);
        assert_eq!(receive(&mut root, &mut answers), 0, "the kernel has not answered");
        assert_eq!(receive(&mut other, &mut next), 0, "one change at a time");
        assert!(HELD.swap(false, Ordering::SeqCst));
        world.turn_until("the change is made", |_| receive(&mut root, &mut answers) > 0);
        let answer = String::from_utf8(answers).unwrap();
        assert!(answer.starts_with("{\"id\":2,\"ok\":"), "{answer}");
        world.turn_until("the next one is made", |_| receive(&mut other, &mut next) > 0);
    });
}
