//! Random option files: examples changed at random, by lines, words and bytes, and noise. The same seed gives
//! the same files on every machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bondd::config::import::{Format, Text, import};
use bondd::config::loader::{Files, Refusal};
use bondd::config::names::check_bond;
use bondd::config::{Grammar, Parsed, Source, parse};
use bondd::instances::check_options;

use crate::bins::root;
use crate::sim::rng::Rng;

/// Longest text made, in bytes.
const LONGEST: usize = 32 * 1024;

/// Words that mean something to one of the grammars.
const WORDS: &str = "\
    alias options add addoptions probe probeall install remove pre-install post-remove above below include define if \
    elseif else endif keep path= path[x]=/y blacklist softdep config bonding bond0 bond1 bond5 bond* b*g bond? \
    bond[0-3] bond[!0 bond-0 bond_0 eth0 off null -o -k -n -f ! == != < >= 0 1 miimon=100 miimon=-5 miimon=0x64 \
    miimon=99999999999999999999 miimon mode=1 mode=4 mode=active-backup-please mode= mode=802.3ad updelay=250 \
    downdelay=1 use_carrier=7 arp_interval=60 arp-interval=60 arp_ip_target=10.0.0.1,10.0.0.2 arp_ip_target=, \
    arp_validate=3 arp_all_targets=all primary=eth0 multicast=active max_bonds=3 max_bonds=256 max_bonds=-1 \
    max_bonds=0 slaves=eth0,eth1 slaves=bond0 plane=tc plane=x lacp_rate=fast xmit_hash_policy=layer3+4 \
    packets_per_slave=7 num_grat_arp=300 -- # \\ \" ' `id` $X \0 = , größe \u{feff} bonding.mode=1 \
    modprobe.blacklist=bonding /bin/false \
    DEVICE=bond0 MASTER=bond0 SLAVE=yes TYPE=Bond BONDING_MASTER=yes BONDING_SLAVE_0=eth0 BONDING_OPTS=\"mode=1 bond= bond \
    bond=bond0:eth0,eth1:mode=1,arp_ip_target=10.0.0.1;10.0.0.2:9000 iface inherits auto source mapping inet bond-mode \
    bond-slaves bond-master bond-primary bond-arp-ip-target slaves mtu $(id) ${X} export";

/// The same with blanks in them.
const PHRASES: [&str; 5] = [
    "/sbin/modprobe --ignore-install bonding -o bond1 mode=1",
    "\\\n",
    "\r",
    "\u{a0}",
    "\u{85}",
];

const GRAMMARS: [Grammar; 4] = [
    Grammar::Own,
    Grammar::ModulesConf,
    Grammar::ModprobeD,
    Grammar::CommandLine,
];

const FORMATS: [Format; 3] = [Format::Ifcfg, Format::Dracut, Format::Interfaces];

/// The examples that are changed, each as text, and what is made of them.
pub struct Fuzzer {
    corpus: Vec<String>,
    words: Vec<&'static str>,
    seed: u64,
}

/// Files that includes find: any name is that of one of the examples.
struct Corpus<'a>(&'a [String]);

impl Files for Corpus<'_> {
    fn include(&self, _from: &Path, name: &str) -> Result<(PathBuf, String), Refusal> {
        match self.0.get(name.len() % (self.0.len() + 2)) {
            Some(text) => Ok((PathBuf::from(name), text.clone())),
            None if name.len().is_multiple_of(2) => Err(Refusal::Elsewhere),
            None => Err(Refusal::Failed("no such file".to_owned())),
        }
    }

    fn is_readable(&self, path: &Path) -> bool {
        path.as_os_str().len().is_multiple_of(2)
    }
}

