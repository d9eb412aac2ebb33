//! Tokens into a tree.

use std::net::{IpAddr, Ipv6Addr};

use crate::{
    Error, MAX_BYTES,
    fields::{self, Field, FieldType, PROTOCOLS},
    lexer::{self, Kind, Token},
};

/// How deep parentheses and `not` may nest.
const MAX_DEPTH: usize = 64;
/// How many values a filter may compare with.
const MAX_VALUES: usize = 1000;

/// A filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// All of these.
    And(Vec<Expression>),
    /// One of these at least.
    Or(Vec<Expression>),
    /// Not this.
    Not(Box<Expression>),
    /// A field and a value, or several of which one must fit (`in`).
    Compare {
        /// What is compared.
        field: &'static Field,
        /// How.
        operator: Operator,
        /// With what: one value, for [`Operator::Equal`] one or more.
        values: Vec<Value>,
    },
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `in`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `~`: a regular expression (RE2) fits a part of the text
    Matches,
    /// `like`: `%` stands for anything, `_` for one character, in either case of letters
    Like,
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(u64),
    /// Text, a pattern.
    Text(String),
    /// Addresses from the first to the last, IPv4 mapped.
    Addresses(Ipv6Addr, Ipv6Addr),
    /// A UUID.
    Uuid(uuid::Uuid),
}

/// Reads a filter; `None` = nothing but spaces.
pub fn parse(text: &str) -> Result<Option<Expression>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::at(0, format!("a filter may have at most {MAX_BYTES} bytes")));
    }
    let tokens = lexer::tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { tokens: &tokens, next: 0, end: text.chars().count(), depth: 0, values: 0 };
    let expression = parser.any()?;
    match parser.peek() {
        None => Ok(Some(expression)),
        Some(token) => Err(Error::at(token.position, "here the filter should end, or go on with and, or")),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    end: usize,
    depth: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Expression, Error> {
        let mut parts = vec![self.all()?];
        while self.take_word("or") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Or(parts) })
    }

    fn all(&mut self) -> Result<Expression, Error> {
        let mut parts = vec![self.one()?];
        while self.take_word("and") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) })
    }

    fn one(&mut self) -> Result<Expression, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::at(self.position(), "this nests too deep"));
        }
        let expression = if self.take_word("not") {
            Expression::Not(Box::new(self.one()?))
        } else if self.take(&Kind::Open) {
            let inside = self.any()?;
            self.expect(&Kind::Close, "here a parenthesis should close")?;
            inside
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn comparison(&mut self) -> Result<Expression, Error> {
        let field = self.field()?;
        let position = self.position();
        let negated = self.take_word("not");
        let (operator, inverted) = match self.advance().map(|token| &token.kind) {
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("in") => {
                let values = self.set(field)?;
                return Ok(negate(Expression::Compare { field, operator: Operator::Equal, values }, negated));
            }
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("like") => (Operator::Like, negated),
            Some(Kind::Operator(written)) if !negated => operator(written),
            _ => return Err(Error::at(position, "here should be =, !=, <, <=, >, >=, ~, !~, in or like")),
        };
        check_operator(field, operator, position)?;
        let value = self.value(field)?;
        Ok(negate(Expression::Compare { field, operator, values: vec![value] }, inverted))
    }

    fn field(&mut self) -> Result<&'static Field, Error> {
        let position = self.position();
        match self.advance().map(|token| &token.kind) {
            Some(Kind::Word(name)) => fields::find(&name.to_ascii_lowercase()).ok_or_else(|| {
                let similar = fields::similar(name);
                let advice = if similar.is_empty() {
                    String::new()
                } else {
                    format!("; similar ones are {}", similar.join(", "))
                };
                let name: String = name.chars().take(60).collect();
                Error::at(position, format!("there is no field {name:?}{advice}"))
            }),
            _ => Err(Error::at(position, "here should be the name of a field, not or a parenthesis")),
        }
    }

    /// `(1, 2, 3)`, or a single value.
    fn set(&mut self, field: &'static Field) -> Result<Vec<Value>, Error> {
        if !self.take(&Kind::Open) {
            return Ok(vec![self.value(field)?]);
        }
        let mut values = vec![self.value(field)?];
        while self.take(&Kind::Comma) {
            values.push(self.value(field)?);
        }
        self.expect(&Kind::Close, "here should be a comma or the closing parenthesis")?;
        Ok(values)
    }

    fn value(&mut self, field: &'static Field) -> Result<Value, Error> {
        let position = self.position();
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Error::at(position, format!("a filter may have at most {MAX_VALUES} values")));
        }
        let text = match self.advance().map(|token| &token.kind) {
            Some(Kind::Word(text) | Kind::Text(text)) => text.as_str(),
            _ => return Err(Error::at(position, "here should be a value")),
        };
        read_value(field.kind, text).map_err(|reason| Error::at(position, reason))
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    fn advance(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.next);
        self.next += 1;
        token
    }

    fn position(&self) -> usize {
        self.peek().map_or(self.end, |token| token.position)
    }

    fn take(&mut self, kind: &Kind) -> bool {
        let taken = self.peek().is_some_and(|token| token.kind == *kind);
        self.next += usize::from(taken);
        taken
    }

    fn take_word(&mut self, word: &str) -> bool {
        let taken =
            matches!(self.peek(), Some(Token { kind: Kind::Word(next), .. }) if next.eq_ignore_ascii_case(word));
        self.next += usize::from(taken);
        taken
    }

    fn expect(&mut self, kind: &Kind, otherwise: &str) -> Result<(), Error> {
        let position = self.position();
        if self.take(kind) { Ok(()) } else { Err(Error::at(position, otherwise)) }
    }
}

