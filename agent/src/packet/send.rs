//! Sends frames out of ports: one frame, or all frames of a tick.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::{length_of, link_address, open_socket};

/// A packet socket that only sends, out of any interface of its network namespace.
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens the socket; needs CAP_NET_RAW.
    pub fn open() -> io::Result<PacketSocket> {
        // Without a protocol it queues no received frames.
        let socket = open_socket()?;
        // Frames in the ports' queues count against this limit. Without the privilege the default stays, enough for some
        // hundred frames; a frame that does not fit is reported as an error.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER);
        Ok(PacketSocket { socket })
    }

    /// Sends one frame, from destination address to payload, out of an interface.
    ///
    /// A port whose carrier has just come drops the frame without an error until its link event arrives.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = destination(ifindex, frame)?;
        // SAFETY: both pointers lead to live values of the lengths given with them.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                length_of(&to),
            )
        };
        // A packet is sent whole or not at all.
        Errno::result(sent)?;
        Ok(())
    }

    /// Sends many frames, each out of its interface, in order and in as few system calls as possible. Returns the indices of
    /// those that could not be sent, in ascending order, with the reason; the other frames are sent nevertheless.
    pub fn send_all(&self, frames: &[(u32, Vec<u8>)]) -> Vec<(usize, io::Error)> {
        let (mut failed, mut letters) = (Vec::new(), Vec::with_capacity(frames.len()));
        for (place, (ifindex, frame)) in frames.iter().enumerate() {
            match destination(*ifindex, frame) {
                Ok(to) => letters.push(Letter::new(place, to, frame)),
                Err(error) => failed.push((place, error)),
            }
        }
        let mut headers: Vec<_> = letters.iter().map(Letter::header).collect();
        let mut done = 0;
        while done < headers.len() {
            let rest = &mut headers[done..];
            let length = rest.len().min(libc::UIO_MAXIOV as usize) as libc::c_uint;
            // SAFETY: there are at least so many headers, and the letters and frames that they point to outlive the call.
            let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), length, 0) };
            match Errno::result(sent) {
                // At least one.
                Ok(sent) => done += sent as usize,
                Err(Errno::EINTR) => {}
                // The error belongs to the first frame: a later error ends the call early and is then the first one of the next
                // call.
                Err(errno) => {
                    failed.push((letters[done].place, errno.into()));
                    done += 1;
                }
            }
        }
        failed.sort_by_key(|(place, _)| *place);
        failed
    }
}

/// One frame with the data that its message header points to, so it must not move while the header is in use.
struct Letter {
    place: usize,
    to: libc::sockaddr_ll,
    frame: libc::iovec,
}

impl Letter {
    fn new(place: usize, to: libc::sockaddr_ll, frame: &[u8]) -> Letter {
        // The kernel only reads the frame.
        let iov_base = frame.as_ptr().cast_mut().cast();
        let iov_len = frame.len();
        Letter {
            place,
            to,
            frame: libc::iovec { iov_base, iov_len },
        }
    }

    fn header(&self) -> libc::mmsghdr {
        // SAFETY: all fields are integers or pointers; zero is a valid value for each.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        // The kernel reads both and writes neither.
        header.msg_hdr.msg_name = ptr::from_ref(&self.to).cast_mut().cast();
        header.msg_hdr.msg_namelen = length_of(&self.to);
        header.msg_hdr.msg_iov = ptr::from_ref(&self.frame).cast_mut();
        header.msg_hdr.msg_iovlen = 1;
        header
    }
}

fn destination(ifindex: u32, frame: &[u8]) -> io::Result<libc::sockaddr_ll> {
    let [.., high, low] = *frame.first_chunk::<ETHERNET_HEADER>().ok_or(Errno::EINVAL)?;
    // As in the frame, in network order, for classifiers and taps.
    link_address(ifindex, u16::from_ne_bytes([high, low]))
}

/// Two addresses and the type.
const ETHERNET_HEADER: usize = 14;

