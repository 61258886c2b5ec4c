//! Monitoring programs as their distribution ships them, pointed at the status files: each must report a bond rightly while it is
//! whole, while one port is down, and while all are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bondd_tests::bins::{bin, client, root};
use bondd_tests::daemon::{refused, succeeded};
use bondd_tests::machine::Machine;
use bondd_tests::netns::unique;
use bondd_tests::{BondAndSwitch, Netns, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Folders of the libraries that the programs brought along.
fn libraries() -> OsString {
    let below = |folder: &str| {
        fs::read_dir(root().join("target/clients").join(folder))
            .into_iter()
            .flatten()
            .flatten()
    };
    let folders = below("usr/lib").chain(below("lib")).map(|entry| entry.path());
    let folders = folders.filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    std::env::join_paths(folders).expect("no path has a colon")
}

/// A file that is shipped with bondd.
fn shipped(name: &str) -> PathBuf {
    root().join("packaging").join(name)
}

/// A command in the bond's namespace for which bondd's files lie over the kernel's.
fn over_the_kernels(bench: &BondAndSwitch, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", bench.host.netns.name()])
        .arg(shipped("bondd-trees"))
        .arg(program)
        .env("BONDD_RUN_DIR", bench.host.daemon.dir());
    command
}

fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {:?}: {e}", command.get_program()));
    succeeded(&format!("{command:?}"), output)
}

