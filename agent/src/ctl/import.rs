//! `bondctl import`: makes an option file from another tool's configuration, without the agent.

use std::io::Write;
use std::path::PathBuf;

use super::failure::Failure;
use crate::config::Severity;
use crate::config::import::{Format, load};
use crate::instances::check_options;

/// Reads the configuration and prints findings to `err` and the option file to `out`.
pub(super) fn import(
    format: Format,
    paths: &[PathBuf],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let imported = load(format, paths, &check_options);
    for finding in &imported.diagnostics {
        writeln!(err, "{finding}")?;
    }
    out.write_all(imported.text.as_bytes())?;
    out.flush()?;
    let is_error = |finding: &&crate::config::Diagnostic| finding.severity == Severity::Error;
    match imported.diagnostics.iter().filter(is_error).count() {
        0 => Ok(()),
        errors => Err(Failure::LeftOut { errors }),
    }
}
