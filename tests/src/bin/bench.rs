//! `make bench`: the cost of bonds. Speeds are compared with a plain cable, failovers with polling alone, memory with `sleep`,
//! all on the same machine in the same minutes. Removes everything it made.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use bondd_tests::bins::bin;
use bondd_tests::competitors::{Guest, Seen, page};
use bondd_tests::fidelity::host::play;
use bondd_tests::held_thread::HeldThread;
use bondd_tests::in_kernel;
use bondd_tests::instructions::{self as counted, Column, Instructions, Recorded, Row};
use bondd_tests::lab::RIGHT;
use bondd_tests::lab_failover as lab;
use bondd_tests::machine::Machine;
use bondd_tests::many::{ManyPorts, targets_of};
use bondd_tests::many_bonds::{self, Busy, Clock, Plane};
use bondd_tests::process::{processor_time, resident, sleeps};
use bondd_tests::pulls::{Pull, median, ten_pulls, ten_silences};
use bondd_tests::throughput::{self, BesidePlain};
use bondd_tests::vm::Lab;
use bondd_tests::{Bench, BondAndSwitch, Rate, Settings, TwoBonds};

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("bondd-bench: needs root, because it makes network namespaces");
        return ExitCode::FAILURE;
    }
    let only = env::var("ONLY").unwrap_or_default();
    machine();
    let mut outcome = ExitCode::SUCCESS;
    let is_a_name = SECTIONS.iter().any(|(name, _)| *name == only);
    for (name, section) in SECTIONS {
        let is_meant = if is_a_name { name == only } else { name.contains(&only) };
        if is_meant && section() == Outcome::Worse {
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}

/// Of a section.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// Measured, or not to be measured here.
    Done,
    /// Something costs more than was recorded.
    Worse,
}

