//! What templates are evaluated over: JSON that knows which objects are Go's structs and which are maps, since a
//! missing field of a struct is an error and a missing key of a map is not.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing; of what kind decides how it shows.
    Nil(Nil),
    /// A key that a map does not have; shown as `<no value>`.
    Missing,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<[Value]>),
    /// Go's map: sorted by its keys.
    Map(Rc<BTreeMap<String, Value>>, Elements),
    /// Go's struct: fields in their order.
    Struct(Rc<[Field]>),
    /// A value of a list's line, computed when it is asked for.
    Object(Rc<dyn Object>),
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub value: Value,
    /// Whether JSON leaves it out, being empty.
    pub omitted: bool,
}

/// What a map answers when it is asked, by `index`, for a key that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Anything: nothing.
    Any,
    /// Texts: the empty one.
    Texts,
    /// Structs and lists: nil.
    Others,
}

/// Go's nils differ in how they show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nil {
    /// An untyped one.
    Plain,
    Pointer,
    List,
    Map,
}

/// A line of a list: its columns are methods.
pub trait Object: std::fmt::Debug {
    /// The value of a method; None if there is none of that name.
    fn method(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>>;
    /// What Go calls its type.
    fn type_name(&self) -> String;
    /// As JSON.
    fn json(&self) -> serde_json::Value;
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text.into())
    }
}

/// Names of the objects that are maps in Docker's types; all others are structs.
fn is_map(name: &str) -> bool {
    const MAPS: [&str; 22] = [
        "Labels",
        "ExposedPorts",
        "Volumes",
        "PortBindings",
        "Tmpfs",
        "Sysctls",
        "Annotations",
        "StorageOpt",
        "Ports",
        "Networks",
        "DriverOpts",
        "Data",
        "Containers",
        "Options",
        "AuxiliaryAddresses",
        "AuxAddress",
        "Runtimes",
        "IndexConfigs",
        "Attributes",
        "Services",
        "Peers",
        "OnBuild",
    ];
    MAPS.contains(&name)
}

/// Names of maps from texts to texts.
fn is_text_map(name: &str) -> bool {
    const MAPS: [&str; 10] = [
        "Labels",
        "Options",
        "DriverOpts",
        "Data",
        "Sysctls",
        "Annotations",
        "Tmpfs",
        "StorageOpt",
        "AuxiliaryAddresses",
        "Config",
    ];
    MAPS.contains(&name)
}

/// What a null is in Docker's types.
fn nil(name: &str) -> Nil {
    const POINTERS: [&str; 10] = [
        "IPAMConfig",
        "Health",
        "Healthcheck",
        "PidsLimit",
        "OomKillDisable",
        "MemorySwappiness",
        "Init",
        "StopTimeout",
        "UsageData",
        "ClusterVolume",
    ];
    match name {
        "" => Nil::Plain,
        name if is_map(name) => Nil::Map,
        name if POINTERS.contains(&name) => Nil::Pointer,
        _ => Nil::List,
    }
}

impl Value {
    /// JSON as Docker's types see it. `name`: the field it is the value of.
    pub fn typed(json: &serde_json::Value, name: &str) -> Value {
        match json {
            serde_json::Value::Null => Value::Nil(nil(name)),
            serde_json::Value::Object(fields) => {
                // The log's options are a map although other things called Config are not.
                let map = is_map(name) || (name == "Config" && fields.values().all(serde_json::Value::is_string));
                if map {
                    let fields = fields.iter().map(|(k, v)| (k.clone(), Value::typed(v, "")));
                    let elements = if is_text_map(name) { Elements::Texts } else { Elements::Others };
                    Value::Map(Rc::new(fields.collect()), elements)
                } else {
                    let field = |(name, value): (&String, &serde_json::Value)| Field {
                        name: name.clone(),
                        value: Value::typed(value, name),
                        omitted: false,
                    };
                    Value::Struct(fields.iter().map(field).collect())
                }
            }
            serde_json::Value::Array(items) => Value::List(items.iter().map(|v| Value::typed(v, "")).collect()),
            plain => Value::plain(plain),
        }
    }

