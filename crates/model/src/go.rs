//! What is so because Docker is written in Go, and its clients with it.

use serde::{Deserialize, Deserializer};

/// For `deserialize_with`: `null` is the default value. Go writes it for empty lists and maps, and for what is absent.
///
/// # Errors
/// The value is neither `null` nor of its type.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// `strconv.ParseBool`; none where that is an error.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_booleans_are_gos() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Object {
            #[serde(deserialize_with = "or_default")]
            list: Vec<u8>,
        }
        assert_eq!(serde_json::from_str::<Object>(r#"{"list":null}"#).unwrap(), Object { list: vec![] });
        assert_eq!(serde_json::from_str::<Object>(r#"{"list":[1]}"#).unwrap(), Object { list: vec![1] });
        assert!(serde_json::from_str::<Object>(r#"{"list":"x"}"#).is_err());
        for (text, read) in
            [("1", Some(true)), ("True", Some(true)), ("F", Some(false)), ("yes", None), ("tRUE", None), ("", None)]
        {
            assert_eq!(parse_bool(text), read, "{text}");
        }
    }
}
