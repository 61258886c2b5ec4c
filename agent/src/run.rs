//! The loop: one thread, one wait. A turn reads what is ready into events, runs timers and actions, and publishes. Changes are made by
//! another thread, one at a time; see [`Changer`].

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bond_monitors::Time;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use parking_lot::FairMutex;
use serde_json::Value;

use crate::clock;
use crate::control::proto::{Call, ControlError, warn};
use crate::control::server::{Request, Server};
use crate::instances::{Changer, Desk, Instances, Outcome, Progress, Showing, Task};
use crate::netlink::Drained;
use crate::signals::Signals;
use crate::status::writer::{CLIENT_LIMIT, Mark, Patience};

/// Tokens of the sources besides the control socket, whose tokens follow.
const SIGNALS: Token = Token(0);
const LINK_EVENTS: Token = Token(1);
const PLANE_EVENTS: Token = Token(2);
const PUBLISHED: Token = Token(3);
/// Token of the waker of the threads that answer the loop.
pub const ANSWERS: Token = Token(4);
/// First token of the control socket.
pub const CONTROL: usize = 5;

/// Sources that one wait reports: more than the most clients, so that link events do not wait behind them.
const SOURCES_A_TURN: usize = 1024;

/// Messages read from one source in one turn.
const BUDGET: usize = 64;

/// Time in one turn for all requests that change nothing, so that they cannot delay a failover. The work that is begun, such as that
/// of one bond, is done.
const SHOWN_A_TURN: Duration = Duration::from_micros(200);

/// After a `doctor` the next one waits for this many times as long as the first one took, so that they take a tenth of
/// the time, unless that is more than [`EXAMINATION_PAUSE_MAX`].
const EXAMINATION_SHARE: u32 = 9;

/// At least this long.
const EXAMINATION_PAUSE: Duration = Duration::from_millis(100);

/// At most this long: on a busy machine an examination takes long, and clients wait 10 s for an answer.
const EXAMINATION_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a stop waits for the kernel: another program may have its locks. The next start does the rest.
const LAST_WORK: Duration = Duration::from_secs(1);

/// How often it looks whether the disk answers.
const PROGRESS: Duration = Duration::from_millis(200);

/// What it waits for answers.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// Everything that the loop owns.
pub struct Agent {
    poll: Poll,
    signals: Signals,
    server: Server,
    instances: Arc<FairMutex<Instances>>,
    changer: Changer,
    /// A task of the agent was the last change: clients are not to wait for many of them.
    clients_first: bool,
    /// Nothing new is begun.
    stops: bool,
    /// The client whose call is carried out.
    changing: Option<Request>,
    /// Sources whose budget ran out: the wait, which is edge-triggered, would not report them again.
    unread: BTreeSet<Token>,
    /// The answer to `show` that is being made, some bonds in each turn. Other readers wait.
    showing: Option<(Request, Showing)>,
    /// See [`SHOWN_A_TURN`].
    share_of_readers: Duration,
    /// That answer waits until then, or for an answer of a thread.
    showing_waits: Option<Time>,
    /// Answers to changes that are not in the files yet, the oldest first.
    unpublished: VecDeque<Answer>,
    /// Requests to examine the kernel, the oldest first. A client has no more than one.
    examinations: VecDeque<Request>,
    /// The one that is being made, and since when.
    examining: Option<(Request, Time)>,
    /// The next one is not begun before.
    next_examination: Time,
}

/// The answer to a change, which waits for the files that show the change.
struct Answer {
    request: Request,
    answer: Value,
    files: Mark,
    /// It waits no longer than this.
    limit: Time,
}

/// The change to make next.
enum Next {
    Task(Task),
    Call(Request),
}

impl Agent {
    /// Puts the parts together; the server's sources are registered with `poll` already. `changer` makes changes of `instances`.
    pub fn new(
        poll: Poll,
        mut signals: Signals,
        server: Server,
        instances: Arc<FairMutex<Instances>>,
        changer: Changer,
    ) -> io::Result<Agent> {
        let registry = poll.registry();
        signals.register(registry, SIGNALS)?;
        {
            let instances = instances.lock();
            registry.register(&mut SourceFd(&instances.link_events()), LINK_EVENTS, Interest::READABLE)?;
            let published = instances.published_events();
            registry.register(&mut SourceFd(&published), PUBLISHED, Interest::READABLE)?;
            for events in instances.plane_events() {
                registry.register(&mut SourceFd(&events), PLANE_EVENTS, Interest::READABLE)?;
            }
        }
        Ok(Agent {
            poll,
            signals,
            server,
            instances,
            changer,
            clients_first: false,
            stops: false,
            changing: None,
            // Data that arrived before the descriptors were registered is not reported.
            unread: BTreeSet::from([LINK_EVENTS, PLANE_EVENTS]),
            showing: None,
            share_of_readers: SHOWN_A_TURN,
            showing_waits: None,
            unpublished: VecDeque::new(),
            examinations: VecDeque::new(),
            examining: None,
            next_examination: Time::ZERO,
        })
    }

