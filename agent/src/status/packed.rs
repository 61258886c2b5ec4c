//! Files that are on disk, in a small part of the memory of a [`Tree`]: a thousand bonds have a hundred thousand files, and most do
//! not change for days.

use super::tree::{Entry, Tree};

/// A tree as one text: a path, and an entry with a letter for its kind, each ended by a zero byte, which neither contains.
#[derive(Debug, Default)]
pub struct Packed(Box<str>);

impl Packed {
    /// The same as this tree.
    pub fn of(tree: &Tree) -> Packed {
        let mut text = String::new();
        for (path, entry) in tree {
            let (kind, content) = match entry {
                Entry::File(content) => (FILE, content),
                Entry::Link(target) => (LINK, target),
            };
            text.extend([path, END, kind, content, END]);
        }
        Packed(text.into())
    }

    /// Its paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries().map(|(path, _)| path)
    }

    /// The tree again.
    pub fn unpack(&self) -> Tree {
        let entry = |content: &str| match content.strip_prefix(FILE) {
            Some(text) => Entry::File(text.to_owned()),
            None => Entry::Link(content.strip_prefix(LINK).unwrap_or_default().to_owned()),
        };
        let entries = self.entries();
        entries
            .map(|(path, content)| (path.to_owned(), entry(content)))
            .collect()
    }

    /// Paths with their entries, which begin with the kind.
    fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator(END);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}

const FILE: &str = "f";
const LINK: &str = "l";
const END: &str = "\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_tree_is_the_same_again() {
        let entry = |path: &str, entry| (path.to_owned(), entry);
        let tree = Tree::from([
            entry("proc/net/bonding/bond0", Entry::File("several\nlines\n".to_owned())),
            entry("sys/empty", Entry::File(String::new())),
            entry("sys/f", Entry::Link("../f".to_owned())),
        ]);
        let packed = Packed::of(&tree);
        assert_eq!(packed.unpack(), tree);
        assert_eq!(packed.paths().collect::<Vec<_>>(), tree.keys().collect::<Vec<_>>());
        assert_eq!(Packed::default().unpack(), Tree::new());
    }
}
