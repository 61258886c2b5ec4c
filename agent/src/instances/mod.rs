//! All bonds of one network namespace: routes facts to the bond machines and carries out their actions.
//!
//! The bond machines decide and the data plane forwards. [`Instances`] connects them with everything else: link messages,
//! requests, files and the log.

mod actions;
mod adoption;
mod attach;
mod attempts;
mod calls;
mod events;
mod follow;
mod frame_sockets;
mod give_back;
mod listening;
mod logged_failures;
mod publish;
mod rate_limit;
mod repair;
mod showing;
mod shown;
mod start;
#[cfg(test)]
mod tests;
mod topology;
mod unadopted;
mod unfulfilled;

pub use showing::Showing;
pub use start::{check_options, check_options_on};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bond_modes::options::millis;
use bond_modes::{Bond, Event, Machine, Notice, PortId};
use bond_monitors::wire::ethernet::Tag;
use bond_monitors::{MacAddr, Time};
use mio::Registry;

use self::attempts::Attempts;
use self::frame_sockets::FrameSockets;
use self::give_back::Returns;
use self::logged_failures::{LoggedFailures, Subject};
use self::rate_limit::RateLimit;
use self::shown::Shown;
use self::unadopted::Unadopted;
use self::unfulfilled::Unfulfilled;
use crate::clock;
use crate::control::proto::{BondEvent, BondReport, ControlError, ErrorCode, EventLine, OptionPairs, PortReport};
use crate::dataplane::{OriginalPort, PlaneBond, PlaneChoice, Planes, PortCounters, Traffic};
use crate::netlink::{Events, Link, LinkEvent, RouteSocket};
use crate::origins::Origins;
use crate::packet::PacketSocket;
use crate::saved::{LeftPort, SavedBond, Store};
use crate::status::Devices;
use crate::status::publish::Publisher;
use crate::text::{self, chain};

/// A round of polls begins at least this many times its duration after the one before: polls take a quarter of the processor at
/// most.
const POLLS_SHARE: u32 = 4;

/// All bonds, in the order of their creation, and the sockets and files that they share.
pub struct Instances {
    planes: Planes,
    /// The plane of bonds whose options name no plane.
    plane_choice: PlaneChoice,
    links: RouteSocket,
    events: Events,
    /// The last reading of `events` failed.
    events_broken: bool,
    /// Read from `events` but not handled yet.
    pending_events: VecDeque<LinkEvent>,
    packets: PacketSocket,
    frame_sockets: FrameSockets,
    store: Store,
    publisher: Publisher,
    bonds: Vec<Instance>,
    unadopted: Vec<Unadopted>,
    /// The option files that were read at the start, as absolute paths.
    files: Vec<PathBuf>,
    /// Ports that did not get their original settings back when their bond was removed.
    unrestored: BTreeMap<PortId, LeftPort>,
    /// They could not be saved.
    left_unsaved: bool,
    /// Failures to give back these ports, and those of the bonds.
    returns: Returns,
    /// When every interface is to be read, after an attempt at that failed.
    resync_at: Option<Time>,
    /// When states that could not be saved are saved again.
    save_again_at: Option<Time>,
    /// Where to look for the next bond to publish: one that changes all the time must not keep others from it.
    next_published: usize,
    /// Carriers were polled in this turn.
    polled: bool,
    /// Kernel release, for the status files' first line.
    release: String,
    /// Events for monitoring clients.
    happened: Vec<EventLine>,
}

