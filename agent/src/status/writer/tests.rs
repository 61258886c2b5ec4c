use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{StatusFiles, golden};
use super::*;
use crate::vital_thread::tests::{aborted, wait_for_abort};

const LIMIT: Duration = Duration::from_secs(10);

/// Runs `body` with a writer and the folder of its files.
fn with_writer(name: &str, body: impl FnOnce(&mut Writer, &Path)) {
    let dir = std::env::temp_dir().join(format!("bondd-writer-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let mut writer = Writer::start(&dir, "6.1.0".to_owned()).unwrap();
    body(&mut writer, &dir);
    drop(writer);
    fs::remove_dir_all(&dir).unwrap();
}

/// A bond without ports that polls so often.
fn page(name: &str, miimon: u32) -> Box<Page> {
    let (mut report, options) = golden::bond("active-backup", &[("miimon", &miimon.to_string())]);
    report.name = name.to_owned();
    Box::new(Page {
        devices: golden::devices(&report),
        report,
        options,
        files: StatusFiles::All,
        age: name.trim_start_matches("bond").parse().unwrap(),
    })
}

fn miimon(dir: &Path, bond: &str) -> Option<String> {
    fs::read_to_string(dir.join(format!("sys/class/net/{bond}/bonding/miimon"))).ok()
}

fn masters(dir: &Path) -> String {
    fs::read_to_string(dir.join("sys/class/net/bonding_masters")).unwrap()
}

/// Waits for what a client waits for.
fn awaited(writer: &mut Writer, mark: Mark) {
    let until = Instant::now() + LIMIT;
    while !writer.has_written(mark) {
        assert!(Instant::now() < until, "{writer:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_a_client_waits_for_is_written_before_everything_else() {
    with_writer("awaited", |writer, dir| {
        writer.hold(true);
        for number in (0..50).rev() {
            assert!(writer.show(page(&format!("bond{number}"), 100), Urgency::Usual));
        }
        assert!(writer.has_written(writer.mark()), "nobody waits");
        assert!(writer.show(page("bond25", 200), Urgency::Awaited));
        writer.wake();
        let mark = writer.mark();
        assert!(!writer.has_written(mark));
        writer.hold(false);
        awaited(writer, mark);
        assert_eq!(miimon(dir, "bond25").as_deref(), Some("200\n"));
        assert!(writer.settle());
        let names: Vec<String> = (0..50).map(|number| format!("bond{number}")).collect();
        assert_eq!(masters(dir), names.join(" ") + "\n", "in the order of their creation");
    });
}

#[test]
fn of_what_was_not_written_yet_only_the_newest_counts_and_the_rest_costs_no_memory() {
    with_writer("newest", |writer, dir| {
        writer.hold(true);
        let given = (0..2 * UNREAD as u32)
            .take_while(|number| writer.show(page("bond0", 100 + number), Urgency::Usual))
            .count();
        assert_eq!(given, UNREAD);
        assert!(!writer.has_room());
        // These are not lost.
        writer.remove("bond1");
        writer.prune();
        fs::create_dir_all(dir.join("sys/class/net/bond9")).unwrap();
        fs::write(dir.join("sys/class/net/bond9/mtu"), "1500\n").unwrap();
        assert!(!writer.show(page("bond1", 100), Urgency::Usual));
        writer.hold(false);
        assert!(writer.settle());
        assert!(writer.has_room());
        assert_eq!(miimon(dir, "bond0").unwrap(), format!("{}\n", 99 + UNREAD));
        assert!(!dir.join("sys/class/net/bond9").exists());
        assert!(writer.show(page("bond1", 100), Urgency::Usual));
        assert!(writer.settle());
        assert_eq!(masters(dir), "bond0 bond1\n");
    });
}

#[test]
fn a_bond_that_goes_and_comes_leaves_nothing_of_the_one_before() {
    with_writer("comes", |writer, dir| {
        writer.show(page("bond0", 100), Urgency::Usual);
        assert!(writer.settle());
        writer.hold(true);
        writer.show(page("bond0", 200), Urgency::Usual);
        writer.remove("bond0");
        writer.show(page("bond0", 300), Urgency::Usual);
        writer.show(page("bond1", 300), Urgency::Usual);
        writer.remove("bond1");
        writer.hold(false);
        assert!(writer.settle());
        assert_eq!(miimon(dir, "bond0").as_deref(), Some("300\n"));
        assert_eq!(miimon(dir, "bond1"), None);
        assert_eq!(masters(dir), "bond0\n");
    });
}

#[test]
fn the_end_writes_what_is_pending_also_what_was_put_off() {
    let dir = std::env::temp_dir().join(format!("bondd-writer-end-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let mut writer = Writer::start(&dir, "6.1.0".to_owned()).unwrap();
    // The second is put off, because the first was just written.
    for miimon in [100, 200] {
        writer.show(page("bond0", miimon), Urgency::Usual);
        writer.wake();
    }
    drop(writer);
    assert_eq!(miimon(&dir, "bond0").as_deref(), Some("200\n"));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn an_awaited_bond_that_cannot_be_written_is_waited_for_no_longer() {
    with_writer("fails", |writer, dir| {
        fs::create_dir_all(dir.join(".status.new/in the way")).unwrap();
        writer.show(page("bond0", 100), Urgency::Awaited);
        writer.wake();
        let mark = writer.mark();
        awaited(writer, mark);
        assert_eq!(miimon(dir, "bond0"), None);
        fs::remove_dir_all(dir.join(".status.new")).unwrap();
    });
}

#[test]
fn a_panic_of_the_thread_ends_the_agent() {
    let printed = aborted(
        concat!(module_path!(), "::a_panic_of_the_thread_ends_the_agent"),
        || {
            // It writes nothing, and a folder of its own would stay behind.
            let mut writer = Writer::start("/nonexistent", "6.1.0".to_owned()).unwrap();
            writer.make_panic();
            writer.wake();
            wait_for_abort();
        },
    );
    assert!(printed.contains("status-files"), "{printed}");
}

/// The policy of a thread, by its number.
fn policy(thread: &str) -> i32 {
    // SAFETY: the call only reads.
    unsafe { libc::sched_getscheduler(thread.parse().unwrap()) }
}

#[test]
fn the_thread_has_ordinary_scheduling_whatever_the_loop_has() {
    let threads = || -> BTreeSet<String> {
        let entries = fs::read_dir("/proc/self/task").unwrap().flatten();
        let named = entries.filter(|entry| {
            let name = fs::read_to_string(entry.path().join("comm"));
            name.is_ok_and(|name| name.trim() == "status-files")
        });
        named.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    thread::spawn(move || {
        crate::priority::raise(crate::priority::LOOP);
        // SAFETY: the call only reads.
        let own = unsafe { libc::sched_getscheduler(0) };
        if own & libc::SCHED_RR == 0 {
            eprintln!("no right to real-time priority: nothing to inherit");
        }
        with_writer("priority", |writer, _| {
            assert!(writer.settle());
            let policies: Vec<i32> = threads().iter().map(|thread| policy(thread)).collect();
            assert!(!policies.is_empty());
            assert!(
                policies.iter().all(|policy| *policy <= libc::SCHED_OTHER),
                "{policies:?}"
            );
        });
    })
    .join()
    .unwrap();
}
