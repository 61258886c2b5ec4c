//! Real sockets in one thread: a client's input has arrived when the server polls, so tests need no waiting and have no races.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::iter;
use std::os::unix::net as blocking;
use std::path::PathBuf;
use std::time::Duration;

use bond_modes::Notice;
use mio::{Events, Poll};

use super::*;
use crate::control::proto::BondEvent;

const FIRST: usize = 100;

struct World {
    poll: Poll,
    server: Server,
    dir: PathBuf,
}

impl World {
    fn new(name: &str) -> World {
        let dir = std::env::temp_dir().join(format!("bondd-server-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let poll = Poll::new().unwrap();
        let server = Server::bind(&dir.join("control.sock"), poll.registry(), FIRST).unwrap();
        World { poll, server, dir }
    }

    fn connect(&mut self) -> blocking::UnixStream {
        let stream = blocking::UnixStream::connect(self.dir.join("control.sock")).unwrap();
        stream.set_nonblocking(true).unwrap();
        self.settle();
        stream
    }

    /// A client that is not allowed to change anything.
    fn connect_reader(&mut self) -> blocking::UnixStream {
        let (ours, theirs) = blocking::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let peer = Peer {
            uid: 1000,
            may_change: false,
        };
        let stream = UnixStream::from_std(theirs);
        self.server.admit(self.poll.registry(), stream, peer).unwrap();
        ours
    }

    /// Runs one turn of the loop and returns the requests.
    fn turn(&mut self) -> Vec<Request> {
        self.listen();
        let mut requests: Vec<Request> = iter::from_fn(|| self.server.next_change()).collect();
        requests.extend(iter::from_fn(|| self.server.next_read()));
        requests
    }

    /// Runs the part of a turn that takes no requests.
    fn listen(&mut self) {
        let mut events = Events::with_capacity(256);
        self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        for event in &events {
            assert!(self.server.owns(event.token()));
            self.server.ready(event.token());
        }
        self.server.converse(self.poll.registry());
    }

    /// Runs turns until there is no more work, answers `"ok"` and subscribes like the agent; returns the number of requests.
    fn settle(&mut self) -> usize {
        let mut count = 0;
        // Two turns without a request: an answer of the first may cause an event for the second.
        let mut quiet = 0;
        while quiet < 2 {
            let requests = self.turn();
            quiet = if requests.is_empty() && !self.server.has_work() {
                quiet + 1
            } else {
                0
            };
            count += requests.len();
            for request in requests {
                self.server.answer(request.client, &request.id, Ok(json!("ok")));
                if let Call::Monitor { bond } = request.call {
                    self.server.subscribe(request.client, bond);
                }
            }
        }
        count
    }

    /// Sends a line and returns the answer.
    fn ask(&mut self, client: &mut blocking::UnixStream, line: &str) -> Value {
        client.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.settle();
        let lines = received(client);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.into_iter().next().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Every line that waits to be read.
fn received(client: &mut blocking::UnixStream) -> Vec<Value> {
    parsed(received_bytes(client))
}

fn parsed(bytes: Vec<u8>) -> Vec<Value> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "cut in mid-line: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn received_bytes(client: &mut blocking::UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match client.read(&mut chunk) {
            Ok(0) => return bytes,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return bytes,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return bytes,
            Err(e) => panic!("{e}"),
        }
    }
}

/// Whether the server has closed its end.
fn closed(client: &mut blocking::UnixStream) -> bool {
    match client.read(&mut [0; 1]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
    }
}

fn event(bond: &str, text: &str) -> EventLine {
    EventLine {
        event: BondEvent {
            time: 0.5,
            bond: bond.to_owned(),
            text: text.to_owned(),
            notice: Notice::warning(bond_modes::Warning::Unmonitored),
        },
    }
}

const LIST: &str = r#"{"id":1,"call":"list"}"#;
const ADD: &str = r#"{"id":2,"call":"add","bond":"bond0"}"#;
const MONITOR: &str = r#"{"id":3,"call":"monitor"}"#;

fn code(answer: &Value) -> &str {
    answer["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no error in {answer}"))
}

