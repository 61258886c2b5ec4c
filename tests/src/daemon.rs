//! A running `bondd` and its clients.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bondd::control::client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bins::bin;
use crate::control::Control;
use crate::netns::{Netns, unique};
use crate::wait::until;

/// Options for starting a daemon.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Words on its command line besides the run dir.
    pub args: Vec<String>,
    /// Text of its options file; none without one.
    pub config: Option<String>,
    /// By `ip netns exec`, which gives it a mount namespace and a fresh `/sys`, instead of only entering the network namespace.
    pub ip_netns_exec: bool,
}

impl Settings {
    /// With these words on its command line.
    pub fn args(args: &[&str]) -> Settings {
        Settings {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Settings::default()
        }
    }

    /// With an options file of this text.
    pub fn config(text: &str) -> Settings {
        Settings {
            config: Some(text.to_owned()),
            ..Settings::default()
        }
    }
}

/// One agent in a namespace, with a run dir of its own.
#[derive(Debug)]
pub struct Daemon {
    netns: Netns,
    dir: PathBuf,
    settings: Settings,
    /// Words that start it, before its own.
    prefix: Vec<String>,
    child: Option<Child>,
}

impl Daemon {
    /// Starts one and waits until it answers.
    #[track_caller]
    pub fn start(netns: &Netns) -> Daemon {
        Daemon::start_with(netns, Settings::default())
    }

    /// Starts one this way and waits until it answers.
    #[track_caller]
    pub fn start_with(netns: &Netns, settings: Settings) -> Daemon {
        let mut daemon = Daemon::prepare(netns, settings);
        daemon.launch();
        daemon
    }

    /// One that is not started yet.
    #[track_caller]
    pub fn prepare(netns: &Netns, settings: Settings) -> Daemon {
        let dir = PathBuf::from("/run").join(unique("run"));
        fs::create_dir_all(&dir).expect("root may write to /run");
        if let Some(text) = &settings.config {
            fs::write(dir.join("bondd.conf"), text).expect("the new folder takes a file");
        }
        Daemon {
            netns: netns.clone(),
            dir,
            settings,
            prefix: Vec::new(),
            child: None,
        }
    }

    /// Starts it again, after it was stopped, and waits until it has all its bonds and answers.
    #[track_caller]
    pub fn launch(&mut self) {
        let earlier = self.starts();
        self.spawn();
        let ready = until(START_LIMIT, || {
            (self.starts() > earlier && self.try_show().is_some())
                .then_some(true)
                .or_else(|| self.ended().then_some(false))
        });
        assert!(
            ready == Some(true),
            "bondd does not answer within {START_LIMIT:?}; its log:\n{}",
            self.log()
        );
    }

    /// How often it got ready.
    fn starts(&self) -> usize {
        self.log().matches("ready at ").count()
    }

    /// Starts it and does not wait until it answers.
    #[track_caller]
    pub fn spawn(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the run dir takes a file");
        self.spawn_with_log(log);
    }

