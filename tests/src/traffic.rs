//! Counted traffic: numbered UDP frames from one namespace to another, every attempt accounted for.
//!
//! The sender counts attempts, so that a frame refused at the egress is a loss too. The receiver must never be the one that
//! loses: it asks its own socket for drops, and a measurement with such drops fails instead of lying.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::netns::Netns;
use crate::process::hurry;
use crate::wait::until;

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Evenly spaced.
    PerSecond(u32),
    /// As fast as the sender can, never more than a window ahead of the receiver.
    Full,
}

/// The usual measuring rate: one frame lost is 0.1 ms of outage.
pub const TEN_THOUSAND: Rate = Rate::PerSecond(10_000);

/// Traffic that is running.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<Received>>,
}

impl Flow {
    /// Starts sending from `from` to `address`, which is in `to`, and returns once the first frame has arrived.
    ///
    /// # Panics
    /// When no frame arrives within three seconds.
    #[track_caller]
    pub fn start(from: &Netns, to: &Netns, address: Ipv4Addr, rate: Rate) -> Flow {
        Flow::start_with(from, to, address, rate, || {})
    }

    /// The same, with a sender that a busy machine does not delay: each frame leaves when it is due.
    #[track_caller]
    pub fn start_punctual(from: &Netns, to: &Netns, address: Ipv4Addr, per_second: u32) -> Flow {
        Flow::start_with(from, to, address, Rate::PerSecond(per_second), hurry)
    }

    #[track_caller]
    fn start_with(from: &Netns, to: &Netns, address: Ipv4Addr, rate: Rate, prepare_sender: fn()) -> Flow {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared::default());
        let socket = to
            .enter(|| receiving_socket(address, port))
            .unwrap_or_else(|e| panic!("cannot receive on {address}: {e}"));
        let receiver = {
            let (shared, netns) = (shared.clone(), to.clone());
            thread::spawn(move || {
                netns.join();
                receive(&socket, port, &shared)
            })
        };
        let sender = {
            let (shared, netns) = (shared.clone(), from.clone());
            thread::spawn(move || {
                netns.join();
                prepare_sender();
                send((address, port), rate, &shared)
            })
        };
        let flow = Flow {
            shared,
            sender: Some(sender),
            receiver: Some(receiver),
        };
        let came = until(Duration::from_secs(3), || (flow.arrived() > 0).then_some(()));
        assert!(came.is_some(), "no frame reaches {address} from {}", from.name());
        flow
    }

    /// Frames attempted so far: a mark for [`Record::between`].
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Frames received so far.
    pub fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// Lets so many more frames be attempted.
    ///
    /// # Panics
    /// When the sender stands still for ten seconds.
    #[track_caller]
    pub fn pass(&self, frames: u64) {
        let mark = self.sent() + frames;
        let passed = until(Duration::from_secs(10), || (self.sent() >= mark).then_some(()));
        assert!(passed.is_some(), "the sender stands still");
    }

    /// Stops and returns the fate of every frame.
    ///
    /// # Panics
    /// When the receiver's own socket dropped frames, so that nothing can be said about the way there.
    #[track_caller]
    pub fn finish(mut self) -> Record {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        let sent = join(self.sender.take());
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        let received = join(self.receiver.take());
        assert_eq!(
            received.dropped_by_socket, 0,
            "the receiver was too slow: measure again on an idle machine"
        );
        Record { sent, received }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        // The threads hold the namespaces, which must go before the test ends; their panics were reported already.
        let _ = self.sender.take().map(JoinHandle::join);
        let _ = self.receiver.take().map(JoinHandle::join);
    }
}

/// Result of a range of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that the sender tried to send.
    pub attempted: u64,
    /// Of those, refused by `send`; they count as lost.
    pub failed_send: u64,
    /// Frames that arrived at least once.
    pub received: u64,
    /// `attempted - received`.
    pub lost: u64,
    /// Copies beyond the first.
    pub doubled: u64,
    /// Frames that came after one with a higher number.
    pub reordered: u64,
    /// Longest time, by send times, between two neighbouring frames that arrived with lost ones in between; zero if none was lost.
    pub longest_gap: Duration,
}

/// Record of finished traffic.
#[derive(Debug)]
pub struct Record {
    sent: Sent,
    received: Received,
}

impl Record {
    /// All of it.
    pub fn tally(&self) -> Tally {
        self.between(0..self.sent.micros.len() as u64)
    }

    /// Numbers of the frames that were due to be sent between these times.
    pub fn numbers(&self, times: Range<Instant>) -> Range<u64> {
        let number = |time: Instant| {
            let micros = time.saturating_duration_since(self.sent.start).as_micros();
            self.sent.micros.partition_point(|sent| u128::from(*sent) < micros) as u64
        };
        number(times.start)..number(times.end)
    }

