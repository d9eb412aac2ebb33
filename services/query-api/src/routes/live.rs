//! What happens, as it happens: server-sent events that can be taken up again.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::StreamExt as _;
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};

use crate::{
    App, Error,
    events::Wanted,
    extract::Parameters,
    feed::{self, Feed, Place, Row, Scope},
};

/// What can be followed.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// What happens to containers, images and volumes
    #[default]
    Events,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LiveParameters {
    /// `events`
    #[param(inline)]
    kind: Option<Kind>,
    /// Only these actions, with commas: `oom,die`
    action: Option<String>,
    /// Only of containers with this name; `*` stands for anything
    name: Option<String>,
    /// Only of this image; `*` stands for anything
    image: Option<String>,
    /// `key` or `key=value`; several with commas, all of which it must have
    label: Option<String>,
    /// Only of this compose project
    project: Option<String>,
    /// Only on this host
    host: Option<String>,
}

/// What happens to containers from now on, as it comes
///
/// Each event has an `id`; who comes back with it as `Last-Event-ID` gets what came since.
#[utoipa::path(
    get, path = "/api/v1/live", tag = "containers",
    params(LiveParameters, ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event")),
    responses((status = 200, description = "Events of the name `event`, until the client goes", content_type = "text/event-stream"))
)]
pub(super) async fn live(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Parameters(parameters): Parameters<LiveParameters>,
) -> Result<Response, Error> {
    let LiveParameters { kind, action, name, image, label, project, host } = parameters;
    let list = |text: Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.split(',')).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let wanted = Wanted {
        actions: list(action),
        containers: name.into_iter().collect(),
        images: image.into_iter().collect(),
        labels: list(label),
        projects: project.into_iter().collect(),
        hosts: host.into_iter().collect(),
    };
    let feed: fn(&App) -> &Feed = match kind.unwrap_or_default() {
        Kind::Events => |app| &app.events,
    };
    follow(&app, feed, &headers, Scope::default(), "event", move |row| wanted.fits(row)).await
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
        let event = fits(&row).then(|| {
            let mut data = row.columns;
            data.insert("host".into(), row.host.into());
            data.insert("container_id".into(), row.container_id.into());
            let text = serde_json::Value::Object(data).to_string();
            Ok::<_, Infallible>(Event::default().event(name).id(place.to_string()).data(text))
        });
        std::future::ready(event)
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
