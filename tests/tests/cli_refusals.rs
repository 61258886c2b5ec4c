//! Bad input: one clear sentence that names the object, the documented exit code, and nothing changed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bondd_tests::bins::{bin, root};
use bondd_tests::daemon::{LIMIT, refused};
use bondd_tests::machine::Machine;
use bondd_tests::netns::unique;
use bondd_tests::proof::{PortState, link_names};
use bondd_tests::{BondAndSwitch, Daemon, Netns, Settings, wait_for};

/// Runs `bondctl` and checks that it is refused as it should be: exit status, one line that has all the words, and a world that
/// is as before.
#[track_caller]
fn refuses(bench: &BondAndSwitch, line: &str, status: i32, words: &[&str]) {
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    let world = || {
        (
            settings(daemon),
            link_names(netns),
            ["eth0", "eth1", "spare"].map(|port| PortState::of(netns, port)),
        )
    };
    let before = world();
    let output = daemon.bondctl(&line.split_whitespace().collect::<Vec<_>>());
    check(line, &output, status, words);
    assert_eq!(world(), before, "bondctl {line} changed something");
}

#[track_caller]
fn check(what: &str, output: &Output, status: i32, words: &[&str]) {
    let (code, sentence) = refused(output);
    println!("{what}: {code}: {sentence}");
    assert_eq!(code, status, "{what}: {sentence}");
    for word in words {
        assert!(sentence.contains(word), "{what}: {word:?} is not in {sentence:?}");
    }
    if status != 2 {
        assert_eq!(sentence.lines().count(), 1, "{what}: {sentence}");
    }
    assert!(!sentence.contains("panicked"), "{sentence}");
}

/// `show` without what traffic changes.
fn settings(daemon: &Daemon) -> serde_json::Value {
    let mut show = daemon.show();
    for bond in show["bonds"].as_array_mut().expect("bonds") {
        // How often it is polled depends on how busy the machine is.
        bond["polled_every_ms"].take();
        // What the kernel does by itself comes a moment later.
        bond["failover"].take();
        for port in bond["ports"].as_array_mut().expect("ports") {
            for counter in ["tx_frames", "tx_bytes", "rx_frames", "rx_bytes", "rx_dropped"] {
                port[counter].take();
            }
        }
    }
    show
}

fn bench() -> BondAndSwitch {
    let bench = BondAndSwitch::new(Machine::shared(), "miimon=100");
    let netns = &bench.host.netns;
    netns.ip("link add spare type veth peer name other");
    bench.host.daemon.wait_active("bond0", "eth0");
    bench
}

#[test]
fn unknown_options_and_bad_values_are_refused_by_name() {
    let bench = bench();
    refuses(&bench, "set bond0 mimon 100", 1, &["mimon", "miimon"]);
    refuses(&bench, "add bond1 mode=active-backup mimon=100", 1, &["mimon"]);
    refuses(&bench, "set bond0 miimon abc", 1, &["miimon", "abc"]);
    refuses(&bench, "set bond0 miimon -1", 1, &["miimon", "-1"]);
    refuses(
        &bench,
        "set bond0 primary_reselect sometimes",
        1,
        &["primary_reselect", "sometimes"],
    );
    refuses(&bench, "set bond0 num_grat_arp 256", 1, &["num_grat_arp", "256"]);
    // The state is checked before the value.
    refuses(&bench, "set bond0 fail_over_mac 9", 1, &["fail_over_mac", "has ports"]);
    refuses(&bench, "add bond1 mode=1 fail_over_mac=9", 1, &["fail_over_mac", "9"]);
    refuses(&bench, "add bond1 mode=nonsense", 1, &["mode", "nonsense"]);
    refuses(
        &bench,
        "add bond1 mode=1 active_slave=spare",
        1,
        &["active_slave", "spare is not a port of the bond yet", "primary=spare"],
    );
    refuses(&bench, "port set bond0 eth0 prio high", 1, &["prio", "high"]);
    refuses(&bench, "port set bond0 eth0 colour red", 1, &["colour"]);
}

#[test]
fn options_that_the_agent_does_not_have_are_wrong_usage() {
    for option in ["--ignore-link-events", "--no-such-option"] {
        let output = Command::new(bin("bondd")).arg(option).output().unwrap();
        check(option, &output, 2, &["unexpected argument", option]);
    }
}

