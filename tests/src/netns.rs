//! Network namespaces, and cables and a switch between them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// A network namespace of our own; the last clone dropped removes it.
#[derive(Clone, Debug)]
pub struct Netns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
}

impl Netns {
    /// Makes one with a unique name: `bdt-<pid>-<number>-<role>`. Loopback is up.
    pub fn new(role: &str) -> Netns {
        let name = unique(role);
        run(Command::new("ip").args(["netns", "add", &name]));
        let file = File::open(Path::new("/run/netns").join(&name)).expect("ip netns add has just made it");
        let inner = Arc::new(Inner { name, file });
        let netns = Netns { inner };
        netns.ip("link set lo up");
        netns
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Inode that identifies it, as in `ls -i /run/netns`.
    pub fn inode(&self) -> u64 {
        self.inner.file.metadata().expect("an open file has metadata").ino()
    }

    /// A command that will run in this namespace, everything else shared with us.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = self.inner.file.try_clone().expect("a descriptor to spare");
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(move || setns(&file, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from));
        }
        command
    }

    /// Runs a command here and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn exec(&self, words: &[&str]) -> String {
        run(self.command(words[0]).args(&words[1..]))
    }

    /// Runs a command here and returns its output, also after a failure.
    pub fn try_exec(&self, words: &[&str]) -> Output {
        let mut command = self.command(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
            .output()
            .unwrap_or_else(|e| panic!("cannot run {}: {e}", words[0]))
    }

    /// `ip -n` with the words of a line.
    #[track_caller]
    pub fn ip(&self, line: &str) -> String {
        run(Command::new("ip")
            .args(["-n", self.name()])
            .args(line.split_whitespace()))
    }

    /// One `ip -batch` with these lines: thousands of links in seconds.
    #[track_caller]
    pub fn batch(&self, lines: &str) {
        let mut hands = Hands::new(self);
        hands.tell(lines);
        hands.finish();
    }

    /// Like [`ip`](Netns::ip), but a refusal is an answer.
    pub fn try_ip(&self, line: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["-n", self.name()]).args(line.split_whitespace());
        command.output().is_ok_and(|output| output.status.success())
    }

    /// All links as `ip -j -d -s link` tells them.
    pub fn links(&self) -> Vec<Value> {
        let text = run(Command::new("ip").args(["-n", self.name(), "-j", "-d", "-s", "link", "show"]));
        let parsed: Value = serde_json::from_str(&text).expect("ip -j prints JSON");
        parsed.as_array().cloned().unwrap_or_default()
    }

    /// One link, if there is one of that name.
    pub fn link(&self, name: &str) -> Option<Value> {
        self.links().into_iter().find(|link| link["ifname"] == name)
    }

    /// Hardware address of a link.
    #[track_caller]
    pub fn mac(&self, link: &str) -> String {
        let link = self
            .link(link)
            .unwrap_or_else(|| panic!("{} has no {link}", self.name()));
        link["address"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether the link has carrier and is up.
    pub fn running(&self, link: &str) -> bool {
        self.link(link).is_some_and(|link| {
            link["flags"]
                .as_array()
                .is_some_and(|flags| flags.iter().any(|f| f == "LOWER_UP"))
        })
    }

    /// Runs a closure on a thread of its own inside the namespace: sockets, `/proc/sys/net` and sysfs' sockets belong to it there.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.join();
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace for good.
    pub fn join(&self) {
        setns(&self.inner.file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace of its own");
    }

    /// Value below `/proc/sys/net`.
    pub fn sysctl(&self, path: &str) -> String {
        let file = PathBuf::from("/proc/sys/net").join(path);
        self.enter(|| fs::read_to_string(&file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display())))
            .trim()
            .to_owned()
    }

    /// Sets a value below `/proc/sys/net`.
    pub fn set_sysctl(&self, path: &str, value: &str) {
        let file = PathBuf::from("/proc/sys/net").join(path);
        self.enter(|| fs::write(&file, value).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display())));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A failure cannot be reported, and must not hide the panic that may be unwinding.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// An `ip -batch` that waits for lines: what it is told is done at once, without a new process.
#[derive(Debug)]
pub struct Hands {
    ip: Child,
}

impl Hands {
    /// In this namespace.
    #[track_caller]
    pub fn new(netns: &Netns) -> Hands {
        let mut command = Command::new("ip");
        command.args(["-n", netns.name(), "-force", "-batch", "-"]);
        let ip = command.stdin(Stdio::piped()).spawn();
        Hands {
            ip: ip.unwrap_or_else(|e| panic!("cannot run ip: {e}")),
        }
    }

    /// Has a line done, or several; does not wait for it.
    ///
    /// # Panics
    /// When `ip` has ended.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        let lines = self.ip.stdin.as_mut().expect("it is piped");
        writeln!(lines, "{line}").expect("ip goes on after errors");
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.ip.id()
    }

    /// Waits until everything is done.
    ///
    /// # Panics
    /// When something failed.
    #[track_caller]
    fn finish(mut self) {
        drop(self.ip.stdin.take());
        let status = self.ip.wait().expect("it is ours");
        assert!(status.success(), "ip -batch: {status}");
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        drop(self.ip.stdin.take());
        let _ = self.ip.wait();
    }
}

