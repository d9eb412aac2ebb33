//! gRPC over a socket of this host: one connection, on which all requests go beside each other, each with a deadline.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures::{Stream, StreamExt as _};
use prost::Message;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{Error, text};

/// The largest answer that is read: lists of a thousand containers with all their labels fit.
const MAX_ANSWER: usize = 32 << 20;

/// A method by its path, and what it is called in messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    pub(crate) path: &'static str,
    pub(crate) name: &'static str,
}

/// An entry of a map of strings, byte by byte: runtimes check neither what strangers write into labels, nor what they send. One label that
/// is not UTF-8 must not make a whole list unreadable.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Label {
    /// As it is on the wire of a `map<string, string>`.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The same.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The labels as text; what is not UTF-8 becomes the replacement character.
pub(crate) fn labels(entries: &[Label]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    entries.iter().map(|Label { key, value }| (text(key), text(value))).collect()
}

/// A connection, cheap to clone. It is made again by itself when it breaks.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    channel: Channel,
    timeout: Duration,
}

impl Client {
    /// Connects; `option` is what says where the socket is.
    pub(crate) async fn connect(path: &Path, option: &'static str, timeout: Duration) -> Result<Self, Error> {
        // Once by itself, for an error that says what is wrong.
        let open = tokio::time::timeout(timeout, UnixStream::connect(path)).await;
        open.map_err(|_| elapsed("connect", timeout))?.map_err(|error| Error::socket_of(path, option, error))?;
        let failed = |error: tonic::transport::Error| Error::Connection { operation: "connect", source: error.into() };
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).map_err(failed)?;
        let channel = tokio::time::timeout(timeout, endpoint.connect()).await;
        Ok(Self { channel: channel.map_err(|_| elapsed("connect", timeout))?.map_err(failed)?, timeout })
    }

    /// One question, one answer. `namespace` is containerd's; empty = none.
    pub(crate) async fn call<Q, A>(&self, method: Method, namespace: &str, question: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = async {
            let mut grpc = self.ready().await?;
            let path = PathAndQuery::from_static(method.path);
            grpc.unary(request(question, namespace)?, path, ProstCodec::<Q, A>::default()).await
        };
        let answer =
            tokio::time::timeout(self.timeout, answer).await.map_err(|_| elapsed(method.name, self.timeout))?;
        answer.map(tonic::Response::into_inner).map_err(|status| refused(method.name, self.timeout, status))
    }

    /// One question, answers until the connection ends. Only the first answer has a deadline, and it is that of the stream's head.
    pub(crate) async fn subscribe<Q, A>(
        &self,
        method: Method,
        question: Q,
    ) -> Result<impl Stream<Item = Result<A, Error>> + use<Q, A>, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await.map_err(|status| refused(method.name, self.timeout, status))?;
        let path = PathAndQuery::from_static(method.path);
        let question = request(question, "").map_err(|status| refused(method.name, self.timeout, status))?;
        // containerd sends the head with the first event, so there is no deadline here; the pings find out whether it lives.
        let stream = grpc.server_streaming(question, path, ProstCodec::<Q, A>::default()).await;
        let timeout = self.timeout;
        let stream = stream.map_err(|status| refused(method.name, timeout, status))?.into_inner();
        Ok(stream.map(move |answer| answer.map_err(|status| refused(method.name, timeout, status))))
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }
}

fn request<Q>(question: Q, namespace: &str) -> Result<Request<Q>, Status> {
    let mut request = Request::new(question);
    if !namespace.is_empty() {
        let value = namespace.parse().map_err(|_| Status::invalid_argument("not a namespace"))?;
        request.metadata_mut().insert("containerd-namespace", value);
    }
    Ok(request)
}

fn elapsed(operation: &'static str, timeout: Duration) -> Error {
    Error::Timeout { operation, seconds: timeout.as_secs() }
}

/// Sorts a status (`google.rpc.Code`).
fn refused(operation: &'static str, timeout: Duration, status: Status) -> Error {
    match status.code() {
        Code::NotFound => Error::NotFound,
        Code::Unimplemented => Error::Unsupported { operation, message: text::cut(status.message(), 500).to_owned() },
        Code::DeadlineExceeded => elapsed(operation, timeout),
        Code::Unavailable | Code::Cancelled | Code::Unknown => Error::Connection { operation, source: status.into() },
        Code::DataLoss | Code::Internal => Error::Answer { operation, source: status.into() },
        code => Error::Refused {
            operation,
            status: u16::try_from(i32::from(code)).unwrap_or_default(),
            message: text::cut(status.message(), 500).to_owned(),
        },
    }
}
