//! Splits a text into logical lines and words. [modutils: modules.conf(5)]

/// A logical line: comments gone, continuations joined, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first physical line, from 1.
    pub(super) number: usize,
    pub(super) text: String,
}

/// The lines of a text with their numbers.
pub(super) fn physical_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// Joins lines. `#` starts a comment anywhere. A `\` at the end, even before a comment, joins the next line: with one blank if
/// that is indented, else without any.
pub(super) fn logical_lines<'a>(physical: impl Iterator<Item = (usize, &'a str)>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut open: Option<Line> = None;
    for (number, physical) in physical {
        let content = physical.split('#').next().unwrap_or_default().trim_end();
        let (content, continues) = match content.strip_suffix('\\') {
            // Two of them stand for one.
            Some(rest) if rest.ends_with('\\') => (rest, false),
            Some(rest) => (rest, true),
            None => (content, false),
        };
        let mut line = match open.take() {
            Some(mut line) => {
                if content.starts_with(char::is_whitespace) {
                    line.text.push(' ');
                }
                line.text.push_str(content.trim_start());
                line
            }
            None => Line {
                number,
                text: content.trim_start().to_owned(),
            },
        };
        if continues {
            open = Some(line);
        } else {
            line.text.truncate(line.text.trim_end().len());
            lines.push(line);
        }
    }
    lines.extend(open);
    lines.retain(|line| !line.text.trim().is_empty());
    lines
}

/// The text up to the first blank, and what follows the blanks behind it.
pub(super) fn first_word(text: &str, is_blank: impl Fn(char) -> bool + Copy) -> (&str, &str) {
    let (word, rest) = text.split_once(is_blank).unwrap_or((text, ""));
    (word, rest.trim_start_matches(is_blank))
}

/// Splits at blanks outside quotes and removes the quotes. An unclosed quote is the error.
pub(super) fn words(text: &str) -> Result<Vec<String>, char> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.map_or(Ok(words), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String)> {
        logical_lines(physical_lines(text))
            .into_iter()
            .map(|l| (l.number, l.text))
            .collect()
    }

    #[test]
    fn comments_and_blank_lines_go_and_numbers_stay() {
        assert_eq!(
            lines("# one\n\n  a b # c\r\n\t# d\ne"),
            [(3, "a b".to_owned()), (5, "e".to_owned())]
        );
    }

    #[test]
    fn a_continued_line_has_the_number_of_its_first() {
        assert_eq!(
            lines("a \\ # why\n\tb \\   \n  c # d\ne\n"),
            [(1, "a  b  c".to_owned()), (4, "e".to_owned())]
        );
    }

    #[test]
    fn a_next_line_that_is_not_indented_is_glued_on() {
        assert_eq!(lines("miimon=100\\\nmode=1\n"), [(1, "miimon=100mode=1".to_owned())]);
    }

    #[test]
    fn two_backslashes_do_not_continue_and_a_last_one_ends_with_the_file() {
        assert_eq!(lines("a\\\\\nb \\"), [(1, "a\\".to_owned()), (2, "b ".to_owned())]);
        assert_eq!(lines("\\\n\\"), []);
    }

    #[test]
    fn only_blanks_of_the_grammar_end_a_word() {
        let spaces = |c: char| c == ' ';
        assert_eq!(first_word("a\tb  c \n", spaces), ("a\tb", "c \n"));
        assert_eq!(first_word("a\tb  c \n", char::is_whitespace), ("a", "b  c \n"));
        assert_eq!(first_word("a", char::is_whitespace), ("a", ""));
    }

    #[test]
    fn quotes_group_and_vanish() {
        assert_eq!(
            words(" a=\"b c\"  'd'e '' ").unwrap(),
            ["a=b c".to_owned(), "de".to_owned(), String::new()]
        );
        assert_eq!(words("a 'b"), Err('\''));
    }
}
