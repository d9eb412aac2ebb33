//! Webhooks: events of containers, posted to addresses of a file.
//!
//! Each hook follows the events from its own place, which is kept in the bucket of webhooks: an event is posted at least once, also over a
//! restart, and a receiver that is slow or away holds up no other. What cannot be delivered becomes a dead letter, a row of
//! `weir.dead_letters`, and the hook goes on.

mod delivery;
mod file;

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};
use weir_bus::{Bucket, Entry, names};

use crate::{
    App, Error,
    feed::{self, Place, Row, Scope},
    metrics,
};
use delivery::{Delivery, Outcome};
pub(crate) use file::{Hook, read};

/// The pause before trying again what needs NATS or `ClickHouse`.
const AGAIN: Duration = Duration::from_secs(1);

/// Delivers for all hooks until told to stop.
pub(crate) async fn run(app: Arc<App>, hooks: Vec<Hook>) {
    if hooks.is_empty() {
        return;
    }
    info!(webhooks = hooks.len(), "delivering events");
    let mut tasks = tokio::task::JoinSet::new();
    for hook in hooks {
        let name = hook.name.clone();
        let delivery = match Delivery::new(hook) {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, webhook = name, "a webhook is not served");
                continue;
            }
        };
        let app = Arc::clone(&app);
        tasks.spawn(async move {
            let shutdown = app.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = deliver(&app, &delivery) => {}
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Delivers for one hook, beginning anew where something that it needs goes away.
async fn deliver(app: &Arc<App>, delivery: &Delivery) {
    loop {
        if let Err(error) = session(app, delivery).await {
            warn!(error = &error as &dyn std::error::Error, webhook = delivery.name(), "a webhook waits");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// From the kept place on, until something goes away or another instance delivers.
async fn session(app: &Arc<App>, delivery: &Delivery) -> Result<(), Error> {
    let bucket: Bucket<String> = app.bus()?.bucket(names::WEBHOOKS).await?;
    let key = names::key(delivery.name());
    let (place, mut revision) = if let Some(Entry { value, revision }) = bucket.get(&key).await? {
        (value.parse::<Place>()?, revision)
    } else {
        let end = app.events.end(app).await?;
        (end, bucket.create(&key, &end.to_string()).await?)
    };
    let permit = app.events.place()?;
    let mut rows = feed::follow(app, |app| &app.events, place, Scope::default(), permit);
    while let Some((place, row)) = rows.recv().await {
        if delivery.wants(&row) {
            one(app, delivery, place, row).await;
        } else if !rows.is_empty() {
            // The place is kept with the next one that is wanted, or the last that waits.
            continue;
        }
        // Err = another instance delivers for this hook, too: go on where it is.
        revision = bucket.update(&key, &place.to_string(), revision).await?;
    }
    Ok(())
}

/// Delivers one event, or makes it a dead letter.
async fn one(app: &App, delivery: &Delivery, place: Place, row: Row) {
    let id = place.to_string();
    let body = delivery.body(&id, row);
    match delivery.attempt(&id, &body).await {
        Outcome::Delivered => metrics::webhook("delivered"),
        Outcome::Refused(reason) => {
            warn!(webhook = delivery.name(), reason, "an event cannot be delivered: it becomes a dead letter");
            metrics::webhook("dead_letter");
            let reason = format!("webhook {}: {reason}", delivery.name());
            while let Err(error) = app.any_bus().send_dead_letter(&id, &reason, body.clone().into()).await {
                warn!(error = &error as &dyn std::error::Error, "a dead letter waits");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
