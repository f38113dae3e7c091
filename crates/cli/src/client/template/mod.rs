//! Go's template language, as `--format` uses it.
//!
//! Own code, because gtmpl 0.7 keeps objects in a hash map (so `range` has no order and `json` loses the fields'), has
//! no `break`, knows neither methods with arguments nor `missingkey=error`, and words its errors differently.
//!
//! - [`parse`]: from text to a tree
//! - [`value`]: what a template is evaluated over
//! - [`functions`]: what pipelines can call

mod functions;
mod parse;
mod value;

pub use value::{Nil, Object, Value};

use parse::{At, Command, Node, Operand, Pipeline, Term};
use std::collections::BTreeMap;

/// A template, ready to be evaluated.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
    defined: BTreeMap<String, Vec<Node>>,
}

/// What a map answers about a key that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// `<no value>`.
    NoValue,
    Error,
    /// There are no keys: it is the header of a table, which no function changes.
    Header,
}

impl Template {
    /// # Errors
    /// In Go's words: `template: :1: unclosed action`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let nodes = parse::parse(text).map_err(|e| format!("template: {e}"))?;
        let mut defined = BTreeMap::new();
        for node in &nodes {
            if let Node::Define(name, body) = node {
                defined.insert(name.clone(), body.clone());
            }
        }
        Ok(Self { nodes, defined })
    }

    /// The text for `data`.
    ///
    /// # Errors
    /// In Go's words.
    pub fn execute(&self, data: &Value, missing: MissingKey) -> Result<String, String> {
        let mut evaluation = Evaluation {
            template: self,
            missing,
            output: String::new(),
            variables: vec![("$".into(), data.clone())],
            at: At::default(),
            source: String::new(),
        };
        evaluation.nodes(&self.nodes, data).map_err(|e| e.0)?;
        Ok(evaluation.output)
    }
}

/// An error with its place already told.
struct Failed(String);

type Outcome<T> = Result<T, Failed>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Evaluation<'a> {
    template: &'a Template,
    missing: MissingKey,
    output: String,
    variables: Vec<(String, Value)>,
    /// Where we are, for errors.
    at: At,
    source: String,
}

