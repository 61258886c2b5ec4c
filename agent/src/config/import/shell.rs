//! Parses assignments of a file that scripts source: `NAME=value`, quotes, comments, `export`. Nothing is run; a value that
//! needs a shell is marked.

use std::iter::Peekable;
use std::str::Chars;

/// One command of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// An assignment.
    Assign(Assignment),
    /// A command to run, as written.
    Run { line: usize, text: String },
    /// A quote that is never closed; it includes the rest of the file.
    Unclosed { line: usize, quote: char },
}

/// A variable with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Where it begins, from 1.
    pub(super) line: usize,
    pub(super) name: String,
    /// Without quotes; as written if it needs a shell.
    pub(super) value: String,
    pub(super) needs_shell: bool,
}

/// A word as split by the shell.
#[derive(Default)]
struct Word {
    text: String,
    /// Bytes of `text` in front of the first quote or backslash.
    plain: usize,
    is_quoted: bool,
    needs_shell: bool,
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

/// All commands of a file, in order.
pub(super) fn commands(text: &str) -> Vec<Command> {
    let text = text.replace("\r\n", "\n");
    let mut reader = Reader {
        chars: text.chars().peekable(),
        line: 1,
    };
    let mut commands = Vec::new();
    while reader.chars.peek().is_some() {
        let line = reader.line;
        match reader.words() {
            Ok(words) => command(line, words, &mut commands),
            Err((line, quote)) => commands.push(Command::Unclosed { line, quote }),
        }
    }
    commands
}

/// One command, or as many as it assigns variables.
fn command(line: usize, words: Vec<Word>, into: &mut Vec<Command>) {
    let is_export = words
        .first()
        .is_some_and(|word| !word.is_quoted && word.text == "export");
    let rest = &words[usize::from(is_export)..];
    let parts: Vec<_> = rest.iter().map(Word::assignment).collect();
    let text = || {
        words
            .iter()
            .map(|word| word.text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    for part in &parts {
        match part {
            Some((name, value, needs_shell)) if parts.iter().all(Option::is_some) => {
                into.push(Command::Assign(Assignment {
                    line,
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                    needs_shell: *needs_shell,
                }));
            }
            // An exported name was assigned earlier, or has no value.
            None if is_export && parts.len() == 1 => {}
            _ => return into.push(Command::Run { line, text: text() }),
        }
    }
}

impl Word {
    fn assignment(&self) -> Option<(&str, &str, bool)> {
        let (name, value) = self.text.split_once('=')?;
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let is_plain = !self.is_quoted || name.len() < self.plain;
        (is_name && is_plain).then_some((name, value, self.needs_shell))
    }

    fn quote(&mut self) {
        if !self.is_quoted {
            self.is_quoted = true;
            self.plain = self.text.len();
        }
    }
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Words up to the end of the command; or the quote that is never closed, with its line.
    fn words(&mut self) -> Result<Vec<Word>, (usize, char)> {
        let mut words = Vec::new();
        let mut open: Option<Word> = None;
        while let Some(c) = self.next() {
            match c {
                '\n' | ';' => break,
                '#' if open.is_none() => {
                    while self.chars.peek().is_some_and(|c| *c != '\n') {
                        self.next();
                    }
                }
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c) => {
                        let word = open.get_or_insert_default();
                        word.quote();
                        word.text.push(c);
                    }
                },
                '"' | '\'' => {
                    let word = open.get_or_insert_default();
                    word.quote();
                    self.quoted(c, word)?;
                }
                _ if c.is_whitespace() => words.extend(open.take()),
                '$' | '`' => self.substituted(c, open.get_or_insert_default()),
                _ => {
                    let word = open.get_or_insert_default();
                    word.needs_shell |= "&|<>()".contains(c);
                    word.text.push(c);
                }
            }
        }
        words.extend(open);
        Ok(words)
    }

    /// The rest of a quoted part.
    fn quoted(&mut self, quote: char, word: &mut Word) -> Result<(), (usize, char)> {
        let line = self.line;
        while let Some(c) = self.next() {
            match c {
                _ if c == quote => return Ok(()),
                '\\' if quote == '"' => match self.next() {
                    Some('\n') => {}
                    Some(c) if "$`\"\\".contains(c) => word.text.push(c),
                    Some(c) => word.text.extend(['\\', c]),
                    None => {}
                },
                '$' | '`' if quote == '"' => self.substituted(c, word),
                _ => word.text.push(c),
            }
        }
        Err((line, quote))
    }

    /// The rest of a substitution, as written; blanks in it do not end the word.
    fn substituted(&mut self, first: char, word: &mut Word) {
        word.needs_shell = true;
        word.text.push(first);
        let (open, close) = match (first, self.chars.peek()) {
            ('`', _) => ('`', '`'),
            (_, Some('(')) => ('(', ')'),
            (_, Some('{')) => ('{', '}'),
            _ => return,
        };
        let mut depth = usize::from(first == '`');
        while let Some(c) = self.next() {
            word.text.push(c);
            if c == close {
                depth -= 1;
            } else if c == open {
                depth += 1;
            }
            if depth == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `line name=value`, with a `!` for a value that needs a shell; `line ? text` for a command to run.
    fn read(text: &str) -> Vec<String> {
        let show = |command| match command {
            Command::Assign(a) => format!(
                "{} {}={}{}",
                a.line,
                a.name,
                a.value,
                if a.needs_shell { " !" } else { "" }
            ),
            Command::Run { line, text } => format!("{line} ? {text}"),
            Command::Unclosed { line, quote } => format!("{line} {quote}"),
        };
        commands(text).into_iter().map(show).collect()
    }

    #[test]
    fn values_lose_their_quotes_and_comments() {
        let text = "A=1 # one\n#B=2\n C=\"a b\"'c #d'e\\ f\r\nexport D='$x' E=\nexport D\nF=a#b;G=\"\\$x \\\"y\\\"\"\n";
        let found = ["1 A=1", "3 C=a bc #de f", "4 D=$x", "4 E=", "6 F=a#b", "6 G=$x \"y\""];
        assert_eq!(read(text), found);
    }

    #[test]
    fn a_value_over_several_lines_has_the_number_of_its_first() {
        let found = ["1 A=mode=1\nmiimon=100", "3 B=xy", "5 C=z"];
        assert_eq!(read("A='mode=1\nmiimon=100'\nB=x\\\ny\nC=z"), found);
    }

    #[test]
    fn what_only_a_shell_knows_is_marked_and_not_run() {
        let text = "A=$(id -u $(id))\nB=\"${C:-a b} c\"\nD=`id -u`\n. ./e\n\
                    [ -f f ] && G=1\nif true; then\nH=1 true\n\"I\"=1\nJ+=1\n";
        let found = [
            "1 A=$(id -u $(id)) !",
            "2 B=${C:-a b} c !",
            "3 D=`id -u` !",
            "4 ? . ./e",
            "5 ? [ -f f ] && G=1",
            "6 ? if true",
            "6 ? then",
            "7 ? H=1 true",
            "8 ? I=1",
            "9 ? J+=1",
        ];
        assert_eq!(read(text), found);
    }

    #[test]
    fn an_open_quote_ends_the_file() {
        assert_eq!(read("A=1\nB=\"2\nC=3\n"), ["1 A=1", "2 \""]);
        assert_eq!(read("A='\\'"), ["1 A=\\"]);
        assert_eq!(read("A=1\\"), ["1 A=1"]);
    }
}
