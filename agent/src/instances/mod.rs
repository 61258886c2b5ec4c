//! All bonds of one network namespace: routes facts to the bond machines and carries out their actions.
//!
//! The bond machines decide and the data plane forwards. [`Instances`] connects them with everything else: link messages,
//! requests, files and the log.

mod actions;
mod agenda;
mod attempts;
mod bonds;
mod carrier_loss;
mod changes;
mod counters;
mod counting;
mod deadlines;
mod errors;
mod events;
mod examination;
mod facts;
mod forwarder;
mod frame_sockets;
mod gathered;
mod id;
mod instance;
mod kind;
pub mod kinds;
mod listening;
mod logged_failures;
mod looks;
mod losses;
mod memberships;
mod owners;
mod polling;
mod polls;
mod publish;
mod rate_limit;
mod repair;
mod returns;
mod saving;
mod showing;
mod shown;
mod table;
#[cfg(test)]
mod tests;
mod topology;
mod unadopted;
mod unfulfilled;
mod waiting;

pub use changes::{check_options, check_options_on};
pub use showing::{Progress, Showing};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bond_modes::options::millis;
use bond_modes::{Event, Machine, Notice, PortId};
use bond_monitors::Time;
use mio::Registry;
use serde_json::Value;

use self::agenda::{Agenda, StartFiles};
use self::carrier_loss::CarrierLoss;
use self::counting::Counting;
use self::frame_sockets::FrameSockets;
use self::gathered::Gathered;
use self::id::InstanceId;
use self::kind::Kind;
use self::looks::Look;
use self::polls::Polls;
use self::returns::Returns;
use self::table::Table;
use self::unadopted::Unadopted;
use crate::clock;
use crate::control::proto::{BondEvent, BondReport, ControlError, ErrorCode, EventLine, PortReport};
use crate::dataplane::{self, Examiners, PlaneChoice, Planes, Watch};
use crate::descriptors::cannot;
use crate::host::Host;
use crate::netlink::{Drained, Events, LinkEvent, RouteSocket};
use crate::packet::PacketSocket;
use crate::saved::{LeftPort, Store};
use crate::status::StatusFiles;
use crate::status::writer::Writer;
use crate::text;
use crate::threads::Threads;

/// How long a stop waits for the kernel: another program may have its locks. The next start does the rest.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Bonds that an error message lists.
const NAMED_AT_MOST: usize = 20;

/// All bonds, in the order of their creation, and the sockets and files that they share.
pub struct Instances {
    kinds: Vec<Box<dyn Kind<Instances>>>,
    planes: Planes,
    /// What hears of changes to bonds, without the planes.
    watches: Vec<Box<dyn Watch>>,
    /// For `doctor`, without the planes.
    examiners: Examiners,
    /// The plane of bonds whose options name no plane.
    plane_choice: PlaneChoice,
    /// For changes, which may wait for the kernel, and for requests that take none of its locks.
    links: RouteSocket,
    /// For facts, for which the loop does not wait.
    threads: Threads<Instances>,
    /// Something is changed because somebody asked for it.
    changing: bool,
    host: Host,
    events: Events,
    /// The last reading of `events` failed.
    events_broken: bool,
    /// Read from `events` but not handled yet.
    pending_events: VecDeque<LinkEvent>,
    packets: PacketSocket,
    frame_sockets: FrameSockets,
    store: Store,
    writer: Writer,
    /// Which files bonds have.
    status_files: StatusFiles,
    /// Files of bonds that are gone are to be removed, once every bond was handed over to the writer.
    prune_due: bool,
    bonds: Table,
    /// Losses of carrier at ports whose bonds are not taken over yet.
    early_losses: Vec<CarrierLoss>,
    unadopted: Vec<Unadopted>,
    /// What is left of the start.
    agenda: Agenda,
    start_files: Option<StartFiles>,
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
    /// The bond that was published last: one that changes all the time must not keep others from it.
    last_published: Option<InstanceId>,
    /// Bonds whose addresses to announce may have changed.
    outdated_addresses: BTreeSet<InstanceId>,
    polls: Polls,
    counting: Counting,
    /// What `doctor` found.
    examined: Option<Value>,
    /// Bonds that asked for reports of their memberships, and through which port.
    reports: Gathered<(InstanceId, PortId)>,
    /// Interfaces of bonds that are to be looked at.
    looks: Gathered<(InstanceId, Look)>,
    /// Bonds that asked for the hosts behind them.
    hosts_behind: Gathered<InstanceId>,
    /// Events for monitoring clients.
    happened: Vec<EventLine>,
}

