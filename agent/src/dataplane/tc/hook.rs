//! How a program gets onto an interface's ingress or into the transmit path of a netkit device, and stays there without us.
//!
//! A tcx or netkit link is kept alive by its pin. While this process runs, a descriptor of ours keeps it alive too, so that
//! removing pins does not cut the traffic. Its program is exchanged through the pin. A cls_bpf filter on the clsact qdisc stays
//! by itself; its program is exchanged by priority and handle. All these exchanges are atomic: each frame is handled by the old
//! program or by the new one.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};

use super::errors::{program_error, tc_error};
use super::pins::unpin;
use super::sys;
use crate::netlink::{Filter, RouteSocket};

/// Which hook new bonds get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Hook {
    /// tcx links where the kernel has them, else clsact filters.
    #[default]
    Auto,
    /// Always clsact filters.
    Clsact,
}

/// How a program is attached. Those on the ports of a bond are all attached the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// By a pinned tcx link, at the ingress.
    Tcx,
    /// By a cls_bpf filter, at the ingress.
    Clsact,
    /// By a pinned link, in the transmit path of the primary end of a netkit device.
    Netkit,
}

/// Keeps an attached program in place as long as it lives; what keeps it afterwards is its pin. None for a filter, which stays
/// by itself.
pub type Hold = Option<OwnedFd>;

/// A place for a program: an interface.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its name.
    pub interface: &'a str,
    /// Its index.
    pub ifindex: u32,
    /// Where a link is pinned. Without a pin the program is taken off again at once, to try whether it can be attached.
    pub pin: Option<&'a Path>,
    /// Name of the program.
    pub program: &'static str,
}

/// Puts a program where none of ours is. With [`Hook::Auto`] finds out what the kernel has.
pub fn attach_first(program: &mut SchedClassifier, place: Place<'_>, hook: Hook) -> io::Result<(Attached, Hold)> {
    if hook == Hook::Auto {
        match attach(program, place, Attached::Tcx) {
            Ok(hold) => return Ok((Attached::Tcx, hold)),
            // The answer of kernels that do not know this kind of link, or were built without CONFIG_NET_XGRESS.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => log::debug!("no tcx, using clsact"),
            Err(error) => return Err(error),
        }
    }
    let hold = attach(program, place, Attached::Clsact)?;
    Ok((Attached::Clsact, hold))
}

/// Puts a program where none of ours is.
pub fn attach(program: &mut SchedClassifier, place: Place<'_>, kind: Attached) -> io::Result<Hold> {
    let options = match kind {
        Attached::Netkit => return attach_netkit(program, place),
        Attached::Tcx => {
            // A link whose interface is gone may be pinned there still.
            unpin_old(place)?;
            // After the programs of others, which thus still decide first.
            TcAttachOptions::TcxOrder(LinkOrder::default())
        }
        Attached::Clsact => {
            ensure_clsact(place.interface)?;
            // Left over from a bond whose maps are lost.
            drop_filter(place.interface, place.program)?;
            TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            })
        }
    };
    let id = program
        .attach_with_options(place.interface, TcAttachType::Ingress, options)
        .map_err(program_error)?;
    let link = program.take_link(id).map_err(program_error)?;
    match (kind, place.pin) {
        (_, None) => Ok(None),
        (Attached::Clsact, Some(_)) => {
            // Dropped, it would take the filter away.
            mem::forget(link);
            Ok(None)
        }
        (_, Some(path)) => pin(link, path).map(Some),
    }
}

/// A netkit device has one place for programs of its primary end, before its own way out.
fn attach_netkit(program: &SchedClassifier, place: Place<'_>) -> io::Result<Hold> {
    unpin_old(place)?;
    let fd = program.fd().map_err(program_error)?;
    let link = sys::link_to_netkit(fd.as_fd(), place.ifindex)?;
    match place.pin {
        Some(pin) => {
            sys::pin(link.as_fd(), pin)?;
            pinned(pin).map(Some)
        }
        None => Ok(None),
    }
}

/// Exchanges the program of an earlier agent for this one; none if there is none to exchange.
pub fn replace(program: &mut SchedClassifier, place: Place<'_>, kind: Attached) -> io::Result<Option<Hold>> {
    let old = match kind {
        Attached::Netkit => return replace_netkit(program, place),
        Attached::Tcx => match place.pin.map(PinnedLink::from_pin) {
            Some(Ok(old)) => FdLink::from(old).try_into().map_err(link_error)?,
            Some(Err(error)) => return no_link(link_error(error), None),
            None => return Ok(None),
        },
        Attached::Clsact => {
            match SchedClassifierLink::attached(place.interface, TcAttachType::Ingress, PRIORITY, HANDLE, None) {
                Ok(old) => old,
                Err(error) => return absent(error, None),
            }
        }
    };
    // A filter link that fails here is consumed without being detached.
    let id = match program.attach_to_link(old) {
        Ok(id) => id,
        Err(error) => {
            let error = program_error(error);
            return match kind {
                Attached::Clsact => absent(error, None),
                _ => no_link(error, None),
            };
        }
    };
    // The pin, or the filter itself, keeps the program in place.
    let link = program.take_link(id).map_err(program_error)?;
    match kind {
        Attached::Clsact => {
            mem::forget(link);
            Ok(Some(None))
        }
        // Its descriptor is not to be had, so another one.
        _ => place.pin.map(pinned).transpose().map(Some),
    }
}

