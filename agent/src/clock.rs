//! The only clock.

use std::time::Duration;

use bond_monitors::Time;
use nix::time::{ClockId, clock_gettime};

/// The time of `CLOCK_MONOTONIC`, which BPF programs stamp frames with too.
pub fn now() -> Time {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has CLOCK_MONOTONIC");
    Time::from_nanos(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Processor time that this thread has used.
pub fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("Linux has CLOCK_THREAD_CPUTIME_ID")
        .into()
}
