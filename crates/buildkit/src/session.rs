//! A client's session: the connection by which we call the client, for its files, its accounts and its secrets.

use crate::LONGEST;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::filesync::v1::CredentialsRequest;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use engine::Accounts;
use hyper::rt::{Read, ReadBufCursor, Write};
use image::Credentials;
use image::build::BoxFuture;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// How long a build waits for the session that it names: clients open both connections at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sessions that are open, by their ids.
pub(crate) struct Sessions(watch::Sender<HashMap<String, Session>>);

/// An open session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) channel: Channel,
    ended: CancellationToken,
}

impl Default for Sessions {
    fn default() -> Self {
        Self(watch::Sender::new(HashMap::new()))
    }
}

impl Sessions {
    /// Has a session until its client goes.
    pub(crate) async fn join<C: Read + Write + Send + Unpin + 'static>(&self, id: String, connection: C) {
        let ended = CancellationToken::new();
        let connection = Connection { inner: connection, _end: ended.clone().drop_guard() };
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = match endpoint.connect_with_connector(Once(Some(connection))).await {
            Ok(channel) => channel,
            Err(e) => return tracing::debug!("a client's session did not begin: {e}"),
        };
        let session = Session { channel, ended: ended.clone() };
        self.0.send_modify(|open| drop(open.insert(id.clone(), session)));
        ended.cancelled().await;
        self.0.send_modify(|open| {
            // another one of the same id may have come since
            if open.get(&id).is_some_and(|s| s.ended.is_cancelled()) {
                open.remove(&id);
            }
        });
    }

    /// The session of an id, which may be on its way.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) async fn find(&self, id: &str) -> Result<Session, Status> {
        let mut open = self.0.subscribe();
        let come = open.wait_for(|open| open.contains_key(id));
        let found = match tokio::time::timeout(PATIENCE, come).await {
            Ok(Ok(open)) => open.get(id).cloned(),
            _ => None,
        };
        found.ok_or_else(|| Status::not_found(format!("no active session for {id}: context deadline exceeded")))
    }
}

impl Session {
    /// Resolves when the client has gone.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Accounts for Session {
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>> {
        Box::pin(async move {
            let mut client = SecretsClient::new(self.channel.clone()).max_decoding_message_size(LONGEST);
            match client.get_secret(GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() }).await {
                Ok(secret) => Ok(Some(secret.into_inner().data)),
                Err(e) if matches!(e.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
                Err(e) => Err(format!("failed to get secret {id}: {}", e.message())),
            }
        })
    }

    fn of<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Option<Credentials>> {
        // clients keep Docker's own under the name of its server
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Box::pin(async move {
            let mut client = AuthClient::new(self.channel.clone());
            let answer = client.credentials(CredentialsRequest { host: host.to_owned() }).await;
            let answer = match answer {
                Ok(answer) => answer.into_inner(),
                Err(e) => {
                    tracing::debug!("a client gives no account for {host}: {e}");
                    return None;
                }
            };
            if answer.secret.is_empty() {
                return None;
            }
            Some(match answer.username.is_empty() {
                true => Credentials { identitytoken: answer.secret, ..Credentials::default() },
                false => Credentials { username: answer.username, password: answer.secret, ..Credentials::default() },
            })
        })
    }
}

/// Gives the one connection there is to tonic, which wants somebody who connects.
struct Once<C>(Option<Connection<C>>);

impl<C> Service<Uri> for Once<C> {
    type Response = Connection<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Connection<C>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::Error::other("the client has gone")))
    }
}

/// A connection that says when nobody uses it any more.
struct Connection<C> {
    inner: C,
    _end: DropGuard,
}

impl<C: Read + Unpin> Read for Connection<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<C: Write + Unpin> Write for Connection<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
