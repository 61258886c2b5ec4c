//! Makes option files of the agent's own grammar from configurations of other tools.
//!
//! Each tool has a reader (`ifcfg`, `dracut`, `interfaces`) that makes bonds from its files: options in the order in which the
//! tool gives them to the kernel's driver, ports in the order of attaching, each with its place. `write` prints the settings
//! that bondd accepts, and reads the result back to check it. Other settings are reported with their place and stay in the text
//! as comments.
//!
//! [`load`] reads files and [`import`] texts; [`read_stanza`] is for the hooks of ifupdown, which have one stanza at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Findings, Place};
use super::{Check, Diagnostic, loader};

mod bond;
mod dracut;
mod expand;
mod format;
mod ifcfg;
mod ifupdown;
mod interfaces;
mod keep_good;
mod reading;
mod shell;
mod write;

#[cfg(test)]
mod tests;

pub use format::Format;
pub use ifupdown::{Line, Ports, Role, Stanza, read as read_stanza};
pub use interfaces::Sourced;
pub use reading::Text;

use reading::Import;

/// Path of standard input.
const STDIN: &str = "/dev/stdin";

/// Result of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// An option file that bondd accepts.
    pub text: String,
    /// All findings, in the order of files and lines. An error is about a part that was not imported.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads files, or those of folders; `-` is standard input. Without a path, reads the tool's own files.
pub fn load(format: Format, paths: &[PathBuf], check: Check<'_>) -> Imported {
    let mut import = Import::default();
    // On Red Hat's systems the second path is a file about other things.
    let is_there = |path: &PathBuf| path.is_dir() || path.exists() && format != Format::Ifcfg;
    let usual = || format.usual().iter().map(PathBuf::from).filter(is_there);
    let paths = match paths {
        [] => usual().collect(),
        _ => paths.to_vec(),
    };
    let mut texts = Vec::new();
    for path in &paths {
        let path = if path.as_os_str() == "-" {
            Path::new(STDIN)
        } else {
            path
        };
        import.files.push(Arc::from(path));
        let files = match path.is_dir() {
            true => files_of(format, path, &mut import.findings),
            false => Ok(vec![path.to_owned()]),
        };
        match files {
            Ok(files) => {
                for file in &files {
                    import.files.push(Arc::from(file.as_path()));
                    texts.extend(read(format, file, &mut import.findings));
                }
            }
            Err(e) => loader::whole_file(path, &e, format.expected(), &mut import.findings),
        }
    }
    let sourced = |pattern: &Path| {
        let found = expand::expand(pattern).into_iter().filter(|path| path.is_file());
        found
            .map(|path| {
                (
                    path.clone(),
                    loader::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
                )
            })
            .collect()
    };
    import.of(format, &texts, &sourced, check)
}

/// Reads texts; files that they include come from `sourced`.
pub fn import(format: Format, texts: &[Text], sourced: Sourced<'_>, check: Check<'_>) -> Imported {
    Import::default().of(format, texts, sourced, check)
}

fn read(format: Format, path: &Path, findings: &mut Findings) -> Option<Text> {
    let bytes = loader::read_anything(path);
    let bytes = bytes.map_err(|e| loader::whole_file(path, &e, format.expected(), findings));
    Some(Text {
        path: Arc::from(path),
        text: loader::text(bytes.ok()?, path, findings),
    })
}

impl Import {
    fn of(mut self, format: Format, texts: &[Text], sourced: Sourced<'_>, check: Check<'_>) -> Imported {
        self.files.extend(texts.iter().map(|text| text.path.clone()));
        match format {
            Format::Ifcfg => ifcfg::read(texts, &mut self),
            Format::Dracut => dracut::read(texts, &mut self),
            Format::Interfaces => interfaces::read(texts, sourced, &mut self),
        }
        if self.bonds.is_empty() && self.findings.errors() == 0 {
            self.say_that_none_is_there(format);
        }
        let entries = write::entries(std::mem::take(&mut self.bonds), check, &mut self.findings);
        let mut diagnostics = self.findings.sorted(&self.files);
        for finding in &mut diagnostics {
            finding.text = write::plain(&finding.text);
        }
        Imported {
            text: write::text(format, &entries, &diagnostics),
            diagnostics,
        }
    }

    fn say_that_none_is_there(&mut self, format: Format) {
        let file = self.files.first().cloned();
        let looked = match file {
            Some(_) => String::new(),
            None => format!(" in {}, or a PATH", format.usual().join(" or ")),
        };
        let place = Place {
            file: file.unwrap_or_else(|| Arc::from(Path::new(format.name()))),
            line: 0,
        };
        let text = format!("no bond is here, expected {}{looked}", format.expected());
        self.findings.error(&place, text);
    }
}

/// Files of a folder that are read, in reading order.
fn files_of(format: Format, folder: &Path, findings: &mut Findings) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut paths = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let is_wanted = match format {
            Format::Ifcfg => ifcfg::is_wanted(&path, findings),
            Format::Dracut => path.extension().is_some_and(|extension| extension == "conf"),
            Format::Interfaces => interfaces::is_wanted(&path),
        };
        if is_wanted && !path.is_dir() {
            files.push(path);
        }
    }
    Ok(files)
}
