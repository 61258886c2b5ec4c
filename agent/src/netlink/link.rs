//! Requests about interfaces: read them, change them, make and remove them.

use std::future::{Future, ready};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use bond_monitors::{Duplex, MacAddr, Speed};
use ethtool::{EthtoolAttr, EthtoolError, EthtoolHandle, EthtoolLinkModeAttr, EthtoolLinkModeDuplex};
use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::call::{CallSocket, Caller, PATIENCE};
use super::message::{self, Address, Link, brief};

/// The interfaces of the network namespace in which it was opened.
///
/// Every call is complete when it returns, or fails with the kernel's errno (ETIMEDOUT if the kernel did not answer within a
/// second after it had taken the request, or some milliseconds where the loop asks).
pub struct RouteSocket {
    route: Connection<Handle>,
    ethtool: Connection<EthtoolHandle>,
}

impl RouteSocket {
    /// Opens a socket for rtnetlink and one for ethtool in the current network namespace.
    pub fn open() -> io::Result<RouteSocket> {
        let mut links = RouteSocket {
            route: Connection::new(open_route),
            ethtool: Connection::new(open_ethtool),
        };
        links.route.ensure()?;
        // Without generic netlink only speed and duplex are unknown.
        let _ = links.ethtool.ensure();
        Ok(links)
    }

    /// For the loop, and for what takes no lock of the kernel that others hold for long: an answer that is missing holds all bonds up.
    pub fn open_for_loop() -> io::Result<RouteSocket> {
        let mut links = RouteSocket::open()?;
        links.route.patience = PATIENCE_OF_LOOP;
        links.ethtool.patience = PATIENCE_OF_LOOP;
        Ok(links)
    }

    /// All interfaces.
    pub fn all(&mut self) -> io::Result<Vec<Link>> {
        self.ask(|handle| {
            let request = handle.link().get().set_filter_mask(AddressFamily::Unspec, brief());
            let links = request
                .execute()
                .try_filter_map(|link| ready(Ok(message::parse(&link))));
            links.try_collect()
        })
    }

