//! The connection to NATS.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{ConnectOptions, Event, ServerAddr, jetstream};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_proto::Batch;

use crate::{
    Bucket, Error, JobsReader, Objects, PlainBatch, RecordsReader,
    codec::{compress, encode_batch},
    error::unavailable,
    names, topology,
};

/// How long a request waits for the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause between two tries to reach a server that is away.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Where NATS is, and how large its streams may grow.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "NATS")]
#[group(id = "bus-options")]
pub struct Options {
    /// Address of NATS; user and password may stand in it
    #[arg(
        long,
        env = "WEIR_NATS_URL",
        value_name = "URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: String,
    /// Credentials file (JWT and nkey) for NATS
    #[arg(long, env = "WEIR_NATS_CREDENTIALS", value_name = "FILE")]
    pub nats_credentials: Option<PathBuf>,
    /// Largest size of the stream of records, when it is created: how long the ingester may be away before producers spool
    #[arg(long, env = "WEIR_RECORDS_MAX_BYTES", value_name = "BYTES", default_value_t = 2 << 30)]
    pub records_max_bytes: u64,
    /// Largest size of all uploaded captures together, when their store is created
    #[arg(long, env = "WEIR_UPLOADS_MAX_BYTES", value_name = "BYTES", default_value_t = 8 << 30)]
    pub uploads_max_bytes: u64,
}

impl Options {
    /// The TCP port of NATS, for a process that confines itself; none where the address cannot be read.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.nats_url.parse().ok().map(|address: ServerAddr| address.port())
    }
}

/// A connection that comes back by itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    options: Options,
    /// What the client said last about a connection that does not stand.
    problem: Arc<Mutex<Option<String>>>,
}

impl Bus {
    /// Starts to connect and returns at once: a server that is away is waited for in the background. Only an address or a credential
    /// that cannot be used is an error. `service` names the connection on the server.
    pub async fn connect(options: &Options, service: &str) -> Result<Self, Error> {
        let refused = |source: Box<dyn std::error::Error + Send + Sync>| Error::Address {
            url: without_credentials(&options.nats_url),
            source,
        };
        let problem = Arc::default();
        let mut connect = ConnectOptions::new()
            .name(service)
            .retry_on_initial_connect()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(backoff)
            .event_callback({
                let problem = Arc::clone(&problem);
                move |event| {
                    note(&problem, &event);
                    async {}
                }
            });
        let address: ServerAddr = options.nats_url.parse().map_err(|error: std::io::Error| refused(error.into()))?;
        // The client does not take them from the address by itself.
        connect = match (address.username(), address.password()) {
            (None, _) => connect,
            (Some(token), None) => connect.token(decoded(token)),
            (Some(user), Some(password)) => connect.user_and_password(decoded(user), decoded(password)),
        };
        if let Some(path) = &options.nats_credentials {
            let text = tokio::fs::read_to_string(path).await.map_err(|error| refused(error.into()))?;
            connect = connect.credentials(&text).map_err(|error| refused(error.into()))?;
        }
        let client = connect.connect(address).await.map_err(|error| refused(error.into()))?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Ok(Self { client, jetstream, options: options.clone(), problem })
    }