/// A part with the name that `ONLY` goes by.
type Section = (&'static str, fn() -> Outcome);

/// Each stands alone; `ONLY` plays the one of that name, or those with the word in their name.
const SECTIONS: [Section; 13] = [
    ("throughput", throughput),
    ("failovers", failovers),
    ("restarts", restarts),
    ("resources", resources),
    ("probes", probes),
    ("many", many),
    ("busy", busy),
    ("guest-many", many_in_the_lab),
    ("in-kernel", in_the_kernel),
    ("lab", beside_the_driver),
    ("instructions", instructions),
    ("competitors", competitors),
    ("slow-port", slow_ports),
];

fn machine() {
    let uname = nix::sys::utsname::uname().expect("uname(2) cannot fail");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name\t: "));
    println!(
        "{processors} processors, {}, Linux {}",
        model.unwrap_or("unknown"),
        uname.release().to_string_lossy()
    );
}

/// `RECORD=now` writes the table into docs/measured.md.
fn throughput() -> Outcome {
    let names = ["default hook", "`--tc-hook clsact`"];
    let measured = names.into_iter().zip(hooks());
    let measured: Vec<_> = measured
        .map(|(name, (_, settings))| (name, BesidePlain::new(settings).compare(ROUNDS)))
        .collect();
    let table = throughput::table::table(&measured);
    println!("\n{table}");
    if env::var("RECORD").is_ok_and(|column| column == "now") {
        throughput::table::record(&table).expect("docs/measured.md can be written");
    }
    Outcome::Done
}

fn failovers() -> Outcome {
    title(
        "Frames lost by a failover, of 10,000 a second",
        &["median of 10", "most", "after report"],
    );
    let cables = || {
        let pair = TwoBonds::new(Machine::alone(), "miimon=100");
        pair.wait_active("eth0");
        pair
    };
    pulls_row("cable pulled: link events and polls (default)", &ten_pulls(&cables()));
    let pair = cables();
    pair.unsubscribe_from_links();
    pulls_row("  polls alone, miimon=100", &ten_pulls(&pair));
    drop(pair);
    let pair = cables();
    let (held, pulls) = while_held(&[&pair.left, &pair.right], || ten_pulls(&pair));
    pulls_row(&format!("  the kernel answers nobody for {held:.0} s"), &pulls);
    drop(pair);
    let paths = || {
        let bench = BondAndSwitch::new(Machine::alone(), &format!("arp_interval=100 arp_ip_target={RIGHT}"));
        bench.host.daemon.wait_active("bond0", "eth0");
        bench.host.daemon.wait_link("bond0", "eth1", "up");
        bench
    };
    failovers_row("path silent: arp_interval=100", &ten_silences(&paths()), None);
    let bench = paths();
    let (held, lost) = while_held(&[&bench.host], || ten_silences(&bench));
    failovers_row(&format!("  the kernel answers nobody for {held:.0} s"), &lost, None);
    Outcome::Done
}

/// Does this while each of these agents waits for an answer of the kernel; for how many seconds that was.
fn while_held<T>(hosts: &[&Bench], body: impl FnOnce() -> T) -> (f64, T) {
    let requests: Vec<_> = hosts
        .iter()
        .map(|host| HeldThread::at_next_request(&host.netns, host.daemon.pid()))
        .collect();
    let begun = Instant::now();
    let out = body();
    // At least as long as others hold the lock when thousands of interfaces are deleted.
    thread::sleep(HELD.saturating_sub(begun.elapsed()));
    let held = begun.elapsed().as_secs_f64();
    drop(requests);
    (held, out)
}

fn pulls_row(name: &str, pulls: &[Pull]) {
    let lost: Vec<u64> = pulls.iter().map(|pull| pull.lost).collect();
    failovers_row(name, &lost, pulls.iter().map(|pull| pull.after_report).max());
}

fn failovers_row(name: &str, lost: &[u64], after_report: Option<u64>) {
    let text = |lost: Option<u64>| lost.map_or_else(String::new, |lost| lost.to_string());
    let most = lost.iter().copied().max();
    row(name, &[median(lost).to_string(), text(most), text(after_report)]);
}

/// A request to the kernel waits for at least so long.
const HELD: Duration = Duration::from_secs(5);

/// The same failovers by the kernel's driver and by every data plane, one beside the other in the lab's machine.
fn beside_the_driver() -> Outcome {
    title(
        "Cable pulled in the lab's machine, 500 frames a second",
        &["kernel", "tc", "team"],
    );
    let (stories, guest) = (lab::stories(), beside("bondd-fidelity-guest"));
    let lab = match Lab::find() {
        Ok(lab) => lab,
        Err(why) => return not_run(&why),
    };
    let [beside_tc, beside_team] = &["tc", "team"].map(|column| play(&lab, &stories, &[column], &guest));
    for (miimon, story) in lab::MIIMON.iter().zip(&stories) {
        let columns = [("kernel", beside_tc), ("tc", beside_tc), ("team", beside_team)];
        let columns = columns.map(|(column, seen)| lab::Cuts::of(seen, &story.name, column));
        row(
            &format!("miimon={miimon}: median gap, longest"),
            &columns.each_ref().map(|cuts| cuts.gaps()),
        );
        row(
            &format!("miimon={miimon}: frames lost, of {} pulls", lab::ROUNDS),
            &columns.map(|cuts| cuts.lost()),
        );
    }
    Outcome::Done
}

fn restarts() -> Outcome {
    title("Ten SIGKILLs and starts at full send rate", &["frames sent", "lost"]);
    for (hook, settings) in hooks() {
        let mut pair = TwoBonds::with(Machine::alone(), settings, "miimon=100");
        let flow = pair.flow(Rate::Full);
        for round in 0..10 {
            let side = if round % 2 == 0 {
                &mut pair.left
            } else {
                &mut pair.right
            };
            side.daemon.sigkill();
            flow.pass(FRAMES_AROUND);
            side.daemon.launch();
            flow.pass(FRAMES_AROUND);
        }
        let tally = flow.finish().tally();
        row(hook, &[tally.attempted.to_string(), tally.lost.to_string()]);
    }
    Outcome::Done
}

fn resources() -> Outcome {
    let pair = TwoBonds::new(Machine::alone(), "miimon=100");
    let pid = pair.left.daemon.pid();
    let mut sleep = Command::new("sleep")
        .arg("600")
        .spawn()
        .expect("every system has sleep");
    let (used, slept, idle) = (processor_time(pid), sleeps(pid), IDLE);
    thread::sleep(idle);
    let used = processor_time(pid).saturating_sub(used);
    let woken = sleeps(pid).saturating_sub(slept) as f64 / idle.as_secs_f64();
    let (bondd, beside) = (resident(pid), resident(sleep.id()));
    let _ = sleep.kill();
    let _ = sleep.wait();

    title("One bond, two ports, nothing happens", &["bondd", "sleep", "ratio"]);
    row(
        "resident memory",
        &[
            mebibytes(bondd),
            mebibytes(beside),
            format!("{:.1}", bondd as f64 / beside as f64),
        ],
    );
    let share = used.as_secs_f64() / idle.as_secs_f64() * 100.0;
    row("share of one processor over 10 s", &[format!("{share:.3} %")]);
    row("wake-ups of a thread, a second", &[format!("{woken:.1}")]);

    title("Programs as installed", &["size"]);
    for name in ["bondd", "bondctl", "ifenslave"] {
        let size = fs::metadata(bin(name)).map_or(0, |file| file.len());
        row(name, &[mebibytes(size)]);
    }
    Outcome::Done
}

fn probes() -> Outcome {
    title(
        &format!("{PORTS} ports of balance-xor, over 10 s"),
        &["processor", "sent / s", "heard / s"],
    );
    let targets: Vec<String> = targets_of(TARGETS).iter().map(ToString::to_string).collect();
    let targets = format!("arp_ip_target={}", targets.join(","));
    let watched = |what: &str, options: &str| {
        let seen = ManyPorts::new(PORTS, TARGETS, options).effort(IDLE);
        row(
            what,
            &[
                format!("{:.1} %", seen.share * 100.0),
                format!("{:.0}", seen.sent),
                format!("{:.0}", seen.heard),
            ],
        );
        seen.share
    };
    let polled = watched("miimon=100", "miimon=100");
    let probed = watched(
        &format!("arp_interval=100, {TARGETS} targets, arp_validate=all"),
        &format!("arp_interval=100 {targets} arp_validate=all"),
    );
    row("ratio", &[format!("{:.1}", probed / polled)]);
    Outcome::Done
}

/// Many bonds in one namespace; `SIZES` says how many, such as `1,25`.
fn many() -> Outcome {
    let clock = match env::var_os("COUNTED") {
        Some(_) => Clock::Instructions,
        None => Clock::Time,
    };
    let (mut heads, mut columns) = (Vec::new(), Vec::new());
    for plane in planes() {
        for size in sizes(&BONDS) {
            let begun = Instant::now();
            let head = format!("{size} {}", plane.name());
            let progress = |step: &str| eprintln!("  {head}, {:.0} s: {step}", begun.elapsed().as_secs_f64());
            columns.push(many_bonds::measure(size, plane, progress).rows(clock));
            heads.push(head);
        }
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    title(MANY, &heads);
    for (at, (name, _)) in columns.first().into_iter().flatten().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| column[at].1.clone()).collect();
        row(name, &cells);
    }
    Outcome::Done
}