/// A veth pair between two namespaces.
#[derive(Clone, Debug)]
pub struct Cable {
    near: (Netns, String),
    far: (Netns, String),
}

impl Cable {
    /// Plugs a new cable in: both ends up.
    pub fn new(near: &Netns, near_name: &str, far: &Netns, far_name: &str) -> Cable {
        let cable = Cable {
            near: (near.clone(), near_name.to_owned()),
            far: (far.clone(), far_name.to_owned()),
        };
        cable.create();
        cable
    }

    /// Makes the pair, anew after the ends were deleted.
    ///
    /// The two ends get different indexes: an end whose peer happens to have the same index in the other namespace looks to the
    /// kernel like a physical device, whose events are held back for up to a second. [link_watch.c: linkwatch_urgent_event]
    pub fn create(&self) {
        let index = NEXT_INDEX.fetch_add(2, Ordering::Relaxed);
        run(Command::new("ip")
            .args(["-n", self.near.0.name(), "link", "add", &self.near.1])
            .args([
                "index",
                &index.to_string(),
                "type",
                "veth",
                "peer",
                "name",
                &self.far.1,
                "index",
                &(index + 1).to_string(),
                "netns",
                self.far.0.name(),
            ]));
        self.near.0.ip(&format!("link set {} up", self.near.1));
        self.plug();
    }

    /// Takes the pair away.
    pub fn delete(&self) {
        self.near.0.ip(&format!("link del {}", self.near.1));
    }

    /// Takes carrier from the near end by putting the far one down.
    pub fn pull(&self) {
        self.far.0.ip(&format!("link set {} down", self.far.1));
    }

    /// Gives carrier back.
    pub fn plug(&self) {
        self.far.0.ip(&format!("link set {} up", self.far.1));
    }

    /// Name of the near end.
    pub fn near_name(&self) -> &str {
        &self.near.1
    }
}

/// A switch: a bridge in a namespace of its own, forwarding at once.
#[derive(Clone, Debug)]
pub struct Switch {
    /// Where the bridge `br0` is.
    pub netns: Netns,
}

impl Switch {
    /// A switch without cables.
    pub fn new() -> Switch {
        let netns = Netns::new("switch");
        // An address of its own: without one it has that of a port, and another when that port goes.
        netns.ip("link add br0 address 02:00:00:00:5b:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        netns.ip("link set br0 up");
        Switch { netns }
    }

    /// Connects `name` in `host` to a new switch port.
    pub fn connect(&self, host: &Netns, name: &str, port: &str) -> Cable {
        let cable = Cable::new(host, name, &self.netns, port);
        self.adopt(port);
        cable
    }

    /// Puts an interface of the switch into the bridge, for a cable that was made anew.
    pub fn adopt(&self, port: &str) {
        // A port of a switch does not send by itself.
        self.netns.set_sysctl(&format!("ipv6/conf/{port}/disable_ipv6"), "1");
        self.netns.ip(&format!("link set {port} master br0"));
    }

    /// Lets nothing through a port any more; its carrier stays.
    pub fn block(&self, port: &str) {
        self.netns
            .exec(&["bridge", "link", "set", "dev", port, "state", "disabled"]);
    }

    /// Lets frames through a port again.
    pub fn unblock(&self, port: &str) {
        self.netns
            .exec(&["bridge", "link", "set", "dev", port, "state", "forwarding"]);
    }
}

impl Default for Switch {
    fn default() -> Self {
        Switch::new()
    }
}

/// Runs a command to its end and returns its output.
///
/// # Panics
/// When it cannot be run or fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("cannot run {:?}: {e}", command.get_program()));
    if !output.status.success() {
        panic!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A name that is unique on this machine; too long for an interface.
pub fn unique(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "bdt-{}-{}-{role}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

static NEXT_INDEX: AtomicU32 = AtomicU32::new(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulled_cable_takes_carrier_from_the_near_end_only_until_it_is_plugged_back() {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        let cable = Cable::new(&a, "eth0", &b, "eth0");
        let limit = std::time::Duration::from_secs(2);
        crate::wait_for("carrier", limit, || a.running("eth0"));
        cable.pull();
        crate::wait_for("no carrier", limit, || !a.running("eth0"));
        cable.plug();
        crate::wait_for("carrier again", limit, || a.running("eth0"));
    }

    #[test]
    fn a_namespace_is_gone_with_its_last_clone() {
        let name = {
            let first = Netns::new("gone");
            let second = first.clone();
            drop(first);
            assert!(Path::new("/run/netns").join(second.name()).exists());
            second.name().to_owned()
        };
        assert!(!Path::new("/run/netns").join(name).exists());
    }
}
