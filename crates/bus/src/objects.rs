//! Stores of objects: bytes of any size, streamed.

use async_nats::jetstream::{self, object_store};
use tokio::io::AsyncRead;

use crate::{Error, error::unavailable};

/// A store of objects.
#[derive(Clone)]
pub struct Objects {
    store: object_store::ObjectStore,
}

/// An object being read; its digest is checked at the end.
pub type ObjectReader = object_store::Object;

impl Objects {
    pub(crate) async fn open(jetstream: &jetstream::Context, name: &'static str) -> Result<Self, Error> {
        let store = jetstream.get_object_store(name).await.map_err(unavailable(format!("cannot open store {name}")))?;
        Ok(Self { store })
    }

    /// Stores all that `input` gives, in pieces; the object exists only when all of it is stored. Returns its size.
    pub async fn put(&self, name: &str, input: &mut (impl AsyncRead + Unpin + Send)) -> Result<u64, Error> {
        let stored = self.store.put(name, input).await.map_err(unavailable(format!("cannot store {name}")))?;
        Ok(stored.size as u64)
    }

    /// Opens an object for reading.
    pub async fn get(&self, name: &str) -> Result<ObjectReader, Error> {
        self.store.get(name).await.map_err(|error| match error.kind() {
            object_store::GetErrorKind::NotFound => Error::NoObject { name: name.to_owned() },
            _ => unavailable(format!("cannot open {name}"))(error),
        })
    }

    /// Removes an object; one that does not exist is fine.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        match self.store.delete(name).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == object_store::DeleteErrorKind::NotFound => Ok(()),
            Err(error) => Err(unavailable(format!("cannot delete {name}"))(error)),
        }
    }
}