impl Fuzzer {
    /// Reads the examples of the tests and the file that is shipped.
    pub fn new(seed: u64) -> Fuzzer {
        let mut paths = vec![root().join("packaging/bondd.conf")];
        let folder = root().join("agent/testdata/modprobe");
        for entry in fs::read_dir(&folder).expect("there are examples") {
            let path = entry.expect("a folder can be read to its end").path();
            if path.extension().is_some_and(|extension| extension == "conf") {
                paths.push(path);
            }
        }
        collect(&root().join("agent/testdata/import"), &mut paths);
        paths.sort();
        let read = |path: &PathBuf| {
            let bytes = fs::read(path).expect("examples can be read");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let mut corpus: Vec<String> = paths.iter().map(read).collect();
        corpus.push("include aaaa\ninclude aaaaa\nif -f ab\nalias bond0 bonding\nendif\n".to_owned());
        Fuzzer {
            corpus,
            words: WORDS.split(' ').chain(PHRASES).collect(),
            seed,
        }
    }

    /// The files of one execution.
    pub fn sources(&self, execution: u64) -> Vec<Source> {
        let mut rng = Rng::new(self.seed ^ execution.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = if rng.chance(85) { 1 } else { 2 + rng.below(3) };
        let source = |number| Source {
            path: PathBuf::from(format!("{number}.conf")),
            text: self.text(&mut rng),
            grammar: *rng.pick(&GRAMMARS).expect("there are grammars"),
        };
        (0..count).map(source).collect()
    }

    /// Reads these files and returns the errors in the result.
    pub fn execute(&self, sources: &[Source]) -> Result<Parsed, String> {
        let parsed = parse(sources, &Corpus(&self.corpus), &check_options);
        verify(&parsed)?;
        self.import(sources)?;
        Ok(parsed)
    }

    /// Makes an option file of the same texts, as if another tool had them, which is one that is taken.
    fn import(&self, sources: &[Source]) -> Result<(), String> {
        let text = |source: &Source| Text {
            path: Arc::from(Path::new(&format!("ifcfg-{}", source.path.display()))),
            text: source.text.clone(),
        };
        let texts: Vec<Text> = sources.iter().map(text).collect();
        let length: usize = texts.iter().map(|text| text.text.len()).sum();
        let sourced = |path: &Path| {
            let at = path.as_os_str().len() % (self.corpus.len() + 2);
            let found = self.corpus.get(at).into_iter();
            found.map(|text| (path.to_owned(), Ok(text.clone()))).collect()
        };
        let imported = import(FORMATS[length % FORMATS.len()], &texts, &sourced, &check_options);
        let source = Source {
            path: PathBuf::from("imported.conf"),
            text: imported.text,
            grammar: Grammar::Own,
        };
        let parsed = parse(&[source], &Corpus(&[]), &check_options);
        verify(&parsed)?;
        match parsed.has_errors() {
            true => Err(format!("what was imported is refused: {:?}", parsed.diagnostics)),
            false => Ok(()),
        }
    }

    fn text(&self, rng: &mut Rng) -> String {
        if rng.chance(3) {
            let length = rng.below(400);
            let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        let mut text = self.example(rng).to_owned();
        for _ in 0..rng.below(8) {
            text = match rng.below(4) {
                0 => self.change_lines(&text, rng),
                1 | 2 => change_words(&text, &self.words, rng),
                _ => change_bytes(&text, rng),
            };
        }
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
        }
        text
    }

    fn example(&self, rng: &mut Rng) -> &str {
        rng.pick(&self.corpus).map_or("", String::as_str)
    }

    fn change_lines(&self, text: &str, rng: &mut Rng) -> String {
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        let at = rng.below(lines.len() as u64 + 1) as usize;
        let other = rng.below(lines.len() as u64 + 1) as usize;
        match rng.below(5) {
            0 if at < lines.len() => drop(lines.remove(at)),
            1 if at < lines.len() && other < lines.len() => lines.swap(at, other),
            2 if at < lines.len() => {
                let line = lines[at];
                let times = if rng.chance(5) { 500 } else { 1 };
                lines.splice(at..at, std::iter::repeat_n(line, times));
            }
            3 => {
                let foreign: Vec<&str> = self.example(rng).split_inclusive('\n').collect();
                lines.splice(at..at, rng.pick(&foreign).copied());
            }
            _ => {
                lines.insert(at, self.example(rng));
            }
        }
        lines.concat()
    }
}

/// Files of a folder and of those in it, without what has to come of them.
fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("there are examples") {
        let path = entry.expect("a folder can be read to its end").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.file_stem().is_some_and(|name| name != "expected") {
            into.push(path);
        }
    }
}

fn change_words(text: &str, words: &[&str], rng: &mut Rng) -> String {
    let starts: Vec<usize> = text
        .char_indices()
        .filter(|(_, c)| c.is_whitespace())
        .map(|(at, _)| at)
        .collect();
    let at = rng.pick(&starts).copied().unwrap_or(0);
    let end = match rng.below(3) {
        // In place of the word that begins here, or before it.
        0 => starts.iter().copied().find(|end| *end > at).unwrap_or(text.len()),
        _ => at,
    };
    let word = rng.pick(words).copied().unwrap_or_default();
    let (before, after) = if rng.chance(80) { (" ", " ") } else { ("\n", "") };
    [&text[..at], before, word, after, &text[end..]].concat()
}

fn change_bytes(text: &str, rng: &mut Rng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = rng.below(bytes.len() as u64 + 1) as usize;
    match rng.below(4) {
        0 => bytes.truncate(at),
        1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        _ => bytes.insert(at, rng.next_u64() as u8),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Properties of every result.
fn verify(parsed: &Parsed) -> Result<(), String> {
    let mut names: Vec<&str> = parsed.bonds.iter().map(|bond| bond.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two bonds are called {}", twice[0]));
    }
    if let Some(text) = parsed
        .diagnostics
        .iter()
        .map(|finding| &finding.text)
        .find(|text| text.is_empty())
    {
        return Err(format!("a finding says nothing: {text:?}"));
    }
    if parsed.has_errors() {
        return Ok(());
    }
    for bond in &parsed.bonds {
        check_bond(&bond.name)?;
        if let Some((_, wrong)) = check_options(&bond.pairs()).first() {
            return Err(format!(
                "{} is made with an option that no bond takes: {wrong}",
                bond.name
            ));
        }
    }
    Ok(())
}
