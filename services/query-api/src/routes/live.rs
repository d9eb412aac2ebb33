//! What happens, as it happens: server-sent events that can be taken up again.

mod flows;

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use crate::{
    App, Error,
    events::Wanted,
    extract::Parameters,
    feed::{self, Feed, Place, Row, Scope},
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LiveParameters {
    /// `events`, `flows`, or both with a comma; when absent, what the other parameters choose from, and both without any
    kind: Option<String>,
    /// Of flows, only those that fit, for example `dst_port = 443 and src_container = "web"`
    filter: Option<String>,
    /// Of events, only these actions, with commas: `oom,die`
    action: Option<String>,
    /// Of events, only of containers with this name; `*` stands for anything
    name: Option<String>,
    /// Of events, only of this image; `*` stands for anything
    image: Option<String>,
    /// Of events, `key` or `key=value`; several with commas, all of which it must have
    label: Option<String>,
    /// Of events, only of this compose project
    project: Option<String>,
    /// Only on this host
    host: Option<String>,
}

impl LiveParameters {
    /// Whether events, and whether flows are followed.
    fn kinds(&self) -> Result<(bool, bool), Error> {
        let Some(kinds) = &self.kind else {
            let events = [&self.action, &self.name, &self.image, &self.label, &self.project];
            let (of_events, of_flows) = (events.iter().any(|parameter| parameter.is_some()), self.filter.is_some());
            return Ok((of_events || !of_flows, of_flows || !of_events));
        };
        kinds.split(',').try_fold((false, false), |(events, flows), kind| match kind {
            "events" => Ok((true, flows)),
            "flows" => Ok((events, true)),
            _ => Err(Error::parameter("kind", "it is `events`, `flows` or both")),
        })
    }
}

/// Where a client goes on, of what it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Places {
    events: Option<Place>,
    flows: Option<Place>,
}

impl Places {
    fn read(text: &str, events: bool, flows: bool) -> Result<Self, Error> {
        let (first, second) = if events && flows {
            text.split_once('_')
                .ok_or_else(|| Error::parameter("Last-Event-ID", "this is no id of an event of this stream"))?
        } else {
            (text, text)
        };
        let place = |text: &str, wanted: bool| wanted.then(|| text.parse::<Place>()).transpose();
        Ok(Self { events: place(first, events)?, flows: place(second, flows)? })
    }

    fn id(&self) -> String {
        let places = [self.events, self.flows].into_iter().flatten().map(|place| place.to_string());
        places.collect::<Vec<_>>().join("_")
    }
}

/// What a client is told.
enum Told {
    Event(Place, Row),
    Flow(flows::Told),
}

/// What happens to containers and records of live flows from now on, as they come
///
/// Each event has an `id`; who comes back with it as `Last-Event-ID` gets what came since. Who reads flows too slowly, or comes back after
/// more than some seconds of many flows, gets an event `skipped` that says how many are left out, and goes on with the present.
#[utoipa::path(
    get, path = "/api/v1/live", tag = "containers",
    params(LiveParameters, ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event")),
    responses((status = 200, description = "Events of the names `event`, `flow` and `skipped`, until the client goes", content_type = "text/event-stream"))
)]
pub(super) async fn live(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Parameters(parameters): Parameters<LiveParameters>,
) -> Result<Response, Error> {
    let (with_events, with_flows) = parameters.kinds()?;
    let mut condition = weir_filter::condition(parameters.filter.as_deref().unwrap_or(""))?;
    if let Some(host) = &parameters.host {
        condition.sql = format!("({}) AND host = {{live_host:String}}", condition.sql);
        condition.parameters.push(("live_host".to_owned(), weir_filter::Parameter::Text(host.clone())));
    }
    let wanted = wanted(parameters);
    let permit = app.events.place()?;
    let mut places = match headers.get("last-event-id") {
        Some(id) => Places::read(id.to_str().unwrap_or_default(), with_events, with_flows)?,
        None => Places {
            events: if with_events { Some(app.events.end(&app).await?) } else { None },
            flows: if with_flows { Some(feed::end(&app, flows::TABLE).await?) } else { None },
        },
    };
    let mut permit = Some(permit);
    let events = match places.events {
        Some(from) => {
            let place = permit.take().map_or_else(|| app.events.place(), Ok)?;
            let rows = feed::follow(&app, |app| &app.events, from, Scope::default(), place);
            ReceiverStream::new(rows).map(|(place, row)| Told::Event(place, row)).boxed()
        }
        None => stream::empty().boxed(),
    };
    let flows = match places.flows {
        Some(from) => ReceiverStream::new(flows::follow(&app, from, condition, permit.take())).map(Told::Flow).boxed(),
        None => stream::empty().boxed(),
    };
    let told = stream::select(events, flows).filter_map(move |told| {
        let (event, id) = match told {
            Told::Event(place, row) => {
                places.events = Some(place);
                (wanted.fits(&row).then(|| Event::default().event("event").data(text(row))), places.id())
            }
            Told::Flow(flows::Told::Flow(place, record)) => {
                places.flows = Some(place);
                // A record is plain data: it can always be written.
                (Event::default().event("flow").json_data(record).ok(), places.id())
            }
            Told::Flow(flows::Told::Skipped(place, flows)) => {
                places.flows = Some(place);
                let data = serde_json::json!({ "flows": flows }).to_string();
                (Some(Event::default().event("skipped").data(data)), places.id())
            }
        };
        std::future::ready(event.map(|event| Ok::<_, Infallible>(event.id(id))))
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::default()).into_response())
}

