//! Origins of options, ports and bonds: defaults, option files or an operator. Settings removed from the files are undone,
//! those of an operator stay. The saved state keeps them, so that a restart knows the former files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{self, Path, PathBuf};

use bond_modes::options::{OptionRow, TABLE, find, parse, row_name};
use bond_modes::{BondOptions, OptionError};

use crate::config::BondSpec;
use crate::control::proto::{OptionPairs, Origin};
use crate::plane_option::without_plane;

/// Origins of one bond. The options of the files are kept beside it, see [`crate::saved::SavedBond::configured`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// A file made the bond, and it was not renamed since.
    pub made_by_file: bool,
    /// The option files with lines about the bond, as absolute paths.
    pub files: BTreeSet<PathBuf>,
    /// Ports that the files name, by their names there.
    pub file_ports: BTreeSet<String>,
    /// The present names of those that were renamed since, by their names in the files.
    pub renamed_ports: BTreeMap<String, String>,
    /// Options that an operator set, by the kernel's name, and those that changed with them.
    pub operator_options: BTreeSet<String>,
    /// Those of them that no operator named: bondd changed them, because others required it.
    pub entailed_options: BTreeSet<String>,
    /// Ports that an operator attached.
    pub operator_ports: BTreeSet<String>,
    /// Options that bondd set because a port needs them, by the kernel's name, each with the port.
    pub port_options: BTreeMap<String, String>,
}

impl Origins {
    /// For a state that was saved without origins: options that no file is known to have set count as the operator's.
    pub fn unknown(options: &BondOptions, configured: Option<&OptionPairs>, ports: &[String]) -> Origins {
        let given = options_of(configured.map_or(&[], Vec::as_slice)).unwrap_or_default();
        Origins {
            operator_options: differing(&given, options).map(|row| row.name.to_owned()).collect(),
            operator_ports: ports.iter().cloned().collect(),
            ..Origins::default()
        }
    }

    /// An operator set these options, and others changed with them.
    pub fn set_by_operator(
        &mut self,
        pairs: &[(String, String)],
        before: &BondOptions,
        after: &BondOptions,
        configured: Option<&OptionPairs>,
    ) {
        let named = pairs.iter().filter_map(|(name, _)| find(name));
        let stored = named.filter(|row| row.is_stored());
        for row in stored.chain(differing(before, after)) {
            self.operator_options.insert(row.name.to_owned());
            self.port_options.remove(row.name);
            match is_named(row, pairs) {
                true => self.entailed_options.remove(row.name),
                false => self.entailed_options.insert(row.name.to_owned()),
            };
        }
        // What another option put back to a default that no file contradicts is nobody's setting any more.
        let defaults = BondOptions::default();
        for row in differing(before, after) {
            let in_file = configured.is_some_and(|configured| is_named(row, configured));
            if !is_named(row, pairs) && !in_file && row.value(after) == row.value(&defaults) {
                self.disown(row.name);
            }
        }
    }

    /// An option is not the operator's any more.
    fn disown(&mut self, option: &str) {
        self.operator_options.remove(option);
        self.entailed_options.remove(option);
    }

    /// Bondd set an option because a port needs it.
    pub fn set_for_port(&mut self, option: &str, port: &str) {
        self.disown(option);
        self.port_options.insert(option.to_owned(), port.to_owned());
    }

    /// An operator renamed the bond, so no file names it any more.
    pub fn taken_by_operator(&mut self, options: &BondOptions, configured: Option<&OptionPairs>) {
        for row in differing(&BondOptions::default(), options) {
            if self.port_options.contains_key(row.name) || !self.operator_options.insert(row.name.to_owned()) {
                continue;
            }
            if !configured.is_some_and(|pairs| is_named(row, pairs)) {
                self.entailed_options.insert(row.name.to_owned());
            }
        }
        let file_ports = std::mem::take(&mut self.file_ports);
        let present = file_ports.iter().map(|port| self.present_name(port).to_owned());
        self.operator_ports.extend(present.collect::<Vec<_>>());
        self.renamed_ports.clear();
        self.files.clear();
        self.made_by_file = false;
    }