#[test]
fn a_request_reaches_the_caller_and_the_answer_repeats_its_id() {
    let mut world = World::new("answer");
    let mut client = world.connect();
    client
        .write_all(b"{\"id\":{\"any\":1},\"call\":\"show\",\"bond\":\"bond0\"}\n")
        .unwrap();
    let requests = world.turn();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].call,
        Call::Show {
            bond: Some("bond0".to_owned())
        }
    );
    let (to, id) = (requests[0].client, requests[0].id.clone());
    world
        .server
        .answer(to, &id, Err(ControlError::new(ErrorCode::NoSuchBond, "no bond0")));
    assert_eq!(
        received(&mut client),
        [json!({"id":{"any":1},"error":{"code":"no_such_bond","message":"no bond0"}})]
    );
}

#[test]
fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let world = World::new("stale");
    let path = world.dir.join("control.sock");
    let again = Server::bind(&path, world.poll.registry(), 1_000_000).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    drop(again);
    let file = world.dir.join("file");
    fs::write(&file, "precious").unwrap();
    let error = Server::bind(&file, world.poll.registry(), 2_000_000).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_client_without_the_right_may_look_and_not_change() {
    let mut world = World::new("rights");
    let mut reader = world.connect_reader();
    assert_eq!(code(&world.ask(&mut reader, ADD)), "permission");
    assert_eq!(world.ask(&mut reader, LIST)["ok"], "ok");
    assert_eq!(world.ask(&mut reader, MONITOR)["ok"], "ok");
    let mut owner = world.connect();
    assert_eq!(world.ask(&mut owner, ADD)["ok"], "ok");
}

#[test]
fn garbage_is_answered_and_the_connection_goes_on() {
    let mut world = World::new("garbage");
    let mut client = world.connect();
    for garbage in [
        "hello",
        "[]",
        "{}",
        r#"{"id":1,"call":"explode"}"#,
        r#"{"id":1,"call":"list","x":1}"#,
        "",
    ] {
        assert_eq!(code(&world.ask(&mut client, garbage)), "bad_request", "{garbage}");
    }
    client.write_all(b"\xff\xfe{}\n").unwrap();
    world.settle();
    assert_eq!(code(&received(&mut client)[0]), "bad_request");
    let deep = "[".repeat(30_000);
    assert_eq!(code(&world.ask(&mut client, &deep)), "bad_request");
    assert_eq!(world.ask(&mut client, LIST)["ok"], "ok");
}

#[test]
fn half_a_line_waits_and_disturbs_nobody() {
    let mut world = World::new("half");
    let (mut half, mut other) = (world.connect(), world.connect());
    let (start, end) = LIST.split_at(9);
    half.write_all(start.as_bytes()).unwrap();
    assert_eq!(world.settle(), 0);
    assert_eq!(world.ask(&mut other, LIST)["ok"], "ok");
    assert_eq!(world.ask(&mut half, end)["ok"], "ok");
}

#[test]
fn a_client_that_closes_in_mid_line_is_forgotten_without_a_request() {
    let mut world = World::new("midline");
    let (mut client, mut other) = (world.connect(), world.connect());
    client.write_all(&LIST.as_bytes()[..9]).unwrap();
    drop(client);
    assert_eq!(world.settle(), 0);
    assert_eq!(world.server.clients.len(), 1);
    assert_eq!(world.ask(&mut other, LIST)["ok"], "ok");
}

