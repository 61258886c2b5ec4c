//! The control socket's server, for the agent's one loop: it reads requests and sends answers and events, and never blocks.
//!
//! In each turn the loop calls [`Server::ready`] for each of its tokens that mio reports, then [`Server::converse`] once, takes
//! as many requests as it has time for with [`Server::next_change`] and [`Server::next_read`], and answers them with
//! [`Server::answer`], in this turn or a later one. Clients take turns: each has one request at most that is read and not
//! answered, and one turn does a limited number of steps for all clients together. Whatever a client does (sends garbage, asks
//! without end, stops in mid-line, never reads, closes) costs a limited amount of memory and no more time than that.
//!
//! Permission is decided here, by the credentials of the client that the kernel reports: every request that the caller takes is
//! allowed.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::Path;
use std::str;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde_json::{Value, json};

use self::connection::{Connection, Input, Subscription};
use self::peer::{GROUP, Peer, Policy};
use super::proto::{Call, ControlError, ErrorCode, EventLine, MAX_CLIENTS, MAX_LINE, parse_request};
use crate::descriptors::why;

mod connection;
mod peer;

/// Steps that one turn does for all clients together: a piece of input read, a line taken apart, or a piece of output sent.
const STEPS_A_TURN: usize = 64;

/// Connections accepted in one turn.
const ACCEPTS_A_TURN: usize = 16;

/// The control socket and its clients.
pub struct Server {
    listener: UnixListener,
    policy: Policy,
    first_token: usize,
    clients: BTreeMap<ClientId, Connection>,
    /// There may be clients that wait to be accepted.
    accepting: bool,
    /// Clients that may have input or output, the longest waiting first. Each is listed once.
    queue: VecDeque<ClientId>,
    /// Requests that the caller has not taken yet, oldest first.
    changes: VecDeque<Request>,
    reads: VecDeque<Request>,
    /// Never used twice, so that a late event or answer for a closed connection cannot reach another client.
    next_id: usize,
    /// Counts uses of connections: the one with the lowest count was idle for longest.
    uses: u64,
}

/// A connection, for as long as the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(usize);

/// A request that its client may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's token.
    pub client: ClientId,
    /// The client's id of the request, which the answer repeats.
    pub id: Value,
    /// The call.
    pub call: Call,
}

