//! A question whose answer comes in pieces, without being stored anywhere.
//!
//! Each piece waits for the word of who asked that there is room for it, so neither side holds more than a few; who asked and goes away is
//! noticed with the next piece, and so is who answers and dies, after a time. Nothing is kept: who gets no end asks again. Who has enough
//! says so with its word for a piece, and then the answer comes to its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;

use crate::{Bus, Error, connection::trace_headers, error::unavailable};

/// Bytes of a piece at most; a message may have 1 MiB.
pub const PIECE_BYTES: usize = 256 << 10;
/// How long one piece may take to be taken: a client may be slow.
const PIECE_TIMEOUT: Duration = Duration::from_mins(2);
/// How long nothing may come of an answer.
const SILENCE: Duration = Duration::from_mins(1);
/// Those who answer share the questions.
const GROUP: &str = "weir";
/// What a message of an answer is.
const HEADER: &str = "Weir-Piece";
const MORE: &str = "more";
const END: &str = "end";
const BUSY: &str = "busy";
const FAILED: &str = "failed";
/// The word for a piece after which there should be no more than what belongs to the end.
const ENOUGH: &[u8] = b"enough";

/// Why an answer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is nobody who answers such questions.
    #[error("nobody is there to answer")]
    Nobody,
    /// Who got the question has enough to do.
    #[error("all who could answer are busy")]
    Busy,
    /// Who answers says that it cannot.
    #[error("{0}")]
    Failed(String),
    /// Who answered went silent.
    #[error("the answer broke off")]
    BrokeOff,
    /// The connection failed.
    #[error(transparent)]
    Bus(#[from] Error),
}

/// An answer as it comes.
pub struct Answer {
    client: async_nats::Client,
    messages: Subscriber,
    enough: Enough,
}

/// Asks for the end of an answer, from wherever it is read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Enough(Arc<AtomicBool>);

impl Enough {
    /// Whoever answers hears it with the word for its next piece.
    pub fn say(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn word(&self) -> Bytes {
        if self.0.load(Ordering::Relaxed) { Bytes::from_static(ENOUGH) } else { Bytes::new() }
    }
}

/// What who asked wants after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The next one.
    More,
    /// The end.
    TheEnd,
}

impl Answer {
    /// With which the end can be asked for.
    #[must_use]
    pub fn enough(&self) -> Enough {
        self.enough.clone()
    }

    /// The next piece; none at the end. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, AnswerError> {
        let message = tokio::time::timeout(SILENCE, self.messages.next());
        let message = message.await.map_err(|_| AnswerError::BrokeOff)?.ok_or(AnswerError::BrokeOff)?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(AnswerError::Nobody);
        }
        let kind = message.headers.as_ref().and_then(|headers| headers.get(HEADER)).map_or("", |kind| kind.as_str());
        match kind {
            MORE => {
                // Who asked has taken the one before, and so has room for the next.
                if let Some(reply) = message.reply {
                    let taken = self.client.publish(reply, self.enough.word()).await;
                    taken.map_err(unavailable("cannot take a piece"))?;
                }
                Ok(Some(message.payload))
            }
            END => Ok(None),
            BUSY => Err(AnswerError::Busy),
            FAILED => Err(AnswerError::Failed(String::from_utf8_lossy(&message.payload).into_owned())),
            _ => Err(AnswerError::BrokeOff),
        }
    }
}

/// Questions, shared with others who answer.
pub struct Questions {
    client: async_nats::Client,
    messages: Subscriber,
}

impl Questions {
    /// The next question; none when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Question> {
        loop {
            let message = self.messages.next().await?;
            // One that nobody waits for.
            let Some(reply) = message.reply else { continue };
            let headers = message.headers.unwrap_or_default();
            return Some(Question { client: self.client.clone(), reply, headers, payload: message.payload });
        }
    }
}

/// A question that is to be answered.
pub struct Question {
    client: async_nats::Client,
    reply: Subject,
    headers: HeaderMap,
    /// What is asked.
    pub payload: Bytes,
}

impl Question {
    /// Makes `span` continue the trace of who asks.
    pub fn continue_trace(&self, span: &tracing::Span) {
        let header = |name: &str| self.headers.get(name).map(async_nats::HeaderValue::as_str);
        weir_telemetry::propagation::continue_from(span, header);
    }

    /// Sends a piece, and waits until who asked has room for another. An error means that nobody listens any more.
    pub async fn send(&self, piece: Bytes) -> Result<Wants, Error> {
        let request = async_nats::Request::new().headers(kind(MORE)).payload(piece).timeout(Some(PIECE_TIMEOUT));
        let taken = self.client.send_request(self.reply.clone(), request).await;
        let word = taken.map_err(unavailable("nobody takes the answer"))?;
        Ok(if word.payload == ENOUGH { Wants::TheEnd } else { Wants::More })
    }

    /// The answer is whole.
    pub async fn end(self) -> Result<(), Error> {
        self.last(END, Bytes::new()).await
    }

    /// There is no answer at this moment: somebody else may have one.
    pub async fn busy(self) -> Result<(), Error> {
        self.last(BUSY, Bytes::new()).await
    }

    /// There is none, or what was sent of it is not whole; `reason` is for people.
    pub async fn fail(self, reason: String) -> Result<(), Error> {
        self.last(FAILED, reason.into()).await
    }

    async fn last(self, what: &'static str, payload: Bytes) -> Result<(), Error> {
        let sent = self.client.publish_with_headers(self.reply, kind(what), payload).await;
        sent.map_err(unavailable("cannot end an answer"))?;
        self.client.flush().await.map_err(unavailable("cannot end an answer"))
    }
}

fn kind(what: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, what);
    headers
}

impl Bus {
    /// Asks whoever answers on `subject`; the answer comes in pieces.
    pub async fn ask(&self, subject: &str, question: Bytes) -> Result<Answer, Error> {
        let inbox = self.client.new_inbox();
        let messages =
            self.client.subscribe(inbox.clone()).await.map_err(unavailable("cannot listen for an answer"))?;
        let asked =
            self.client.publish_with_reply_and_headers(subject.to_owned(), inbox, trace_headers(), question).await;
        asked.map_err(unavailable("cannot ask"))?;
        Ok(Answer { client: self.client.clone(), messages, enough: Enough::default() })
    }

    /// The questions on `subject`; each goes to one of those who answer.
    pub async fn questions(&self, subject: &str) -> Result<Questions, Error> {
        let messages = self.client.queue_subscribe(subject.to_owned(), GROUP.to_owned()).await;
        let messages = messages.map_err(unavailable("cannot listen for questions"))?;
        Ok(Questions { client: self.client.clone(), messages })
    }
}
