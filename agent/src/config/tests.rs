//! The examples are those that users have: alias and options lines since the bonding howto of 2000.

use std::fs;

use super::*;

mod examples;
mod grammars;

/// Replaces the option table: knows a few names, accepts every value except `bad`.
fn table(pairs: &[(String, String)]) -> Vec<(usize, String)> {
    const KNOWN: [&str; 10] = [
        "mode",
        "miimon",
        "updelay",
        "downdelay",
        "primary",
        "arp_interval",
        "arp_ip_target",
        "ns_ip6_target",
        "arp_validate",
        "xmit_hash_policy",
    ];
    let mut wrong = Vec::new();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if !KNOWN.contains(&name.as_str()) {
            wrong.push((index, format!("unknown option {name}")));
        } else if value == "bad" {
            wrong.push((index, format!("bad value for {name}")));
        }
    }
    wrong
}

fn parse_own(text: &str, check: Check<'_>) -> Parsed {
    let source = Source {
        path: PathBuf::from("f"),
        text: text.to_owned(),
        grammar: Grammar::Own,
    };
    parse(&[source], &NoFiles, check)
}

fn parsed(text: &str) -> Parsed {
    parse_own(text, &table)
}

/// `name: option=value ... [ports]` of every bond.
fn bonds(parsed: &Parsed) -> Vec<String> {
    let show = |bond: &BondSpec| {
        let mut text = format!("{}:", bond.name);
        for (name, value) in bond.pairs() {
            text.push_str(&format!(" {name}={value}"));
        }
        if !bond.ports.is_empty() {
            text.push_str(&format!(" [{}]", bond.ports.join(" ")));
        }
        text
    };
    parsed.bonds.iter().map(show).collect()
}

fn findings(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(Diagnostic::to_string).collect()
}

#[track_caller]
fn good(text: &str, want: &[&str]) {
    let parsed = parsed(text);
    assert_eq!(findings(&parsed), Vec::<String>::new());
    assert_eq!(bonds(&parsed), want);
}

#[track_caller]
fn bad(text: &str, want: &[&str]) {
    let parsed = parsed(text);
    assert_eq!(findings(&parsed), want);
    assert!(parsed.has_errors());
}

#[test]
fn an_alias_makes_a_bond() {
    good("alias bond0 bonding", &["bond0:"]);
    good(
        "# MII link check ten times a second\nalias bond0 bonding\noptions bond0 miimon=100 mode=active-backup\n",
        &["bond0: miimon=100 mode=active-backup"],
    );
    good("options uplink mode=1\nalias uplink bonding\n", &["uplink: mode=1"]);
}

#[test]
fn each_bond_has_its_own_options_and_ports() {
    good(
        "alias bond0 bonding\nalias bond1 bonding\n\
         options bond0 mode=active-backup miimon=100 primary=eth0 slaves=eth0,eth1   # slaves= is ours\n\
         options bond1 -k -o bonding1 mode=balance-xor xmit_hash_policy=layer3+4 slaves=eth2,eth3\n",
        &[
            "bond0: mode=active-backup miimon=100 primary=eth0 [eth0 eth1]",
            "bond1: mode=balance-xor xmit_hash_policy=layer3+4 [eth2 eth3]",
        ],
    );
}

#[test]
fn comments_and_continuations_are_as_in_modules_conf() {
    good(
        "   # indented comment is fine here\n\nalias\tbond0\tbonding   # trailing comment\n\
         options bond0 mode=2 \\ # comment after the backslash\n\tmiimon=100 \\   \n\tupdelay=200\t# done\n# miimon=5\n",
        &["bond0: mode=2 miimon=100 updelay=200"],
    );
    good(
        "alias bond0 bonding\r\noptions bond0 miimon=100 mode=1\r\n",
        &["bond0: miimon=100 mode=1"],
    );
    good(
        "alias bond0 bonding\noptions bond0 primary=\"eth0\" mode='active-backup' miimon=100",
        &["bond0: primary=eth0 mode=active-backup miimon=100"],
    );
}

