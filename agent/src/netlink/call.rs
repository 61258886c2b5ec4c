//! Runs the futures of rtnetlink and ethtool on one socket, without a runtime or a thread.
//!
//! The kernel handles a request inside `send` and queues its reply before `send` returns, so a call hardly ever waits. The
//! deadline is for a kernel that does not answer. It counts from the end of the last `send`, because `send` may block for long
//! while other processes hold the kernel's locks; a reply that has arrived is read in any case.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::BufMut;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr};

/// A netlink connection that is polled only during a call.
pub(super) struct Caller {
    connection: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The connection's socket, open as long as `connection` lives.
    socket: RawFd,
    /// How many messages the socket has sent.
    sent: Arc<AtomicUsize>,
}

impl Caller {
    /// `socket` is the descriptor on which `connection` waits, `sent` counts the messages that left through it.
    pub(super) fn new(
        connection: impl Future<Output = ()> + Send + 'static,
        socket: RawFd,
        sent: Arc<AtomicUsize>,
    ) -> Self {
        Caller {
            connection: Box::pin(connection),
            socket,
            sent,
        }
    }

    /// Runs `request` to its end. After an error the connection must not be used again: a late answer may follow.
    ///
    /// Waits for the socket only when no waker fired since the last poll: ethtool's first call passes its second request from
    /// one future to the other without the socket becoming readable in between.
    pub(super) fn call<F: Future>(&mut self, request: F) -> io::Result<F::Output> {
        self.call_within(PATIENCE, request)
    }

    fn call_within<F: Future>(&mut self, patience: Duration, request: F) -> io::Result<F::Output> {
        let mut deadline = Instant::now() + patience;
        let mut sent = self.sent.load(Ordering::Relaxed);
        let mut last_read = false;
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut request = pin!(request);
        loop {
            woken.0.store(false, Ordering::Relaxed);
            let closed = self.connection.as_mut().poll(&mut context).is_ready();
            if let Poll::Ready(output) = request.as_mut().poll(&mut context) {
                return Ok(output);
            }
            if closed {
                return Err(Errno::ENOTCONN.into());
            }
            let sent_now = self.sent.load(Ordering::Relaxed);
            if sent_now != sent {
                sent = sent_now;
                deadline = Instant::now() + patience;
            }
            if woken.0.load(Ordering::Relaxed) {
                continue;
            }
            if last_read {
                return Err(Errno::ETIMEDOUT.into());
            }
            last_read = Instant::now() >= deadline;
            if !readable_before(self.socket(), deadline)? {
                return Err(Errno::ETIMEDOUT.into());
            }
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: `connection` owns the socket and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.socket) }
    }
}

/// Sleeps until a socket is readable; false at the deadline. After the deadline the socket is checked once, however late it is.
pub(crate) fn readable_before(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, to avoid a busy loop in the last millisecond.
        let wait = match left.is_zero() {
            true => PollTimeout::ZERO,
            false => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], wait) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A non-blocking netlink socket under a connection. It never registers a waker: [`Caller::call`] waits for it.
pub(super) struct CallSocket {
    socket: Socket,
    sent: Arc<AtomicUsize>,
}

impl CallSocket {
    /// Counts the messages that have been sent.
    pub(super) fn sent(&self) -> Arc<AtomicUsize> {
        self.sent.clone()
    }

    fn note_sent<T>(&self, sent: io::Result<T>) -> Poll<io::Result<T>> {
        #[cfg(test)]
        tests::slow::wait();
        self.sent.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(sent)
    }
}

impl AsRawFd for CallSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsyncSocket for CallSocket {
    fn socket_ref(&self) -> &Socket {
        &self.socket
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn new(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        Ok(CallSocket {
            socket,
            sent: Arc::default(),
        })
    }

    // A send to the kernel never blocks, the kernel takes the message inside the call: any error is a real one.
    fn poll_send(&self, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note_sent(self.socket.send(buf, 0))
    }

    fn poll_send_to(&self, _: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        self.note_sent(self.socket.send_to(buf, addr, 0))
    }

    fn poll_recv<B: BufMut>(&self, _: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        pending_if_empty(self.socket.recv(buf, 0)).map_ok(|_| ())
    }

    fn poll_recv_from<B: BufMut>(&self, _: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        pending_if_empty(self.socket.recv_from(buf, 0)).map_ok(|(_, from)| from)
    }

    fn poll_recv_from_full(&self, _: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        pending_if_empty(self.socket.recv_from_full())
    }
}

fn pending_if_empty<T>(received: io::Result<T>) -> Poll<io::Result<T>> {
    match received {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        received => Poll::Ready(received),
    }
}

/// Records that a future wants to be polled again.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Longest wait for an answer after the kernel has taken the request.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod tests {
    use std::future::{pending, poll_fn, ready};