/// One bond and the agent's data about it.
struct Instance {
    name: String,
    ifindex: u32,
    /// Its forwarding, on the plane that it is on.
    plane: Box<dyn PlaneBond>,
    /// What moves its traffic without waiting for the kernel's locks, where the plane can do that.
    traffic: Option<Box<dyn Traffic>>,
    bond: Bond,
    originals: BTreeMap<PortId, OriginalPort>,
    /// Original settings of ports that have disappeared, by name: a port that was moved to another namespace comes back with our
    /// settings.
    vanished: BTreeMap<String, OriginalPort>,
    /// Original settings of interfaces that are no ports and have not got them back, or came back from another namespace without
    /// them. The present ones are ours, so the next attachment must not take them for the original ones.
    unrestored: BTreeMap<PortId, OriginalPort>,
    /// Names of its ports, there or not, in the order asked for.
    wanted: Vec<String>,
    /// The options of the files that were last followed; `None` if no file names the bond.
    configured: Option<OptionPairs>,
    origins: Origins,
    /// Failures that last, which the log has reported.
    failures: LoggedFailures,
    /// Parts of its plan that could not be done.
    unfulfilled: Unfulfilled,
    /// Last known state of its interface and its ports, for the files.
    devices: Devices,
    /// Wanted ports that are there and could not be attached.
    attempts: Attempts,
    /// Ports whose drivers report no link state.
    silent_drivers: BTreeSet<PortId>,
    /// How often changes by others were put back lately.
    repairs: RateLimit,
    /// Ports that have another address than the plan's, and that address: another program changed it.
    foreign_macs: BTreeMap<PortId, MacAddr>,
    /// How often the log reported that lately, by port.
    foreign_logged: BTreeMap<PortId, RateLimit>,
    /// Interfaces whose addresses are announced.
    announced: Vec<u32>,
    /// These or their addresses have changed since they were read.
    stale: bool,
    /// The bond machine had an event since its files were compared with it.
    touched: bool,
    /// The bond machine's state when the files were rendered last.
    shown: Option<Shown>,
    /// Its status files may be out of date.
    dirty: bool,
    /// Its state could not be saved.
    unsaved: bool,
}

/// Whether a report has the counters of ports. Reading them costs a system call a port; files do not show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counters {
    Read,
    Unread,
}

impl Instances {
    /// Without bonds; [`Instances::start`] adopts and makes them.
    ///
    /// Frames that ports hear are read from sources registered with `registry`; see [`Instances::read_frames`].
    pub fn new(run_dir: &Path, registry: Registry, planes: Planes) -> std::io::Result<Instances> {
        let packets = PacketSocket::open().map_err(|error| {
            let message = format!("cannot open a packet socket, which needs CAP_NET_RAW: {error}");
            std::io::Error::new(error.kind(), message)
        })?;
        let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        Ok(Instances {
            planes,
            plane_choice: PlaneChoice::Auto,
            // Before anything is read, so that no change falls between.
            events: Events::open()?,
            events_broken: false,
            pending_events: VecDeque::new(),
            links: RouteSocket::open()?,
            packets,
            frame_sockets: FrameSockets::new(registry),
            store: Store::open(run_dir)?,
            publisher: Publisher::new(PathBuf::from(run_dir)),
            bonds: Vec::new(),
            unadopted: Vec::new(),
            files: Vec::new(),
            unrestored: BTreeMap::new(),
            left_unsaved: false,
            returns: Returns::default(),
            resync_at: None,
            save_again_at: None,
            next_published: 0,
            polled: false,
            release: release.unwrap_or_default(),
            happened: Vec::new(),
        })
    }

    /// Sets the plane of new bonds whose options name no plane.
    pub fn prefer(&mut self, choice: PlaneChoice) {
        self.plane_choice = choice;
    }