/// Exit status and standard output of a monitoring plugin.
fn answer_of(plugin: &mut Command) -> (i32, String) {
    let output = plugin.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {:?}: {e}", plugin.get_program()));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{plugin:?}");
    let code = output.status.code().expect("no signal ends it");
    (code, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks a client until it says what it must: healthy, with the first port dead, with both dead, and healthy again.
#[track_caller]
fn in_every_state<T: PartialEq + std::fmt::Debug>(
    bench: &BondAndSwitch,
    wanted: [T; 4],
    ask: impl Fn(&BondAndSwitch) -> T,
) {
    let [first, second] = &bench.cables;
    let steps: [(&str, &dyn Fn()); 4] = [
        ("healthy", &|| {}),
        ("one port down", &|| first.pull()),
        ("all down", &|| second.pull()),
        ("healthy again", &|| {
            first.plug();
            second.plug();
        }),
    ];
    for ((state, reach), wanted) in steps.into_iter().zip(wanted) {
        reach();
        let mut said = None;
        let right = until(LIMIT, || {
            let now = ask(bench);
            let right = now == wanted;
            said = Some(now);
            right.then_some(())
        });
        println!("{state}: {said:?}");
        assert!(right.is_some(), "{state}: {said:?}, expected {wanted:?}");
    }
}

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which wait tells as well.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A daemon of the link layer discovery protocol.
struct Lldpd {
    dir: PathBuf,
    _server: Server,
}

impl Lldpd {
    /// On these interfaces of a namespace.
    fn start(netns: &Netns, interfaces: &str) -> Lldpd {
        let dir = std::env::temp_dir().join(unique("lldpd"));
        fs::create_dir(&dir).expect("/tmp takes a folder");
        fs::write(dir.join("conf"), SETTINGS).expect("the new folder takes a file");
        let mut command = netns.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-e", "-c", WITH_ITS_USER])
            .arg(client("usr/sbin/lldpd"))
            .args(["-d", "-I", interfaces, "-L"])
            .arg(client("usr/sbin/lldpcli"))
            .arg("-O")
            .arg(dir.join("conf"))
            .arg("-u")
            .arg(dir.join("socket"))
            .env("LD_LIBRARY_PATH", libraries())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log")).expect("the new folder takes a file"));
        let server = Server(command.spawn().expect("unshare can be run"));
        Lldpd { dir, _server: server }
    }

    /// Its interfaces and which one each is connected to.
    fn neighbours(&self) -> BTreeMap<String, String> {
        let mut command = Command::new(client("usr/sbin/lldpcli"));
        command
            .env("LD_LIBRARY_PATH", libraries())
            .arg("-u")
            .arg(self.dir.join("socket"));
        let output = command
            .args(["-f", "json0", "show", "neighbors"])
            .output()
            .expect("it can be run");
        // Not before it listens.
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let interfaces = answer["lldp"][0]["interface"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pair = |seen: &Value| (text(&seen["name"]), text(&seen["port"][0]["id"][0]["value"]));
        interfaces.iter().map(pair).collect()
    }
}

impl Drop for Lldpd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of lldpd ---\n{}",
                fs::read_to_string(self.dir.join("log")).unwrap_or_default()
            );
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Ports of a bond share its address, so they go by their names.
const SETTINGS: &str = "configure lldp portidsubtype ifname\nconfigure lldp tx-interval 1\n";

/// Runs lldpd as if it were installed: with a user and a folder of its own.
const WITH_ITS_USER: &str = "
    mount -t tmpfs lldpd /mnt
    for file in passwd group; do cp /etc/$file /mnt/$file; done
    echo '_lldpd:x:64999:64999::/run/lldpd:/bin/false' >>/mnt/passwd
    echo '_lldpd:x:64999:' >>/mnt/group
    for file in passwd group; do mount --bind /mnt/$file /etc/$file; done
    mount -t tmpfs lldpd /run
    mkdir /run/lldpd
    exec \"$0\" \"$@\"
";

/// Reads what check_linux_bonding does, which no archive has: it cuts the last character of a file off, whatever that is, and
/// takes only `up` for up.
const NAGIOS: &str = r#"
    cd /sys/class/net
    text() { sed -z 's/.$//' "$1"; }
    state() { [ "$(text "$1/operstate")" = up ] && echo up || echo down; }
    code=0 said=
    for bond in $(text bonding_masters); do
        [ "$(text "$bond/bonding/mode")" = 'active-backup 1' ] && [ "$(text "$bond/bonding/primary")" = eth0 ] || exit 3
        said="$said $bond $(state "$bond")"
        [ "$(state "$bond")" = up ] || code=2
        active=$(text "$bond/bonding/active_slave")
        for port in $(text "$bond/bonding/slaves"); do
            state=$(state "$bond/lower_$port")
            mark=; [ "$port" != "$active" ] || mark='*'
            said="$said $port$mark $state"
            [ "$state" = up ] || [ $code != 0 ] || code=1
        done
    done
    set -- OK WARNING CRITICAL
    shift $code
    echo "$1:$said"
    exit $code
"#;

#[test]
fn prometheus_node_exporter_counts_slaves_and_active_ones() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let netns = &bench.host.netns;
    let mut exporter = netns.command(client("usr/bin/prometheus-node-exporter"));
    exporter
        .arg(format!("--path.sysfs={}/sys", bench.host.daemon.dir().display()))
        .args([
            "--collector.disable-defaults",
            "--collector.bonding",
            "--collector.netclass",
        ])
        .args(["--web.listen-address=127.0.0.1:9100"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _server = Server(exporter.spawn().expect("it can be run"));
    let metrics = || {
        let fetch = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect("127.0.0.1:9100")?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        netns.enter(fetch).unwrap_or_default()
    };
    let names = [
        "node_bonding_slaves{master=\"bond0\"}",
        "node_bonding_active{master=\"bond0\"}",
        "node_network_up{device=\"bond0\"}",
        "node_network_up{device=\"eth0\"}",
        "node_network_speed_bytes{device=\"bond0\"}",
        "node_scrape_collector_success{collector=\"bonding\"}",
        "node_scrape_collector_success{collector=\"netclass\"}",
    ];
    let speed = "1.25e+09";
    let wanted = [
        ["2", "2", "1", "1", speed, "1", "1"],
        ["2", "1", "1", "0", speed, "1", "1"],
        ["2", "0", "0", "0", "-125000", "1", "1"],
        ["2", "2", "1", "1", speed, "1", "1"],
    ];
    in_every_state(&bench, wanted.map(|values| values.map(str::to_owned)), |_| {
        let text = metrics();
        names.map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        })
    });
}

