//! What programs put on a bond: streams of TCP, questions with answers, and datagrams as fast as they can be sent.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::netns::Netns;

/// A stream of TCP that a thread fills until it is dropped.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl Stream {
    /// To a program that reads and forgets what comes.
    ///
    /// # Panics
    /// When nobody is there.
    #[track_caller]
    pub fn start(netns: &Netns, to: (Ipv4Addr, u16)) -> Stream {
        let socket = netns.enter(|| TcpStream::connect(to));
        let socket = socket.unwrap_or_else(|e| panic!("cannot connect to {to:?}: {e}"));
        // The usual one, also where the system has another.
        setsockopt(&socket, sockopt::TcpCongestion, &"cubic".into()).expect("every kernel has cubic");
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut end = socket.try_clone().expect("a descriptor to spare");
        let writer = thread::spawn({
            let (written, stop) = (written.clone(), stop.clone());
            move || {
                let block = vec![0; BLOCK];
                while !stop.load(Ordering::Relaxed) {
                    match end.write(&block) {
                        Ok(length) => written.fetch_add(length as u64, Ordering::Relaxed),
                        Err(e) => panic!("the stream broke: {e}"),
                    };
                }
            }
        });
        Stream {
            socket,
            written,
            stop,
            writer: Some(writer),
        }
    }

    /// Bytes that have arrived for certain.
    pub fn acknowledged(&self) -> u64 {
        let mut waiting: libc::c_int = 0;
        let written = self.written.load(Ordering::Relaxed);
        // SAFETY: the call writes one int, to a place that outlives it. [tcp(7): SIOCOUTQ]
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        written.saturating_sub(waiting as u64)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

/// Takes streams, as many as come, and forgets what they bring.
#[derive(Debug)]
pub struct Drain {
    port: u16,
    taken: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    netns: Netns,
    accepting: Option<JoinHandle<()>>,
}

impl Drain {
    /// On all addresses of a namespace.
    pub fn start(netns: &Netns) -> Drain {
        let listener = netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a TCP socket"));
        let port = listener.local_addr().expect("it is bound").port();
        let (taken, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let accepting = thread::spawn({
            let (taken, stop) = (taken.clone(), stop.clone());
            move || {
                for connection in listener.incoming() {
                    let (Ok(connection), false) = (connection, stop.load(Ordering::Relaxed)) else {
                        return;
                    };
                    let taken = taken.clone();
                    thread::spawn(move || drain(connection, &taken));
                }
            }
        });
        Drain {
            port,
            taken,
            stop,
            netns: netns.clone(),
            accepting: Some(accepting),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // One more connection wakes it.
        let woken = self
            .netns
            .enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if woken.is_ok() {
            let _ = self.accepting.take().map(JoinHandle::join);
        }
    }
}

fn drain(mut connection: TcpStream, taken: &AtomicU64) {
    let mut buffer = vec![0; 4 * BLOCK];
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        taken.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// How long answers took, the shortest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(Vec<Duration>);

impl Answers {
    /// How long it took at most for so many of a hundred.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Asks a socket that sends back the first byte of what it gets, one question after the other with this long between, for this long. One
/// without an answer counts as one that took a second. In the calling thread's namespace.
///
/// # Panics
/// When there is no way to that address.
#[track_caller]
pub fn ask(to: (Ipv4Addr, u16), pause: Duration, time: Duration) -> Answers {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
    socket.connect(to).expect("a route to who answers");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket takes a time-out");
    let (mut trips, mut byte, start, mut number) = (Vec::new(), [0; 1], Instant::now(), 0_u8);
    while start.elapsed() < time {
        number = number.wrapping_add(1);
        let asked = Instant::now();
        // A question that the queue refuses has no answer, either.
        let _ = socket.send(&[number]);
        // What comes first may be the answer to an earlier question.
        while socket.recv(&mut byte).is_ok() && byte[0] != number {}
        trips.push(asked.elapsed());
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    trips.sort_unstable();
    Answers(trips)
}

/// A socket that answers [`ask`], until it is dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
    port: u16,
}

impl Echo {
    /// On all addresses of a namespace.
    pub fn start(netns: &Netns) -> Echo {
        let socket = netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket"));
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket takes a time-out");
        let port = socket.local_addr().expect("it is bound").port();
        let stop = Arc::new(AtomicBool::new(false));
        let answering = thread::spawn({
            let stop = stop.clone();
            move || {
                let mut byte = [0; 1];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = socket.recv_from(&mut byte) {
                        // Who asked may be gone.
                        let _ = socket.send_to(&byte[..length], from);
                    }
                }
            }
        });
        Echo {
            stop,
            answering: Some(answering),
            port,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.answering.take().map(JoinHandle::join);
    }
}

/// Sends datagrams with so many bytes, as fast as the kernel takes them; how many were tried in this time. In the calling thread's
/// namespace, through a socket as programs get it.
///
/// # Panics
/// When there is no way to that address.
#[track_caller]
pub fn blast(to: (Ipv4Addr, u16), bytes: usize, time: Duration) -> u64 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
    socket.connect(to).expect("a route to the receiver");
    let (datagram, start, mut tried) = (vec![0; bytes], Instant::now(), 0);
    while start.elapsed() < time {
        // One that the queue refuses was tried, too.
        let _ = socket.send(&datagram);
        tried += 1;
    }
    tried
}

/// Bytes that are written at once.
const BLOCK: usize = 64 << 10;
/// Longer than any queue is.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_most_that_so_many_took() {
        let answers = Answers((1..=200).map(Duration::from_micros).collect());
        let of = |percent| answers.percentile(percent).as_micros();
        assert_eq!([50, 99, 100].map(of), [100, 198, 200]);
        assert_eq!(Answers::default().percentile(50), Duration::ZERO);
    }

    #[test]
    fn a_stream_is_taken_and_what_was_taken_is_acknowledged() {
        let netns = Netns::new("alone");
        let drain = Drain::start(&netns);
        let stream = Stream::start(&netns, (Ipv4Addr::LOCALHOST, drain.port()));
        crate::wait_for("a stream", Duration::from_secs(5), || drain.taken() > 1 << 20);
        assert!(stream.acknowledged() > 0);
    }

    #[test]
    fn questions_are_answered_and_datagrams_sent() {
        let netns = Netns::new("alone");
        let echo = Echo::start(&netns);
        let to = (Ipv4Addr::LOCALHOST, echo.port());
        let answers = netns.enter(|| ask(to, Duration::from_millis(1), Duration::from_millis(20)));
        assert!(
            (1..1_000_000).contains(&answers.percentile(100).as_micros()),
            "{answers:?}"
        );
        assert!(netns.enter(|| blast(to, 10, Duration::from_millis(5))) > 0);
    }
}
