//! In the lab's machine: a port that is slower than who sends through the bond. Whether its queue holds the sender back, for how long
//! others wait behind a stream, and what is dropped.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::costs::setting;
use super::rival::{Bond, Mode, Rival};
use super::wire::{FAR, Wire};
use crate::load::{Answers, Stream, ask, blast};
use crate::process::hurry;
use crate::queue::{Queue, State};
use crate::wait::wait_for;

/// What was seen with one of the queues.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowPort {
    /// Who makes the bond.
    pub name: String,
    /// Which queue the port has.
    pub queue: String,
    /// Of TCP, in Mbit/s.
    pub megabits: f64,
    /// Of a question and its answer beside the stream, in microseconds: the median, and what 99 of 100 take at most.
    pub trips: [u64; 2],
    /// Bytes in the queue beside the stream: on average, and at most.
    pub waiting: [u64; 2],
    /// Frames of the stream and the questions that the queue dropped.
    pub dropped: u64,
    /// Datagrams that a program sent in a second, and those of them that the queue dropped.
    pub datagrams: [u64; 2],
}

impl SlowPort {
    /// Reads what [`play`] printed for it.
    pub fn parse(value: &Value) -> Option<SlowPort> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let pair = |name: &str| Some([value[name][0].as_u64()?, value[name][1].as_u64()?]);
        Some(SlowPort {
            name: text("slow_port")?,
            queue: text("queue")?,
            megabits: value["megabits"].as_f64()?,
            trips: pair("trips_us")?,
            waiting: pair("waiting")?,
            dropped: value["dropped"].as_u64()?,
            datagrams: pair("datagrams")?,
        })
    }
}

/// The queues: what they are called in the table, and the arguments of tc(8) that make them, one discipline in each.
const QUEUES: [(&str, &[&str]); 3] = [
    ("4 MB, first come first served", &["root handle 1: tbf LIMIT 4000000"]),
    ("fq_codel", &["root handle 1: tbf LIMIT 4000000", "parent 1:1 fq_codel"]),
    ("64 KB, first come first served", &["root handle 1: tbf LIMIT 64000"]),
];
/// Of the port. The emulated processor can fill it several times over.
const LIMIT: &str = "rate 100mbit burst 16000 limit";

/// Measures those with these names with each queue, for so many seconds, and prints a JSON object for each.
pub fn play(seconds: u32, names: &[String]) {
    println!("{}", json!({"setting": setting()}));
    let is_meant = |rival: &Rival| names.iter().any(|name| name == rival.name());
    for rival in Rival::ALL.into_iter().filter(is_meant) {
        let wire = Wire::new();
        let _bond = Bond::new(rival, &wire.near, Mode::ActiveBackup, rival.watch());
        wire.settle(rival.interface());
        for (name, disciplines) in QUEUES {
            for discipline in disciplines {
                let words = discipline.replace("LIMIT", LIMIT);
                let words = ["tc", "qdisc", "replace", "dev", "eth0"]
                    .into_iter()
                    .chain(words.split(' '));
                wire.near.exec(&words.collect::<Vec<_>>());
            }
            let mut seen = measure(&wire, Duration::from_secs(seconds.into()));
            seen["slow_port"] = rival.name().into();
            seen["queue"] = name.into();
            println!("{seen}");
            wire.near.exec(&["tc", "qdisc", "del", "dev", "eth0", "root"]);
        }
    }
}

fn measure(wire: &Wire, time: Duration) -> Value {
    let queue = Queue::of(&wire.near, "eth0");
    let stream = Stream::start(&wire.near, (FAR, DISCARD));
    thread::sleep(WARM_UP);
    let (arrived, before) = (stream.acknowledged(), queue.state());
    let (answers, states) = beside(wire, &queue, time);
    let (arrived, after) = (stream.acknowledged() - arrived, queue.state());
    drop(stream);
    wait_for("an empty queue", PATIENCE, || queue.state().waiting == 0);
    let dropped_before = queue.state().dropped;
    let tried = wire.near.enter(|| blast((FAR, DISCARD), DATAGRAM, time));
    let dropped = queue.state().dropped - dropped_before;
    wait_for("an empty queue", PATIENCE, || queue.state().waiting == 0);
    let waiting: Vec<u64> = states.iter().map(|state| state.waiting).collect();
    let mean = waiting.iter().sum::<u64>() / (waiting.len() as u64).max(1);
    let seconds = time.as_secs();
    let trips = [50, 99].map(|percent| answers.percentile(percent).as_micros() as u64);
    json!({
        "megabits": arrived as f64 * 8.0 / 1e6 / time.as_secs_f64(),
        "trips_us": trips,
        "waiting": [mean, waiting.iter().copied().max().unwrap_or_default()],
        "dropped": after.dropped - before.dropped,
        "datagrams": [tried / seconds, dropped / seconds],
    })
}

/// Asks questions, and looks at the queue meanwhile. Both have a higher priority than what fills it, so that they measure the queue and
/// not the one processor.
fn beside(wire: &Wire, queue: &Queue, time: Duration) -> (Answers, Vec<State>) {
    let asked = || {
        wire.near.join();
        hurry();
        ask((FAR, ECHO), PAUSE, time)
    };
    thread::scope(|scope| {
        let asking = scope.spawn(asked);
        let looking = scope.spawn(|| {
            hurry();
            let mut states = Vec::new();
            while !asking.is_finished() {
                states.push(queue.state());
                thread::sleep(LOOK);
            }
            (asking.join(), states)
        });
        let (answers, states) = looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (answers.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), states)
    })
}

/// Bytes of data; with headers a frame of 1,442.
const DATAGRAM: usize = 1_400;
const DISCARD: u16 = 9;
const ECHO: u16 = 7;
/// Until the stream is as fast as it gets.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longer than the longest queue takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between questions.
const PAUSE: Duration = Duration::from_millis(5);
/// Between looks, and prime to the kernel's tick.
const LOOK: Duration = Duration::from_millis(3);
