//! Against a scripted kernel: every byte that is sent, and every answer that should not come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::dataplane::lock::lock;
use crate::dataplane::team::options::Name;

/// A kernel that answers each request with the next datagrams of a script, and then keeps silent.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<Played>>);

#[derive(Default)]
struct Played {
    sent: Vec<Vec<u8>>,
    answers: VecDeque<VecDeque<io::Result<Vec<u8>>>>,
    ready: VecDeque<io::Result<Vec<u8>>>,
}

impl Script {
    /// To the next request, these datagrams.
    pub fn answer(&self, datagrams: impl IntoIterator<Item = Vec<u8>>) -> &Script {
        lock(&self.0).answers.push_back(datagrams.into_iter().map(Ok).collect());
        self
    }

    /// The requests so far.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        lock(&self.0).sent.clone()
    }

    pub fn genl(&self) -> Genl {
        Genl::over(Box::new(self.clone()))
    }
}

impl Wire for Script {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut played = lock(&self.0);
        played.sent.push(datagram.to_vec());
        let answer = played.answers.pop_front().unwrap_or_default();
        played.ready.extend(answer);
        Ok(())
    }

    fn receive(&mut self, _: Instant) -> io::Result<Vec<u8>> {
        let next = lock(&self.0).ready.pop_front();
        next.unwrap_or_else(|| Err(Errno::ETIMEDOUT.into()))
    }
}

pub const FAMILY: Family = Family { id: 0x1c, group: 7 };
pub const TEAM: u32 = 9;

/// A message with its length filled in.
pub fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(2u16.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// NLMSG_ERROR with the header of the request behind it.
pub fn error(sequence: u32, errno: i32) -> Vec<u8> {
    let mut body = (-errno).to_ne_bytes().to_vec();
    body.extend([0; 16]);
    message(2, sequence, &body)
}

pub fn done(sequence: u32) -> Vec<u8> {
    message(3, sequence, &0i32.to_ne_bytes())
}

pub fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + data.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub fn u32_attribute(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_ne_bytes())
}

/// A message of the family with one list.
pub fn answer(sequence: u32, command: u8, team: u32, list: u16, items: &[Vec<u8>]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|item| attribute(0x8001, item)).collect();
    let body = [
        vec![command, 1, 0, 0],
        u32_attribute(1, team),
        attribute(0x8000 | list, &items),
    ];
    message(FAMILY.id, sequence, &body.concat())
}

pub fn flag_item(name: &[u8], port: u32, on: bool) -> Vec<u8> {
    let data = if on { attribute(4, &[]) } else { Vec::new() };
    let parts = [
        attribute(1, name),
        attribute(2, &[]),
        attribute(3, &[6]),
        data,
        u32_attribute(6, port),
    ];
    parts.concat()
}