#[test]
fn lists_of_targets_are_refused_whole() {
    let bench = bench();
    bench.host.daemon.ctl("set bond0 arp_ip_target 10.0.0.4,10.0.0.5");
    for value in ["+10.0.0.6,gateway", "+10.0.0.6,", "+", "10.0.0.6,10.0.0.6", "0.0.0.0"] {
        refuses(
            &bench,
            &format!("set bond0 arp_ip_target {value}"),
            1,
            &["arp_ip_target", value, "expected up to 16 IPv4 addresses"],
        );
    }
    for (value, why) in [
        ("+10.0.0.6,10.0.0.5", "arp_ip_target: 10.0.0.5 is in the list already"),
        ("-10.0.0.4,10.0.0.6", "arp_ip_target: 10.0.0.6 is not in the list"),
    ] {
        refuses(&bench, &format!("set bond0 arp_ip_target {value}"), 1, &[why]);
        refuses(&bench, &format!("set bond0 arp_ip_target={value}"), 1, &[why]);
    }
    refuses(
        &bench,
        "set bond0 ns_ip6_target ff02::1",
        1,
        &["ns_ip6_target", "ff02::1"],
    );
    let many = (1..=15).map(|n| format!("10.0.1.{n}")).collect::<Vec<_>>().join(",");
    refuses(
        &bench,
        &format!("set bond0 arp_ip_target +{many}"),
        1,
        &["arp_ip_target", "16"],
    );
}

#[test]
fn monitors_that_exclude_each_other_are_refused_together() {
    let bench = bench();
    refuses(
        &bench,
        "set bond0 miimon=100 arp_interval=200 arp_ip_target=10.0.0.5",
        1,
        &["arp_interval", "miimon", "one monitor"],
    );
    refuses(
        &bench,
        "set bond0 miimon=100 arp_validate=all",
        1,
        &["arp_validate", "miimon"],
    );
    refuses(
        &bench,
        "set bond0 arp_interval=200 arp_ip_target=10.0.0.5 arp_all_targets=all",
        1,
        &["arp_all_targets=all", "arp_validate=none"],
    );
    refuses(&bench, "set bond0 arp_missed_max 0", 1, &["arp_missed_max", "1 to 255"]);
    refuses(&bench, "add bond1 learn_packets=1", 1, &["learn_packets", "balance-rr"]);
}

#[test]
fn a_queue_is_one_of_the_bonds_and_of_one_port() {
    let bench = bench();
    bench.host.daemon.ctl("port set bond0 eth0 queue_id 2");
    refuses(&bench, "port set bond0 eth1 queue_id 2", 1, &["queue_id 2", "eth0"]);
    refuses(
        &bench,
        "port set bond0 eth1 queue_id 17",
        1,
        &["queue_id", "17", "1 to 16"],
    );
    refuses(&bench, "port set bond0 eth1 queue_id -1", 1, &["queue_id", "-1"]);
    refuses(&bench, "port set bond0 eth1 queue 3", 1, &["queue", "queue_id perhaps"]);
    refuses(
        &bench,
        "port set bond0 eth1 prio=5 queue_id=two",
        1,
        &["queue_id", "two"],
    );
}

#[test]
fn set_is_all_or_nothing() {
    let bench = bench();
    refuses(
        &bench,
        "set bond0 updelay=200 downdelay=oops",
        1,
        &["downdelay", "oops"],
    );
    refuses(&bench, "set bond0 downdelay=200 nosuch=1", 1, &["nosuch"]);
}

