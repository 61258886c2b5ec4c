//! What a data plane is to the rest of the agent, and what passes between them.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use bond_modes::options::PortOptions;
use bond_modes::{BondOptions, ForwardingPlan, PortId};
use bond_monitors::{LinkReport, MacAddr, ReceiveStamps, Time};
use serde::{Deserialize, Serialize};

use super::applied::Applied;
use super::error::PlaneError;
use super::kept::{Amiss, Kept};
use crate::netlink::{Drained, Link};

/// Name of a bond's interface: 1 to 15 bytes without `/`, blanks or a leading dot.
pub type BondName = String;

/// A mechanism of the kernel that forwards for bonds. It reports its abilities, makes bonds, and takes over existing ones.
/// Dropping a plane, or one of its bonds, leaves forwarding as it is.
pub trait Plane: Send {
    /// Short name, such as `tc`.
    fn name(&self) -> &'static str;
    /// Whether this kernel can do it; an error that names what is missing otherwise. Leaves nothing behind. May remember what
    /// it found.
    fn probe(&mut self) -> Result<(), PlaneError>;
    /// Whether a bond with these options does here exactly what the options say; an error that names what differs.
    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError>;
    /// For `doctor`: finds out what this plane can do here, and whether it can do certain options, as often as it is asked. That is
    /// for another thread, as it takes long: it has sockets of its own, in the network namespace of that thread, and waits for
    /// nothing that this plane or its bonds have locked.
    fn examiner(&self) -> Examiner;
    /// The names of all bonds of ours that the kernel has, except those that another agent serves. One that cannot be asked is
    /// logged and left out.
    fn bonds(&mut self) -> Result<Vec<BondName>, PlaneError>;
    /// Makes a bond for these options: its interface, administratively down and without carrier. Undone whole on failure.
    fn create(&mut self, name: &str, options: &BondOptions) -> Result<(Box<dyn PlaneBond>, BondDevice), PlaneError>;
    /// Takes over what the kernel already does under this name, if the device there is ours.
    fn adopt(&mut self, name: &str) -> Result<Option<Adopted>, PlaneError>;
    /// A bond of this plane and its interface, which had this index, are gone: removes what else was kept for it. Its ports are to be
    /// given back after that, which fails as long as this does.
    fn forget(&mut self, _device: u32) -> Result<(), PlaneError> {
        Ok(())
    }
    /// Gives back a port of a bond that is gone, as [`PlaneBond::detach`] does it for one that is there. `bond` is the name that it
    /// had last. The mark may be of an earlier name of the bond, if no interface is called so now.
    /// Returns whether the port was given back.
    fn give_back(&mut self, bond: &str, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError>;
    /// Why bonds of this plane stop forwarding although nobody removes them, and what helps; nothing if forwarding outlives this
    /// process and its mount namespace.
    fn short_lived(&self) -> Option<String> {
        None
    }
    /// For an orderly stop without bonds: leaves nothing behind.
    fn close(&mut self) -> io::Result<()>;
    /// What receives reports of changes to bonds of this plane, where the mechanism makes them; to be asked for once.
    fn watch(&mut self) -> Option<Box<dyn Watch>> {
        None
    }
}

/// See [`Plane::examiner`].
pub type Examiner = Arc<dyn Fn(&BondOptions) -> PlaneReport + Send + Sync>;

/// One bond, as the plane that made it or took it over knows it.
pub trait PlaneBond: Send {
    /// The name of its plane.
    fn plane(&self) -> &'static str;
    /// As [`Plane::can`], for options that this bond is to get while it runs.
    fn can(&mut self, options: &BondOptions) -> Result<(), PlaneError>;
    /// As [`Plane::can`], for options that a port of this bond is to get.
    fn can_port(&mut self, _options: &PortOptions) -> Result<(), PlaneError> {
        Ok(())
    }
    /// Why a port whose address cannot be changed cannot be attached, whatever the options; nothing if only they decide.
    fn needs_to_set_addresses(&self) -> Option<&'static str> {
        None
    }
    /// Takes a port in: settings, hook, administratively up. It neither sends nor lets in until programmed. Undone whole on
    /// failure. One that is attached already is only set up, as an agent that ended in the middle may not have done.
    fn attach(&mut self, port: PortId, base: &PortBase) -> Result<(), PlaneError>;
    /// Gives a port back as `original` says. A step that fails does not stop the others. The bond's interface need not exist any
    /// more. One that is not attached is given back only if it carries the mark of a port: another interface may have its index by
    /// now, or the settings may be back already. Returns whether it was given back.
    fn detach(&mut self, port: PortId, original: &OriginalPort) -> Result<bool, PlaneError>;
    /// The interface of an attached port is gone: forgets it. Waits for nothing that is done with other bonds of the plane, because a
    /// plan that moves traffic comes after this.
    fn forget(&mut self, port: PortId) -> Result<(), PlaneError>;
    /// Makes the kernel match the plan: only differences, make before break. The outcome names every part that failed. If the
    /// bond's [`Traffic`] followed later plans, the last of them is applied instead.
    fn program(&mut self, plan: &ForwardingPlan) -> Applied;
    /// What moves the traffic of this bond without the kernel's RTNL lock, and knows when frames came; none if its plane cannot do
    /// that.
    fn traffic(&self) -> Option<Box<dyn Traffic>> {
        None
    }
    /// Forgets cached settings that other programs may have changed, and reads them: the bond's address and carrier, and
    /// all-multicast of its ports. The next [`program`](PlaneBond::program) puts them back. Address and MTU of a port are not among
    /// them, because the operator may change those. Also ties the traffic of CPUs that have come online to the first queue.
    fn refresh(&mut self) -> Result<(), PlaneError>;
    /// Whether another program changed this bond, judged by reports about it, and by what the kernel says if they differ from what
    /// was programmed: it also reports our own changes, and a report may be old.
    fn changed_by_others(&mut self, _reports: &[Report]) -> bool {
        false
    }
    /// What this bond has in the kernel, is not as it needs it, and no event reports. It is asked of every bond every few seconds, so it
    /// takes few requests.
    fn amiss(&mut self) -> Result<Vec<Amiss>, PlaneError> {
        Ok(Vec::new())
    }
    /// Puts one of these back. What it found may be over by now.
    fn put_back(&mut self, _what: Kept) -> Result<(), PlaneError> {
        Ok(())
    }
    /// Sees to it that the bond goes on forwarding when this process has ended.
    fn outlive(&mut self) -> Result<(), PlaneError> {
        Ok(())
    }
    /// Switches IPv6 off on an attached port, where another program has switched it on. Not on one that has left: it may have its own
    /// settings back.
    fn keep_ipv6_off(&mut self, port: PortId) -> Result<(), PlaneError>;
    /// Frames and bytes of an attached port since it was attached.
    fn counters(&mut self, port: PortId) -> Result<PortCounters, PlaneError>;
    /// What link messages say of a port that is as this bond needs it.
    fn port_signs(&self) -> PortSigns;
    /// The bond's interface has another name now.
    fn renamed(&mut self, new: &str);
    /// Removes the bond's interface and everything kept for it. Ports must be detached before.
    fn destroy(self: Box<Self>) -> Result<(), PlaneError>;
}

