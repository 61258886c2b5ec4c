//! Status files under the run directory. Each is replaced as a whole and only when it changes, those of a bond at most 20 times
//! a second. Changes that a client waits for are written at once.
//!
//! The thread of the [`Writer`](super::writer::Writer) passes in the wanted files of a bond and asks for the next deadline; the
//! clock is an argument. If many bonds change at once, their files are written in several calls, so that a change that a client
//! waits for need not wait for all of them. New files are written before changed ones, and old ones are removed last, so that
//! every name in a file, such as a port in `slaves`, has its own files. If writing fails, the files are out of date and a warning
//! is logged; nothing else happens.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bond_monitors::Time;

use super::disk::{bring, prune_folder, remove_file};
use super::packed::Packed;
use super::sysfs;
use super::tree::{Entry, Tree};
use crate::descriptors::why;

/// Shortest time between two writes of one bond's files.
const SPACING: Duration = Duration::from_millis(50);

/// Number of files that one call writes; a bond with more files is written in one call.
const BUDGET: usize = 32;

/// Time between attempts while writing fails.
const RETRY: Duration = Duration::from_secs(1);

/// What the set of the file with the names of all bonds is called; no bond can have this name.
const LIST: &str = "the list of bonds";

/// Keeps the files of every bond up to date.
#[derive(Debug)]
pub struct Publisher {
    run_dir: PathBuf,
    /// Names of the bonds that have been written, by their age, the oldest first.
    bonds: BTreeSet<(u64, String)>,
    /// By name of the bond, and the file of all of them as [`LIST`].
    sets: BTreeMap<String, FileSet>,
    /// The set that wrote the folder of an interface last; it changes when a port moves to another bond.
    holders: BTreeMap<String, String>,
}

/// Files that are written together.
#[derive(Debug, Default)]
struct FileSet {
    /// The files on disk.
    written: Packed,
    /// The wanted files, if they are not on disk yet.
    pending: Option<Tree>,
    /// Its place among the bonds.
    age: u64,
    /// Earliest time of the next write.
    not_before: Time,
    /// The last attempt failed, and was logged.
    failures: bool,
}

impl Publisher {
    /// For the run directory `run_dir`. Does not write yet.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Publisher {
            run_dir: run_dir.into(),
            bonds: BTreeSet::new(),
            sets: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    /// Sets the wanted files of a bond; [`Publisher::flush`] writes them. Bonds are listed by the ages with which they came first.
    pub fn update(&mut self, bond: &str, age: u64, tree: Tree) {
        let fresh = || FileSet {
            age,
            ..FileSet::default()
        };
        let set = self.sets.entry(bond.to_owned()).or_insert_with(fresh);
        set.pending = (set.written.unpack() != tree).then_some(tree);
    }

    /// As [`Publisher::update`], and writes them at once, because a client waits for it; not while writing fails.
    pub fn update_now(&mut self, now: Time, bond: &str, age: u64, tree: Tree) {
        self.update(bond, age, tree);
        if self.sets.get(bond).is_some_and(|set| !set.failures) {
            self.write(now, bond);
        }
    }