#[test]
fn ports_that_cannot_be_are_refused_by_name() {
    let bench = bench();
    let netns = &bench.host.netns;
    netns.exec(&["ip", "tuntap", "add", "tun0", "mode", "tun"]);
    refuses(&bench, "port add bond0 nosuch", 1, &["nosuch"]);
    refuses(&bench, "port add bond0 lo", 1, &["lo"]);
    refuses(&bench, "port add bond0 tun0", 1, &["tun0", "Ethernet"]);
    refuses(&bench, "port add bond0 bond0", 1, &["bond0"]);
    let wire = format!("wire{}", bench.host.daemon.bond("bond0")["ifindex"]);
    refuses(&bench, &format!("port add bond0 {wire}"), 1, &[&wire]);
    netns.ip("link add br8 type bridge");
    netns.ip("link set bond0 master br8");
    netns.ip("link add link br8 name mac8 type macvlan");
    refuses(&bench, "port add bond0 br8", 1, &["br8", "stands on bond0"]);
    refuses(&bench, "port add bond0 mac8", 1, &["mac8", "stands on bond0"]);
    refuses(&bench, "port del bond0 spare", 1, &["spare", "bond0"]);
    refuses(&bench, "active bond0 spare", 1, &["spare", "bond0"]);
    refuses(&bench, "port set bond0 spare prio 1", 1, &["spare", "bond0"]);
}

#[test]
fn a_port_of_one_bond_is_no_port_of_another() {
    let bench = bench();
    bench.host.daemon.ctl("add bond1 mode=active-backup");
    refuses(&bench, "port add bond1 eth0", 1, &["eth0", "bond0"]);
    refuses(&bench, "port add bond1 bond0", 1, &["bond0"]);
    let netns = &bench.host.netns;
    netns.ip("link add br9 type bridge");
    netns.ip("link set spare master br9");
    refuses(&bench, "port add bond1 spare", 1, &["spare", "br9"]);
}

#[test]
fn bond_names_that_are_impossible_taken_or_unknown_are_refused() {
    let bench = bench();
    refuses(&bench, "add abcdefghijklmnop", 1, &["abcdefghijklmnop", "15"]);
    refuses(&bench, "add a/b", 1, &["a/b"]);
    refuses(&bench, "add bond%d mode=active-backup", 1, &["bond%d", "%"]);
    refuses(&bench, "add spare mode=active-backup", 1, &["spare", "another device"]);
    refuses(&bench, "add bond0", 1, &["bond0"]);
    for line in [
        "set bond9 miimon 1",
        "del bond9",
        "show bond9",
        "port add bond9 spare",
        "port del bond9 eth0",
        "active bond9 eth0",
    ] {
        refuses(&bench, line, 1, &["bond9"]);
    }
}

#[test]
fn an_interface_without_an_address_is_refused_before_anything_changes() {
    let bench = bench();
    let (daemon, netns) = (&bench.host.daemon, &bench.host.netns);
    // A bridge that has lost its only port.
    netns.ip("link add br9 type bridge");
    netns.ip("link set spare master br9");
    netns.ip("link set spare nomaster");
    assert_eq!(netns.mac("br9"), "00:00:00:00:00:00");
    daemon.ctl("add bond1 mode=active-backup");
    let words = ["br9 has no address", "ip link set br9 address"];
    refuses(&bench, "port add bond1 br9", 1, &words);
    assert!(netns.link("br9").unwrap()["ifalias"].is_null());
}

#[test]
fn clients_get_the_warnings_that_the_log_has() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    let warned = |line: &str, words: &[&str]| {
        let output = daemon.bondctl(&line.split_whitespace().collect::<Vec<_>>());
        let (code, said) = refused(&output);
        assert!(
            code == 0 && words.iter().all(|word| said.contains(word)),
            "{line}: {code}: {said}"
        );
    };
    daemon.ctl("set bond0 arp_interval 200 arp_ip_target 10.0.0.9 arp_validate all");
    warned(
        "set bond0 miimon 100",
        &["warning: bond0: miimon replaces the ARP monitor", "200 and all"],
    );
    warned(
        "port del bond0 eth0",
        &["warning: bond0: eth0: left with address", "give eth0 another one"],
    );
}

#[test]
fn a_refusal_speaks_of_what_was_typed() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    daemon.ctl("add bond1 mode=balance-xor");
    let words = ["active port is not for mode balance-xor", "expected mode active-backup"];
    refuses(&bench, "active bond1 eth0", 1, &words);
    refuses(&bench, "hash bond0 nonsense 1", 2, &["nonsense", "Usage: bondctl hash"]);
    let doctor = daemon.bondctl(&["doctor", "mode=balance-rr", "plane=team"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&doctor.stdout).ends_with("such a bond cannot be made here\n"));
    let help = daemon.bondctl(&["-h"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("[default: /run/bondd]"));
}