#[test]
fn ansibles_facts_tell_the_bond_its_ports_and_who_is_up() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let arguments = bench.host.daemon.dir().join("setup.json");
    let network = json!({"ANSIBLE_MODULE_ARGS": {"gather_subset": ["!all", "!min", "network"]}});
    fs::write(&arguments, network.to_string()).expect("the run dir takes a file");
    let facts = |bench: &BondAndSwitch| {
        let mut setup = over_the_kernels(bench, Path::new("python3"));
        setup
            .args(["-m", "ansible.modules.setup"])
            .arg(&arguments)
            .env("PYTHONPATH", client("usr/lib/python3/dist-packages"));
        let answer: Value = serde_json::from_str(printed(&mut setup).trim()).expect("a module prints JSON");
        answer["ansible_facts"].clone()
    };
    let permanent = bench.host.daemon.port("bond0", "eth1")["permanent_mac"].clone();
    let wanted = |bond: bool, first: bool, second: bool| {
        json!({
            "type": "bonding", "mode": "active-backup", "miimon": "100", "lacp_rate": "slow", "slaves": ["eth0", "eth1"],
            "active": [bond, first, second], "perm_macaddress": permanent, "mtu": 1500,
        })
    };
    let states = [
        wanted(true, true, true),
        wanted(true, false, true),
        wanted(false, false, false),
        wanted(true, true, true),
    ];
    in_every_state(&bench, states, |bench| {
        let facts = facts(bench);
        let (bond, first, second) = (&facts["ansible_bond0"], &facts["ansible_eth0"], &facts["ansible_eth1"]);
        json!({
            "type": bond["type"], "mode": bond["mode"], "miimon": bond["miimon"], "lacp_rate": bond["lacp_rate"],
            "slaves": bond["slaves"], "active": [bond["active"], first["active"], second["active"]],
            "perm_macaddress": second["perm_macaddress"], "mtu": bond["mtu"],
        })
    });
}

#[test]
fn munin_finds_the_bond_and_counts_failures_of_its_ports() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let plugin = bench.host.daemon.dir().join("bonding_err_bond0");
    symlink(client("usr/share/munin/plugins/bonding_err_"), &plugin).expect("the run dir takes a link");
    let ask = |bench: &BondAndSwitch, words: &[&str]| {
        let mut munin = over_the_kernels(bench, &plugin);
        printed(munin.args(words).env("MUNIN_LIBDIR", client("usr/share/munin")))
    };
    assert_eq!(ask(&bench, &["suggest"]), "bond0\n");
    let config = ask(&bench, &["config"]);
    assert!(
        config.contains("if_eth0.label eth0\n") && config.contains("if_eth1.label eth1\n"),
        "{config}"
    );
    let values = |first: u32, second: u32| format!("if_eth0.value {first}\nif_eth1.value {second}\n");
    in_every_state(
        &bench,
        [values(0, 0), values(1, 0), values(1, 1), values(1, 1)],
        |bench| ask(bench, &[]),
    );
}

#[test]
fn zabbix_reads_its_items_with_the_parameters_that_are_shipped() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let dir = bench.host.daemon.dir();
    let parameters = fs::read_to_string(shipped("zabbix-bondd.conf")).expect("it is shipped");
    let config = dir.join("zabbix.conf");
    let text = format!(
        "Server=127.0.0.1\nLogFile={dir}/zabbix.log\n{}",
        parameters.replace("/run/bondd", &dir.display().to_string()),
        dir = dir.display()
    );
    fs::write(&config, text).expect("the run dir takes a file");
    let item = |key: &str| {
        let mut agent = Command::new(client("usr/sbin/zabbix_agentd"));
        agent.env("LD_LIBRARY_PATH", libraries());
        let text = printed(agent.arg("-c").arg(&config).args(["-t", key]));
        // `key   [t|value]`, the type by one letter; both key and value may have brackets.
        let value = text.trim_end().strip_suffix(']').and_then(|text| text.rsplit_once('|'));
        value.map_or("", |(_, value)| value).to_owned()
    };
    let status = dir.join("proc/net/bonding/bond0");
    let own = format!("vfs.file.regexp[{},\"^MII Status: (.*)$\",,,,\\1]", status.display());
    let keys = [
        "bondd.discovery",
        "bondd.up[bond0]",
        "bondd.ports[bond0]",
        "bondd.ports.up[bond0]",
        "bondd.active[bond0]",
        "bondd.failures[bond0]",
        &own,
    ];
    let wanted = |values: [&str; 6]| [&["[{\"{#BOND}\":\"bond0\"}]"], &values[..]].concat().join(" ");
    let states = [
        wanted(["1", "2", "2", "eth0", "0", "up"]),
        wanted(["1", "2", "1", "eth1", "1", "up"]),
        wanted(["0", "2", "0", "", "2", "down"]),
        wanted(["1", "2", "2", "eth0", "2", "up"]),
    ];
    in_every_state(&bench, states, |_| keys.map(item).join(" "));
}

