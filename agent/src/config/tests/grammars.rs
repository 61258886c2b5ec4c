//! Cases of modules.conf and modprobe.d beyond the examples, and files of several grammars together.

use super::{bonds, findings, parse_own};
use crate::config::{Grammar, NoFiles, Parsed, Severity, Source, parse};
use crate::instances::check_options;

fn read(files: &[(Grammar, &str)]) -> Parsed {
    let source = |(at, (grammar, text)): (usize, &(Grammar, &str))| Source {
        path: format!("f{}", at + 1).into(),
        text: (*text).to_owned(),
        grammar: *grammar,
    };
    let sources: Vec<Source> = files.iter().enumerate().map(source).collect();
    parse(&sources, &NoFiles, &check_options)
}

/// Bonds, and the codes of findings with their lines.
fn said(grammar: Grammar, text: &str) -> (Vec<String>, Vec<String>) {
    let parsed = read(&[(grammar, text)]);
    let codes = parsed
        .diagnostics
        .iter()
        .map(|d| format!("{} {}", d.place.line, d.code));
    (bonds(&parsed), codes.collect())
}

#[track_caller]
fn old(text: &str, bonds: &[&str], codes: &[&str]) {
    assert_eq!(said(Grammar::ModulesConf, text), (own(bonds), own(codes)), "{text}");
}

