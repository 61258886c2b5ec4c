//! Requests for the module: aliases and probe lists that lead to it.

use std::collections::BTreeSet;

use super::read::File;
use crate::config::diagnostic::{Findings, Place, Severity};
use crate::config::directives::MODULE;
use crate::config::legacy::bond_names::{bond_number, is_bond};
use crate::config::limits::MOST_IN_ALL;

/// The names on the way from a request to the module, both included.
pub(super) type Chain = Vec<String>;

/// A way to the module.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The names whose options count.
    pub(super) chain: Chain,
    /// Lists of `probe` on the way, each with the name that the way takes.
    pub(super) choices: Vec<(String, String)>,
}

/// Longest way from a name to a module. [modutils: insmod/modprobe.c]
const LONGEST: usize = 1000;

/// A request that leads to the module.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// `None` for the module's own name.
    pub(super) alias: Option<String>,
    pub(super) place: Place,
    pub(super) way: Way,
}

/// Names that lead back to themselves.
enum Ring {
    Alias,
    Probe,
}

/// Reports lines about bonds that need a shell; true if there are any.
pub(super) fn shell(file: &File, findings: &mut Findings) -> bool {
    let reaches = |name: &str| is_bond(name) || matches!(ways(file, name), Ok(found) if !found.is_empty());
    let mut found = false;
    for (place, text) in &file.shell {
        let mut names = text
            .split(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .filter(|word| !word.is_empty());
        if names.next().is_some_and(reaches) || names.any(|word| word == MODULE) {
            let text = "a backquote, a $ or an open quote would want a shell, which is not run, expected the value itself; \
                        the file is refused";
            findings.add(Severity::Error, "shell-expansion", place, text.to_owned());
            found = true;
        }
    }
    found
}

/// All requests in the order in which interfaces are thought to be brought up: bond0, bond1 and so on, then other names in the
/// order of the file.
pub(super) fn find(file: &File, findings: &mut Findings) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    let mut known = BTreeSet::new();
    let mut asked = false;
    let led_to = led_to(file);
    for name in file
        .names
        .iter()
        .filter(|name| *name != MODULE && known.insert(name.as_str()))
    {
        let place = place_of(file, name);
        match ways(file, name) {
            Ok(ways) if led_to.contains(name.as_str()) => asked |= !ways.is_empty(),
            Ok(ways) => {
                if ways.is_empty() {
                    off(file, name, findings);
                }
                if requests.len() + ways.len() > MOST_IN_ALL {
                    findings.error(place, format!("more than {MOST_IN_ALL} bonds, expected fewer"));
                    break;
                }
                for way in ways {
                    let alias = way.chain.first().filter(|first| *first != MODULE).unwrap_or(name);
                    requests.push(Request {
                        alias: Some(alias.clone()),
                        place: place.clone(),
                        way,
                    });
                }
            }
            Err(ring) if is_bond(name) => {
                asked = true;
                ring.report(name, place, findings);
            }
            Err(_) => {}
        }
    }
    requests.sort_by_key(|request| bond_number(request.alias.as_deref().unwrap_or_default()));
    // Without a request it is loaded by its own name. [bond_main.c: bonding_init]
    if requests.is_empty()
        && !asked
        && let Some((place, _)) = file.options.get(MODULE).and_then(|lines| lines.first())
    {
        requests.push(Request {
            alias: None,
            place: place.clone(),
            way: Way {
                chain: vec![MODULE.to_owned()],
                choices: Vec::new(),
            },
        });
    }
    requests
}

fn place_of<'a>(file: &'a File, name: &str) -> &'a Place {
    let probe = file.probes.get(name).map(|probe| &probe.place);
    probe.unwrap_or_else(|| &file.aliases[name].0)
}

/// Names that are requested through other names only.
fn led_to(file: &File) -> BTreeSet<&str> {
    let aliases = file.aliases.iter().filter(|(name, _)| !file.probes.contains_key(*name));
    let aliases = aliases.map(|(name, (_, target))| (name, target));
    let probes = file
        .probes
        .iter()
        .flat_map(|(name, probe)| probe.modules.iter().map(move |module| (name, module)));
    let pairs = aliases.chain(probes).filter(|(name, target)| name != target);
    pairs.map(|(_, target)| target.as_str()).collect()
}

/// Reports a bond that is switched off.
fn off(file: &File, name: &str, findings: &mut Findings) {
    if let Some((place, target)) = file.aliases.get(name)
        && is_bond(name)
        && !file.probes.contains_key(name)
        && ["off", "null"].contains(&target.as_str())
    {
        let text = format!("no bond {name}: it is switched {target}");
        findings.add(Severity::Info, "alias-off", place, text);
    }
}

impl Ring {
    fn report(&self, name: &str, place: &Place, findings: &mut Findings) {
        let (code, text) = match self {
            Ring::Alias => (
                "alias-loop",
                format!("{name} leads back to itself, expected `alias {name} {MODULE}`"),
            ),
            Ring::Probe => (
                "probe-recursion",
                format!("{name} is in its own probe list, which has no end, expected {MODULE} in its place"),
            ),
        };
        findings.add(Severity::Error, code, place, text);
    }
}

/// All ways from a name to the module, in the order of loading; each name is visited once.
fn ways(file: &File, name: &str) -> Result<Vec<Way>, Ring> {
    let mut found = Vec::new();
    let mut visited = BTreeSet::new();
    // What is still to be looked at: the depth at which it stands, and its name. `path` are those that led to it.
    let mut open = vec![(0, name)];
    let mut path: Vec<&str> = Vec::new();
    while let Some((depth, name)) = open.pop() {
        path.truncate(depth);
        if name == MODULE {
            found.push(way(file, &path));
            continue;
        }
        if let Some(at) = path.iter().position(|before| *before == name) {
            let probes = path[at..].iter().any(|name| file.probes.contains_key(*name));
            return Err(if probes { Ring::Probe } else { Ring::Alias });
        }
        if depth > LONGEST {
            return Err(Ring::Alias);
        }
        if !visited.insert(name) {
            continue;
        }
        path.push(name);
        match (file.probes.get(name), file.aliases.get(name)) {
            (Some(probe), _) => open.extend(probe.modules.iter().rev().map(|module| (depth + 1, module.as_str()))),
            (None, Some((_, target))) => open.push((depth + 1, target)),
            (None, None) => {}
        }
    }
    Ok(found)
}

/// The way to the module over these names.
fn way(file: &File, path: &[&str]) -> Way {
    // Options of a probe list itself have no effect.
    let last_probe = path.iter().rposition(|name| file.probes.contains_key(*name));
    let names = || path.iter().copied().chain([MODULE]);
    let chain = names().skip(last_probe.map_or(0, |at| at + 1));
    let one_of = |name: &str| file.probes.get(name).is_some_and(|probe| !probe.all);
    let choices = names().zip(names().skip(1)).filter(|(name, _)| one_of(name));
    Way {
        chain: chain.map(str::to_owned).collect(),
        choices: choices.map(|(list, name)| (list.to_owned(), name.to_owned())).collect(),
    }
}
