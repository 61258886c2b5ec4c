//! `state/<bond>.json`: soft state across restarts, that is, state that the kernel does not hold. It is worthless after a
//! reboot.

mod bond;
mod format;
mod reading;
pub mod replace;
pub mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bond_modes::PortId;

pub use self::bond::{LeftPort, SavedBond};
use self::format::{FileBond, FileLeft, values_into};
pub(crate) use self::replace::replace;
use self::work::{Done, LEFT, Step, Work};
use crate::descriptors::why;
use crate::may_wait::MayWait;

/// What the folder holds when an agent starts.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The states of this boot and this network namespace, oldest bond first.
    pub states: Vec<SavedBond>,
    /// Names of bonds whose files cannot be read for now, each with the error; see [`Store::unread`].
    pub unread: Vec<(String, io::Error)>,
    /// Ports that bonds left behind.
    pub left: BTreeMap<PortId, LeftPort>,
}

/// What is to be written for a state.
#[derive(Debug)]
pub enum Change {
    /// Nothing, it is written.
    Nothing,
    /// This text to this file, as [`replace`](replace()) does it; see [`Store::note_written`].
    Text(PathBuf, String),
    /// It has no file yet, or that of its former name; see [`Store::note`].
    Files(Work),
}

/// The folder of state files. What is done in it takes a [`MayWait`]; the rest is bookkeeping, which waits for nothing.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    boot_id: String,
    /// The inode number of the network namespace.
    netns: u64,
    /// Contents of each bond's file, so that an unchanged state is not written again.
    written: BTreeMap<String, String>,
    /// The files that are there, by their names without the ending, each with the interface of its bond; `None` if that cannot be
    /// read for now. A file has its bond's name, or had it before the bond was renamed. One whose name another bond has got
    /// meanwhile has a colon and a number after it.
    files: BTreeMap<String, Option<u32>>,
    /// Files that are to go and could not be removed, each with the reason.
    unremoved: BTreeMap<String, String>,
    /// What is to be done because of what was read.
    later: Vec<Step>,
    failures: bool,
}

