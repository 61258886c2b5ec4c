//! Cost of a running process, and priority of a thread of ours.

use std::fs;
use std::io;
use std::time::Duration;

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

/// Of real-time priorities; those of the agent are below.
const URGENT: i32 = 10;