    /// When [`Publisher::flush`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let late = self.sets.values().filter(|set| set.pending.is_some());
        late.map(|set| set.not_before).min()
    }

    /// Writes the files that are due, the longest waiting first. The first change after a quiet time is written at once. Calls
    /// that come too early or too often are harmless.
    pub fn flush(&mut self, now: Time) {
        self.flush_some(now, BUDGET);
    }

    /// Writes everything that is pending, due or not, once. Calls `done` after each bond.
    pub fn flush_all(&mut self, now: Time, mut done: impl FnMut()) {
        let pending = self.sets.iter().filter(|(_, set)| set.pending.is_some());
        let pending: Vec<String> = pending.map(|(name, _)| name.clone()).collect();
        for name in pending {
            self.write(now, &name);
            done();
        }
    }

    fn flush_some(&mut self, now: Time, mut budget: usize) {
        let is_due = |set: &FileSet| set.pending.is_some() && now >= set.not_before;
        let due = self.sets.iter().filter(|(_, set)| is_due(set));
        let mut due: Vec<(Time, String)> = due.map(|(name, set)| (set.not_before, name.clone())).collect();
        due.sort();
        for (_, name) in due {
            budget = budget.saturating_sub(self.write(now, &name));
            if budget == 0 {
                return;
            }
        }
    }

    /// Removes the files of a bond that is gone.
    pub fn remove(&mut self, now: Time, bond: &str) {
        self.bonds.retain(|(_, known)| known != bond);
        self.list(now);
        self.holders.retain(|_, holder| holder != bond);
        for path in self.sets.remove(bond).unwrap_or_default().written.paths() {
            remove_file(&self.run_dir, path);
        }
    }

    /// Removes files that no [update](Publisher::update) asked for, left behind by an earlier run. Writes everything else
    /// first.
    pub fn prune(&mut self, now: Time) {
        self.flush_some(now, usize::MAX);
        self.list(now);
        let sets = || self.sets.values();
        let pending = sets().flat_map(|set| &set.pending).flat_map(Tree::keys);
        let written = sets().flat_map(|set| set.written.paths());
        let wanted: BTreeSet<&str> = written.chain(pending.map(String::as_str)).collect();
        for root in ["proc/net", sysfs::FOLDER] {
            prune_folder(&self.run_dir, root, &wanted);
        }
    }

    /// Updates the file with the names of all bonds. It changes only with the number of bonds, so it never waits.
    fn list(&mut self, now: Time) {
        let newline = if self.bonds.is_empty() { "" } else { "\n" };
        let names: Vec<&str> = self.bonds.iter().map(|(_, name)| name.as_str()).collect();
        let text = format!("{}{newline}", names.join(" "));
        let path = format!("{}/{}", sysfs::FOLDER, sysfs::MASTERS);
        self.update(LIST, 0, Tree::from([(path, Entry::File(text))]));
        self.write(now, LIST);
    }

    /// Writes pending files; on failure the rest stays pending. Returns how many files were written.
    fn write(&mut self, now: Time, name: &str) -> usize {
        let Some(tree) = self.sets.get_mut(name).and_then(|set| set.pending.take()) else {
            return 0;
        };
        self.take_over(name, &tree);
        let Some(set) = self.sets.get_mut(name) else { return 0 };
        let mut count = 0;
        match set.bring(&self.run_dir, &tree, &mut count) {
            Ok(()) => {
                if set.failures {
                    log::info!("{name}: status files written again");
                }
                set.failures = false;
                set.not_before = now + SPACING;
                let age = set.age;
                if name != LIST && self.bonds.insert((age, name.to_owned())) {
                    self.list(now);
                }
            }
            Err((path, error)) => {
                if !set.failures {
                    let path = self.run_dir.join(path);
                    log::warn!(
                        "{name}: cannot write {}: {}; trying again every second",
                        path.display(),
                        why(&error)
                    );
                }
                set.failures = true;
                set.pending = Some(tree);
                set.not_before = now + RETRY;
            }
        }
        count
    }

    /// Takes over files that another bond wrote in this tree's folders of interfaces, so that this bond can change and remove
    /// them.
    fn take_over(&mut self, name: &str, tree: &Tree) {
        let interfaces: BTreeSet<&str> = tree.keys().filter_map(|path| interface_of(path)).collect();
        for interface in interfaces {
            let folder = format!("{}/{interface}/", sysfs::FOLDER);
            let holder = self.holders.insert(interface.to_owned(), name.to_owned());
            let Some(other) = holder
                .filter(|holder| holder != name)
                .and_then(|holder| self.sets.get_mut(&holder))
            else {
                continue;
            };
            let all = other.written.unpack().into_iter();
            let (taken, left): (Tree, Tree) = all.partition(|(path, _)| path.starts_with(&folder));
            other.written = Packed::of(&left);
            if let Some(set) = self.sets.get_mut(name) {
                let mut written = set.written.unpack();
                written.extend(taken);
                set.written = Packed::of(&written);
            }
        }
    }
}

impl FileSet {
    /// Makes the disk match the tree and returns the number of files written, or an error with the path that could not be
    /// written.
    fn bring(&mut self, run_dir: &Path, tree: &Tree, count: &mut usize) -> Result<(), (String, io::Error)> {
        let mut written = self.written.unpack();
        let brought = bring(&mut written, run_dir, tree, count);
        self.written = Packed::of(&written);
        brought
    }
}

