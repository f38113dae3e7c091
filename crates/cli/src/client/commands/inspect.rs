//! `inspect`: objects as JSON, or through a template.

use super::App;
use crate::client::connection::{Query, image_segment, is_not_found, segment};
use crate::client::grammar::Parsed;
use crate::client::output::{Exit, print, warn};
use crate::client::template::{MissingKey, Nil, Template, Value};
use std::pin::Pin;

/// An answer to come.
pub type Answer<'a> = Pin<Box<dyn Future<Output = anyhow::Result<serde_json::Value>> + 'a>>;

/// Inspects each of many, and fails at the end if some were not there.
///
/// # Errors
/// The template is wrong, or an object is not there.
pub async fn objects(
    app: &App,
    p: &Parsed,
    mut get: impl for<'a> FnMut(&'a App, String) -> Answer<'a>,
) -> anyhow::Result<u8> {
    let format = match p.text("format") {
        "" | "json" => None,
        format => Some(format),
    };
    let parsing = |e: &str| Exit::new(64, format_args!("template parsing error: {e}"));
    let template = format.map(|f| Template::parse(f).map_err(|e| parsing(&e))).transpose()?;
    let mut found = Vec::new();
    let mut shown = String::new();
    let mut errors = Vec::new();
    for name in &p.args {
        match get(app, name.clone()).await {
            Ok(object) => match &template {
                Some(template) => match evaluate(template, &object) {
                    Ok(text) => {
                        shown.push_str(&text);
                        shown.push('\n');
                    }
                    Err(e) => {
                        errors.push(format!("template parsing error: {e}"));
                        break;
                    }
                },
                None => found.push(object),
            },
            Err(e) => errors.push(format!("{e:#}")),
        }
    }
    if template.is_none() {
        let compact = p.text("format") == "json";
        shown = if compact { serde_json::Value::from(found).to_string() + "\n" } else { indented(&found) };
    } else if !errors.is_empty() && shown.is_empty() {
        // Docker's empty line, where nothing could be shown.
        shown = "\n".into();
    }
    print(shown)?;
    for error in &errors {
        warn(error);
    }
    if errors.is_empty() { Ok(0) } else { Err(Exit::code(1).into()) }
}

/// Over the object's types, or, where that fails, over plain maps.
fn evaluate(template: &Template, object: &serde_json::Value) -> Result<String, String> {
    let mut typed = Value::typed(object, "");
    complete(&mut typed);
    template.execute(&typed, MissingKey::NoValue).or_else(|_| template.execute(&Value::raw(object), MissingKey::Error))
}

/// Adds the fields that Docker's types have and its JSON leaves out when they are empty.
fn complete(object: &mut Value) {
    let nil = Value::Nil;
    let empty = || Value::from("");
    let none = || nil(Nil::Pointer);
    object.complete(&["State"], "", &[("Health", none())]);
    object.complete(
        &["Config"],
        "",
        &[
            ("ExposedPorts", nil(Nil::Map)),
            ("Healthcheck", none()),
            ("MacAddress", empty()),
            ("StopSignal", empty()),
            ("StopTimeout", none()),
            ("Shell", nil(Nil::List)),
        ],
    );
    object.complete(
        &["HostConfig"],
        "",
        &[
            ("Mounts", nil(Nil::List)),
            ("Init", none()),
            ("Annotations", nil(Nil::Map)),
            ("StorageOpt", nil(Nil::Map)),
            ("Sysctls", nil(Nil::Map)),
            ("Tmpfs", nil(Nil::Map)),
        ],
    );
    object.complete(&["Mounts"], "Source", &[("Name", empty())]);
    object.complete(&["Mounts"], "Mode", &[("Driver", empty())]);
    object.complete(&["IPAM", "Config"], "Gateway", &[("IPRange", empty())]);
    object.complete(&["IPAM", "Config"], "", &[("Gateway", empty()), ("AuxiliaryAddresses", nil(Nil::Map))]);
    if matches!(object, Value::Struct(fields) if fields.iter().any(|f| f.name == "HostConfig")) {
        object.complete(&[], "", &[("SizeRw", none()), ("SizeRootFs", none())]);
    }
}

/// JSON with an indent of four, as Go writes it.
pub fn indented(objects: &[serde_json::Value]) -> String {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    let _ = objects.serialize(&mut serializer);
    String::from_utf8_lossy(&bytes).into_owned() + "\n"
}

/// `inspect`, of anything.
///
/// # Errors
/// An object is not there.
pub async fn any(app: App, p: Parsed) -> anyhow::Result<u8> {
    let kinds = ["container", "image", "network", "volume"];
    let wanted = p.text("type").to_owned();
    if p.given("type") && !kinds.contains(&wanted.as_str()) {
        return Err(Exit::new(
            1,
            format_args!(
                "unknown type: {}: must be one of \"container\", \"image\", \"network\", \"volume\"",
                crate::text::quote(&wanted)
            ),
        )
        .into());
    }
    let size = p.on("size");
    objects(&app, &p, move |app, name| {
        let wanted = wanted.clone();
        Box::pin(async move {
            if !wanted.is_empty() {
                return one(app, &wanted, &name, size).await;
            }
            for kind in kinds {
                match one(app, kind, &name, size).await {
                    Err(e) if is_not_found(&e) => {}
                    found => return found,
                }
            }
            anyhow::bail!("Error: No such object: {name}")
        })
    })
    .await
}

async fn one(app: &App, kind: &str, name: &str, size: bool) -> anyhow::Result<serde_json::Value> {
    let (image, segment) = (image_segment(name), segment(name));
    let path = match kind {
        "container" => format!("/containers/{segment}/json{}", Query::new().flag("size", size)),
        "image" => format!("/images/{image}/json"),
        "network" => format!("/networks/{segment}"),
        _ => format!("/volumes/{segment}"),
    };
    app.client.get(&path).await
}

/// `container inspect`.
///
/// # Errors
/// A container is not there.
pub async fn containers(app: App, p: Parsed) -> anyhow::Result<u8> {
    let size = p.on("size");
    objects(&app, &p, move |app, name| Box::pin(async move { one(app, "container", &name, size).await })).await
}

/// `image inspect`.
///
/// # Errors
/// An image is not there.
pub async fn images(app: App, p: Parsed) -> anyhow::Result<u8> {
    objects(&app, &p, |app, name| Box::pin(async move { one(app, "image", &name, false).await })).await
}

/// `volume inspect`.
///
/// # Errors
/// A volume is not there.
pub async fn volumes(app: App, p: Parsed) -> anyhow::Result<u8> {
    objects(&app, &p, |app, name| Box::pin(async move { one(app, "volume", &name, false).await })).await
}

/// Shows objects that are here already, as [`objects`] shows those that it asks for.
///
/// # Errors
/// The template is wrong.
pub fn shown(objects: &[serde_json::Value], format: &str) -> anyhow::Result<()> {
    if format.is_empty() {
        return print(indented(objects));
    }
    objects.iter().try_for_each(|object| print(single(format, object)? + "\n"))
}

/// A template over one object that is not in a list: `info`, `version`, `events`.
///
/// # Errors
/// The template is wrong.
pub fn single(format: &str, object: &serde_json::Value) -> anyhow::Result<String> {
    let format = if format == "json" { "{{json .}}" } else { format };
    let template = Template::parse(format).map_err(|e| Exit::new(64, format_args!("template parsing error: {e}")))?;
    Ok(evaluate(&template, object).map_err(|e| Exit::new(1, format_args!("template parsing error: {e}")))?)
}
