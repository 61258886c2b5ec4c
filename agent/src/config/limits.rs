//! How much files may ask for.

/// Most bonds that `max_bonds` makes.
pub(super) const MOST_BONDS: usize = 256;

/// Most bonds that files make together.
pub(super) const MOST_IN_ALL: usize = 1024;

/// Most words for one load, most of one name in modules.conf, and most ports of one list.
pub(super) const MOST_WORDS: usize = 1024;