/// Frames lost by one bond while the agent has other work; `SIZES` says how many other bonds there are.
fn busy() -> Outcome {
    for plane in planes() {
        for others in sizes(&OTHERS) {
            let begun = Instant::now();
            let progress = |step: &str| eprintln!("  {others} others, {:.0} s: {step}", begun.elapsed().as_secs_f64());
            let table = Busy::measure(others, plane, progress).table();
            println!();
            println!("Frames lost by a pulled cable, of 10,000 a second: percentiles 50, 90, 99 and 100");
            for (name, [after_report, all, pulls, done]) in table {
                println!("{name:<35}{after_report:>20}{all:>20}{pulls:>7}{done:>17}");
            }
        }
    }
    Outcome::Done
}

/// The data planes that `PLANES` names, such as `tc,team`; tc alone without it.
fn planes() -> Vec<Plane> {
    let names = env::var("PLANES").unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let planes: Vec<Plane> = names
        .map(|name| Plane::named(name).expect("PLANES are `tc` and `team` with commas between"))
        .collect();
    if planes.is_empty() { vec![Plane::Tc] } else { planes }
}

/// Numbers of bonds: those in `SIZES`, or these.
fn sizes(usual: &[usize]) -> Vec<usize> {
    match env::var("SIZES").unwrap_or_default().as_str() {
        "" => usual.into(),
        some => (some.split(',').map(|size| size.trim().parse()))
            .collect::<Result<_, _>>()
            .expect("SIZES are numbers with commas between"),
    }
}

