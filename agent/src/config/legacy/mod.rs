//! Files for the kernel's module: modules.conf of Linux 2.4 (`modutils`), modprobe.d (`kmod`), and the module with its
//! parameters (`module`). [`load`] is the only way in.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::Findings;
use super::loader::Files;
use super::{Check, Grammar, Source};

mod bond_names;
mod kmod;
mod module;
mod modutils;
mod numbers;

pub(super) use module::Made;

use module::Module;

/// The bonds that the kernel's module would make from the files in the grammars of its loaders: from each modules.conf by itself, and
/// from all files of modprobe.d and the kernel's command line together.
///
/// `own` has the names of the bonds in files of bondd's own grammar. Files that a modules.conf includes come from `files` and are
/// added to `order`.
pub(super) fn load(
    sources: &[Source],
    files: &dyn Files,
    own: &BTreeSet<String>,
    check: Check<'_>,
    order: &mut Vec<Arc<Path>>,
    findings: &mut Findings,
) -> Vec<Made> {
    let mut all: Vec<Made> = Vec::new();
    for source in sources.iter().filter(|source| source.grammar == Grammar::ModulesConf) {
        let mut module = Module::new(own, check);
        modutils::load(source, files, order, &mut module, findings);
        all.push(module.made);
    }
    let mut module = Module::new(own, check);
    kmod::load(sources, &mut module, findings);
    all.push(module.made);
    all
}