#[test]
fn dashes_are_underscores_in_option_names() {
    good(
        "alias bond-0 bonding\noptions bond-0 arp-interval=60 arp_ip-target=10.0.0.1\n",
        &["bond-0: arp_interval=60 arp_ip_target=10.0.0.1"],
    );
}

#[test]
fn options_of_the_module_are_defaults_wherever_they_stand() {
    good(
        "alias bond0 bonding\nadd options bond0 miimon=50\noptions bonding miimon=100 mode=1\nalias bond1 bonding\n",
        &["bond0: miimon=50 mode=1", "bond1: miimon=100 mode=1"],
    );
}

#[test]
fn options_of_the_module_alone_make_bonds() {
    good("options bonding mode=1", &["bond0: mode=1"]);
    good(
        "options bonding max_bonds=2 mode=active-backup miimon=100",
        &[
            "bond0: mode=active-backup miimon=100",
            "bond1: mode=active-backup miimon=100",
        ],
    );
    let none = parsed("options bonding max_bonds=0");
    assert_eq!((bonds(&none).len(), none.has_errors()), (0, false));
    assert_eq!(findings(&none), ["f:1: note: max_bonds=0: no bond is made"]);
}

#[test]
fn max_bonds_adds_bonds_with_the_lowest_free_numbers() {
    good(
        "alias bond1 bonding\noptions bond1 max_bonds=3 mode=2 slaves=eth0\n",
        &["bond1: mode=2 [eth0]", "bond0: mode=2", "bond2: mode=2"],
    );
    good("alias bond0 bonding\noptions bonding max_bonds=0\n", &["bond0:"]);
}

#[test]
fn later_lines_add_to_earlier_ones_and_a_repeated_option_is_reported() {
    let parsed = parsed(
        "options bonding miimon=100 mode=0\nalias bond0 bonding\noptions bond0 miimon=50\noptions bonding mode=1\n",
    );
    assert_eq!(bonds(&parsed), ["bond0: miimon=50 mode=1"]);
    assert_eq!(
        findings(&parsed),
        ["f:4: warning: mode is given again, the value at f:1 has no effect"]
    );
}

#[test]
fn what_two_files_say_differently_about_a_bond_is_an_error_that_names_both_places() {
    let together = |one: &str, other: &str| {
        let source = |path: &str, text: &str| Source {
            path: PathBuf::from(path),
            text: text.to_owned(),
            grammar: Grammar::Own,
        };
        parse(&[source("a", one), source("b", other)], &NoFiles, &table)
    };
    let alias = "alias bond0 bonding\n";
    let all = together(
        &format!("{alias}options bond0 miimon=100 slaves=eth0"),
        &format!("{alias}options bond0 miimon=50 slaves=eth1"),
    );
    assert_eq!(
        findings(&all),
        [
            "b:1: note: bond0 is made at a:1, too: one bond, with the options and ports of both",
            "b:2: bond0: miimon=50 contradicts miimon at a:2, expected it in one file",
            "b:2: bond0: slaves=eth1 contradicts slaves at a:2, expected it in one file",
        ]
    );
    assert!(all.has_errors());
    let by_two_names = together(
        &format!("{alias}options bond0 mode=1 num_grat_arp=1"),
        "options bond0 num_unsol_na=2",
    );
    let contradiction = "b:1: bond0: num_unsol_na=2 contradicts num_unsol_na at a:2, expected it in one file";
    assert_eq!(findings(&by_two_names)[0], contradiction);
    let agreeing = together(
        &format!("{alias}options bond0 miimon=100 slaves=eth0"),
        "options bond0 miimon=100 mode=1 slaves=eth0",
    );
    assert_eq!(findings(&agreeing), Vec::<String>::new());
    assert_eq!(bonds(&agreeing), ["bond0: miimon=100 mode=1 [eth0]"]);
}