impl Server {
    /// Listens at `path`, in place of a socket that an agent before this one left there; the caller makes sure that no other
    /// agent runs. Owns `first_token` and every token above it.
    pub fn bind(path: &Path, registry: &Registry, first_token: usize) -> io::Result<Server> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "a file that is not a socket is in the way",
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let policy = Policy::of_this_process();
        let mut listener = UnixListener::bind(path)?;
        // The mode refuses other users early. The rights of a client depend on its credentials, also if it connects before
        // this.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        if let Some(gid) = policy.gid
            && let Err(e) = chown(path, None, Some(gid))
        {
            log::warn!("{}: cannot give it to group {GROUP}: {e}", path.display());
        }
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        Ok(Server {
            listener,
            policy,
            first_token,
            clients: BTreeMap::new(),
            accepting: false,
            queue: VecDeque::new(),
            changes: VecDeque::new(),
            reads: VecDeque::new(),
            next_id: 0,
            uses: 0,
        })
    }

    /// Whether this token is one of the server's.
    pub fn owns(&self, token: Token) -> bool {
        token.0 >= self.first_token
    }

    /// Records an event of mio: new clients to accept, or a client that is readable or writable. The token of a client that is
    /// gone is harmless.
    pub fn ready(&mut self, token: Token) {
        match token.0.checked_sub(self.first_token) {
            Some(0) => self.accepting = true,
            Some(n) => {
                let id = ClientId(n - 1);
                if let Some(connection) = self.clients.get_mut(&id) {
                    connection.unblock();
                }
                self.enqueue(id);
            }
            None => {}
        }
    }

    /// Accepts clients, reads requests and sends output, for one client after the other, until nothing is left or the
    /// turn's steps are used up.
    pub fn converse(&mut self, registry: &Registry) {
        if self.accepting {
            self.accept(registry);
        }
        for _ in 0..STEPS_A_TURN {
            let Some(id) = self.queue.pop_front() else { return };
            self.step(id);
        }
    }

    /// The oldest request that was not taken yet and changes a bond; those of clients that are gone are dropped.
    pub fn next_change(&mut self) -> Option<Request> {
        next_of_those_present(&mut self.changes, &mut self.clients)
    }

    /// The oldest request that was not taken yet and changes nothing; those of clients that are gone are dropped.
    pub fn next_read(&mut self) -> Option<Request> {
        next_of_those_present(&mut self.reads, &mut self.clients)
    }

    /// Whether this client is still connected.
    pub fn has_client(&self, client: ClientId) -> bool {
        self.clients.contains_key(&client)
    }

    /// Whether there is work that waits for no event: call [`Server::converse`] and take requests in the next
    /// turn.
    pub fn has_work(&self) -> bool {
        self.accepting || !self.queue.is_empty()
    }

    /// Whether a request that changes something waits to be taken.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether a request that changes nothing waits to be taken.
    pub fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Answers a request; does nothing if its client is gone.
    pub fn answer(&mut self, client: ClientId, id: &Value, answer: Result<Value, ControlError>) {
        self.send_answer(client, answer_line(id, answer).to_string());
    }

    /// Answers a request with a JSON text; does nothing if its client is gone.
    pub fn answer_with_json(&mut self, client: ClientId, id: &Value, json: &str) {
        self.send_answer(client, format!("{{\"id\":{id},\"ok\":{json}}}"));
    }

    fn send_answer(&mut self, client: ClientId, line: String) {
        self.with(client, |connection| connection.answer(&line));
        self.enqueue(client);
    }

    /// Sends this client the events of one bond, or of all bonds, from now on. To be called after its request was answered.
    pub fn subscribe(&mut self, client: ClientId, bond: Option<String>) {
        let to = bond.map_or(Subscription::All, Subscription::Bond);
        self.with(client, |connection| {
            connection.subscribe(to);
            Ok(())
        });
    }

    /// Sends an event to the clients that subscribed to its bond or to all.
    pub fn publish(&mut self, event: &EventLine) {
        let bond = &event.event.bond;
        let wanted_by: Vec<ClientId> = self
            .clients
            .iter()
            .filter_map(|(&id, connection)| connection.wants(bond).then_some(id))
            .collect();
        if wanted_by.is_empty() {
            return;
        }
        let mut line = match serde_json::to_vec(event) {
            Ok(line) => line,
            Err(e) => return log::error!("{bond}: an event cannot be written as JSON: {e}"),
        };
        line.push(b'\n');
        for id in wanted_by {
            self.with(id, |connection| connection.send_event(&line));
            self.enqueue(id);
        }
    }

    /// Tells the clients that subscribed that the agent stops. Nothing comes after that.
    pub fn stopping(&mut self) {
        let subscribed = self.clients.iter().filter(|(_, connection)| connection.is_subscribed());
        let subscribed: Vec<ClientId> = subscribed.map(|(&id, _)| id).collect();
        for id in subscribed {
            self.with(id, |connection| connection.close_with(r#"{"stopping":true}"#));
            self.enqueue(id);
        }
    }

    fn accept(&mut self, registry: &Registry) {
        for _ in 0..ACCEPTS_A_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => match self.policy.judge(&stream) {
                    Ok(peer) => {
                        self.admit(registry, stream, peer);
                    }
                    Err(e) => log::warn!("control socket: cannot read the credentials of a client: {e}"),
                },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = false;
                    return;
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    // Usually the process has no descriptor left. Waiting clients are accepted when the next one connects.
                    log::warn!("control socket: cannot accept: {}", why(&e));
                    if !self.evict() {
                        self.accepting = false;
                        return;
                    }
                }
            }
        }
    }

    /// Admits a client. If there are too many, the one that was idle for longest is closed.
    fn admit(&mut self, registry: &Registry, stream: UnixStream, peer: Peer) -> Option<ClientId> {
        let id = ClientId(self.next_id);
        let mut connection = Connection::new(stream, peer);
        if self.clients.len() >= MAX_CLIENTS && !self.evict() {
            let full = ControlError::new(
                ErrorCode::Refused,
                format!("{MAX_CLIENTS} clients watch bondd already; end one of them and try again"),
            );
            // If the line cannot be sent now, the connection is closed without it.
            let _ = connection.close_with(&answer_line(&Value::Null, Err(full)).to_string());
            return None;
        }
        let token = Token(self.first_token + 1 + id.0);
        if let Err(e) = registry.register(connection.stream(), token, Interest::READABLE | Interest::WRITABLE) {
            log::warn!("control socket: cannot watch a new client: {e}");
            return None;
        }
        self.next_id += 1;
        connection.last_used = self.next_use();
        self.clients.insert(id, connection);
        Some(id)
    }

    /// Closes the connection that was idle for longest; false if all are in use.
    fn evict(&mut self) -> bool {
        let idle = self
            .clients
            .iter()
            .filter(|(_, connection)| connection.evictable())
            .min_by_key(|(_, connection)| connection.last_used)
            .map(|(&id, _)| id);
        // A closed descriptor leaves epoll by itself.
        idle.is_some_and(|id| self.clients.remove(&id).is_some())
    }

    /// Puts a client at the end of the queue, unless it is queued already or has no work.
    fn enqueue(&mut self, id: ClientId) {
        let busy = self.clients.get(&id).is_some_and(Connection::has_work);
        if busy && !self.queue.contains(&id) {
            self.queue.push_back(id);
        }
    }

    /// One step for one client, which goes to the end of the queue if it has more work.
    fn step(&mut self, id: ClientId) {
        let used = self.next_use();
        let mut understood = None;
        self.with(id, |connection| {
            understood = step(connection)?;
            if understood.is_some() {
                connection.last_used = used;
            }
            Ok(())
        });
        if let Some((request_id, call)) = understood {
            let kind = if call.reads_only() {
                &mut self.reads
            } else {
                &mut self.changes
            };
            kind.push_back(Request {
                client: id,
                id: request_id,
                call,
            });
        }
        self.enqueue(id);
    }

    /// Runs a function on a connection, and drops the connection if that fails or no work is left.
    fn with(&mut self, id: ClientId, act: impl FnOnce(&mut Connection) -> io::Result<()>) {
        let Some(connection) = self.clients.get_mut(&id) else {
            return;
        };
        let outcome = act(connection);
        if let Err(e) = &outcome {
            log::debug!("control socket: client of uid {} lost: {e}", connection.peer().uid);
        }
        if outcome.is_err() || connection.finished() {
            self.clients.remove(&id);
        }
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

/// The oldest of these requests whose client still waits for the answer. Clients that are found to be gone are forgotten.
fn next_of_those_present(
    requests: &mut VecDeque<Request>,
    clients: &mut BTreeMap<ClientId, Connection>,
) -> Option<Request> {
    while let Some(request) = requests.pop_front() {
        match clients.get(&request.client) {
            Some(connection) if connection.is_gone() => drop(clients.remove(&request.client)),
            Some(_) => return Some(request),
            None => {}
        }
    }
    None
}

/// Sends a piece of output, or else takes the next piece of input. Returns the request if the client may make it; every other
/// request is answered here.
fn step(connection: &mut Connection) -> io::Result<Option<(Value, Call)>> {
    if !connection.listens() {
        connection.flush()?;
        return Ok(None);
    }
    match connection.next_input()? {
        Input::Nothing | Input::Part => {}
        Input::TooLong => {
            let why = format!("a request has at most {MAX_LINE} bytes");
            let error = ControlError::new(ErrorCode::BadRequest, why);
            connection.close_with(&answer_line(&Value::Null, Err(error)).to_string())?;
        }
        Input::Line(line) => match understand(&line, connection.peer()) {
            (id, Ok(call)) => {
                connection.note_request();
                return Ok(Some((id, call)));
            }
            (id, Err(error)) => connection.send(&answer_line(&id, Err(error)).to_string())?,
        },
    }
    Ok(None)
}

/// Parses a request and checks the rights of the client.
fn understand(line: &[u8], peer: Peer) -> (Value, Result<Call, ControlError>) {
    let Ok(text) = str::from_utf8(line) else {
        let error = ControlError::new(ErrorCode::BadRequest, "a request is a line of UTF-8 text");
        return (Value::Null, Err(error));
    };
    match parse_request(text) {
        (id, Ok(call)) if !call.reads_only() && !peer.may_change => {
            let why = format!(
                "no permission: user {} may look at bonds but not change them; be root or in group {GROUP}",
                peer.uid
            );
            (id, Err(ControlError::new(ErrorCode::Permission, why)))
        }
        understood => understood,
    }
}

fn answer_line(id: &Value, answer: Result<Value, ControlError>) -> Value {
    match answer {
        Ok(value) => json!({ "id": id, "ok": value }),
        Err(error) => json!({ "id": id, "error": error }),
    }
}

#[cfg(test)]
mod tests;