    /// The interface of that name (or alternative name).
    pub fn by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Ok(None);
        }
        self.one(|handle| handle.link().get().match_name(name))
    }

    /// The interface with that index; `None` if there is none.
    pub fn by_index(&mut self, ifindex: u32) -> io::Result<Option<Link>> {
        // Index 0 asks the kernel for a name instead, which it refuses as invalid, as it does a negative number.
        if !(1..=i32::MAX as u32).contains(&ifindex) {
            return Ok(None);
        }
        self.one(|handle| handle.link().get().match_index(ifindex))
    }

    /// Makes a veth pair, both ends down. Either name may be a pattern such as `wire%d`.
    pub fn add_veth(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let pair = LinkVeth::new(name, peer).build();
        let made = self.ask(|handle| handle.link().add(pair).execute());
        self.done_or_found(made, |links| links.is_of_kind(name, "veth"))
    }

    /// Whether there is an interface of that name and kind.
    pub(super) fn is_of_kind(&mut self, name: &str, kind: &str) -> io::Result<bool> {
        let found = self.by_name(name)?;
        Ok(found.is_some_and(|link| link.kind.as_deref() == Some(kind)))
    }

    /// Makes a device of the team driver, down and without a mode.
    pub fn add_team(&mut self, name: &str) -> io::Result<()> {
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Team)]);
        let team = LinkUnspec::new_with_name(name).append_extra_attribute(kind).build();
        let made = self.ask(|handle| handle.link().add(team).execute());
        self.done_or_found(made, |links| links.is_of_kind(name, "team"))
    }

    /// Sets or removes the master of an interface.
    pub fn set_master(&mut self, ifindex: u32, master: Option<u32>) -> io::Result<()> {
        let change = LinkUnspec::new_with_index(ifindex).controller(master.unwrap_or(0));
        self.set(ifindex, change, |link| link.master == master)
    }

    /// Counters of an interface since it was made; `None` if there is no such interface.
    pub fn statistics(&mut self, ifindex: u32) -> io::Result<Option<Statistics>> {
        let answer = self.ask(|handle| {
            let replies = handle.link().get().match_index(ifindex).execute();
            async move { std::pin::pin!(replies).try_next().await }
        });
        let message = match answer {
            Ok(found) => found.ok_or(Errno::EPROTO)?,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        };
        let counted = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counted) => Some(Statistics {
                rx_frames: counted.rx_packets,
                tx_frames: counted.tx_packets,
                rx_bytes: counted.rx_bytes,
                tx_bytes: counted.tx_bytes,
                rx_unwanted: counted.rx_nohandler,
            }),
            _ => None,
        });
        counted.map(Some).ok_or(Errno::EPROTO.into())
    }

    /// Changes an interface's name.
    pub fn rename(&mut self, ifindex: u32, name: &str) -> io::Result<()> {
        self.set(ifindex, LinkUnspec::new_with_index(ifindex).name(name), |link| {
            link.report.name == name
        })
    }

    /// Sets it administratively up or down.
    pub fn set_up(&mut self, ifindex: u32, up: bool) -> io::Result<()> {
        let change = LinkUnspec::new_with_index(ifindex);
        let change = if up { change.up() } else { change.down() };
        self.set(ifindex, change, |link| link.report.admin_up == up)
    }

    /// Sets the Ethernet address.
    pub fn set_mac(&mut self, ifindex: u32, mac: MacAddr) -> io::Result<()> {
        let change = LinkUnspec::new_with_index(ifindex).address(mac.0.to_vec());
        self.set(ifindex, change, |link| link.report.mac == mac)
    }

    /// Sets the MTU in bytes.
    pub fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> io::Result<()> {
        self.set(ifindex, LinkUnspec::new_with_index(ifindex).mtu(mtu), |link| {
            link.report.mtu == mtu
        })
    }

    /// Sets the operator's IFF_PROMISC and no other flag.
    pub fn set_promisc(&mut self, ifindex: u32, on: bool) -> io::Result<()> {
        let change = LinkUnspec::new_with_index(ifindex).promiscuous(on);
        self.set(ifindex, change, |link| link.promisc_flag == on)
    }

    /// Sets the operator's IFF_ALLMULTI and no other flag.
    pub fn set_allmulti(&mut self, ifindex: u32, on: bool) -> io::Result<()> {
        let change = LinkUnspec::new_with_index(ifindex).allmulticast(on);
        self.set(ifindex, change, |link| link.allmulti_flag == on)
    }

    /// Sets the alias text; empty removes it.
    pub fn set_alias(&mut self, ifindex: u32, alias: &str) -> io::Result<()> {
        // Without the terminating zero that rtnetlink would add: the kernel removes an alias only for length 0.
        let text = LinkAttribute::Other(DefaultNla::new(libc::IFLA_IFALIAS, alias.as_bytes().to_vec()));
        let change = LinkUnspec::new_with_index(ifindex).append_extra_attribute(text);
        self.set(ifindex, change, |link| link.alias == alias)
    }

    /// Removes a virtual interface; of a veth pair or a netkit device, both ends.
    pub fn delete(&mut self, ifindex: u32) -> io::Result<()> {
        let deleted = self.ask(|handle| handle.link().del(ifindex).execute());
        self.done_or_found(deleted, |links| Ok(links.by_index(ifindex)?.is_none()))
    }

    /// Speed and duplex as reported by the driver; unknown if it does not report them, or if the kernel has no ethtool netlink.
    pub fn speed_duplex(&mut self, name: &str) -> (Speed, Duplex) {
        let answer = self.ethtool.call(|handle| {
            let request = handle.link_mode().get(Some(name));
            async move { request.execute().await?.try_collect::<Vec<_>>().await }
        });
        let (mut speed, mut duplex) = (Speed::default(), Duplex::default());
        for attribute in answer
            .unwrap_or_default()
            .iter()
            .flat_map(|message| &message.payload.nlas)
        {
            match attribute {
                EthtoolAttr::LinkMode(EthtoolLinkModeAttr::Speed(mbps)) => speed = known_speed(*mbps),
                EthtoolAttr::LinkMode(EthtoolLinkModeAttr::Duplex(EthtoolLinkModeDuplex::Half)) => {
                    duplex = Duplex::Half
                }
                EthtoolAttr::LinkMode(EthtoolLinkModeAttr::Duplex(EthtoolLinkModeDuplex::Full)) => {
                    duplex = Duplex::Full
                }
                _ => {}
            }
        }
        (speed, duplex)
    }

    /// Interface index and address of every usable IPv4 and IPv6 address (not tentative, not a duplicate).
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, Address)>> {
        self.ask(|handle| {
            let found = handle.address().get().execute();
            found
                .try_filter_map(|address| ready(Ok(message::parse_address(&address))))
                .try_collect()
        })
    }

    fn one(&mut self, get: impl FnOnce(&mut Handle) -> rtnetlink::LinkGetRequest) -> io::Result<Option<Link>> {
        // An answer that does not describe the interface must not count as "gone".
        let known = |message| message::parse(&message).ok_or(Errno::EPROTO.into());
        self.describe(get)?.map(known).transpose()
    }

    /// The kernel's answer for one interface; `None` if there is none.
    pub(super) fn describe(
        &mut self,
        get: impl FnOnce(&mut Handle) -> rtnetlink::LinkGetRequest,
    ) -> io::Result<Option<LinkMessage>> {
        let answer = self.ask(|handle| {
            let replies = get(handle).set_filter_mask(AddressFamily::Unspec, brief()).execute();
            async move { std::pin::pin!(replies).try_next().await }
        });
        match answer {
            // Nor must a missing answer.
            Ok(found) => found.map(Some).ok_or(Errno::EPROTO.into()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes an interface. If the kernel does not answer, `is_so` judges by the interface's state whether the change was
    /// made.
    fn set(
        &mut self,
        ifindex: u32,
        change: LinkMessageBuilder<LinkUnspec>,
        is_so: impl FnOnce(&Link) -> bool,
    ) -> io::Result<()> {
        let change: LinkMessage = change.build();
        let set = self.ask(|handle| handle.link().set(change).execute());
        self.done_or_found(set, |links| {
            Ok(links.by_index(ifindex)?.is_some_and(|link| is_so(&link)))
        })
    }

    /// A request without an answer may have been carried out; the state shows it.
    pub(super) fn done_or_found(
        &mut self,
        done: io::Result<()>,
        is_so: impl FnOnce(&mut Self) -> io::Result<bool>,
    ) -> io::Result<()> {
        match done {
            Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => match is_so(self) {
                Ok(true) => Ok(()),
                _ => Err(error),
            },
            done => done,
        }
    }

    pub(super) fn ask_ethtool<T, F: Future<Output = Result<T, EthtoolError>>>(
        &mut self,
        request: impl FnOnce(&mut EthtoolHandle) -> F,
    ) -> io::Result<T> {
        self.ethtool.call(request)
    }

    pub(super) fn ask<T, F: Future<Output = Result<T, rtnetlink::Error>>>(
        &mut self,
        request: impl FnOnce(&mut Handle) -> F,
    ) -> io::Result<T> {
        #[cfg(test)]
        super::tests::asks::here()?;
        let answer = self.route.call(request);
        #[cfg(test)]
        let answer = super::tests::asks::lose(answer);
        answer
    }
}

/// Counters of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Received frames that no protocol accepted.
    pub rx_unwanted: u64,
}

/// A connection with its handle, opened anew by the next call after it broke.
struct Connection<H> {
    open: fn() -> io::Result<(Caller, H)>,
    live: Option<(Caller, H)>,
    /// Longest wait for an answer.
    patience: Duration,
}

impl<H> Connection<H> {
    fn new(open: fn() -> io::Result<(Caller, H)>) -> Self {
        Connection {
            open,
            live: None,
            patience: PATIENCE,
        }
    }

    fn ensure(&mut self) -> io::Result<&mut (Caller, H)> {
        match &mut self.live {
            Some(live) => Ok(live),
            none => Ok(none.insert((self.open)()?)),
        }
    }

    fn call<T, E: Refusal, F: Future<Output = Result<T, E>>>(
        &mut self,
        request: impl FnOnce(&mut H) -> F,
    ) -> io::Result<T> {
        let patience = self.patience;
        let (caller, handle) = self.ensure()?;
        let request = request(handle);
        let broken = match caller.call_within(patience, request) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => match error.errno() {
                Some(refused) => return Err(refused),
                None => Errno::EPROTO.into(),
            },
            Err(error) => error,
        };
        self.live = None;
        Err(broken)
    }
}