    /// When [`Instances::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        let bonds = self.bonds.iter().filter_map(|instance| instance.bond.poll_timeout());
        let others = [
            self.repair_timeout(),
            self.attach_timeout(),
            self.adopt_timeout(),
            self.give_back_timeout(),
            self.resync_at,
            self.save_again_at,
            self.publisher.poll_timeout(),
        ];
        bonds.chain(others.into_iter().flatten()).min()
    }

    /// Runs the timers that are due. Polls get a limited share of the processor: at real-time priority more would keep other
    /// programs from it, until the kernel stopped the agent.
    pub fn handle_timeout(&mut self, now: Time) {
        let before = clock::worked();
        self.polled = false;
        for at in 0..self.bonds.len() {
            if self.bonds[at].bond.poll_timeout().is_some_and(|due| due <= now) {
                self.bonds[at].bond.handle_timeout(now);
                self.drain(now, at);
            }
        }
        self.adopt_due(now);
        self.repair_after_pause(now);
        if self.resync_at.take_if(|at| *at <= now).is_some() {
            self.resync(now);
        }
        self.attach_due(now);
        self.give_back_due(now);
        self.save_again(now);
        if self.polled {
            let rested = now + (clock::worked() - before) * POLLS_SHARE;
            for instance in &mut self.bonds {
                instance.bond.hold_polls(rested);
            }
        }
    }

    /// Gives the bonds the duration of the turn: from `since`, when its clock was read, to `until`, its end.
    pub fn held_up(&mut self, since: Time, until: Time) {
        for instance in &mut self.bonds {
            instance.bond.held_up(since, until);
        }
    }

    /// Events since the last call, oldest first.
    pub fn take_happened(&mut self) -> Vec<EventLine> {
        std::mem::take(&mut self.happened)
    }

    /// Names of the data planes that have a bond.
    pub fn planes_in_use(&self) -> BTreeSet<&'static str> {
        self.bonds.iter().map(|instance| instance.plane.plane()).collect()
    }

    /// The data planes, to be closed when the agent stops.
    pub fn into_planes(self) -> Planes {
        self.planes
    }

    fn find(&self, bond: &str) -> Result<usize, ControlError> {
        self.bonds
            .iter()
            .position(|instance| instance.name == bond)
            .ok_or_else(|| {
                if let Some(waiting) = self.unadopted.iter().find(|waiting| waiting.name == bond) {
                    let text = format!("{bond} is not adopted yet, bondd tries again: {}", waiting.reason);
                    return ControlError::new(ErrorCode::NoSuchBond, text);
                }
                let known: Vec<&str> = self.bonds.iter().map(|instance| instance.name.as_str()).collect();
                let known = if known.is_empty() {
                    "there is none yet".to_owned()
                } else {
                    known.join(", ")
                };
                ControlError::new(
                    ErrorCode::NoSuchBond,
                    format!("no bond {bond}, expected one of bondd's: {known}"),
                )
            })
    }

    /// The bond that a port belongs to.
    fn owner_of(&self, port: PortId) -> Option<usize> {
        let owns = |instance: &Instance| instance.bond.ports().get(port).is_some();
        self.bonds.iter().position(owns)
    }

    /// Feeds one fact to a bond and carries out its actions.
    fn feed(&mut self, now: Time, at: usize, event: Event) {
        self.bonds[at].bond.handle_event(now, event);
        self.drain(now, at);
    }

    fn notify(&mut self, at: usize, notice: Notice) {
        log::log!(
            text::level(&notice),
            "{}: {}",
            self.bonds[at].name,
            text::describe(&notice)
        );
        self.notify_clients(at, notice);
    }

    /// For monitoring clients only, not for the log.
    fn notify_clients(&mut self, at: usize, notice: Notice) {
        let bond = self.bonds[at].name.clone();
        let text = text::describe(&notice);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = since_1970.as_millis() as f64 / 1000.0;
        self.happened.push(EventLine {
            event: BondEvent {
                time,
                bond,
                text,
                notice,
            },
        });
    }

    /// A port whose counters cannot be read is left out.
    fn read_counters(&mut self, at: usize) -> BTreeMap<PortId, PortCounters> {
        let instance = &mut self.bonds[at];
        let mut read = BTreeMap::new();
        for port in instance.bond.ports().iter() {
            let counters = match &mut instance.traffic {
                Some(traffic) => traffic.counters(port.id),
                None => instance.plane.counters(port.id),
            };
            match counters {
                Ok(counters) => {
                    read.insert(port.id, counters);
                }
                Err(error) => log::debug!("{}: {}", instance.name, chain(&error)),
            }
        }
        read
    }

    fn report(&mut self, now: Time, at: usize, counters: Counters) -> BondReport {
        let counters = match counters {
            Counters::Read => self.read_counters(at),
            Counters::Unread => BTreeMap::new(),
        };
        let instance = &self.bonds[at];
        let snapshot = instance.bond.status(now);
        let attached = snapshot.ports.into_iter().map(|mut port| {
            port.mac = instance.foreign_macs.get(&port.ifindex).copied().unwrap_or(port.mac);
            let counters = counters.get(&port.ifindex).copied();
            let unmonitored = instance.is_unmonitored(port.ifindex);
            let mut report = PortReport::attached(port, counters);
            report.notes.unmonitored = unmonitored;
            report
        });
        let mut ports: Vec<PortReport> = attached.collect();
        let absent = instance
            .wanted
            .iter()
            .filter(|name| instance.bond.ports().named(name).is_none());
        ports.extend(absent.map(|name| {
            let mut report = PortReport::absent(name);
            if let Some((reason, next)) = instance.attempts.last(now, name) {
                report.notes.attach_error = Some(reason.to_owned());
                report.notes.next_attempt_ms = Some(millis(next));
            }
            report
        }));
        BondReport {
            name: instance.name.clone(),
            ifindex: instance.ifindex,
            plane: instance.plane.plane().to_owned(),
            status: snapshot.bond,
            unfulfilled: instance.unfulfilled.report(now),
            ports,
            option_origins: instance
                .origins
                .of_options(instance.bond.options(), instance.configured.as_ref()),
            options_for_ports: instance.origins.port_options.clone(),
        }
    }

    /// A failure is logged by the store, and tried again with the next change.
    fn save(&mut self, at: usize) {
        let _ = self.try_save(at);
    }

    fn try_save(&mut self, at: usize) -> std::io::Result<()> {
        let instance = &self.bonds[at];
        self.store.save(&SavedBond {
            boot_id: self.store.boot_id().to_owned(),
            name: instance.name.clone(),
            ifindex: instance.ifindex,
            plane: Some(instance.plane.plane().to_owned()),
            bond: instance.bond.saved(),
            originals: instance.originals.clone(),
            vanished: instance.vanished.clone(),
            unrestored: instance.unrestored.clone(),
            wanted: instance.wanted.clone(),
            configured: instance.configured.clone(),
            origins: Some(instance.origins.clone()),
        })
    }
}

