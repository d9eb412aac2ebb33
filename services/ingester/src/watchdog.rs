//! Whether what the ingester needs is there: the conditions behind `/readyz`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::warn;
use weir_bus::Bus;
use weir_service::{Context, Health, Shutdown, chain};
use weir_store::{Error, Options, Writer, schema};

/// How often the engines are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// Pause between two tries to bring the database up.
const AGAIN: Duration = Duration::from_secs(1);

/// The health of the ingester, from the work itself and from a look aside where the work says nothing.
#[derive(Clone)]
pub(crate) struct Status {
    health: Health,
    work: Arc<Mutex<Work>>,
}

/// What the work knows.
#[derive(Debug, Default)]
struct Work {
    /// A session reads.
    reading: bool,
    /// The last insert failed.
    failing: bool,
}

impl Status {
    pub(crate) fn new(health: Health) -> Self {
        for condition in ["nats", "clickhouse", "schema"] {
            health.unmet(condition, "starting");
        }
        Self { health, work: Arc::default() }
    }

    /// A session reads.
    pub(crate) fn reading(&self) {
        self.work().reading = true;
        self.health.met("nats");
    }

    /// NATS does not answer.
    pub(crate) fn nats_away(&self, error: &(dyn std::error::Error + 'static)) {
        self.work().reading = false;
        self.health.unmet("nats", chain(error));
    }

    /// A table took its rows.
    pub(crate) fn inserted(&self) {
        self.work().failing = false;
        self.health.met("clickhouse");
    }

    /// A table did not take its rows.
    pub(crate) fn insert_failed(&self, table: &str, error: &Error) {
        self.work().failing = true;
        let reason = if error.is_transient() {
            format!("rows of {table} wait: {}", chain(error))
        } else {
            format!("rows of {table} are refused, they are tried again until somebody helps: {}", chain(error))
        };
        self.health.unmet("clickhouse", reason);
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the engines every few seconds: while there is nothing to do the work does not notice that they are away.
pub(crate) fn start(bus: Bus, writer: Writer, status: Status, shutdown: Shutdown) {
    tokio::spawn(async move {
        let mut every = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = every.tick() => {}
            }
            let ping = writer.ping().await;
            let work = status.work();
            if !work.failing {
                match ping {
                    Ok(()) => status.health.met("clickhouse"),
                    Err(error) => status.health.unmet("clickhouse", chain(&error)),
                }
            }
            match (bus.is_connected(), work.reading) {
                (false, _) => status.health.unmet("nats", "not connected"),
                (true, true) => status.health.met("nats"),
                (true, false) => {}
            }
        }
    });
}

/// Brings the database to this version's schema, and waits for `ClickHouse` for as long as it takes. False = told to stop before.
pub(crate) async fn schema(options: &Options, status: &Status, context: &Context) -> Result<bool, Error> {
    loop {
        match schema::migrate(options).await {
            Ok(_) => {
                context.health.met("schema");
                status.inserted();
                return Ok(true);
            }
            Err(error @ (Error::Newer { .. } | Error::Changed { .. })) => return Err(error),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot bring the database to this version's schema yet"
                );
                context.health.unmet("clickhouse", chain(&error));
                context.health.unmet("schema", "waits for ClickHouse");
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return Ok(false),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}