#[track_caller]
fn new(text: &str, bonds: &[&str], codes: &[&str]) {
    assert_eq!(said(Grammar::ModprobeD, text), (own(bonds), own(codes)), "{text}");
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn our_own_options_work_in_every_grammar() {
    let text = "alias bond0 bonding\noptions bond0 miimon=100 slaves=eth0,eth1 plane=tc max_bonds=2\n";
    let wanted = ["bond0: miimon=100 plane=tc [eth0 eth1]", "bond1: miimon=100 plane=tc"];
    old(text, &wanted, &[]);
    new(text, &wanted, &[]);
    let bad = "alias bond0 bonding\noptions bond0 miimon=100 plane=none\n";
    old(bad, &[], &["2 bad-value"]);
}

/// The bonds of these files; checks that these are all findings except notes.
#[track_caller]
fn together(files: &[(Grammar, &str)], wanted: &[&str], said: &[&str]) {
    let parsed = read(files);
    assert_eq!(bonds(&parsed), own(wanted), "{files:?}");
    let found = parsed.diagnostics.iter().filter(|d| d.severity != Severity::Info);
    let found: Vec<String> = found.map(ToString::to_string).collect();
    assert_eq!(found, own(said), "{files:?}");
}

/// As `bondctl import` makes them of ifcfg files without BONDING_OPTS.
const PORTS: (Grammar, &str) = (
    Grammar::Own,
    "alias bond0 bonding\noptions bond0 slaves=eth0,eth1\nalias bond1 bonding\noptions bond1 slaves=eth2\n",
);

#[test]
fn options_of_the_modules_file_and_ports_of_ours_make_one_bond() {
    let old = "alias bond0 bonding\nalias bond1 bonding\noptions bond0 mode=1 miimon=100\n\
               options bond1 -o bonding1 mode=2 miimon=50\n";
    let wanted = [
        "bond0: mode=active-backup miimon=100 [eth0 eth1]",
        "bond1: mode=balance-xor miimon=50 [eth2]",
    ];
    together(&[(Grammar::ModulesConf, old), PORTS], &wanted, &[]);
    // In whatever order they are named.
    together(&[PORTS, (Grammar::ModulesConf, old)], &wanted, &[]);
    // kmod would not load the module again for bond1, which our file makes.
    let new = old.replace("-o bonding1 ", "");
    together(&[(Grammar::ModprobeD, &new), PORTS], &wanted, &[]);
    let alike = [
        "bond0: mode=active-backup miimon=100 [eth0 eth1]",
        "bond1: mode=active-backup miimon=100 [eth2]",
    ];
    for max_bonds in [2, 0] {
        // 0: the parameters are the driver's defaults for the bonds that are made later.
        let text = format!("options bonding mode=1 miimon=100 max_bonds={max_bonds}\n");
        together(&[(Grammar::ModprobeD, &text), PORTS], &alike, &[]);
    }
}

#[test]
fn one_bond_has_the_options_of_all_files_and_its_own_before_those_of_all_bonds() {
    let module = "alias bond0 bonding\noptions bond0 mode=1 miimon=100 updelay=250\n";
    together(
        &[
            (Grammar::ModprobeD, module),
            (
                Grammar::Own,
                "options bonding miimon=10 num_grat_arp=3\nalias bond0 bonding\n\
                 options bond0 primary=eth0 mode=active-backup updelay=250 slaves=eth0,eth1\n",
            ),
        ],
        &["bond0: miimon=100 num_grat_arp=3 primary=eth0 mode=active-backup updelay=250 [eth0 eth1]"],
        &["f1:2: warning: updelay=250 is rounded down to 200, expected a multiple of miimon=100"],
    );
    // Ports of a bond for which there is no alias but the module's.
    together(
        &[
            (Grammar::ModprobeD, "options bonding mode=1 miimon=100\n"),
            (Grammar::Own, "options bond0 slaves=eth0\n"),
        ],
        &["bond0: mode=active-backup miimon=100 [eth0]"],
        &[],
    );
    // A name that the driver would not have chosen, but that the agent's own file has.
    together(
        &[
            (
                Grammar::ModprobeD,
                "alias uplink bonding\noptions uplink mode=1 miimon=100\n",
            ),
            (Grammar::Own, "alias uplink bonding\noptions uplink slaves=eth0\n"),
        ],
        &["uplink: mode=active-backup miimon=100 [eth0]"],
        &[],
    );
}

#[test]
fn what_two_files_say_differently_of_one_bond_is_an_error_with_both_places() {
    let parsed = read(&[
        (Grammar::ModprobeD, "options bonding max_bonds=2 miimon=100\n"),
        (
            Grammar::ModulesConf,
            "alias bond0 bonding\noptions bond0 miimon=50 slaves=eth0\n",
        ),
        (
            Grammar::Own,
            "alias bond0 bonding\noptions bond0 miimon=10 num_unsol_na=2 slaves=eth1\n",
        ),
    ]);
    let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "f3:2: bond0: miimon=10 contradicts miimon=50 at f2:2, expected the option in one file",
            "f3:2: bond0: slaves=eth1 contradicts slaves=eth0 at f2:2, expected the ports in one file",
            "f3:2: bond0: miimon=10 contradicts miimon=100 at f1:1, expected the option in one file",
        ]
    );
    let names: Vec<&str> = parsed.bonds.iter().map(|bond| bond.name.as_str()).collect();
    assert_eq!(names, ["bond0", "bond1"]);
}

#[test]
fn add_is_known_without_a_blank_and_a_later_alias_replaces() {
    old(
        "alias bond0 eth0\nalias bond0 bonding\noptions bond0 miimon=50\naddoptions bond0 mode=1\n",
        &["bond0: miimon=50 mode=active-backup"],
        &["2 alias-replaced"],
    );
}

#[test]
fn probe_lists_lead_through_aliases_and_do_not_ask_twice() {
    old(
        "probeall bonds bond0 bond1\nalias bond0 bonding\nalias bond1 bonding\n\
         options bond0 miimon=50\noptions bond1 -o second miimon=60\n",
        &["bond0: miimon=50", "bond1: miimon=60"],
        &[],
    );
    old(
        "probeall bond0 bond1\nprobeall bond1 bond0 bonding\noptions bonding miimon=5\n",
        &[],
        &["1 probe-recursion", "2 probe-recursion"],
    );
}

