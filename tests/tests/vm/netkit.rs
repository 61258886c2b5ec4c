//! Plane tc on netkit devices, in a machine with Debian's 6.12 kernel: the tests of the plane and those of whole bonds, which other
//! kernels run on veth pairs. The ignored ones take long: `make netkit` runs all.

use std::path::Path;

use bondd_tests::bins::{bin, root, tests_of};
use bondd_tests::vm::Lab;

#[test]
fn what_only_netkit_devices_do_is_right_on_them() {
    let Some(passed) = pass_on_netkit("bondd", &["--lib"], &["dataplane::tc::tests::netkit::"]) else {
        return;
    };
    assert!(passed.contains("tests::netkit::a_bond_on_a_pair_stays_one"), "{passed}");
    assert!(!passed.contains(" 0 passed"), "{passed}");
}

#[test]
fn ten_kills_at_full_rate_lose_nothing_on_netkit() {
    let passed = pass_on_netkit("bondd-tests", &["--test", "netns_restart"], &["ten_kills_at_full_rate"]);
    assert!(passed.is_none_or(|passed| passed.contains("1 passed")));
}

#[test]
fn what_stands_on_a_bond_on_netkit_works() {
    pass_on_netkit("bondd-tests", &["--test", "netns_dataplane"], &[]);
}

#[test]
fn a_netkit_device_lacks_what_the_manual_says() {
    let Some(lab) = Lab::for_test_on("6.12") else { return };
    let folder = root().join("tests/vm");
    let (common, script) = (folder.join("common.sh"), folder.join("devices.sh"));
    let (bondd, bondctl) = (bin("bondd"), bin("bondctl"));
    let script = script.to_str().expect("the tree's path is UTF-8");
    let arguments = ["--timeout", "600", "--bin", "ethtool", "--run", script];
    let modules = [MODULES, &["sch_multiq"]].concat();
    let said = lab.run(&modules, &[&bondd, &bondctl], &[(&common, "/common.sh")], &arguments);
    let answers = "veth: multiq yes, speed 10000Mb/s, software-transmit, cost 2\n\
                   netkit: multiq no, speed none, no stamps, cost 100\n";
    assert!(said.ends_with(answers), "{said}");
}

#[test]
#[ignore = "by make netkit"]
fn the_tests_of_plane_tc_pass_on_netkit() {
    pass_on_netkit("bondd", &["--lib"], &["dataplane::tc::"]);
}

/// A test for each of these programs, that all its tests pass.
macro_rules! whole_programs {
    ($($name:ident: $program:literal;)*) => {
        $(
            #[test]
            #[ignore = "by make netkit"]
            fn $name() {
                pass_on_netkit("bondd-tests", &["--test", $program], &[]);
            }
        )*
    };
}

whole_programs! {
    all_of_announce: "netns_announce";
    all_of_failover: "netns_failover";
    all_of_files: "netns_files";
    all_of_guests: "netns_guests";
    all_of_held: "netns_held";
    all_of_ports: "netns_ports";
    all_of_probing: "netns_probing";
    all_of_restart: "netns_restart";
    all_of_spread: "netns_spread";
    all_of_start: "netns_start";
}

/// Runs the tests of a package whose names contain one of these words, or all but those skipped, in the machine; returns what was printed.
#[track_caller]
fn pass_on_netkit(package: &str, target: &[&str], words: &[&str]) -> Option<String> {
    let lab = Lab::for_test_on("6.12")?;
    let program = tests_of(package, target);
    let name = program.file_name().expect("a program has a name").to_string_lossy();
    let path = format!("/usr/bin/{name}");
    let (bondd, bondctl, ifenslave) = (bin("bondd"), bin("bondctl"), bin("ifenslave"));
    let programs: [&Path; 4] = [&program, &bondd, &bondctl, &ifenslave];
    let mut arguments = vec!["--timeout", "2400"];
    for variable in ["BONDD_TEST_DEVICE=netkit", "BONDD_BIN_DIR=/usr/bin", "CI=true"] {
        arguments.extend(["--env", variable]);
    }
    for tool in ["ping", "tcpdump", "iperf3", "ss", "ethtool", "setpriv", "prlimit"] {
        arguments.extend(["--bin", tool]);
    }
    arguments.extend(["--", &path, "--include-ignored", "--test-threads", "1"]);
    arguments.extend(words);
    // The rights that it gives are tested, too.
    let unit = root().join("packaging/bondd.service");
    let files = [(&*unit, unit.to_str().expect("the tree's path is UTF-8"))];
    let said = lab.run(MODULES, &programs, &files, &arguments);
    println!("{said}");
    Some(said)
}

const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "8021q",
    "macvlan",
    "dummy",
    "sch_ingress",
    "sch_tbf",
    "cls_bpf",
];
