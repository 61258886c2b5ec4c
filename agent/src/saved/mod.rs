//! `state/<bond>.json`: soft state across restarts, that is, state that the kernel does not hold. It is worthless after a
//! reboot.

mod bond;
mod format;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::bond::SavedBond;
use self::format::FileBond;

/// What the folder holds when an agent starts.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The states of this boot, oldest bond first.
    pub states: Vec<SavedBond>,
    /// Names of bonds whose files cannot be read for now, each with the error; [`Store::read`] tries again.
    pub unread: Vec<(String, io::Error)>,
}

/// The folder of state files.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    boot_id: String,
    /// Contents of each file, so that an unchanged state is not written again.
    written: BTreeMap<String, String>,
    /// Earlier names of renamed bonds, by the present one: their files go once there is one under the present name.
    earlier: BTreeMap<String, Vec<String>>,
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
            written: BTreeMap::new(),
            earlier: BTreeMap::new(),
            failures: false,
        })
    }

    /// The boot that a new state belongs to.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// All states; see [`Store::read`].
    ///
    /// # Errors
    /// The folder cannot be read. Its bonds must not be taken for bonds without a state.
    pub fn load(&self) -> io::Result<Loaded> {
        let entries = fs::read_dir(&self.dir)?;
        let entries = entries.map(|entry| Ok(entry?.path()));
        let mut paths = entries.collect::<io::Result<Vec<PathBuf>>>()?;
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "json"));
        paths.sort();
        let mut loaded = Loaded::default();
        for bond in paths.iter().filter_map(|path| path.file_stem()?.to_str()) {
            match self.read(bond) {
                Ok(state) => loaded.states.extend(state),
                Err(error) => loaded.unread.push((bond.to_owned(), error)),
            }
        }
        self.keep_latest(&mut loaded.states);
        Ok(loaded)
    }

    /// Of several states of one interface the one written last counts: its bond was renamed, and the agent could not remove the
    /// file under the earlier name.
    fn keep_latest(&self, states: &mut Vec<SavedBond>) {
        let written = |state: &SavedBond| {
            fs::metadata(self.path(&state.name))
                .and_then(|file| file.modified())
                .ok()
        };
        states.sort_by_key(|state| (state.ifindex, written(state)));
        let mut kept: Vec<SavedBond> = Vec::new();
        for state in states.drain(..) {
            if let Some(before) = kept.pop_if(|before| before.ifindex == state.ifindex) {
                log::warn!(
                    "{}: removing its saved state from before it was renamed to {}",
                    before.name,
                    state.name
                );
                let _ = fs::remove_file(self.path(&before.name));
            }
            kept.push(state);
        }
        *states = kept;
    }

    /// The state of a bond, if there is one of this boot. The file of an earlier boot is removed. One that holds no state gets
    /// another name, so that nothing overwrites it, and the log says which.
    ///
    /// # Errors
    /// The file is there and cannot be read. That may pass.
    pub fn read(&self, bond: &str) -> io::Result<Option<SavedBond>> {
        let path = self.path(bond);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match parse(&text) {
            Ok(state) if state.boot_id == self.boot_id => return Ok(Some(state)),
            Ok(_) => {
                // A state of another boot is invalid.
                let _ = fs::remove_file(&path);
            }
            Err(error) => {
                let kept = path.with_extension("unreadable");
                fs::rename(&path, &kept)?;
                log::error!(
                    "{}: not a saved state, ignored and kept as {}: {error}",
                    path.display(),
                    kept.display()
                );
            }
        }
        Ok(None)
    }

    /// Writes a state if it changed: whole, then renamed. The first of several failures in a row is logged.
    pub fn save(&mut self, state: &SavedBond) -> io::Result<()> {
        let text = to_text(state);
        if self.written.get(&state.name) == Some(&text) {
            return Ok(());
        }
        let path = self.path(&state.name);
        let temporary = path.with_extension("new");
        // The folder may have been removed.
        let written = fs::create_dir_all(&self.dir)
            .and_then(|()| fs::write(&temporary, &text))
            .and_then(|()| fs::rename(&temporary, &path));
        match &written {
            Ok(()) => {
                self.written.insert(state.name.clone(), text);
                self.failures = false;
                self.remove_earlier(&state.name);
            }
            Err(error) => {
                // Remove the incomplete file, which would use space on a full disk.
                let _ = fs::remove_file(&temporary);
                if !std::mem::replace(&mut self.failures, true) {
                    log::error!(
                        "cannot write {}: {error}; a restart would forget what it holds",
                        path.display()
                    );
                }
            }
        }
        written
    }

    /// A bond has another name. The file under the old one goes with the next state that is saved, so that there always is one.
    pub fn renamed(&mut self, old: &str, new: &str) {
        self.written.remove(old);
        let mut names = self.earlier.remove(old).unwrap_or_default();
        names.push(old.to_owned());
        names.retain(|name| name != new);
        self.earlier.insert(new.to_owned(), names);
    }

    /// Removes the files under earlier names of a bond, except one that another bond has written since.
    fn remove_earlier(&mut self, bond: &str) {
        for old in self.earlier.remove(bond).unwrap_or_default() {
            if !self.written.contains_key(&old) {
                self.remove(&old);
            }
        }
    }

    /// Removes the state of a bond that is gone.
    pub fn remove(&mut self, bond: &str) {
        self.remove_earlier(bond);
        self.written.remove(bond);
        let path = self.path(bond);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => log::error!("cannot remove {}: {e}", path.display()),
            _ => {}
        }
    }

    fn path(&self, bond: &str) -> PathBuf {
        self.dir.join(format!("{bond}.json"))
    }
}

