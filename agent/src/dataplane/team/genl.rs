//! Generic netlink with the team driver: requests with a deadline, and the stream of changes.
//!
//! neli builds messages, reads attributes and owns the sockets. Datagrams are cut into messages here: neli takes the length in
//! a header on trust.
//!
//! | Request | Ends with |
//! |---|---|
//! | family by name, set an option | the acknowledgement |
//! | read options or ports | `NLMSG_DONE`: no acknowledgement is asked for, as it would stay behind for the next request |
//!
//! An answer that is malformed or out of place is EPROTO, none within a second ETIMEDOUT. What an earlier request left behind
//! is recognised by its sequence number and skipped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Mutex;
use std::time::Instant;

use bond_modes::PortId;
use neli::ToBytes;
use neli::consts::nl::{NlmF, Nlmsg};
use neli::consts::socket::{Msg, NlFamily};
use neli::genl::GenlmsghdrBuilder;
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::options::{self, Attributes, Key, Settings, Value};
use crate::dataplane::Report;
use crate::dataplane::lock::lock;
use crate::netlink::{Drained, PATIENCE, readable_before};

/// Datagrams to and from the kernel.
pub trait Wire: Send {
    /// Sends one request.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;
    /// The next datagram; ETIMEDOUT if none comes until then.
    fn receive(&mut self, deadline: Instant) -> io::Result<Vec<u8>>;
}

/// The team driver's family and the group that receives changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Message type.
    pub id: u16,
    /// Multicast group.
    pub group: u32,
}

/// Requests, one at a time.
pub struct Genl {
    wire: Box<dyn Wire>,
    sequence: u32,
}

impl Genl {
    /// Over the kernel's socket, in the network namespace of the calling thread.
    pub fn open() -> io::Result<Genl> {
        Ok(Genl::over(Box::new(Socket::open()?)))
    }

    /// Over any wire.
    pub fn over(wire: Box<dyn Wire>) -> Genl {
        Genl { wire, sequence: 0 }
    }

    /// The team driver's family; ENOENT while no module has brought it, which making a team device does.
    pub fn family(&mut self) -> io::Result<Family> {
        let mut family = None;
        let question = options::family_named("team");
        self.ask(
            CONTROLLER,
            GET_FAMILY,
            question,
            End::Acknowledged,
            |command, answer| {
                let (id, group) = options::parse_family(answer, "change_event").filter(|_| command == NEW_FAMILY)?;
                family = Some(Family { id, group });
                Some(())
            },
        )?;
        family.ok_or_else(wrong)
    }

    /// Sets one option.
    pub fn set(&mut self, family: Family, team: u32, key: Key, value: &Value) -> io::Result<()> {
        let setting = options::setting(team, key, value);
        self.ask(family.id, OPTIONS_SET, setting, End::Acknowledged, |_, _| None)
    }

    /// Every option of a team that this agent sets.
    pub fn options(&mut self, family: Family, team: u32) -> io::Result<Settings> {
        let mut settings = Settings::new();
        let about = options::about(team);
        self.ask(family.id, OPTIONS_GET, about, End::Done, |command, answer| {
            let of_this = command == OPTIONS_GET && options::team_of(answer) == Some(team);
            settings.extend(options::parse_options(answer).filter(|_| of_this)?);
            Some(())
        })?;
        Ok(settings)
    }

    /// The ports of a team, in the order in which they were added.
    pub fn ports(&mut self, family: Family, team: u32) -> io::Result<Vec<PortId>> {
        let mut ports = Vec::new();
        let about = options::about(team);
        self.ask(family.id, PORT_LIST_GET, about, End::Done, |command, answer| {
            let of_this = command == PORT_LIST_GET && options::team_of(answer) == Some(team);
            ports.extend(options::parse_ports(answer).filter(|_| of_this)?);
            Some(())
        })?;
        Ok(ports)
    }