/// The same on both planes in the lab's machine, where processor time is a count of instructions; `SIZES` is for both.
fn many_in_the_lab() -> Outcome {
    let lab = match Lab::with_kernel(counted::KERNEL) {
        Ok(lab) => lab,
        Err(why) => return not_run(&why),
    };
    let this = beside("bondd-bench");
    let or = |name: &str, usual: &str| {
        env::var(name)
            .ok()
            .filter(|set| !set.is_empty())
            .unwrap_or(usual.to_owned())
    };
    let (sizes, planes) = (or("SIZES", "1,100"), or("PLANES", "tc,team"));
    let settings = format!("PLANES={planes} SIZES={sizes} COUNTED=1 BONDD_BIN_DIR=/usr/bin");
    let script = format!("{settings} ONLY=many bondd-bench 2>&1");
    let arguments = ["--timeout", "7200", "--sh", &script];
    let said = lab.run(many_bonds::MODULES, &[&bin("bondd"), &this], &[], &arguments);
    let table = said.lines().skip_while(|line| !line.starts_with(MANY));
    println!();
    println!(
        "In the lab's machine, {}, 500 million instructions are a second:",
        counted::KERNEL
    );
    table
        .take_while(|line| !line.is_empty())
        .for_each(|line| println!("{line}"));
    Outcome::Done
}

/// Instructions a frame, beside what was recorded. `RECORD=before` and `RECORD=now` put them into the page.
fn instructions() -> Outcome {
    let lab = match Lab::with_kernel(counted::KERNEL) {
        Ok(lab) => lab,
        Err(why) => return not_run(&why),
    };
    let seen = Instructions::measure(&lab, &beside("bondd-send-frames"));
    let mut recorded = Recorded::read().expect("docs/measured.md is there");
    title(
        &format!("Instructions a frame, over raw, Linux {}", seen.kernel),
        &["sent", "recorded", "received", "recorded"],
    );
    for Row { name, cost } in &seen.rows {
        let now = recorded.of(Column::Now, name).or(recorded.of(Column::Before, name));
        let recorded = |way: usize| now.map_or_else(String::new, |now| counted::shown(name, now[way]));
        let cells = [0, 1].map(|way| [counted::shown(name, cost[way]), recorded(way)]);
        row(name, &cells.concat());
    }
    let setting = seen.setting();
    let column = match env::var("RECORD").as_deref() {
        Ok("before") => Some(Column::Before),
        Ok("now") => Some(Column::Now),
        _ => None,
    };
    if let Some(column) = column {
        recorded.record(column, &setting, &seen.rows);
        recorded.write().expect("docs/measured.md is ours");
    }
    let mut outcome = Outcome::Done;
    for (column, words) in [(Column::Before, "at 723f633"), (Column::Now, "as recorded")] {
        if recorded.setting() != setting {
            println!(
                "  recorded with {}, and this is {setting}: nothing is held against it",
                recorded.setting()
            );
            break;
        }
        for row in recorded.dearer(column, &seen.rows) {
            println!("  dearer than {words}: {row}");
            outcome = Outcome::Worse;
        }
    }
    outcome
}

fn not_run(why: &str) -> Outcome {
    println!("  not run: {why}");
    Outcome::Done
}

/// A program of the harness, built with this one; `BONDD_BIN_DIR` may name other agents, not other harnesses.
fn beside(name: &str) -> PathBuf {
    let this = env::current_exe().expect("a running program has a path");
    this.with_file_name(name)
}