    /// Ports have other names now; `names` has the new ones by the old ones.
    pub fn ports_renamed(&mut self, names: &BTreeMap<String, String>) {
        let now = |name: &str| names.get(name).map_or(name, String::as_str).to_owned();
        let present = |port: &String| (port.clone(), now(self.present_name(port)));
        let renamed = self.file_ports.iter().map(present);
        self.renamed_ports = renamed.filter(|(port, present)| port != present).collect();
        self.operator_ports = self.operator_ports.iter().map(|port| now(port)).collect();
        for port in self.port_options.values_mut() {
            *port = now(port);
        }
    }

    /// The name that a port of the files has now.
    pub fn present_name<'a>(&'a self, port: &'a str) -> &'a str {
        self.renamed_ports.get(port).map_or(port, String::as_str)
    }

    /// Records the ports that the files name now, each by the name that it has now, and returns those that they named before and
    /// that are nobody's any more.
    pub fn follow_ports(&mut self, ports: &[String]) -> Vec<String> {
        let before = std::mem::replace(&mut self.file_ports, ports.iter().cloned().collect());
        let present: BTreeSet<&str> = ports.iter().map(|port| self.present_name(port)).collect();
        let is_nobodys = |port: &String| !present.contains(port.as_str()) && !self.operator_ports.contains(port);
        let named_before = before.iter().map(|port| self.present_name(port).to_owned());
        let left = named_before.filter(is_nobodys).collect();
        self.renamed_ports.retain(|port, _| self.file_ports.contains(port));
        left
    }

    /// Records the files with lines about a bond, for its next start.
    pub fn followed(&mut self, spec: &BondSpec) {
        let options = spec.given.iter().map(|option| &option.place);
        let places = options.chain(&spec.ports_place).chain([&spec.place]);
        self.files = places.map(|place| absolute(&place.file)).collect();
    }

    /// The origin of every option, by each of its names.
    pub fn of_options(&self, options: &BondOptions, configured: Option<&OptionPairs>) -> BTreeMap<String, Origin> {
        let named = |row: &OptionRow| configured.is_some_and(|pairs| is_named(row, pairs));
        let changed: BTreeSet<&str> = differing(&BondOptions::default(), options)
            .map(|row| row.name)
            .collect();
        let mut all = BTreeMap::new();
        for row in TABLE.iter().filter(|row| row.is_stored()) {
            let by_bondd = self.port_options.contains_key(row.name) || self.entailed_options.contains(row.name);
            let origin = if by_bondd {
                Origin::Bondd
            } else if self.operator_options.contains(row.name) {
                Origin::Operator
            } else if named(row) {
                Origin::File
            } else if changed.contains(row.name) {
                // Options of the files required it.
                Origin::Bondd
            } else {
                Origin::Default
            };
            all.extend(row.names().map(|name| (name.to_owned(), origin)));
        }
        all
    }

    /// The options to set if the files had `before` and have `now`. An option that changed in the files belongs to the files
    /// again; one that was removed from them gets its default, unless an operator or bondd set it.
    pub fn to_follow(
        &self,
        before: &[(String, String)],
        now: &[(String, String)],
        options: &BondOptions,
    ) -> Result<ToFollow, OptionError> {
        let said: BTreeMap<_, _> = before.iter().map(|(name, value)| (row_name(name), value)).collect();
        let theirs = now
            .iter()
            .filter(|(name, value)| said.get(row_name(name)) != Some(&value));
        let mut after = self.clone();
        for row in theirs.filter_map(|(name, _)| find(name)) {
            after.disown(row.name);
            after.port_options.remove(row.name);
        }
        let wanted = options_of(&over(now, &after, options))?;
        // A contradictory set cannot be the starting point.
        let were = options_of(&over(before, self, options)).unwrap_or_else(|_| options.clone());
        let moved: BTreeSet<&str> = differing(&were, &wanted).map(|row| row.name).collect();
        let rows = differing(options, &wanted).filter(|row| moved.contains(row.name));
        Ok(ToFollow {
            pairs: values(rows, &wanted),
            after,
            wanted,
        })
    }
}