    /// Sends a request and hands each answer to `take`, which returns `None` for one that it cannot read.
    fn ask(
        &mut self,
        family: u16,
        command: u8,
        attributes: Attributes,
        end: End,
        mut take: impl FnMut(u8, &Attributes) -> Option<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(family, command, attributes, end, self.sequence)?;
        self.wire.send(&request)?;
        // From now on: sending may have blocked for long, and what the kernel has carried out must not count as failed.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let datagram = self.wire.receive(deadline)?;
            for message in messages(&datagram) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue;
                }
                match (message.kind, end) {
                    (kind, _) if kind == u16::from(Nlmsg::Error) => match message.error()? {
                        Some(refusal) => return Err(refusal),
                        None if end == End::Acknowledged => return Ok(()),
                        None => return Err(wrong()),
                    },
                    (kind, End::Done) if kind == u16::from(Nlmsg::Done) => return Ok(()),
                    (kind, _) if kind == family => {
                        let (command, answer) = message.generic().ok_or_else(wrong)?;
                        take(command, &answer).ok_or_else(wrong)?;
                    }
                    _ => return Err(wrong()),
                }
            }
            if Instant::now() >= deadline {
                return Err(Errno::ETIMEDOUT.into());
            }
        }
    }
}

/// How the kernel says that a request was served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Acknowledged,
    Done,
}

fn request(family: u16, command: u8, attributes: Attributes, end: End, sequence: u32) -> io::Result<Vec<u8>> {
    let payload = GenlmsghdrBuilder::default()
        .cmd(command)
        .version(1)
        .attrs(attributes)
        .build()
        .map_err(io::Error::other)?;
    let flags = match end {
        End::Acknowledged => NlmF::REQUEST | NlmF::ACK,
        End::Done => NlmF::REQUEST,
    };
    let message = NlmsghdrBuilder::default()
        .nl_type(family)
        .nl_flags(flags)
        .nl_seq(sequence)
        .nl_payload(NlPayload::Payload(payload))
        .build()
        .map_err(io::Error::other)?;
    let mut bytes = io::Cursor::new(Vec::new());
    message.to_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.into_inner())
}

/// One message of a datagram.
struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Message<'_> {
    /// Command and attributes of a generic netlink message.
    fn generic(&self) -> Option<(u8, Attributes)> {
        let (header, attributes) = self.body.split_at_checked(GENERIC_HEADER)?;
        Some((header[0], options::parse(attributes)?))
    }

    /// Why a request was refused; `None` if this acknowledges it.
    fn error(&self) -> io::Result<Option<io::Error>> {
        let code = self.body.first_chunk().ok_or_else(wrong)?;
        match i32::from_ne_bytes(*code) {
            0 => Ok(None),
            code @ -4095..0 => Ok(Some(io::Error::from_raw_os_error(-code))),
            _ => Err(wrong()),
        }
    }
}

/// The messages of a datagram; an error ends them, as the next one cannot be found any more.
fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut rest);
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let message = || {
            let length = word(0)? as usize;
            let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
            let body = bytes.get(MESSAGE_HEADER..length)?;
            let message = Message {
                kind,
                sequence: word(8)?,
                body,
            };
            Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
        };
        Some(message().ok_or_else(wrong).map(|(message, after)| {
            rest = after;
            message
        }))
    })
}

/// The stream of changes of options, our own and those of others. One thread joins and another reads, and neither waits for the
/// other.
pub struct Events {
    socket: NlSocket,
    /// Locked to be read or written, not while the kernel is asked.
    joined: Mutex<Option<Family>>,
}

impl Events {
    /// In the network namespace of the calling thread; silent until the family is known.
    pub fn open() -> io::Result<Events> {
        let socket = open_socket()?;
        // SAFETY: `socket` is open until the end of this function at least.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        // Without the privilege the default size stays: an overrun then comes earlier and is handled all the same.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &EVENT_BUFFER);
        Ok(Events {
            socket,
            joined: Mutex::new(None),
        })
    }