/// On both of the lab's kernels. `RECORD=now` writes the table into docs/measured.md.
fn in_the_kernel() -> Outcome {
    let guest = beside("bondd-in-kernel-guest");
    let mut machines = Vec::new();
    for kernel in ["cloud", "6.12"] {
        match Lab::with_kernel(kernel) {
            Ok(lab) => {
                let measured = in_kernel::measure(&lab, &[&bin("bondd"), &bin("bondctl"), &guest], PULLS);
                machines.push((if kernel == "cloud" { "6.1" } else { kernel }.to_owned(), measured));
            }
            Err(why) => println!("  not measured on {kernel}: {why}"),
        }
    }
    let table = in_kernel::table::table(&machines);
    println!("\n{table}");
    if env::var("RECORD").is_ok_and(|column| column == "now") {
        in_kernel::table::record(&table).expect("docs/measured.md can be written");
    }
    Outcome::Done
}

/// bondd beside what a user would take instead. `RECORD=now` writes docs/competitors.md and docs/failover.svg.
fn competitors() -> Outcome {
    let seen = match in_the_lab(|guest| Seen::measure(guest, FRAMES, RIVAL_PULLS)) {
        Ok(seen) => seen,
        Err(why) => return not_run(&why),
    };
    println!("\n{}\n{}", page::costs(&seen.costs), page::failovers(&seen.failovers));
    if env::var("RECORD").is_ok_and(|column| column == "now") {
        page::record(&seen).expect("docs/competitors.md and docs/failover.svg can be written");
    }
    Outcome::Done
}

/// Ports slower than who sends through them. `RECORD=now` writes the table into docs/competitors.md.
fn slow_ports() -> Outcome {
    let seen = match in_the_lab(|guest| Seen::measure_slow_ports(guest, SECONDS)) {
        Ok(seen) => seen,
        Err(why) => return not_run(&why),
    };
    println!("\n{}", page::slow_ports(&seen.slow_ports));
    if env::var("RECORD").is_ok_and(|column| column == "now") {
        page::record_slow_ports(&seen).expect("docs/competitors.md can be written");
    }
    Outcome::Done
}

/// With the machine that has all competitors.
fn in_the_lab(measure: impl FnOnce(&Guest<'_>) -> Seen) -> Result<Seen, String> {
    let programs = ["bondd-competitors-guest", "bondd-send-frames"].map(beside);
    let programs = programs.each_ref().map(PathBuf::as_path);
    let lab = Lab::with_kernel(counted::KERNEL)?;
    Guest::new(&lab, &programs).map(|guest| measure(&guest))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn hooks() -> [(&'static str, Settings); 2] {
    [
        ("default hook (tcx where there is it)", Settings::default()),
        ("--tc-hook clsact", Settings::args(&["--tc-hook", "clsact"])),
    ]
}

fn title(what: &str, columns: &[&str]) {
    println!();
    line(what, columns);
}

fn row(what: &str, values: &[String]) {
    line(&format!("  {what}"), values);
}

fn line(what: &str, cells: &[impl AsRef<str>]) {
    print!("{what:<51}");
    for cell in cells {
        print!("{:>14}", cell.as_ref());
    }
    println!();
}

/// Of each kind, where the kernel fails over.
const PULLS: usize = 40;
/// Of each competitor.
const RIVAL_PULLS: u32 = 30;
/// Of a stream, and of datagrams, through a slow port.
const SECONDS: u32 = 3;
/// Counted for each competitor.
const FRAMES: u32 = 10_000;
/// Of throughput, each over the plain cable and the bonds.
const ROUNDS: usize = 20;
/// Sent before and after each start.
const FRAMES_AROUND: u64 = 50_000;
/// Of the bond that is watched.
const PORTS: usize = 64;
/// The most that there may be.
const TARGETS: u8 = 16;
const IDLE: Duration = Duration::from_secs(10);
const MANY: &str = "Active-backup bonds of two ports, miimon=100";
/// Bonds in one namespace, in this order.
const BONDS: [usize; 4] = [1, 25, 200, 1_000];
/// Beside the one whose cable is pulled.
const OTHERS: [usize; 1] = [200];