impl Store {
    /// Opens `state/` in the run directory.
    pub fn open(run_dir: &Path) -> io::Result<Store> {
        let dir = run_dir.join("state");
        fs::create_dir_all(&dir)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Store {
            dir,
            boot_id,
            netns: fs::metadata("/proc/thread-self/ns/net")?.ino(),
            written: BTreeMap::new(),
            files: BTreeMap::new(),
            unremoved: BTreeMap::new(),
            later: Vec::new(),
            failures: false,
        })
    }

    /// The boot that a new state belongs to.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The network namespace of the bonds: the inode number of the agent's.
    pub fn netns(&self) -> u64 {
        self.netns
    }

    /// To be written: the ports that bonds have left behind.
    pub fn left(&self, ports: &BTreeMap<PortId, LeftPort>) -> Work {
        let file = FileLeft {
            boot_id: self.boot_id.clone(),
            netns: self.netns,
            ports: values_into(ports.clone()),
        };
        let text = || serde_json::to_string(&file).expect("it is plain data");
        self.work([Step::Left((!ports.is_empty()).then(text))])
    }

    fn work(&self, steps: impl IntoIterator<Item = Step>) -> Work {
        Work {
            folder: self.dir.clone(),
            steps: steps.into_iter().collect(),
        }
    }

    fn log_failure(&mut self, path: &Path, written: &io::Result<()>) {
        let first = !std::mem::replace(&mut self.failures, written.is_err());
        if let Err(error) = written
            && first
        {
            log::error!(
                "cannot write {}: {}; a restart would forget what it holds",
                path.display(),
                why(error)
            );
        }
    }

    /// Writes a state if it changed. Then the files under earlier names of its bond go.
    ///
    /// # Errors
    /// As [`Store::note`].
    pub fn save(&mut self, state: &SavedBond, may_wait: &mut impl MayWait) -> io::Result<()> {
        match self.change(state) {
            Change::Nothing => Ok(()),
            Change::Text(path, text) => {
                let written = replace(&path, &text, may_wait);
                self.note_written(&path, &written);
                written
            }
            Change::Files(work) => self.note(work.carry_out(may_wait)),
        }
    }

    /// What is to be written for a state. A [`Change::Text`] counts as written, until [`Store::note_written`] says otherwise.
    pub fn change(&mut self, state: &SavedBond) -> Change {
        let text = to_text(state);
        if self.files.get(&state.name) != Some(&Some(state.ifindex)) {
            let write = Step::Write {
                file: state.name.clone(),
                ifindex: state.ifindex,
                text,
            };
            let room = self.room_for(&state.name, state.ifindex);
            let old = self.removals(|file, of| of == Some(state.ifindex) && file != state.name);
            return Change::Files(self.work(room.into_iter().chain([write]).chain(old)));
        }
        if self.written.get(&state.name) == Some(&text) {
            return Change::Nothing;
        }
        self.written.insert(state.name.clone(), text.clone());
        Change::Text(self.path(&state.name), text)
    }

    /// Takes note of what was done. Files that cannot be removed are removed again later; see [`Store::has_unremoved`].
    ///
    /// # Errors
    /// Something cannot be written. The first of several such failures in a row is logged.
    pub fn note(&mut self, done: Done) -> io::Result<()> {
        let mut outcome = Ok(());
        for (step, done) in done.0 {
            match step {
                Step::Rename { from, to } if done.is_ok() => {
                    let of = self.files.remove(&from).flatten();
                    self.files.insert(to, of);
                    self.written.remove(&from);
                }
                Step::Rename { from, .. } => {
                    self.log_failure(&self.path(&from), &done);
                    outcome = done;
                }
                Step::Write { file, ifindex, text } => {
                    self.log_failure(&self.path(&file), &done);
                    if done.is_ok() {
                        self.unremoved.remove(&file);
                        self.files.insert(file.clone(), Some(ifindex));
                        self.written.insert(file, text);
                    }
                    outcome = done;
                }
                Step::Remove { file } => self.note_removed(file, done),
                Step::SetAside { file } => self.log_failure(&self.path(&file), &done),
                Step::Discard { path, .. } => self.log_failure(&path, &done),
                Step::SetLeftAside => self.log_failure(&self.dir.join(LEFT), &done),
                Step::Left(_) => {
                    self.log_failure(&self.dir.join(LEFT), &done);
                    outcome = done;
                }
            }
        }
        outcome
    }

    /// A [`Change::Text`] could not be written, which is logged as by [`Store::save`], or could be written after that. Returns the
    /// interface of the bond whose state is not written.
    pub fn note_written(&mut self, path: &Path, written: &io::Result<()>) -> Option<u32> {
        self.log_failure(path, written);
        if written.is_ok() {
            return None;
        }
        let file = path.file_stem()?.to_str()?;
        self.written.remove(file);
        *self.files.get(file)?
    }

    /// The file that has a bond's name gets another one if it is the only one of another bond, which had this name before.
    fn room_for(&self, bond: &str, ifindex: u32) -> Option<Step> {
        let of = self.files.get(bond)?;
        if *of == Some(ifindex) || self.unremoved.contains_key(bond) {
            return None;
        }
        let mut free = (0..).map(|number: u32| format!("{bond}:{number}"));
        Some(Step::Rename {
            from: bond.to_owned(),
            to: free.find(|free| !self.files.contains_key(free))?,
        })
    }

    /// The file about one interface is about another one.
    pub fn is_of(&mut self, wrong: u32, ifindex: u32) {
        for of in self.files.values_mut().filter(|of| **of == Some(wrong)) {
            *of = Some(ifindex);
        }
    }

    /// To be removed: the states of bonds that are gone, by their interfaces.
    pub fn removal(&self, gone: &BTreeSet<u32>) -> Work {
        self.work(self.removals(|_, of| of.is_some_and(|of| gone.contains(&of))))
    }

    fn removals(&self, which: impl Fn(&str, Option<u32>) -> bool) -> Vec<Step> {
        let files = self.files.iter().filter(|(file, of)| which(file, **of));
        files.map(|(file, _)| Step::Remove { file: file.clone() }).collect()
    }

    /// A failure is logged once.
    fn note_removed(&mut self, file: String, done: io::Result<()>) {
        if let Err(error) = done {
            let path = self.path(&file);
            let why = why(&error);
            if self.unremoved.insert(file, why.clone()).is_none() {
                log::error!("cannot remove {}: {why}", path.display());
            }
            return;
        }
        self.unremoved.remove(&file);
        self.files.remove(&file);
        self.written.remove(&file);
    }

    /// Whether there are files that are to go and could not be removed.
    pub fn has_unremoved(&self) -> bool {
        !self.unremoved.is_empty()
    }

    /// They are to be removed again.
    pub fn unremoved_files(&self) -> Work {
        let files = self.unremoved.keys();
        self.work(files.map(|file| Step::Remove { file: file.clone() }))
    }

    /// Why the file of a bond that is gone could not be removed.
    pub fn unremoved(&self, bond: &str) -> Option<&str> {
        self.unremoved.get(bond).map(String::as_str)
    }

    fn path(&self, file: &str) -> PathBuf {
        work::path(&self.dir, file)
    }
}

