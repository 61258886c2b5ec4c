//! The blocking client of the control socket that `bondctl` and `ifenslave` use: one request at a time, with a deadline.

use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::SOCKET;
use super::proto::{Call, ControlError, ErrorCode, Report};

/// Longest wait for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long clients that wait for a bond of a start wait in all.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts to find what does not report itself.
pub const PAUSE: Duration = Duration::from_millis(20);

/// What becomes of a change whose answer did not come in time.
const UNKNOWN: &str = "; it makes the change only if it has begun to, which it does not before the end of its start";

/// Size of one read in bytes.
const CHUNK: usize = 16 * 1024;

/// A connection to the agent.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    pub(crate) timeout: Duration,
    last_id: u64,
    /// Bytes read after the last whole line.
    unread: Vec<u8>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens at the socket.
    #[error("no bondd answers at {} (start it by `systemctl start bondd`, or as root by `bondd`; if it runs with \
         another --run-dir, set BONDD_RUN_DIR to that)", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
    },
    /// The socket does not let this user connect.
    #[error("no permission to connect to {} (be root or in group bondd)", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("cannot talk to bondd at {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The agent is there but does not answer.
    #[error("bondd at {} did not answer within {:.0} s{outcome}", path.display(), timeout.as_secs_f32())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The time limit.
        timeout: Duration,
        /// What becomes of the call.
        outcome: &'static str,
    },
    /// The agent ended without a word, or dropped this client.
    #[error("bondd closed the connection at {}", path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The agent's start did not come to this bond in time.
    #[error("{bond} is not there yet: {why}")]
    Starting {
        /// The bond.
        bond: String,
        /// What the start does.
        why: String,
    },
    /// Events came faster than they were read, and some are lost.
    #[error("events came faster than they were read, some are lost")]
    Lagged,
    /// The answer is not in the format of this version.
    #[error("the program at {} is not a bondd of this version, it answered {line:?}", path.display())]
    Unintelligible {
        /// The socket.
        path: PathBuf,
        /// The beginning of the answer.
        line: String,
    },
    /// The agent refused.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

impl Client {
    /// Connects to the agent that uses this run directory.
    pub fn connect(run_dir: &Path) -> Result<Client, ClientError> {
        let path = run_dir.join(SOCKET);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Client {
                stream,
                path,
                timeout: ANSWER_TIMEOUT,
                last_id: 0,
                unread: Vec::new(),
            }),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon { path },
                io::ErrorKind::PermissionDenied => ClientError::Permission { path },
                _ => ClientError::Io { path, source },
            }),
        }
    }

    /// Waits for each answer until then, if that is longer than usual: for changes, which wait for the end of a start.
    pub fn wait_for_answers(&mut self, limit: Instant) {
        let left = limit.saturating_duration_since(Instant::now());
        self.timeout = self.timeout.max(left);
    }

    /// Sends a call and waits for the answer.
    pub fn call(&mut self, call: &Call) -> Result<Value, ClientError> {
        self.last_id += 1;
        let deadline = Instant::now() + self.timeout;
        self.send(call)?;
        loop {
            let mut answer = self.next_object(Some(deadline)).map_err(|mut error| {
                if let ClientError::Timeout { outcome, .. } = &mut error
                    && !call.reads_only()
                {
                    *outcome = UNKNOWN;
                }
                error
            })?;
            // An error without an id is about a line that the agent could not parse, which must be this request.
            let id = &answer["id"];
            if *id != self.last_id && !(id.is_null() && answer.get("error").is_some()) {
                continue;
            }
            return match answer.get_mut("error") {
                Some(error) => Err(ClientError::Refused(refusal(error.take()))),
                None => Ok(answer["ok"].take()),
            };
        }
    }

    /// The state of one bond or of all.
    pub fn report(&mut self, bond: Option<String>) -> Result<Report, ClientError> {
        let answer = self.call(&Call::Show { bond })?;
        Report::deserialize(&answer).map_err(|_| self.unintelligible(answer.to_string().as_bytes()))
    }

    /// The state of all bonds, once the start of the agent has come to this one: its interface may be there before.
    pub fn report_once_started(&mut self, bond: &str, limit: Instant) -> Result<Report, ClientError> {
        loop {
            let report = self.report(None)?;
            let mut starting = report.waiting.iter().filter(|waiting| waiting.starting);
            match starting.find(|waiting| waiting.name == bond) {
                None => return Ok(report),
                Some(_) if Instant::now() < limit => thread::sleep(PAUSE),
                Some(waiting) => {
                    return Err(ClientError::Starting {
                        bond: bond.to_owned(),
                        why: waiting.why.clone(),
                    });
                }
            }
        }
    }

    /// Subscribes to the events of one bond or of all.
    pub fn monitor(mut self, bond: Option<String>) -> Result<Events, ClientError> {
        self.call(&Call::Monitor { bond })?;
        Ok(Events { client: Some(self) })
    }

    fn send(&mut self, call: &Call) -> Result<(), ClientError> {
        let mut request = json!({ "id": self.last_id });
        let call = serde_json::to_value(call).map_err(|e| self.failed(e.into()))?;
        if let (Value::Object(request), Value::Object(call)) = (&mut request, call) {
            request.extend(call);
        }
        let sent = self
            .stream
            .set_write_timeout(Some(self.timeout))
            .and_then(|()| self.stream.write_all(format!("{request}\n").as_bytes()));
        match sent {
            // The agent may have sent the reason before it closed the connection.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|e| self.failed(e)),
        }
    }

    /// The next line, which must be a JSON object. Without a deadline it waits for ever.
    fn next_object(&mut self, deadline: Option<Instant>) -> Result<Value, ClientError> {
        let line = self.next_line(deadline)?;
        match serde_json::from_slice(&line) {
            Ok(object @ Value::Object(_)) => Ok(object),
            _ => Err(self.unintelligible(&line)),
        }
    }

    fn next_line(&mut self, deadline: Option<Instant>) -> Result<Vec<u8>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..].iter().position(|&b| b == b'\n') {
                let rest = self.unread.split_off(searched + at + 1);
                return Ok(mem::replace(&mut self.unread, rest));
            }
            searched = self.unread.len();
            self.wait_until(deadline)?;
            let mut chunk = [0; CHUNK];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(ClientError::Closed {
                        path: self.path.clone(),
                    });
                }
                Ok(n) => self.unread.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
    }

    /// Limits the wait of the next read.
    fn wait_until(&self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(self.failed(io::ErrorKind::TimedOut.into()));
        }
        self.stream.set_read_timeout(left).map_err(|e| self.failed(e))
    }

    fn unintelligible(&self, line: &[u8]) -> ClientError {
        ClientError::Unintelligible {
            path: self.path.clone(),
            line: String::from_utf8_lossy(line).chars().take(80).collect(),
        }
    }

    fn failed(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout {
                path,
                timeout: self.timeout,
                outcome: "",
            },
            io::ErrorKind::ConnectionReset => ClientError::Closed { path },
            _ => ClientError::Io { path, source },
        }
    }
}