#[test]
fn a_probe_list_ends_with_the_first_that_is_loaded() {
    let names = "alias bond0 bonding\nalias bond1 bonding\noptions bond1 -o second miimon=60\n";
    old(
        &format!("probe net eth0 bond0 bond1\n{names}options bond0 miimon=50\n"),
        &["bond0: miimon=50"],
        &["1 probe-ended"],
    );
    old(
        &format!("probe net bond0 bond1\n{names}options bond0 miimon=often\n"),
        &["bond0: miimon=60"],
        &["1 alias-name-mismatch", "5 bad-integer"],
    );
    let both = "probeall net bonding\nprobe net e100\nprobeall net bonding\noptions bonding miimon=5\n";
    old(both, &["bond0: miimon=5"], &[]);
}

#[test]
fn commands_are_never_looked_into() {
    old(
        "alias bond0 bonding\noptions bond0 miimon=50\npost-install bond0 echo $X `date`\npre-remove bond0 echo don't\n\
         install e100 modprobe $Y\n",
        &["bond0: miimon=50"],
        &["3 command-ignored", "4 command-ignored"],
    );
}

#[test]
fn a_directive_is_no_setting() {
    for line in [
        "alias=bond1 bonding",
        "options = x",
        "probeall=y",
        "path /lib",
        "keep=1",
    ] {
        let text = format!("alias bond0 bonding\n{line}\n");
        old(&text, &[], &["2 invalid-line"]);
    }
}

#[test]
fn what_is_behind_the_longest_line_is_a_line_of_its_own() {
    let start = "alias bond0 bonding\noptions bond0 miimon=50\n";
    let comment = |length: usize, end: &str| format!("{start}#{}{end}\n", "-".repeat(length - 1));
    old(&comment(2999, ""), &["bond0: miimon=50"], &[]);
    old(
        &comment(2999, "options bond0 miimon=60"),
        &["bond0: miimon=60"],
        &["3 long-line", "3 options-replaced"],
    );
    old(&comment(3000, ""), &[], &["3 long-line", "3 invalid-line"]);
    let umlauts = format!("{start}#{}\n", "ö".repeat(2000));
    old(&umlauts, &[], &["3 long-line", "3 invalid-line"]);
}

#[test]
fn wrong_blocks_are_refused_with_the_whole_file() {
    let deep = "if 1\n".repeat(21) + &"endif\n".repeat(21);
    for (text, codes) in [
        ("endif\n", &["1 unmatched-endif"][..]),
        ("else\nelseif 1\n", &["1 else-without-if", "2 elseif-without-if"]),
        ("if `true`\nendif\n", &["1 shell-expansion"]),
        (
            "alias bond0 bonding\noptions bond0 primary='eth0\n",
            &["2 shell-expansion"],
        ),
        (&deep, &["21 if-nesting-too-deep"]),
        (
            "\u{feff}alias bond0 bonding\nkeep\n",
            &["1 invalid-line", "2 skipped-directive"],
        ),
    ] {
        old(text, &[], codes);
    }
}

#[test]
fn what_only_a_shell_understands_is_nobodys_business_elsewhere() {
    old(
        "options e100 x=`y`\nif 0\nnonsense\nelseif 1\nalias bond0 bonding\noptions bonding miimon=5\nelseif $X\nendif\ndefine A b\n",
        &["bond0: miimon=5"],
        &["9 define-ignored"],
    );
}

#[test]
fn the_first_alias_that_matches_decides_whose_options_count() {
    let options = "options bond* miimon=50\noptions bond0 miimon=60\n";
    new(
        &format!("alias bond* bonding\nalias bond0 bonding\n{options}"),
        &["bond0: miimon=50"],
        &["1 wildcard-alias", "4 orphan-options"],
    );
    new(
        &format!("alias bond0 bonding\nalias bond* bonding\n{options}"),
        &["bond0: miimon=60"],
        &["2 wildcard-alias", "3 orphan-options"],
    );
    new(
        &format!("options bonding mode=1\nalias bond* bonding\n{options}"),
        &["bond0: mode=active-backup miimon=50"],
        &["2 wildcard-alias", "4 orphan-options"],
    );
    new(
        "alias bond-[0-3] bonding\noptions bond_[0-3] mode=1\nalias bond-3 bonding\noptions bonding miimon=50\n",
        &["bond0: mode=active-backup miimon=50"],
        &["1 wildcard-alias", "3 alias-name-mismatch"],
    );
    new(
        "alias bond[0 bonding\noptions bonding miimon=50\n",
        &["bond0: miimon=50"],
        &["1 bad-line"],
    );
}