/// Room for some thousand small frames, in bytes.
const SEND_BUFFER: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use std::iter;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
    use nix::sys::time::{TimeVal, TimeValLike};

    use super::*;
    use crate::netlink::RouteSocket;
    use crate::netlink::tests::in_netns;
    use crate::packet::bind;
    use crate::packet::tests::{pair, receive};

    /// A broadcast from 02:00:00:00:00:01 of a type reserved for experiments.
    const FRAME: [u8; 60] = {
        let mut frame = [0xff; 60];
        let header = [2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        let mut at = 0;
        while at < header.len() {
            frame[6 + at] = header[at];
            at += 1;
        }
        frame
    };

    #[test]
    fn a_frame_leaves_as_it_is_and_nothing_comes_back() {
        in_netns(|| {
            let (mut links, sender) = (RouteSocket::open().unwrap(), PacketSocket::open().unwrap());
            let (a, _) = pair(&mut links, "a", "b");
            let everything = SockProtocol::EthAll;
            let tap = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, everything).unwrap();
            setsockopt(&tap, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).unwrap();

            sender.send(a, &FRAME).unwrap();
            let mut buffer = [0; 2048];
            // Once on its way out of a, once on its way in through b; the kernel's own IPv6 frames are passed over.
            for _ in 0..2 {
                while recv(tap.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap() != FRAME.len()
                    || buffer[..60] != FRAME
                {}
            }
            let heard = recv(sender.socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            assert_eq!(heard, Err(Errno::EAGAIN));
        });
    }

    #[test]
    fn a_port_that_cannot_send_is_told_by_errno() {
        in_netns(|| {
            let (mut links, sender) = (RouteSocket::open().unwrap(), PacketSocket::open().unwrap());
            links.add_veth("a", "b").unwrap();
            let a = links.by_name("a").unwrap().unwrap();
            let errno = |ifindex, frame: &[u8]| sender.send(ifindex, frame).unwrap_err().raw_os_error();
            assert_eq!(errno(a.ifindex, &FRAME), Some(libc::ENETDOWN));
            assert_eq!(errno(9999, &FRAME), Some(libc::ENXIO));
            assert_eq!(errno(u32::MAX, &FRAME), Some(libc::ENXIO));
            assert_eq!(errno(a.ifindex, &FRAME[..13]), Some(libc::EINVAL));
        });
    }

    #[test]
    fn a_batch_leaves_in_order_and_only_the_frames_of_a_port_that_is_down_fail() {
        in_netns(|| {
            let (mut links, sender) = (RouteSocket::open().unwrap(), PacketSocket::open().unwrap());
            let (a, b) = pair(&mut links, "a", "b");
            links.add_veth("c", "d").unwrap();
            let down = links.by_name("c").unwrap().unwrap().ifindex;
            let tap = open_socket().unwrap();
            bind(&tap, b, (libc::ETH_P_ALL as u16).to_be()).unwrap();
            setsockopt(&tap, sockopt::RcvBufForce, &(8 << 20)).unwrap();

            let numbered = |number: u16| {
                let mut frame = FRAME.to_vec();
                frame[14..16].copy_from_slice(&number.to_be_bytes());
                frame
            };
            // More frames than one call takes, every tenth for a port that is down.
            let frames: Vec<_> = (0..2500)
                .map(|number| (if number % 10 == 3 { down } else { a }, numbered(number)))
                .collect();
            let failed = sender.send_all(&frames);
            assert!(
                failed
                    .iter()
                    .all(|(_, error)| error.raw_os_error() == Some(libc::ENETDOWN))
            );
            let places: Vec<_> = failed.iter().map(|(place, _)| *place).collect();
            assert_eq!(places, (0..2500).filter(|place| place % 10 == 3).collect::<Vec<_>>());

            let heard: Vec<_> = iter::repeat_with(|| receive(&tap))
                .filter(|frame| frame[12..14] == FRAME[12..14])
                .take(2250)
                .collect();
            let sent = frames
                .iter()
                .filter(|(ifindex, _)| *ifindex == a)
                .map(|(_, frame)| frame);
            assert!(heard.iter().eq(sent));
        });
    }

    #[test]
    fn a_batch_reports_each_invalid_frame_and_sends_the_others() {
        in_netns(|| {
            let (mut links, sender) = (RouteSocket::open().unwrap(), PacketSocket::open().unwrap());
            let (a, _) = pair(&mut links, "a", "b");
            let good = (a, FRAME.to_vec());
            let short = (a, FRAME[..13].to_vec());
            let frames = [
                good.clone(),
                (9999, FRAME.to_vec()),
                good.clone(),
                short,
                (0, FRAME.to_vec()),
                good,
            ];
            let failed: Vec<_> = sender
                .send_all(&frames)
                .into_iter()
                .map(|(place, error)| (place, error.raw_os_error()))
                .collect();
            let (gone, short) = (Some(libc::ENXIO), Some(libc::EINVAL));
            assert_eq!(failed, [(1, gone), (3, short), (4, gone)]);
            assert!(sender.send_all(&[]).is_empty());
        });
    }
}