/// Reads a file. Unknown fields are ignored, missing ones have a default.
fn parse(text: &[u8]) -> serde_json::Result<SavedBond> {
    serde_json::from_slice::<FileBond>(text).map(SavedBond::from)
}

/// The contents of the file of a state.
fn to_text(state: &SavedBond) -> String {
    serde_json::to_string(&FileBond::from(state.clone())).expect("a saved state is plain data")
}

#[cfg(test)]
mod tests {
    use bond_modes::{Bond, Machine, options};
    use bond_monitors::{Carrier, LinkReport, MacAddr, Time};

    use super::*;
    use crate::origins::Origins;

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
        assert!(store.save(&state).is_err());
        assert!(!store.path("bond0").with_extension("new").exists());
        fs::remove_dir_all(store.path("bond0")).unwrap();
        store.save(&state).unwrap();
        assert_eq!(store.load().unwrap().states, [state]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_renamed_bond_has_one_state_however_often_writing_fails() {
        let dir = std::env::temp_dir().join(format!("bondd-renamed-{}", std::process::id()));
        let mut store = Store::open(&dir).unwrap();
        let before = state(&store);
        store.save(&before).unwrap();
        let after = SavedBond {
            name: "lan".to_owned(),
            wanted: vec!["eth0".to_owned()],
            ..before.clone()
        };
        let in_the_way = store.path("lan").join("in the way");
        fs::create_dir_all(&in_the_way).unwrap();
        store.renamed("bond0", "lan");
        assert!(store.save(&after).is_err());
        assert!(store.path("bond0").exists(), "there is a state at any time");
        fs::remove_dir_all(store.path("lan")).unwrap();
        store.save(&after).unwrap();
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
        assert_eq!(store.load().unwrap().states, [after]);
        assert!(!store.path("bond0").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    fn state(store: &Store) -> SavedBond {
        let mode = [("mode".to_owned(), "1".to_owned())];
        SavedBond {
            boot_id: store.boot_id().to_owned(),
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
    fn what_holds_no_state_is_kept_under_another_name_and_what_cannot_be_read_is_not_taken_for_lost() {
        let dir = std::env::temp_dir().join(format!("bondd-unread-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        fs::write(store.path("bond1"), b"{\xff").unwrap();
        // Reading a folder as a file fails.
        fs::create_dir(store.path("bond2.100")).unwrap();
        let loaded = store.load().unwrap();
        assert!(loaded.states.is_empty());
        let unread: Vec<&str> = loaded.unread.iter().map(|(bond, _)| bond.as_str()).collect();
        assert_eq!(unread, ["bond2.100"]);
        assert_eq!(fs::read(dir.join("state/bond1.unreadable")).unwrap(), b"{\xff");
        assert_eq!(store.read("bond3").unwrap(), None);
        fs::remove_dir_all(&dir).unwrap();
        assert!(store.load().is_err(), "no folder is not the same as no bonds");
    }
}
