//! `bondctl import`: other tools' configuration as an option file. No agent is asked, and one that reads the file makes the bonds
//! of the other tool.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bondd_tests::bins::bin;
use bondd_tests::daemon::{LIMIT, refused, succeeded};
use bondd_tests::debian::Debian;
use bondd_tests::machine::Machine;
use bondd_tests::netns::unique;
use bondd_tests::{Daemon, Netns, Settings, Switch, until};

/// A folder with these files, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(PathBuf::from("/tmp").join(unique("import")));
        fs::create_dir_all(&folder.0).unwrap();
        for (name, text) in files {
            fs::write(folder.0.join(name), text).unwrap();
        }
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Output of `bondctl`: status, standard output, standard error.
fn bondctl(words: &str, folder: &Path, input: &str) -> (i32, String, String) {
    let mut command = Command::new(bin("bondctl"));
    command
        .args(["--run-dir", "/nonexistent"])
        .args(words.split_whitespace());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.current_dir(folder).spawn().expect("bondctl can be run");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin
        .write_all(input.as_bytes())
        .expect("it is read, or fits into the pipe");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is a text");
    (
        output.status.code().expect("it ends by itself"),
        text(output.stdout),
        text(output.stderr),
    )
}

const IFCFG: [(&str, &str); 3] = [
    (
        "ifcfg-bond0",
        "DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS=\"mode=active-backup miimon=100\"\n",
    ),
    ("ifcfg-eth0", "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\n"),
    ("ifcfg-eth1", "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\n"),
];

#[test]
fn what_is_printed_is_a_file_that_is_checked_and_the_status_is_0() {
    let folder = Folder::new(&IFCFG);
    fs::write(
        folder.0.join("interfaces"),
        "auto bond0\niface bond0 inet manual\n  bond-slaves eth0 eth1\n  bond-mode active-backup\n  bond-miimon 100\n",
    )
    .unwrap();
    let bond = "mode=active-backup miimon=100 slaves=eth0,eth1\n";
    for (words, input) in [
        ("import --from ifcfg .", ""),
        ("import --from ifcfg ifcfg-bond0 ifcfg-eth0 ifcfg-eth1", ""),
        ("import --from interfaces interfaces", ""),
        (
            "import --from dracut -",
            "bond=bond0:eth0,eth1:mode=active-backup,miimon=100\n",
        ),
    ] {
        let (status, out, err) = bondctl(words, &folder.0, input);
        assert_eq!((status, err.as_str()), (0, ""), "{words}");
        assert!(
            out.ends_with(&format!("\n\nalias bond0 bonding\noptions bond0 {bond}")),
            "{out}"
        );
        fs::write(folder.0.join("bonds.conf"), &out).unwrap();
        let checked = bondctl("check bonds.conf", &folder.0, "");
        assert_eq!(checked, (0, format!("bond0: {bond}"), String::new()), "{words}");
    }
}

/// Red Hat's recipe of the years until 2006: options in the module's file, ports in ifcfg files.
#[test]
fn options_in_modprobe_conf_and_ports_in_ifcfg_files_make_the_bond_that_they_made_together() {
    let folder = Folder::new(&[
        ("modprobe.conf", "alias bond0 bonding\noptions bond0 mode=1 miimon=50\n"),
        ("ifcfg-bond0", "DEVICE=bond0\nONBOOT=yes\n"),
        ("ifcfg-eth0", "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\n"),
        ("ifcfg-eth1", "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\n"),
    ]);
    let (status, out, err) = bondctl("import --from ifcfg .", &folder.0, "");
    assert_eq!((status, err.as_str()), (0, ""));
    let ports = folder.0.join("ports.conf");
    fs::write(&ports, out).unwrap();
    let (status, out, err) = bondctl("check modprobe.conf ports.conf", &folder.0, "");
    let bond = "bond0: mode=active-backup miimon=50 slaves=eth0,eth1\n";
    assert_eq!((status, out.as_str()), (0, bond), "{err}");

    an_agent_makes_that_bond_and_refuses_a_contradiction(&folder);
}

fn an_agent_makes_that_bond_and_refuses_a_contradiction(folder: &Folder) {
    let _machine = Machine::shared();
    let (netns, switch) = (Netns::new("host"), Switch::new());
    let _cables = ["eth0", "eth1"].map(|name| switch.connect(&netns, name, &format!("p-{name}")));
    let path = |name: &str| folder.0.join(name).display().to_string();
    let words = [
        "--config".to_owned(),
        path("modprobe.conf"),
        "--config".to_owned(),
        path("ports.conf"),
    ];
    let mut check = netns.command(bin("bondd"));
    check.arg("--check").args(&words);
    succeeded("bondd --check", check.output().expect("bondd can be run"));
    let args = words.to_vec();
    let daemon = Daemon::start_with(
        &netns,
        Settings {
            args,
            ..Settings::default()
        },
    );
    assert_eq!(daemon.ctl("list"), "bond0\n");
    let shown = daemon.bond("bond0");
    assert_eq!(
        (&shown["mode_number"], &shown["options"]["miimon"]),
        (&1.into(), &50.into())
    );
    let ports: Vec<_> = shown["ports"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|port| &port["name"])
        .collect();
    assert_eq!(ports, ["eth0", "eth1"]);
    daemon.ctl("del bond0");

    fs::write(folder.0.join("more.conf"), "options bond0 miimon=100\n").unwrap();
    let mut check = netns.command(bin("bondd"));
    check.arg("--check").args(&words).args(["--config", &path("more.conf")]);
    let (code, said) = refused(&check.output().expect("bondd can be run"));
    let both = [
        "more.conf:1: bond0: miimon=100 contradicts miimon=50 at ",
        "modprobe.conf:2",
    ];
    assert!(
        code == 1 && both.iter().all(|words| said.contains(words)),
        "{code}: {said}"
    );
}