/// A step from the options in force to those that the files ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToFollow {
    /// Options to set.
    pub pairs: OptionPairs,
    /// The origins afterwards.
    pub after: Origins,
    wanted: BondOptions,
}

impl ToFollow {
    /// The whole step as one set: also options that [`ToFollow::pairs`] would change as a side effect, as a new mode resets
    /// arp_validate. `preview` gives the options after a set.
    ///
    /// # Errors
    /// The error of `preview`, or the names of options that one set cannot bring about.
    pub fn in_one_set<E: fmt::Display>(
        &self,
        before: &BondOptions,
        preview: impl Fn(&OptionPairs) -> Result<BondOptions, E>,
    ) -> Result<OptionPairs, String> {
        let mut set = self.pairs.clone();
        let lost = self.lost(before, &preview(&set).map_err(|error| error.to_string())?);
        if lost.is_empty() {
            return Ok(set);
        }
        set.retain(|pair| lost.iter().all(|(name, _)| *name != pair.0));
        set.extend(lost);
        let lost = self.lost(before, &preview(&set).map_err(|error| error.to_string())?);
        let names: Vec<&str> = lost.iter().map(|(name, _)| name.as_str()).collect();
        match names.is_empty() {
            true => Ok(set),
            false => Err(format!("the other options change {}", names.join(", "))),
        }
    }

    /// Options that do not have the wanted value after a set.
    fn lost(&self, before: &BondOptions, after: &BondOptions) -> OptionPairs {
        let set = |row: &&'static OptionRow| self.pairs.iter().any(|(name, _)| row.is_called(name));
        let changed: BTreeSet<&str> = differing(before, after).map(|row| row.name).collect();
        let rows = differing(after, &self.wanted).filter(|row| set(row) || changed.contains(row.name));
        values(rows, &self.wanted)
    }
}

/// A file as an absolute path; as it is without a working directory.
pub fn absolute(file: &Path) -> PathBuf {
    path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

/// Whether one of the pairs is about this option.
fn is_named(row: &OptionRow, pairs: &[(String, String)]) -> bool {
    pairs.iter().any(|(name, _)| row.is_called(name))
}

/// Rows whose values differ.
fn differing(one: &BondOptions, other: &BondOptions) -> impl Iterator<Item = &'static OptionRow> + use<> {
    let rows: Vec<&OptionRow> = TABLE.iter().filter(|row| row.value(one) != row.value(other)).collect();
    rows.into_iter()
}

fn values<'a>(rows: impl Iterator<Item = &'a OptionRow>, options: &BondOptions) -> OptionPairs {
    rows.map(|row| (row.name.to_owned(), row.value(options).to_string()))
        .collect()
}

/// The options of a bond in the files.
fn options_of(pairs: &[(String, String)]) -> Result<BondOptions, OptionError> {
    parse(&without_plane(pairs)).map(|change| change.options)
}

