//! Opens and reads the files; the only code of this module that does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Findings, Place, Severity};
use super::{Grammar, Source};
use crate::regular_file;

/// Longest file in bytes; a longer one is not a file of options.
const LONGEST: u64 = 1024 * 1024;

/// Default folders of option files.
const USUAL_FOLDERS: [&str; 3] = ["/etc/bondd", "/run/bondd.conf.d", "/usr/lib/bondd"];

/// The expected kind of file, for messages.
const EXPECTED: &str = "a file of alias and options lines";

/// File with the kernel's command line.
const COMMAND_LINE: &str = "/proc/cmdline";

/// Access to further files while one is read.
pub trait Files {
    /// The file that a line of `from` includes: its path and text, or the reason why it is not read.
    fn include(&self, from: &Path, name: &str) -> Result<(PathBuf, String), Refusal>;
    /// Whether there is such a file that can be read.
    fn is_readable(&self, path: &Path) -> bool;
}

/// Why an included file is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is outside the folder of the first file.
    Elsewhere,
    /// It cannot be read.
    Failed(String),
}

/// Files on disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Files for Disk {
    fn include(&self, from: &Path, name: &str) -> Result<(PathBuf, String), Refusal> {
        let failed = |e: io::Error| Refusal::Failed(e.to_string());
        let folder = from.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let path = folder.join(name);
        let tree = folder.canonicalize().map_err(failed)?;
        if !path.canonicalize().map_err(failed)?.starts_with(tree) {
            return Err(Refusal::Elsewhere);
        }
        let bytes = read(&path).map_err(failed)?;
        Ok((path, String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn is_readable(&self, path: &Path) -> bool {
        regular_file::open(path).is_ok()
    }
}

/// No files.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn include(&self, _from: &Path, _name: &str) -> Result<(PathBuf, String), Refusal> {
        Err(Refusal::Elsewhere)
    }

    fn is_readable(&self, _path: &Path) -> bool {
        false
    }
}

/// The texts behind these paths, or without any in the usual folders that exist, in reading order, by the grammar given or that
/// of each file's kind. Files count in the order given. Folders that follow each other are read as one, by file name; of two
/// files with the same name the one in the first folder counts.
pub(super) fn sources(paths: &[PathBuf], grammar: Option<Grammar>, findings: &mut Findings) -> Vec<Source> {
    let usual = || {
        USUAL_FOLDERS
            .map(PathBuf::from)
            .into_iter()
            .filter(|path| path.is_dir())
    };
    let paths = if paths.is_empty() {
        usual().collect()
    } else {
        paths.to_vec()
    };
    let mut sources = Vec::new();
    for path in expand(&paths, findings) {
        let grammar = grammar.unwrap_or_else(|| Grammar::of(&path));
        let text = read(&path).and_then(|bytes| match grammar {
            Grammar::Own => own_text(bytes),
            _ => Ok(text(bytes, &path, findings)),
        });
        match text {
            Ok(text) => sources.push(Source { path, text, grammar }),
            Err(e) => whole_file(&path, &e, EXPECTED, findings),
        }
    }
    // [kmod: libkmod-config.c: kmod_config_parse_kcmdline]
    if sources.iter().any(|source| source.grammar == Grammar::ModprobeD)
        && let Ok(bytes) = read(Path::new(COMMAND_LINE))
    {
        sources.push(Source {
            path: COMMAND_LINE.into(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            grammar: Grammar::CommandLine,
        });
    }
    sources
}

/// The files behind a path, in reading order.
fn expand(paths: &[PathBuf], findings: &mut Findings) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for path in paths {
        if !path.is_dir() {
            files.extend(std::mem::take(&mut folders).into_values());
            files.push(path.clone());
            continue;
        }
        match option_files(path, findings) {
            Ok(found) => {
                for (name, file) in found {
                    match folders.entry(name) {
                        Entry::Vacant(free) => drop(free.insert(file)),
                        Entry::Occupied(before) => {
                            let before = before.get().display();
                            let text = format!("not read, because {before} has the same name and comes first");
                            findings.add(Severity::Info, "hidden-file", &whole(&file), text);
                        }
                    }
                }
            }
            Err(e) => whole_file(path, &e, EXPECTED, findings),
        }
    }
    files.extend(folders.into_values());
    files
}

/// `*.conf` of a folder, without hidden ones and folders. [modprobe.d(5)]
fn option_files(folder: &Path, findings: &mut Findings) -> io::Result<Vec<(OsString, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let (name, path) = entry.map(|e| (e.file_name(), e.path()))?;
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if hidden || path.extension().is_none_or(|e| e != "conf") {
            continue;
        }
        if path.is_dir() {
            findings.warning(&whole(&path), "a folder in a folder is not read, expected a file");
        } else {
            found.push((name, path));
        }
    }
    Ok(found)
}

/// A file that an administrator names for this one time, which may be a pipe.
pub(super) fn read_anything(path: &Path) -> io::Result<Vec<u8>> {
    regular_file::bounded(&File::open(path)?, LONGEST)
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    regular_file::read(path, LONGEST)
}

/// The text of a file of the agent's own grammar, which must be UTF-8.
fn own_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The text of a file. modutils and kmod read bytes, so an old comment in another encoding is accepted.
pub(super) fn text(bytes: Vec<u8>, path: &Path, findings: &mut Findings) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let place = Place {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            ..whole(path)
        };
        let what = "not UTF-8, here or further down: such letters count as unknown ones, expected UTF-8";
        findings.add(Severity::Warning, "not-utf-8", &place, what.to_owned());
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    })
}

pub(super) fn whole_file(path: &Path, error: &io::Error, expected: &str, findings: &mut Findings) {
    findings.error(&whole(path), format!("cannot be read ({error}), expected {expected}"));
}

fn whole(path: &Path) -> Place {
    Place {
        file: Arc::from(path),
        line: 0,
    }
}