/// The bond whose name a file has, or had.
fn bond_of(file: &str) -> &str {
    file.split(':').next().unwrap_or(file)
}

/// The contents of the file of a state.
fn to_text(state: &SavedBond) -> String {
    serde_json::to_string(&FileBond::from(state.clone())).expect("a saved state is plain data")
}

#[cfg(test)]
mod tests {
    use bond_modes::{Bond, Machine, options};
    use bond_monitors::{Carrier, LinkReport, MacAddr, Time};

    use super::format::parse;
    use super::*;
    use crate::origins::Origins;

    /// May wait, as tests do.
    struct Tests;

    impl MayWait for Tests {}

    /// A file without origins.
    const BEFORE_ORIGINS: &str = r#"{"boot_id":"BOOT","name":"bond0","ifindex":7,"plane":"tc","bond":SAVED,
        "originals":{},"vanished":{},"wanted":["eth0","eth1"],"configured":[["mode","1"],["miimon","100"],["updelay","200"]]}"#;

    #[test]
    fn a_state_without_origins_is_read_and_everything_counts_as_the_operators() {
        let pairs = |text: &str| -> Vec<(String, String)> {
            let split = |word: &str| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
            text.split(' ').map(|word| split(word).unwrap()).collect()
        };
        let in_force = options::parse(&pairs("mode=1 miimon=50 updelay=200 num_grat_arp=3"))
            .unwrap()
            .options;
        let report = report();
        let change = options::parse(&pairs("mode=1 miimon=50 updelay=200 num_grat_arp=3")).unwrap();
        let bond = serde_json::to_string(&Bond::new(Time::ZERO, change, &report).saved()).unwrap();
        let text = BEFORE_ORIGINS.replace("SAVED", &bond);
        let state = parse(text.as_bytes()).unwrap();
        assert_eq!(state.origins, None);
        let origins = Origins::unknown(&in_force, state.configured.as_ref(), &state.wanted);
        // The files have miimon=100 and no num_grat_arp, so an operator set both.
        let operators: Vec<&str> = origins.operator_options.iter().map(String::as_str).collect();
        assert_eq!(operators, ["miimon", "num_grat_arp"]);
        assert!(origins.operator_ports.contains("eth0") && origins.operator_ports.contains("eth1"));
        assert!(!origins.made_by_file, "it would be removed when no file names it");
    }

    /// Every field of the file. The bond machine tests its own part.
    const COMPLETE: &str = include_str!("../../testdata/state-v1.json");

    #[test]
    fn the_complete_file_is_written_as_it_was_read() {
        let agents = |text: &str| {
            let mut file: serde_json::Value = serde_json::from_str(text).unwrap();
            file.as_object_mut().unwrap().remove("bond").unwrap();
            file
        };
        let written = to_text(&parse(COMPLETE.as_bytes()).unwrap());
        assert_eq!(agents(&written), agents(COMPLETE));
    }

    fn report() -> LinkReport {
        LinkReport {
            name: "bond0".to_owned(),
            admin_up: false,
            carrier: Carrier::Off,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            promisc: false,
            allmulti: false,
            speed: Default::default(),
            duplex: Default::default(),
        }
    }

    #[test]
    fn a_state_that_cannot_be_written_is_an_error_and_leaves_no_incomplete_file() {
        let dir = std::env::temp_dir().join(format!("bondd-saved-{}", std::process::id()));
        let mut store = Store::open(&dir).unwrap();
        let state = state(&store);
        // A file cannot be renamed to the name of a folder that is not empty.
        fs::create_dir_all(store.path("bond0").join("in the way")).unwrap();
        assert!(store.save(&state, &mut Tests).is_err());
        assert!(!store.path("bond0").with_extension("new").exists());
        fs::remove_dir_all(store.path("bond0")).unwrap();
        store.save(&state, &mut Tests).unwrap();
        assert_eq!(store.load(&mut Tests).unwrap().states, [state]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_renamed_bond_has_one_state_however_often_writing_fails() {
        let dir = std::env::temp_dir().join(format!("bondd-renamed-{}", std::process::id()));
        let mut store = Store::open(&dir).unwrap();
        let before = state(&store);
        store.save(&before, &mut Tests).unwrap();
        let after = SavedBond {
            name: "lan".to_owned(),
            wanted: vec!["eth0".to_owned()],
            ..before.clone()
        };
        let in_the_way = store.path("lan").join("in the way");
        fs::create_dir_all(&in_the_way).unwrap();
        assert!(store.save(&after, &mut Tests).is_err());
        assert!(store.path("bond0").exists(), "there is a state at any time");
        fs::remove_dir_all(store.path("lan")).unwrap();
        store.save(&after, &mut Tests).unwrap();
        assert!(!store.path("bond0").exists());
        // As if the agent had ended before it removed the file under the old name.
        fs::write(store.path("bond0"), to_text(&before)).unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options()
            .write(true)
            .open(store.path("bond0"))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert_eq!(store.load(&mut Tests).unwrap().states, [after]);
        let later = store.take_later();
        store.note(later.carry_out(&mut Tests)).unwrap();
        assert!(!store.path("bond0").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    fn state(store: &Store) -> SavedBond {
        let mode = [("mode".to_owned(), "1".to_owned())];
        SavedBond {
            boot_id: store.boot_id().to_owned(),
            netns: Some(store.netns()),
            name: "bond0".to_owned(),
            ifindex: 7,
            plane: None,
            bond: Bond::new(Time::ZERO, options::parse(&mode).unwrap(), &report()).saved(),
            originals: BTreeMap::new(),
            vanished: BTreeMap::new(),
            unrestored: BTreeMap::new(),
            wanted: Vec::new(),
            configured: None,
            origins: Some(Origins::default()),
        }
    }

    #[test]
    fn a_state_of_another_network_namespace_is_ignored_and_stays_until_its_name_is_needed() {
        let dir = std::env::temp_dir().join(format!("bondd-elsewhere-{}", std::process::id()));
        let mut store = Store::open(&dir).unwrap();
        let here = state(&store);
        let elsewhere = SavedBond {
            netns: Some(store.netns() + 1),
            ..here.clone()
        };
        fs::write(store.path("bond0"), to_text(&elsewhere)).unwrap();
        assert!(store.load(&mut Tests).unwrap().states.is_empty());
        assert_eq!(parse(&fs::read(store.path("bond0")).unwrap()).unwrap(), elsewhere);
        store.save(&here, &mut Tests).unwrap();
        assert_eq!(store.load(&mut Tests).unwrap().states.first(), Some(&here));
        // A file of an earlier version does not say where its bond is.
        let unsaid = SavedBond { netns: None, ..here };
        fs::write(store.path("bond0"), to_text(&unsaid)).unwrap();
        assert_eq!(store.load(&mut Tests).unwrap().states, [unsaid]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_holds_no_state_is_kept_under_another_name_and_what_cannot_be_read_is_not_taken_for_lost() {
        let dir = std::env::temp_dir().join(format!("bondd-unread-{}", std::process::id()));
        let mut store = Store::open(&dir).unwrap();
        fs::write(store.path("bond1"), b"{\xff").unwrap();
        // Reading a folder as a file fails.
        fs::create_dir(store.path("bond2.100")).unwrap();
        // These would never end.
        nix::unistd::mkfifo(&store.path("bond3"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::os::unix::fs::symlink("/dev/zero", store.path("bond4")).unwrap();
        fs::File::create(store.path("bond5")).unwrap().set_len(1 << 40).unwrap();
        let loaded = store.load(&mut Tests).unwrap();
        assert!(loaded.states.is_empty());
        let unread: Vec<&str> = loaded.unread.iter().map(|(bond, _)| bond.as_str()).collect();
        assert_eq!(unread, ["bond2.100", "bond3", "bond4", "bond5"]);
        for (bond, why) in &loaded.unread {
            let why = why.to_string();
            assert!(
                why.starts_with("it is ") && why.ends_with("remove it, or put it elsewhere"),
                "{bond}: {why}"
            );
        }
        let left = dir.join("state/left-ports");
        for path in [&store.path("bond6").with_extension("new"), &left] {
            fs::write(path, b"{").unwrap();
        }
        assert!(store.has_later() && store.path("bond1").exists(), "nothing is written");
        store.load(&mut Tests).unwrap();
        let later = store.take_later();
        store.note(later.carry_out(&mut Tests)).unwrap();
        assert_eq!(fs::read(dir.join("state/bond1.unreadable")).unwrap(), b"{\xff");
        assert_eq!(fs::read(dir.join("state/left-ports.unreadable")).unwrap(), b"{");
        assert!(!left.exists() && !store.path("bond1").exists() && !store.path("bond6").with_extension("new").exists());
        assert!(store.unread("bond6").is_none() && store.unread("bond2.100").is_some());
        fs::remove_dir_all(&dir).unwrap();
        assert!(store.load(&mut Tests).is_err(), "no folder is not the same as no bonds");
    }
}
