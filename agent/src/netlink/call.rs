//! Runs the futures of rtnetlink and ethtool to their end on one socket: no runtime, no thread.
//!
//! The kernel does the work of a request inside `send`, and its reply is queued when `send` returns, so a call hardly ever
//! waits. The deadline is for a kernel that does not answer.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::BufMut;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr};

/// A netlink connection that moves only while a call waits for it.
pub(super) struct Caller {
    connection: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The connection's socket, open as long as `connection` lives.
    socket: RawFd,
}

impl Caller {
    /// `socket` is the descriptor on which `connection` waits.
    pub(super) fn new(connection: impl Future<Output = ()> + Send + 'static, socket: RawFd) -> Self {
        Caller {
            connection: Box::pin(connection),
            socket,
        }
    }

    /// Drives `request` to its end. After an error the connection is of no further use: a late answer may be under way.
    ///
    /// Everything is polled again for as long as a waker fired, and only then the socket is waited for: ethtool's first call
    /// hands its second request from one future to the other without the socket ever becoming readable between them.
    pub(super) fn call<F: Future>(&mut self, request: F) -> io::Result<F::Output> {
        self.call_within(PATIENCE, request)
    }

    fn call_within<F: Future>(&mut self, patience: Duration, request: F) -> io::Result<F::Output> {
        let deadline = Instant::now() + patience;
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
            if !woken.0.load(Ordering::Relaxed) {
                self.wait_until(deadline)?;
            }
        }
    }

    /// Sleeps until the socket is readable.
    fn wait_until(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::ETIMEDOUT.into());
        }
        // Rounded up, or the last millisecond would be spent spinning.
        let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        // SAFETY: `connection` owns the socket and lives as long as `self`.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], wait) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A non-blocking netlink socket under a connection. It never registers a waker: [`Caller::call`] waits for it.
pub(super) struct CallSocket(Socket);

impl AsRawFd for CallSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsyncSocket for CallSocket {
    fn socket_ref(&self) -> &Socket {
        &self.0
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn new(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        Ok(CallSocket(socket))
    }

    // A send to the kernel never blocks, the kernel takes the message inside the call: any error is a real one.
    fn poll_send(&self, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.send(buf, 0))
    }

    fn poll_send_to(&self, _: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.send_to(buf, addr, 0))
    }

    fn poll_recv<B: BufMut>(&self, _: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        pending_if_empty(self.0.recv(buf, 0)).map_ok(|_| ())
    }

    fn poll_recv_from<B: BufMut>(&self, _: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        pending_if_empty(self.0.recv_from(buf, 0)).map_ok(|(_, from)| from)
    }

    fn poll_recv_from_full(&self, _: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        pending_if_empty(self.0.recv_from_full())
    }
}

fn pending_if_empty<T>(received: io::Result<T>) -> Poll<io::Result<T>> {
    match received {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        received => Poll::Ready(received),
    }
}

/// Remembers that a future asked to be polled again.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use futures_util::TryStreamExt;

    use super::*;

    /// A caller whose socket stays silent.
    fn silent(
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> (Caller, std::io::PipeReader, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Caller::new(connection, reader.as_raw_fd()), reader, writer)
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
        let socket = connection.socket_mut().as_raw_fd();
        let mut caller = Caller::new(connection, socket);
        let started = Instant::now();
        let request = handle.link_mode().get(Some("lo"));
        let answer = caller.call(async move { request.execute().await?.try_collect::<Vec<_>>().await });
        // lo has no link modes; what counts is that the kernel said so, and at once.
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
}
