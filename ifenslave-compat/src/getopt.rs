//! Parses the command line like GNU `getopt_long`: options and operands in any order, bundled letters, abbreviated names.

/// An option of 1.1.0. None takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    AllInterfaces,
    ChangeActive,
    Detach,
    Force,
    Help,
    Usage,
    Verbose,
    Version,
}

impl Flag {
    /// Whether it selects the task, so that only one of its kind can be given. `-f` is one of them, as in 1.1.0.
    pub(crate) fn is_exclusive(self) -> bool {
        self != Flag::Verbose
    }
}

const TABLE: [(char, &str, Flag); 8] = [
    ('a', "all-interfaces", Flag::AllInterfaces),
    ('c', "change-active", Flag::ChangeActive),
    ('d', "detach", Flag::Detach),
    ('f', "force", Flag::Force),
    ('h', "help", Flag::Help),
    ('u', "usage", Flag::Usage),
    ('v', "verbose", Flag::Verbose),
    ('V', "version", Flag::Version),
];

/// A parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// In the order given, repeated ones too.
    pub(crate) flags: Vec<Flag>,
    /// In the order given.
    pub(crate) operands: Vec<String>,
}

/// Parses the words after the program's name. `posixly_correct` ends the options at the first operand.
pub(crate) fn parse(words: &[String], posixly_correct: bool) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    for word in words.by_ref() {
        if word == "--" {
            break;
        } else if let Some(name) = word.strip_prefix("--") {
            parsed.flags.push(long(name)?);
        } else if word.starts_with('-') && word != "-" {
            for letter in word.chars().skip(1) {
                parsed.flags.push(short(letter)?);
            }
        } else {
            parsed.operands.push(word.clone());
            if posixly_correct {
                break;
            }
        }
    }
    parsed.operands.extend(words.cloned());
    Ok(parsed)
}

fn short(letter: char) -> Result<Flag, String> {
    let row = TABLE.iter().find(|(short, ..)| *short == letter);
    row.map(|(.., flag)| *flag)
        .ok_or_else(|| format!("invalid option -- '{letter}'"))
}

/// Finds a name by its full text or an unambiguous beginning.
fn long(given: &str) -> Result<Flag, String> {
    let (name, argument) = given
        .split_once('=')
        .map_or((given, None), |(name, value)| (name, Some(value)));
    let candidates: Vec<_> = TABLE.iter().filter(|(_, long, _)| long.starts_with(name)).collect();
    match candidates[..] {
        [] => Err(format!("unrecognized option '--{given}'")),
        [(_, full, _)] if argument.is_some() => Err(format!("option '--{full}' doesn't allow an argument")),
        [(.., flag)] => Ok(*flag),
        _ => {
            let names: Vec<String> = candidates.iter().map(|(_, long, _)| format!("'--{long}'")).collect();
            Err(format!(
                "option '--{given}' is ambiguous; possibilities: {}",
                names.join(" ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Flag::*;
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn parsed(flags: &[Flag], operands: &str) -> Result<Parsed, String> {
        Ok(Parsed {
            flags: flags.to_vec(),
            operands: words(operands),
        })
    }

    #[test]
    fn every_option_has_a_letter_and_a_name() {
        for (letter, name, flag) in TABLE {
            assert_eq!(parse(&words(&format!("-{letter}")), false), parsed(&[flag], ""));
            assert_eq!(parse(&words(&format!("--{name}")), false), parsed(&[flag], ""));
        }
    }

    #[test]
    fn options_may_follow_operands_and_be_bundled() {
        assert_eq!(
            parse(&words("bond0 -d eth0 -v eth1"), false),
            parsed(&[Detach, Verbose], "bond0 eth0 eth1")
        );
        assert_eq!(
            parse(&words("-dv bond0 - eth0"), false),
            parsed(&[Detach, Verbose], "bond0 - eth0")
        );
        assert_eq!(
            parse(&words("-dd -v -v"), false),
            parsed(&[Detach, Detach, Verbose, Verbose], "")
        );
    }

    #[test]
    fn two_dashes_end_the_options() {
        assert_eq!(parse(&words("-v -- -d --help"), false), parsed(&[Verbose], "-d --help"));
        assert_eq!(parse(&words("bond0 -- -- eth0"), false), parsed(&[], "bond0 -- eth0"));
    }

    #[test]
    fn an_operand_ends_them_too_if_posix_is_to_be_followed() {
        assert_eq!(
            parse(&words("-v bond0 -d eth0"), true),
            parsed(&[Verbose], "bond0 -d eth0")
        );
    }

    #[test]
    fn names_may_be_cut_while_they_are_unique() {
        assert_eq!(parse(&words("--he"), false), parsed(&[Help], ""));
        assert_eq!(parse(&words("--verb --d"), false), parsed(&[Verbose, Detach], ""));
        assert!(parse(&words("--ver"), false).unwrap_err().contains("ambiguous"));
    }

    #[test]
    fn what_is_no_option_is_named() {
        for (line, wanted) in [
            ("-x", "invalid option -- 'x'"),
            ("-dr", "invalid option -- 'r'"),
            ("-?", "invalid option -- '?'"),
            ("--howto", "unrecognized option '--howto'"),
            ("--detach=eth0", "option '--detach' doesn't allow an argument"),
        ] {
            assert_eq!(parse(&words(line), false), Err(wanted.to_owned()), "{line}");
        }
    }
}
