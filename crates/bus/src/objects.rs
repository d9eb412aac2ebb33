//! Stores of objects: bytes of any size, streamed.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::pull, context::PublishAckFuture, object_store},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{Error, error::unavailable};

/// Bytes of an object in one message. A little less than a power of two: with its header it fits into buffers that grow by doubling, as those
/// of client and server do; one that does not is copied once more on each side, and half of its buffer is empty.
const CHUNK_BYTES: usize = 127 << 10;
/// How many of them may be on their way: one round trip for each would make an upload as slow as the round trips.
const IN_FLIGHT: usize = 8;

/// How many the server sends ahead of who reads them: few, so that what comes is soon looked at and its memory free for what comes next.
const AHEAD: i64 = 16;

/// A store of objects.
#[derive(Clone)]
pub struct Objects {
    store: object_store::ObjectStore,
    jetstream: jetstream::Context,
    name: &'static str,
}

/// An object being read; its digest is checked at the end.
pub type ObjectReader = object_store::Object;

/// An object being read as it was stored, chunk by chunk.
pub struct ObjectChunks {
    name: String,
    /// None = it has no chunks.
    messages: Option<Box<pull::Ordered>>,
    info: object_store::ObjectInfo,
    chunks: usize,
    bytes: usize,
}

impl ObjectChunks {
    /// The next chunk; none at the end. Whether all of them came is known at the end alone. Each is what was stored: the server keeps a hash
    /// of every message, and passes over one that its disk gives back otherwise; it then does not come, nor does the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let broken = |why: &str| unavailable(format!("cannot read {}", self.name))(why.to_owned());
        if self.chunks == self.info.chunks {
            self.messages = None;
            return if self.bytes == self.info.size { Ok(None) } else { Err(broken("it is not what was stored")) };
        }
        let Some(messages) = &mut self.messages else { return Err(broken("it has no chunks")) };
        let message = messages.try_next().await.map_err(unavailable(format!("cannot read {}", self.name)))?;
        let message = message.ok_or_else(|| broken("it broke off"))?;
        self.chunks += 1;
        self.bytes += message.payload.len();
        let follow = message.info().map_err(unavailable(format!("cannot read {}", self.name)))?.pending;
        if follow == 0 && self.chunks < self.info.chunks {
            return Err(broken("chunks of it are missing"));
        }
        Ok(Some(message.message.payload))
    }
}

/// What was stored of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes.
    pub size: u64,
    /// Of these bytes.
    pub sha256: [u8; 32],
    chunks: usize,
}

impl Objects {
    pub(crate) async fn open(jetstream: &jetstream::Context, name: &'static str) -> Result<Self, Error> {
        let store = jetstream.get_object_store(name).await.map_err(unavailable(format!("cannot open store {name}")))?;
        Ok(Self { store, jetstream: jetstream.clone(), name })
    }