    /// The frames with these numbers, as [`Flow::sent`] gave them.
    pub fn between(&self, numbers: Range<u64>) -> Tally {
        let mut tally = Tally::default();
        let mut last_arrived = None;
        let mut hole = false;
        for number in numbers.clone() {
            let Some(&micros) = self.sent.micros.get(number as usize) else {
                break;
            };
            tally.attempted += 1;
            let copies = self.received.copies.get(number as usize).copied().unwrap_or(0);
            if copies == 0 {
                hole = true;
                continue;
            }
            tally.received += 1;
            tally.doubled += u64::from(copies) - 1;
            if let Some(before) = last_arrived.filter(|_| hole) {
                tally.longest_gap = tally.longest_gap.max(Duration::from_micros(u64::from(micros - before)));
            }
            (last_arrived, hole) = (Some(micros), false);
        }
        let in_range = |list: &[u64]| list.iter().filter(|number| numbers.contains(number)).count() as u64;
        tally.lost = tally.attempted - tally.received;
        tally.failed_send = in_range(&self.sent.failed);
        tally.reordered = in_range(&self.received.late);
        tally
    }
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    arrived: AtomicU64,
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
}

#[derive(Debug)]
struct Sent {
    start: Instant,
    /// Send time of every frame since the first, in microseconds.
    micros: Vec<u32>,
    /// Numbers of those refused.
    failed: Vec<u64>,
}

#[derive(Debug)]
struct Received {
    /// How often each number came.
    copies: Vec<u8>,
    /// Numbers that came after a higher one.
    late: Vec<u64>,
    dropped_by_socket: u64,
}

fn send(to: (Ipv4Addr, u16), rate: Rate, shared: &Shared) -> Sent {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
    socket.connect(to).expect("a route to the receiver");
    // SAFETY: prctl(2) with a number as its argument touches no memory of ours; it makes this thread's sleeps exact.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
    let (mut micros, mut failed) = (Vec::with_capacity(RESERVE), Vec::new());
    let mut frame = [0_u8; FRAME];
    let start = Instant::now();
    let mut forgiven = 0;
    while !shared.stop_sending.load(Ordering::Relaxed) {
        let number = micros.len() as u64;
        match rate {
            Rate::PerSecond(rate) => {
                sleep_until(start + Duration::from_nanos(number * 1_000_000_000 / u64::from(rate)))
            }
            Rate::Full => forgiven = wait_for_window(number, forgiven, shared),
        }
        frame[..8].copy_from_slice(&number.to_be_bytes());
        micros.push(u32::try_from(start.elapsed().as_micros()).expect("no measurement takes an hour"));
        if socket.send(&frame).is_err() {
            failed.push(number);
        }
        shared.sent.store(number + 1, Ordering::Relaxed);
    }
    Sent { start, micros, failed }
}

fn sleep_until(at: Instant) {
    let left = at.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

/// Waits while the receiver is too far behind. Frames missing for long were lost and do not count as being on their way:
/// returns how many those are.
fn wait_for_window(number: u64, forgiven: u64, shared: &Shared) -> u64 {
    let missing = || number.saturating_sub(shared.arrived.load(Ordering::Relaxed));
    if missing().saturating_sub(forgiven) < WINDOW {
        return forgiven;
    }
    let since = Instant::now();
    while missing().saturating_sub(forgiven) >= WINDOW / 2 {
        if since.elapsed() > Duration::from_millis(200) {
            return missing();
        }
        thread::yield_now();
    }
    forgiven
}

fn receiving_socket(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(QUIET))?;
    Ok(socket)
}

fn receive(socket: &UdpSocket, port: u16, shared: &Shared) -> Received {
    let mut batch = Batch::new();
    let mut copies: Vec<u8> = Vec::with_capacity(RESERVE);
    let mut late = Vec::new();
    let mut highest = None;
    loop {
        let mut news = 0;
        let count = batch.receive(socket);
        for number in batch.numbers(count) {
            let index = number as usize;
            if copies.len() <= index {
                copies.resize(index + 1, 0);
            }
            if copies[index] == 0 {
                news += 1;
                if highest.is_some_and(|highest| number < highest) {
                    late.push(number);
                }
            }
            copies[index] = copies[index].saturating_add(1);
            highest = highest.max(Some(number));
        }
        shared.arrived.fetch_add(news, Ordering::Relaxed);
        // Quiet for a whole read timeout after the last frame was sent: nothing is on its way any more.
        if count == 0 && shared.stop_receiving.load(Ordering::Relaxed) {
            break;
        }
    }
    Received {
        copies,
        late,
        dropped_by_socket: socket_drops(port),
    }
}