    /// Listens to this family from now on. Must be called before the first option is set: while the group has no member, the
    /// kernel answers a change with an error, because it could not report it. One thread at a time may call it.
    pub fn join(&self, family: Family) -> io::Result<()> {
        // Before the first report can come, or its reader would not know it.
        let before = lock(&self.joined).replace(family);
        if before == Some(family) {
            return Ok(());
        }
        let joined = self.socket.add_mcast_membership(Groups::new_groups(&[family.group]));
        if joined.is_err() {
            *lock(&self.joined) = before;
        }
        joined
    }

    /// Appends what at most `budget` datagrams report, each of which is read into the buffer. With [`Drained::More`] another call is
    /// owed.
    pub fn read(&self, buffer: &mut [u8], budget: usize, sink: &mut Vec<Report>) -> io::Result<Drained> {
        for _ in 0..budget {
            match self.socket.recv(&mut *buffer, Msg::empty()) {
                // Only what the kernel sends to the group is listened to.
                Ok((length, from)) if !from.is_empty() => {
                    let joined = *lock(&self.joined);
                    if let Some(family) = joined {
                        reports(&buffer[..length], family, sink);
                    }
                }
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(Drained::Empty),
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => sink.push(Report::Lost),
                    _ => return Err(error),
                },
            }
        }
        Ok(Drained::More)
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What a datagram reports: for each message its team and its attributes, which hold the options. What cannot be read counts as
/// lost.
fn reports(datagram: &[u8], family: Family, sink: &mut Vec<Report>) {
    for message in messages(datagram) {
        let parsed = message.ok().and_then(|message| {
            if message.kind != family.id {
                return Some(());
            }
            let (command, attributes) = message.generic()?;
            if command == OPTIONS_GET {
                let device = options::team_of(&attributes)?;
                let said = message.body[GENERIC_HEADER..].to_vec();
                sink.push(Report::Settings { device, said });
            }
            Some(())
        });
        if parsed.is_none() {
            sink.push(Report::Lost);
        }
    }
}

/// The kernel's end of the requests.
struct Socket {
    socket: NlSocket,
    buffer: Box<[u8]>,
}

impl Socket {
    fn open() -> io::Result<Socket> {
        Ok(Socket {
            socket: open_socket()?,
            buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
        })
    }
}

impl Wire for Socket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send(datagram, Msg::empty()).map(drop)
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        loop {
            match self.socket.recv(&mut self.buffer, Msg::empty()) {
                Ok((length, _)) => return Ok(self.buffer[..length].to_vec()),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    // SAFETY: `self.socket` is open as long as `self`.
                    let fd = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
                    if !readable_before(fd, deadline)? {
                        return Err(Errno::ETIMEDOUT.into());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn open_socket() -> io::Result<NlSocket> {
    let socket = NlSocket::connect(NlFamily::Generic, None, Groups::empty())?;
    socket.nonblock()?;
    Ok(socket)
}

/// The kernel answered something that it should not.
fn wrong() -> io::Error {
    Errno::EPROTO.into()
}

/// Room for a burst of changes of many teams; one of mode loadbalance is 30 kB.
const EVENT_BUFFER: usize = 1 << 20;
/// Larger than any message of the kernel, which fills pages.
pub const DATAGRAM_MAX: usize = 64 << 10;
/// `struct nlmsghdr`
const MESSAGE_HEADER: usize = 16;
/// `struct genlmsghdr`
const GENERIC_HEADER: usize = 4;

// [genetlink.h]
const CONTROLLER: u16 = libc::GENL_ID_CTRL as u16;
const GET_FAMILY: u8 = libc::CTRL_CMD_GETFAMILY as u8;
const NEW_FAMILY: u8 = libc::CTRL_CMD_NEWFAMILY as u8;
// [if_team.h]
const OPTIONS_SET: u8 = 1;
const OPTIONS_GET: u8 = 2;
const PORT_LIST_GET: u8 = 3;

#[cfg(test)]
pub(super) mod tests;