fn mode_item(mode: &[u8]) -> Vec<u8> {
    [attribute(1, b"mode\0"), attribute(3, &[5]), attribute(4, mode)].concat()
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn the_family_is_asked_for_by_name_and_found_with_its_group() {
    let script = Script::default();
    let group = |name: &[u8], id| [attribute(1, name), u32_attribute(2, id)].concat();
    let groups = [
        attribute(1, &group(b"other\0", 3)),
        attribute(2, &group(b"change_event\0", 7)),
    ];
    let body = [
        vec![1, 2, 0, 0],
        attribute(2, b"team\0"),
        attribute(1, &FAMILY.id.to_ne_bytes()),
        attribute(7, &groups.concat()),
    ];
    script.answer([message(16, 1, &body.concat()), error(1, 0)]);
    assert_eq!(script.genl().family().unwrap(), FAMILY);
    #[rustfmt::skip]
    let expected = [
        32, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        3, 1, 0, 0,
        9, 0, 2, 0, b't', b'e', b'a', b'm', 0, 0, 0, 0,
    ];
    assert_eq!(script.sent(), [expected]);
}

#[test]
fn without_the_module_there_is_no_family() {
    let script = Script::default();
    script.answer([error(1, libc::ENOENT)]);
    assert_eq!(errno(script.genl().family()), Some(libc::ENOENT));
    script.answer([error(1, 0)]);
    assert_eq!(
        errno(script.genl().family()),
        Some(libc::EPROTO),
        "acknowledged without an answer"
    );
}

#[test]
fn one_request_sets_one_option_of_any_type() {
    let port = PortId(5);
    let program = [6, 0, 0, 0, 0, 0, 0, 0];
    let text = option(b"mode\0", 5, &attribute(4, b"broadcast\0"), &[]);
    // A flag that is off has no data. Port and place come last, as the kernel wants them.
    let on = option(b"enabled\0", 6, &attribute(4, &[]), &u32_attribute(6, 5));
    let off = option(b"enabled\0", 6, &[], &u32_attribute(6, 5));
    let number = option(
        b"lb_tx_hash_to_port_mapping\0",
        3,
        &u32_attribute(4, 5),
        &u32_attribute(7, 3),
    );
    let binary = option(b"bpf_hash_func\0", 11, &attribute(4, &program), &[]);
    let cases: [(Key, Value, Vec<u8>); 5] = [
        (Key::team(Name::Mode), Value::text("broadcast"), text),
        (Key::port(Name::Enabled, port), Value::Flag(true), on),
        (Key::port(Name::Enabled, port), Value::Flag(false), off),
        (Key::cell(3), Value::U32(5), number),
        (Key::team(Name::HashProgram), Value::Binary(program.to_vec()), binary),
    ];
    let script = Script::default();
    let mut genl = script.genl();
    for (place, (key, value, item)) in cases.into_iter().enumerate() {
        let sequence = place as u32 + 1;
        script.answer([error(sequence, 0)]);
        genl.set(FAMILY, TEAM, key, &value).unwrap();
        assert_eq!(
            script.sent()[place],
            request_to_set(sequence, &item),
            "{key:?} {value:?}"
        );
    }
}

/// An option as it is set: name, type, data, and what it belongs to.
fn option(name: &[u8], kind: u8, data: &[u8], of: &[u8]) -> Vec<u8> {
    [&attribute(1, name), &attribute(3, &[kind]), data, of].concat()
}

/// A request with one option, to be acknowledged.
fn request_to_set(sequence: u32, item: &[u8]) -> Vec<u8> {
    let list = attribute(0x8002, &attribute(0x8001, item));
    let body = [vec![1, 1, 0, 0], u32_attribute(1, TEAM), list].concat();
    let mut request = message(FAMILY.id, sequence, &body);
    request[6] = 5;
    request
}

#[test]
fn a_refusal_carries_the_errno() {
    let script = Script::default();
    let mut genl = script.genl();
    for (place, refusal) in [libc::EPERM, libc::EBUSY, libc::ENOENT, libc::ESRCH]
        .into_iter()
        .enumerate()
    {
        script.answer([error(place as u32 + 1, refusal)]);
        let set = genl.set(FAMILY, TEAM, Key::team(Name::ActivePort), &Value::U32(1));
        assert_eq!(errno(set), Some(refusal));
    }
}

#[test]
fn options_come_in_several_datagrams_and_end_with_done() {
    let script = Script::default();
    let cell = [
        attribute(1, b"lb_tx_hash_to_port_mapping\0"),
        attribute(3, &[3]),
        u32_attribute(4, 6),
        u32_attribute(7, 255),
    ];
    let unknown = [
        attribute(1, b"lb_hash_stats\0"),
        attribute(3, &[11]),
        attribute(4, &[0; 8]),
    ];
    let program = [attribute(1, b"bpf_hash_func\0"), attribute(3, &[11]), attribute(4, &[])];
    let removed = [flag_item(b"enabled\0", 8, true), attribute(5, &[])].concat();
    let first = [mode_item(b"loadbalance\0"), cell.concat(), unknown.concat()];
    let second = [
        flag_item(b"enabled\0", 6, true),
        flag_item(b"user_linkup\0", 6, false),
        program.concat(),
        removed,
    ];
    script.answer([
        answer(1, 2, TEAM, 2, &first),
        [answer(1, 2, TEAM, 2, &second), done(1)].concat(),
    ]);
    let settings = script.genl().options(FAMILY, TEAM).unwrap();
    let expected = Settings::from([
        (Key::team(Name::Mode), Value::text("loadbalance")),
        (Key::cell(255), Value::U32(6)),
        (Key::team(Name::HashProgram), Value::Binary(vec![])),
        (Key::port(Name::Enabled, PortId(6)), Value::Flag(true)),
        (Key::port(Name::UserLinkup, PortId(6)), Value::Flag(false)),
    ]);
    assert_eq!(settings, expected);
    let body = [vec![2, 1, 0, 0], u32_attribute(1, TEAM)].concat();
    let mut request = message(FAMILY.id, 1, &body);
    request[6] = 1;
    assert_eq!(script.sent(), [request], "no acknowledgement is asked for");
}

#[test]
fn ports_are_told_in_the_order_of_adding() {
    let script = Script::default();
    let port = |ifindex, rest: &[u8]| [u32_attribute(1, ifindex), attribute(3, &[]), rest.to_vec()].concat();
    let items = [
        port(7, &[]),
        port(5, &u32_attribute(4, 1000)),
        port(6, &attribute(6, &[])),
    ];
    script.answer([answer(1, 3, TEAM, 3, &items), done(1)]);
    assert_eq!(script.genl().ports(FAMILY, TEAM).unwrap(), [PortId(7), PortId(5)]);
    script.answer([
        message(FAMILY.id, 1, &[vec![3, 1, 0, 0], u32_attribute(1, TEAM)].concat()),
        done(1),
    ]);
    assert_eq!(script.genl().ports(FAMILY, TEAM).unwrap(), []);
}

#[test]
fn what_an_earlier_request_left_behind_is_skipped() {
    let script = Script::default();
    let mut genl = script.genl();
    let set = |genl: &mut Genl| genl.set(FAMILY, TEAM, Key::team(Name::ActivePort), &Value::U32(1));
    assert_eq!(errno(set(&mut genl)), Some(libc::ETIMEDOUT));
    script.answer([error(1, libc::ENOENT), [done(1), error(2, 0)].concat()]);
    set(&mut genl).unwrap();
}

#[test]
fn every_answer_that_is_cut_short_is_an_error() {
    let items = [mode_item(b"broadcast\0"), flag_item(b"enabled\0", 6, true)];
    let whole = [answer(1, 2, TEAM, 2, &items), done(1)].concat();
    for length in 0..whole.len() - 4 {
        let script = Script::default();
        script.answer([whole[..length].to_vec()]);
        let read = script.genl().options(FAMILY, TEAM);
        assert!(
            matches!(errno(read), Some(libc::EPROTO | libc::ETIMEDOUT)),
            "after {length} bytes"
        );
    }
}

#[test]
fn no_byte_of_an_answer_can_be_changed_into_a_panic_or_a_wait() {
    let items = [mode_item(b"broadcast\0"), flag_item(b"enabled\0", 6, true)];
    let whole = [answer(1, 2, TEAM, 2, &items), done(1)].concat();
    for at in 0..whole.len() {
        for byte in [0, 1, 3, 0x7f, 0x80, 0xff] {
            let mut broken = whole.clone();
            broken[at] = byte;
            let script = Script::default();
            script.answer([broken.clone()]);
            let _ = script.genl().options(FAMILY, TEAM);
            let mut heard = Vec::new();
            reports(&broken, FAMILY, &mut heard);
        }
    }
}

#[test]
fn an_answer_that_is_out_of_place_is_an_error() {
    let port = |ifindex| u32_attribute(1, ifindex);
    let text_without_end = [attribute(1, b"mode\0"), attribute(3, &[5]), attribute(4, b"broadcast")].concat();
    let short_number = [attribute(1, b"activeport\0"), attribute(3, &[3]), attribute(4, &[1, 0])].concat();
    let typeless = [attribute(1, b"mode\0"), attribute(4, b"broadcast\0")].concat();
    let strange = [attribute(1, b"mode\0"), attribute(3, &[99]), attribute(4, b"x\0")].concat();
    let wrong: [(&str, Vec<u8>); 10] = [
        ("another team", answer(1, 2, TEAM + 1, 2, &[])),
        ("another command", answer(1, 3, TEAM, 3, &[port(1)])),
        ("another family", message(0x33, 1, &[2, 1, 0, 0])),
        ("an acknowledgement", error(1, 0)),
        ("text without an end", answer(1, 2, TEAM, 2, &[text_without_end])),
        ("a short number", answer(1, 2, TEAM, 2, &[short_number])),
        ("an option without a type", answer(1, 2, TEAM, 2, &[typeless])),
        ("a type that is not known", answer(1, 2, TEAM, 2, &[strange])),
        ("a positive error", message(2, 1, &[1, 0, 0, 0])),
        ("an error without a number", message(2, 1, &[])),
    ];
    for (what, datagram) in wrong {
        let script = Script::default();
        script.answer([datagram, done(1)]);
        assert_eq!(errno(script.genl().options(FAMILY, TEAM)), Some(libc::EPROTO), "{what}");
    }
    let script = Script::default();
    script.answer([done(1), error(1, 0)]);
    let set = script.genl().set(FAMILY, TEAM, Key::cell(0), &Value::U32(1));
    assert_eq!(errno(set), Some(libc::EPROTO), "done where an acknowledgement is due");
}

#[test]
fn answers_to_others_without_end_do_not_outlast_the_deadline() {
    struct Babble;
    impl Wire for Babble {
        fn send(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn receive(&mut self, _: Instant) -> io::Result<Vec<u8>> {
            Ok(done(77))
        }
    }
    let start = Instant::now();
    let read = Genl::over(Box::new(Babble)).options(FAMILY, TEAM);
    assert_eq!(errno(read), Some(libc::ETIMEDOUT));
    assert!(start.elapsed() < 3 * PATIENCE);
}

#[test]
fn an_answer_is_waited_for_from_the_end_of_a_send_that_took_long() {
    struct Slow(Script);
    impl Wire for Slow {
        fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
            std::thread::sleep(PATIENCE + std::time::Duration::from_millis(200));
            self.0.send(datagram)
        }
        fn receive(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
            assert!(deadline > Instant::now(), "there is time left to wait for it");
            self.0.receive(deadline)
        }
    }
    let script = Script::default();
    script.answer([error(1, 0)]);
    let mut genl = Genl::over(Box::new(Slow(script)));
    genl.set(FAMILY, TEAM, Key::team(Name::ActivePort), &Value::U32(1))
        .unwrap();
}

#[test]
fn changes_are_told_one_by_one_and_what_cannot_be_read_counts_as_lost() {
    let heard = |datagram: &[u8]| {
        let mut heard = Vec::new();
        reports(datagram, FAMILY, &mut heard);
        heard
    };
    let report = answer(0, 2, TEAM, 2, &[flag_item(b"enabled\0", 6, true)]);
    let found = heard(&[report.clone(), done(0)].concat());
    let [Report::Settings { device: TEAM, said }] = &found[..] else {
        panic!("{found:?}");
    };
    let said = options::parse_options(&options::parse(said).unwrap()).unwrap();
    assert_eq!(said, [(Key::port(Name::Enabled, PortId(6)), Value::Flag(true))]);
    let of_ports = answer(0, 3, TEAM, 3, &[u32_attribute(1, 6)]);
    assert_eq!(heard(&of_ports), [], "links are heard of elsewhere");
    assert_eq!(heard(&report[..report.len() - 3]), [Report::Lost]);
    assert_eq!(heard(&[0; 7]), [Report::Lost]);
}

#[test]
fn a_kernel_without_the_driver_says_so_at_once() {
    let start = Instant::now();
    let mut genl = Genl::open().unwrap();
    match genl.family() {
        Ok(family) => assert!(family.group > 0),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
    }
    assert!(start.elapsed() < PATIENCE);
    let events = Events::open().unwrap();
    let read = events.read(&mut [0; 16], 8, &mut Vec::new());
    assert_eq!(read.unwrap(), Drained::Empty);
}
