//! Questions about containers that have an answer ready: a view each, and here what it is asked with.

mod catalogue;

use std::{net::Ipv6Addr, sync::Arc};

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::{
    App, Error, cursor,
    extract::{Parameters, Segment},
    time::Range,
    values::{Moment, Page},
};
use catalogue::{CATALOGUE, Question};

/// The most items at one time.
const MAX_LIMIT: u32 = 10_000;

/// A question that can be asked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuestionDescription {
    name: &'static str,
    /// What it answers
    description: &'static str,
    /// The view behind it, for `POST /api/v1/query`
    view: &'static str,
    /// `from` when it is absent
    default_from: &'static str,
    /// What it takes besides `from`, `to`, `limit` and `cursor`
    parameters: Vec<QuestionParameter>,
}

/// A parameter of a question.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuestionParameter {
    name: &'static str,
    description: &'static str,
    /// Null = no condition
    default: Option<&'static str>,
}

/// The questions
#[utoipa::path(
    get, path = "/api/v1/questions", tag = "questions",
    responses((status = 200, description = "All of them", body = Page<QuestionDescription>))
)]
pub(super) async fn list() -> Json<Page<QuestionDescription>> {
    let describe = |question: &Question| QuestionDescription {
        name: question.name,
        description: question.description,
        view: question.view,
        default_from: question.default_from,
        parameters: question
            .conditions
            .iter()
            .map(|condition| QuestionParameter {
                name: condition.name,
                description: condition.description,
                default: condition.default,
            })
            .collect(),
    };
    Json(Page::whole(CATALOGUE.iter().map(describe).collect()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AskParameters {
    /// At or after this moment; RFC 3339 or relative such as -15m; `default_from` of the question when absent
    from: Option<String>,
    /// and before this one; now when absent
    to: Option<String>,
    /// Only on this host
    host: Option<String>,
    /// Only of containers with this name
    container: Option<String>,
    /// Only of this compose project
    project: Option<String>,
    /// Only after events of this action: `oom`, `die`
    action: Option<String>,
    /// More than this share of the packets were sent again: 0.01 = one of a hundred
    above: Option<f64>,
    /// How many, from 1 to 10000; 100 when absent
    limit: Option<u32>,
    /// `next_cursor` of the part before
    cursor: Option<String>,
}

impl AskParameters {
    /// The values that conditions can take, by name.
    fn values(&self) -> [(&'static str, Option<String>); 5] {
        [
            ("host", self.host.clone()),
            ("container", self.container.clone()),
            ("project", self.project.clone()),
            ("action", self.action.clone()),
            ("above", self.above.map(|above| above.to_string())),
        ]
    }
}

/// Where an answer goes on, and the range that its first part had.
#[derive(Serialize, Deserialize)]
struct Place {
    from: i64,
    to: i64,
    offset: u64,
}

/// The answer to a question.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answer {
    question: &'static str,
    from: Moment,
    to: Moment,
    /// The columns depend on the question; docs/reference/questions.md lists them
    #[schema(value_type = Vec<Object>)]
    items: Vec<Map<String, Value>>,
    /// Give it as `cursor` for the next part; null = this was the last
    next_cursor: Option<String>,
}

/// Ask a question
#[utoipa::path(
    get, path = "/api/v1/questions/{question}", tag = "questions",
    params(("question" = String, Path, description = "Its name"), AskParameters),
    responses((status = 200, description = "A part of the answer", body = Answer))
)]
pub(super) async fn ask(
    State(app): State<Arc<App>>,
    Segment(name): Segment,
    Parameters(parameters): Parameters<AskParameters>,
) -> Result<Json<Answer>, Error> {
    let question = CATALOGUE.iter().find(|question| question.name == name);
    let question =
        question.ok_or_else(|| Error::NotFound { what: "question", name: name.chars().take(100).collect() })?;
    let limit = cursor::limit(parameters.limit, 100, MAX_LIMIT)?;
    let place = if let Some(text) = &parameters.cursor {
        cursor::decode::<Place>(text)?
    } else {
        let from = parameters.from.as_deref().unwrap_or(question.default_from);
        let Range { from, to } = Range::read(Some(from), parameters.to.as_deref(), Timestamp::now())?;
        Place { from, to, offset: 0 }
    };
    let (conditions, values) = conditions(question, &parameters)?;
    let mut sql = question.sql.replace("$conditions", &conditions);
    for (name, parameter) in [("$from", "{from:Int64}"), ("$to", "{to:Int64}")] {
        sql = sql.replace(name, &format!("fromUnixTimestamp64Micro({parameter}, 'UTC')"));
    }
    sql = format!("{sql} LIMIT {} OFFSET {}", limit + 1, place.offset);
    let mut query = super::typed(&app, &sql).param("from", place.from).param("to", place.to);
    for (name, value) in values {
        query = query.param(name, value);
    }
    let _place = app.query_place()?;
    let mut items: Vec<Map<String, Value>> = super::rows(query).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    items.iter_mut().for_each(readable);
    let next = Place { offset: place.offset + u64::from(limit), ..place };
    let next_cursor = more.then(|| cursor::encode(&next)).transpose()?;
    Ok(Json(Answer { question: question.name, from: Moment(next.from), to: Moment(next.to), items, next_cursor }))
}

/// Values of parameters by name.
type Values = Vec<(&'static str, String)>;

/// The conditions that were asked for, and their values by name.
fn conditions(question: &Question, parameters: &AskParameters) -> Result<(String, Values), Error> {
    let (mut sql, mut values) = (String::from("true"), Vec::new());
    for (name, given) in parameters.values() {
        let Some(condition) = question.conditions.iter().find(|condition| condition.name == name) else {
            if given.is_some() {
                return Err(Error::parameter(name, format!("the question {} does not take {name}", question.name)));
            }
            continue;
        };
        if let Some(value) = given.or_else(|| condition.default.map(str::to_owned)) {
            sql.push_str(" AND ");
            sql.push_str(condition.sql);
            values.push((name, value));
        }
    }
    Ok((sql, values))
}

/// Addresses of IPv4 as such.
fn readable(item: &mut Map<String, Value>) {
    for (name, value) in item.iter_mut() {
        match value {
            Value::String(text) if name.ends_with("_ip") => canonical(text),
            Value::Array(list) if name == "ips" => list.iter_mut().for_each(|value| {
                if let Value::String(text) = value {
                    canonical(text);
                }
            }),
            _ => {}
        }
    }
}

fn canonical(text: &mut String) {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        *text = address.to_canonical().to_string();
    }
}