#[test]
fn lines_about_other_things_are_skipped() {
    good(
        "keep\npath[misc]=/lib/modules/local\ndepfile=/lib/modules/modules.dep\nprune modules.foo\n\
         alias eth0 e100\nalias net-pf-10 off\noptions e100 e100_speed_duplex=4 \\\n   BundleMax=6 it's\n\
         above e100 foo\nprobe char-major-99 a b\nprobeall scsi-hosts aic7xxx sym53c8xx\n\
         post-install sound-slot-0 /bin/aumix -f /etc/.aumixrc -L >/dev/null 2>&1 || :\n\
         install foo /bin/true\nremove foo /bin/true\nblacklist pcspkr\nsoftdep a pre: b\n\
         alias bond0 bonding\noptions bond0 miimon=100\n",
        &["bond0: miimon=100"],
    );
}

#[test]
fn everything_wrong_is_reported_at_once_in_order() {
    bad(
        "alias bond0 bonding\n\
         options bond0 fast miimon=bad colour=red =1\n\
         Options bonding miimon=1\n\
         options\n\
         alias bond1\n\
         options bonding\n\
         alias abcdefghijklmnop bonding\n\
         options bond0 -o\n\
         options bonding slaves=eth0\n\
         if -f /etc/x\n\
         probeall bond0 eth0 bonding\n\
         alias bonding_masters bonding\n\
         options bond0 primary='eth0\n\
         alias bond5 bonding now\n",
        &[
            "f:2: \"fast\" is not an option, expected option=value",
            "f:2: \"=1\" is not an option, expected option=value",
            "f:2: bad value for miimon",
            "f:2: unknown option colour",
            "f:3: unknown directive \"Options\", expected options perhaps",
            "f:4: options without a name, expected `options <bond> option=value ...`",
            "f:5: alias with one name or none, expected `alias <bond> bonding`",
            "f:6: no options for bonding, expected `options bonding option=value ...`",
            "f:7: \"abcdefghijklmnop\" is not an interface name (longer than 15 bytes), expected 1 to 15 bytes such as bond0",
            "f:8: -o without a name, expected `-o <name>`",
            "f:9: slaves for all bonds, expected it in `options <bond> slaves=eth0`",
            "f:10: if is not allowed here, expected alias and options lines",
            "f:11: probeall is not allowed here, expected `alias <bond> bonding`",
            "f:12: bonding_masters is reserved, expected another name for the bond",
            "f:13: ' is never closed, expected a second '",
            "f:14: \"now\" after the module, expected `alias bond5 bonding` only",
        ],
    );
}

#[test]
fn a_line_broken_by_mail_is_told_so() {
    bad(
        "alias bond0 bonding\noptions bond0 arp_interval=60\n   arp_ip_target=192.168.0.1\n",
        &[
            "f:2: warning: arp_interval=60 has no targets, so ports follow their carrier, expected arp_ip_target or ns_ip6_target",
            "f:3: unknown directive \"arp_ip_target=192.168.0.1\", expected alias or options (or a \\ at the end of the line before)",
        ],
    );
}

#[test]
fn a_wrong_default_is_reported_once_at_its_own_line() {
    let wrong = "f:1: bad value for mode";
    bad(
        "options bonding mode=bad\nalias bond0 bonding\nalias bond1 bonding\n",
        &[wrong],
    );
    bad(
        "options bonding mode=bad max_bonds=0\n",
        &["f:1: note: max_bonds=0: no bond is made", wrong],
    );
}

#[test]
fn what_a_bond_lacks_is_reported_at_the_line_that_asks_for_it() {
    let needs_mode = |pairs: &[(String, String)]| match pairs.iter().any(|(name, _)| name == "mode") {
        true => Vec::new(),
        false => vec![(pairs.len(), "mode is missing".to_owned())],
    };
    let text = "options bonding miimon=50\nalias bond0 bonding\nalias bond1 bonding\noptions bond1 mode=1\n";
    let lacking = parse_own(text, &needs_mode);
    assert_eq!(findings(&lacking), ["f:2: mode is missing"]);

    let text = "options bonding miimon=50 max_bonds=0\n";
    let none = parse_own(text, &needs_mode);
    assert!(!none.has_errors(), "{:?}", findings(&none));
}