/// Whether a report has the counters of ports. Reading them costs a system call a port; files do not show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counters {
    Read,
    Unread,
}

fn open_packets() -> std::io::Result<PacketSocket> {
    PacketSocket::open().map_err(cannot("open a packet socket, which needs CAP_NET_RAW"))
}

impl Instances {
    /// With these `kinds`, but without bonds; [`Instances::begin_start`] says which are to be adopted and made.
    ///
    /// Frames that ports hear are read from sources registered with `registry`; see [`Instances::read_frames`].
    pub fn new(
        run_dir: &Path,
        registry: Registry,
        kinds: Vec<Box<dyn Kind<Instances>>>,
        mut planes: Planes,
        threads: Threads<Instances>,
    ) -> std::io::Result<Instances> {
        let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        Ok(Instances {
            kinds,
            watches: planes.watches(),
            examiners: planes.examiners(),
            planes,
            plane_choice: PlaneChoice::Auto,
            // Before anything is read, so that no change falls between.
            events: Events::open().map_err(cannot("listen to the kernel's link events"))?,
            events_broken: false,
            pending_events: VecDeque::new(),
            links: RouteSocket::open().map_err(cannot("open a socket for requests to the kernel"))?,
            threads,
            changing: false,
            host: Host::default(),
            packets: open_packets()?,
            frame_sockets: FrameSockets::new(registry).map_err(cannot("prepare to receive frames"))?,
            store: Store::open(run_dir).map_err(cannot("use the folder of the saved states"))?,
            writer: Writer::start(run_dir, release.unwrap_or_default()).map_err(cannot("write status files"))?,
            status_files: StatusFiles::All,
            prune_due: false,
            bonds: Table::default(),
            early_losses: Vec::new(),
            unadopted: Vec::new(),
            agenda: Agenda::empty(),
            start_files: None,
            files: Vec::new(),
            unrestored: BTreeMap::new(),
            left_unsaved: false,
            returns: Returns::default(),
            resync_at: None,
            save_again_at: None,
            last_published: None,
            outdated_addresses: BTreeSet::new(),
            polls: Polls::default(),
            counting: Counting::default(),
            examined: None,
            reports: Gathered::default(),
            looks: Gathered::default(),
            hosts_behind: Gathered::default(),
            happened: Vec::new(),
        })
    }

