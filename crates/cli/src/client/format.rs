//! Lists of things, in the form that was asked for: Docker's table, a table of one's own, JSON, or a template.

use crate::client::output::{Exit, print};
use crate::client::table;
use crate::client::template::{MissingKey, Object, Template, Value};
use std::collections::BTreeMap;
use std::rc::Rc;

/// One thing of a list: its columns by the names that templates use.
#[derive(Debug)]
pub struct Row {
    /// What Go calls it, for errors: `*formatter.ContainerContext`.
    kind: &'static str,
    columns: Vec<(&'static str, Value)>,
    labels: Option<BTreeMap<String, String>>,
}

impl Row {
    pub fn new(kind: &'static str) -> Self {
        Self { kind, columns: Vec::new(), labels: None }
    }
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.columns.push((name, value.into().into()));
        self
    }
    /// A column that is no text.
    #[must_use]
    pub fn with_value(mut self, name: &'static str, value: Value) -> Self {
        self.columns.push((name, value));
        self
    }
    /// Makes `.Label "x"` answer, and adds the column `Labels`.
    #[must_use]
    pub fn labelled(mut self, labels: &serde_json::Value) -> Self {
        let pairs = labels.as_object().into_iter().flatten();
        let labels: BTreeMap<String, String> =
            pairs.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
        let joined: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.columns.push(("Labels", joined.join(",").into()));
        self.labels = Some(labels);
        self
    }
}

impl Object for Row {
    fn method(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        if let (Some(labels), "Label") = (&self.labels, name) {
            return Some(match arguments {
                [label] => Ok(labels.get(&label.show()).cloned().unwrap_or_default().into()),
                other => Err(format!("wrong number of args for Label: want 1 got {}", other.len())),
            });
        }
        let value = self.columns.iter().find(|(n, _)| *n == name)?.1.clone();
        Some(match arguments {
            [] => Ok(value),
            other => Err(format!("wrong number of args for {name}: want 0 got {}", other.len())),
        })
    }
    fn type_name(&self) -> String {
        self.kind.to_owned()
    }
    fn json(&self) -> serde_json::Value {
        let sorted: BTreeMap<&str, &Value> = self.columns.iter().map(|(n, v)| (*n, v)).collect();
        sorted.into_iter().map(|(n, v)| (n.to_owned(), v.json())).collect()
    }
}

/// The header of a table: columns are their own titles.
#[derive(Debug)]
struct Header(&'static [(&'static str, &'static str)]);

impl Object for Header {
    fn method(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        if let ("Label", [label]) = (name, arguments) {
            let label = label.show();
            let last = label.rsplit('.').next().unwrap_or_default();
            return Some(Ok(last.replace(['-', '_'], " ").into()));
        }
        let title = self.0.iter().find(|(n, _)| *n == name).map(|(_, title)| *title);
        Some(Ok(title.map_or(Value::Missing, Value::from)))
    }
    fn type_name(&self) -> String {
        "formatter.SubHeaderContext".into()
    }
    fn json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// How a list is shown.
pub struct List {
    /// Names of columns and their titles.
    pub headers: &'static [(&'static str, &'static str)],
    /// The table that is shown unless another form is asked for.
    pub table: &'static str,
    /// What is shown with `-q`.
    pub quiet: &'static str,
    /// Docker's `raw`: a line a column; nothing where Docker has none.
    pub raw: &'static str,
}

impl List {
    /// Shows rows in a form: empty for the default table.
    ///
    /// # Errors
    /// The template is wrong.
    pub fn show(&self, rows: Vec<Row>, format: &str, quiet: bool) -> anyhow::Result<()> {
        self.show_with(self.table, rows, format, quiet)
    }

    /// The same with another default table.
    ///
    /// # Errors
    /// The template is wrong.
    pub fn show_with(&self, default: &str, rows: Vec<Row>, format: &str, quiet: bool) -> anyhow::Result<()> {
        let (table, template) = match format {
            "" | "table" if quiet => (false, self.quiet.to_owned()),
            "" | "table" => (true, default.to_owned()),
            "raw" if quiet && !self.raw.is_empty() => {
                let line = self.raw.lines().find(|l| l.contains(self.quiet));
                (false, line.unwrap_or(self.quiet).to_owned())
            }
            "raw" if !self.raw.is_empty() => (false, self.raw.to_owned()),
            "json" => (false, "{{json .}}".into()),
            format => match format.strip_prefix("table").filter(|f| f.starts_with(char::is_whitespace)) {
                Some(template) => (true, template.trim().to_owned()),
                None => (false, format.to_owned()),
            },
        };
        print(self.render(&template.replace("\\t", "\t").replace("\\n", "\n"), table, rows)?)
    }

    fn render(&self, text: &str, as_table: bool, rows: Vec<Row>) -> anyhow::Result<String> {
        let parsing = |e: String| Exit::new(1, format_args!("failed to parse template: {e}"));
        let template = Template::parse(text).map_err(parsing)?;
        let mut shown = String::new();
        if as_table {
            let header = Value::Object(Rc::new(Header(self.headers)));
            shown.push_str(&template.execute(&header, MissingKey::Header).map_err(|e| Exit::new(1, e))?);
            shown.push('\n');
        }
        for row in rows {
            let row = Value::Object(Rc::new(row));
            let line = template.execute(&row, MissingKey::NoValue);
            shown.push_str(&line.map_err(|e| Exit::new(1, format_args!("failed to execute template: {e}")))?);
            shown.push('\n');
        }
        Ok(if as_table { table::layout(&shown) } else { shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THINGS: List = List {
        headers: &[("ID", "THING ID"), ("Name", "NAME")],
        table: "{{.ID}}\t{{.Name}}",
        quiet: "{{.ID}}",
        raw: "",
    };

    fn rows() -> Vec<Row> {
        let labels = serde_json::json!({ "b": "2", "a.x": "1" });
        vec![Row::new("*formatter.thing").with("ID", "1").with("Name", "a longer name").labelled(&labels)]
    }

    fn shown(format: &str) -> String {
        let (table, text) = format.strip_prefix("table ").map_or((false, format), |t| (true, t));
        THINGS.render(text, table, rows()).unwrap_or_else(|e| format!("{e}"))
    }

    #[test]
    fn lists_are_tables_or_lines() {
        assert_eq!(shown("table {{.ID}}\t{{.Name}}"), "THING ID   NAME\n1          a longer name\n");
        assert_eq!(shown("{{.Name}}: {{.Label \"b\"}}"), "a longer name: 2\n");
        assert_eq!(shown("{{json .}}"), "{\"ID\":\"1\",\"Labels\":\"a.x=1,b=2\",\"Name\":\"a longer name\"}\n");
        assert_eq!(shown("table {{upper .Name}}\t{{.Label \"a.x-y\"}}"), "NAME            x y\nA LONGER NAME   \n");
    }

    #[test]
    fn a_column_that_is_not_there_is_an_error_in_go_s_words() {
        assert_eq!(
            shown("{{.Foo}}"),
            "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type \
             *formatter.thing"
        );
    }
}
