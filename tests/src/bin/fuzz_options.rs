//! `make fuzz`: changed option files are read until EXECUTIONS (10 million) or SECONDS (600) are over. A panic, an execution that
//! takes more than ten seconds, one that needs more than 64 MiB, or a result that cannot be, ends it with the files that did it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::env;
use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};
use std::process::{self, ExitCode};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use bondd::config::Source;
use bondd_tests::fuzz_options::Fuzzer;

/// Most memory that one execution may need, in bytes.
const MOST_MEMORY: usize = 64 * 1024 * 1024;

/// Longest time of one execution.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts what is allocated.
struct Counter;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: as this function was called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as this function was called.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTER: Counter = Counter;

fn main() -> ExitCode {
    let (seed, executions) = (setting("SEED", 1), setting("EXECUTIONS", 10_000_000));
    let limit = Duration::from_secs(setting("SECONDS", 600));
    let fuzzer = Fuzzer::new(seed);
    let begin = Instant::now();
    watch(seed);
    let (mut done, mut bonds, mut errors, mut codes) = (0, 0, 0, BTreeSet::new());
    let (mut longest, mut most) = (Duration::ZERO, 0);
    while done < executions && begin.elapsed() < limit {
        let sources = fuzzer.sources(done);
        let before = NOW.load(Relaxed);
        MOST.store(before, Relaxed);
        let start = Instant::now();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| fuzzer.execute(&sources)));
        longest = longest.max(start.elapsed());
        let memory = MOST.load(Relaxed).saturating_sub(before);
        most = most.max(memory);
        let parsed = match outcome {
            Ok(Ok(_)) if memory > MOST_MEMORY => {
                return failed(seed, done, &sources, &format!("it needs {memory} bytes"));
            }
            Ok(Ok(parsed)) => parsed,
            Ok(Err(wrong)) => return failed(seed, done, &sources, &wrong),
            Err(_) => return failed(seed, done, &sources, "it panics"),
        };
        bonds += u64::from(!parsed.bonds.is_empty());
        errors += u64::from(parsed.has_errors());
        codes.extend(parsed.diagnostics.iter().map(|finding| finding.code.clone()));
        done += 1;
        EXECUTION.store(done, Relaxed);
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "seed {seed}: {done} executions in {seconds:.0} s, {:.0} a second",
        done as f64 / seconds
    );
    println!(
        "with bonds {bonds}, with errors {errors}, kinds of findings {}",
        codes.len()
    );
    println!("longest execution {longest:?}, most memory of one {} KiB", most / 1024);
    println!("no panic, no hang, no result that cannot be");
    ExitCode::SUCCESS
}

/// Number of the execution that runs.
static EXECUTION: AtomicU64 = AtomicU64::new(0);

/// Ends the program when an execution hangs.
fn watch(seed: u64) {
    thread::spawn(move || {
        loop {
            let before = EXECUTION.load(Relaxed);
            thread::sleep(LONGEST);
            if EXECUTION.load(Relaxed) == before {
                eprintln!("seed {seed}: execution {before} takes more than {LONGEST:?}");
                process::exit(1);
            }
        }
    });
}

fn failed(seed: u64, execution: u64, sources: &[Source], why: &str) -> ExitCode {
    eprintln!("seed {seed}: execution {execution}: {why}; the files are\n{sources:#?}");
    ExitCode::FAILURE
}

/// A number from the environment.
fn setting<T: FromStr>(name: &str, default: T) -> T
where
    T::Err: Debug,
{
    match env::var(name) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e:?}, expected a number")),
        _ => default,
    }
}
