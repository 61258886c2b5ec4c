//! One client's connection: lines in, lines out, both bounded.
//!
//! Input: at most [`MAX_LINE`] bytes and one read more are kept. Nothing is read while a request is unanswered or output waits,
//! so a client that does not read its answers stops itself. Output of events is limited by [`MAX_OUTPUT`].

use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsFd;

use mio::net::UnixStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::peer::Peer;
use crate::control::proto::MAX_LINE;

/// Unsent bytes beyond which a subscriber lags.
pub(super) const MAX_OUTPUT: usize = 256 * 1024;

/// Size of one read in bytes.
const CHUNK: usize = 16 * 1024;

/// Bytes sent at a time, so that a long answer does not block the loop.
const PIECE: usize = 64 * 1024;

/// The bonds whose events a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    /// Every bond.
    All,
    /// The bond of this name.
    Bond(String),
}

/// State of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Requests and answers.
    Open,
    /// Requests and answers, with events in between.
    Subscribed(Subscription),
    /// The client closed its sending side. Earlier requests are still answered.
    HungUp,
    /// The server closes it as soon as everything is sent.
    Closing,
}

/// The next part of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A line without its end.
    Line(Vec<u8>),
    /// More than [`MAX_LINE`] bytes without an end of line. Where the next line starts is unknown.
    TooLong,
    /// Some bytes were read, but no end of line yet.
    Part,
    /// No more input for now; mio reports further input.
    Nothing,
}

/// A client's connection.
pub(super) struct Connection {
    stream: UnixStream,
    peer: Peer,
    phase: Phase,
    input: Vec<u8>,
    /// Bytes at the start of `input` without an end of line, already searched.
    searched: usize,
    output: Vec<u8>,
    /// Bytes at the start of `output` that were sent.
    sent: usize,
    /// The first unsent line was sent in part.
    mid_line: bool,
    /// The socket is full; mio reports when there is room.
    blocked: bool,
    /// The socket may have more input: no read has found it empty since mio reported it.
    unread: bool,
    /// Requests passed to the caller and not answered yet.
    unanswered: usize,
    /// Orders connections by the time of their last request.
    pub(super) last_used: u64,
}

impl Connection {
    /// A client that has just connected.
    pub(super) fn new(stream: UnixStream, peer: Peer) -> Self {
        Connection {
            stream,
            peer,
            phase: Phase::Open,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            sent: 0,
            mid_line: false,
            blocked: false,
            unread: true,
            unanswered: 0,
            last_used: 0,
        }
    }

    /// The socket, for registering it.
    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Who it is.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether requests are to be read: not while one is unanswered or output waits, and not after either side closed.
    pub(super) fn listens(&self) -> bool {
        self.output.is_empty() && self.unanswered == 0 && matches!(self.phase, Phase::Open | Phase::Subscribed(_))
    }

    /// Whether it has work that waits neither for an event of mio nor for an answer from the caller.
    pub(super) fn has_work(&self) -> bool {
        match self.output.is_empty() {
            true => self.unread && self.listens(),
            false => !self.blocked,
        }
    }

