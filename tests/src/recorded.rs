//! Tables of the pages in `docs/`, which `RECORD=now` puts in the place of earlier ones.

use std::fs;
use std::io;

use crate::bins::root;

/// Puts a table in the place of the one of a page, such as `measured.md`, that begins with `head`.
///
/// # Errors
/// The page cannot be read or written, or has no such table.
pub fn record(page: &str, head: &str, table: &str) -> io::Result<()> {
    let path = root().join("docs").join(page);
    let text = replaced(&fs::read_to_string(&path)?, head, table);
    let text = text.ok_or_else(|| io::Error::other(format!("docs/{page} has no such table")))?;
    fs::write(path, text)
}

/// The page with this table in place of the one that begins with the same words.
pub(crate) fn replaced(page: &str, head: &str, table: &str) -> Option<String> {
    let start = page.find(head)?;
    let rows = page[start..].lines().take_while(|line| line.starts_with('|'));
    let end = start + rows.map(|line| line.len() + 1).sum::<usize>();
    Some(format!("{}{table}{}", &page[..start], &page[end..]))
}
