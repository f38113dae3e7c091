//! How far a transfer has come, in the shape of Docker's progress streams.

use serde::Serialize;

/// One line of it: `{"status":"Downloading","id":"0123456789ab","progressDetail":{"current":1,"total":2}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What goes on, in Docker's words.
    pub status: String,
    /// Which layer; none for what concerns the whole image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How far it is, where that can be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The bar that people see, drawn from the detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgressDetail {
    /// Those done.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Those there are; 0 where nobody knows.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Progress {
    /// A line without an id.
    pub fn line(status: impl Into<String>) -> Self {
        Self { status: status.into(), ..Self::default() }
    }
    /// A line about a layer.
    pub fn of(id: &str, status: &str) -> Self {
        let progress_detail = Some(ProgressDetail::default());
        Self { status: status.to_owned(), id: Some(id.to_owned()), progress_detail, progress: None }
    }
    /// A line about a layer on its way.
    pub fn at(id: &str, status: &str, current: u64, total: u64) -> Self {
        Self {
            status: status.to_owned(),
            id: Some(id.to_owned()),
            progress_detail: Some(ProgressDetail { current, total }),
            progress: Some(bar(current, total)),
        }
    }
}

/// `[=====>     ]  1.2MB/3.4MB`
fn bar(current: u64, total: u64) -> String {
    let size = |n: u64| {
        let mut n = n as f64;
        for unit in ["B", "kB", "MB", "GB"] {
            if n < 1000.0 {
                // four digits that count, as Go's units package shows them
                return match n {
                    n if n.fract() == 0.0 => format!("{n:.0}{unit}"),
                    n if n < 10.0 => format!("{n:.3}{unit}"),
                    n if n < 100.0 => format!("{n:.2}{unit}"),
                    n => format!("{n:.1}{unit}"),
                };
            }
            n /= 1000.0;
        }
        format!("{n:.3}TB")
    };
    if total == 0 || current > total {
        return size(current);
    }
    let done = (current * 50 / total) as usize;
    format!("[{}>{}] {:>8}/{}", "=".repeat(done), " ".repeat(50 - done), size(current), size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_docker_writes() {
        let json = |p: Progress| serde_json::to_string(&p).unwrap();
        assert_eq!(json(Progress::line("Pulling from library/x")), r#"{"status":"Pulling from library/x"}"#);
        assert_eq!(json(Progress::of("ab", "Waiting")), r#"{"status":"Waiting","id":"ab","progressDetail":{}}"#);
        assert_eq!(
            json(Progress::at("ab", "Downloading", 1_500_000, 3_000_000)),
            r#"{"status":"Downloading","id":"ab","progressDetail":{"current":1500000,"total":3000000},"progress":"[=========================>                         ]  1.500MB/3MB"}"#
        );
    }
}