#[test]
fn a_client_that_only_closes_its_sending_side_still_gets_its_answers() {
    let mut world = World::new("halfclose");
    let mut client = world.connect();
    client.write_all(format!("{LIST}\n{LIST}\n").as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(world.settle(), 2);
    assert_eq!(received(&mut client).len(), 2);
    assert!(closed(&mut client));
    assert!(world.server.clients.is_empty());
}

#[test]
fn an_answer_for_a_client_that_is_gone_goes_nowhere() {
    let mut world = World::new("gone");
    let mut client = world.connect();
    client.write_all(format!("{ADD}\n").as_bytes()).unwrap();
    let requests = world.turn();
    assert_eq!(requests.len(), 1);
    drop(client);
    world
        .server
        .answer(requests[0].client, &requests[0].id, Ok(Value::Null));
    world
        .server
        .answer(requests[0].client, &requests[0].id, Ok(Value::Null));
    assert!(world.server.clients.is_empty());
}

#[test]
fn what_a_client_asked_before_it_went_is_not_begun() {
    let mut world = World::new("went");
    for line in [ADD, LIST] {
        let mut client = world.connect();
        client.write_all(format!("{line}\n").as_bytes()).unwrap();
        // The request is read and waits to be taken.
        while !world.server.has_changes() && !world.server.has_reads() {
            world.listen();
        }
        drop(client);
        assert_eq!(world.turn(), []);
        assert!(world.server.clients.is_empty());
    }
}

#[test]
fn a_megabyte_without_an_end_of_line_is_refused_and_the_client_closed() {
    let mut world = World::new("megabyte");
    let (mut client, mut other) = (world.connect(), world.connect());
    let mut left = 1 << 20;
    while left > 0 {
        match client.write(&vec![b'x'; left]) {
            Ok(n) => left -= n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break,
            Err(e) => panic!("{e}"),
        }
        world.settle();
        for connection in world.server.clients.values() {
            assert!(connection.buffered() <= MAX_LINE + (64 << 10));
        }
    }
    assert!(left > 0, "closed before it was all sent");
    assert_eq!(code(&received(&mut client)[0]), "bad_request");
    assert!(closed(&mut client));
    assert_eq!(world.ask(&mut other, LIST)["ok"], "ok");
}

#[test]
fn a_line_just_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let mut world = World::new("limit");
    for (length, fits) in [(MAX_LINE, true), (MAX_LINE + 1, false)] {
        let mut client = world.connect();
        let line = format!("{LIST}{}\n", " ".repeat(length - LIST.len()));
        client.write_all(line.as_bytes()).unwrap();
        world.settle();
        let answer = received(&mut client).remove(0);
        assert_eq!(answer["ok"] == "ok", fits, "{answer}");
        assert_eq!(closed(&mut client), !fits);
    }
}

#[test]
fn a_client_that_asks_without_end_gets_one_answer_after_the_other_and_the_others_get_theirs_between() {
    let mut world = World::new("burst");
    let (mut noisy, mut calm) = (world.connect(), world.connect());
    noisy.write_all(format!("{LIST}\n").repeat(100).as_bytes()).unwrap();
    calm.write_all(format!("{LIST}\n").as_bytes()).unwrap();
    let first = world.turn();
    let asked: BTreeSet<ClientId> = first.iter().map(|request| request.client).collect();
    assert_eq!((first.len(), asked.len()), (2, 2), "{first:?}");
    assert_eq!(world.turn(), [], "they wait for their answers");
    for request in first {
        world.server.answer(request.client, &request.id, Ok(json!("ok")));
    }
    assert_eq!(received(&mut calm).len(), 1);
    assert_eq!(world.settle(), 99);
    assert_eq!(received(&mut noisy).len(), 100);
}

