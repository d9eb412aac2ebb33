//! Key-value buckets of protobuf messages.

use std::marker::PhantomData;

use async_nats::jetstream::{self, kv};
use futures::{Stream, StreamExt as _};

use crate::{Error, error::unavailable};

/// A bucket whose values are messages of type `T`.
#[derive(Clone, Debug)]
pub struct Bucket<T> {
    store: kv::Store,
    values: PhantomData<fn() -> T>,
}

/// A value with the revision that [`Bucket::update`] compares.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Its revision.
    pub revision: u64,
}

/// A change that a watcher sees.
#[derive(Clone, Debug)]
pub struct Change<T> {
    /// The key.
    pub key: String,
    /// The new value; `None` = the key is gone.
    pub value: Option<T>,
    /// The revision of the change.
    pub revision: u64,
}

impl<T: prost::Message + Default> Bucket<T> {
    pub(crate) async fn open(jetstream: &jetstream::Context, name: &'static str) -> Result<Self, Error> {
        let store = jetstream.get_key_value(name).await.map_err(unavailable(format!("cannot open bucket {name}")))?;
        Ok(Self { store, values: PhantomData })
    }

    /// The value of a key, if there is one.
    pub async fn get(&self, key: &str) -> Result<Option<Entry<T>>, Error> {
        let entry = self.store.entry(key).await.map_err(unavailable(format!("cannot read {key}")))?;
        match entry {
            Some(entry) if entry.operation == kv::Operation::Put => {
                Ok(Some(Entry { value: decode(key, entry.value)?, revision: entry.revision }))
            }
            _ => Ok(None),
        }
    }

    /// Sets a key, whatever it was. Returns the new revision.
    pub async fn put(&self, key: &str, value: &T) -> Result<u64, Error> {
        self.store.put(key, value.encode_to_vec().into()).await.map_err(unavailable(format!("cannot write {key}")))
    }

    /// Sets a key that does not exist; [`Error::Conflict`] when it does.
    pub async fn create(&self, key: &str, value: &T) -> Result<u64, Error> {
        self.store.create(key, value.encode_to_vec().into()).await.map_err(|error| match error.kind() {
            kv::CreateErrorKind::AlreadyExists => Error::Conflict { key: key.to_owned() },
            _ => unavailable(format!("cannot write {key}"))(error),
        })
    }

    /// Sets a key that still has `revision`; [`Error::Conflict`] when it has another. Returns the new revision.
    pub async fn update(&self, key: &str, value: &T, revision: u64) -> Result<u64, Error> {
        self.store.update(key, value.encode_to_vec().into(), revision).await.map_err(|error| match error.kind() {
            kv::UpdateErrorKind::WrongLastRevision => Error::Conflict { key: key.to_owned() },
            _ => unavailable(format!("cannot write {key}"))(error),
        })
    }

    /// Removes a key; one that does not exist is fine.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.store.purge(key).await.map_err(unavailable(format!("cannot delete {key}")))
    }

    /// All values whose key starts with `prefix`, as they are now.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Entry<T>)>, Error> {
        let mut keys = self.store.keys().await.map_err(unavailable("cannot list keys"))?;
        let mut entries = Vec::new();
        while let Some(key) = keys.next().await {
            let key = key.map_err(unavailable("cannot list keys"))?;
            if key.starts_with(prefix)
                && let Some(entry) = self.get(&key).await?
            {
                entries.push((key, entry));
            }
        }
        Ok(entries)
    }

    /// All values, and then every change as it happens. `keys` may end in `>`.
    pub async fn watch(
        &self,
        keys: &str,
    ) -> Result<impl Stream<Item = Result<Change<T>, Error>> + Unpin + use<T>, Error> {
        let watch = self.store.watch_with_history(keys).await.map_err(unavailable("cannot watch"))?;
        Ok(watch.map(|entry| {
            let entry = entry.map_err(unavailable("cannot watch"))?;
            let value = match entry.operation {
                kv::Operation::Put => Some(decode(&entry.key, entry.value)?),
                kv::Operation::Delete | kv::Operation::Purge => None,
            };
            Ok(Change { key: entry.key, value, revision: entry.revision })
        }))
    }
}

fn decode<T: prost::Message + Default>(key: &str, value: bytes::Bytes) -> Result<T, Error> {
    T::decode(value).map_err(|source| Error::Decode { what: key.to_owned(), source })
}
