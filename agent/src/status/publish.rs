//! Status files under the run directory: whole or not at all, only on change, at most 20 times a second per bond, not counting
//! changes that a client waits for.
//!
//! The agent's loop hands in the text after every turn and asks when to come back, as with a [`Bond`]: the clock is an
//! argument. A directory or file system that cannot be written to costs a warning and the files' freshness, nothing else.
//!
//! [`Bond`]: bond_modes

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bond_monitors::Time;

/// Least time between two writes of one bond's file.
const SPACING: Duration = Duration::from_millis(50);

/// Time between attempts while writing fails.
const RETRY: Duration = Duration::from_secs(1);

/// Folders of the status files, outermost first, under the run directory.
const FOLDERS: [&str; 3] = ["proc", "proc/net", "proc/net/bonding"];

/// Keeps `proc/net/bonding/<bond>` of every bond up to date.
#[derive(Debug)]
pub struct Publisher {
    run_dir: PathBuf,
    files: BTreeMap<String, StatusFile>,
}

/// One bond's file.
#[derive(Debug, Default)]
struct StatusFile {
    /// Its content on disk.
    written: Option<String>,
    /// Newer content that is not on disk yet; never equal to `written`.
    pending: Option<String>,
    /// Not to be written before.
    not_before: Time,
    /// The last attempt failed, and was logged.
    failing: bool,
}

impl Publisher {
    /// For the run directory `run_dir`; touches nothing yet.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Publisher {
            run_dir: run_dir.into(),
            files: BTreeMap::new(),
        }
    }

    /// Takes the text that the bond's file should have now. The first change after a quiet time is written at once, a later
    /// one by [`Publisher::flush`].
    pub fn update(&mut self, now: Time, bond: &str, text: String) {
        let file = self.files.entry(bond.to_owned()).or_default();
        if file.written.as_ref() == Some(&text) {
            file.pending = None;
            return;
        }
        file.pending = Some(text);
        if now >= file.not_before {
            file.write(now, &self.run_dir, bond);
        }
    }

    /// Lets the next change of this bond be written at once, because somebody waits for it. While writing fails it has to wait.
    pub fn hurry(&mut self, bond: &str) {
        if let Some(file) = self.files.get_mut(bond).filter(|file| !file.failing) {
            file.not_before = Time::ZERO;
        }
    }

    /// When [`Publisher::flush`] has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.files
            .values()
            .filter(|file| file.pending.is_some())
            .map(|file| file.not_before)
            .min()
    }

    /// Writes what is due. Calling it too early or too often is harmless.
    pub fn flush(&mut self, now: Time) {
        for (bond, file) in &mut self.files {
            if file.pending.is_some() && now >= file.not_before {
                file.write(now, &self.run_dir, bond);
            }
        }
    }

    /// Removes the file of a bond that is gone.
    pub fn remove(&mut self, bond: &str) {
        self.files.remove(bond);
        remove_file(&self.path(bond));
    }

    /// Removes files of bonds that were never [updated](Publisher::update): left behind by an earlier run.
    pub fn prune(&mut self) {
        // An unreadable or missing folder has nothing of ours in it.
        let Ok(entries) = fs::read_dir(self.run_dir.join(FOLDERS[2])) else {
            return;
        };
        for entry in entries.flatten() {
            let known = entry.file_name().to_str().is_some_and(|n| self.files.contains_key(n));
            if !known {
                remove_file(&entry.path());
            }
        }
    }

    fn path(&self, bond: &str) -> PathBuf {
        self.run_dir.join(FOLDERS[2]).join(bond)
    }
}

impl StatusFile {
    /// Tries to bring `pending` to disk; on failure it stays pending.
    fn write(&mut self, now: Time, run_dir: &Path, bond: &str) {
        let Some(text) = self.pending.take() else { return };
        match replace(run_dir, bond, &text) {
            Ok(()) => {
                if self.failing {
                    log::info!("{bond}: status file written again");
                }
                self.failing = false;
                self.written = Some(text);
                self.not_before = now + SPACING;
            }
            Err(e) => {
                if !self.failing {
                    let path = run_dir.join(FOLDERS[2]).join(bond);
                    log::warn!(
                        "{bond}: cannot write {}: {e}; trying again every second",
                        path.display()
                    );
                }
                self.failing = true;
                self.pending = Some(text);
                self.not_before = now + RETRY;
            }
        }
    }
}

/// Puts a file with this text in place of the old one, so that a reader sees the one or the other whole.
fn replace(run_dir: &Path, bond: &str, text: &str) -> io::Result<()> {
    // Not in the folder that tools list. One name does for all bonds: there is one writer and it finishes each file.
    let draft = run_dir.join(FOLDERS[1]).join(".bonding.new");
    let target = run_dir.join(FOLDERS[2]).join(bond);
    let place = || write_draft(&draft, text).and_then(|()| fs::rename(&draft, &target));
    let placed = match place() {
        Err(e) if e.kind() == ErrorKind::NotFound => make_folders(run_dir).and_then(|()| place()),
        other => other,
    };
    if placed.is_err() {
        // Nothing but space is lost if this fails too, and the next attempt removes it first.
        let _ = fs::remove_file(&draft);
    }
    placed
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    // What a crash left behind may belong to another user or be read-only.
    match fs::remove_file(draft) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(draft)?;
    file.write_all(text.as_bytes())?;
    // Again, because the mode above is subject to the umask.
    file.set_permissions(Permissions::from_mode(0o444))
}

