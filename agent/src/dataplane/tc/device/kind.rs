//! The kinds of devices that a bond's interface can be: what differs between them is here.
//!
//! Both are two ends of which the bond is one and the wire the other, and with both the bond has carrier exactly while the wire is
//! up. The hook of frames that the stack sends differs:
//! - Of a *veth pair* it is the ingress of the wire, which frames reach over the kernel's backlog.
//! - Of a *netkit device* it is the bond's own way out: the program runs in the sender's context, which the kernel needs less work
//!   for, and the socket is charged for the frame until the port has sent it. Frames that no program takes are dropped.
//!
//! A netkit device has one transmit queue, so that its ports can have no `queue_id`: the kernel cannot change how many it uses, and
//! with several, ordinary frames could not be kept on the first. A frame keeps its socket on the way to the port, the kernel
//! remembers the port's queue for the socket, and prefers it to XPS when the next frame comes to the bond, where it would pass for
//! an operator's mark. [dev.c: netdev_pick_tx] The kernel's driver reads marks before that choice, in ndo_select_queue; no program
//! runs there.

use std::io;

use crate::dataplane::PlaneError;
use crate::dataplane::step::{Feature, NETKIT, VETH, step_with};
use crate::dataplane::tc::hook::{self, Attached, Hold, Hook, Place};
use crate::dataplane::tc::queues;
use crate::netlink::{Link, RouteSocket};
use aya::programs::SchedClassifier;

/// Which device new bonds get. Bonds that exist keep theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceChoice {
    /// netkit devices where the kernel has them, else veth pairs.
    Auto,
    /// Always netkit devices.
    Netkit,
    /// Always veth pairs.
    #[default]
    Veth,
}

/// What a bond's interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// One end of a veth pair.
    Veth,
    /// The primary end of a netkit device that carries Ethernet frames.
    Netkit,
}

impl DeviceKind {
    /// That of an interface; `None` if a bond of ours is never like that.
    pub fn of(link: &Link) -> Option<DeviceKind> {
        let kind = link.kind.as_deref()?;
        [DeviceKind::Veth, DeviceKind::Netkit]
            .into_iter()
            .find(|known| known.name() == kind)
    }

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Veth => "veth",
            DeviceKind::Netkit => "netkit",
        }
    }

    /// Makes one, both ends down.
    ///
    /// # Errors
    /// [`PlaneError::Unsupported`] if the kernel has none.
    pub fn make(self, links: &mut RouteSocket, name: &str, wire: &str) -> Result<(), PlaneError> {
        let feature: &Feature = match self {
            DeviceKind::Veth => &VETH,
            DeviceKind::Netkit => &NETKIT,
        };
        let make = || match self {
            DeviceKind::Veth => queues::add_pair(links, name, wire),
            DeviceKind::Netkit => links.add_netkit(name, wire),
        };
        step_with(feature, || format!("make the interface {name}"), make)
    }

    /// The end that has the program for frames of the stack.
    pub fn end_with_tx<T>(self, bond: T, wire: T) -> T {
        match self {
            DeviceKind::Veth => wire,
            DeviceKind::Netkit => bond,
        }
    }

    /// How that program is attached where those on the ports are attached so.
    pub fn tx_hook(self, of_ports: Attached) -> Attached {
        match self {
            DeviceKind::Veth => of_ports,
            DeviceKind::Netkit => Attached::Netkit,
        }
    }

    /// How programs on ports can be attached.
    pub fn port_hooks(self) -> &'static [Attached] {
        match self {
            DeviceKind::Veth => &[Attached::Tcx, Attached::Clsact],
            // Kernels with netkit have tcx.
            DeviceKind::Netkit => &[Attached::Tcx],
        }
    }

    /// Puts the program for frames of the stack on a device that has none of ours, and finds out how those on ports are to be
    /// attached.
    pub fn attach_first(
        self,
        program: &mut SchedClassifier,
        place: Place<'_>,
        hook: Hook,
    ) -> io::Result<(Attached, Hold)> {
        match self {
            DeviceKind::Veth => hook::attach_first(program, place, hook),
            DeviceKind::Netkit => Ok((Attached::Tcx, hook::attach(program, place, Attached::Netkit)?)),
        }
    }
}