    /// Starts it with this as its standard error, where [`log`](Daemon::log) does not look, and does not wait until it answers.
    #[track_caller]
    pub fn spawn_with_log(&mut self, log: impl Into<Stdio>) {
        assert!(self.child.is_none(), "it is running");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C is for the demo, which then stops the agent itself.
        command.process_group(0);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("cannot start bondd: {e}")));
    }

    /// The command line that starts it, to be run once more by tests of exactly that.
    pub fn command(&self) -> Command {
        let mut command = if self.settings.ip_netns_exec {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", self.netns.name()]).arg(bin("bondd"));
            command
        } else if let [program, words @ ..] = &self.prefix[..] {
            let mut command = self.netns.command(program);
            command.args(words).arg(bin("bondd"));
            command
        } else {
            self.netns.command(bin("bondd"))
        };
        command
            .arg("--run-dir")
            .arg(&self.dir)
            .args(["--log-level", "debug"])
            .args(&self.settings.args);
        if let Some(device) = env::var_os("BONDD_TEST_DEVICE").filter(|_| !self.chooses_what_bonds_are()) {
            command.arg("--tc-device").arg(device);
        }
        if self.settings.config.is_some() {
            command.arg("--config").arg(self.dir.join("bondd.conf"));
        }
        command
    }

    /// Whether its command line says what devices its bonds are, so that `BONDD_TEST_DEVICE` does not.
    fn chooses_what_bonds_are(&self) -> bool {
        let words = &self.settings.args;
        words.iter().any(|word| word == "--tc-device" || word == "clsact")
    }

    /// Limits later starts to these capabilities, such as `CAP_NET_ADMIN CAP_BPF`.
    pub fn limit(&mut self, capabilities: &str) {
        let kept = capabilities.split_whitespace().map(|name| {
            let name = name.trim_start_matches("CAP_").to_lowercase();
            format!(",+{name}")
        });
        let bounding_set = format!("-all{}", kept.collect::<String>());
        self.prefix = ["setpriv", "--no-new-privs", "--bounding-set", &bounding_set]
            .map(str::to_owned)
            .to_vec();
    }

    /// Gives later starts these limits of open descriptors, such as `64:128` for the soft and the hard one.
    pub fn limit_descriptors(&mut self, limits: &str) {
        self.prefix = vec!["prlimit".into(), format!("--nofile={limits}")];
    }

    /// Puts later starts into a mount namespace of their own, as `ip netns exec` does, from which nobody outside can be looked at:
    /// as in a container, after the script that started it has ended.
    pub fn enclose(&mut self) {
        let script = "umount -l /sys && mount -t sysfs sysfs /sys || exit 1; p=$PPID; while [ ${p:-1} -gt 1 ]; do \
                      next=$(sed -n 's/^PPid:[[:blank:]]*//p' /proc/$p/status); mount -t tmpfs none /proc/$p; p=$next; done; \
                      mount -t tmpfs none /proc/1; exec \"$@\"";
        let words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh"];
        self.prefix = words.map(str::to_owned).to_vec();
    }

    /// Where it runs.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its run dir.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").id()
    }

    /// Everything it logged, over all starts.
    pub fn log(&self) -> String {
        self.await_log();
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits a moment until the thread that writes its log has nothing to do: it has ordinary priority, so an answer of the agent may
    /// come before the lines that were logged earlier.
    fn await_log(&self) {
        let Some(child) = &self.child else { return };
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten();
        let busy = |stat: &str| stat.contains(" (bondd-log) ") && !stat.contains(" (bondd-log) S ");
        for task in tasks.flatten().map(|task| task.path().join("stat")) {
            let idle = || !fs::read_to_string(&task).is_ok_and(|stat| busy(&stat));
            until(Duration::from_secs(1), || idle().then_some(()));
        }
    }

    /// The whole lines that it logged after the first so many bytes, which become those up to there.
    pub fn log_from(&self, start: &mut u64) -> String {
        let mut news = Vec::new();
        if let Ok(mut log) = File::open(self.log_path()) {
            let _ = log
                .seek(SeekFrom::Start(*start))
                .and_then(|_| log.read_to_end(&mut news));
        }
        news.truncate(news.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        *start += news.len() as u64;
        String::from_utf8_lossy(&news).into_owned()
    }

    /// Gives later starts an options file of this text.
    pub fn configure(&mut self, text: &str) {
        fs::write(self.dir.join("bondd.conf"), text).expect("the run dir takes a file");
        self.settings.config = Some(text.to_owned());
    }

    /// Text of its status file for a bond.
    pub fn status_file(&self, bond: &str) -> String {
        let path = self.dir.join("proc/net/bonding").join(bond);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
    }

    /// Runs `bondctl` with these words.
    pub fn bondctl(&self, words: &[&str]) -> Output {
        self.client("bondctl", words)
    }

    /// Runs `bondctl`, which must succeed, and returns what it printed.
    #[track_caller]
    pub fn ctl(&self, line: &str) -> String {
        succeeded(line, self.bondctl(&line.split_whitespace().collect::<Vec<_>>()))
    }

    /// Runs `ifenslave` with these words.
    pub fn ifenslave(&self, words: &[&str]) -> Output {
        self.client("ifenslave", words)
    }

    /// Answer of `show`, straight from the control socket.
    #[track_caller]
    pub fn show(&self) -> Value {
        self.try_show()
            .unwrap_or_else(|| panic!("bondd does not answer `show`; its log:\n{}", self.log()))
    }

    /// One bond of [`show`](Daemon::show).
    #[track_caller]
    pub fn bond(&self, name: &str) -> Value {
        let bonds = self.show()["bonds"].take();
        let bond = bonds
            .as_array()
            .and_then(|bonds| bonds.iter().find(|bond| bond["name"] == name))
            .cloned();
        bond.unwrap_or_else(|| panic!("no {name} in {bonds}"))
    }

    /// One port of a bond.
    #[track_caller]
    pub fn port(&self, bond: &str, port: &str) -> Value {
        let bond = self.bond(bond);
        let port = bond["ports"]
            .as_array()
            .and_then(|ports| ports.iter().find(|p| p["name"] == port))
            .cloned();
        port.unwrap_or_else(|| panic!("no such port in {bond}"))
    }

    /// Name of the active port; empty for none.
    pub fn active(&self, bond: &str) -> String {
        self.bond(bond)["active_port"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until that port is the active one.
    #[track_caller]
    pub fn wait_active(&self, bond: &str, port: &str) {
        let seen = until(LIMIT, || (self.active(bond) == port).then_some(()));
        assert!(
            seen.is_some(),
            "{port} does not become active within {LIMIT:?}: {}",
            self.bond(bond)
        );
    }

    /// Waits until the port's link has that word.
    #[track_caller]
    pub fn wait_link(&self, bond: &str, port: &str, word: &str) {
        let seen = until(LIMIT, || (self.port(bond, port)["link"] == word).then_some(()));
        assert!(
            seen.is_some(),
            "{port} is not `{word}` within {LIMIT:?}: {}",
            self.bond(bond)
        );
    }

    /// Follows the events of all bonds from now on.
    pub fn monitor(&self) -> Monitor {
        Monitor::start(self)
    }

    /// Sends it a signal, by its number, that it is to survive.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[track_caller]
    pub fn poke(&self, signal: i32) {
        let kill = format!("kill -s {signal} {}", self.pid());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{kill}");
    }

    /// Kills it by SIGKILL.
    pub fn sigkill(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    /// Asks it to stop and waits until it has; says whether its exit status was 0.
    pub fn sigterm(&mut self) -> bool {
        self.signal(Signal::SIGTERM)
    }

    fn signal(&mut self, signal: Signal) -> bool {
        let Some(mut child) = self.child.take() else {
            return true;
        };
        let pid = Pid::from_raw(child.id() as i32);
        // It may have ended already, which wait tells as well.
        let _ = kill(pid, signal);
        let ended = until(LIMIT, || child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        ended.is_some_and(|status| status.success())
    }

    fn ended(&mut self) -> bool {
        let ended = self
            .child
            .as_mut()
            .is_some_and(|child| child.try_wait().ok().flatten().is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    /// Answer of `show`, if it answers.
    pub fn try_show(&self) -> Option<Value> {
        Control::connect(&self.socket())
            .ok()?
            .call(json!({"call": "show"}))
            .ok()?
            .ok()
    }

    fn client(&self, program: &str, words: &[&str]) -> Output {
        let mut command = self.netns.command(bin(program));
        command.args(words).env("BONDD_RUN_DIR", &self.dir).stdin(Stdio::null());
        command.output().unwrap_or_else(|e| panic!("cannot run {program}: {e}"))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Pins outlive the daemon on purpose; the namespace's deletion takes the devices, this the rest.
    fn forget_pins(&self) {
        let _ = fs::remove_dir_all(Path::new("/sys/fs/bpf/bondd").join(self.netns.inode().to_string()));
        let bpf = self.dir.join("bpf");
        for _ in 0..8 {
            let mut here = Command::new("umount");
            let mut outside = Command::new("nsenter");
            outside.args(["-t", "1", "-m", "umount"]);
            let unmounted = [&mut here, &mut outside].map(|umount| umount.arg(&bpf).output());
            if unmounted
                .iter()
                .all(|output| !output.as_ref().is_ok_and(|output| output.status.success()))
            {
                break;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if thread::panicking() {
            let mut err = std::io::stderr().lock();
            let _ = writeln!(
                err,
                "--- log of bondd in {} ---\n{}--- end of log ---",
                self.netns.name(),
                self.log()
            );
        }
        self.forget_pins();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Subscribed to the agent's events; ends with the agent.
pub struct Monitor {
    events: Arc<Mutex<Vec<Seen>>>,
}

/// An event and when its line was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// The event: `time`, `bond`, `text`, `notice`.
    pub event: Value,
}

impl Monitor {
    /// All later changes are received.
    fn start(daemon: &Daemon) -> Monitor {
        let client = Client::connect(&daemon.dir).unwrap_or_else(|e| panic!("{e}"));
        let heard = client.monitor(None).unwrap_or_else(|e| panic!("{e}"));
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        thread::spawn(move || {
            for mut line in heard.map_while(Result::ok) {
                let event = line["event"].take();
                sink.lock().expect("no reader panics").push(Seen {
                    at: Instant::now(),
                    event,
                });
            }
        });
        Monitor { events }
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Seen> {
        self.events.lock().expect("no reader panics").clone()
    }

    /// Waits for an event that the test accepts, among all that came since the monitor was started.
    pub fn wait(&self, limit: Duration, accept: impl Fn(&Value) -> bool) -> Option<Seen> {
        until(limit, || self.events().into_iter().find(|seen| accept(&seen.event)))
    }
}

/// Standard output of a client that must have succeeded.
#[track_caller]
pub fn succeeded(what: &str, output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Exit status and standard error of a client that was refused: one clear sentence.
#[track_caller]
pub fn refused(output: &Output) -> (i32, String) {
    let sentence = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    (output.status.code().unwrap_or(-1), sentence)
}

/// Longest start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for anything else.
pub const LIMIT: Duration = Duration::from_secs(5);
