//! Walks over the text of a filter.

use super::Operator;

/// A position in the text of a filter.
pub(super) struct Scanner<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, rest: text.trim_start() }
    }

    /// Where the next thing begins, in characters from 1.
    pub(super) fn position(&self) -> usize {
        let read = self.text.len() - self.rest.len();
        self.text.get(..read).map_or(0, |read| read.chars().count()) + 1
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Goes past one character if it is next.
    pub(super) fn eat(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    /// Reads a name or a joining word: up to white space, an operator, a quote or a parenthesis.
    pub(super) fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!<>:\"()".contains(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    pub(super) fn operator(&mut self) -> Option<Operator> {
        // Longer ones first: `<=` begins with `<`.
        const OPERATORS: [Operator; 7] = [
            Operator::NotEqual,
            Operator::LessOrEqual,
            Operator::GreaterOrEqual,
            Operator::Equal,
            Operator::Less,
            Operator::Greater,
            Operator::Has,
        ];
        let found = OPERATORS.into_iter().find(|operator| self.rest.starts_with(operator.as_str()))?;
        self.take(found.as_str().len());
        Some(found)
    }

    /// Reads a value: in quotes with `\"` and `\\`, or up to white space or a parenthesis, so that times and names with
    /// colons need no quotes.
    pub(super) fn value(&mut self) -> Result<String, &'static str> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find(|c: char| c.is_whitespace() || "()\"".contains(c)).unwrap_or(self.rest.len());
            return if end == 0 { Err("expected a value") } else { Ok(self.take(end).to_owned()) };
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.take(1 + at + 1);
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err("in quotes, \\ must be followed by \" or \\"),
                },
                other => value.push(other),
            }
        }
        Err("there is no closing quote")
    }

    /// Takes bytes, up to a character boundary that the caller has found, and the white space after them.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        taken
    }
}