impl Evaluation<'_> {
    fn fail<T>(&self, why: impl std::fmt::Display) -> Outcome<T> {
        let At { line, column } = self.at;
        Err(Failed(format!("template: :{line}:{column}: executing \"\" at <{}>: {why}", self.source)))
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Outcome<Flow> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Outcome<Flow> {
        let known = self.variables.len();
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Define(..) => {}
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    let shown = match value {
                        Value::Nil(value::Nil::Plain) => "<no value>".into(),
                        value => value.show(),
                    };
                    self.output.push_str(&shown);
                }
            }
            Node::If(pipeline, body, otherwise) | Node::With(pipeline, body, otherwise) => {
                let value = self.pipeline(pipeline, dot)?;
                let inner = if matches!(node, Node::With(..)) { &value } else { dot };
                let flow = if value.is_true() { self.nodes(body, inner) } else { self.nodes(otherwise, dot) };
                self.variables.truncate(known);
                return flow;
            }
            Node::Range(pipeline, body, otherwise) => {
                let value = self.value_of(pipeline, dot)?;
                let flow = self.range(pipeline, &value, body, otherwise, dot);
                self.variables.truncate(known);
                return flow;
            }
            Node::Template(name, argument) => {
                let dot = match argument {
                    Some(pipeline) => self.pipeline(pipeline, dot)?,
                    None => Value::Nil(value::Nil::Plain),
                };
                let Some(nodes) = self.template.defined.get(name) else {
                    return self.fail(format!("template {} not defined", crate::text::quote(name)));
                };
                let outer = std::mem::replace(&mut self.variables, vec![("$".into(), dot.clone())]);
                let done = self.nodes(nodes, &dot);
                self.variables = outer;
                done?;
            }
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        value: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Outcome<Flow> {
        let items: Vec<(Value, Value)> = match value {
            Value::Nil(_) | Value::Missing => Vec::new(),
            Value::List(list) => list.iter().enumerate().map(|(i, v)| (Value::Int(i as i64), v.clone())).collect(),
            Value::Map(map, _) => map.iter().map(|(k, v)| (k.as_str().into(), v.clone())).collect(),
            Value::Int(n) => (0..*n).map(|i| (Value::Int(i), Value::Int(i))).collect(),
            other => return self.fail(format!("range can't iterate over {}", other.show())),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let known = self.variables.len();
            match pipeline.variables.as_slice() {
                [only] => self.bind(pipeline.assigns, only, item.clone()),
                [first, second] => {
                    self.bind(pipeline.assigns, first, key);
                    self.bind(pipeline.assigns, second, item.clone());
                }
                _ => {}
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn bind(&mut self, assigns: bool, name: &str, value: Value) {
        match self.variables.iter_mut().rev().find(|(n, _)| assigns && n == name) {
            Some(variable) => variable.1 = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    /// The value, bound to the variables that the pipeline declares.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Outcome<Value> {
        let value = self.value_of(pipeline, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            self.bind(pipeline.assigns, name, value.clone());
        }
        Ok(value)
    }

    fn value_of(&mut self, pipeline: &Pipeline, dot: &Value) -> Outcome<Value> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Value::Missing))
    }

    fn command(&mut self, command: &Command, dot: &Value, piped: Option<Value>) -> Outcome<Value> {
        let Some((first, rest)) = command.words.split_first() else { return Ok(Value::Missing) };
        if let Term::Function(name) = &first.term {
            let value = self.call(name, first, rest, dot, piped, command)?;
            return self.fields(value, first, &first.fields, &[]);
        }
        let mut arguments = Vec::new();
        for word in rest {
            arguments.push(self.operand(word, dot, &[])?);
        }
        arguments.extend(piped);
        self.operand(first, dot, &arguments)
    }

    fn call(
        &mut self,
        name: &str,
        first: &Operand,
        rest: &[Operand],
        dot: &Value,
        piped: Option<Value>,
        command: &Command,
    ) -> Outcome<Value> {
        // These two look at no more than they need.
        if name == "and" || name == "or" {
            let mut last = None;
            for word in rest {
                let value = self.operand(word, dot, &[])?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
                last = Some(value);
            }
            if let Some(value) = piped.or(last) {
                return Ok(value);
            }
            self.place(first);
            return self.fail(format!("wrong number of args for {name}: want at least 1 got 0"));
        }
        let mut arguments = Vec::new();
        for word in rest {
            arguments.push(self.operand(word, dot, &[])?);
        }
        arguments.extend(piped);
        if self.missing == MissingKey::Header && functions::spares_headers(name) {
            return Ok(arguments.into_iter().next().unwrap_or(Value::Missing));
        }
        let refusal = match functions::call(name, &arguments) {
            Ok(value) => return Ok(value),
            Err(refusal) => refusal,
        };
        self.at = command.at;
        match refusal {
            functions::Refusal::Count(why) => {
                self.source = name.to_owned();
                self.fail(why)
            }
            functions::Refusal::Call(why) => {
                self.source = if rest.is_empty() { name.to_owned() } else { command.source.clone() };
                self.fail(format!("error calling {name}: {why}"))
            }
        }
    }

    fn place(&mut self, operand: &Operand) {
        (self.at, self.source) = (operand.at, operand.source.clone());
    }

    fn operand(&mut self, operand: &Operand, dot: &Value, arguments: &[Value]) -> Outcome<Value> {
        let value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil => {
                self.place(operand);
                return self.fail("nil is not a command");
            }
            Term::Bool(b) => Value::Bool(*b),
            Term::Int(i) => Value::Int(*i),
            Term::Float(f) => Value::Float(*f),
            Term::Text(text) => text.as_str().into(),
            Term::Variable(name) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                found.map_or(Value::Missing, |(_, value)| value.clone())
            }
            Term::Function(name) => {
                let nothing = Command { words: Vec::new(), at: operand.at, source: operand.source.clone() };
                self.call(name, operand, &[], dot, None, &nothing)?
            }
            Term::Parenthesis(pipeline) => self.pipeline(pipeline, dot)?,
        };
        if !matches!(operand.term, Term::Parenthesis(_)) {
            self.place(operand);
        }
        if operand.fields.is_empty() && !arguments.is_empty() {
            return self.fail(format!("can't give argument to non-function {}", operand.source));
        }
        self.fields(value, operand, &operand.fields, arguments)
    }

    /// Follows a chain of fields; arguments go to the last.
    fn fields(&mut self, value: Value, operand: &Operand, fields: &[String], arguments: &[Value]) -> Outcome<Value> {
        let mut value = value;
        for (index, name) in fields.iter().enumerate() {
            // Where nothing came out of parentheses, Go still points at what was evaluated last.
            if !(index == 0 && matches!((&value, &operand.term), (Value::Missing, Term::Parenthesis(_)))) {
                self.place(operand);
            }
            let arguments = if index + 1 == fields.len() { arguments } else { &[] };
            value = self.field(value, name, arguments)?;
        }
        Ok(value)
    }

    fn field(&self, value: Value, name: &str, arguments: &[Value]) -> Outcome<Value> {
        if let Value::Object(object) = &value {
            return match object.method(name, arguments) {
                Some(Ok(value)) => Ok(value),
                Some(Err(why)) => self.fail(why),
                None => self.fail(format!("can't evaluate field {name} in type {}", object.type_name())),
            };
        }
        if !arguments.is_empty() {
            return self.fail(format!("{name} has arguments but cannot be invoked as function"));
        }
        match &value {
            Value::Missing if self.missing == MissingKey::Error => {
                self.fail(format!("nil data; no entry for key {}", crate::text::quote(name)))
            }
            Value::Missing => Ok(Value::Missing),
            Value::Nil(value::Nil::Map) => Ok(Value::Missing),
            Value::Nil(_) => self.fail(format!("nil pointer evaluating interface {{}}.{name}")),
            Value::Map(map, _) => match map.get(name) {
                Some(value) => Ok(value.clone()),
                None if self.missing == MissingKey::Error => {
                    self.fail(format!("map has no entry for key {}", crate::text::quote(name)))
                }
                None => Ok(Value::Missing),
            },
            Value::Struct(fields) => {
                // Go's names differ from JSON's in their case, and one in its words.
                let name = if name == "AuxAddress" { "AuxiliaryAddresses" } else { name };
                let exact = fields.iter().find(|f| f.name == name);
                match exact.or_else(|| fields.iter().find(|f| f.name.eq_ignore_ascii_case(name))) {
                    Some(field) => Ok(field.value.clone()),
                    None => self.fail(format!("can't evaluate field {name} in type struct")),
                }
            }
            other => {
                // Over plain maps, Go knows no types.
                let kind = if self.missing == MissingKey::Error { "interface {}".into() } else { other.kind() };
                self.fail(format!("can't evaluate field {name} in type {kind}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
