//! Runs the futures of rtnetlink and ethtool on one socket, without a runtime or a thread.
//!
//! The kernel handles a request inside `send`, and has queued its reply when `send` returns. So a call waits in `send` if at all:
//! for seconds, where another process holds the kernel's RTNL lock and the request needs it. The deadline is for a kernel that
//! does not answer. It counts from the end of the last `send`; a reply that has arrived is read in any case.
//!
//! Errors of the socket do not go through the connection, which would log them in words of its own and end without a reason: the
//! socket keeps them for the call.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
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
    work: Arc<Work>,
}

impl Caller {
    /// `socket` is the descriptor on which `connection` waits, `work` what it has done.
    pub(super) fn new(connection: impl Future<Output = ()> + Send + 'static, socket: RawFd, work: Arc<Work>) -> Self {
        Caller {
            connection: Box::pin(connection),
            socket,
            work,
        }
    }

    /// Runs `request` to its end, and waits so long for an answer after the kernel has taken it. After an error the connection must not
    /// be used again: a late answer may follow.
    ///
    /// Waits for the socket only when no waker fired since the last poll: ethtool's first call passes its second request from
    /// one future to the other without the socket becoming readable in between.
    pub(super) fn call_within<F: Future>(&mut self, patience: Duration, request: F) -> io::Result<F::Output> {
        let mut deadline = Instant::now() + patience;
        let mut sent = self.work.sent.load(Ordering::Relaxed);
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
            if let Some(error) = self.work.take_failure() {
                return Err(error);
            }
            if closed {
                return Err(Errno::ENOTCONN.into());
            }
            let sent_now = self.work.sent.load(Ordering::Relaxed);
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

/// What a socket has done for the calls on it.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Number of messages that were given to the kernel, or refused by it.
    sent: AtomicUsize,
    /// The errno of its first failure that no call has got, else 0.
    failure: AtomicI32,
}

impl Work {
    fn failed(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let _ = self
            .failure
            .compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn take_failure(&self) -> Option<io::Error> {
        match self.failure.swap(0, Ordering::Relaxed) {
            0 => None,
            errno => Some(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A non-blocking netlink socket under a connection. It never registers a waker: [`Caller::call_within`] waits for it. What fails is
/// kept for the call: to the connection, a message that could not be sent is sent, and none has come that could not be received.
pub(super) struct CallSocket {
    socket: Socket,
    work: Arc<Work>,
    /// A message was read, and the call is to take it before the next one is. Else the connection would gather the whole answer,
    /// which is large when there are many interfaces.
    read: AtomicBool,
}

impl CallSocket {
    /// What this socket has done, and does from now on.
    pub(super) fn work(&self) -> Arc<Work> {
        self.work.clone()
    }

    // A send to the kernel never blocks, the kernel takes the message inside the call: any error is a real one.
    fn note_sent(&self, length: usize, send: impl FnOnce() -> io::Result<usize>) -> Poll<io::Result<usize>> {
        #[cfg(test)]
        let send = || tests::refused::here().and_then(|()| send());
        let sent = send();
        #[cfg(test)]
        tests::slow::wait();
        self.work.sent.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(sent.unwrap_or_else(|error| {
            self.work.failed(&error);
            length
        })))
    }

    fn note_received<T>(
        &self,
        context: &Context<'_>,
        mut receive: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if self.read.swap(false, Ordering::Relaxed) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match receive() {
                Ok(received) => {
                    self.read.store(true, Ordering::Relaxed);
                    return Poll::Ready(Ok(received));
                }
                // The kernel had no room for a message. Those that it had room for are still there, and an answer that is missing
                // is one that does not come.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.work.failed(&error);
                    }
                    return Poll::Pending;
                }
            }
        }
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
            work: Arc::default(),
            read: AtomicBool::new(false),
        })
    }

    fn poll_send(&self, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note_sent(buf.len(), || self.socket.send(buf, 0))
    }