#[test]
fn the_section_for_checkmk_has_what_its_check_parses() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let section = |bench: &BondAndSwitch| {
        let mut plugin = Command::new(shipped("checkmk-bondd"));
        let text = printed(plugin.env("BONDD_RUN_DIR", bench.host.daemon.dir()));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("<<<lnx_bonding:sep(58)>>>"));
        assert_eq!(lines.next(), Some("==> ./bond0 <=="));
        for (key, count) in [
            ("Bonding Mode", 1),
            ("Primary Slave", 1),
            ("Link Failure Count", 2),
            ("Permanent HW addr", 2),
        ] {
            let values = text
                .lines()
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            assert_eq!(
                values.filter(|value| !value.is_empty()).count(),
                count,
                "{key} in {text}"
            );
        }
        let status = |line: &str| line.strip_prefix("MII Status: ").map(str::to_owned);
        lines.filter_map(status).collect::<Vec<_>>().join(" ")
    };
    in_every_state(
        &bench,
        ["up up up", "up down up", "down down down", "up up up"].map(str::to_owned),
        section,
    );

    let mut no_agent = Command::new(shipped("checkmk-bondd"));
    assert_eq!(
        printed(no_agent.env("BONDD_RUN_DIR", "/nonexistent")),
        "",
        "nothing where there is no bondd"
    );
}

#[test]
fn nagios_is_told_by_bondctl_health() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let health = |bench: &BondAndSwitch| {
        let mut check = Command::new(bin("bondctl"));
        check
            .env("BONDD_RUN_DIR", bench.host.daemon.dir())
            .args(["health", "bond0"]);
        answer_of(&mut check)
    };
    let states = [
        (
            0,
            "BOND OK - bond0: 2 of 2 ports up, active eth0 | 'bond0'=2;2:;1:;0;2\n",
        ),
        (
            1,
            "BOND WARNING - bond0 eth0 is down: 1 of 2 ports up, active eth1 | 'bond0'=1;2:;1:;0;2\n",
        ),
        (
            2,
            "BOND CRITICAL - bond0 has no carrier, eth0 is down, eth1 is down: 0 of 2 ports up | 'bond0'=0;2:;1:;0;2\n",
        ),
        (
            0,
            "BOND OK - bond0: 2 of 2 ports up, active eth0 | 'bond0'=2;2:;1:;0;2\n",
        ),
    ];
    in_every_state(&bench, states.map(|(code, text)| (code, text.to_owned())), health);

    let mut no_agent = Command::new(bin("bondctl"));
    let (code, text) = answer_of(no_agent.env("BONDD_RUN_DIR", "/nonexistent").arg("health"));
    assert_eq!(code, 3, "{text}");
    assert!(
        text.starts_with("BOND UNKNOWN - no bondd answers at /nonexistent"),
        "{text}"
    );
    // What is wrong with the check says nothing of a bond.
    for words in ["health bond0 bond1", "health --critical 1"] {
        let output = Command::new(bin("bondctl")).args(words.split(' ')).output();
        let (code, said) = refused(&output.expect("bondctl can be run"));
        assert_eq!(code, 3, "{words}: {said}");
        assert!(said.contains("unexpected argument"), "{words}: {said}");
    }
}

#[test]
fn a_nagios_check_that_reads_the_kernels_files_is_told_as_much() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100 primary=eth0");
    let states = [
        (0, "OK: bond0 up eth0* up eth1 up\n"),
        (1, "WARNING: bond0 up eth0 down eth1* up\n"),
        (2, "CRITICAL: bond0 down eth0 down eth1 down\n"),
        (0, "OK: bond0 up eth0* up eth1 up\n"),
    ];
    in_every_state(&bench, states.map(|(code, said)| (code, said.to_owned())), |bench| {
        answer_of(over_the_kernels(bench, Path::new("sh")).args(["-eu", "-c", NAGIOS]))
    });
}

#[test]
fn lldpd_tells_on_each_port_what_it_is_connected_to_and_the_switch_likewise() {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let host = Lldpd::start(&bench.host.netns, "eth0,eth1");
    let switch = Lldpd::start(&bench.switch.netns, "p0,p1");
    let cables = |cables: &[(&str, &str)]| -> [BTreeMap<String, String>; 2] {
        let from_host = cables.iter().map(|(eth, p)| ((*eth).to_owned(), (*p).to_owned()));
        let from_switch = cables.iter().map(|(eth, p)| ((*p).to_owned(), (*eth).to_owned()));
        [from_host.collect(), from_switch.collect()]
    };
    let both = [("eth0", "p0"), ("eth1", "p1")];
    let states = [cables(&both), cables(&both[1..]), cables(&[]), cables(&both)];
    in_every_state(&bench, states, |_| [host.neighbours(), switch.neighbours()]);
}

/// How long a client may take to see a change, in all its attempts; each starts a program, some of them a slow one.
const LIMIT: Duration = Duration::from_secs(30);