fn wanted(parameters: LiveParameters) -> Wanted {
    let LiveParameters { action, name, image, label, project, host, .. } = parameters;
    let list = |text: Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.split(',')).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    Wanted {
        actions: list(action),
        containers: name.into_iter().collect(),
        images: image.into_iter().collect(),
        labels: list(label),
        projects: project.into_iter().collect(),
        hosts: host.into_iter().collect(),
    }
}

/// The rows of a feed as server-sent events: from `Last-Event-ID` on, or from now.
pub(super) async fn follow(
    app: &Arc<App>,
    feed: fn(&App) -> &Feed,
    headers: &HeaderMap,
    scope: Scope,
    name: &'static str,
    fits: impl Fn(&Row) -> bool + Send + 'static,
) -> Result<Response, Error> {
    let permit = feed(app).place()?;
    let from = match headers.get("last-event-id") {
        Some(id) => id.to_str().unwrap_or_default().parse::<Place>()?,
        None => feed(app).end(app).await?,
    };
    let rows = ReceiverStream::new(feed::follow(app, feed, from, scope, permit));
    let events = rows.filter_map(move |(place, row)| {
        let event =
            fits(&row).then(|| Ok::<_, Infallible>(Event::default().event(name).id(place.to_string()).data(text(row))));
        std::future::ready(event)
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// A row as JSON, with whose it is.
fn text(row: Row) -> String {
    let mut data = row.columns;
    data.insert("host".into(), row.host.into());
    data.insert("container_id".into(), row.container_id.into());
    serde_json::Value::Object(data).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_choose_what_is_followed() {
        let kinds = |query: &str| serde_json::from_str::<LiveParameters>(query).unwrap().kinds();
        for (query, expected) in [
            ("{}", (true, true)),
            (r#"{"host": "h"}"#, (true, true)),
            (r#"{"action": "die"}"#, (true, false)),
            (r#"{"filter": "dst_port = 443"}"#, (false, true)),
            (r#"{"filter": "dst_port = 443", "label": "a"}"#, (true, true)),
            (r#"{"kind": "flows"}"#, (false, true)),
            (r#"{"kind": "events,flows", "action": "die"}"#, (true, true)),
        ] {
            assert_eq!(kinds(query).unwrap(), expected, "{query}");
        }
        assert!(kinds(r#"{"kind": "other"}"#).is_err());
    }

    #[test]
    fn the_id_of_two_streams_says_where_each_is() {
        let both = Places::read("1-2-3_4-5-6", true, true).unwrap();
        assert_eq!(both.id(), "1-2-3_4-5-6");
        assert_eq!(Places::read("1-2-3", false, true).unwrap().id(), "1-2-3");
        assert!(Places::read("1-2-3", true, true).is_err() && Places::read("x_1-2-3", true, true).is_err());
    }
}
