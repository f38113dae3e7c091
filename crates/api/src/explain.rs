//! `GET /isle/explain?from=&to=&port=&protocol=`: Isle's own; why a flow passes, or does not.

use crate::Ctx;
use crate::error::{Answer, Failure};
use crate::query::Query;
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use engine::explain::{Question, Told};
use model::flow::{Source, Verdict};
use model::net::Protocol;
use serde_json::{Value, json};

pub async fn explain(State(engine): Ctx, query: Query) -> Answer {
    let given =
        |name: &str| query.text(name).map(str::to_owned).ok_or_else(|| Failure::invalid(format!("{name} is missing")));
    let protocol: Protocol = query.text("protocol").unwrap_or("tcp").parse().map_err(Failure::invalid)?;
    let question = Question {
        from: given("from")?,
        to: given("to")?,
        protocol,
        port: query.number("port")?.ok_or_else(|| Failure::invalid("port is missing".to_owned()))?,
    };
    let explanation = engine.explain(question).await?;
    let flows: Vec<Value> = explanation.flows.iter().map(show).collect();
    Ok(Json(json!({ "Name": explanation.name, "Flows": flows })).into_response())
}

fn show(told: &Told) -> Value {
    let mut shown = json!({ "To": told.address, "Passes": false, "Why": told.why });
    if let Verdict::Passes(arrival) = &told.verdict {
        shown["Passes"] = true.into();
        shown["At"] = told.at.clone().into();
        shown["Address"] = arrival.address.to_string().into();
        shown["Port"] = arrival.port.into();
        shown["Source"] = match arrival.source {
            Source::Own => "own",
            Source::Gateway(_) => "gateway",
            Source::Host(_) => "host",
            Source::Proxy => "proxy",
        }
        .into();
    }
    shown
}
