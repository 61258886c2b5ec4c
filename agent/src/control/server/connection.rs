//! One client's connection: lines in, lines out, both bounded.
//!
//! Input: at most [`MAX_LINE`] bytes and one read more are kept. Nothing is read while output waits, so a client that asks
//! and does not read stops itself. Output that nobody asked for, events, is bounded by [`MAX_OUTPUT`].

use std::io::{self, Read, Write};
use std::mem;

use mio::net::UnixStream;
use serde_json::Value;

use super::peer::Peer;
use crate::control::proto::MAX_LINE;

/// Unsent bytes beyond which a subscriber lags.
pub(super) const MAX_OUTPUT: usize = 256 * 1024;

/// Bytes asked for in one read.
const CHUNK: usize = 16 * 1024;

/// What a subscriber wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    /// Every bond.
    All,
    /// The bond of this name.
    Bond(String),
}

/// How a connection goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Asks and is answered.
    Open,
    /// Asks and is answered, and gets events in between.
    Subscribed(Subscription),
    /// Will ask no more: it closed its side. It is still owed answers.
    HungUp,
    /// Gets what is still unsent and is then closed by us.
    Leaving,
}

/// What is next in the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A line without its end.
    Line(Vec<u8>),
    /// More than [`MAX_LINE`] bytes without an end of line; whatever follows has no known start.
    TooLong,
    /// Some bytes were read, but no end of line yet.
    Part,
    /// Nothing more for now; an event will tell.
    Nothing,
}

/// A client's connection.
pub(super) struct Connection {
    stream: UnixStream,
    peer: Peer,
    phase: Phase,
    input: Vec<u8>,
    /// So many bytes at the start of `input` hold no end of line.
    searched: usize,
    output: Vec<u8>,
    /// The line at the start of `output` was sent in part.
    mid_line: bool,
    /// Requests handed on and not answered yet.
    unanswered: usize,
    /// Orders connections by when they last asked something.
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
            mid_line: false,
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

    /// Whether requests are to be read: none while output waits, none after the client's end or ours.
    pub(super) fn listens(&self) -> bool {
        self.output.is_empty() && matches!(self.phase, Phase::Open | Phase::Subscribed(_))
    }

    /// Whether nothing is owed any more and the connection can be dropped.
    pub(super) fn finished(&self) -> bool {
        self.output.is_empty()
            && match self.phase {
                Phase::Open | Phase::Subscribed(_) => false,
                Phase::HungUp => self.unanswered == 0,
                Phase::Leaving => true,
            }
    }

    /// Whether it may be closed to make room for another.
    pub(super) fn evictable(&self) -> bool {
        self.unanswered == 0 && !matches!(self.phase, Phase::Subscribed(_))
    }

    /// Whether events of this bond go to it.
    pub(super) fn wants(&self, bond: &str) -> bool {
        match &self.phase {
            Phase::Subscribed(Subscription::All) => true,
            Phase::Subscribed(Subscription::Bond(wanted)) => wanted == bond,
            _ => false,
        }
    }

    /// Sends events from now on, or others than until now.
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
                // Half a line that nobody will end is no request.
                self.phase = Phase::HungUp;
                Ok(Input::Nothing)
            }
            Ok(n) => {
                self.input.extend_from_slice(&chunk[..n]);
                Ok(Input::Part)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Input::Nothing),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Input::Part),
            Err(e) => Err(e),
        }
    }

    /// Counts a request that somebody will answer.
    pub(super) fn note_request(&mut self) {
        self.unanswered += 1;
    }

    /// Sends an answer to a request that was counted.
    pub(super) fn answer(&mut self, line: &Value) -> io::Result<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.send(line)
    }

    /// Sends a line as soon as the client takes it.
    pub(super) fn send(&mut self, line: &Value) -> io::Result<()> {
        self.output.extend_from_slice(line.to_string().as_bytes());
        self.output.push(b'\n');
        self.flush()
    }

    /// Sends an event, a line with its end. A client that has too much unread is told so instead, and left.
    pub(super) fn send_event(&mut self, line: &[u8]) -> io::Result<()> {
        if self.output.len() + line.len() > MAX_OUTPUT {
            let keep = if self.mid_line {
                self.output.iter().position(|&b| b == b'\n').map_or(0, |end| end + 1)
            } else {
                0
            };
            self.output.truncate(keep);
            self.phase = Phase::Leaving;
            self.output.extend_from_slice(b"{\"lagged\":true}\n");
        } else {
            self.output.extend_from_slice(line);
        }
        self.flush()
    }

    /// Sends a last line; the connection ends when it is out.
    pub(super) fn leave(&mut self, line: &Value) -> io::Result<()> {
        self.phase = Phase::Leaving;
        self.input = Vec::new();
        self.send(line)
    }

    /// Sends what the client takes now; what is left goes out when it is ready again.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.mid_line = self.output[n - 1] != b'\n';
                    self.output.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
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
