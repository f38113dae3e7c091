//! What registries are asked: pull, push, login, and what is there under a name.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::progress::{Teller, gone, told};
use crate::query::{Query, body};
use crate::socket::Client;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::Engine;
use engine::images::Pull;
use image::{Credentials, Tags};
use model::image::Platform;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

/// `POST /images/create?fromImage=…`: one image, or without a tag all of a repository.
pub async fn pull(
    engine: &Arc<Engine>,
    client: Client,
    query: &Query,
    headers: &HeaderMap,
    platform: Option<Platform>,
) -> Answer {
    let from = query.text("fromImage").ok_or_else(|| Failure::invalid("fromImage or fromSrc is missing"))?;
    let reference = match query.text("tag") {
        Some(tag) if tag.contains(':') => format!("{from}@{tag}"),
        Some(tag) => format!("{from}:{tag}"),
        None => from.to_owned(),
    };
    let named = reference.parse::<model::reference::Reference>().map_err(Failure::invalid)?;
    let tags = if named.tag().or(named.digest()).is_some() { Tags::One } else { Tags::All };
    let pull = Pull { reference: &reference, platform, tags, credentials: credentials(headers) };
    told(client, |teller| Ok(engine.pull_image(pull, teller.progress())?), |()| None).await
}

/// `POST /images/{name}/push`: one tag, or all that the repository has here.
pub async fn push(engine: &Arc<Engine>, client: Client, name: &str, tag: Option<&str>, headers: &HeaderMap) -> Answer {
    let credentials = credentials(headers);
    let references = match tag {
        // A tag in the name gives way.
        Some(tag) => {
            let named = name.parse::<model::reference::Reference>().map_err(Failure::invalid)?;
            vec![named.with_tag(tag).map_err(Failure::invalid)?.familiar()]
        }
        None => engine.tags_of(name)?,
    };
    if references.is_empty() {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("An image does not exist locally with the tag: {name}"),
        ));
    }
    let pushing = |teller: Teller| {
        let progress = teller.progress();
        let mut pushes = Vec::new();
        for reference in &references {
            pushes.push(engine.push_image(reference, credentials.clone(), progress.clone())?);
        }
        Ok(async move {
            let mut last = None;
            for push in pushes {
                last = Some(push.await?);
            }
            Ok(last)
        })
    };
    let aux = |pushed: Option<image::PushedImage>| {
        let pushed = pushed?;
        Some(
            json!({ "progressDetail": {}, "aux": { "Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size } }),
        )
    };
    told(client, pushing, aux).await
}

/// Asks a registry for something as long as the client is there to hear of it.
async fn while_there<T>(client: &Client, asking: impl Future<Output = engine::Result<T>>) -> Answer<T> {
    tokio::select! {
        told = asking => Ok(told?),
        () = client.gone() => Err(gone()),
    }
}

/// `GET /distribution/{name}/json`.
pub async fn inspect(
    State(engine): Ctx,
    Extension(client): Extension<Client>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let Some(name) = path.strip_suffix("/json") else {
        return Err(crate::error::no_such_page(format!("/distribution/{path}").parse().unwrap_or_default()).await);
    };
    let found = while_there(&client, engine.inspect_remote(name, credentials(&headers))).await?;
    let platforms: Vec<Value> = found.platforms.iter().map(show_platform).collect();
    Ok(Json(json!({
        "Descriptor": { "mediaType": found.media_type, "digest": found.digest, "size": found.size },
        "Platforms": platforms,
    }))
    .into_response())
}

fn show_platform(platform: &Platform) -> Value {
    let mut shown = json!({ "architecture": platform.architecture, "os": platform.os });
    if !platform.variant.is_empty() {
        shown["variant"] = json!(platform.variant);
    }
    shown
}

/// `POST /auth`. Nothing is kept: clients keep what they send with each request.
pub async fn log_in(State(engine): Ctx, Extension(client): Extension<Client>, bytes: Bytes) -> Answer {
    // The account's object says for which registry it is.
    let mut sent: Map<String, Value> = body(&bytes)?;
    let invalid = |e: serde_json::Error| Failure::invalid(format!("invalid JSON: {e}"));
    let server: Option<String> = crate::keys::read(crate::keys::take(&mut sent, "serveraddress")).map_err(invalid)?;
    let account: Credentials = crate::keys::read(sent.into()).map_err(invalid)?;
    while_there(&client, engine.log_in(&server.unwrap_or_default(), account)).await?;
    Ok(Json(json!({ "Status": "Login Succeeded", "IdentityToken": "" })).into_response())
}

/// `GET /images/search`.
pub async fn search() -> Failure {
    Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        "Isle does not search registries, because only Docker's own has an interface for it: use its web page",
    )
}

/// `X-Registry-Auth`: who asks the one registry. Empty is nobody, and so is what is no JSON in base64: clients without an
/// account fill the header with anything (aiodocker), since Docker does not mind.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    encoded::<Credentials>(headers, "X-Registry-Auth").ok().flatten().filter(|c| !c.is_empty())
}

/// `X-Registry-Config`: who asks which registry, in a build.
///
/// # Errors
/// It is no JSON in base64.
pub fn all_credentials(headers: &HeaderMap) -> Answer<BTreeMap<String, Credentials>> {
    Ok(encoded(headers, "X-Registry-Config")?.unwrap_or_default())
}

/// JSON in URL-safe base64, with or without padding.
fn encoded<T: serde::de::DeserializeOwned>(headers: &HeaderMap, name: &str) -> Answer<Option<T>> {
    use base64::Engine;
    let Some(text) = headers.get(name).and_then(|h| h.to_str().ok()).filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoder = GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient);
    let invalid = |e: &dyn std::fmt::Display| Failure::invalid(format!("invalid {name} header: {e}"));
    let bytes = decoder.decode(text).map_err(|e| invalid(&e))?;
    let value = serde_json::from_slice(&bytes).map_err(|e| invalid(&e))?;
    crate::keys::read(value).map(Some).map_err(|e| invalid(&e))
}