/// Events as they come. Ends when the agent stops, or after the first error, which may be a closed connection.
pub struct Events {
    client: Option<Client>,
}

impl Iterator for Events {
    type Item = Result<Value, ClientError>;

    /// The next event line, unchanged.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let came = self.client.as_mut()?.next_object(None);
            let item = match came {
                Ok(line) if line["stopping"] == true => {
                    self.client = None;
                    return None;
                }
                Ok(line) if line.get("event").is_some() => Ok(line),
                Ok(line) if line["lagged"] == true => Err(ClientError::Lagged),
                // A line of a kind that only a newer agent sends.
                Ok(_) => continue,
                Err(e) => Err(e),
            };
            if item.is_err() {
                self.client = None;
            }
            return Some(item);
        }
    }
}

/// The reason of a refusal; an unknown code becomes `Refused` and keeps the message.
fn refusal(error: Value) -> ControlError {
    let message = error["message"]
        .as_str()
        .unwrap_or("refused without a reason")
        .to_owned();
    serde_json::from_value(error).unwrap_or_else(|_| ControlError::new(ErrorCode::Refused, message))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// A run directory whose socket answers the first request with these bytes and then closes.
    struct Scripted {
        dir: PathBuf,
        thread: Option<JoinHandle<String>>,
    }

    impl Scripted {
        fn new(name: &str, answer: &'static [u8]) -> Scripted {
            let dir = empty_dir(name);
            let listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
            let thread = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap())
                    .read_line(&mut line)
                    .unwrap();
                stream.write_all(answer).unwrap();
                line
            });
            Scripted {
                dir,
                thread: Some(thread),
            }
        }

        fn request(&mut self) -> Value {
            let line = self.thread.take().unwrap().join().unwrap();
            serde_json::from_str(&line).unwrap()
        }
    }

    impl Drop for Scripted {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    fn empty_dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("bondd-client-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn no_socket_and_a_socket_without_a_daemon_are_both_no_daemon() {
        let dir = empty_dir("none");
        let error = Client::connect(&dir).err().unwrap();
        assert!(matches!(error, ClientError::NoDaemon { .. }));
        assert!(error.to_string().starts_with("no bondd answers at "), "{error}");
        drop(UnixListener::bind(dir.join(SOCKET)).unwrap());
        assert!(matches!(Client::connect(&dir), Err(ClientError::NoDaemon { .. })));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_call_sends_one_line_and_returns_what_is_ok() {
        let mut agent = Scripted::new(
            "call",
            b"{\"event\":{}}\n{\"id\":7,\"ok\":1}\n{\"id\":1,\"ok\":[\"bond0\"]}\n",
        );
        let mut client = Client::connect(&agent.dir).unwrap();
        let call = Call::PortAttach {
            bond: "bond0".to_owned(),
            port: "eth0".to_owned(),
        };
        assert_eq!(client.call(&call).unwrap(), json!(["bond0"]));
        let sent = json!({"id":1,"call":"port-attach","bond":"bond0","port":"eth0"});
        assert_eq!(agent.request(), sent);
    }

    #[test]
    fn a_start_that_does_not_come_to_a_bond_in_time_is_told_as_that() {
        let answer = b"{\"id\":1,\"ok\":{\"schema\":1,\"bonds\":[],\"waiting\":[{\"name\":\"bond0\",\"why\":\"first others\",\
            \"next_attempt_ms\":0,\"starting\":true},{\"name\":\"bond1\",\"why\":\"no memory\",\"next_attempt_ms\":9}]}}\n";
        let asked = |bond: &str| {
            let agent = Scripted::new(bond, answer);
            Client::connect(&agent.dir)
                .unwrap()
                .report_once_started(bond, Instant::now())
        };
        let error = asked("bond0").unwrap_err();
        assert_eq!(error.to_string(), "bond0 is not there yet: first others");
        // Its start is over, whatever came of it.
        for bond in ["bond1", "bond2"] {
            assert_eq!(asked(bond).unwrap().waiting.len(), 2);
        }
    }

    #[test]
    fn a_refusal_keeps_its_message_even_under_a_code_from_the_future() {
        for (name, answer, code) in [
            (
                "known",
                &b"{\"id\":1,\"error\":{\"code\":\"port_busy\",\"message\":\"m\"}}\n"[..],
                ErrorCode::PortBusy,
            ),
            (
                "new",
                b"{\"id\":1,\"error\":{\"code\":\"bored\",\"message\":\"m\"}}\n",
                ErrorCode::Refused,
            ),
            (
                "noid",
                b"{\"id\":null,\"error\":{\"code\":\"bad_request\",\"message\":\"m\"}}\n",
                ErrorCode::BadRequest,
            ),
        ] {
            let agent = Scripted::new(name, answer);
            match Client::connect(&agent.dir).unwrap().call(&Call::List {}) {
                Err(ClientError::Refused(error)) => assert_eq!(error, ControlError::new(code, "m")),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_closed_connection_and_nonsense_are_told_apart() {
        let agent = Scripted::new("closed", b"{\"id\":1,\"o");
        let closed = Client::connect(&agent.dir).unwrap().call(&Call::List {});
        assert!(matches!(closed, Err(ClientError::Closed { .. })), "{closed:?}");
        let agent = Scripted::new("nonsense", b"HTTP/1.1 400 Bad Request\n");
        let nonsense = Client::connect(&agent.dir).unwrap().call(&Call::List {});
        assert!(
            matches!(nonsense, Err(ClientError::Unintelligible { .. })),
            "{nonsense:?}"
        );
    }

    #[test]
    fn an_agent_that_says_nothing_is_given_up_on() {
        let dir = empty_dir("silent");
        let _listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
        let mut client = Client::connect(&dir).unwrap();
        client.timeout = Duration::from_millis(20);
        let said = |outcome: Result<Value, ClientError>| match outcome {
            Err(error @ ClientError::Timeout { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(said(client.call(&Call::List {})).ends_with("did not answer within 0 s"));
        let change = Call::Del {
            bond: "bond0".to_owned(),
        };
        let change = said(client.call(&change));
        assert!(change.ends_with(UNKNOWN), "{change}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn events_come_until_the_client_lags() {
        let agent = Scripted::new(
            "events",
            b"{\"id\":1,\"ok\":{}}\n{\"event\":{\"n\":1}}\n{\"news\":2}\n{\"event\":{\"n\":3}}\n{\"lagged\":true}\n",
        );
        let mut events = Client::connect(&agent.dir).unwrap().monitor(None).unwrap();
        assert_eq!(events.next().unwrap().unwrap(), json!({"event":{"n":1}}));
        assert_eq!(events.next().unwrap().unwrap(), json!({"event":{"n":3}}));
        assert!(matches!(events.next(), Some(Err(ClientError::Lagged))));
        assert!(events.next().is_none());
    }
}