fn replace_netkit(program: &SchedClassifier, place: Place<'_>) -> io::Result<Option<Hold>> {
    let Some(pin) = place.pin else { return Ok(None) };
    let fd = program.fd().map_err(program_error)?;
    match sys::exchange_program(pin, fd.as_fd()) {
        Ok(()) => Ok(Some(Some(pinned(pin)?))),
        Err(error) => no_link(error, None),
    }
}

/// Takes over what an earlier agent attached, with the program as it is; none if nothing is attached here.
pub fn keep(links: &mut RouteSocket, place: Place<'_>, kind: Attached) -> io::Result<Option<Hold>> {
    match place.pin {
        _ if !is_there(links, place, kind)? => Ok(None),
        Some(pin) if kind != Attached::Clsact => Ok(Some(Some(pinned(pin)?))),
        _ => Ok(Some(None)),
    }
}

/// Whether a program that an earlier agent attached is on this interface.
pub fn is_there(links: &mut RouteSocket, place: Place<'_>, kind: Attached) -> io::Result<bool> {
    match (kind, place.pin) {
        (Attached::Clsact, _) => has_filter(links, place),
        (_, Some(pin)) => match sys::link_interface(pin) {
            Ok(at) => Ok(at == place.ifindex),
            Err(error) => no_link(error, false),
        },
        (_, None) => Ok(false),
    }
}

/// Whether the program that this process attached, or took over, is still on this interface.
pub fn is_held(links: &mut RouteSocket, place: Place<'_>, hold: &Hold) -> io::Result<bool> {
    match hold {
        Some(link) => Ok(sys::interface_of(link.as_fd())? == place.ifindex),
        None => has_filter(links, place),
    }
}

fn has_filter(links: &mut RouteSocket, place: Place<'_>) -> io::Result<bool> {
    let ours = |filter: &Filter| filter.is(place.program, PRIORITY);
    Ok(links.filters(place.ifindex)?.iter().any(ours))
}

/// Pins a link again that someone unpinned: so that its program can be exchanged, and outlives this process.
pub fn keep_pinned(hold: &Hold, pin: &Path) -> io::Result<()> {
    match hold {
        Some(link) if !pin.exists() => sys::pin(link.as_fd(), pin),
        _ => Ok(()),
    }
}

/// Takes our program off an interface with a clsact qdisc; off with the qdisc too, unless it was there before or another program
/// has a filter on it. Says whether there was a program.
pub fn take_off(
    links: &mut RouteSocket,
    interface: &str,
    ifindex: u32,
    program: &str,
    was_there: bool,
) -> io::Result<bool> {
    let dropped = drop_filter(interface, program)?;
    if dropped && !was_there && links.filters(ifindex)?.is_empty() {
        links.remove_clsact(ifindex)?;
    }
    Ok(dropped)
}

/// Removes filters that hold our program, known by its name; says whether there were any.
pub fn drop_filter(interface: &str, program: &str) -> io::Result<bool> {
    let dropped = tc::qdisc_detach_program(interface, TcAttachType::Ingress, program);
    match dropped.map_err(tc_error) {
        Ok(()) => Ok(true),
        // aya's answer if there are none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => absent(error, false),
    }
}

fn unpin_old(place: Place<'_>) -> io::Result<()> {
    place.pin.map_or(Ok(()), unpin)
}

/// Makes the clsact qdisc unless it, or the older ingress qdisc, which serves as well, is there.
fn ensure_clsact(interface: &str) -> io::Result<()> {
    match tc::qdisc_add_clsact(interface).map_err(tc_error) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        done => done,
    }
}

/// A link that is pinned there, whatever it attaches.
fn pinned(pin: &Path) -> io::Result<OwnedFd> {
    sys::pinned(pin)
}

fn pin(link: SchedClassifierLink, path: &Path) -> io::Result<OwnedFd> {
    let link: FdLink = link.try_into().map_err(link_error)?;
    match link.pin(path) {
        Ok(_link) => pinned(path),
        Err(aya::pin::PinError::SyscallError(error)) => Err(error.io_error),
        Err(other) => Err(io::Error::other(other)),
    }
}

/// ENOENT: no pin. ENOLINK: the interface of the link is gone.
fn no_link<T>(error: io::Error, none: T) -> io::Result<T> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOLINK | libc::ENODEV) => Ok(none),
        _ => Err(error),
    }
}

/// ENOENT: no such filter. ENOLINK: the interface of the link is gone. EINVAL: no qdisc. EOPNOTSUPP: a kernel without
/// filters.
fn absent<T>(error: io::Error, none: T) -> io::Result<T> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOLINK | libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP) => Ok(none),
        _ => Err(error),
    }
}

fn link_error(error: LinkError) -> io::Error {
    match error {
        LinkError::SyscallError(error) => error.io_error,
        other => program_error(ProgramError::IOError(io::Error::other(other))),
    }
}

/// Behind the filters that an operator numbered low, before those that tc numbers by itself (49152 and down), and not the 1 that
/// other agents like to take.
const PRIORITY: u16 = 0x0b0d;
const HANDLE: TcHandle = TcHandle::new(0, 1);