    /// Runs until a signal asks to stop; all bonds forward as before. `started` is called once, when the work of the start is done,
    /// and `last` makes the last change, unless the kernel does not answer in time.
    ///
    /// # Errors
    /// The wait for what happens fails.
    pub fn run(mut self, started: impl FnOnce(), last: impl FnOnce(&mut Desk) + Send + 'static) -> io::Result<()> {
        let mut started = Some(started);
        let mut ready = mio::Events::with_capacity(SOURCES_A_TURN);
        while !self.signals.stop_requested() {
            let wait = self.wait();
            self.next_turn(&mut ready, wait)?;
            if self.instances.lock().has_started()
                && let Some(started) = started.take()
            {
                started();
            }
        }
        self.stop(&mut ready, last)
    }

    /// Ends what was begun, as far as the kernel and the disk answer. Until then the turns go on, as a port may fail meanwhile.
    fn stop(&mut self, ready: &mut mio::Events, last: impl FnOnce(&mut Desk) + Send + 'static) -> io::Result<()> {
        self.stops = true;
        let limit = clock::now() + LAST_WORK;
        let is_idle = |agent: &mut Agent| !agent.changer.is_busy();
        let mut ended = self.turns_until(ready, limit, is_idle)?;
        if ended {
            self.changer.begin_last(last);
            ended = self.turns_until(ready, limit, is_idle)?;
        }
        if !ended {
            log::warn!(
                "stopping in the middle of a change, because the kernel does not answer; the next start goes on"
            );
        }
        self.turns_until(ready, limit, |agent| agent.instances.lock().is_idle())?;
        self.instances.lock().look_at_files_anew();
        let written = self.write_files(ready)?;
        let shared = Arc::clone(&self.instances);
        let instances = &mut *shared.lock();
        instances.finish(Instant::now() + LAST_ANSWERS);
        match written {
            // The little that has changed since.
            Ok(()) => instances.publish_all(clock::now()),
            Err(waited) => instances.give_up_files(waited),
        }
        self.answer_published(instances);
        for event in instances.take_happened() {
            self.server.publish(&event);
        }
        self.server.stopping();
        self.server.converse(self.poll.registry());
        Ok(())
    }

    /// Takes turns until the files show what there is, or the disk seems not to answer: then after so long.
    fn write_files(&mut self, ready: &mut mio::Events) -> io::Result<Result<(), Duration>> {
        let mut patience = Patience::begin(self.instances.lock().steps_of_files());
        loop {
            let look = clock::now() + PROGRESS;
            if self.turns_until(ready, look, |agent| agent.instances.lock().are_files_written())? {
                return Ok(Ok(()));
            }
            if patience.is_over(self.instances.lock().steps_of_files()) {
                return Ok(Err(patience.waited()));
            }
        }
    }

    /// Takes turns until `is_done`, which is asked after each, or `limit`; whether it is done.
    fn turns_until(
        &mut self,
        ready: &mut mio::Events,
        limit: Time,
        is_done: impl Fn(&mut Agent) -> bool,
    ) -> io::Result<bool> {
        while !is_done(self) {
            let left = limit.since(clock::now());
            if left.is_zero() {
                return Ok(false);
            }
            let wait = self.wait().map_or(left, |wait| wait.min(left));
            self.next_turn(ready, Some(wait))?;
        }
        Ok(true)
    }

