//! A machine of Debian whose interfaces file is read by the real ifupdown, with the hook that is shipped here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::bins::{bin, client, root};
use crate::daemon::{Daemon, LIMIT, refused, succeeded};
use crate::machine::Machine;
use crate::netns::{Cable, Netns, Switch, unique};
use crate::proof::{PortState, link_names, pins};
use crate::wait::until;

/// A machine of Debian with an agent without bonds, and two interfaces to a switch that answers at 192.0.2.254.
pub struct Debian {
    /// Has no bonds at the beginning.
    pub daemon: Daemon,
    /// Where all this is.
    pub netns: Netns,
    /// Has its /etc/network, /run and programs.
    pub dir: PathBuf,
    _cables: [Cable; 2],
    _switch: Switch,
    _machine: Machine,
}

/// All state that a bond may leave behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    links: BTreeSet<String>,
    ports: Vec<PortState>,
    addresses: Vec<String>,
    /// In the run directory, but for pins.
    files: BTreeSet<PathBuf>,
    pins: Vec<PathBuf>,
    ifstate: String,
}

impl Debian {
    /// With the agent running, and ports that are down.
    #[track_caller]
    pub fn new(machine: Machine) -> Debian {
        let (netns, switch) = (Netns::new("host"), Switch::new());
        switch.netns.ip("addr add 192.0.2.254/24 dev br0");
        let cables = [("eth0", "p0"), ("eth1", "p1")].map(|(name, port)| switch.connect(&netns, name, port));
        for port in PORTS {
            netns.ip(&format!("link set {port} down"));
        }
        let dir = std::env::temp_dir().join(unique("debian"));
        for folder in ["network", "run/network", "run/bondd", "programs"] {
            fs::create_dir_all(dir.join(folder)).expect("/tmp takes a folder");
        }
        for program in ["ifup", "ifdown", "ifquery"] {
            symlink(client(&format!("sbin/{program}")), dir.join("programs").join(program)).expect("it takes a link");
        }
        install_hook(&dir.join("network"));
        Debian {
            daemon: Daemon::start(&netns),
            netns,
            dir,
            _cables: cables,
            _switch: switch,
            _machine: machine,
        }
    }

    /// Writes the interfaces file.
    pub fn interfaces(&self, text: &str) {
        fs::write(self.dir.join("network/interfaces"), text).expect("the folder takes a file");
    }

    /// One shell session of an administrator.
    pub fn session(&self, script: &str) -> Output {
        let output = self.shell(script).output();
        output.unwrap_or_else(|e| panic!("cannot run unshare: {e}"))
    }

    /// The same, to be run.
    pub fn shell(&self, script: &str) -> Command {
        let mut shell = self.netns.command("unshare");
        shell
            .args(["--mount", "--propagation", "private", "sh", "-e", "-c", AS_INSTALLED])
            .arg(&self.dir)
            .arg(self.daemon.dir())
            .arg(script)
            .stdin(Stdio::null());
        shell
    }

    /// What a session printed that must succeed.
    #[track_caller]
    pub fn does(&self, script: &str) -> String {
        succeeded(script, self.session(script))
    }

    /// As they are now.
    pub fn traces(&self) -> Traces {
        let mut files = BTreeSet::new();
        files_below(self.daemon.dir(), &mut files);
        files.retain(|path| !path.starts_with(self.daemon.dir().join("bpf")));
        let addresses = PORTS.map(|port| self.netns.ip(&format!("-br addr show dev {port}")));
        Traces {
            links: link_names(&self.netns),
            ports: PORTS.iter().map(|port| PortState::of(&self.netns, port)).collect(),
            addresses: addresses.map(|line| line.split_whitespace().skip(2).collect()).into(),
            files,
            pins: pins(&self.netns, self.daemon.dir(), self.daemon.pid()),
            ifstate: self.does("ifquery --state || true"),
        }
    }

    /// The session succeeds with these words on standard error, one a line, and nothing else.
    #[track_caller]
    pub fn up(&self, command: &str, words: &[&str]) {
        let output = self.session(command);
        let said = refused(&output).1;
        println!("$ {command}\n{said}");
        assert!(output.status.success(), "{command}: {said}");
        says(command, &said, words);
    }

    /// Checks that the session left no state behind.
    #[track_caller]
    pub fn down(&self, command: &str, before: &Traces) {
        self.does(command);
        let after = until(LIMIT, || Some(self.traces()).filter(|traces| traces == before));
        assert!(after.is_some(), "{command}: {:#?}\nexpected {before:#?}", self.traces());
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// As `make install` does it, for programs that lie elsewhere.
fn install_hook(network: &Path) {
    let shipped = fs::read_to_string(root().join("packaging/ifupdown-hook")).expect("there is a hook");
    assert_eq!(shipped.matches("/usr/sbin/bondctl").count(), 2, "{shipped}");
    let installed = shipped.replace("/usr/sbin/bondctl", bin("bondctl").to_str().expect("a plain path"));
    for folder in ["if-pre-up.d", "if-up.d", "if-down.d", "if-post-down.d"] {
        fs::create_dir(network.join(folder)).expect("the folder takes another");
        if folder != "if-down.d" {
            let path = network.join(folder).join("bondd");
            fs::write(&path, &installed).expect("the folder takes a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
    }
}

fn files_below(dir: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&entry.path(), files);
        } else {
            files.insert(entry.path());
        }
    }
}

/// One line for each of these words, and no other.
#[track_caller]
pub fn says(what: &str, said: &str, words: &[&str]) {
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines.len() == words.len() && words.iter().all(|word| lines.iter().any(|line| line.contains(word))),
        "{what}: {words:#?}, said {lines:#?}"
    );
}

/// Gives a shell the file system of a machine where all is installed, then runs the script.
const AS_INSTALLED: &str = r#"
    mount -t tmpfs none /mnt
    mkdir /mnt/etc /mnt/machine
    mount --bind /etc /mnt/machine
    for entry in /mnt/machine/*; do ln -s "$entry" /mnt/etc/; done
    rm -f /mnt/etc/network
    ln -s "$0/network" /mnt/etc/network
    mount --bind /mnt/etc /etc
    mount --bind "$0/programs" /usr/local/sbin
    mount --bind "$1" "$0/run/bondd"
    mount --rbind "$0/run" /run
    set +e
    PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
    eval "$2"
"#;

/// Its interfaces.
pub const PORTS: [&str; 2] = ["eth0", "eth1"];