    /// Does something that somebody asked for: it may wait for the kernel, as those who asked do.
    fn as_a_change<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.changing, true);
        let done = work(self);
        self.changing = before;
        done
    }

    /// Takes up to `budget` answers of the threads; with [`Drained::More`] the caller owes another call.
    pub fn take_answers(&mut self, now: Time, budget: usize) -> Drained {
        let mut drained = Drained::More;
        for _ in 0..budget {
            let Some(answer) = self.threads.answer() else {
                drained = Drained::Empty;
                break;
            };
            answer(self, now);
        }
        self.refresh_outdated_addresses(now);
        drained
    }

    /// Leaves to the threads what the bonds asked for in this turn and can wait for its end.
    pub fn ask_threads(&mut self) {
        self.ask_looks();
        self.ask_counters();
        self.ask_reports();
        self.ask_hosts_behind();
    }

    /// Ends an orderly stop: what the kernel was asked to do is done, unless it takes too long. No bond is taken over any more, for
    /// which the loop would wait for the kernel without such a limit: the next start does it.
    pub fn finish(&mut self) {
        let limit = Instant::now() + LAST_WORK;
        self.give_up_adoptions();
        while let Some(answer) = self.threads.last_answer(limit) {
            answer(self, clock::now());
        }
        // Elsewhere its devices go with the process.
        if dataplane::probes_in_sight() {
            drop(self.threads.examiner.last_answer(limit));
        }
    }

    /// Sets the plane of new bonds whose options name no plane.
    pub fn prefer(&mut self, choice: PlaneChoice) {
        self.plane_choice = choice;
    }

    /// Sets which files bonds have; before there are any.
    pub fn show_in(&mut self, files: StatusFiles) {
        self.status_files = files;
    }

    /// When [`Instances::handle_timeout`] or [`Instances::go_on_starting`] has something to do.
    pub fn poll_timeout(&mut self) -> Option<Time> {
        let parts = [
            self.start_timeout(),
            self.adopt_timeout(),
            self.has_started().then(|| self.give_back_timeout()).flatten(),
            self.resync_at,
            self.save_again_at,
        ];
        let mut due: Vec<Time> = parts.into_iter().flatten().collect();
        self.each_kind(|kind, shared| due.extend(kind.poll_timeout(shared)));
        due.into_iter().min()
    }

    /// Runs the timers that are due: first those of the kinds, which may move traffic.
    pub fn handle_timeout(&mut self, now: Time) {
        self.each_kind(|kind, shared| kind.handle_timeout(shared, now));
        self.adopt_due(now);
        if self.resync_at.is_some_and(|at| at <= now) {
            self.resync_later(now);
        }
        // A bond that is still to be taken over may want them.
        if self.has_started() {
            self.give_back_due(now);
        }
        self.save_again(now);
    }

    /// Does something with each kind in turn.
    fn each_kind(&mut self, mut with: impl FnMut(&mut dyn Kind<Instances>, &mut Instances)) {
        let mut kinds = std::mem::take(&mut self.kinds);
        for kind in &mut kinds {
            with(kind.as_mut(), self);
        }
        self.kinds = kinds;
    }

    /// Gives the bonds that this turn was about its duration: from `since`, when its clock was read, to `until`, its end.
    pub fn held_up(&mut self, since: Time, until: Time) {
        for at in self.bonds.of_turn() {
            self.bonds[at].bond.held_up(since, until);
        }
        self.bonds.end_turn();
    }

    /// Events since the last call, oldest first.
    pub fn take_happened(&mut self) -> Vec<EventLine> {
        std::mem::take(&mut self.happened)
    }

    /// Names of the data planes that have a bond.
    pub fn planes_in_use(&self) -> BTreeSet<&'static str> {
        self.bonds.iter().map(|instance| instance.plane.name()).collect()
    }

    /// The data planes, to be closed when the agent stops.
    pub fn into_planes(self) -> Planes {
        self.planes
    }

    fn find(&mut self, bond: &str) -> Result<InstanceId, ControlError> {
        if let Some(at) = self.bonds.named(bond) {
            return Ok(at);
        }
        if let Some(text) = self.why_missing(bond) {
            return Err(ControlError::new(ErrorCode::NoSuchBond, text));
        }
        let known: Vec<&str> = self.bonds.iter().map(|instance| instance.name.as_str()).collect();
        let known = match known.len() {
            0 => "there is none yet".to_owned(),
            more @ NAMED_AT_MOST.. => format!(
                "{} and {} more",
                known[..NAMED_AT_MOST].join(", "),
                more - NAMED_AT_MOST
            ),
            _ => known.join(", "),
        };
        // It may be one whose saved state was lost.
        let so_far = if self.has_started() {
            ""
        } else {
            " so far, bondd has just started"
        };
        Err(ControlError::new(
            ErrorCode::NoSuchBond,
            format!("no bond {bond}{so_far}, expected one of bondd's: {known}"),
        ))
    }

    /// Feeds one fact to a bond and carries out its actions.
    fn feed(&mut self, now: Time, at: InstanceId, event: Event) {
        self.bonds[at].bond.handle_event(now, event);
        self.drain(now, at);
    }

    fn notify(&mut self, at: InstanceId, notice: Notice) {
        log::log!(
            text::level(&notice),
            "{}: {}",
            self.bonds[at].name,
            text::describe(&notice)
        );
        self.notify_clients(at, notice);
    }

    /// For monitoring clients only, not for the log.
    fn notify_clients(&mut self, at: InstanceId, notice: Notice) {
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

    fn report(&mut self, now: Time, at: InstanceId, counters: Counters) -> BondReport {
        let counters = match counters {
            Counters::Read => self.counters(at),
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
        let polls = instance.bond.next_poll().map(|_| instance.bond.options().miimon);
        let polled_every = polls.and_then(|interval| instance.pace.stretched(now, interval));
        BondReport {
            name: instance.name.clone(),
            ifindex: instance.ifindex,
            plane: instance.plane.name().to_owned(),
            status: snapshot.bond,
            polled_every_ms: polled_every.map(millis),
            unfulfilled: instance.unfulfilled.report(now),
            failover: self.failover(at),
            ports,
            option_origins: instance
                .origins
                .of_options(instance.bond.options(), instance.configured.as_ref()),
            options_for_ports: instance.origins.port_options.clone(),
        }
    }
}