#[test]
fn a_turn_does_a_limited_number_of_steps_for_all_clients_together() {
    let mut world = World::new("steps");
    let mut clients: Vec<_> = (0..8).map(|_| world.connect()).collect();
    // Answered by the server itself: only this limit is between them and the loop.
    let lines = 2 * STEPS_A_TURN;
    for client in &mut clients {
        client.write_all("nonsense\n".repeat(lines).as_bytes()).unwrap();
    }
    let mut left = vec![lines; clients.len()];
    while left.iter().any(|&left| left > 0) {
        assert_eq!(world.turn(), []);
        let came: Vec<usize> = clients.iter_mut().map(|client| received(client).len()).collect();
        let all: usize = came.iter().sum();
        assert!(all <= STEPS_A_TURN, "{came:?}");
        assert!(all > 0 && came.iter().all(|&n| n.abs_diff(came[0]) <= 1), "{came:?}");
        for (left, came) in left.iter_mut().zip(came) {
            *left -= came;
        }
        let unanswered = left.iter().any(|&left| left > 0);
        assert!(world.server.has_work() || !unanswered, "the loop would sleep");
    }
}

#[test]
fn changes_are_taken_ahead_of_those_who_only_look() {
    let mut world = World::new("ahead");
    let mut readers: Vec<_> = (0..MAX_CLIENTS - 1).map(|_| world.connect()).collect();
    let mut root = world.connect();
    for reader in &mut readers {
        reader.write_all(format!("{LIST}\n").repeat(10).as_bytes()).unwrap();
    }
    root.write_all(format!("{ADD}\n{LIST}\n").as_bytes()).unwrap();
    // The loop that takes least: one change and one question a turn.
    let mut taken = Vec::new();
    for _ in 0..200 {
        let mut events = Events::with_capacity(256);
        world.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        for event in &events {
            world.server.ready(event.token());
        }
        world.server.converse(world.poll.registry());
        for request in [world.server.next_change(), world.server.next_read()]
            .into_iter()
            .flatten()
        {
            world.server.answer(request.client, &request.id, Ok(json!("ok")));
            taken.push((request.client, request.call));
        }
    }
    let place = |wanted: &Call, by: ClientId| taken.iter().position(|(client, call)| *client == by && call == wanted);
    let (by, add) = taken.iter().find(|(_, call)| !call.reads_only()).unwrap().clone();
    // Each client has two steps before its line is looked at: what it sent is read, then taken apart.
    let turns_of_steps = 2 * MAX_CLIENTS / STEPS_A_TURN;
    assert!(place(&add, by).unwrap() <= 2 * turns_of_steps, "{:?}", place(&add, by));
    // Once answered it is a reader like any other: each of them has had one answer since, and none two.
    let look = place(&Call::List {}, by).unwrap();
    let mut before: Vec<ClientId> = taken[..look].iter().map(|(client, _)| *client).collect();
    before.sort_unstable();
    before.dedup();
    assert!(before.len() >= MAX_CLIENTS - 1, "{}", before.len());
    assert!(look <= 2 * MAX_CLIENTS + 2, "{look}");
    assert_eq!(received(&mut root).len(), 2);
}

