//! Work that clients give the agent, again and again, while something else is looked at.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::ManyBonds;
use crate::bins::bin;
use crate::control::Control;
use crate::daemon::succeeded;
use crate::netns::Netns;

/// A round of work; says how many things were done.
pub type Work = Box<dyn FnMut() -> usize + Send>;

/// Has each of these done on a thread of its own, round after round, while `body` runs, which is given the number of things
/// done so far; how many a second it was.
pub fn beside<T>(works: Vec<Work>, body: impl FnOnce(&AtomicUsize) -> T) -> (T, f64) {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for mut work in works {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    done.fetch_add(work(), Ordering::Relaxed);
                }
            });
        }
        let _stops = Stops(&stop);
        let begun = Instant::now();
        let out = body(&done);
        (out, done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
    })
}

/// Says so when it is dropped, also while a panic unwinds: the threads would go on for ever.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Adds a bond by `bondctl`, attaches its ports, sets it up and deletes it: those with these numbers in turns.
pub fn add_and_delete(many: &ManyBonds, mut numbers: impl Iterator<Item = usize> + Send + 'static) -> Work {
    let admin = Admin {
        netns: many.near.clone(),
        run_dir: many.daemon.dir().to_owned(),
    };
    Box::new(move || {
        let bond = numbers.next().expect("there is always another");
        admin.ctl(&format!("add bond{bond} mode=active-backup miimon=100"));
        admin.ctl(&format!("port add bond{bond} a{bond} b{bond}"));
        admin.netns.ip(&format!("link set bond{bond} up"));
        admin.ctl(&format!("del bond{bond}"));
        1
    })
}

/// Gives the bonds with these numbers another option each, so that their files are written anew.
pub fn set_options(many: &ManyBonds, bonds: Range<usize>) -> Work {
    let mut control = connect(many);
    let mut sets = ["100", "200"]
        .into_iter()
        .cycle()
        .flat_map(move |updelay| bonds.clone().map(move |bond| (bond, updelay)));
    Box::new(move || {
        let (bond, updelay) = sets.next().expect("there is always another");
        let set = json!({"call": "set", "bond": format!("bond{bond}"), "options": [["updelay", updelay]]});
        let answer = control.call(set).expect("the agent answers");
        answer.unwrap_or_else(|refusal| panic!("{refusal}"));
        1
    })
}

/// Asks for the state of all bonds, and leaves the answer unread by any parser, which would cost more than the answer.
pub fn show(many: &ManyBonds) -> Work {
    let mut control = connect(many);
    let request = format!("{}\n", json!({"id": 1, "call": "show"}));
    Box::new(move || {
        control
            .send(request.as_bytes())
            .and_then(|()| control.line())
            .expect("the agent answers");
        1
    })
}

/// Computes, at ordinary priority, for a while that a scheduler notices.
pub fn compute() -> Work {
    Box::new(|| {
        let end = Instant::now() + COMPUTED_AT_A_TIME;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        1
    })
}

fn connect(many: &ManyBonds) -> Control {
    Control::connect_patiently(&many.daemon.socket(), PATIENCE).expect("the agent listens")
}

/// Runs `bondctl` while others use the agent.
struct Admin {
    netns: Netns,
    run_dir: PathBuf,
}

impl Admin {
    fn ctl(&self, line: &str) {
        let mut bondctl = self.netns.command(bin("bondctl"));
        bondctl
            .args(line.split_whitespace())
            .env("BONDD_RUN_DIR", &self.run_dir);
        let output = bondctl.stdin(Stdio::null()).output();
        succeeded(line, output.unwrap_or_else(|e| panic!("cannot run bondctl: {e}")));
    }
}

const COMPUTED_AT_A_TIME: Duration = Duration::from_millis(10);

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(30);
