//! Reading requests, so that what is wrong with them is a problem as all others.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::Error;

/// The parameters behind the `?`.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Error::parameter("", inner(&rejection)))?;
        Ok(Self(parameters))
    }
}

/// The only parameter in the path.
pub(crate) struct Segment(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path(segment) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Error::parameter("", inner(&rejection)))?;
        Ok(Self(segment))
    }
}

/// A body of JSON.
pub(crate) struct Json<T>(pub(crate) T);

/// The largest body of JSON.
pub(crate) const MAX_JSON_BYTES: usize = 1 << 20;

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(Error::MediaType("the body should be JSON, with Content-Type: application/json".into()))
            }
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Error::TooLarge { what: "the body", limit: MAX_JSON_BYTES as u64 })
            }
            Err(rejection) => Err(Error::Body(inner(&rejection))),
        }
    }
}

/// What is wrong, without the general words around it.
fn inner(rejection: &dyn std::error::Error) -> String {
    let mut error = rejection;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
