//! Parameters and bodies, as clients write them.

use crate::error::{Answer, Failure};
use crate::times;
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};

/// The parameters of a request's path. A name that is given twice keeps all its values.
#[derive(Debug, Default)]
pub struct Query(HashMap<String, Vec<String>>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut query = Query::default();
        for pair in parts.uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.0.entry(decode(name)?).or_default().push(decode(value)?);
        }
        Ok(query)
    }
}

/// `application/x-www-form-urlencoded` into text.
fn decode(text: &str) -> Answer<String> {
    let invalid = || Failure::invalid(format!("invalid URL escape in {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |d: Option<u8>| d.and_then(|d| (d as char).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                (high.ok_or_else(invalid)? << 4 | low.ok_or_else(invalid)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

impl Query {
    /// The value of a parameter that is given and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|v| v.last()).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Go's httputils: everything is true but empty, `0`, `no`, `false` and `none`.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.0.get(name).and_then(|v| v.last()) {
            None => default,
            Some(v) => !matches!(v.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none"),
        }
    }

    /// Go's strconv.ParseBool, for those parameters that Docker reads so.
    ///
    /// # Errors
    /// It is given and neither true nor false.
    pub fn truth(&self, name: &str) -> Answer<Option<bool>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        model::go::parse_bool(text).map(Some).ok_or_else(|| {
            Failure::invalid(format!(
                "invalid value for {name}: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
            ))
        })
    }

    /// # Errors
    /// It is given and no number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Answer<Option<T>> {
        self.text(name)
            .map(|v| {
                v.parse().map_err(|_| Failure::invalid(format!("invalid value {v:?} for {name}: it must be a number")))
            })
            .transpose()
    }

    /// A value in JSON.
    ///
    /// # Errors
    /// It is given and cannot be read.
    pub fn json<T: DeserializeOwned + Default>(&self, name: &str) -> Answer<T> {
        match self.text(name) {
            None => Ok(T::default()),
            Some(text) => {
                serde_json::from_str(text).map_err(|e| Failure::invalid(format!("invalid value for {name}: {e}")))
            }
        }
    }

    /// `filters`: a map of lists, or of maps from values to booleans as clients before 1.22 wrote it.
    ///
    /// # Errors
    /// It is no such map, or a name is not among `known` (API-02).
    pub fn filters(&self, known: &[&str]) -> Answer<Filters> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Map(BTreeMap<String, bool>),
        }
        let Some(text) = self.text("filters") else { return Ok(Filters::default()) };
        let read: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|e| Failure::invalid(format!("invalid filters: {e}")))?;
        let mut filters = Filters::default();
        for (name, values) in read {
            if !known.contains(&name.as_str()) {
                return Err(Failure::invalid(format!("invalid filter '{name}'")));
            }
            let values = match values {
                Values::List(list) => list,
                Values::Map(map) => map.into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect(),
            };
            filters.0.insert(name, values);
        }
        Ok(filters)
    }
}

/// Filters by name; all names must match, and of a name's values one (of `label`, all).
#[derive(Debug, Default)]
pub struct Filters(pub BTreeMap<String, Vec<String>>);

impl Filters {
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether no value of `name` is given, or one satisfies `matches`.
    pub fn any(&self, name: &str, matches: impl Fn(&str) -> bool) -> bool {
        let values = self.get(name);
        values.is_empty() || values.iter().any(|v| matches(v))
    }

    /// `label=k`, `label=k=v`, `label!=k`: all of them.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        };
        self.get("label").iter().all(has) && !self.get("label!").iter().any(has)
    }

    /// A truth value (`dangling=true`).
    ///
    /// # Errors
    /// It is given and none.
    pub fn truth(&self, name: &str) -> Answer<Option<bool>> {
        match self.get(name) {
            [] => Ok(None),
            [value] => match value.as_str() {
                "1" | "true" | "True" => Ok(Some(true)),
                "0" | "false" | "False" => Ok(Some(false)),
                other => Err(Failure::invalid(format!("invalid filter '{name}={other}'"))),
            },
            _ => Err(Failure::invalid(format!("invalid filter '{name}': one value is expected"))),
        }
    }

    /// `until`: a time stamp, or how long ago (`10m`, `24h`).
    ///
    /// # Errors
    /// It is given and neither.
    pub fn until(&self) -> Answer<Option<jiff::Timestamp>> {
        self.get("until").last().map(|text| times::parse(text)).transpose()
    }
}

/// A JSON body, whose keys count in any case. An empty one is the default where `T` has one to give.
///
/// # Errors
/// It is not JSON, or of another shape.
pub fn body<T: DeserializeOwned>(bytes: &Bytes) -> Answer<T> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    // A list would pass for an object whose fields come in order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Failure::invalid("invalid JSON: an object is expected, not a list"));
    }
    let invalid = |e: serde_json::Error| Failure::invalid(format!("invalid JSON: {e}"));
    crate::keys::read(serde_json::from_slice(bytes).map_err(invalid)?).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let mut parts = axum::http::Request::get(format!("/x?{text}")).body(()).unwrap().into_parts().0;
        futures_util::FutureExt::now_or_never(Query::from_request_parts(&mut parts, &())).unwrap().unwrap()
    }

    #[test]
    fn api_02_filters_are_read_in_both_forms_and_unknown_ones_refused() {
        let both = [r#"{"label":["a=b","c"]}"#, r#"{"label":{"a=b":true,"c":true}}"#];
        for text in both {
            let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
            let filters = query(&format!("filters={encoded}")).filters(&["label"]).unwrap();
            assert!(filters.labels(&BTreeMap::from([("a".into(), "b".into()), ("c".into(), String::new())])));
            assert!(!filters.labels(&BTreeMap::from([("a".into(), "b".into())])));
        }
        let unknown = query("filters=%7B%22nope%22%3A%5B%5D%7D").filters(&["label"]).unwrap_err();
        assert_eq!(unknown.message, "invalid filter 'nope'");
        assert!(query("filters=x").filters(&[]).is_err());
    }

    #[test]
    fn flags_are_gos() {
        assert!(query("all=1").flag("all") && query("all=yes").flag("all"));
        assert!(!query("all=0").flag("all") && !query("all").flag("all") && !query("all=False").flag("all"));
    }
}