#[test]
fn ports_belong_to_one_bond() {
    bad(
        "alias bond0 bonding\nalias bond1 bonding\n\
         options bond0 slaves=eth0,,eth0,bond0\noptions bond1 slaves=eth1,eth0,bond0\n",
        &[
            "f:3: slaves=eth0,,eth0,bond0: \"\" is not an interface name (an empty name), expected 1 to 15 bytes such as bond0",
            "f:3: slaves=eth0,,eth0,bond0 names eth0 twice, expected each port once",
            "f:3: bond0 cannot be its own port, expected other interfaces",
            "f:4: eth0 is a port of bond0 already, expected another one for bond1",
            "f:4: bond0 is a bond and cannot be a port of bond1, expected an interface",
        ],
    );
}

/// Messages do not grow with the list, nor the time with its square.
#[test]
fn absurdly_long_lists_of_ports_are_refused_at_once() {
    let list = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("eth{number}")).collect();
        names.join(",")
    };
    let text = |list: &str| format!("alias bond0 bonding\noptions bond0 slaves={list}\n");
    let many = parsed(&text(&list(1024)));
    assert!(!many.has_errors(), "{:?}", findings(&many));
    assert_eq!(many.bonds[0].ports.len(), 1024);
    for list in [list(1025), ",".repeat(1024)] {
        bad(
            &text(&list),
            &["f:2: slaves= of bond0 names 1025 ports, expected 1024 at most"],
        );
    }
    let long = [&"x".repeat(300), "eth0", "eth0"].join(",");
    bad(
        &text(&long),
        &[
            &format!(
                "f:2: slaves=...: \"{}\" is not an interface name (longer than 15 bytes), expected 1 to 15 bytes such as bond0",
                "x".repeat(300)
            ),
            "f:2: slaves=... names eth0 twice, expected each port once",
        ],
    );
}

#[test]
fn absurd_numbers_of_bonds_are_refused() {
    for value in ["4000000000", "-1", "x", ""] {
        bad(
            &format!("alias bond0 bonding\noptions bonding max_bonds={value}\n"),
            &[&format!("f:2: max_bonds={value}, expected a number from 0 to 256")],
        );
    }
}

#[test]
fn doubtful_lines_are_warnings() {
    let doubtful = parsed(
        "options bond1 miimon=100\nalias bond0 bonding\nalias bond0 bonding\nalias bond* bonding\n\
         alias bond2 bonding\nalias bond2 off\n",
    );
    assert_eq!(bonds(&doubtful), ["bond0:"]);
    assert!(!doubtful.has_errors());
    assert_eq!(
        findings(&doubtful),
        [
            "f:1: warning: options for bond1, which no line makes, expected `alias bond1 bonding`",
            "f:3: warning: bond0 was asked for before, at f:2",
            "f:4: warning: bond* is a pattern and makes no bond, expected a bond's name",
            "f:6: warning: no bond bond2: this line replaces f:5",
        ]
    );
}

#[test]
fn multicast_of_2003_is_taken_with_a_note_of_what_is_done_instead() {
    for value in ["all", "active", "disabled", "0", "1", "2"] {
        let old = parsed(&format!(
            "alias bond0 bonding\noptions bond0 mode=1 multicast={value}\n"
        ));
        assert_eq!(bonds(&old), ["bond0: mode=1"]);
        let note = format!("f:2: note: multicast={value} sets nothing: every port hears all multicast groups");
        assert_eq!(findings(&old), [note]);
        assert!(!old.has_errors());
    }
    for value in ["none", "3", ""] {
        bad(
            &format!("alias bond0 bonding\noptions bond0 multicast={value}\n"),
            &[&format!(
                "f:2: multicast: bad value {value:?}, expected all, active or disabled (0 to 2)"
            )],
        );
    }
}

