//! Work queues: what is acked is done and forgotten; what is not is delivered again.

use std::time::Duration;

use async_nats::jetstream::{
    self, AckKind, consumer,
    consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, pull},
};
use futures::StreamExt as _;
use prost::Message as _;
use weir_proto::{AnalyseCapture, Batch};

use crate::{DecodeError, Error, codec::decode_batch, error::unavailable, names};

/// How long the ingester may hold a record before NATS delivers it again. It may wait long for the tables; records that come twice are
/// dropped by their stream sequence.
const RECORDS_ACK_WAIT: Duration = Duration::from_mins(1);
/// How many unacked messages the server hands out: more than two blocks.
const RECORDS_MAX_PENDING: i64 = 50_000;
/// What is on its way to the ingester at one time.
const RECORDS_PULL_BYTES: usize = 16 << 20;
const RECORDS_CONSUMER: &str = "ingester";
const JOBS_CONSUMER: &str = "pcap-worker";

/// One message of a work queue.
#[derive(Debug)]
pub struct Message {
    inner: jetstream::Message,
    /// Position in the stream.
    pub stream_sequence: u64,
    /// When the stream stored it, microseconds since 1970.
    pub stored_at: u64,
    /// How often it was delivered, this time included.
    pub delivered: u32,
    /// How many messages waited behind it when it was delivered.
    pub pending: u64,
    /// Number of the delivery among all of its consumer.
    delivery: u64,
}

impl Message {
    fn new(inner: jetstream::Message) -> Result<Self, Error> {
        let info = inner.info().map_err(unavailable("a message without JetStream's information"))?;
        let stored_at = u64::try_from(info.published.unix_timestamp_nanos() / 1000).unwrap_or(0);
        let (stream_sequence, delivered) = (info.stream_sequence, u32::try_from(info.delivered).unwrap_or(u32::MAX));
        let (pending, delivery) = (info.pending, info.consumer_sequence);
        Ok(Self { inner, stream_sequence, stored_at, delivered, pending, delivery })
    }

    /// The subject it was published to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.inner.subject
    }

    /// The bytes as they came.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.inner.payload
    }

    /// One header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// All headers, the first value of each.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, String)> {
        let Some(headers) = &self.inner.headers else { return Vec::new() };
        headers
            .iter()
            .filter_map(|(name, values)| Some((name.to_string(), values.first()?.as_str().to_owned())))
            .collect()
    }

    /// Makes `span` continue the trace of the sender.
    pub fn continue_trace(&self, span: &tracing::Span) {
        weir_telemetry::propagation::continue_from(span, |name| self.header(name));
    }

    /// The payload as a batch.
    pub fn batch(&self) -> Result<Batch, DecodeError> {
        decode_batch(self.payload(), |name| self.header(name))
    }

    /// The payload as a job.
    pub fn job(&self) -> Result<AnalyseCapture, DecodeError> {
        let version: u32 =
            self.header(names::VERSION_HEADER).and_then(|v| v.parse().ok()).ok_or(DecodeError::NoVersion)?;
        if version > weir_proto::VERSION {
            return Err(DecodeError::Newer { version });
        }
        Ok(AnalyseCapture::decode(self.payload())?)
    }

    /// Done: the queue forgets it. Fire and forget; a lost ack means one more delivery.
    pub async fn ack(&self) -> Result<(), Error> {
        self.inner.ack().await.map_err(unavailable("cannot ack"))
    }

    /// Done, and the server has confirmed that it will not be delivered again.
    pub async fn ack_confirmed(&self) -> Result<(), Error> {
        self.inner.double_ack().await.map_err(unavailable("cannot ack"))
    }

    /// Still at it: the time until another delivery starts anew.
    pub async fn in_progress(&self) -> Result<(), Error> {
        self.inner.ack_with(AckKind::Progress).await.map_err(unavailable("cannot prolong a job"))
    }

    /// Not done: deliver again after `delay`. The word is on its way when this returns: who stops now has said it.
    pub async fn retry_after(&self, delay: Duration) -> Result<(), Error> {
        self.inner.ack_with(AckKind::Nak(Some(delay))).await.map_err(unavailable("cannot return a job"))?;
        self.flush().await
    }

    /// Can never be done: do not deliver again. As with [`Self::retry_after`], the word is on its way.
    pub async fn terminate(&self) -> Result<(), Error> {
        self.inner.ack_with(AckKind::Term).await.map_err(unavailable("cannot terminate a job"))?;
        self.flush().await
    }

    async fn flush(&self) -> Result<(), Error> {
        self.inner.context.client().flush().await.map_err(unavailable("cannot send to NATS"))
    }
}

