//! What pipelines can call: Go's own functions, and those that Docker adds.

use super::value::{Elements, Nil, Value};
use std::cmp::Ordering;
use std::rc::Rc;

/// Why a call failed.
pub enum Refusal {
    /// The number of arguments is wrong.
    Count(String),
    Call(String),
}

const GO: [&str; 18] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery", "eq", "ne",
    "lt", "le", "gt", "ge",
];
const DOCKER: [&str; 8] = ["json", "split", "join", "title", "lower", "upper", "pad", "truncate"];

/// Whether there is a function of that name.
pub fn is_known(name: &str) -> bool {
    GO.contains(&name) || DOCKER.contains(&name)
}

/// Whether a function leaves the header of a table as it is.
pub fn spares_headers(name: &str) -> bool {
    DOCKER.contains(&name)
}

/// Calls a function. `and` and `or` are not here: they do not look at all their arguments.
///
/// # Errors
/// In Go's words.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, Refusal> {
    let wants = |count: usize| {
        let got = arguments.len();
        if got == count {
            Ok(())
        } else {
            Err(Refusal::Count(format!("wrong number of args for {name}: want {count} got {got}")))
        }
    };
    let least = |count: usize| {
        let got = arguments.len();
        if got >= count {
            Ok(())
        } else {
            Err(Refusal::Count(format!("wrong number of args for {name}: want at least {count} got {got}")))
        }
    };
    let done = |result: Result<Value, String>| result.map_err(Refusal::Call);
    match name {
        "not" => wants(1).map(|()| Value::Bool(!arguments[0].is_true())),
        "len" => wants(1).and_then(|()| done(length(&arguments[0]))),
        "index" => least(1).and_then(|()| done(index(&arguments[0], &arguments[1..]))),
        "slice" => least(1).and_then(|()| done(slice(&arguments[0], &arguments[1..]))),
        "print" => Ok(sprint(arguments).into()),
        "println" => Ok(sprintln(arguments).into()),
        "printf" => least(1).map(|()| sprintf(&arguments[0].show(), &arguments[1..]).into()),
        "html" => Ok(html(&sprint(arguments)).into()),
        "js" => Ok(sprint(arguments).replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\"").into()),
        "urlquery" => Ok(crate::client::connection::Query::new().with("", sprint(arguments)).to_string()[2..]
            .replace("%20", "+")
            .into()),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => least(1).and_then(|()| done(compare(name, arguments))),
        "json" => wants(1).map(|()| json(&arguments[0]).into()),
        "split" => wants(2).map(|()| {
            let (text, separator) = (arguments[0].show(), arguments[1].show());
            if separator.is_empty() {
                Value::List(text.chars().map(|c| c.to_string().into()).collect())
            } else {
                Value::List(text.split(&separator).map(Value::from).collect())
            }
        }),
        "join" => wants(2).and_then(|()| {
            let separator = arguments[1].show();
            match &arguments[0] {
                Value::List(items) => Ok(items.iter().map(Value::show).collect::<Vec<_>>().join(&separator).into()),
                Value::Nil(_) => Ok("".into()),
                other => Err(Refusal::Call(format!("wrong type for value; expected []string; got {}", other.kind()))),
            }
        }),
        "title" => wants(1).map(|()| title(&arguments[0].show()).into()),
        "lower" => wants(1).map(|()| arguments[0].show().to_lowercase().into()),
        "upper" => wants(1).map(|()| arguments[0].show().to_uppercase().into()),
        "pad" => wants(3).map(|()| {
            let text = arguments[0].show();
            match (&arguments[1], &arguments[2]) {
                (Value::Int(before), Value::Int(after)) if !text.is_empty() => {
                    let spaces = |n: &i64| " ".repeat(usize::try_from(*n).unwrap_or_default());
                    format!("{}{text}{}", spaces(before), spaces(after)).into()
                }
                _ => text.into(),
            }
        }),
        "truncate" => wants(2).map(|()| {
            let text = arguments[0].show();
            match &arguments[1] {
                Value::Int(length) => {
                    let end = usize::try_from(*length).unwrap_or_default().min(text.len());
                    text[..text.floor_char_boundary(end)].into()
                }
                _ => text.into(),
            }
        }),
        _ => Err(Refusal::Call("is no function".into())),
    }
}

/// Docker's `json`: Go's, which escapes `<`, `>` and `&` in the lines of lists, and nowhere else.
pub fn json(value: &Value) -> String {
    let text = value.json().to_string();
    match value {
        Value::Object(_) => text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
        _ => text,
    }
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(map, _) => map.len(),
        Value::Nil(Nil::List | Nil::Map) => 0,
        Value::Nil(_) | Value::Missing => return Err("len of nil pointer".into()),
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(Value::Int(length as i64))
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Map(map, elements), Value::Text(key)) => match (map.get(&**key), elements) {
                (Some(value), _) => value.clone(),
                (None, Elements::Texts) => "".into(),
                (None, Elements::Others) => Value::Nil(Nil::Pointer),
                (None, Elements::Any) => Value::Missing,
            },
            (Value::Map(..), key) => {
                return Err(format!("value has type {}; should be string", key.kind()));
            }
            (Value::Nil(Nil::Map), _) => Value::Nil(Nil::Plain),
            (Value::List(items), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| items.get(at));
                found.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::Nil(Nil::List), Value::Int(at)) => return Err(format!("index out of range: {at}")),
            (Value::Text(text), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                found.map(|b| Value::Int(i64::from(*b))).ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::List(_) | Value::Text(_), key) => {
                return Err(format!("cannot index slice/array with type {}", key.kind()));
            }
            (Value::Nil(_) | Value::Missing, _) => return Err("index of untyped nil".into()),
            (other, _) => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    Ok(value)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Nil(Nil::List) => 0,
        other => return Err(format!("can't slice item of type {}", other.kind())),
    };
    let mut places = [0, length];
    if bounds.len() > 2 {
        return Err(format!("too many slice indexes: {}", bounds.len()));
    }
    for (place, bound) in places.iter_mut().zip(bounds) {
        let Value::Int(at) = bound else {
            return Err(format!("cannot index slice/array with type {}", bound.kind()));
        };
        *place = usize::try_from(*at).ok().filter(|at| *at <= length).ok_or(format!("index out of range: {at}"))?;
    }
    let [from, to] = places;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::Text(text) => String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned().into(),
        Value::List(items) => Value::List(Rc::from(&items[from..to])),
        other => other.clone(),
    })
}

