//! Log lines on standard error: `2026-01-31T12:00:00.123Z warn bond0: eth0: link down (failure 1)`.
//!
//! If standard error goes to the journal, the journal adds the time, and takes the level from a leading `<n>`.
//! [systemd.exec: JOURNAL_STREAM; sd-daemon.h]
//!
//! At first lines are written by whoever logs them. Once the agent has [called for a thread](write_by_thread), that thread does, so
//! that nothing else waits for whoever reads them.

mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::Target;
use log::{Level, LevelFilter, Record};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd;

use self::queue::Queue;
use crate::vital_thread;

/// Our own crates and programs. Other crates log at `trace` only if that is the level, else at `warn` and above.
const OURS: [&str; 5] = ["bondd", "bondctl", "ifenslave", "bond_modes", "bond_monitors"];

/// Sets logging up for the whole process; a second call changes nothing.
pub fn init(level: LevelFilter) {
    let _ = JOURNAL.set(stderr_is_journal());
    let mut builder = env_logger::Builder::new();
    builder.filter_level(match level {
        LevelFilter::Trace => LevelFilter::Trace,
        quieter => quieter.min(LevelFilter::Warn),
    });
    for name in OURS {
        builder.filter_module(name, level);
    }
    builder.format(|out, record| out.write_all(line(time(), record).as_bytes()));
    builder.target(Target::Pipe(Box::new(Out)));
    // A logger that is there already was set up by the same function.
    let _ = builder.try_init();
}

/// From now on a thread writes the lines; also what panics say.
///
/// # Errors
/// The thread cannot be made.
pub fn write_by_thread() -> io::Result<()> {
    vital_thread::start("bondd-log", || {
        QUEUE.get_or_init(Queue::default).write_all(write_out, missing);
    })?;
    QUEUE.get_or_init(Queue::default);
    panic::set_hook(Box::new(|info| {
        on_panic(info);
        flush();
    }));
    Ok(())
}

/// Waits for a moment until that thread has written everything, before the process ends.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES);
    }
}

/// Lines that the thread is to write.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Standard error is the journal.
static JOURNAL: OnceLock<bool> = OnceLock::new();

/// How long the end of the process waits for whoever reads its last lines.
const LAST_LINES: Duration = Duration::from_millis(200);

/// Where whole lines go.
struct Out;

impl Write for Out {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.push(lines),
            None => io::stderr().write_all(lines)?,
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line and waits for it. One that cannot be written is lost, as on a full disk: there is no other place to say so.
fn write_out(mut line: &[u8]) {
    // Not by the lock of the standard library, for which others would wait.
    let stderr = io::stderr();
    while !line.is_empty() {
        match unistd::write(&stderr, line) {
            Ok(written) => line = &line[written..],
            Err(Errno::EINTR) => {}
            // Whoever shares it wants no waiting.
            Err(Errno::EAGAIN) => {
                let _ = poll(
                    &mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)],
                    PollTimeout::NONE,
                );
            }
            Err(_) => return,
        }
    }
}

/// The line for so many lines that were dropped.
fn missing(count: u64) -> String {
    let lines = if count == 1 { "line" } else { "lines" };
    let text = format_args!("{count} {lines} of the log dropped here: whoever reads it was too slow");
    own_line(Level::Warn, text)
}

/// What the standard library would write and wait for.
fn on_panic(info: &PanicHookInfo<'_>) {
    let Some(queue) = QUEUE.get() else { return };
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    queue.push(own_line(Level::Error, format_args!("thread {name} {info}")).as_bytes());
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        for text in trace.to_string().lines() {
            queue.push(own_line(Level::Error, format_args!("{text}")).as_bytes());
        }
    }
}

/// A line of this module's, which no filter keeps back.
fn own_line(level: Level, text: fmt::Arguments<'_>) -> String {
    line(time(), &Record::builder().level(level).args(text).build())
}

