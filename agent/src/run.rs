//! The loop: one thread, one wait. A turn reads what is ready into events, runs timers and actions, and publishes.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::clock;
use crate::control::proto::Call;
use crate::control::server::{Drained as ServerDrained, Request, Server};
use crate::fleet::Fleet;
use crate::netlink::Drained;
use crate::signals::Signals;

/// What the loop waits for besides the control socket, whose tokens come after these.
const SIGNALS: Token = Token(0);
const LINK_EVENTS: Token = Token(1);
const PLANE_EVENTS: Token = Token(2);
/// First token of the control socket.
pub const CONTROL: usize = 3;

/// Messages read from one source in one turn.
const BUDGET: usize = 64;

/// Everything that the loop owns.
pub struct Agent {
    poll: Poll,
    signals: Signals,
    server: Server,
    fleet: Fleet,
    /// Sources whose budget ran out: an edge-triggered wait would not name them again.
    unread: BTreeSet<Token>,
    requests: Vec<Request>,
}

impl Agent {
    /// Puts the parts together; the server's sources are registered with `poll` already.
    pub fn new(poll: Poll, mut signals: Signals, server: Server, fleet: Fleet) -> io::Result<Agent> {
        let registry = poll.registry();
        signals.register(registry, SIGNALS)?;
        registry.register(&mut SourceFd(&fleet.link_events()), LINK_EVENTS, Interest::READABLE)?;
        if let Some(events) = fleet.plane_events() {
            registry.register(&mut SourceFd(&events), PLANE_EVENTS, Interest::READABLE)?;
        }
        Ok(Agent {
            poll,
            signals,
            server,
            fleet,
            // Events that arrived between subscribing and now raise no edge.
            unread: BTreeSet::from([LINK_EVENTS, PLANE_EVENTS]),
            requests: Vec::new(),
        })
    }

    /// Runs until a signal asks to stop; gives the fleet back, forwarding as it was.
    pub fn run(mut self) -> io::Result<Fleet> {
        let mut ready = mio::Events::with_capacity(64);
        while !self.signals.stop_requested() {
            match self.poll.poll(&mut ready, self.wait()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let mut sources = std::mem::take(&mut self.unread);
            sources.extend(ready.iter().map(|event| event.token()));
            self.turn(sources);
        }
        self.fleet.publish(clock::now());
        Ok(self.fleet)
    }

    /// Until the earliest deadline, rounded up so that it has passed when the wait ends; not at all if a read is owed.
    fn wait(&self) -> Option<Duration> {
        if !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        self.fleet.poll_timeout().map(|due| due.since(clock::now()))
    }

    fn turn(&mut self, sources: BTreeSet<Token>) {
        let now = clock::now();
        // Link events first: a failover must not wait for a client.
        if sources.contains(&LINK_EVENTS) && self.fleet.read_links(now, BUDGET) == Drained::More {
            self.unread.insert(LINK_EVENTS);
        }
        if sources.contains(&PLANE_EVENTS) && self.fleet.read_plane(now, BUDGET) == Drained::More {
            self.unread.insert(PLANE_EVENTS);
        }
        if sources.contains(&SIGNALS) {
            self.signals.drain();
        }
        // Before the time is looked at: an answer that is here must not count as missing.
        for &token in &sources {
            if let Some(port) = Fleet::ear(token)
                && self.fleet.read_frames(now, port, BUDGET) == Drained::More
            {
                self.unread.insert(token);
            }
        }
        self.fleet.handle_timeout(now);
        for token in sources {
            if Fleet::ear(token).is_none()
                && self.server.owns(token)
                && self.server.ready(self.poll.registry(), token, &mut self.requests) == ServerDrained::More
            {
                self.unread.insert(token);
            }
        }
        for request in std::mem::take(&mut self.requests) {
            self.serve(request);
        }
        // Read while a request was served, so that no edge tells of it any more.
        if self.fleet.has_news() {
            self.unread.insert(LINK_EVENTS);
        }
        for event in self.fleet.take_happened() {
            self.server.publish(&event);
        }
        self.fleet.publish(clock::now());
        self.fleet.held_up(now, clock::now());
    }

    fn serve(&mut self, request: Request) {
        let answer = self.fleet.call(clock::now(), &request.call);
        let subscribes = answer.is_ok();
        if !request.call.reads_only() {
            self.fleet.publish_at_once(clock::now());
        }
        self.server.answer(request.client, &request.id, answer);
        if let Call::Monitor { bond } = request.call
            && subscribes
        {
            self.server.subscribe(request.client, bond);
        }
    }
}
