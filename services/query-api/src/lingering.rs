//! What clients still send when they are answered already.
//!
//! A connection that is closed while bytes are on their way is reset, and a reset may take the answer with it before the client has read
//! it: who sends a large file would be told of a broken pipe, not that it is too large. So the rest of a body is read on for a while.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes, HttpBody as _},
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use futures::{Stream, StreamExt as _};
use tokio::{runtime::Handle, time::timeout};
use weir_service::Shutdown;

use crate::App;

/// Who sends nothing for so long has stopped.
const SILENCE: Duration = Duration::from_secs(2);
/// Who does not stop by then does not read what it is told.
const MOST: Duration = Duration::from_secs(30);

/// Reads on where a request is answered before its body was read to its end.
pub(crate) async fn read_on(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits = request.headers().contains_key(header::EXPECT);
    let shutdown = app.shutdown.clone();
    let rest = |body: Body| Rest { pieces: Some(body.into_data_stream()), waits, shutdown };
    next.run(request.map(|body| Body::from_stream(rest(body)))).await
}

/// The body of a request, which reads on when it is dropped before its end.
struct Rest {
    /// None = it came to its end.
    pieces: Option<BodyDataStream>,
    /// Whether the client sends nothing before somebody reads (`Expect: 100-continue`).
    waits: bool,
    shutdown: Shutdown,
}

impl Stream for Rest {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waits = false;
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let piece = ready!(pieces.poll_next_unpin(context));
        if !matches!(piece, Some(Ok(_))) {
            self.pieces = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let (Some(mut pieces), false) = (self.pieces.take(), self.waits) else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let shutdown = self.shutdown.clone();
        runtime.spawn(async move {
            let all = async { while let Ok(Some(Ok(_))) = timeout(SILENCE, pieces.next()).await {} };
            tokio::select! {
                () = shutdown.cancelled() => {}
                // However it ends: the answer was given.
                _ended = timeout(MOST, all) => {}
            }
        });
    }
}