    fn poll_send_to(&self, _: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        self.note_sent(buf.len(), || self.socket.send_to(buf, addr, 0))
    }

    fn poll_recv<B: BufMut>(&self, context: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.note_received(context, || self.socket.recv(buf, 0)).map_ok(|_| ())
    }

    fn poll_recv_from<B: BufMut>(&self, context: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        self.note_received(context, || self.socket.recv_from(buf, 0))
            .map_ok(|(_, from)| from)
    }

    fn poll_recv_from_full(&self, context: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.note_received(context, || self.socket.recv_from_full())
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

/// Longest wait for an answer after the kernel has taken the request, of those who may wait.
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

    /// Sends that the kernel refuses.
    pub(in crate::netlink) mod refused {
        use std::cell::Cell;
        use std::io;

        thread_local!(static REFUSED: Cell<Option<(usize, i32)>> = const { Cell::new(None) });

        /// Makes one of this thread's sends fail: 0 means the next one, 1 the one after it.
        pub(in crate::netlink) fn at(later: usize, errno: i32) {
            REFUSED.set(Some((later, errno)));
        }

        pub(in crate::netlink) fn here() -> io::Result<()> {
            match REFUSED.take() {
                Some((0, errno)) => return Err(io::Error::from_raw_os_error(errno)),
                Some((later, errno)) => REFUSED.set(Some((later - 1, errno))),
                None => {}
            }
            Ok(())
        }
    }

    /// What the crates below the sockets log on this thread.
    mod foreign {
        use std::cell::RefCell;

        thread_local!(static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

        struct Log;

        impl log::Log for Log {
            fn enabled(&self, _: &log::Metadata<'_>) -> bool {
                true
            }

            fn log(&self, record: &log::Record<'_>) {
                if record.target().starts_with("netlink") {
                    LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
                }
            }

            fn flush(&self) {}
        }

        pub(super) fn lines(body: impl FnOnce()) -> Vec<String> {
            let _ = log::set_logger(&Log);
            log::set_max_level(log::LevelFilter::Warn);
            LINES.take();
            body();
            LINES.take()
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
        assert_eq!(caller.call_within(PATIENCE, request).unwrap(), 3);
        assert!(started.elapsed() < PATIENCE);
    }

    #[test]
    fn the_first_ethtool_call_does_not_stall_between_its_two_requests() {
        let (mut connection, mut handle, _) = ethtool::new_connection_with_socket::<CallSocket>().unwrap();
        let socket = connection.socket_mut();
        let (socket, work) = (socket.as_raw_fd(), socket.work());
        let mut caller = Caller::new(connection, socket, work);
        let started = Instant::now();
        let request = handle.link_mode().get(Some("lo"));
        let answer = caller.call_within(PATIENCE, async move {
            request.execute().await?.try_collect::<Vec<_>>().await
        });
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
        let refused = caller.call_within(PATIENCE, pending::<()>()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTCONN));
    }

    #[test]
    fn a_request_that_the_kernel_does_not_take_fails_with_the_reason_which_nobody_else_logs() {
        in_netns(|| {
            let logged = foreign::lines(|| {
                let mut links = RouteSocket::open().unwrap();
                for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EPERM] {
                    refused::at(0, errno);
                    let answer = links.by_name("lo").unwrap_err();
                    assert_eq!(answer.raw_os_error(), Some(errno), "{answer}");
                    assert!(links.by_name("lo").unwrap().is_some(), "the next one is answered");
                    // Both messages of the first ethtool call.
                    for message in [0, 1] {
                        let mut links = RouteSocket::open().unwrap();
                        refused::at(message, errno);
                        let answer = links.ask_ethtool(|handle| {
                            let request = handle.link_mode().get(Some("lo"));
                            async move { request.execute().await?.try_collect::<Vec<_>>().await }
                        });
                        assert_eq!(answer.unwrap_err().raw_os_error(), Some(errno), "message {message}");
                    }
                }
            });
            assert_eq!(logged, [""; 0]);
        });
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