/// Column `drops` of our socket in this thread's `/proc/net/udp`.
fn socket_drops(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/udp").expect("proc is mounted");
    let local = format!(":{port:04X}");
    let line = table.lines().find(|line| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|field| field.ends_with(&local))
    });
    let drops = line
        .and_then(|line| line.split_whitespace().last())
        .and_then(|drops| drops.parse().ok());
    drops.expect("the receiver's socket is in the table")
}

/// Buffers for reading many frames at once.
struct Batch {
    frames: Vec<[u8; FRAME]>,
}

impl Batch {
    fn new() -> Batch {
        Batch {
            frames: vec![[0; FRAME]; 128],
        }
    }

    /// Reads what is there, waiting for the first; zero after a time-out.
    fn receive(&mut self, socket: &UdpSocket) -> usize {
        let mut vectors: Vec<libc::iovec> = (self.frames.iter_mut())
            .map(|frame| libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
                iov_len: FRAME,
            })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = (vectors.iter_mut())
            .map(|vector| {
                // SAFETY: all zeros is a valid msghdr: no name, no control data, no buffers.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        // SAFETY: each header points to one vector, and each vector to one frame of FRAME bytes; all outlive the call, and the
        // count is theirs.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(count).unwrap_or(0)
    }

    fn numbers(&self, count: usize) -> impl Iterator<Item = u64> {
        self.frames[..count].iter().map(|frame| {
            let (number, _) = frame.split_first_chunk().expect("a frame is longer than its number");
            u64::from_be_bytes(*number)
        })
    }
}

fn join<T>(thread: Option<JoinHandle<T>>) -> T {
    let thread = thread.expect("only finish and drop take the threads");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// UDP payload in bytes.
const FRAME: usize = 64;
/// Frames for which memory is reserved, so that no growing vector halts the sender; untouched memory costs nothing.
const RESERVE: usize = 32 << 20;
/// Frames on their way at full rate; far below what the receive buffer takes.
const WINDOW: u64 = 16_384;
/// Bytes; doubled by the kernel.
const RECEIVE_BUFFER: usize = 64 << 20;
/// How long nothing must come to be sure that nothing will.
const QUIET: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(micros: &[u32], copies: &[u8]) -> Record {
        Record {
            sent: Sent {
                start: Instant::now(),
                micros: micros.to_vec(),
                failed: vec![],
            },
            received: Received {
                copies: copies.to_vec(),
                late: vec![],
                dropped_by_socket: 0,
            },
        }
    }

    #[test]
    fn the_gap_spans_the_lost_frames_and_a_slow_sender_makes_none() {
        let seen = record(&[0, 100, 200, 300, 5000], &[1, 0, 0, 2, 1]).tally();
        assert_eq!((seen.attempted, seen.received, seen.lost, seen.doubled), (5, 3, 2, 1));
        assert_eq!(seen.longest_gap, Duration::from_micros(300));
    }

    #[test]
    fn frames_missing_at_the_end_are_lost() {
        assert_eq!(record(&[0, 100, 200], &[1]).tally().lost, 2);
        assert_eq!(record(&[0, 100, 200], &[1]).between(0..1).lost, 0);
    }

    #[test]
    fn frames_are_found_by_the_times_at_which_they_were_sent() {
        let record = record(&[0, 100, 200, 300], &[1; 4]);
        let at = |micros| record.sent.start + Duration::from_micros(micros);
        assert_eq!(record.numbers(at(100)..at(201)), 1..3);
        assert_eq!(record.numbers(at(301)..at(900)), 4..4);
    }

    #[test]
    fn a_plain_cable_loses_nothing_and_a_pulled_one_everything() {
        use crate::netns::Cable;
        let _machine = crate::machine::Machine::alone();
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        let cable = Cable::new(&a, "eth0", &b, "eth0");
        a.ip("addr add 10.9.0.1/24 dev eth0");
        b.ip("addr add 10.9.0.2/24 dev eth0");
        let flow = Flow::start(&a, &b, Ipv4Addr::new(10, 9, 0, 2), Rate::Full);
        flow.pass(50_000);
        let whole = flow.sent();
        cable.pull();
        thread::sleep(Duration::from_millis(100));
        let record = flow.finish();
        let before = record.between(0..whole);
        assert_eq!((before.lost, before.doubled), (0, 0), "{before:?}");
        assert!(record.tally().lost > 0);
    }
}