    /// Stores all that `input` gives, in pieces; the object exists only when all of it is stored. When it fails, what was stored of it
    /// is removed ([`Error::Input`]: reading failed, [`Error::Full`]: there is no room).
    ///
    /// A future that is dropped in its middle leaves pieces: let it run to its end. [`Objects::sweep`] finds them.
    pub async fn put(&self, name: &str, input: &mut (impl AsyncRead + Unpin + Send)) -> Result<Stored, Error> {
        // The client's own `put` leaves the pieces of an object that it could not finish, and they fill the store for ever.
        let nuid = uuid::Uuid::new_v4().simple().to_string();
        let replaced = self.store.info(name).await.ok().map(|info| info.nuid);
        let stored = match self.put_chunks(name, &nuid, input).await {
            Ok(stored) => self.put_info(name, &nuid, &stored).await.map(|()| stored),
            Err(error) => Err(error),
        };
        let left_over = if stored.is_ok() { replaced.filter(|old| !old.is_empty()) } else { Some(nuid) };
        if let Some(left_over) = left_over
            && let Err(error) = self.purge(&left_over).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, name, "pieces of an object stay in the store");
        }
        stored
    }

    /// Opens an object for reading.
    pub async fn get(&self, name: &str) -> Result<ObjectReader, Error> {
        self.store.get(name).await.map_err(|error| match error.kind() {
            object_store::GetErrorKind::NotFound => Error::NoObject { name: name.to_owned() },
            _ => unavailable(format!("cannot open {name}"))(error),
        })
    }

    /// Opens an object for reading in the chunks that are stored, without a copy of them.
    pub async fn chunks(&self, name: &str) -> Result<ObjectChunks, Error> {
        let failed = || format!("cannot open {name}");
        let info = self.store.info(name).await.map_err(|error| match error.kind() {
            object_store::InfoErrorKind::NotFound => Error::NoObject { name: name.to_owned() },
            _ => unavailable(failed())(error),
        })?;
        if info.deleted {
            return Err(Error::NoObject { name: name.to_owned() });
        }
        let messages = if info.chunks == 0 {
            None
        } else {
            let config = pull::OrderedConfig {
                filter_subject: self.chunks_subject(&info.nuid),
                max_batch: AHEAD,
                ..pull::OrderedConfig::default()
            };
            let consumer = self.stream().await?.create_consumer(config).await.map_err(unavailable(failed()))?;
            Some(Box::new(Box::pin(consumer.messages()).await.map_err(unavailable(failed()))?))
        };
        Ok(ObjectChunks { name: name.to_owned(), messages, info, chunks: 0, bytes: 0 })
    }

    /// Removes an object; one that does not exist is fine.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        match self.store.delete(name).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == object_store::DeleteErrorKind::NotFound => Ok(()),
            Err(error) => Err(unavailable(format!("cannot delete {name}"))(error)),
        }
    }

    /// Removes the pieces of objects that were never finished, because who stored them was killed: those to which nothing was added for
    /// `idle`. Returns how many objects those would have been.
    pub async fn sweep(&self, idle: Duration) -> Result<u64, Error> {
        let failed = || format!("cannot sweep {}", self.name);
        let mut finished = HashSet::new();
        let mut objects = self.store.list().await.map_err(unavailable(failed()))?;
        while let Some(object) = objects.try_next().await.map_err(unavailable(failed()))? {
            finished.insert(self.chunks_subject(&object.nuid));
        }
        let stream = self.stream().await?;
        let all = stream.info_with_subjects(self.chunks_subject("*")).await.map_err(unavailable(failed()))?;
        let subjects: Vec<_> = all.map_ok(|(subject, _)| subject).try_collect().await.map_err(unavailable(failed()))?;
        let mut swept = 0;
        for subject in subjects.iter().filter(|subject| !finished.contains(*subject)) {
            // One that is gone by now was removed by who stored it.
            let Ok(last) = stream.get_last_raw_message_by_subject(subject).await else { continue };
            if last.time + idle <= time::OffsetDateTime::now_utc() {
                stream.purge().filter(subject).await.map_err(unavailable(failed()))?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    async fn put_chunks(
        &self,
        name: &str,
        nuid: &str,
        input: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<Stored, Error> {
        let subject = self.chunks_subject(nuid);
        let (mut size, mut chunks) = (0, 0);
        let mut digest = Sha256::new();
        let mut in_flight: VecDeque<(PublishAckFuture, Bytes)> = VecDeque::with_capacity(IN_FLIGHT);
        // What the server has acknowledged was written to it, so that its memory can be filled again.
        let mut buffer = BytesMut::new();
        loop {
            if in_flight.len() == IN_FLIGHT
                && let Some((stored, chunk)) = in_flight.pop_front()
            {
                stored.await.map_err(|error| self.refused(name, error))?;
                buffer = chunk.try_into_mut().unwrap_or_default();
            }
            let chunk = read_chunk(input, std::mem::take(&mut buffer)).await?.freeze();
            if chunk.is_empty() {
                break;
            }
            digest.update(&chunk);
            size += chunk.len() as u64;
            chunks += 1;
            let sent = self.jetstream.publish(subject.clone(), chunk.clone()).await;
            in_flight.push_back((sent.map_err(|error| self.refused(name, error))?, chunk));
        }
        for (stored, _) in in_flight {
            stored.await.map_err(|error| self.refused(name, error))?;
        }
        Ok(Stored { size, sha256: digest.finalize().into(), chunks })
    }

    /// Makes the object exist: its description replaces the one before it.
    async fn put_info(&self, name: &str, nuid: &str, stored: &Stored) -> Result<(), Error> {
        let info = serde_json::json!({
            "name": name,
            "bucket": self.name,
            "nuid": nuid,
            "size": stored.size,
            "chunks": stored.chunks,
            "digest": format!("SHA-256={}", URL_SAFE.encode(stored.sha256)),
            "options": { "max_chunk_size": CHUNK_BYTES },
        });
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        let subject = format!("$O.{}.M.{}", self.name, URL_SAFE.encode(name));
        let sent = self.jetstream.publish_with_headers(subject, headers, info.to_string().into()).await;
        sent.map_err(|error| self.refused(name, error))?.await.map_err(|error| self.refused(name, error))?;
        Ok(())
    }

    async fn purge(&self, nuid: &str) -> Result<(), Error> {
        let stream = self.stream().await?;
        let purge = stream.purge().filter(self.chunks_subject(nuid));
        purge.await.map_err(unavailable("cannot remove an unfinished object"))?;
        Ok(())
    }

    async fn stream(&self) -> Result<jetstream::stream::Stream, Error> {
        let name = format!("OBJ_{}", self.name);
        self.jetstream.get_stream(name).await.map_err(unavailable(format!("cannot open store {}", self.name)))
    }

    fn chunks_subject(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.name)
    }

    fn refused(&self, name: &str, error: jetstream::context::PublishError) -> Error {
        // The client has no kind for it; the server's words are those of its error 10077.
        let full = std::error::Error::source(&error)
            .is_some_and(|source| source.to_string().contains("maximum bytes exceeded"));
        if full { Error::Full { store: self.name } } else { unavailable(format!("cannot store {name}"))(error) }
    }
}

/// Reads until a chunk is full or the input ends; into the memory of an earlier one, if there is any.
async fn read_chunk(input: &mut (impl AsyncRead + Unpin + Send), mut chunk: BytesMut) -> Result<BytesMut, Error> {
    chunk.clear();
    chunk.reserve(CHUNK_BYTES);
    let mut limited = input.take(CHUNK_BYTES as u64);
    while chunk.len() < CHUNK_BYTES && limited.read_buf(&mut chunk).await.map_err(Error::Input)? > 0 {}
    Ok(chunk)
}
