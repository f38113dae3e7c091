//! Keys of JSON as Go reads them: a field's name in any case. Clients write `detachKeys` for `DetachKeys`, and Docker does
//! not mind.
//!
//! What is read says which fields it knows; where an object has none of that very name, one that differs by case alone
//! takes its place. Keys of maps (labels, networks) are data, and stay as they are. A list of words of which there is one
//! may be that word alone, where Docker has it so.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::{Error, Map, Value};

/// Reads a value as Go would.
///
/// # Errors
/// It is of another shape.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(AnyCase(value))
}

/// Takes a field out of an object that is yet to be read: the one of that very name, or one that differs by case alone. Null
/// where there is none.
pub fn take(object: &mut Map<String, Value>, field: &str) -> Value {
    let any_case = || object.keys().find(|key| key.eq_ignore_ascii_case(field)).cloned();
    let key = if object.contains_key(field) { Some(field.to_owned()) } else { any_case() };
    key.and_then(|key| object.remove(&key)).unwrap_or_default()
}

struct AnyCase(Value);

/// Docker's `StrSlice`: the fields that are a list of words, or a word. A command of [`exec`](crate::exec) is none.
const WORDS: [(&str, &[&str]); 2] =
    [("Config", &["Cmd", "Entrypoint", "Shell"]), ("HostConfig", &["CapAdd", "CapDrop"])];

/// A word becomes a list of one where `structure` takes either.
fn lists(structure: &str, object: &mut Map<String, Value>) {
    let words = WORDS.iter().filter(|(name, _)| *name == structure).flat_map(|(_, fields)| *fields);
    for field in words {
        if let Some(value) = object.get_mut(*field).filter(|value| value.is_string()) {
            *value = Value::Array(vec![value.take()]);
        }
    }
}

/// An object with its keys as a structure writes them.
fn renamed(object: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let (exact, others): (Vec<_>, Vec<_>) = object.into_iter().partition(|(key, _)| fields.contains(&key.as_str()));
    let mut renamed: Map<String, Value> = exact.into_iter().collect();
    for (key, value) in others {
        let field = fields.iter().find(|f| f.eq_ignore_ascii_case(&key));
        let key = field.map_or(key, |f| (*f).to_owned());
        renamed.entry(key).or_insert(value);
    }
    renamed
}

impl<'de> Deserializer<'de> for AnyCase {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(AnyCase))),
            Value::Object(object) => {
                visitor.visit_map(MapDeserializer::new(object.into_iter().map(|(key, value)| (key, AnyCase(value)))))
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(object) => {
                let mut object = renamed(object, fields);
                lists(name, &mut object);
                AnyCase(Value::Object(object)).deserialize_any(visitor)
            }
            other => AnyCase(other).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for AnyCase {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::container::{Config, HostConfig};
    use serde_json::json;

    #[test]
    fn fields_are_found_in_any_case_and_keys_of_maps_stay() {
        let config: Config = read(json!({
            "image": "busybox", "CMD": ["true"], "labels": { "Image": "x" }, "exposedports": { "80/tcp": {} },
            "Tty": true, "tty": false, "openstdin": null,
        }))
        .unwrap();
        assert_eq!((config.image.as_str(), config.cmd.as_deref()), ("busybox", Some(&["true".to_owned()][..])));
        assert_eq!((config.labels["Image"].as_str(), config.tty), ("x", true));
        assert!(config.exposed_ports.contains_key("80/tcp") && !config.labels.contains_key("image"));
        let host: HostConfig = read(json!({
            "networkMode": "front", "restartpolicy": { "name": "always", "maximumretrycount": 3 },
            "portbindings": { "80/tcp": [{ "hostport": "8080" }] }, "memory": 6_000_000,
        }))
        .unwrap();
        assert_eq!((host.network_mode.as_str(), host.restart_policy.name.as_str()), ("front", "always"));
        assert_eq!(host.memory, 6_000_000);
        assert_eq!(host.port_bindings["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
        assert!(read::<HostConfig>(json!({ "memory": "much" })).is_err());
    }

    #[test]
    fn a_part_is_taken_by_its_very_name_before_others() {
        let Value::Object(mut object) = json!({ "hostconfig": 1, "HostConfig": 2 }) else { panic!("an object") };
        let taken = [(); 3].map(|()| take(&mut object, "HostConfig"));
        assert_eq!(taken, [json!(2), json!(1), Value::Null]);
    }

    #[test]
    fn a_word_is_a_list_of_one_where_docker_has_it_so() {
        let config: Config = read(json!({ "cmd": "ls -l", "Entrypoint": "", "Shell": null })).unwrap();
        assert_eq!(config.cmd, Some(vec!["ls -l".to_owned()]));
        assert_eq!((config.entrypoint, config.shell), (Some(vec![String::new()]), None));
        let host: HostConfig = read(json!({ "CapDrop": "ALL" })).unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert!(read::<Config>(json!({ "Env": "A=1" })).is_err());
    }
}
