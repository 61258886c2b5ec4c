//! No circle of imports among the source files of the pure crates and of the agent: a file can be understood from the files that
//! it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bondd_tests::bins::root;

/// A module, as the path of names that leads to it from the crate's root; empty for the root.
type Module = Vec<String>;

/// Text of a file without its tests.
#[derive(Debug, Default)]
struct Source {
    /// Names that stand for a path of the crate: imported, re-exported or a child module.
    names: BTreeMap<String, Vec<String>>,
    /// Those of `names` that are passed on only, with `pub use`.
    passed_on: BTreeSet<String>,
    /// Every path of two or more segments in the text, and each single import.
    paths: Vec<Vec<String>>,
}

/// The words and marks of a program without comments, texts and what stands under `#[cfg(test)]`.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let bytes: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
        } else if rest[0] == '"' {
            at += 1;
            while at < bytes.len() && bytes[at] != '"' {
                at += if bytes[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if rest[0] == '\'' && rest.get(2) == Some(&'\'') {
            at += 3;
        } else if rest.starts_with(&['\'', '\\']) {
            at += 2 + rest[2..].iter().position(|c| *c == '\'').map_or(0, |end| end + 1);
        } else if rest[0].is_alphanumeric() || rest[0] == '_' {
            let word: String = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
            at += word.len();
            tokens.push(word);
        } else if rest.starts_with(&[':', ':']) {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !rest[0].is_whitespace() {
                tokens.push(rest[0].to_string());
            }
            at += 1;
        }
    }
    without_tests(tokens)
}

/// Leaves out the item behind each `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..]
            .iter()
            .zip(MARK)
            .filter(|(token, mark)| token == mark)
            .count()
            .eq(&MARK.len())
        {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += MARK.len();
        while at < tokens.len() {
            match tokens[at].as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(tokens[at - 1].as_str(), ";" | "}") {
                break;
            }
        }
    }
    kept
}

/// The paths of one `use`, groups written out, each with the name that it gets here.
fn imports(tokens: &[String], prefix: &[String], found: &mut Vec<(Vec<String>, String)>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = 0;
    let mut name = None;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "::" => {}
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at += imports(&tokens[at..], &path, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => {
                name = tokens.get(at + 1).cloned();
                at += 1;
            }
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
    found.push((path, name));
    at
}

impl Source {
    fn read(module: &Module, tokens: &[String]) -> Source {
        let mut source = Source::default();
        let mut at = 0;
        while at < tokens.len() {
            let public = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
            // `pub(in crate::part)` says who may see it, and uses nothing.
            if tokens[at] == "in" && at > 0 && tokens[at - 1] == "(" {
                at += tokens[at..].iter().position(|token| token == ")").unwrap_or(1);
                continue;
            }
            let statement = tokens[at] == "use" && tokens.get(at + 1).is_some_and(|next| next != "<");
            if statement {
                let mut found = Vec::new();
                at += 1 + imports(&tokens[at + 1..], &[], &mut found);
                for (path, name) in found {
                    let Some(path) = source.absolute(module, &path) else {
                        continue;
                    };
                    if public {
                        source.passed_on.insert(name.clone());
                    } else {
                        source.paths.push(path.clone());
                    }
                    source.names.insert(name, path);
                }
            } else if tokens[at] == "mod" && tokens.get(at + 2).is_some_and(|next| next == ";") {
                let mut child = module.clone();
                child.push(tokens[at + 1].clone());
                source.names.insert(tokens[at + 1].clone(), child);
                at += 2;
            } else if tokens.get(at + 1).is_some_and(|next| next == "::")
                && at.checked_sub(1).is_none_or(|before| tokens[before] != "::")
            {
                let mut path = vec![tokens[at].clone()];
                while tokens.get(at + 1).is_some_and(|next| next == "::")
                    && tokens
                        .get(at + 2)
                        .is_some_and(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                source.paths.push(path);
            }
            at += 1;
        }
        let written = std::mem::take(&mut source.paths);
        source.paths = written
            .iter()
            .filter_map(|path| source.absolute(module, path))
            .collect();
        source
    }

    /// The path from the crate's root; none for one that leads out of the crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut start = match first.as_str() {
            "crate" => vec!["crate".to_owned()],
            "self" => module.clone(),
            "super" => module[..module.len() - 1].to_vec(),
            word => self.names.get(word)?.clone(),
        };
        let mut rest = rest;
        while let Some((_, tail)) = rest.split_first().filter(|(word, _)| *word == "super") {
            start.pop();
            rest = tail;
        }
        start.extend(rest.iter().cloned());
        Some(start)
    }
}

/// The files of a crate by module; `tests.rs` and folders of tests are left out.
fn read_crate(folder: &Path, module: &Module, sources: &mut BTreeMap<Module, Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut of = module.clone();
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            of.push(stem);
            read_crate(&path, &of, sources);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            if !matches!(stem.as_str(), "lib" | "mod") {
                of.push(stem);
            }
            let source = Source::read(&of, &tokens(&fs::read_to_string(&path).unwrap()));
            sources.insert(of, source);
        }
    }
}