fn compare(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let [first, rest @ ..] = arguments else { return Err("missing argument for comparison".into()) };
    let [second, more @ ..] = rest else { return Err("missing argument for comparison".into()) };
    if name == "eq" {
        for other in std::iter::once(second).chain(more) {
            if first.compare(other)? == Ordering::Equal {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    if matches!((first, name), (Value::Bool(_), "lt" | "le" | "gt" | "ge")) {
        return Err("invalid type for comparison".into());
    }
    let order = first.compare(second)?;
    Ok(Value::Bool(match name {
        "ne" => order.is_ne(),
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

/// Go's `Sprint`: a space between two operands when neither is a text.
fn sprint(values: &[Value]) -> String {
    let mut text = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        if before.is_some_and(|b| !matches!(b, Value::Text(_)) && !matches!(value, Value::Text(_))) {
            text.push(' ');
        }
        text.push_str(&value.show());
        before = Some(value);
    }
    text
}

fn sprintln(values: &[Value]) -> String {
    values.iter().map(Value::show).collect::<Vec<_>>().join(" ") + "\n"
}

/// Go's `Sprintf`, as far as templates go: flags, width, precision; `v s q d x X o b c f g e t T %`.
fn sprintf(format: &str, values: &[Value]) -> String {
    let mut text = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "+-# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut number = |values: &mut std::slice::Iter<'_, Value>| {
            if chars.next_if_eq(&'*').is_some() {
                return values.next().and_then(|v| if let Value::Int(i) = v { usize::try_from(*i).ok() } else { None });
            }
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok()
        };
        let width = number(&mut values);
        let precision = if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            Some(digits.parse::<usize>().unwrap_or_default())
        } else {
            None
        };
        let Some(verb) = chars.next() else {
            text.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            text.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            text.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let shown = verb_of(verb, value, precision, &flags);
        let fill = width.unwrap_or_default().saturating_sub(shown.chars().count());
        if flags.contains('-') {
            text.push_str(&shown);
            text.push_str(&" ".repeat(fill));
        } else if flags.contains('0') && !matches!(value, Value::Text(_)) {
            let (sign, digits) = shown.strip_prefix('-').map_or(("", shown.as_str()), |d| ("-", d));
            text.push_str(&format!("{sign}{}{digits}", "0".repeat(fill)));
        } else {
            text.push_str(&" ".repeat(fill));
            text.push_str(&shown);
        }
    }
    let extra: Vec<String> = values.map(|v| format!("{}={}", v.kind(), v.show())).collect();
    if !extra.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    text
}

fn verb_of(verb: char, value: &Value, precision: Option<usize>, flags: &str) -> String {
    let cut = |text: String| precision.map_or(text.clone(), |p| text.chars().take(p).collect());
    let plus = |text: String| if flags.contains('+') && !text.starts_with('-') { format!("+{text}") } else { text };
    match (verb, value) {
        ('v', Value::Missing | Value::Nil(Nil::Plain)) => "<nil>".into(),
        ('v', _) => value.show(),
        ('s', Value::Text(text)) => cut(text.to_string()),
        ('s', Value::List(_) | Value::Map(..) | Value::Struct(_)) => value.show(),
        ('q', Value::Text(text)) => crate::text::quote(text),
        ('q', Value::List(items)) => {
            let items: Vec<String> = items.iter().map(|v| verb_of('q', v, None, "")).collect();
            format!("[{}]", items.join(" "))
        }
        ('d', Value::Int(i)) => plus(i.to_string()),
        ('x', Value::Int(i)) => format!("{i:x}"),
        ('X', Value::Int(i)) => format!("{i:X}"),
        ('o', Value::Int(i)) => format!("{i:o}"),
        ('b', Value::Int(i)) => format!("{i:b}"),
        ('c', Value::Int(i)) => u32::try_from(*i).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string(),
        ('x', Value::Text(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Text(text)) => text.bytes().map(|b| format!("{b:02X}")).collect(),
        ('f' | 'F', Value::Float(f)) => plus(format!("{f:.*}", precision.unwrap_or(6))),
        ('g', Value::Float(_)) => value.show(),
        ('e', Value::Float(f)) => format!("{f:.*e}", precision.unwrap_or(6)),
        ('t', Value::Bool(b)) => b.to_string(),
        ('T', value) => value.kind(),
        (verb, value) => format!("%!{verb}({}={})", value.kind(), value.show()),
    }
}

/// Go's `strings.Title`, which Docker's `title` is.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins {
            titled.extend(c.to_uppercase())
        } else {
            titled.push(c)
        }
        begins = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    titled
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}