/// The time of a line that is logged now.
fn time() -> Option<SystemTime> {
    let journal = JOURNAL.get().is_some_and(|journal| *journal);
    (!journal).then(SystemTime::now)
}

/// One whole line with its line end; without a time for the journal.
fn line(time: Option<SystemTime>, record: &Record<'_>) -> String {
    let (severity, word) = match record.level() {
        Level::Error => (3, "error"),
        Level::Warn => (4, "warn"),
        Level::Info => (6, "info"),
        Level::Debug => (7, "debug"),
        Level::Trace => (7, "trace"),
    };
    let mut text = match time {
        Some(time) => format!("{} {word} ", utc(time)),
        None => format!("<{severity}>"),
    };
    let start = text.len();
    if record.level() >= Level::Debug {
        let _ = write!(text, "{}: ", record.target());
    }
    let _ = write!(text, "{}", record.args());
    // A record is one line, so that text of a client cannot look like a record.
    let message = text.split_off(start);
    text.extend(message.chars().map(|c| if c.is_control() { ' ' } else { c }));
    text.push('\n');
    text
}

/// Whether standard error is the very stream that JOURNAL_STREAM (`device:inode`) names: the variable alone is inherited by
/// programs whose output goes elsewhere.
fn stderr_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr().as_fd()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// RFC 3339 in UTC with milliseconds.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a number of days after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March put the leap day last; 400 of them are one era of 146097 days that begins on 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 {
        months_from_march + 3
    } else {
        months_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vital_thread::tests::{aborted, wait_for_abort};

    fn at(seconds: u64, millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis)
    }

    fn printed(time: Option<SystemTime>, level: Level, text: &str) -> String {
        line(
            time,
            &Record::builder()
                .level(level)
                .target("bondd::instances")
                .args(format_args!("{text}"))
                .build(),
        )
    }

    #[test]
    fn a_panic_is_a_line_of_the_log_with_the_lines_before_it_when_the_process_ends() {
        let test = concat!(
            module_path!(),
            "::a_panic_is_a_line_of_the_log_with_the_lines_before_it_when_the_process_ends"
        );
        let printed = aborted(test, || {
            init(LevelFilter::Info);
            write_by_thread().unwrap();
            (0..500).for_each(|number| log::info!("number {number}."));
            vital_thread::start("some-work", || panic!("the state\nis damaged")).unwrap();
            wait_for_abort();
        });
        let at = |text: &str| printed.find(text).unwrap_or_else(|| panic!("no {text:?} in {printed}"));
        assert!(at("Z info number 0.\n") < at("Z info number 499.\n"));
        assert!(at("number 499.\n") < at("Z error thread some-work panicked at "));
        assert!(printed.contains(" the state is damaged\n"), "{printed}");
    }

    #[test]
    fn times_are_those_of_date() {
        // date -u -d @SECONDS +%FT%TZ
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(at(seconds, 0)), want);
        }
        assert_eq!(utc(at(1, 7)), "1970-01-01T00:00:01.007Z");
    }

    #[test]
    fn a_line_has_time_level_and_text_and_from_debug_on_its_origin() {
        assert_eq!(
            printed(Some(at(0, 5)), Level::Warn, "bond0: carrier off"),
            "1970-01-01T00:00:00.005Z warn bond0: carrier off\n"
        );
        assert_eq!(
            printed(Some(at(0, 5)), Level::Debug, "x"),
            "1970-01-01T00:00:00.005Z debug bondd::instances: x\n"
        );
    }

    #[test]
    fn the_journal_gets_the_level_as_a_number() {
        for (level, want) in [
            (Level::Error, "<3>x\n"),
            (Level::Warn, "<4>x\n"),
            (Level::Info, "<6>x\n"),
        ] {
            assert_eq!(printed(None, level, "x"), want);
        }
        assert_eq!(printed(None, Level::Trace, "x"), "<7>bondd::instances: x\n");
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        assert_eq!(printed(None, Level::Info, "a\n<0>b\x1b[2J"), "<6>a <0>b [2J\n");
    }
}