/// The part of a bond's forwarding that can be changed and read without the kernel's RTNL lock, also while another thread is in a
/// call to the [`PlaneBond`]: it waits for no request of that call. After the end of the bond it has no effect on others.
pub trait Traffic: Send {
    /// Moves the traffic as the plan says, as far as that takes map writes only: the addresses of ports and of the bond, say, may
    /// still be those of the plan before. From now on this plan counts, also for [`PlaneBond::program`].
    fn follow(&mut self, plan: &ForwardingPlan) -> Followed;
    /// As [`PlaneBond::counters`].
    fn counters(&mut self, port: PortId) -> Result<PortCounters, PlaneError>;
    /// Whether anything is prepared that the kernel does by itself when a port is lost; an error that says why it cannot.
    fn fails_over(&self) -> Result<bool, String>;
    /// Why what the last plan prepares is not, if an attempt failed.
    fn why_unprepared(&self) -> Option<String> {
        None
    }
    /// The kernel has noted a loss of carrier, and perhaps failed over: what is in force is read anew, and nothing is prepared until
    /// the next plan.
    fn overtaken(&mut self) -> Result<(), PlaneError>;
    /// When an attached port last received frames, by the kinds of their senders, which their source addresses show. `probes` is
    /// exact. `any` may be a millisecond older than the last frame. `own` leaves out frames other than probes within a
    /// millisecond of a frame counted in `any`.
    fn heard(&mut self, port: PortId) -> Result<ReceiveStamps, PlaneError>;
}

/// How far the traffic has followed a plan.
#[derive(Debug)]
pub struct Followed {
    /// Which of the parts that were tried failed.
    pub applied: Applied,
    /// Parts are left for [`PlaneBond::program`]. It tries all of them, so its outcome is that of the plan.
    pub rest: bool,
}

/// What link messages say of a port that is as its bond needs it. Another program may have changed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSigns {
    /// It has this master, or none. Of one that another device takes for its port the kernel hands frames to that device as well.
    pub master: Option<u32>,
    /// IFF_ALLMULTI is set: it receives every multicast group.
    pub allmulti: bool,
}

impl PortSigns {
    /// Whether an attached interface is still attached.
    pub fn is_attached(self, link: &Link) -> bool {
        self.master == link.master
    }