fn make_folders(run_dir: &Path) -> io::Result<()> {
    for folder in FOLDERS {
        let path = run_dir.join(folder);
        match DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => fs::set_permissions(&path, Permissions::from_mode(0o755))?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => log::warn!("cannot remove {}: {e}", path.display()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A folder of its own that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let unique = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("bondd-publish-{}-{unique}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Scratch(path)
        }

        fn read(&self, bond: &str) -> Option<String> {
            fs::read_to_string(self.0.join(FOLDERS[2]).join(bond)).ok()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn the_first_change_after_quiet_is_written_at_once_and_the_next_50_ms_later() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        publisher.update(at(1000), "bond0", "a".into());
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        assert_eq!(publisher.poll_timeout(), None);

        publisher.update(at(1010), "bond0", "b".into());
        publisher.update(at(1020), "bond0", "c".into());
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        assert_eq!(publisher.poll_timeout(), Some(at(1050)));
        publisher.flush(at(1049));
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        publisher.flush(at(1050));
        assert_eq!(dir.read("bond0").as_deref(), Some("c"));
        assert_eq!(publisher.poll_timeout(), None);

        publisher.update(at(1100), "bond0", "d".into());
        assert_eq!(dir.read("bond0").as_deref(), Some("d"));
    }

    #[test]
    fn a_change_that_somebody_waits_for_is_written_at_once_unless_writing_fails() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        publisher.hurry("bond0");
        publisher.update(at(1000), "bond0", "a".into());
        publisher.hurry("bond0");
        publisher.update(at(1001), "bond0", "b".into());
        assert_eq!(dir.read("bond0").as_deref(), Some("b"));
        publisher.update(at(1002), "bond0", "c".into());
        assert_eq!(publisher.poll_timeout(), Some(at(1051)));

        fs::create_dir_all(dir.0.join("proc/net/.bonding.new/x")).unwrap();
        publisher.flush(at(1051));
        publisher.hurry("bond0");
        assert_eq!(publisher.poll_timeout(), Some(at(2051)));
    }

    #[test]
    fn bonds_do_not_wait_for_each_other() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        publisher.update(at(0), "bond0", "a".into());
        publisher.update(at(1), "bond1", "b".into());
        assert_eq!(dir.read("bond1").as_deref(), Some("b"));
    }

    #[test]
    fn the_same_text_is_not_written_again() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        publisher.update(at(0), "bond0", "a".into());
        let inode = |dir: &Scratch| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(dir.0.join(FOLDERS[2]).join("bond0")).unwrap().ino()
        };
        // Held open, so that its inode number cannot be given to a new file.
        let held = fs::File::open(dir.0.join(FOLDERS[2]).join("bond0")).unwrap();
        let before = inode(&dir);
        publisher.update(at(1000), "bond0", "a".into());
        publisher.update(at(1010), "bond0", "b".into());
        assert_ne!(inode(&dir), before);
        let after = inode(&dir);
        publisher.update(at(1020), "bond0", "c".into());
        publisher.update(at(1030), "bond0", "b".into());
        assert_eq!(publisher.poll_timeout(), None, "back to what is on disk");
        publisher.flush(at(2000));
        assert_eq!(inode(&dir), after);
        drop(held);
    }

    #[test]
    fn files_are_for_everyone_to_read_and_no_one_to_write() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        publisher.update(at(0), "bond0", "a".into());
        let mode = |path: &str| fs::metadata(dir.0.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("proc/net/bonding/bond0"), 0o444);
        for folder in FOLDERS {
            assert_eq!(mode(folder), 0o755, "{folder}");
        }
        let names = |folder: &str| fs::read_dir(dir.0.join(folder)).unwrap().count();
        assert_eq!((names(FOLDERS[1]), names(FOLDERS[2])), (1, 1), "no draft is left");
    }

    #[test]
    fn a_failed_write_is_tried_again_and_keeps_the_newest_text() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        // A file where the folder should be: fails for root, too.
        fs::write(dir.0.join("proc"), "").unwrap();
        publisher.update(at(0), "bond0", "a".into());
        assert_eq!(publisher.poll_timeout(), Some(at(1000)));
        publisher.update(at(10), "bond0", "b".into());
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
        let mut publisher = Publisher::new(&dir.0);
        publisher.update(at(0), "bond0", "a".into());
        // The draft's name is taken by a folder with something in it: writing fails.
        fs::create_dir_all(dir.0.join("proc/net/.bonding.new/x")).unwrap();
        publisher.update(at(100), "bond0", "b".into());
        assert_eq!(dir.read("bond0").as_deref(), Some("a"));
        assert_eq!(publisher.poll_timeout(), Some(at(1100)));
    }

    #[test]
    fn folders_that_someone_removed_are_made_again() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        publisher.update(at(0), "bond0", "a".into());
        fs::remove_dir_all(dir.0.join("proc")).unwrap();
        publisher.update(at(100), "bond0", "b".into());
        assert_eq!(dir.read("bond0").as_deref(), Some("b"));
        fs::remove_dir_all(dir.0.join(FOLDERS[2])).unwrap();
        publisher.update(at(200), "bond0", "c".into());
        assert_eq!(dir.read("bond0").as_deref(), Some("c"));
    }

    #[test]
    fn removed_and_forgotten_bonds_leave_no_file() {
        let dir = Scratch::new();
        let mut publisher = Publisher::new(&dir.0);
        publisher.prune();
        publisher.update(at(0), "bond0", "a".into());
        publisher.update(at(0), "bond1", "b".into());
        publisher.update(at(1), "bond0", "later".into());
        publisher.remove("bond0");
        publisher.remove("bond0");
        assert_eq!(dir.read("bond0"), None);
        assert_eq!(publisher.poll_timeout(), None);

        let mut next_run = Publisher::new(&dir.0);
        next_run.update(at(2), "bond2", "c".into());
        next_run.prune();
        assert_eq!(dir.read("bond1"), None);
        assert_eq!(dir.read("bond2").as_deref(), Some("c"));
    }
}