/// The options of the files, replaced by those that an operator or bondd set.
fn over(pairs: &[(String, String)], origins: &Origins, options: &BondOptions) -> OptionPairs {
    let is_own =
        |row: &OptionRow| origins.operator_options.contains(row.name) || origins.port_options.contains_key(row.name);
    let files = pairs
        .iter()
        .filter(|(name, _)| !find(name).is_some_and(&is_own))
        .cloned();
    let own = TABLE.iter().filter(|row| is_own(row));
    files.chain(values(own, options)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> OptionPairs {
        let split = |word: &str| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        text.split_whitespace().map(|word| split(word).unwrap()).collect()
    }

    fn options(text: &str) -> BondOptions {
        options_of(&pairs(text)).unwrap()
    }

    /// What is set where files said `before` and say `now`, and the bond has `in_force`, of which an operator set some.
    #[track_caller]
    fn follows(before: &str, now: &str, in_force: &str, operator: &[&str], wanted: &str) {
        let origins = Origins {
            operator_options: operator.iter().map(|name| (*name).to_owned()).collect(),
            ..Origins::default()
        };
        let step = origins
            .to_follow(&pairs(before), &pairs(now), &options(in_force))
            .unwrap();
        assert_eq!(step.pairs, pairs(wanted), "{before} -> {now} over {in_force}");
    }

    #[test]
    fn what_left_the_files_gets_its_default_and_an_operators_own_stays() {
        let all = "mode=1 miimon=100 updelay=200 primary=eth0";
        follows(all, "mode=1 miimon=100", all, &[], "updelay=0 primary=none");
        follows(all, "mode=1", all, &["updelay"], "primary=none");
        follows(all, all, "mode=1 miimon=50 updelay=200 primary=eth0", &["miimon"], "");
        // What the files change is theirs again.
        let own = "mode=1 miimon=50 updelay=200 primary=eth0";
        follows(
            all,
            &all.replace("miimon=100", "miimon=200"),
            own,
            &["miimon"],
            "miimon=200",
        );
        follows(
            "",
            "mode=1 miimon=50",
            "mode=1 updelay=300",
            &["mode", "updelay"],
            "miimon=50",
        );
    }

    #[test]
    fn an_option_that_bondd_set_for_a_port_stays_until_an_operator_or_a_file_changes_it() {
        let in_force = options("mode=1 fail_over_mac=active");
        let mut origins = Origins::default();
        let origin = |origins: &Origins| origins.of_options(&in_force, Some(&pairs("mode=1")))["fail_over_mac"];
        origins.set_for_port("fail_over_mac", "f");
        assert_eq!(origin(&origins), Origin::Bondd);
        let follow = |before, now| origins.to_follow(&pairs(before), &pairs(now), &in_force).unwrap();
        // It left the files, or never was in them.
        for before in ["mode=1 fail_over_mac=follow", "mode=1"] {
            let step = follow(before, "mode=1");
            assert_eq!((step.pairs, origin(&step.after)), (vec![], Origin::Bondd));
        }
        let step = follow("mode=1", "mode=1 fail_over_mac=follow");
        assert_eq!(step.pairs, pairs("fail_over_mac=follow"));
        let origin_then = step.after.of_options(&in_force, Some(&pairs("fail_over_mac=follow")))["fail_over_mac"];
        assert_eq!(origin_then, Origin::File);
        let mut renamed = origins.clone();
        renamed.taken_by_operator(&in_force, Some(&pairs("mode=1")));
        assert_eq!(origin(&renamed), Origin::Bondd);
        origins.set_by_operator(&pairs("fail_over_mac=active"), &in_force, &in_force, None);
        assert_eq!(origin(&origins), Origin::Operator);
    }

    #[test]
    fn a_port_that_was_renamed_stays_that_of_its_file_and_of_its_operator() {
        let names = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(old, new)| ((*old).to_owned(), (*new).to_owned()))
                .collect()
        };
        let list = |ports: &[&str]| -> Vec<String> { ports.iter().map(|port| (*port).to_owned()).collect() };
        let mut origins = Origins::default();
        origins.follow_ports(&list(&["eth0", "eth1"]));
        origins.operator_ports.insert("eth2".to_owned());
        origins.set_for_port("fail_over_mac", "eth2");
        // Two at once exchange their names.
        origins.ports_renamed(&names(&[("eth0", "eth1"), ("eth1", "eth0"), ("eth2", "lan2")]));
        assert_eq!(origins.present_name("eth0"), "eth1");
        assert_eq!(origins.operator_ports, ["lan2".to_owned()].into());
        assert_eq!(origins.port_options["fail_over_mac"], "lan2");
        origins.ports_renamed(&names(&[("eth1", "lan0")]));
        let mut edited = origins.clone();
        assert_eq!(
            origins.follow_ports(&list(&["eth0", "eth1"])),
            list(&[]),
            "the file is as it was"
        );
        assert_eq!(origins.follow_ports(&list(&["eth1"])), ["lan0"]);
        assert_eq!(
            origins.follow_ports(&list(&[])),
            ["eth0"],
            "whose name in the file is eth1"
        );
        assert_eq!(
            edited.follow_ports(&list(&["lan0", "eth1"])),
            list(&[]),
            "the file has its new name"
        );
        assert_eq!(edited.present_name("lan0"), "lan0");
        edited.ports_renamed(&names(&[("eth0", "eth1")]));
        assert_eq!(edited.renamed_ports, BTreeMap::new(), "as in the file again");
        edited.ports_renamed(&names(&[("lan0", "x")]));
        edited.taken_by_operator(&BondOptions::default(), None);
        assert_eq!(edited.operator_ports, ["eth1", "lan2", "x"].map(str::to_owned).into());
    }

    #[test]
    fn monitors_take_turns_and_delays_keep_what_they_were_rounded_to() {
        let arp = "mode=1 arp_interval=200 arp_ip_target=10.0.0.1";
        follows(
            "mode=1 miimon=100 updelay=200",
            arp,
            "mode=1 miimon=100 updelay=200",
            &[],
            "miimon=0 updelay=0 arp_interval=200 arp_ip_target=10.0.0.1",
        );
        follows(arp, "mode=1", arp, &[], "miimon=100 arp_interval=0 arp_ip_target=");
        // 300 ms, which miimon=100 allows and the operator's 70 would not, are not looked at again.
        let mut in_force = options("mode=1 miimon=100 updelay=300");
        in_force.miimon = std::time::Duration::from_millis(70);
        let file = pairs("mode=1 miimon=100 updelay=300");
        let origins = Origins {
            operator_options: BTreeSet::from(["miimon".to_owned()]),
            ..Origins::default()
        };
        assert_eq!(origins.to_follow(&file, &file, &in_force).unwrap().pairs, []);
    }

    #[test]
    fn what_another_option_put_back_to_its_default_is_no_setting_of_the_operator_any_more() {
        let (arp, mii) = (
            options("mode=1 arp_interval=200 arp_validate=all"),
            options("mode=1 miimon=50"),
        );
        let mut origins = Origins::default();
        origins.set_by_operator(
            &pairs("mode=1 arp_interval=200 arp_validate=all"),
            &BondOptions::default(),
            &arp,
            None,
        );
        let mut of_file = origins.clone();
        origins.set_by_operator(&pairs("miimon=50"), &arp, &mii, None);
        assert_eq!(origins.operator_options, ["miimon", "mode"].map(str::to_owned).into());
        // Else the file would set it again at the next start.
        of_file.set_by_operator(&pairs("miimon=50"), &arp, &mii, Some(&pairs("arp_validate=all")));
        assert!(of_file.operator_options.contains("arp_validate"));
    }

    #[test]
    fn every_option_says_where_it_comes_from_by_all_its_names() {
        let mut origins = Origins::default();
        let (before, after) = (
            options("mode=1 miimon=100"),
            options("mode=1 arp_interval=100 num_grat_arp=3"),
        );
        origins.set_by_operator(
            &pairs("arp-interval=100"),
            &before,
            &options("mode=1 arp_interval=100"),
            None,
        );
        let all = origins.of_options(&after, Some(&pairs("mode=1 miimon=100 num_grat_arp=3")));
        for (name, origin) in [
            ("mode", Origin::File),
            ("arp_interval", Origin::Operator),
            // It went with the other monitor, unasked.
            ("miimon", Origin::Bondd),
            ("num_unsol_na", Origin::File),
            ("updelay", Origin::Default),
        ] {
            assert_eq!(all[name], origin, "{name}");
        }
        assert!(!all.contains_key("active_slave"));
        let of_miimon = |origins: &Origins, file| origins.of_options(&after, Some(&pairs(file)))["miimon"];
        assert_eq!(of_miimon(&Origins::default(), "mode=1 arp_interval=100"), Origin::Bondd);
        origins.taken_by_operator(&after, Some(&pairs("mode=1 num_grat_arp=3")));
        assert_eq!(of_miimon(&origins, ""), Origin::Bondd);
        assert_eq!(origins.of_options(&after, None)["num_grat_arp"], Origin::Operator);
        origins.set_by_operator(&pairs("miimon=0"), &after, &after, None);
        assert_eq!(of_miimon(&origins, ""), Origin::Operator);
    }
}