    /// Waits until NATS answers and has every stream, bucket and store that Weir uses; creates what is missing. Tries again for as long
    /// as it takes, until `shutdown`; `report` is told why it is not there yet.
    pub async fn ready(&self, shutdown: &CancellationToken, mut report: impl FnMut(&Error)) -> Result<(), Error> {
        let mut attempts = 0;
        loop {
            let tried = if self.is_connected() {
                topology::ensure(&self.jetstream, &self.options).await
            } else {
                Err(self.away())
            };
            match tried {
                Ok(()) => return Ok(()),
                Err(error) => {
                    report(&error);
                    attempts += 1;
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep(backoff(attempts)) => {}
            }
        }
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    fn away(&self) -> Error {
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let address = without_credentials(&self.options.nats_url);
        unavailable(format!("NATS at {address} does not answer"))(
            problem.unwrap_or_else(|| "not connected yet".to_owned()),
        )
    }

    /// Publishes a batch and waits until the stream has it. For a producer that can do its work again; others use [`crate::Publisher`].
    pub async fn send(&self, subject: &'static str, batch: &Batch) -> Result<(), Error> {
        self.send_encoded(subject, &message_id(batch), encode_batch(batch).into()).await
    }

    /// As [`Self::send`], for a batch that is encoded already.
    pub async fn send_plain(&self, subject: &'static str, batch: &PlainBatch) -> Result<(), Error> {
        let payload = compress(&batch.bytes).into();
        self.send_encoded(subject, &format!("{}-{}", batch.producer, batch.sequence), payload).await
    }

    /// Puts something that could not be delivered among the records, where it becomes a dead letter; `id` makes asking twice the same as
    /// asking once.
    pub async fn send_dead_letter(&self, id: &str, reason: &str, payload: bytes::Bytes) -> Result<(), Error> {
        let mut headers = trace_headers();
        // A header is one line.
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, format!("{reason} {id}"));
        headers.insert(names::DEAD_LETTER_HEADER, reason);
        let bytes = payload.len();
        let stored = self
            .jetstream
            .publish_with_headers(names::RECORDS_DEAD, headers, payload)
            .await
            .map_err(|error| too_large(error, bytes))?;
        stored.await.map_err(|error| too_large(error, bytes))?;
        Ok(())
    }

    pub(crate) async fn send_encoded(
        &self,
        subject: &'static str,
        message_id: &str,
        payload: bytes::Bytes,
    ) -> Result<(), Error> {
        let mut headers = trace_headers();
        headers.insert(names::VERSION_HEADER, weir_proto::VERSION.to_string());
        headers.insert(names::ENCODING_HEADER, "zstd");
        headers.insert(async_nats::header::NATS_MESSAGE_ID, message_id);
        let bytes = payload.len();
        let stored = self
            .jetstream
            .publish_with_headers(subject, headers, payload)
            .await
            .map_err(|error| too_large(error, bytes))?;
        stored.await.map_err(|error| too_large(error, bytes))?;
        Ok(())
    }

    /// Queues work for pcap-worker and waits until the queue has it. `id` makes asking twice the same as asking once.
    pub async fn send_job(&self, job: &weir_proto::AnalyseCapture, id: &str) -> Result<(), Error> {
        let mut headers = trace_headers();
        headers.insert(names::VERSION_HEADER, weir_proto::VERSION.to_string());
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        let queued = self
            .jetstream
            .publish_with_headers(names::JOBS_PCAP, headers, job.encode_to_vec().into())
            .await
            .map_err(unavailable("cannot queue a job"))?;
        queued.await.map_err(unavailable("cannot queue a job"))?;
        Ok(())
    }

    /// The records in stream order, from the oldest that nobody acked. There can be only one reader: this takes over from another.
    pub async fn records(&self) -> Result<RecordsReader, Error> {
        RecordsReader::open(&self.jetstream).await
    }

    /// The jobs; any number of readers share them. A job that is not acked or prolonged within `ack_wait` goes to another reader.
    pub async fn jobs(&self, ack_wait: Duration) -> Result<JobsReader, Error> {
        JobsReader::open(&self.jetstream, ack_wait).await
    }

    /// A key-value bucket, one of [`names`].
    pub async fn bucket<T: prost::Message + Default>(&self, name: &'static str) -> Result<Bucket<T>, Error> {
        Bucket::open(&self.jetstream, name).await
    }

    /// An object store, one of [`names`].
    pub async fn objects(&self, name: &'static str) -> Result<Objects, Error> {
        Objects::open(&self.jetstream, name).await
    }
}

/// The batch that removes every row that an analysis has made of a capture, and with which it ends for ever: it has the highest sequence
/// of all, so that what a straggler still sends in the name of the analysis is older than the ingester's window and counts as taken. It may
/// be sent any number of times, and rows of another analysis that come after the first time stay.
#[must_use]
pub fn purge(capture_id: uuid::Uuid, analysis_id: Vec<u8>) -> Batch {
    let capture_id = capture_id.as_bytes().to_vec();
    let purge = weir_proto::Capture { capture_id: capture_id.clone(), purge: true, ..Default::default() };
    Batch {
        producer: analysis_id,
        sequence: u64::MAX,
        source: weir_proto::Source::Pcap.into(),
        capture_id,
        captures: vec![purge],
        ..Batch::default()
    }
}

/// The name of a batch for NATS's own duplicate window.
pub(crate) fn message_id(batch: &Batch) -> String {
    let producer: [u8; 16] = batch.producer.as_slice().try_into().unwrap_or_default();
    format!("{}-{}", uuid::Uuid::from_bytes(producer), batch.sequence)
}

/// 0.1 s, 0.2 s, ... up to [`MAX_BACKOFF`].
pub(crate) fn backoff(attempts: usize) -> Duration {
    let doubled = 100_u64.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    Duration::from_millis(doubled).min(MAX_BACKOFF)
}

pub(crate) fn trace_headers() -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in weir_telemetry::propagation::headers_of(&tracing::Span::current()) {
        headers.insert(name, value);
    }
    headers
}

fn too_large(error: jetstream::context::PublishError, bytes: usize) -> Error {
    match error.kind() {
        jetstream::context::PublishErrorKind::MaxPayloadExceeded => Error::TooLarge { bytes },
        _ => unavailable("cannot publish records")(error),
    }
}

fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, address)) => address.to_owned(),
        None => url.to_owned(),
    }
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// Logs what happens to the connection, and keeps what is wrong with it for whoever waits.
fn note(problem: &Mutex<Option<String>>, event: &Event) {
    let mut problem = problem.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::Connected => {
            info!("connected to NATS");
            *problem = None;
        }
        Event::Disconnected => warn!("disconnected from NATS, connecting again"),
        // The service is stopping.
        Event::Closed | Event::Draining => {}
        Event::SlowConsumer(_) => metrics::counter!("weir_bus_slow_consumer_total").increment(1),
        other => {
            let text = other.to_string();
            // It comes with every try; once is enough in the log.
            if problem.as_deref() != Some(&text) {
                warn!(problem = text, "NATS");
            }
            *problem = Some(text);
        }
    }
}
