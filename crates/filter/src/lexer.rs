//! Text into tokens.

use crate::Error;

/// A token, and how many characters stand before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) position: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Names, numbers, addresses, prefixes: what needs no quotes.
    Word(String),
    /// What stood in quotes.
    Text(String),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`, `~`, `!~`.
    Operator(&'static str),
    Open,
    Close,
    Comma,
}

/// Longer ones first.
const OPERATORS: [(&str, &str); 10] = [
    ("==", "="),
    ("!=", "!="),
    ("<>", "!="),
    ("<=", "<="),
    (">=", ">="),
    ("!~", "!~"),
    ("=", "="),
    ("<", "<"),
    (">", ">"),
    ("~", "~"),
];

pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut position = 0;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = match first {
            _ if first.is_whitespace() => (None, first.len_utf8()),
            '(' => (Some(Kind::Open), 1),
            ')' => (Some(Kind::Close), 1),
            ',' => (Some(Kind::Comma), 1),
            '"' | '\'' => {
                let (text, length) = quoted(rest, first, position)?;
                (Some(Kind::Text(text)), length)
            }
            _ if is_word(first) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Some(Kind::Word(rest[..length].to_owned())), length)
            }
            _ => match OPERATORS.iter().find(|(written, _)| rest.starts_with(written)) {
                Some((written, meant)) => (Some(Kind::Operator(meant)), written.len()),
                None => return Err(Error::at(position, format!("{first:?} has no meaning here"))),
            },
        };
        if let Some(kind) = kind {
            tokens.push(Token { kind, position });
        }
        position += rest[..length].chars().count();
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-' | '%' | '*' | '+' | '@')
}

/// The text in quotes and the bytes that it takes with them. `\\`, `\"` and `\'` stand for the character.
fn quoted(rest: &str, quote: char, position: usize) -> Result<(String, usize), Error> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            _ if c == quote => return Ok((text, at + 1)),
            '\\' => match characters.next() {
                Some((_, escaped @ ('\\' | '"' | '\''))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            _ => text.push(c),
        }
    }
    Err(Error::at(position, format!("the text that begins here has no closing {quote}")))
}