/// The records in stream order, without a gap: a delivery that got lost on its way ends the reader. Only what is delivered a second time
/// is out of order.
pub struct RecordsReader {
    messages: pull::Stream,
    stream_created: u64,
    last_delivery: u64,
}

impl RecordsReader {
    pub(crate) async fn open(jetstream: &jetstream::Context) -> Result<Self, Error> {
        let stream =
            jetstream.get_stream(names::RECORDS).await.map_err(unavailable("cannot open the stream of records"))?;
        let created = stream.cached_info().created.unix_timestamp_nanos();
        let stream_created = u64::try_from(created).unwrap_or(0);
        // A new consumer delivers all that is not acked from the oldest on, in order and at once; the old one would hold back what its
        // reader had in hand when it died.
        if let Err(error) = stream.delete_consumer(RECORDS_CONSUMER).await
            && !missing(&error)
        {
            return Err(unavailable("cannot take over the consumer of records")(error));
        }
        let consumer = stream
            .create_consumer(pull::Config {
                durable_name: Some(RECORDS_CONSUMER.to_owned()),
                deliver_policy: DeliverPolicy::All,
                ack_policy: AckPolicy::Explicit,
                ack_wait: RECORDS_ACK_WAIT,
                max_ack_pending: RECORDS_MAX_PENDING,
                ..pull::Config::default()
            })
            .await
            .map_err(unavailable("cannot create the consumer of records"))?;
        let messages = consumer
            .stream()
            .max_bytes_per_batch(RECORDS_PULL_BYTES)
            .messages()
            .await
            .map_err(unavailable("cannot read records"))?;
        Ok(Self { messages, stream_created, last_delivery: 0 })
    }

    /// When the stream was created, nanoseconds since 1970: sequences mean something only within one stream.
    #[must_use]
    pub fn stream_created(&self) -> u64 {
        self.stream_created
    }

    /// The next message; waits for one. An error means that the reader is of no use any more: open another.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Message, Error> {
        let message = next(&mut self.messages, "cannot read records").await?;
        // What was on its way when a connection broke comes again only after the ack wait, behind later messages.
        if message.delivery != self.last_delivery + 1 {
            return Err(unavailable("cannot read records")("a delivery got lost"));
        }
        self.last_delivery = message.delivery;
        Ok(message)
    }
}

/// Jobs, shared with other readers.
pub struct JobsReader {
    consumer: consumer::Consumer<pull::Config>,
}

impl JobsReader {
    pub(crate) async fn open(jetstream: &jetstream::Context, ack_wait: Duration) -> Result<Self, Error> {
        let stream = jetstream.get_stream(names::JOBS).await.map_err(unavailable("cannot open the stream of jobs"))?;
        let config = pull::Config {
            durable_name: Some(JOBS_CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            priority_policy: PriorityPolicy::None,
            ..pull::Config::default()
        };
        let consumer = stream
            .get_or_create_consumer(JOBS_CONSUMER, config)
            .await
            .map_err(unavailable("cannot create the consumer of jobs"))?;
        Ok(Self { consumer })
    }

    /// The next job, or `None` when none came within `wait`. One at a time: a worker that is busy holds none back.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Message>, Error> {
        let mut batch = self
            .consumer
            .batch()
            .max_messages(1)
            .expires(wait)
            .messages()
            .await
            .map_err(unavailable("cannot read jobs"))?;
        match batch.next().await {
            None => Ok(None),
            Some(Ok(message)) => Message::new(message).map(Some),
            Some(Err(error)) => Err(unavailable("cannot read jobs")(error)),
        }
    }
}

async fn next(messages: &mut pull::Stream, operation: &str) -> Result<Message, Error> {
    match messages.next().await {
        Some(Ok(message)) => Message::new(message),
        Some(Err(error)) => Err(unavailable(operation)(error)),
        None => Err(unavailable(operation)("the stream of messages ended")),
    }
}

fn missing(error: &jetstream::stream::ConsumerError) -> bool {
    matches!(
        error.kind(),
        jetstream::stream::ConsumerErrorKind::JetStream(ref inner) if inner.error_code() == jetstream::ErrorCode::CONSUMER_NOT_FOUND
    )
}