#[test]
fn an_alias_of_the_module_itself_switches_it_off() {
    let options = "options bonding miimon=50\n";
    for alias in ["alias bonding off", "alias b*g off", "alias bonding e100"] {
        new(&format!("{alias}\n{options}"), &[], &["1 module-disabled"]);
    }
    new(&format!("alias bonding bonding\n{options}"), &["bond0: miimon=50"], &[]);
    new(
        &format!("alias bond0 bonding\nalias bonding off\n{options}"),
        &["bond0: miimon=50"],
        &[],
    );
}

#[test]
fn commands_that_do_nothing_and_our_own_are_known() {
    let options = "options bonding miimon=50\n";
    for nothing in ["/bin/true # not here", "/usr/bin/false", "true why"] {
        new(
            &format!("{options}install bonding {nothing}\n"),
            &[],
            &["2 module-disabled"],
        );
    }
    let bond = ["bond0: miimon=50"];
    let other = format!("{options}install bonding /bin/true && modprobe -i bonding\n");
    new(&other, &bond, &["2 command-ignored"]);
    let ours = include_str!("../../../../packaging/modprobe.conf");
    let parsed = read(&[(Grammar::ModprobeD, options), (Grammar::ModprobeD, ours)]);
    assert_eq!(bonds(&parsed), bond);
    let warned = parsed.diagnostics.iter().filter(|d| d.severity != Severity::Info);
    assert_eq!(warned.count(), 0, "{:?}", findings(&parsed));
}

#[test]
fn a_blacklist_on_the_command_line_counts() {
    let parsed = read(&[
        (Grammar::ModprobeD, "alias bond0 bonding\noptions bond0 miimon=100\n"),
        (Grammar::CommandLine, "quiet modprobe.blacklist=pcspkr,bonding"),
    ]);
    assert_eq!(bonds(&parsed), Vec::<String>::new());
    let found = findings(&parsed);
    assert!(
        found.len() == 1 && found[0].starts_with("f2: warning: no bond bond0: bonding is blacklisted"),
        "{found:?}"
    );
}

#[test]
fn options_of_the_kernel_of_today_are_taken_or_ignored_as_it_does() {
    new(
        "options bonding mode=2 miimon=100 xmit_hash_policy=layer3+4 resend_igmp=0x3 packets_per_slave=5\n",
        &["bond0: mode=balance-xor miimon=100 xmit_hash_policy=layer3+4 resend_igmp=3"],
        &["1 option-ignored"],
    );
    new(
        "options bonding mode=1 miimon=100 arp_validate=all\n",
        &[],
        &["1 arp-validate-without-arp"],
    );
    new(
        "options bonding miimon=100 fail_over_mac=sometimes\n",
        &[],
        &["1 bad-value"],
    );
    new("options bonding miimon=100 max_bonds=257\n", &[], &["1 too-many-bonds"]);
}

#[test]
fn what_the_driver_replaces_by_its_default_does_not_keep_it_from_loading() {
    new(
        "options bonding miimon=100 mode=1 num_grat_arp=256 all_slaves_active=2 resend_igmp=-1 lp_interval=0 min_links=-3\n\
         options bonding arp_all_targets=some xmit_hash_policy=junk primary_reselect=junk packets_per_slave=70000\n",
        &["bond0: miimon=100 mode=active-backup"],
        &[
            "1 resend_igmp-range",
            "1 num_grat_arp-range",
            "1 all_slaves_active-range",
            "1 min_links-range",
            "1 lp_interval-range",
            "2 packets_per_slave-range",
            "2 option-ignored",
            "2 option-ignored",
            "2 option-ignored",
        ],
    );
    for refused in ["primary=eth0 primary_reselect=junk", "fail_over_mac=junk"] {
        let text = format!("options bonding miimon=100 mode=1 {refused}\n");
        new(&text, &[], &["1 bad-value"]);
    }
    let none = "options bonding miimon=100 arp_validate=none\n";
    new(none, &[], &["1 arp-validate-without-arp"]);
}

