//! Cost of a running process, and priority of a thread of ours.

use std::fs;
use std::io;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Processor time since its start; finer than the clock ticks of `/proc`.
///
/// # Panics
/// When there is no such process.
pub fn processor_time(pid: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).and_then(|clock| clock.now());
    clock.expect("the process runs").into()
}

/// The same of its first thread alone; exact while that waits.
///
/// # Panics
/// When there is no such process.
pub fn processor_time_of_main_thread(pid: u32) -> Duration {
    let spent = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).expect("the process runs");
    let used = spent.split_whitespace().next().and_then(|used| used.parse().ok());
    Duration::from_nanos(used.expect("schedstat begins with nanoseconds"))
}

/// Bytes of it that are in memory.
///
/// # Panics
/// When there is no such process.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.expect("a process with memory has VmRSS") * 1024
}

/// How often its threads have gone to sleep, those that have ended not counted.
///
/// # Panics
/// When there is no such process.
pub fn sleeps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let sleeps = threads.flatten().filter_map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let mut lines = status.lines();
        lines
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?
            .trim()
            .parse::<u64>()
            .ok()
    });
    sleeps.sum()
}

/// Gives the calling thread a higher real-time priority than any thread of the agent has; threads and processes that it starts do not
/// inherit it.
///
/// # Panics
/// When we have no right to it.
pub fn hurry() {
    let parameters = libc::sched_param { sched_priority: URGENT };
    // SAFETY: the call reads `parameters`, which outlives it, and changes nothing but this thread's scheduling.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
    assert!(done == 0, "no real-time priority: {}", io::Error::last_os_error());
}

/// While it is there, this thread, and the threads and processes that it starts, have nearly all of the processors if they want them,
/// whatever other programs do.
#[derive(Debug)]
pub struct Preferred {
    before: CpuSet,
}

impl Preferred {
    /// From now on.
    ///
    /// # Panics
    /// When we have no right to it.
    pub fn now() -> Preferred {
        let before = sched_getaffinity(CALLER).expect("everyone may know its processors");
        nice(-20);
        Preferred { before }
    }

    /// This thread, and those that it starts from now on, have this one of their processors; the last one if there are fewer.
    ///
    /// # Panics
    /// When the processor is gone.
    pub fn only_on(&self, processor: usize) {
        let all = (0..CpuSet::count()).filter(|&number| self.before.is_set(number).unwrap_or(false));
        let mut only = CpuSet::new();
        let chosen = all.take(processor + 1).last().expect("a thread runs somewhere");
        only.set(chosen).expect("it is in the other set, too");
        sched_setaffinity(CALLER, &only).expect("the processor is ours");
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        let _ = sched_setaffinity(CALLER, &self.before);
        nice(0);
    }
}

const CALLER: Pid = Pid::from_raw(0);

/// Of this thread among those of its session, and of the session among all others, where the kernel groups threads by their sessions.
/// [sched(7): autogroup]
fn nice(value: libc::c_int) {
    // SAFETY: setpriority(2) with numbers touches no memory of ours; 0 is the calling thread.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
    assert!(done == 0, "no other priority: {}", io::Error::last_os_error());
    let _ = fs::write("/proc/self/autogroup", value.to_string());
}

/// Of real-time priorities; those of the agent are below.
const URGENT: i32 = 10;
