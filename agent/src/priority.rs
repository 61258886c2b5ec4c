//! Real-time priority.

use std::io;

/// Of the loop, which decides.
pub const LOOP: i32 = 3;

/// Of the thread that waits for the kernel: the loop must not wait for it.
pub const KERNEL: i32 = 2;

/// Of the threads that make changes and that read long files. The first has what the loop needs for moments: then it has the loop's.
pub const CHANGER: i32 = 1;

/// Asks for real-time priority for the calling thread, because every frame sent while the agent waits for the processor is lost
/// during a failover. Without the right to it the agent works, but its failovers may be late on a busy machine. Threads and
/// processes that it starts do not inherit it.
pub fn raise(priority: i32) {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the call reads `parameters`, which outlives it, and changes nothing but this thread's scheduling.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
    if done != 0 {
        log::debug!("no realtime scheduling: {}", io::Error::last_os_error());
    }
}