#[test]
fn of_two_monitors_the_one_for_carrier_counts_and_both_lines_are_named() {
    let both = parsed(
        "alias bond0 bonding\nalias bond1 bonding\noptions bonding miimon=100\n\
         options bond0 arp_interval=200 arp_ip_target=10.0.0.1\n",
    );
    assert_eq!(
        bonds(&both),
        ["bond0: miimon=100 arp_ip_target=10.0.0.1", "bond1: miimon=100"]
    );
    assert_eq!(
        findings(&both),
        [
            "f:4: warning: arp_interval=200 has no effect, because miimon=100 is given at f:3, expected one monitor for a bond"
        ]
    );
    assert!(!both.has_errors());
}

#[test]
fn a_monitor_that_is_switched_off_excludes_none() {
    for (miimon, arp_interval) in [("0", "60"), ("off", "60"), ("100", "0"), ("0", "0")] {
        good(
            &format!(
                "alias bond0 bonding\n\
                 options bond0 miimon={miimon} arp_interval={arp_interval} arp_ip_target=10.0.0.1\n"
            ),
            &[&format!(
                "bond0: miimon={miimon} arp_interval={arp_interval} arp_ip_target=10.0.0.1"
            )],
        );
    }
}

#[test]
fn delays_without_the_monitor_for_carrier_do_not_count() {
    for monitor in ["arp_interval=60", "miimon=0 arp_interval=60", "miimon=0"] {
        let text = format!(
            "alias bond0 bonding\n\
             options bond0 {monitor} updelay=200 arp_ip_target=10.0.0.1\noptions bond0 downdelay=50\n"
        );
        let late = parse_own(&text, &crate::instances::check_options);
        assert_eq!(bonds(&late), [format!("bond0: {monitor} arp_ip_target=10.0.0.1")]);
        assert_eq!(
            findings(&late),
            [
                "f:2: warning: updelay=200 has no effect, expected miimon above 0 with it",
                "f:3: warning: downdelay=50 has no effect, expected miimon above 0 with it",
            ]
        );
    }
    let zeros = "alias bond0 bonding\noptions bond0 miimon=0 updelay=0 downdelay=0\n";
    good(zeros, &["bond0: miimon=0 updelay=0 downdelay=0"]);
    bad(
        "alias bond0 bonding\noptions bond0 miimon=0 updelay=bad\n",
        &["f:2: bad value for updelay"],
    );
}

#[test]
fn a_bad_interval_excludes_none_and_is_reported() {
    bad(
        "alias bond0 bonding\noptions bond0 miimon=100 arp_interval=bad arp_ip_target=10.0.0.1\n",
        &["f:2: bad value for arp_interval"],
    );
}

#[test]
fn a_target_that_is_listed_again_counts_once() {
    let again = parsed("options bonding arp_interval=60 arp_ip_target=10.0.0.1,10.0.0.1,10.0.0.2 max_bonds=2\n");
    let bond = |name: &str| format!("{name}: arp_interval=60 arp_ip_target=10.0.0.1,10.0.0.2");
    assert_eq!(bonds(&again), [bond("bond0"), bond("bond1")]);
    assert_eq!(
        findings(&again),
        ["f:1: warning: arp_ip_target names 10.0.0.1 again, expected each target once"]
    );
}

#[test]
fn an_arp_monitor_that_asks_nobody_is_doubtful() {
    let lonely = |targets: &str| {
        let text = format!("alias bond0 bonding\noptions bond0 arp_interval=60 {targets}\n");
        findings(&parsed(&text))
    };
    let warning = "f:2: warning: arp_interval=60 has no targets, so ports follow their carrier, \
                   expected arp_ip_target or ns_ip6_target";
    assert_eq!(lonely(""), [warning]);
    assert_eq!(lonely("arp_ip_target=none"), [warning]);
    assert_eq!(lonely("ns_ip6_target=fd00::1"), Vec::<String>::new());
    assert_eq!(
        lonely("arp_ip_target=bad"),
        ["f:2: bad value for arp_ip_target"],
        "one finding for one mistake"
    );
}

