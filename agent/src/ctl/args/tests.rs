//! The grammar of the command line, and its help.

use clap::CommandFactory;

use super::*;

fn pairs(words: &[&str]) -> Result<Vec<(String, String)>, String> {
    option_pairs(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn options_are_two_words_or_one_with_an_equals_sign() {
    let given = [
        "mode",
        "1",
        "fail-over-mac=active",
        "primary=",
        "arp_ip_target",
        "10.0.0.1,10.0.0.2",
        "x=a=b",
    ];
    let wanted = [
        ("mode", "1"),
        ("fail_over_mac", "active"),
        ("primary", ""),
        ("arp_ip_target", "10.0.0.1,10.0.0.2"),
        ("x", "a=b"),
    ];
    assert_eq!(pairs(&given), Ok(owned(&wanted)));
}

#[test]
fn values_keep_their_dashes_and_option_names_as_values_stay_values() {
    let given = ["primary", "en-p1", "mode=active-backup", "primary", "mode"];
    let wanted = [("primary", "en-p1"), ("mode", "active-backup"), ("primary", "mode")];
    assert_eq!(pairs(&given), Ok(owned(&wanted)));
}

#[test]
fn a_missing_value_or_name_is_named() {
    assert!(
        pairs(&["mode", "1", "miimon"])
            .unwrap_err()
            .contains("'miimon' has no value")
    );
    assert!(pairs(&["=1"]).unwrap_err().contains("'=1' has no option name"));
}

#[test]
fn the_grammar_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn negative_numbers_are_values_and_flags_work_anywhere() {
    let cli = Cli::try_parse_from(["bondctl", "port", "set", "bond0", "eth0", "prio", "-5", "-j"]).unwrap();
    assert!(cli.json);
    let Command::Port(PortCommand::Set { options, .. }) = cli.command else {
        panic!("{cli:?}")
    };
    assert_eq!(options, ["prio", "-5"]);
}

#[test]
fn targets_are_taken_from_a_list_with_and_without_an_equals_sign() {
    for (line, wanted) in [
        (
            "bondctl set bond0 arp_ip_target -10.0.0.3 -j",
            &["arp_ip_target=-10.0.0.3"][..],
        ),
        (
            "bondctl set bond0 miimon 0 ns_ip6_target -fd00::1,fd00::2",
            &["miimon", "0", "ns_ip6_target=-fd00::1,fd00::2"],
        ),
        (
            "bondctl set bond0 arp_ip_target=-10.0.0.3",
            &["arp_ip_target=-10.0.0.3"],
        ),
    ] {
        let words = join_removed_targets(line.split(' ').map(OsString::from));
        let cli = Cli::try_parse_from(words).unwrap();
        assert_eq!(cli.json, line.ends_with("-j"));
        let Command::Set { options, .. } = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(options, wanted, "{line}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    for (line, code) in [
        (&["bondctl"][..], 2),
        (&["bondctl", "explode"], 2),
        (&["bondctl", "set", "bond0"], 2),
        (&["bondctl", "port", "add", "bond0"], 2),
        (&["bondctl", "active", "bond0"], 2),
        (&["bondctl", "list", "bond0"], 2),
        (&["bondctl", "--help"], 0),
        (&["bondctl", "add", "--help"], 0),
        (&["bondctl", "--version"], 0),
    ] {
        assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), code, "{line:?}");
    }
}

#[test]
fn help_names_every_option_and_fits_the_screen() {
    let help = options_help(ADD_EXAMPLES);
    for row in TABLE {
        assert!(help.contains(&format!("\n  {}", row.name)), "{}", row.name);
    }
    assert!(port_options_help().contains("\n  prio\n"));
    let mut commands = vec![Cli::command()];
    while let Some(mut command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        for line in command.render_long_help().to_string().lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
        }
    }
}
