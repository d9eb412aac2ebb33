//! HTTP/1.1 from strangers: a bounded number of connections, and none that sits on a place without asking anything.

use std::{io, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// What a server lets its clients have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a client may take for the head of a request, counted from when it may begin: also how long it may be idle.
    pub head: Duration,
    /// How long requests in hand may take to end once the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, head: Duration::from_secs(30), drain: Duration::from_secs(10) }
    }
}

/// Pause after a connection could not be accepted: what is missing then (files, memory) is not there again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until told to stop, and then until what is in hand is answered, for at most [`Limits::drain`]. Handlers may ask for
/// `ConnectInfo<SocketAddr>`, the client's address.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    while let Some(place) = shutdown.run_until_cancelled(Arc::clone(&places).acquire_owned()).await {
        let Ok(place) = place else { break };
        let (stream, peer) = match shutdown.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                refused(&error).await;
                continue;
            }
        };
        let connection =
            graceful.watch(connection(stream, router.clone().layer(Extension(ConnectInfo(peer))), limits.head));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection broke");
            }
            drop(place);
        });
        while let Some(ended) = connections.try_join_next() {
            seen(ended);
        }
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        while let Some(ended) = connections.join_next().await {
            seen(ended);
        }
    };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        warn!("requests were cut off: they took longer than the service waits for them");
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
    head: Duration,
) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    // A small answer must not wait for the acknowledgement of the one before it; where it cannot be set, it does.
    let _set = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

async fn refused(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    error!(%error, "a connection could not be accepted");
    tokio::time::sleep(PAUSE).await;
}

/// A panic of a connection's task ends that connection alone, and is told.
fn seen(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task panicked");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn running(limits: Limits) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "ok\n" }));
        (address, shutdown.clone(), tokio::spawn(serve(listener, router, limits, shutdown)))
    }

    async fn ask(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_never_ends_the_head_of_a_request_loses_the_place_to_others() {
        let limits = Limits { connections: 1, head: Duration::from_millis(100), ..Limits::default() };
        let (address, shutdown, server) = running(limits).await;
        for sent in [&b""[..], b"GET / HTTP/1.1\r\nHos"] {
            let mut slow = TcpStream::connect(address).await.unwrap();
            slow.write_all(sent).await.unwrap();
            assert!(ask(address).await.ends_with("ok\n"));
            let mut rest = Vec::new();
            slow.read_to_end(&mut rest).await.unwrap();
        }
        shutdown.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_keep_the_server_from_stopping() {
        let (address, shutdown, server) = running(Limits::default()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut first = [0; 15];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        shutdown.cancel();
        server.await.unwrap();
        let mut rest = String::new();
        idle.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("ok\n"));
    }
}