    /// Records that the socket is readable or writable, as mio reports.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
        self.unread = true;
    }

    /// Whether everything was answered and sent to a client that has hung up or is to be closed.
    pub(super) fn finished(&self) -> bool {
        self.output.is_empty()
            && match self.phase {
                Phase::Open | Phase::Subscribed(_) => false,
                Phase::HungUp => self.unanswered == 0,
                Phase::Closing => true,
            }
    }

    /// Whether the client has closed both directions: no answer reaches it. What it sends is not read while it waits for one, so
    /// reading does not tell.
    pub(super) fn is_gone(&self) -> bool {
        let mut state = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        // On failure the answer will tell.
        poll(&mut state, PollTimeout::ZERO).is_ok()
            && state[0]
                .revents()
                .is_some_and(|state| state.contains(PollFlags::POLLHUP))
    }

    /// Whether it may be closed to make room for another.
    pub(super) fn evictable(&self) -> bool {
        self.unanswered == 0 && !self.is_subscribed()
    }

    /// Whether it gets events.
    pub(super) fn is_subscribed(&self) -> bool {
        matches!(self.phase, Phase::Subscribed(_))
    }

    /// Whether events of this bond go to it.
    pub(super) fn wants(&self, bond: &str) -> bool {
        match &self.phase {
            Phase::Subscribed(Subscription::All) => true,
            Phase::Subscribed(Subscription::Bond(wanted)) => wanted == bond,
            _ => false,
        }
    }

    /// Sends events from now on, or those of other bonds than before.
    pub(super) fn subscribe(&mut self, to: Subscription) {
        if matches!(self.phase, Phase::Open | Phase::Subscribed(_)) {
            self.phase = Phase::Subscribed(to);
        }
    }

    /// The next line of the input, or one read's worth of it.
    pub(super) fn next_input(&mut self) -> io::Result<Input> {
        if let Some(line) = self.buffered_line() {
            return Ok(if line.len() > MAX_LINE {
                Input::TooLong
            } else {
                Input::Line(line)
            });
        }
        if self.input.len() > MAX_LINE {
            return Ok(Input::TooLong);
        }
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                // A line without an end is not a request.
                self.unread = false;
                self.phase = Phase::HungUp;
                Ok(Input::Nothing)
            }
            Ok(n) => {
                self.input.extend_from_slice(&chunk[..n]);
                Ok(Input::Part)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.unread = false;
                Ok(Input::Nothing)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Input::Part),
            Err(e) => Err(e),
        }
    }

    /// Counts a request that the caller will answer.
    pub(super) fn note_request(&mut self) {
        self.unanswered += 1;
    }

    /// Sends an answer to a request that was counted.
    pub(super) fn answer(&mut self, line: &str) -> io::Result<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.send(line)
    }

    /// Sends a line, given without its end, as soon as the socket has room.
    pub(super) fn send(&mut self, line: &str) -> io::Result<()> {
        self.output.extend_from_slice(line.as_bytes());
        self.output.push(b'\n');
        self.flush()
    }

    /// Sends an event, a line with its end. A client that has too much unsent gets a last line that says so instead, and is
    /// closed.
    pub(super) fn send_event(&mut self, line: &[u8]) -> io::Result<()> {
        let unsent = &self.output[self.sent..];
        if unsent.len() + line.len() > MAX_OUTPUT {
            let keep = if self.mid_line {
                unsent.iter().position(|&b| b == b'\n').map_or(0, |end| end + 1)
            } else {
                0
            };
            self.output.truncate(self.sent + keep);
            self.phase = Phase::Closing;
            self.output.extend_from_slice(b"{\"lagged\":true}\n");
        } else {
            self.output.extend_from_slice(line);
        }
        // There may be room already: the kernel reports it only when most of the socket's buffer is free. [unix_writable]
        self.blocked = false;
        self.flush()
    }

    /// Sends a last line and closes the connection after it.
    pub(super) fn close_with(&mut self, line: &str) -> io::Result<()> {
        self.phase = Phase::Closing;
        self.input = Vec::new();
        self.send(line)
    }

    /// Sends one piece of the unsent output, if the socket has room.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let unsent = &self.output[self.sent..];
        if unsent.is_empty() || self.blocked {
            return Ok(());
        }
        match self.stream.write(&unsent[..unsent.len().min(PIECE)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                self.sent += n;
                self.mid_line = self.output[self.sent - 1] != b'\n';
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        // For a long answer only now and then, so that moving the rest costs less than sending it.
        if self.output.len() <= MAX_OUTPUT || self.sent * 2 >= self.output.len() {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Bytes kept for this client.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.input.len() + self.output.len()
    }

    fn buffered_line(&mut self) -> Option<Vec<u8>> {
        match self.input[self.searched..].iter().position(|&b| b == b'\n') {
            Some(at) => {
                let rest = self.input.split_off(self.searched + at + 1);
                let mut line = mem::replace(&mut self.input, rest);
                line.pop();
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.input.len();
                None
            }
        }
    }
}