#[test]
fn wrong_usage_is_status_2() {
    let bench = bench();
    for line in [
        "",
        "nosuchcommand",
        "add",
        "del",
        "set bond0",
        "port",
        "port add bond0",
        "active bond0",
        "show --nosuch",
    ] {
        refuses(&bench, line, 2, &[]);
    }
}

#[test]
fn commands_that_are_still_to_come_are_wrong_usage_and_no_other_is_suggested() {
    let bench = bench();
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    for name in ["history", "reload", "metrics", "completion"] {
        let output = bench.host.daemon.bondctl(&[name, "bond0"]);
        check(name, &output, 2, &[&format!("bondctl does not have '{name}' yet")]);
        let (_, said) = refused(&output);
        assert!(!said.contains("similar"), "{said}");
        let (_, absent) = readme.split_once("## Not there yet").expect("README.md has it");
        assert!(absent.contains(name), "{name}");
    }
}

#[test]
fn a_client_that_is_told_to_wait_for_an_agent_waits_no_longer_than_that() {
    let netns = Netns::new("late");
    let mut daemon = Daemon::prepare(&netns, Default::default());
    let ask = |seconds: &str| {
        let mut command = netns.command(bin("bondctl"));
        command.arg("--run-dir").arg(daemon.dir());
        command.args(["--wait", seconds, "list"]).stdin(Stdio::null());
        command
    };
    let asked = Instant::now();
    let absent = ask("1").output().expect("bondctl runs");
    check("none comes", &absent, 3, &["no bondd answers"]);
    assert!(asked.elapsed() >= Duration::from_secs(1));
    let mut waiting = ask("60").stdout(Stdio::null()).spawn().expect("bondctl runs");
    wait_for("it pauses after an attempt", LIMIT, || is_in_pause(waiting.id()));
    daemon.launch();
    assert!(waiting.wait().expect("it is ours").success());
}

/// Whether a process sleeps for some time.
fn is_in_pause(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&number))
}

#[test]
fn without_a_daemon_clients_say_so_with_status_3() {
    let netns = Netns::new("empty");
    let dir = format!("/run/{}", unique("nothing"));
    for line in ["show", "list", "add bond0", "del bond0", "monitor"] {
        let mut command = netns.command(bin("bondctl"));
        command
            .args(["--run-dir", &dir])
            .args(line.split_whitespace())
            .stdin(Stdio::null());
        check(line, &command.output().expect("bondctl runs"), 3, &[&dir]);
    }
    assert!(!std::path::Path::new(&dir).exists());
}

#[test]
fn an_ordinary_user_may_look_where_the_socket_lets_him_but_not_change() {
    let bench = bench();
    let daemon = &bench.host.daemon;
    // Somewhere an ordinary user may read programs, which a checkout in /root is not.
    let copy = std::path::PathBuf::from("/tmp").join(unique("bondctl"));
    fs::copy(bin("bondctl"), &copy).expect("/tmp takes a program");
    let as_nobody = |line: &str| {
        let mut command = daemon.netns().command("setpriv");
        command
            .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
            .arg(&copy);
        command
            .env("BONDD_RUN_DIR", daemon.dir())
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .current_dir("/");
        command.output().expect("setpriv is installed")
    };
    let before = settings(daemon);
    check("show, closed socket", &as_nobody("show"), 1, &["ermission"]);
    let mode = fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    for line in [
        "set bond0 miimon 50",
        "del bond0",
        "add bond1",
        "port add bond0 spare",
        "active bond0 eth1",
    ] {
        check(line, &as_nobody(line), 1, &["ermission"]);
    }
    assert!(as_nobody("show").status.success());
    assert!(as_nobody("list").status.success());
    assert_eq!(settings(daemon), before);
    fs::remove_file(copy).unwrap();
}