#[test]
fn what_is_set_on_a_bond_only_later_is_no_parameter() {
    new(
        "options bonding miimon=100 mode=1 peer_notif_delay=100 arp_missed_max=3 ns_ip6_target=fd00::1 active_slave=eth0\n",
        &["bond0: miimon=100 mode=active-backup"],
        &["1 unknown-option"; 4],
    );
}

#[test]
fn a_preferred_port_that_cannot_be_does_not_keep_the_driver_from_loading() {
    let long = "primary=sixteen-bytes-xx";
    new(
        &format!("options bonding mode=1 miimon=100 {long}\n"),
        &["bond0: mode=active-backup miimon=100 primary=sixteen-bytes-x"],
        &["1 primary-truncated"],
    );
    new(
        "options bonding mode=1 miimon=100 primary=a/b primary_reselect=better\n",
        &["bond0: mode=active-backup miimon=100 primary_reselect=better"],
        &["1 primary-ignored"],
    );
    old(
        &format!("alias bond0 bonding\noptions bond0 mode=1 miimon=100 {long}\n"),
        &["bond0: mode=active-backup miimon=100"],
        &["2 primary-ignored"],
    );
}

#[test]
fn a_port_that_is_to_be_active_in_a_file_is_refused_as_the_driver_does_for_a_new_bond() {
    let parsed = parse_own(
        "alias bond0 bonding\noptions bond0 mode=1 active_slave=eth1 slaves=eth0,eth1\n",
        &check_options,
    );
    let refused = "f:2: active_slave: eth1 is not a port of the bond yet, expected primary=eth1, or active_slave once it is \
                   attached";
    assert_eq!(findings(&parsed), [refused]);
}

#[test]
fn files_cannot_ask_for_bonds_without_end() {
    let mut text = String::new();
    for number in 0..20 {
        text += &format!("alias bond{number} bonding\noptions bond{number} -o b{number} max_bonds=256 miimon=100\n");
    }
    let many = read(&[(Grammar::ModulesConf, &text)]);
    assert_eq!(many.bonds.len(), 1024);
    assert!(many.has_errors());
    let text: String = (0..2000).map(|number| format!("alias b{number} bonding\n")).collect();
    let many = read(&[(Grammar::Own, &text)]);
    assert_eq!((many.bonds.len(), many.has_errors()), (1024, true));
    let over = |parsed: &Parsed| {
        findings(parsed)
            .iter()
            .any(|said| said.contains("more than 1024 bonds"))
    };
    assert!(
        over(&many) && over(&read(&[(Grammar::ModprobeD, &text)])) && over(&read(&[(Grammar::ModulesConf, &text)]))
    );
}

#[test]
fn more_options_than_anybody_needs_are_refused() {
    let text = format!("alias bond0 bonding\n{}", "add options bond0 miimon=100\n".repeat(1025));
    let parsed = read(&[(Grammar::ModulesConf, &text)]);
    assert!(findings(&parsed).contains(&"f1:1026: more than 1024 options, expected fewer".to_owned()));
    let parsed = read(&[(Grammar::ModprobeD, &text.replace("add ", ""))]);
    assert!(parsed.bonds.is_empty() && parsed.has_errors());
}

#[test]
fn two_dashes_end_the_options_of_all_lines() {
    new(
        "options bonding miimon=50 -- mode=1\noptions bonding miimon=60\n",
        &["bond0: miimon=50"],
        &[],
    );
}