#[test]
fn what_is_not_carried_over_is_said_and_printed_as_a_comment_and_the_status_is_1() {
    let folder = Folder::new(&IFCFG);
    fs::write(folder.0.join("ifcfg-bond1"), "BONDING_OPTS=mode=802.3ad\n").unwrap();
    let (status, out, err) = bondctl("import --from ifcfg .", &folder.0, "");
    assert_eq!(status, 1);
    for line in [
        "options bond0 mode=active-backup miimon=100 slaves=eth0,eth1",
        "# alias bond1 bonding",
        "# options bond1 mode=802.3ad",
    ] {
        assert!(out.lines().any(|printed| printed == line), "{line}: {out}");
    }
    let wanted = "./ifcfg-bond1:1: mode=802.3ad: bondd does not have this mode, expected balance-rr, active-backup,";
    assert!(err.starts_with(wanted), "{err}");
    assert!(
        err.ends_with("bondctl: 1 error: not everything was imported\n"),
        "{err}"
    );
}

#[test]
fn what_cannot_be_read_is_said_and_wrong_words_have_the_status_2() {
    let folder = Folder::new(&[]);
    for (words, wanted) in [
        ("import --from interfaces missing", "missing: cannot be read ("),
        ("import --from ifcfg .", ".: no bond is here, expected "),
        ("import --from dracut -", "/dev/stdin: no bond is here, expected "),
    ] {
        let (status, out, err) = bondctl(words, &folder.0, "");
        assert!(status == 1 && err.starts_with(wanted), "{words}: {status} {err}");
        assert!(out.lines().all(|line| line.starts_with('#')), "{out}");
    }
    for words in ["import", "import --from netplan", "import x"] {
        let (status, out, _) = bondctl(words, &folder.0, "");
        assert_eq!((status, out.as_str()), (2, ""), "{words}");
    }
}

#[test]
fn an_option_file_made_of_the_stanzas_makes_the_same_bond() {
    let mut host = Debian::new(Machine::shared());
    let before = host.traces();
    let looks = |daemon: &Daemon, netns: &Netns| {
        netns.ip("link set bond0 up");
        let bond = until(LIMIT, || {
            let bond = daemon.bond("bond0");
            let ports = bond["ports"].as_array().expect("a list").clone();
            ports.iter().all(|port| port["link"] == "up").then_some(bond)
        });
        let bond = bond.expect("its ports have links");
        let ports = bond["ports"].as_array().expect("a list").iter();
        let ports: Vec<_> = ports.map(|port| (port["name"].clone(), port["role"].clone())).collect();
        (
            netns.mac("bond0"),
            bond["active_port"].clone(),
            bond["options"].clone(),
            ports,
        )
    };
    for interfaces in [TURNS, PROBING] {
        host.interfaces(interfaces);
        host.does("ifup -a --exclude=lo");
        let wanted = looks(&host.daemon, &host.netns);
        host.down("ifdown -a --exclude=lo", &before);
        let (_, text, _) = bondctl("import --from interfaces network/interfaces", &host.dir, "");
        assert!(host.daemon.sigterm());
        let daemon = Daemon::start_with(&host.netns, Settings::config(&text));
        assert_eq!(looks(&daemon, &host.netns), wanted, "{text}");
        daemon.ctl("del bond0");
        drop(daemon);
        host.daemon.launch();
    }
}

/// The second port comes first, and the last word is the first port's.
const TURNS: &str = "
auto eth1 eth0
iface eth0 inet manual
    bond-master bond0
    bond-primary eth0
    bond-primary-reselect failure
iface eth1 inet manual
    bond-master bond0
    bond-primary eth1
iface bond0 inet static
    address 192.0.2.1/24
    bond-slaves none
    bond-mode 1
    bond-miimon 50
    bond-updelay 100
";

const PROBING: &str = "
auto bond0
iface bond0 inet manual
    bond-slaves eth1 eth0
    bond-arp-interval 200
    bond-mode active-backup
    bond-arp-validate 3
    bond-arp-ip-target 192.0.2.254 192.0.2.3
    bond-miimon 100
    bond-num-unsol-na 4
    bond-fail-over-mac 2
";