    fn next_turn(&mut self, ready: &mut mio::Events, wait: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(ready, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut sources = std::mem::take(&mut self.unread);
        sources.extend(ready.iter().map(|event| event.token()));
        let shared = Arc::clone(&self.instances);
        let next = self.turn(&mut shared.lock(), sources);
        match next {
            Some(Next::Task(task)) => self.changer.begin_task(task),
            Some(Next::Call(request)) => {
                self.changer.begin_call(request.call.clone());
                self.changing = Some(request);
            }
            None => return Ok(()),
        }
        // It may be done already.
        self.take_outcome(&mut shared.lock());
        Ok(())
    }

    /// Time until the earliest deadline, rounded up so that it has passed after the wait; zero if there is work.
    fn wait(&mut self) -> Option<Duration> {
        let instances = &mut *self.instances.lock();
        let shows = self.showing.is_some() && self.showing_waits.is_none();
        if shows
            || !self.unread.is_empty()
            || instances.has_pending_events()
            || instances.has_untold()
            || instances.has_unpublished()
        {
            return Some(Duration::ZERO);
        }
        let reads = self.server.has_reads() && self.showing.is_none();
        let changes = !self.stops && self.server.has_changes() && instances.has_started() && !self.changer.is_busy();
        if self.server.has_work() || reads || changes {
            return Some(Duration::ZERO);
        }
        let examines = self.examining.is_none() && !self.examinations.is_empty();
        let due = [
            instances.poll_timeout(),
            if self.stops || self.changer.is_busy() {
                None
            } else {
                instances.task_timeout()
            },
            instances.guard_timeout(),
            examines.then_some(self.next_examination),
            self.unpublished.front().map(|answer| answer.limit),
            self.showing_waits,
        ];
        let due = due.into_iter().flatten().min();
        due.map(|due| due.since(clock::now()))
    }

    /// One turn. Returns the change to make next.
    fn turn(&mut self, instances: &mut Instances, sources: BTreeSet<Token>) -> Option<Next> {
        let now = clock::now();
        // Link events first: a failover must not wait for a client. A change may have read some.
        if (sources.contains(&LINK_EVENTS) || instances.has_pending_events())
            && instances.read_links(now, BUDGET) == Drained::More
        {
            self.unread.insert(LINK_EVENTS);
        }
        // After all link events that are older: what they say of a port must not count as newer than what a plane says.
        let links_are_read = !self.unread.contains(&LINK_EVENTS);
        if sources.contains(&PLANE_EVENTS) && (!links_are_read || instances.read_planes(now, BUDGET) == Drained::More) {
            self.unread.insert(PLANE_EVENTS);
        }
        // Each may be about another bond.
        if instances.take_answers(now, BUDGET) == Drained::More {
            self.unread.insert(ANSWERS);
        }
        instances.tell_untold(now);
        // What the kernel has to do for them.
        instances.ask_rests();
        if sources.contains(&SIGNALS) {
            self.signals.drain();
        }
        if sources.contains(&PUBLISHED) {
            instances.read_published();
        }
        // Frames before timers: an answer that has arrived must not count as missing.
        for &token in &sources {
            if let Some(port) = Instances::frame_token(token)
                && instances.read_frames(now, port, BUDGET) == Drained::More
            {
                self.unread.insert(token);
            }
        }
        instances.handle_timeout(now);
        instances.ask_rests();
        self.take_outcome(instances);
        let next = self.next_change(instances);
        self.answer_published(instances);
        self.answer_reads(instances);
        self.examine(instances);
        for event in instances.take_happened() {
            self.server.publish(&event);
        }
        instances.ask_threads(now);
        instances.publish(clock::now());
        // Clients last: what they ask for has its turn after all events that are older, such as an address that the same script added.
        for token in sources {
            if Instances::frame_token(token).is_none() && self.server.owns(token) {
                self.server.ready(token);
            }
        }
        self.server.converse(self.poll.registry());
        instances.held_up(now, clock::now());
        next
    }

    /// The change to make next, if none is at work.
    fn next_change(&mut self, instances: &mut Instances) -> Option<Next> {
        if self.stops || self.changer.is_busy() {
            return None;
        }
        let clients_first = std::mem::take(&mut self.clients_first);
        if clients_first && let Some(request) = self.server.next_change() {
            return Some(Next::Call(request));
        }
        let links_are_read = !self.unread.contains(&LINK_EVENTS) && !instances.has_untold();
        if let Some(task) = instances.next_task(clock::now(), links_are_read) {
            self.clients_first = instances.has_started();
            return Some(Next::Task(task));
        }
        match instances.has_started() {
            true => self.server.next_change().map(Next::Call),
            false => None,
        }
    }

    /// Takes note of what became of the last change, if that is new.
    fn take_outcome(&mut self, instances: &mut Instances) {
        match self.changer.take_outcome() {
            Some(Outcome::Call(answer)) => {
                if let Some(request) = self.changing.take() {
                    self.changed(instances, request, answer);
                }
            }
            Some(Outcome::Task) | None => {}
        }
    }

    fn changed(&mut self, instances: &mut Instances, request: Request, answer: Result<Value, ControlError>) {
        let now = clock::now();
        let files = instances.publish_at_once(now, request.call.bond());
        match answer {
            Ok(answer) => self.unpublished.push_back(Answer {
                request,
                answer,
                files,
                limit: now + CLIENT_LIMIT,
            }),
            // A refused call changes nothing.
            refused => self.server.answer(request.client, &request.id, refused),
        }
    }

    /// Answers changes that the files show. One that they do not show in time is answered with a warning.
    fn answer_published(&mut self, instances: &mut Instances) {
        let now = clock::now();
        while let Some(first) = self.unpublished.front() {
            let published = instances.is_published(first.files);
            if !published && now < first.limit {
                return;
            }
            let Some(mut first) = self.unpublished.pop_front() else {
                return;
            };
            if !published {
                warn(
                    &mut first.answer,
                    "the change is in force, but the status files do not show it yet",
                );
            }
            self.server
                .answer(first.request.client, &first.request.id, Ok(first.answer));
        }
    }

    /// Answers requests that change nothing, until this turn's share of them is used up.
    fn answer_reads(&mut self, instances: &mut Instances) {
        let end = clock::now() + self.share_of_readers;
        self.showing_waits = None;
        while self.showing_waits.is_none() {
            let wanted = |(request, _): &(Request, Showing)| self.server.has_client(request.client);
            match self.showing.take().filter(wanted) {
                Some((request, showing)) => self.show_next(instances, request, showing),
                None => match self.server.next_read() {
                    Some(request) => self.read(instances, request),
                    None => return,
                },
            }
            if clock::now() >= end {
                return;
            }
        }
    }

    /// Adds one bond to an answer to `show`, or sends the answer if it is complete.
    fn show_next(&mut self, instances: &mut Instances, request: Request, mut showing: Showing) {
        match instances.show_next(clock::now(), &mut showing) {
            Progress::Bond => {}
            Progress::Waits(limit) => self.showing_waits = Some(limit),
            Progress::All => {
                let json = showing.finish();
                return self.server.answer_with_json(request.client, &request.id, &json);
            }
        }
        self.showing = Some((request, showing));
    }

    /// Answers a request that changes nothing, or begins to.
    fn read(&mut self, instances: &mut Instances, request: Request) {
        let answer = match &request.call {
            Call::Show { bond } => match instances.show(clock::now(), bond.as_deref()) {
                Ok(showing) => {
                    self.showing = Some((request, showing));
                    return;
                }
                Err(error) => Err(error),
            },
            Call::Doctor { .. } => {
                return self.examinations.push_back(request);
            }
            call => instances.answer(call),
        };
        let answered = answer.is_ok();
        self.server.answer(request.client, &request.id, answer);
        if let Call::Monitor { bond } = request.call
            && answered
        {
            self.server.subscribe(request.client, bond);
        }
    }

    /// Answers a `doctor` whose examination of the kernel is done, and begins the next one. That waits, so that clients that may not
    /// change anything cannot keep the machine busy.
    fn examine(&mut self, instances: &mut Instances) {
        let now = clock::now();
        if let Some(answer) = instances.take_examined()
            && let Some((request, begun)) = self.examining.take()
        {
            self.next_examination = now + pause_after(now.since(begun));
            self.server.answer(request.client, &request.id, Ok(answer));
        }
        while self.examining.is_none() && now >= self.next_examination {
            let Some(request) = self.examinations.pop_front() else {
                return;
            };
            let Call::Doctor { options } = &request.call else {
                continue;
            };
            if !self.server.has_client(request.client) {
                continue;
            }
            match instances.examine(options) {
                Ok(()) => self.examining = Some((request, now)),
                Err(error) => self.server.answer(request.client, &request.id, Err(error)),
            }
        }
    }
}

/// How long the next `doctor` waits after one that took this time.
fn pause_after(took: Duration) -> Duration {
    (took * EXAMINATION_SHARE).clamp(EXAMINATION_PAUSE, EXAMINATION_PAUSE_MAX)
}

#[cfg(test)]
mod tests;
