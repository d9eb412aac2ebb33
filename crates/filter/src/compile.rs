//! A tree into a condition of `ClickHouse` with parameters.

use std::fmt::Write as _;

use crate::parser::{Expression, Operator, Value as Literal};

/// A condition for `WHERE` and the values of its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Holds only names of columns, operators and `{f0:UInt64}`.
    pub sql: String,
    /// By name.
    pub parameters: Vec<(String, Value)>,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    /// `UInt64`
    Number(u64),
    /// `String`, `IPv6`, `UUID`
    Text(String),
}

impl Condition {
    /// Holds for every row.
    #[must_use]
    pub fn everything() -> Self {
        Self { sql: "true".into(), parameters: Vec::new() }
    }

    fn parameter(&mut self, kind: &str, value: Value) -> String {
        let name = format!("f{}", self.parameters.len());
        let written = format!("{{{name}:{kind}}}");
        self.parameters.push((name, value));
        written
    }
}

pub(crate) fn compile(expression: &Expression) -> Condition {
    let mut condition = Condition { sql: String::new(), parameters: Vec::new() };
    let sql = write(expression, &mut condition);
    condition.sql = sql;
    condition
}

fn write(expression: &Expression, condition: &mut Condition) -> String {
    match expression {
        Expression::And(parts) => joined(parts, " AND ", condition),
        Expression::Or(parts) => joined(parts, " OR ", condition),
        // What is not measured (NULL) neither fits nor does not fit; `not` must not make a fit of it, and SQL agrees.
        Expression::Not(inside) => format!("(NOT {})", write(inside, condition)),
        Expression::Compare { field, operator, values } => {
            let mut alternatives = Vec::new();
            for value in values {
                let tests = test(*operator, value, condition);
                for column in field.columns {
                    alternatives.push(tests.replace('$', column));
                }
            }
            format!("({})", alternatives.join(" OR "))
        }
    }
}

fn joined(parts: &[Expression], operator: &str, condition: &mut Condition) -> String {
    let parts: Vec<_> = parts.iter().map(|part| write(part, condition)).collect();
    format!("({})", parts.join(operator))
}

/// The test of one value, with `$` for the column.
fn test(operator: Operator, value: &Literal, condition: &mut Condition) -> String {
    let operator = match operator {
        Operator::Equal => "=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
        Operator::Matches => "match",
        Operator::Like => "ILIKE",
    };
    match value {
        Literal::Number(number) => {
            let parameter = condition.parameter("UInt64", Value::Number(*number));
            format!("$ {operator} {parameter}")
        }
        Literal::Text(text) => {
            let parameter = condition.parameter("String", Value::Text(text.clone()));
            if operator == "match" { format!("match($, {parameter})") } else { format!("$ {operator} {parameter}") }
        }
        Literal::Uuid(uuid) => {
            let parameter = condition.parameter("UUID", Value::Text(uuid.to_string()));
            format!("$ = {parameter}")
        }
        Literal::Addresses(first, last) => {
            let from = condition.parameter("IPv6", Value::Text(first.to_string()));
            if first == last {
                return format!("$ = {from}");
            }
            let to = condition.parameter("IPv6", Value::Text(last.to_string()));
            let mut sql = String::new();
            // Writing to a String cannot fail.
            let _written = write!(sql, "$ BETWEEN {from} AND {to}");
            sql
        }
    }
}