impl Instance {
    /// Ports have other names now; `names` has the new ones by the old ones.
    fn ports_renamed(&mut self, names: &BTreeMap<String, String>) {
        for name in &mut self.wanted {
            if let Some(new) = names.get(name) {
                name.clone_from(new);
            }
        }
        // A port may have got the name of an absent one.
        let mut seen = BTreeSet::new();
        self.wanted.retain(|name| seen.insert(name.clone()));
        self.origins.ports_renamed(names);
    }

    /// Forgets a port that is not to be attached any more; whether it was wanted.
    fn forget_wanted(&mut self, port: &str) -> bool {
        let before = self.wanted.len();
        self.wanted.retain(|name| name != port);
        self.attempts.forget(port);
        self.failures.forget(&Subject::Wanted(port.to_owned()));
        self.vanished.remove(port);
        self.origins.operator_ports.remove(port);
        before != self.wanted.len()
    }
}

/// An interface and all that carry their traffic through it at any depth, such as a VLAN on it or the bridge it is a port of;
/// each with the VLAN tags that its frames get on the way, the outermost first. Only `through` interfaces that fit.
fn above<'a>(links: &'a [Link], lowest: &'a Link, through: fn(&Link) -> bool) -> Vec<(&'a Link, Vec<Tag>)> {
    let mut found = vec![(lowest, Vec::new())];
    let mut at = 0;
    while let Some((lower, tags)) = found.get(at).cloned() {
        at += 1;
        let upper = |link: &&Link| {
            lower.master == Some(link.ifindex)
                // The far end of a veth pair is beside it, not above.
                || link.kind.as_deref() != Some("veth") && link.peer == Some(lower.ifindex)
        };
        for link in links.iter().filter(upper).filter(|link| through(link)) {
            if found.iter().all(|(known, _)| known.ifindex != link.ifindex) {
                found.push((link, tags.iter().copied().chain(link.vlan).collect()));
            }
        }
    }
    found
}