#[test]
fn validation_without_the_arp_monitor_is_refused_as_by_the_module() {
    good(
        "alias bond0 bonding\noptions bond0 arp_validate=none miimon=100\n",
        &["bond0: arp_validate=none miimon=100"],
    );
    for options in ["arp_validate=all", "arp_interval=0 arp_validate=all"] {
        bad(
            &format!("alias bond0 bonding\noptions bond0 {options}\n"),
            &["f:2: arp_validate=all without the ARP monitor, expected arp_interval above 0"],
        );
    }
    bad(
        "alias bond0 bonding\noptions bond0 miimon=100\noptions bond0 arp_interval=60\n\
         options bond0 arp_ip_target=10.0.0.1 arp_validate=3\n",
        &[
            "f:3: warning: arp_interval=60 has no effect, because miimon=100 is given at f:2, expected one monitor for a bond",
            "f:4: arp_validate=3 without the ARP monitor, expected arp_interval above 0 and no miimon=100 at f:2",
        ],
    );
}

#[test]
fn targets_of_the_real_table_are_a_comma_list_of_at_most_16() {
    let real = |targets: &str| {
        let text = format!("alias bond0 bonding\noptions bond0 arp_interval=60 \\\n        arp_ip_target={targets}\n");
        findings(&parse_own(&text, &crate::instances::check_options))
    };
    let many = |count: u8| (1..=count).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>().join(",");
    assert_eq!(real("192.168.0.1,192.168.0.3,192.168.0.9"), Vec::<String>::new());
    assert_eq!(real(&many(16)), Vec::<String>::new());
    for targets in [many(17).as_str(), "10.0.0.1,gateway", "10.0.0.1,", "10.0.0", "0.0.0.0"] {
        let found = real(targets);
        assert_eq!(found.len(), 1, "{found:?}");
        let place = format!("f:2: arp_ip_target: bad value {targets:?}, expected up to 16 IPv4 addresses");
        assert!(found[0].starts_with(&place), "{found:?}");
    }
}

#[test]
fn files_and_folders_are_read_in_their_order() {
    let root = std::env::temp_dir().join(format!("bondd-config-{}", std::process::id()));
    let (first, second) = (root.join("first"), root.join("second"));
    for (path, text) in [
        (first.join("10-a.conf"), "options bond0 mode=1\n"),
        (second.join("10-a.conf"), "options bond0 mode=2\n"),
        (second.join("05-b.conf"), "alias bond0 bonding\n"),
        (second.join(".hidden.conf"), "hidden\n"),
        (second.join("note.txt"), "note\n"),
        (second.join("folder.conf/x"), "x\n"),
        (root.join("last"), "options bond0 miimon=50 slaves=eth0\n"),
    ] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let all = load(&[first, second.clone(), root.join("last")], None, &table);
    let missing = load(&[root.join("none"), root.join("last")], None, &table);
    fs::write(root.join("binary"), [0xff, 0xfe]).unwrap();
    let binary = load(&[root.join("binary")], None, &table);
    let latin = root.join("modules.conf");
    fs::write(
        &latin,
        b"alias bond0 bonding\n# f\xfcr die B\xfcros\noptions bond0 miimon=50\n",
    )
    .unwrap();
    let latin = load(&[latin], None, &table);
    fs::remove_dir_all(&root).unwrap();

    let folder = second.join("folder.conf");
    let warned = format!(
        "{}: warning: a folder in a folder is not read, expected a file",
        folder.display()
    );
    let hidden = format!(
        "{}: note: not read, because {} has the same name and comes first",
        second.join("10-a.conf").display(),
        root.join("first/10-a.conf").display()
    );
    assert_eq!(findings(&all), [warned, hidden]);
    assert_eq!(bonds(&all), ["bond0: mode=1 miimon=50 [eth0]"]);
    assert!(missing.has_errors());
    assert!(
        findings(&missing)[0].contains("none: cannot be read (No such file"),
        "{:?}",
        findings(&missing)
    );
    assert!(binary.has_errors());
    assert_eq!(bonds(&latin), ["bond0: miimon=50"]);
    let said = findings(&latin);
    assert!(
        said.len() == 1 && said[0].contains("modules.conf:2: warning: not UTF-8"),
        "{said:?}"
    );
}