/// Longest wait of the loop for an answer. The kernel has queued it when it has taken the request.
const PATIENCE_OF_LOOP: Duration = Duration::from_millis(5);

fn open_route() -> io::Result<(Caller, Handle)> {
    let (mut connection, handle, _) = rtnetlink::new_connection_with_socket::<CallSocket>()?;
    let socket = connection.socket_mut();
    // With this option the kernel filters dumps. Before 4.20 it has no such option and sends everything.
    let _ = socket.socket_ref().set_netlink_get_strict_chk(true);
    let (socket, work) = (socket.as_raw_fd(), socket.work());
    Ok((Caller::new(connection, socket, work), handle))
}

fn open_ethtool() -> io::Result<(Caller, EthtoolHandle)> {
    let (mut connection, handle, _) = ethtool::new_connection_with_socket::<CallSocket>()?;
    let socket = connection.socket_mut();
    let (socket, work) = (socket.as_raw_fd(), socket.work());
    Ok((Caller::new(connection, socket, work), handle))
}

/// Errors of the netlink crates.
trait Refusal {
    /// The kernel's error; `None` if the connection failed instead.
    fn errno(&self) -> Option<io::Error>;
}

impl Refusal for rtnetlink::Error {
    fn errno(&self) -> Option<io::Error> {
        match self {
            rtnetlink::Error::NetlinkError(answer) => Some(answer.to_io()),
            _ => None,
        }
    }
}