/// The module whose file defines what a path names: as many segments as are modules, and from there where it is passed on from.
fn definer(sources: &BTreeMap<Module, Source>, path: &[String]) -> Option<Module> {
    let mut module = vec![path.first()?.clone()];
    let mut rest = &path[1..];
    for _ in 0..16 {
        let Some((next, tail)) = rest.split_first() else {
            return Some(module);
        };
        let mut child = module.clone();
        child.push(next.clone());
        if sources.contains_key(&child) {
            module = child;
            rest = tail;
            continue;
        }
        let source = sources.get(&module)?;
        let from = source.names.get(next).filter(|_| source.passed_on.contains(next));
        let Some(from) = from else { return Some(module) };
        return definer(sources, from);
    }
    None
}

/// Files and the files that they name.
fn graph(sources: &BTreeMap<Module, Source>) -> BTreeMap<Module, BTreeSet<Module>> {
    let edges = |(module, source): (&Module, &Source)| {
        let to = source.paths.iter().filter_map(|path| definer(sources, path));
        (module.clone(), to.filter(|to| to != module).collect())
    };
    sources.iter().map(edges).collect()
}

/// Everything that can be reached from a module.
fn reach(graph: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&Module> = graph[from].iter().collect();
    while let Some(module) = next.pop() {
        if seen.insert(module.clone()) {
            next.extend(graph[module].iter());
        }
    }
    seen
}

/// The groups of files that name each other in a circle, each as sorted names.
fn circles(sources: &BTreeMap<Module, Source>) -> BTreeSet<Vec<String>> {
    let graph = graph(sources);
    let reaches: BTreeMap<&Module, BTreeSet<Module>> =
        graph.keys().map(|module| (module, reach(&graph, module))).collect();
    let circle = |module: &Module| -> Option<Vec<String>> {
        let both = reaches[module].iter().filter(|other| reaches[*other].contains(module));
        let group: Vec<String> = both.map(|module| module.join("::")).collect();
        (!group.is_empty()).then_some(group)
    };
    graph.keys().filter_map(circle).collect()
}

fn circles_of(crate_name: &str) -> BTreeSet<Vec<String>> {
    let mut sources = BTreeMap::new();
    read_crate(
        &root().join(crate_name).join("src"),
        &vec!["crate".to_owned()],
        &mut sources,
    );
    assert!(sources.len() > 10, "the sources of {crate_name} are read: {sources:?}");
    circles(&sources)
}

#[test]
fn no_circle_of_imports_in_monitors() {
    assert_eq!(circles_of("monitors"), BTreeSet::new());
}

#[test]
fn no_circle_of_imports_goes_through_the_agent() {
    assert_eq!(circles_of("agent"), BTreeSet::new());
}

/// Sources of a crate that exists in this test only.
fn made(files: &[(&str, &str)]) -> BTreeMap<Module, Source> {
    let read = |(name, text): &(&str, &str)| {
        let module: Module = name.split("::").map(str::to_owned).collect();
        let source = Source::read(&module, &tokens(text));
        (module, source)
    };
    files.iter().map(read).collect()
}

fn names(circles: &BTreeSet<Vec<String>>) -> Vec<String> {
    circles.iter().map(|circle| circle.join(" ")).collect()
}

#[test]
fn a_circle_is_found_through_groups_aliases_and_paths_in_the_text() {
    let found = circles(&made(&[
        ("crate", "mod a; mod b; mod c;"),
        ("crate::a", "use crate::{b::{self, Thing}, d}; fn f() { b::g() }"),
        ("crate::b", "fn g() { let x: crate::c::Other = 1; }"),
        ("crate::c", "use super::a as first; fn h() { first::f() }"),
    ]));
    assert_eq!(names(&found), ["crate::a crate::b crate::c"]);
}

#[test]
fn what_a_module_passes_on_is_where_it_was_defined() {
    let facade = [
        ("crate", "mod part; pub use part::Name;"),
        ("crate::part", "pub use self::leaf::Leaf; mod leaf; mod user;"),
        ("crate::part::leaf", "pub struct Leaf;"),
        ("crate::part::user", "use super::Leaf; use crate::Name;"),
    ];
    assert_eq!(names(&circles(&made(&facade))), [] as [&str; 0]);
    let mut used = facade;
    used[1].1 = "mod leaf; mod user; pub struct Leaf; fn f() { user::g() }";
    assert_eq!(names(&circles(&made(&used))), ["crate::part crate::part::user"]);
}

#[test]
fn tests_comments_and_texts_do_not_count() {
    let found = circles(&made(&[
        ("crate", "mod a; mod b;"),
        ("crate::a", "use crate::b::B;"),
        (
            "crate::b",
            "// use crate::a::A;\nconst T: &str = \"crate::a::A\"; #[cfg(test)] mod tests { use crate::a::A; fn f() { crate::a::g() } } pub(in crate::a) struct B;",
        ),
    ]));
    assert_eq!(names(&found), [] as [&str; 0]);
}
#[test]
fn no_circle_of_imports_in_modes() {
    assert_eq!(circles_of("modes"), BTreeSet::new());
}
