//! `make bench`: what bonds cost. Speeds stand beside a plain cable, failovers beside polling alone, memory beside `sleep`,
//! all on the same machine in the same minutes. Leaves nothing behind.

use std::fs;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use bondd_tests::bins::bin;
use bondd_tests::fidelity::host::play;
use bondd_tests::lab_failover as lab;
use bondd_tests::machine::Machine;
use bondd_tests::many::{ManyPorts, targets_of};
use bondd_tests::process::{processor_time, resident};
use bondd_tests::pulls::{median, ten_pulls};
use bondd_tests::throughput::{BesidePlain, best};
use bondd_tests::vm::Lab;
use bondd_tests::{Rate, Settings, TwoBonds};

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("bondd-bench: needs root, because it makes network namespaces");
        return ExitCode::FAILURE;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    machine();
    for (name, section) in SECTIONS {
        if name.contains(&only) {
            section();
        }
    }
    ExitCode::SUCCESS
}

/// Each stands alone; `ONLY` plays those with the word in their name.
const SECTIONS: [(&str, fn()); 6] = [
    ("throughput", throughput),
    ("failovers", failovers),
    ("restarts", restarts),
    ("resources", resources),
    ("probes", probes),
    ("lab", beside_the_driver),
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

fn throughput() {
    title(
        "TCP, one stream, best of 10 in turns",
        &["bond", "plain cable", "bond / plain"],
    );
    for (hook, settings) in hooks() {
        let seen = BesidePlain::new(settings).compare(ROUNDS);
        let gigabits = |all: &[f64]| format!("{:.1} Gbit/s", best(all));
        row(
            hook,
            &[
                gigabits(&seen.bond),
                gigabits(&seen.plain),
                format!("{:.2}", seen.ratio()),
            ],
        );
    }
}

fn failovers() {
    title(
        "Frames lost by a pulled cable, of 10,000 a second",
        &["median of 10", "least", "most"],
    );
    for (monitor, events) in [
        ("link events and polls (default)", true),
        ("polls alone, miimon=100", false),
    ] {
        let pair = TwoBonds::new(Machine::alone(), "miimon=100");
        if !events {
            pair.unsubscribe_from_links();
        }
        pair.wait_active("eth0");
        let lost = ten_pulls(&pair);
        let extreme = |found: Option<&u64>| found.map_or_else(String::new, u64::to_string);
        row(
            monitor,
            &[
                median(&lost).to_string(),
                extreme(lost.iter().min()),
                extreme(lost.iter().max()),
            ],
        );
    }
}

/// The same failovers by the kernel's driver and by every data plane, one beside the other in the lab's machine.
fn beside_the_driver() {
    title(
        "Cable pulled in the lab's machine, 500 frames a second",
        &["kernel", "tc", "team"],
    );
    let (stories, guest) = (lab::stories(), bin("bondd-fidelity-guest"));
    let lab = match Lab::find() {
        Ok(lab) => lab,
        Err(why) => return println!("  not run: {why}"),
    };
    let [beside_tc, beside_team] = &["tc", "team"].map(|column| play(&lab, &stories, column, &guest));
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
}

fn restarts() {
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
}

fn resources() {
    let pair = TwoBonds::new(Machine::alone(), "miimon=100");
    let pid = pair.left.daemon.pid();
    let mut sleep = Command::new("sleep")
        .arg("600")
        .spawn()
        .expect("every system has sleep");
    let (used, idle) = (processor_time(pid), IDLE);
    thread::sleep(idle);
    let used = processor_time(pid).saturating_sub(used);
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

    title("Programs as installed", &["size"]);
    for name in ["bondd", "bondctl", "ifenslave"] {
        let size = fs::metadata(bin(name)).map_or(0, |file| file.len());
        row(name, &[mebibytes(size)]);
    }
}

fn probes() {
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

/// Of throughput, each over the plain cable and the bond.
const ROUNDS: usize = 10;
/// Sent before and after each start.
const FRAMES_AROUND: u64 = 50_000;
/// Of the bond that is watched.
const PORTS: usize = 64;
/// The most that there may be.
const TARGETS: u8 = 16;
const IDLE: Duration = Duration::from_secs(10);
