//! All bonds of one network namespace: routes facts to the bond machines and carries out their actions.
//!
//! The bond machines decide and the data plane forwards. [`Instances`] connects them with everything else: link messages,
//! requests, files and the log. What takes facts in, and what publishes, is here and waits for nothing; what changes bonds is in
//! `changes` and may wait.

mod actions;
mod agenda;
mod attempts;
mod bonds;
mod carrier_loss;
mod changes;
mod circling;
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
mod guard;
mod guarding;
mod id;
mod instance;
mod kind;
pub mod kinds;
mod left;
mod left_behind;
mod listening;
mod logged_failures;
mod looks;
mod losses;
mod memberships;
mod moved;
mod owners;
mod polling;
mod polls;
mod publish;
mod rate_limit;
mod repair;
mod returns;
mod row;
mod saving;
mod showing;
mod shown;
mod table;
mod task;
mod tasks;
mod telling;
#[cfg(test)]
mod tests;
mod tools;
mod topology;
mod turns;
mod unadopted;
mod underway;
mod unfulfilled;
mod untold;
mod waiting;
mod waiting_ports;

pub use changes::{Changer, Desk, Outcome, check_options, check_options_on};
pub use showing::{Progress, Showing};
pub use task::Task;
pub use tools::Tools;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bond_modes::options::millis;
use bond_modes::{Event, Machine, Notice, PortId};
use bond_monitors::Time;
use mio::Registry;
use serde_json::Value;

use self::agenda::Agenda;
use self::carrier_loss::CarrierLoss;
use self::counting::Counting;
use self::frame_sockets::FrameSockets;
use self::gathered::Gathered;
use self::guard::Guard;
use self::id::InstanceId;
use self::kind::Kind;
use self::left_behind::Left;
use self::looks::Look;
use self::polls::Polls;
use self::returns::Returns;
use self::row::Row;
use self::table::Table;
use self::turns::Turns;
use self::unadopted::Unadopted;
use self::underway::Underway;
use self::untold::Untold;
use self::waiting_ports::WaitingPorts;
use crate::clock;
use crate::control::proto::{BondEvent, BondReport, ControlError, ErrorCode, EventLine, PortReport};
use crate::dataplane::{self, Examiners, PlaneChoice, Planes, Watch};
use crate::descriptors::cannot;
use crate::host::Host;
use crate::netlink::{Drained, Events, LinkEvent, RouteSocket};
use crate::packet::PacketSocket;
use crate::saved::Store;
use crate::status::StatusFiles;
use crate::status::writer::{Settling, Writer};
use crate::text;
use crate::threads::Threads;

/// Bonds that an error message lists.
const NAMED_AT_MOST: usize = 20;

/// All bonds, in the order of their creation, and the sockets and files that they share.
pub struct Instances {
    kinds: Vec<Box<dyn Kind<Instances>>>,
    /// What hears of changes to bonds, without the planes.
    watches: Vec<Box<dyn Watch>>,
    /// For `doctor`, without the planes.
    examiners: Examiners,
    /// The plane of bonds whose options name no plane.
    plane_choice: PlaneChoice,
    /// For routes, which take no lock of the kernel that others hold for long.
    routes: RouteSocket,
    threads: Threads<Instances>,
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
    /// Bonds whose plans are not done whole.
    rests: BTreeSet<InstanceId>,
    /// What a change is at work with.
    underway: Underway,
    /// What is to be asked of the bond whose plane it is at work with, when that is done.
    held: Vec<Held>,
    /// Bonds that a change is to save.
    to_save: BTreeSet<InstanceId>,
    /// Bonds whose interfaces are gone.
    gone: BTreeSet<InstanceId>,
    /// Ports that bonds want, and that changed so that an attempt is due.
    to_attach: VecDeque<(InstanceId, String)>,
    turns: Turns,
    /// Links that are told in a row.
    row: Row,
    /// What bonds have yet to be told after facts were lost.
    untold: Untold,
    unadopted: Vec<Unadopted>,
    waiting_ports: WaitingPorts,
    /// What is left of the start.
    agenda: Agenda,
    /// The end of the start waits no longer for the status files.
    files_limit: Option<Time>,
    /// See [`Instances::are_files_written`].
    settling: Option<Settling>,
    /// The bonds whose files were out of date then, and have not been handed over since.
    owed_files: Option<BTreeSet<InstanceId>>,
    /// The option files that were read at the start, as absolute paths.
    files: Vec<PathBuf>,
    left: Left,
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
    /// When the planes' own things in the kernel are looked after.
    guard: Guard,
    /// Events for monitoring clients.
    happened: Vec<EventLine>,
}

/// Work that waits until a bond's plane is free.
type Held = Box<dyn FnOnce(&mut Instances) + Send>;

/// Whether a report has the counters of ports. Reading them costs a system call a port; files do not show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counters {
    Read,
    Unread,
}