    use futures_util::TryStreamExt;

    use super::*;
    use crate::netlink::RouteSocket;
    use crate::netlink::tests::in_netns;

    /// Sends that block, as while other programs hold the kernel's locks.
    pub(crate) mod slow {
        use std::cell::Cell;
        use std::time::Duration;

        /// How many sends come before, and what the slow one does at its end.
        type Slow = (usize, Box<dyn FnOnce()>);

        thread_local! {
            static SLOW: Cell<Option<Slow>> = const { Cell::new(None) };
        }

        /// Makes one of this thread's sends take that long: 0 means the next one, 1 the one after it.
        pub(in crate::netlink) fn send(later: usize, takes: Duration) {
            hold(later, move || std::thread::sleep(takes));
        }

        /// Makes one of this thread's sends end with this.
        pub(crate) fn hold(later: usize, until: impl FnOnce() + 'static) {
            SLOW.set(Some((later, Box::new(until))));
        }

        pub(in crate::netlink) fn wait() {
            match SLOW.take() {
                Some((0, until)) => until(),
                Some((later, until)) => SLOW.set(Some((later - 1, until))),
                None => {}
            }
        }
    }

    /// A caller whose socket stays silent.
    fn silent(
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> (Caller, std::io::PipeReader, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        let caller = Caller::new(connection, reader.as_raw_fd(), Arc::default());
        (caller, reader, writer)
    }

    #[test]
    fn a_future_that_woke_itself_is_polled_again_without_waiting_for_the_socket() {
        let (mut caller, _reader, _writer) = silent(pending());
        let mut rounds = 0;
        let request = poll_fn(|context| {
            rounds += 1;
            if rounds == 3 {
                return Poll::Ready(rounds);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let started = Instant::now();
        assert_eq!(caller.call(request).unwrap(), 3);
        assert!(started.elapsed() < PATIENCE);
    }

    #[test]
    fn the_first_ethtool_call_does_not_stall_between_its_two_requests() {
        let (mut connection, mut handle, _) = ethtool::new_connection_with_socket::<CallSocket>().unwrap();
        let socket = connection.socket_mut();
        let (socket, sent) = (socket.as_raw_fd(), socket.sent());
        let mut caller = Caller::new(connection, socket, sent);
        let started = Instant::now();
        let request = handle.link_mode().get(Some("lo"));
        let answer = caller.call(async move { request.execute().await?.try_collect::<Vec<_>>().await });
        // lo has no link modes; the test is that the kernel answers so, at once.
        assert!(matches!(answer.unwrap(), Err(ethtool::EthtoolError::NetlinkError(_))));
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    }

    #[test]
    fn a_silent_kernel_is_given_up() {
        let (mut caller, _reader, _writer) = silent(pending());
        let refused = caller
            .call_within(Duration::from_millis(5), pending::<()>())
            .unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ETIMEDOUT));
    }

    #[test]
    fn a_closed_connection_ends_the_call() {
        let (mut caller, _reader, _writer) = silent(ready(()));
        let refused = caller.call(pending::<()>()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTCONN));
    }
    #[test]
    fn a_request_that_was_carried_out_is_done_however_long_its_sending_took() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            slow::send(0, PATIENCE + Duration::from_millis(200));
            links.add_veth("a", "b").unwrap();
            // The second message of the first ethtool call; the first one asked for the number of the family.
            for message in [0, 1] {
                let mut links = RouteSocket::open().unwrap();
                slow::send(message, PATIENCE + Duration::from_millis(200));
                let (speed, _) = links.speed_duplex("a");
                assert_eq!(speed.0, Some(10_000), "message {message}");
            }
        });
    }

    #[test]
    fn an_answer_that_is_there_at_the_deadline_is_read() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let past = Instant::now();
        assert!(!readable_before(std::os::fd::AsFd::as_fd(&reader), past).unwrap());
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        assert!(readable_before(std::os::fd::AsFd::as_fd(&reader), past).unwrap());
    }

    #[test]
    fn a_socket_that_is_readable_for_ever_is_given_up() {
        let (mut caller, _reader, mut writer) = silent(pending());
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        let refused = caller
            .call_within(Duration::from_millis(5), pending::<()>())
            .unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ETIMEDOUT));
    }
}