    /// Whether a port still receives every multicast group.
    pub fn hears_groups(self, link: &Link) -> bool {
        link.allmulti_flag || !self.allmulti
    }
}

/// A bond that was taken over, and what was found.
pub type Adopted = (Box<dyn PlaneBond>, Observed);

/// Receives reports of changes to the bonds of a plane, whoever made them. It waits for nothing, and no request to the kernel that
/// the plane or one of its bonds is in holds it up.
pub trait Watch: Send {
    /// The name of the plane.
    fn plane(&self) -> &'static str;
    /// The descriptor on which changes are reported, for the loop to wait on. It stays the same.
    fn event_fd(&self) -> RawFd;
    /// Reads up to `budget` messages and appends what they report. With [`Drained::More`] another call is owed.
    fn read_events(&mut self, budget: usize, sink: &mut Vec<Report>) -> io::Result<Drained>;
}

/// What a [`Watch`] received. [`PlaneBond::changed_by_others`] judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A bond has, or had for a moment, certain settings. There may be no such bond.
    Settings {
        /// Index of its interface.
        device: u32,
        /// What the mechanism says, in a form that the bond's plane reads.
        said: Vec<u8>,
    },
    /// A port of a bond lost its carrier while something was prepared for that, which is used up now.
    CarrierLost {
        /// Index of the bond's interface.
        bond: u32,
        /// The port.
        port: PortId,
        /// When.
        at: Time,
        /// What was prepared for its loss was done.
        failed_over: bool,
    },
    /// The kernel can fail over by itself for a bond from now on.
    FailsOver {
        /// Index of its interface.
        bond: u32,
    },
    /// Reports were lost: every bond of the plane may have changed.
    Lost,
}

/// What a plane can do on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaneReport {
    /// `team` or `tc`.
    pub plane: String,
    /// This kernel has what it needs.
    pub usable: bool,
    /// What is missing otherwise.
    pub why_not: Option<String>,
    /// A bond with the options asked about would be exact.
    pub exact: bool,
    /// What would not be otherwise.
    pub differs: Option<String>,
    /// Why its bonds would stop forwarding although nobody removes them, and what helps.
    #[serde(default)]
    pub short_lived: Option<String>,
    /// What the interfaces of its new bonds are, and why not what would be preferred; null if that does not depend on the kernel.
    #[serde(default)]
    pub device: Option<String>,
    /// Whether the kernel fails over by itself when a port of its bonds loses its carrier, and why not otherwise; null if it has no
    /// such thing.
    #[serde(default)]
    pub failover: Option<String>,
}

impl PlaneReport {
    /// Of a plane that has what it needs, or lacks this, and does options exactly, or differs in that.
    pub fn new(plane: &str, usable: Result<(), String>, exact: Result<(), String>) -> PlaneReport {
        PlaneReport {
            plane: plane.to_owned(),
            usable: usable.is_ok(),
            why_not: usable.err(),
            exact: exact.is_ok(),
            differs: exact.err(),
            short_lived: None,
            device: None,
            failover: None,
        }
    }
}

/// The bond's own interface right after it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondDevice {
    /// Interface index.
    pub ifindex: u32,
    /// State with the address and MTU that the kernel chose.
    pub report: LinkReport,
}

/// What a port gets when it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBase {
    /// Address to use; `None` keeps its own.
    pub mac: Option<MacAddr>,
    /// The bond's MTU in bytes.
    pub mtu: u32,
}

/// How the alias of an attached port begins. It is the first setting that a port gets and the last that is put back, so that on an
/// interface that is not attached it marks one that is to be given back.
pub const PORT_MARK: &str = "port of ";

/// What a port was before it was attached, to be restored on detach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalPort {
    /// Address.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub admin_up: bool,
    /// IFF_PROMISC.
    pub promisc: bool,
    /// IFF_ALLMULTI.
    pub allmulti: bool,
    /// `net.ipv6.conf.<port>.disable_ipv6`; `None` where the kernel has no IPv6.
    pub disable_ipv6: Option<bool>,
    /// Interface alias; empty for none.
    pub ifalias: String,
    /// Whether a clsact qdisc was there already.
    pub clsact: bool,
}

/// What the kernel does for a bond at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The bond's own interface.
    pub ifindex: u32,
    /// Its state.
    pub report: LinkReport,
    /// Attached ports and their state, by interface index.
    pub ports: Vec<(PortId, LinkReport)>,
    /// The plan in force, read back from the kernel.
    pub plan: ForwardingPlan,
}

/// Traffic of one port through the bond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames let in.
    pub rx_frames: u64,
    /// Bytes let in.
    pub rx_bytes: u64,
    /// Frames refused on a backup port.
    pub rx_dropped: u64,
}