#[test]
fn a_client_that_asks_and_never_reads_stops_being_read() {
    let mut world = World::new("noread");
    let (mut mute, mut other) = (world.connect(), world.connect());
    let mut asked = 0;
    loop {
        assert!(asked < 10_000, "still being read");
        match mute.write(format!("{LIST}\n").as_bytes()) {
            Ok(_) => asked += 1,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
        for request in world.turn() {
            world
                .server
                .answer(request.client, &request.id, Ok(json!("x".repeat(4096))));
        }
    }
    let kept: usize = world.server.clients.values().map(Connection::buffered).sum();
    assert!(kept < MAX_LINE + 2 * 5000, "{kept}");
    assert_eq!(world.ask(&mut other, LIST)["ok"], "ok");
    // When it reads at last, it gets everything.
    let mut answered = 0;
    loop {
        let came = received(&mut mute).len();
        answered += came;
        let asked_now = world.settle();
        if came == 0 && asked_now == 0 {
            break;
        }
    }
    assert_eq!(answered, asked);
}

#[test]
fn events_go_to_clients_that_watch_that_bond_or_all() {
    let mut world = World::new("events");
    let (mut all, mut one, mut none) = (world.connect(), world.connect(), world.connect());
    world.ask(&mut all, MONITOR);
    world.ask(&mut one, r#"{"id":1,"call":"monitor","bond":"bond1"}"#);
    world.server.publish(&event("bond0", "zero"));
    world.server.publish(&event("bond1", "one"));
    let texts = |client| -> Vec<String> {
        received(client)
            .iter()
            .map(|v| v["event"]["text"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(texts(&mut all), ["zero", "one"]);
    assert_eq!(texts(&mut one), ["one"]);
    assert_eq!(texts(&mut none), [""; 0]);
    assert_eq!(world.ask(&mut all, LIST)["ok"], "ok", "a subscriber may still ask");
}

#[test]
fn subscribers_are_told_that_the_agent_stops_and_others_keep_their_connection() {
    let mut world = World::new("stopping");
    let mut clients: Vec<_> = (0..2).map(|_| world.connect()).collect();
    world.ask(&mut clients[0], r#"{"id":1,"call":"monitor"}"#);
    world.ask(&mut clients[1], r#"{"id":1,"call":"list"}"#);
    world.server.stopping();
    world.settle();
    assert_eq!(received(&mut clients[0]), [json!({"stopping": true})]);
    assert_eq!(received(&mut clients[1]), Vec::<Value>::new());
}

#[test]
fn a_subscriber_that_does_not_read_is_told_and_cut() {
    let mut world = World::new("lagged");
    let (mut slow, mut good) = (world.connect(), world.connect());
    world.ask(&mut slow, MONITOR);
    world.ask(&mut good, MONITOR);
    let long = event("bond0", &"x".repeat(1000));
    let mut bytes = Vec::new();
    for n in 0..2000 {
        world.server.publish(&long);
        assert_eq!(received(&mut good).len(), 1);
        if n == 250 {
            // Makes room in mid-line, so that the cut comes there.
            let mut some = vec![0; 50_000];
            slow.read_exact(&mut some).unwrap();
            bytes.append(&mut some);
            world.settle();
        }
        for connection in world.server.clients.values() {
            assert!(connection.buffered() <= connection::MAX_OUTPUT + 100);
        }
    }
    for _ in 0..100 {
        bytes.extend(received_bytes(&mut slow));
        world.settle();
    }
    let mut lines = parsed(bytes);
    assert!(lines.len() > 100, "{}", lines.len());
    assert_eq!(lines.pop(), Some(json!({"lagged": true})));
    assert!(lines.iter().all(|line| line.get("event").is_some()));
    assert!(closed(&mut slow));
    assert_eq!(world.server.clients.len(), 1);
}

#[test]
fn one_client_too_many_costs_the_one_idle_for_longest() {
    let mut world = World::new("evict");
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| world.connect()).collect();
    world.ask(&mut clients[0], LIST);
    world.ask(&mut clients[1], MONITOR);
    let mut late = world.connect();
    assert_eq!(world.ask(&mut late, LIST)["ok"], "ok");
    assert_eq!(world.server.clients.len(), MAX_CLIENTS);
    let gone: Vec<usize> = (0..MAX_CLIENTS).filter(|&n| closed(&mut clients[n])).collect();
    assert_eq!(gone, [2], "0 asked lately, 1 watches, 2 only connected");
}

#[test]
fn when_all_watch_a_further_client_is_refused_with_a_reason() {
    let mut world = World::new("full");
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| world.connect()).collect();
    for client in &mut clients {
        world.ask(client, MONITOR);
    }
    let mut late = world.connect();
    assert_eq!(code(&received(&mut late)[0]), "refused");
    assert!(closed(&mut late));
    assert!(clients.iter_mut().all(|client| !closed(client)));
    drop(clients.pop());
    world.settle();
    let mut later = world.connect();
    assert_eq!(world.ask(&mut later, LIST)["ok"], "ok");
}