#[test]
fn an_agent_that_may_not_use_bpf_says_which_capability_it_needs() {
    let _machine = Machine::shared();
    let netns = Netns::new("nocap");
    let dir = std::path::PathBuf::from("/run").join(unique("run"));
    fs::create_dir_all(&dir).unwrap();
    let config = dir.join("bondd.conf");
    fs::write(
        &config,
        "alias bond0 bonding\noptions bond0 mode=active-backup miimon=100\n",
    )
    .unwrap();
    let mut command = netns.command("setpriv");
    command
        .args(["--bounding-set", "-bpf,-sys_admin,-net_admin"])
        .arg(bin("bondd"));
    command
        .arg("--run-dir")
        .arg(&dir)
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null());
    let output = command.output().expect("setpriv is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_"), "{said}");
    assert!(netns.link("bond0").is_none());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_agent_without_its_rights_takes_no_bond_over_and_says_once_that_bonds_are_unmonitored() {
    let bench = bench();
    let mut host = bench.host;
    host.daemon.ctl("add bond1 mode active-backup miimon 100");
    host.daemon.sigkill();
    let mut rights = vec![("-net_admin", "CAP_NET_ADMIN"), ("-net_raw", "CAP_NET_RAW")];
    let team = ["link", "add", "team9", "type", "team"];
    // An agent that has the team driver can work without.
    if !host.netns.command("ip").args(team).status().unwrap().success() {
        rights.push(("-bpf,-sys_admin", "CAP_BPF"));
    }
    for (without, needed) in rights {
        let mut command = host.netns.command("setpriv");
        command.args(["--bounding-set", without]).arg(bin("bondd"));
        command.arg("--run-dir").arg(host.daemon.dir()).stdin(Stdio::null());
        let output = command.output().expect("setpriv is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{said}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.contains(" error ")).collect();
        assert!(
            matches!(errors[..], [error] if error.contains(needed) && error.contains("unmonitored")),
            "{said}"
        );
        assert!(!said.contains("adopted"), "{said}");
    }
    host.daemon.launch();
    host.daemon.wait_active("bond0", "eth0");
}

#[test]
fn whatever_takes_the_last_descriptor_of_a_start_is_named_with_the_limit() {
    let _machine = Machine::shared();
    let netns = Netns::new("fewfds");
    let dir = std::path::PathBuf::from("/run").join(unique("run"));
    let said_with = |limit: u32| {
        let mut command = netns.command("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(bin("bondd"));
        command
            .arg("--run-dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("prlimit is installed");
        let mut said = Vec::new();
        for line in BufReader::new(child.stderr.take().expect("it is a pipe")).lines() {
            said.push(line.expect("it is text"));
            if said.last().is_some_and(|line| line.contains(" info ready at ")) {
                child.kill().expect("it is ours");
                break;
            }
        }
        (said, child.wait().expect("it is ours").code())
    };
    let mut limit = 7;
    while let (said, Some(code)) = said_with(limit) {
        println!("{limit}: {said:?}");
        assert_eq!(code, 1, "{limit}: {said:?}");
        let last = said.last().expect("it says why it ends");
        assert!(
            last.contains(" error cannot ") && last.contains(&format!("of {limit} (RLIMIT_NOFILE;")),
            "{limit}: {said:?}"
        );
        limit += 1;
    }
    assert!(limit > 20, "{limit}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_bad_options_file_stops_the_start_and_every_finding_has_file_and_line() {
    let _machine = Machine::shared();
    let good = "alias bond0 bonding\noptions bond0 mode=active-backup miimon=100\n";
    let netns = Netns::new("badfile");
    let mut daemon = Daemon::start_with(&netns, Settings::config(good));
    assert!(netns.link("bond0").is_some());
    let links = link_names(&netns);
    assert!(daemon.sigterm());
    let path = daemon.dir().join("bondd.conf");
    fs::write(
        &path,
        "alias bond0 bonding\noptions bond0 mimon=100\noptions bond0 updelay=soon\nnonsense here\n",
    )
    .unwrap();
    let output = daemon.command().stdin(Stdio::null()).output().expect("bondd runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (line, word) in [(2, "mimon"), (3, "soon"), (4, "nonsense")] {
        let place = format!("{}:{line}:", path.display());
        assert!(
            said.lines().any(|l| l.contains(&place) && l.contains(word)),
            "{place} {word} in {said}"
        );
    }
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.contains("3 errors in the option files: not started") && last.contains("unmonitored"),
        "{last}"
    );
    assert_eq!(link_names(&netns), links, "forwarding stays as it was");
    // The existing bond is still adopted with the good file.
    fs::write(&path, good).unwrap();
    daemon.launch();
    assert_eq!(daemon.ctl("list").trim(), "bond0");
}
