//! Failures as clients see them: a status code and `{"message": …}`.

use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use engine::Kind;

/// What a handler fails with.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub message: String,
}

pub type Answer<T = Response> = Result<T, Failure>;

impl Failure {
    pub fn new(status: StatusCode, message: impl ToString) -> Self {
        Self { status, message: model::errno::in_gos_words(&message.to_string()).into_owned() }
    }
    pub fn invalid(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

/// The one place where kinds become status codes.
impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let status = match error.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::NotModified => StatusCode::NOT_MODIFIED,
            Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: error.message }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), "{}", self.message);
        } else {
            tracing::debug!(status = self.status.as_u16(), "{}", self.message);
        }
        (self.status, axum::Json(serde_json::json!({ "message": self.message }))).into_response()
    }
}

/// What the framework refuses before a handler sees it, a broken body for one, in our form.
pub async fn in_json(response: Response) -> Response {
    let is_text = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let status = response.status();
    if !is_text || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
    Failure::new(status, String::from_utf8_lossy(&text)).into_response()
}

pub async fn no_such_page(uri: Uri) -> Failure {
    tracing::debug!(%uri, "no such page");
    Failure::new(StatusCode::NOT_FOUND, "page not found")
}