impl Refusal for EthtoolError {
    fn errno(&self) -> Option<io::Error> {
        match self {
            EthtoolError::NetlinkError(answer) => Some(answer.to_io()),
            _ => None,
        }
    }
}

fn known_speed(mbps: u32) -> Speed {
    Speed((!matches!(mbps, 0 | u32::MAX)).then_some(mbps))
}

/// IFNAMSIZ without the terminating zero.
const NAME_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bond_monitors::Carrier;

    use super::*;
    use crate::netlink::tests::{asks, in_netns};

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    fn carrier(links: &mut RouteSocket, ifindex: u32) -> Option<Carrier> {
        links.by_index(ifindex).unwrap().map(|link| link.report.carrier)
    }

    fn find(links: &mut RouteSocket, name: &str) -> Link {
        links.by_name(name).unwrap().unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn a_veth_pair_is_made_changed_and_removed() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a.1", "wire%d").unwrap();
            let (near, far) = (find(&mut links, "a.1"), find(&mut links, "wire0"));
            assert_eq!((near.peer, far.peer), (Some(far.ifindex), Some(near.ifindex)));
            assert_eq!(
                (near.kind.as_deref(), near.ethernet, near.loopback),
                (Some("veth"), true, false)
            );
            assert!(!near.report.admin_up);
            assert_eq!(carrier(&mut links, near.ifindex), Some(Carrier::Off));

            links.set_up(near.ifindex, true).unwrap();
            assert_eq!(
                carrier(&mut links, near.ifindex),
                Some(Carrier::Off),
                "the far end is down"
            );
            links.set_up(far.ifindex, true).unwrap();
            assert_eq!(carrier(&mut links, near.ifindex), Some(Carrier::On));

            links.set_mac(near.ifindex, MAC).unwrap();
            links.set_mtu(near.ifindex, 9000).unwrap();
            links.set_alias(near.ifindex, "port of bond0").unwrap();
            links.rename(far.ifindex, "far").unwrap();
            let near = find(&mut links, "a.1");
            assert_eq!(
                (near.report.mac, near.report.mtu, near.alias.as_str()),
                (MAC, 9000, "port of bond0")
            );
            assert_eq!(links.by_index(far.ifindex).unwrap().unwrap().report.name, "far");
            links.set_alias(near.ifindex, "").unwrap();
            assert_eq!(find(&mut links, "a.1").alias, "");

            assert_eq!(links.all().unwrap().len(), 3, "lo and the pair");
            links.delete(near.ifindex).unwrap();
            assert_eq!(links.by_index(far.ifindex).unwrap(), None);
            assert_eq!(carrier(&mut links, near.ifindex), None);
        });
    }

    #[test]
    fn a_flag_is_changed_alone() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a", "b").unwrap();
            let ifindex = find(&mut links, "a").ifindex;
            let flags = |links: &mut RouteSocket| {
                let link = find(links, "a");
                (link.report.admin_up, link.promisc_flag, link.allmulti_flag)
            };
            links.set_up(ifindex, true).unwrap();
            links.set_promisc(ifindex, true).unwrap();
            assert_eq!(flags(&mut links), (true, true, false));
            links.set_allmulti(ifindex, true).unwrap();
            links.set_up(ifindex, false).unwrap();
            assert_eq!(flags(&mut links), (false, true, true));
            links.set_promisc(ifindex, false).unwrap();
            assert_eq!(flags(&mut links), (false, false, true));
            links.set_allmulti(ifindex, false).unwrap();
            assert_eq!(flags(&mut links), (false, false, false));
        });
    }

    #[test]
    fn a_refusal_carries_the_errno_and_leaves_the_connection_usable() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a", "b").unwrap();
            let ifindex = find(&mut links, "a").ifindex;
            let errno = |done: io::Result<()>| done.unwrap_err().raw_os_error();
            assert_eq!(errno(links.add_veth("a", "c")), Some(libc::EEXIST));
            assert_eq!(errno(links.set_up(9999, true)), Some(libc::ENODEV));
            assert_eq!(errno(links.delete(1)), Some(libc::EOPNOTSUPP), "lo stays");
            assert_eq!(errno(links.rename(ifindex, "b")), Some(libc::EEXIST));
            assert_eq!(
                errno(links.set_mac(ifindex, MacAddr::BROADCAST)),
                Some(libc::EADDRNOTAVAIL)
            );
            for name in ["nosuch", "", "a-name-that-is-too-long"] {
                assert_eq!(links.by_name(name).unwrap(), None, "{name}");
            }
            assert_eq!(links.by_index(0).unwrap(), None);
            assert_eq!(find(&mut links, "a").ifindex, ifindex);
        });
    }

    #[test]
    fn ethtool_tells_speed_and_duplex_where_there_are_any() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth("a", "b").unwrap();
            // Twice: the first call also asks for the family's number.
            for _ in 0..2 {
                assert_eq!(
                    links.speed_duplex("a"),
                    (Speed(Some(10_000)), Duplex::Full),
                    "what veth says of itself"
                );
            }
            assert_eq!(links.speed_duplex("lo"), (Speed(None), Duplex::Unknown));
            assert_eq!(links.speed_duplex("nosuch"), (Speed(None), Duplex::Unknown));
        });
    }

    #[test]
    fn speeds_that_mean_nothing_are_unknown() {
        assert_eq!(
            [0, u32::MAX, 1000].map(known_speed),
            [Speed(None), Speed(None), Speed(Some(1000))]
        );
    }

    #[test]
    fn addresses_of_both_families_are_listed_when_usable() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.set_up(1, true).unwrap();
            let mut found = links.addresses().unwrap();
            found.sort();
            let address = |text: &str, prefix| {
                let ip = text.parse().unwrap();
                (1, Address { ip, prefix, peer: ip })
            };
            assert_eq!(found, [address("127.0.0.1", 8), address("::1", 128)]);
        });
    }

    #[test]
    fn a_change_whose_answer_is_lost_is_looked_up() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            let mut lost = |change: &dyn Fn(&mut RouteSocket) -> io::Result<()>| {
                asks::lose_answer();
                change(&mut links).map_err(|error| error.raw_os_error())
            };
            assert_eq!(lost(&|links| links.add_veth("a", "b")), Ok(()));
            let index = RouteSocket::open().unwrap().by_name("a").unwrap().unwrap().ifindex;
            assert_eq!(lost(&|links| links.set_up(index, true)), Ok(()));
            assert_eq!(lost(&|links| links.set_mtu(index, 1400)), Ok(()));
            assert_eq!(lost(&|links| links.set_mac(index, MAC)), Ok(()));
            assert_eq!(lost(&|links| links.set_alias(index, "x")), Ok(()));
            assert_eq!(lost(&|links| links.set_promisc(index, true)), Ok(()));
            assert_eq!(lost(&|links| links.delete(index)), Ok(()));
            let undone = lost(&|links| links.set_up(index, true));
            assert_eq!(undone, Err(Some(libc::ETIMEDOUT)), "there is no such interface");
        });
    }

    #[test]
    fn the_loop_waits_some_milliseconds_for_an_answer_that_is_missing() {
        let mut links = RouteSocket::open_for_loop().unwrap();
        let (connection, handle, _) = rtnetlink::new_connection_with_socket::<CallSocket>().unwrap();
        let (silent, _writer) = std::io::pipe().unwrap();
        let asks_nobody = async move {
            std::future::pending::<()>().await;
            drop(connection);
        };
        let caller = Caller::new(asks_nobody, silent.as_raw_fd(), Default::default());
        links.route.live = Some((caller, handle));
        let to = "127.0.0.1".parse().unwrap();
        let asked = Instant::now();
        assert_eq!(links.route(to).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        assert!(asked.elapsed() < PATIENCE / 2, "{:?}", asked.elapsed());
        assert!(
            links.route(to).unwrap().is_some_and(|route| route.local),
            "the next one is answered"
        );
    }

    #[test]
    fn a_broken_connection_is_opened_anew_by_the_next_call() {
        let mut links = RouteSocket::open().unwrap();
        let (caller, _) = links.route.live.as_mut().unwrap();
        *caller = Caller::new(std::future::ready(()), -1, Default::default());
        assert_eq!(links.by_index(1).unwrap_err().raw_os_error(), Some(libc::EPROTO));
        assert!(links.by_index(1).unwrap().is_some_and(|lo| lo.loopback));
    }
}