fn open_packets() -> std::io::Result<PacketSocket> {
    PacketSocket::open().map_err(cannot("open a packet socket, which needs CAP_NET_RAW"))
}

/// As `uname -r`.
fn kernel_release() -> String {
    let name = nix::sys::utsname::uname();
    name.map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

impl Instances {
    /// With these `kinds`, but without bonds; [`Desk::change`] begins a change, whose `begin_start` says which are to be adopted and made.
    ///
    /// Frames that ports hear are read from sources registered with `registry`; see [`Instances::read_frames`].
    pub fn new(
        run_dir: &Path,
        registry: Registry,
        kinds: Vec<Box<dyn Kind<Instances>>>,
        planes: &mut Planes,
        threads: Threads<Instances>,
    ) -> std::io::Result<Instances> {
        Ok(Instances {
            kinds,
            watches: planes.watches(),
            examiners: planes.examiners(),
            plane_choice: PlaneChoice::Auto,
            // Before anything is read, so that no change falls between.
            events: Events::open().map_err(cannot("listen to the kernel's link events"))?,
            events_broken: false,
            pending_events: VecDeque::new(),
            routes: RouteSocket::open_for_loop().map_err(cannot("open a socket for requests to the kernel"))?,
            threads,
            host: Host::default(),
            packets: open_packets()?,
            frame_sockets: FrameSockets::new(registry).map_err(cannot("prepare to receive frames"))?,
            store: Store::open(run_dir).map_err(cannot("use the folder of the saved states"))?,
            writer: Writer::start(run_dir, kernel_release()).map_err(cannot("write status files"))?,
            status_files: StatusFiles::All,
            prune_due: false,
            bonds: Table::default(),
            early_losses: Vec::new(),
            rests: BTreeSet::new(),
            underway: Underway::default(),
            held: Vec::new(),
            to_save: BTreeSet::new(),
            gone: BTreeSet::new(),
            to_attach: VecDeque::new(),
            turns: Turns::default(),
            row: Row::default(),
            untold: Untold::default(),
            unadopted: Vec::new(),
            waiting_ports: WaitingPorts::default(),
            agenda: Agenda::empty(),
            files_limit: None,
            settling: None,
            owed_files: None,
            files: Vec::new(),
            left: Left::default(),
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
            guard: Guard::default(),
            happened: Vec::new(),
        })
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
    pub fn ask_threads(&mut self, now: Time) {
        self.follow_moves(now);
        self.poll_waiting(now);
        self.ask_rests();
        self.ask_looks();
        self.ask_counters();
        self.ask_reports();
        self.ask_hosts_behind();
        self.ask_guard(now);
    }

    /// Whether everything is done that the kernel was asked to do.
    pub fn is_idle(&self) -> bool {
        self.threads.are_idle()
    }

    /// Ends an orderly stop: what the kernel was asked to do is done, unless it takes until `limit`.
    pub fn finish(&mut self, limit: Instant) {
        while let Some(answer) = self.threads.last_answer(limit) {
            answer(self, clock::now());
        }
        self.tell_all(clock::now());
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

    /// When [`Instances::handle_timeout`] has something to do.
    pub fn poll_timeout(&mut self) -> Option<Time> {
        let due = [self.resync_at, self.save_again_at, self.waiting_poll_timeout()];
        let mut due: Vec<Time> = due.into_iter().flatten().collect();
        self.each_kind(|kind, shared| due.extend(kind.poll_timeout(shared)));
        due.into_iter().min()
    }

    /// Runs the timers that are due: first those of the kinds, which may move traffic.
    pub fn handle_timeout(&mut self, now: Time) {
        self.each_kind(|kind, shared| kind.handle_timeout(shared, now));
        if self.resync_at.is_some_and(|at| at <= now) {
            self.resync_later(now);
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

    /// Leaves a question about the plane of a bond to a thread: now, or once no change is at work with it. Otherwise that thread, and
    /// all that it is asked after this, would have to wait.
    fn when_free(&mut self, at: InstanceId, ask: impl FnOnce(&mut Instances) + Send + 'static) {
        match self.underway.at_work == Some(at) {
            true => self.held.push(Box::new(ask)),
            false => ask(self),
        }
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
        let event = BondEvent {
            time,
            bond,
            text,
            notice,
        };
        if let Some(overheard) = &mut self.underway.overheard {
            overheard.push(event.clone());
        }
        self.happened.push(EventLine { event });
    }

    fn report(&mut self, now: Time, at: InstanceId, counters: Counters) -> BondReport {
        let counters = match counters {
            Counters::Read => self.counters(at),
            Counters::Unread => BTreeMap::new(),
        };
        let instance = &self.bonds[at];
        let snapshot = instance.bond.status(now);
        let attached = snapshot.ports.into_iter().map(|mut port| {
            port.mac = instance.other_macs.get(&port.ifindex).copied().unwrap_or(port.mac);
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