    /// JSON as Go decodes it without a type: objects are maps.
    pub fn raw(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Object(fields) => {
                Value::Map(Rc::new(fields.iter().map(|(k, v)| (k.clone(), Value::raw(v))).collect()), Elements::Any)
            }
            serde_json::Value::Array(items) => Value::List(items.iter().map(Value::raw).collect()),
            plain => Value::plain(plain),
        }
    }

    /// Gives the struct at a path fields that JSON has left out: those that are not there yet, before the field
    /// `before` or at the end. A list on the way stands for each of its items.
    pub fn complete(&mut self, path: &[&str], before: &str, missing: &[(&str, Value)]) {
        match (self, path) {
            (Value::List(items), path) => {
                let mut all = items.to_vec();
                all.iter_mut().for_each(|item| item.complete(path, before, missing));
                *items = all.into();
            }
            (Value::Struct(fields), []) => {
                let mut all = fields.to_vec();
                let place = all.iter().position(|f| f.name == before).unwrap_or(all.len());
                let missing = missing.iter().filter(|(name, _)| !fields.iter().any(|f| f.name == *name));
                let field = |(name, value): &(&str, Value)| Field {
                    name: (*name).to_owned(),
                    value: value.clone(),
                    omitted: true,
                };
                all.splice(place..place, missing.map(field));
                *fields = all.into();
            }
            (Value::Struct(fields), [first, rest @ ..]) => {
                let mut all = fields.to_vec();
                if let Some(field) = all.iter_mut().find(|f| f.name == *first) {
                    field.value.complete(rest, before, missing);
                }
                *fields = all.into();
            }
            _ => {}
        }
    }

    fn plain(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => {
                n.as_i64().map(Value::Int).or_else(|| n.as_f64().map(Value::Float)).unwrap_or(Value::Nil(Nil::Plain))
            }
            serde_json::Value::String(s) => Value::Text(s.as_str().into()),
            _ => Value::Nil(Nil::Plain),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        match self {
            Value::Nil(_) | Value::Missing => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(i) => (*i).into(),
            Value::Float(f) => (*f).into(),
            Value::Text(t) => t.to_string().into(),
            Value::List(items) => items.iter().map(Value::json).collect(),
            Value::Map(fields, _) => fields.iter().map(|(k, v)| (k.clone(), v.json())).collect(),
            Value::Struct(fields) => {
                fields.iter().filter(|f| !f.omitted).map(|f| (f.name.clone(), f.value.json())).collect()
            }
            Value::Object(object) => object.json(),
        }
    }

    /// Go's truth: not empty, not zero, not nil.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil(_) | Value::Missing => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Text(t) => !t.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Map(fields, _) => !fields.is_empty(),
            Value::Struct(_) | Value::Object(_) => true,
        }
    }

    /// How Go's errors call its type.
    pub fn kind(&self) -> String {
        match self {
            Value::Nil(_) | Value::Missing => "interface {}".into(),
            Value::Bool(_) => "bool".into(),
            Value::Int(_) => "int".into(),
            Value::Float(_) => "float64".into(),
            Value::Text(_) => "string".into(),
            Value::List(_) => "[]interface {}".into(),
            Value::Map(..) => "map[string]interface {}".into(),
            Value::Struct(_) => "struct".into(),
            Value::Object(object) => object.type_name(),
        }
    }

    /// Go's `%v`.
    pub fn show(&self) -> String {
        let join = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(" ");
        match self {
            Value::Nil(Nil::List) => "[]".into(),
            Value::Nil(Nil::Map) => "map[]".into(),
            Value::Nil(_) => "<nil>".into(),
            Value::Missing => "<no value>".into(),
            Value::Bool(b) => b.to_string(),
            Value::Int(i) => i.to_string(),
            Value::Float(f) => float(*f),
            Value::Text(t) => t.to_string(),
            Value::List(items) => format!("[{}]", join(&mut items.iter().map(Value::show))),
            Value::Map(fields, _) => {
                format!("map[{}]", join(&mut fields.iter().map(|(k, v)| format!("{k}:{}", v.show()))))
            }
            Value::Struct(fields) => format!("{{{}}}", join(&mut fields.iter().map(|f| f.value.show()))),
            Value::Object(object) => object.json().to_string(),
        }
    }

    /// Go's `eq`, `lt` for basic kinds.
    ///
    /// # Errors
    /// They cannot be compared.
    pub fn compare(&self, other: &Value) -> Result<Ordering, String> {
        let order = match (self, other) {
            (Value::Nil(_) | Value::Missing, Value::Nil(_) | Value::Missing) => Ordering::Equal,
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Less),
            (Value::Float(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)).unwrap_or(Ordering::Less),
            (Value::Int(a), Value::Float(b)) => (*a as f64).partial_cmp(b).unwrap_or(Ordering::Less),
            (Value::List(_) | Value::Map(..) | Value::Struct(_), _) | (_, Value::List(_) | Value::Map(..)) => {
                return Err("non-comparable type".into());
            }
            _ => return Err("incompatible types for comparison".into()),
        };
        Ok(order)
    }
}

/// Go's `%v` of a float.
fn float(value: f64) -> String {
    let exponent = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |p| ('-', p));
    format!("{digits}e{sign}{power:0>2}")
}