/// The interface in whose folder a path is.
fn interface_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix(sysfs::FOLDER)?.strip_prefix('/')?;
    below.split_once('/').map(|(interface, _)| interface)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::disk::DRAFT;
    use super::*;

    /// A publisher with a folder of its own, which is removed at the end of the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let unique = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("bondd-publish-{}-{unique}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Scratch(path)
        }

        fn publisher(&self) -> Publisher {
            Publisher::new(&self.0)
        }

        /// A bond's text.
        fn read(&self, bond: &str) -> Option<String> {
            self.text(&path(bond))
        }

        fn text(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.0.join(path)).ok()
        }

        fn inode(&self, path: &str) -> u64 {
            fs::metadata(self.0.join(path)).unwrap().ino()
        }

        /// Every file and link below, by path.
        fn all(&self) -> Vec<String> {
            fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
                for entry in fs::read_dir(folder).unwrap() {
                    let entry = entry.unwrap();
                    match entry.file_type().unwrap().is_dir() {
                        true => walk(root, &entry.path(), found),
                        false => found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
                    }
                }
            }
            let mut found = Vec::new();
            walk(&self.0, &self.0, &mut found);
            found.sort();
            found
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Publisher {
        fn write_at(&mut self, ms: u64, bond: &str, tree: Tree) {
            self.update(bond, ms, tree);
            self.flush(at(ms));
        }
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn path(bond: &str) -> String {
        format!("proc/net/bonding/{bond}")
    }

    fn tree(files: &[(&str, &str)]) -> Tree {
        let entry = |text: &str| match text.strip_prefix("-> ") {
            Some(target) => Entry::Link(target.to_owned()),
            None => Entry::File(text.to_owned()),
        };
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), entry(text)))
            .collect()
    }

    /// A bond with one file.
    fn text(bond: &str, text: &str) -> Tree {
        tree(&[(&path(bond), text)])
    }

    const MASTERS_PATH: &str = "sys/class/net/bonding_masters";

    #[test]
    fn the_first_change_after_quiet_is_written_at_once_and_the_next_50_ms_later() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        publisher.write_at(1000, "bond0", text("bond0", "a"));
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        assert_eq!(publisher.poll_timeout(), None);

        publisher.write_at(1010, "bond0", text("bond0", "b"));
        publisher.write_at(1020, "bond0", text("bond0", "c"));
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        assert_eq!(publisher.poll_timeout(), Some(at(1050)));
        publisher.flush(at(1049));
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        publisher.flush(at(1050));
        assert_eq!(dir.read("bond0").as_deref(), Some("c"));
        assert_eq!(publisher.poll_timeout(), None);

        publisher.write_at(1100, "bond0", text("bond0", "d"));
        assert_eq!(dir.read("bond0").as_deref(), Some("d"));
    }

    #[test]
    fn a_change_that_somebody_waits_for_is_written_at_once_unless_writing_fails() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        publisher.update_now(at(1000), "bond0", 0, text("bond0", "a"));
        publisher.update_now(at(1001), "bond0", 0, text("bond0", "b"));
        assert_eq!(dir.read("bond0").as_deref(), Some("b"));
        publisher.write_at(1002, "bond0", text("bond0", "c"));
        assert_eq!(publisher.poll_timeout(), Some(at(1051)));

        fs::create_dir_all(dir.0.join(DRAFT).join("x")).unwrap();
        publisher.flush(at(1051));
        publisher.update_now(at(1052), "bond0", 0, text("bond0", "d"));
        assert_eq!(dir.read("bond0").as_deref(), Some("b"));
        assert_eq!(publisher.poll_timeout(), Some(at(2051)));
    }

    #[test]
    fn bonds_do_not_wait_for_each_other_and_are_listed_at_once() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        publisher.write_at(0, "bond1", text("bond1", "a"));
        publisher.write_at(1, "bond0", text("bond0", "b"));
        assert_eq!(dir.read("bond0").as_deref(), Some("b"));
        assert_eq!(
            dir.text(MASTERS_PATH).as_deref(),
            Some("bond1 bond0\n"),
            "in the order of their creation"
        );
        publisher.remove(at(2), "bond1");
        assert_eq!(dir.text(MASTERS_PATH).as_deref(), Some("bond0\n"));
        publisher.remove(at(3), "bond0");
        assert_eq!(dir.text(MASTERS_PATH).as_deref(), Some(""));
    }

    #[test]
    fn many_bonds_are_written_over_several_turns_and_none_is_forgotten() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        for round in ["a", "b"] {
            let now = if round == "a" { at(0) } else { at(100) };
            for number in 0..3 * BUDGET {
                let bond = format!("bond{number}");
                publisher.update(&bond, number as u64, text(&bond, round));
            }
            let mut turns = 0;
            while publisher.poll_timeout().is_some_and(|due| due <= now) {
                publisher.flush(now);
                turns += 1;
            }
            assert_eq!((turns, publisher.poll_timeout()), (3, None));
            let right = |number: usize| dir.read(&format!("bond{number}")).as_deref() == Some(round);
            assert!((0..3 * BUDGET).all(right));
        }
    }

    #[test]
    fn only_what_changed_is_written_again() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        let [one, two] = ["sys/class/net/bond0/one", "sys/class/net/bond0/two"];
        publisher.write_at(0, "bond0", tree(&[(one, "a"), (two, "a")]));
        // Held open, so that their inode numbers cannot be given to new files.
        let held = [one, two].map(|path| fs::File::open(dir.0.join(path)).unwrap());
        let before = [one, two].map(|path| dir.inode(path));
        publisher.write_at(1000, "bond0", tree(&[(one, "a"), (two, "a")]));
        publisher.write_at(2000, "bond0", tree(&[(one, "a"), (two, "b")]));
        assert_eq!(dir.inode(one), before[0]);
        assert_ne!(dir.inode(two), before[1]);
        publisher.write_at(2010, "bond0", tree(&[(one, "a"), (two, "c")]));
        publisher.write_at(2020, "bond0", tree(&[(one, "a"), (two, "b")]));
        assert_eq!(publisher.poll_timeout(), None, "back to what is on disk");
        drop(held);
    }

    #[test]
    fn files_are_for_everyone_to_read_and_no_one_to_write() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        publisher.write_at(0, "bond0", text("bond0", "a"));
        let mode = |path: &str| fs::metadata(dir.0.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("proc/net/bonding/bond0"), 0o444);
        for folder in [
            "proc",
            "proc/net",
            "proc/net/bonding",
            "sys",
            "sys/class",
            "sys/class/net",
        ] {
            assert_eq!(mode(folder), 0o755, "{folder}");
        }
        assert_eq!(dir.all(), [&path("bond0"), MASTERS_PATH], "no draft is left");
    }

    #[test]
    fn a_failed_write_is_tried_again_and_keeps_the_newest_text() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        // A file where the folder should be: fails for root, too.
        fs::write(dir.0.join("proc"), "").unwrap();
        publisher.write_at(0, "bond0", text("bond0", "a"));
        assert_eq!(publisher.poll_timeout(), Some(at(1000)));
        publisher.write_at(10, "bond0", text("bond0", "b"));
        publisher.flush(at(1000));
        assert_eq!(publisher.poll_timeout(), Some(at(2000)));

        fs::remove_file(dir.0.join("proc")).unwrap();
        publisher.flush(at(2000));
        assert_eq!(dir.read("bond0").as_deref(), Some("b"));
        assert_eq!(publisher.poll_timeout(), None);
    }

    #[test]
    fn a_failed_write_leaves_the_old_text_whole() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        publisher.write_at(0, "bond0", text("bond0", "a"));
        // The draft's name is taken by a folder with something in it: writing fails.
        fs::create_dir_all(dir.0.join(DRAFT).join("x")).unwrap();
        publisher.write_at(100, "bond0", text("bond0", "b"));
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        assert_eq!(publisher.poll_timeout(), Some(at(1100)));
    }

    #[test]
    fn folders_that_someone_removed_are_made_again() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        publisher.write_at(0, "bond0", text("bond0", "a"));
        fs::remove_dir_all(dir.0.join("proc")).unwrap();
        publisher.write_at(100, "bond0", text("bond0", "b"));
        assert_eq!(dir.read("bond0").as_deref(), Some("b"));
        fs::remove_dir_all(dir.0.join("proc/net/bonding")).unwrap();
        publisher.write_at(200, "bond0", text("bond0", "c"));
        assert_eq!(dir.read("bond0").as_deref(), Some("c"));
    }

    #[test]
    fn what_goes_takes_its_empty_folders_along() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        let slaves = "sys/class/net/bond0/bonding/slaves";
        let link = "sys/class/net/bond0/lower_eth0";
        let state = "sys/class/net/eth0/bonding_slave/state";
        publisher.write_at(
            0,
            "bond0",
            tree(&[(slaves, "eth0\n"), (link, "-> ../eth0"), (state, "active\n")]),
        );
        assert_eq!(
            dir.text(&format!("{link}/bonding_slave/state")).as_deref(),
            Some("active\n")
        );
        publisher.write_at(100, "bond0", tree(&[(slaves, "")]));
        assert_eq!(dir.all(), [slaves, MASTERS_PATH]);
        assert!(!dir.0.join("sys/class/net/eth0").exists());
        publisher.remove(at(200), "bond0");
        assert_eq!(dir.all(), [MASTERS_PATH]);
        assert_eq!(fs::read_dir(dir.0.join(sysfs::FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn a_port_that_goes_to_another_bond_keeps_its_files_whichever_bond_is_written_last() {
        let (state, master, more) = (
            "sys/class/net/eth0/bonding_slave/state",
            "sys/class/net/eth0/master",
            "sys/class/net/eth0/upper_bond0",
        );
        let of_first = tree(&[
            (&path("bond0"), "a"),
            (state, "active\n"),
            (master, "-> ../bond0"),
            (more, "-> ../bond0"),
        ]);
        let of_second = tree(&[(&path("bond1"), "b"), (state, "backup\n"), (master, "-> ../bond1")]);
        for first_is_late in [true, false] {
            let dir = Scratch::new();
            let mut publisher = dir.publisher();
            publisher.write_at(0, "bond1", text("bond1", "b"));
            publisher.write_at(0, "bond0", of_first.clone());
            if !first_is_late {
                publisher.write_at(100, "bond0", text("bond0", "a"));
            }
            publisher.write_at(100, "bond1", of_second.clone());
            publisher.write_at(110, "bond0", text("bond0", "a"));
            publisher.flush(at(200));
            assert_eq!(dir.text(state).as_deref(), Some("backup\n"));
            assert_eq!(fs::read_link(dir.0.join(master)).unwrap(), Path::new("../bond1"));
            assert!(!dir.all().contains(&more.to_owned()), "{:?}", dir.all());
            // And back, before anyone else is written.
            publisher.write_at(300, "bond0", of_first.clone());
            publisher.remove(at(300), "bond1");
            assert_eq!(dir.text(state).as_deref(), Some("active\n"));
        }
    }

    #[test]
    fn removed_and_forgotten_bonds_leave_no_file() {
        let dir = Scratch::new();
        let mut publisher = dir.publisher();
        publisher.prune(at(0));
        assert_eq!(dir.text(MASTERS_PATH).as_deref(), Some(""));
        let link = "sys/class/net/bond1/lower_eth0";
        publisher.write_at(0, "bond0", text("bond0", "a"));
        publisher.write_at(0, "bond1", tree(&[(&path("bond1"), "b"), (link, "-> ../eth0")]));
        publisher.write_at(1, "bond0", text("bond0", "later"));
        publisher.remove(at(2), "bond0");
        publisher.remove(at(2), "bond0");
        assert_eq!(dir.read("bond0"), None);
        assert_eq!(publisher.poll_timeout(), None);

        let mut next_run = dir.publisher();
        next_run.write_at(2, "bond2", text("bond2", "c"));
        next_run.prune(at(3));
        assert_eq!(dir.all(), [&path("bond2"), MASTERS_PATH]);
        assert_eq!(dir.text(MASTERS_PATH).as_deref(), Some("bond2\n"));
        assert!(!dir.0.join("sys/class/net/bond1").exists());
    }
}
