//! The active ports of the kernel's team devices, read from the driver itself. [linux/if_team.h, linux/genetlink.h]

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

use super::watch::{HEADER, attributes};
use crate::netns::Netns;

/// The teams of a namespace. Once asked about one, it hears of every change.
#[derive(Clone)]
pub struct Teams(Arc<Mutex<Inner>>);

struct Inner {
    questions: OwnedFd,
    changes: OwnedFd,
    /// Of the driver's messages, once its module is there.
    family: Option<u16>,
    /// Index of each team's active port.
    active: BTreeMap<u32, u32>,
    /// For a change: to clear a new one each time would cost more than the look.
    buffer: Vec<u8>,
}

/// What a message tells of one team.
#[derive(Debug, Default, PartialEq)]
struct Told {
    team: u32,
    active: Option<u32>,
    /// Those with options of their own.
    ports: Vec<u32>,
}

impl Teams {
    /// Those in this namespace.
    pub fn of(netns: &Netns) -> Teams {
        let open = || {
            netns
                .enter(generic)
                .unwrap_or_else(|e| panic!("no generic netlink: {e}"))
        };
        Teams(Arc::new(Mutex::new(Inner {
            questions: open(),
            changes: open(),
            family: None,
            active: BTreeMap::new(),
            buffer: vec![0; BUFFER],
        })))
    }

    /// Whether the team is there and has this port.
    pub fn has(&self, team: u32, port: u32) -> bool {
        let mut inner = self.0.lock().expect("no holder panics");
        let told = inner.ask(team);
        told.iter().any(|told| told.ports.contains(&port))
    }

    /// Index of the port by which this team sends; 0 for none.
    pub fn active(&self, team: u32) -> u32 {
        let mut inner = self.0.lock().expect("no holder panics");
        inner.read_changes();
        inner.active.get(&team).copied().unwrap_or_default()
    }
}

impl Inner {
    /// What the driver says of a team now; nothing if there is none.
    fn ask(&mut self, team: u32) -> Vec<Told> {
        let Some(family) = self.family.or_else(|| self.find_family()) else {
            return Vec::new();
        };
        let told: Vec<Told> = request(
            &self.questions,
            family,
            OPTIONS_GET,
            &attribute(TEAM_IFINDEX, &team.to_ne_bytes()),
        )
        .iter()
        .filter_map(|message| parse(message))
        .collect();
        told.iter().for_each(|told| self.keep(told));
        told
    }

    /// Subscribes to its changes, too.
    fn find_family(&mut self) -> Option<u16> {
        let question = attribute(FAMILY_NAME, b"team\0");
        let answer = request(&self.questions, CONTROLLER, GET_FAMILY, &question).pop()?;
        let body = answer.get(HEADER + 4..)?;
        let family = u16::from_ne_bytes(find(body, FAMILY_ID)?.try_into().ok()?);
        let (_, group) =
            attributes(find(body, GROUPS)?).find(|(_, group)| find(group, GROUP_NAME) == Some(b"change_event\0"))?;
        let group = number(find(group, GROUP_ID)?)?;
        // SAFETY: the call reads `group`, which outlives it, and nothing else.
        let joined = unsafe {
            libc::setsockopt(
                self.changes.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                (&raw const group).cast(),
                size_of_val(&group) as libc::socklen_t,
            )
        };
        assert!(joined == 0, "no changes of teams: {}", Errno::last());
        self.family = Some(family);
        self.family
    }

    fn read_changes(&mut self) {
        loop {
            match recv(self.changes.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let told: Vec<Told> = messages(&self.buffer[..length]).filter_map(parse).collect();
                    told.iter().for_each(|told| self.keep(told));
                }
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(e) => panic!("changes of teams were lost: {e}"),
            }
        }
    }

    fn keep(&mut self, told: &Told) {
        if let Some(active) = told.active {
            self.active.insert(told.team, active);
        }
    }
}

fn generic() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkGeneric,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a question and returns the messages that answer it; none if it is refused. The kernel answers before it goes on.
fn request(socket: &OwnedFd, family: u16, command: u8, body: &[u8]) -> Vec<Vec<u8>> {
    let length = (HEADER + 4 + body.len()) as u32;
    let mut question = length.to_ne_bytes().to_vec();
    question.extend(family.to_ne_bytes());
    question.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    question.extend([0; 8]);
    question.extend([command, 1, 0, 0]);
    question.extend(body);
    send(socket.as_raw_fd(), &question, MsgFlags::empty()).unwrap_or_else(|e| panic!("cannot ask: {e}"));
    let (mut answers, mut buffer) = (Vec::new(), [0; BUFFER]);
    while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        let of_family = |message: &&[u8]| message[4..6] == family.to_ne_bytes();
        answers.extend(messages(&buffer[..length]).filter(of_family).map(<[u8]>::to_vec));
    }
    answers
}

/// The messages of a datagram, each with its header.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = number(rest.get(..4)?)? as usize;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// What a message tells of a team's options, if it is about them.
fn parse(message: &[u8]) -> Option<Told> {
    let body = message.get(HEADER + 4..).filter(|_| message[HEADER] == OPTIONS_GET)?;
    let mut told = Told {
        team: number(find(body, TEAM_IFINDEX)?)?,
        ..Told::default()
    };
    for (_, option) in attributes(find(body, LIST_OPTION)?) {
        told.ports.extend(find(option, OPTION_PORT).and_then(number));
        if find(option, OPTION_NAME) == Some(b"activeport\0") {
            told.active = find(option, OPTION_DATA).and_then(number);
        }
    }
    Some(told)
}

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut attribute = (4 + data.len() as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(data);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn find(body: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(body).find(|(found, _)| *found == kind).map(|(_, data)| data)
}

fn number(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_ne_bytes)
}

/// The family that knows the others.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;

const OPTIONS_GET: u8 = 2;
const TEAM_IFINDEX: u16 = 1;
const LIST_OPTION: u16 = 2;
const OPTION_NAME: u16 = 1;
const OPTION_DATA: u16 = 4;
const OPTION_PORT: u16 = 6;

/// Longest datagram.
const BUFFER: usize = 64 << 10;
/// For changes of hundreds of teams at once, in bytes.
const RECEIVE_BUFFER: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_options_tells_the_active_port_and_which_ports_there_are() {
        let option = |name: &[u8], data: u32, port: Option<u32>| {
            let parts = [
                attribute(OPTION_NAME, name),
                attribute(OPTION_DATA, &data.to_ne_bytes()),
                port.map_or_else(Vec::new, |port| attribute(OPTION_PORT, &port.to_ne_bytes())),
            ];
            attribute(1, &parts.concat())
        };
        let options = [
            option(b"activeport\0", 7, None),
            option(b"enabled\0", 1, Some(7)),
            option(b"enabled\0", 0, Some(9)),
        ];
        let body = [
            attribute(TEAM_IFINDEX, &5_u32.to_ne_bytes()),
            attribute(LIST_OPTION, &options.concat()),
        ];
        let length = (HEADER + 4 + body.concat().len()) as u32;
        let mut datagram = [&length.to_ne_bytes()[..], &[0; HEADER - 4], &[OPTIONS_GET, 1, 0, 0]].concat();
        datagram.extend(body.concat());
        let expected = Told {
            team: 5,
            active: Some(7),
            ports: vec![7, 9],
        };
        assert_eq!(messages(&datagram).filter_map(parse).collect::<Vec<_>>(), [expected]);
        datagram[HEADER] = 3;
        assert_eq!(messages(&datagram).find_map(parse), None);
    }
}