fn negate(expression: Expression, negated: bool) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

/// The operator, and whether the comparison is the other way round.
fn operator(written: &str) -> (Operator, bool) {
    match written {
        "!=" => (Operator::Equal, true),
        "<" => (Operator::Less, false),
        "<=" => (Operator::LessOrEqual, false),
        ">" => (Operator::Greater, false),
        ">=" => (Operator::GreaterOrEqual, false),
        "~" => (Operator::Matches, false),
        "!~" => (Operator::Matches, true),
        _ => (Operator::Equal, false),
    }
}

fn check_operator(field: &Field, operator: Operator, position: usize) -> Result<(), Error> {
    let (fits, what) = match operator {
        Operator::Equal => (true, ""),
        Operator::Matches | Operator::Like => (field.kind == FieldType::Text, "is no text: ~ and like do not fit"),
        _ => (matches!(field.kind, FieldType::Number(_)), "is no number: <, <=, > and >= do not fit"),
    };
    if fits { Ok(()) } else { Err(Error::at(position, format!("{} {what}", field.name))) }
}

fn read_value(kind: FieldType, text: &str) -> Result<Value, String> {
    let shown: String = text.chars().take(60).collect();
    match kind {
        FieldType::Text => Ok(Value::Text(text.to_owned())),
        FieldType::Number(max) => match text.replace('_', "").parse() {
            Ok(number) if number <= max => Ok(Value::Number(number)),
            _ => Err(format!("{shown:?} is no whole number from 0 to {max}")),
        },
        FieldType::Protocol => {
            let named = PROTOCOLS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, number)| *number);
            match named.or_else(|| text.parse().ok()) {
                Some(number) if number <= 255 => Ok(Value::Number(number)),
                _ => Err(format!("{shown:?} is no protocol: tcp, udp, icmp, icmpv6, ... or a number from 0 to 255")),
            }
        }
        FieldType::Address => addresses(text).ok_or_else(|| format!("{shown:?} is no address or prefix")),
        FieldType::Uuid => text.parse().map(Value::Uuid).map_err(|_| format!("{shown:?} is no UUID")),
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or a single address.
fn addresses(text: &str) -> Option<Value> {
    let (address, length): (&str, u32) = match text.split_once('/') {
        Some((address, length)) if length.bytes().all(|byte| byte.is_ascii_digit()) => (address, length.parse().ok()?),
        Some(_) => return None,
        None => (text, 128),
    };
    let (address, length) = match address.parse().ok()? {
        IpAddr::V4(v4) if text.contains('/') => (v4.to_ipv6_mapped(), length.checked_add(96)?),
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 128),
        IpAddr::V6(v6) => (v6, length),
    };
    if length > 128 {
        return None;
    }
    // Shifting by all 128 bits is not defined.
    let host = u128::MAX.checked_shr(length).unwrap_or(0);
    let first = u128::from(address) & !host;
    Some(Value::Addresses(first.into(), (first | host).into()))
}
