//! Pins of network namespaces that are gone are removed by the next agent, those of others never.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::world::*;
use crate::dataplane::lock::lock;
use crate::dataplane::plane::Plane;
use crate::dataplane::tc::{NewBonds, TcPlane};

#[test]
fn pins_of_namespaces_that_are_gone_are_swept_and_those_of_others_stay() {
    for_both_hooks(|w| {
        // A bpffs of this test's own, as an earlier agent mounts it.
        let point = w.run_dir.join("bpf");
        fs::create_dir_all(&point).unwrap();
        mount(Some("bondd"), &point, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        let all = point.join("bondd");

        let served = Other::start(&w.run_dir, w.new_bonds());
        let mut unserved = Other::start(&w.run_dir, w.new_bonds());
        unserved.stop_agent();
        let mut gone = Other::start(&w.run_dir, w.new_bonds());
        gone.stop_agent();
        let pins = |other: &Other| listing(&all.join(other.netns.to_string()));
        let kept = [pins(&served), pins(&unserved)];
        assert!(kept.iter().all(|pins| pins.len() > 8), "{kept:?}");
        assert!(pins(&gone).len() > 8);

        // As long as it is there, although no process is in it but ours.
        w.create();
        assert_eq!(pins(&gone).len(), kept[0].len());
        let gone_dir = all.join(gone.netns.to_string());
        gone.end();
        // The kernel takes a namespace down some time after its last process has left.
        w.eventually(|w| {
            w.reopen();
            assert_eq!(w.plane.bonds().unwrap(), ["bond0"]);
            !gone_dir.exists()
        });
        assert_eq!([pins(&served), pins(&unserved)], kept);
        for other in [served, unserved] {
            other.end();
        }
        w.eventually(|w| {
            w.reopen();
            assert_eq!(w.plane.bonds().unwrap(), ["bond0"]);
            fs::read_dir(&all).unwrap().count() == 1
        });
    });
}

/// A network namespace with a bond, and an agent for it, on a thread.
struct Other {
    netns: u64,
    /// The first message stops the agent, the end of the channel the thread.
    orders: Sender<()>,
    done: Receiver<u64>,
    thread: JoinHandle<()>,
}

impl Other {
    fn start(run_dir: &Path, new_bonds: NewBonds) -> Other {
        let (orders, incoming) = mpsc::channel();
        let (report, done) = mpsc::channel();
        let run_dir = run_dir.to_owned();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut plane = TcPlane::open(&run_dir, new_bonds, crate::dataplane::tc::FailoverChoice::Auto).unwrap();
            plane.make("bond0").unwrap();
            plane.in_kernel.settle();
            report.send(lock(&plane.shared).netns).unwrap();
            if incoming.recv().is_ok() {
                drop(plane);
                report.send(0).unwrap();
                // Nothing is sent any more.
                let _ = incoming.recv();
            }
        });
        let netns = done.recv().unwrap();
        Other {
            netns,
            orders,
            done,
            thread,
        }
    }

    fn stop_agent(&mut self) {
        self.orders.send(()).unwrap();
        self.done.recv().unwrap();
    }

    fn end(self) {
        drop(self.orders);
        self.thread.join().unwrap();
    }
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let bonds = fs::read_dir(dir).unwrap().map(|bond| bond.unwrap().path());
    let mut pins: Vec<PathBuf> = bonds
        .flat_map(|bond| fs::read_dir(bond).unwrap().map(|pin| pin.unwrap().path()))
        .collect();
    pins.sort();
    pins
}
