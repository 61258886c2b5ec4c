//! A client of the control socket that shares no code with the one under test.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// One connection; a call waits for its answer.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects; every later read gives up after two seconds.
    pub fn connect(socket: &Path) -> io::Result<Control> {
        Control::connect_patiently(socket, Duration::from_secs(2))
    }

    /// Connects; every later read gives up after `patience`.
    pub fn connect_patiently(socket: &Path, patience: Duration) -> io::Result<Control> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Control {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a call; the outer error is the connection's, the inner one the daemon's refusal.
    pub fn call(&mut self, mut request: Value) -> io::Result<Result<Value, Value>> {
        request["id"] = json!(1);
        self.send(format!("{request}\n").as_bytes())?;
        let mut answer: Value = serde_json::from_str(&self.line()?)?;
        Ok(match answer.get_mut("ok") {
            Some(ok) => Ok(ok.take()),
            None => Err(answer["error"].take()),
        })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Next line; an error at the end of the stream.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// Whether the other side closes the connection within the read limit; its earlier output is discarded.
    pub fn is_closed_by_peer(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(e) => matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
        }
    }
}
