//! The recording as values: what was asked, and what Docker printed.
//!
//! ```text
//! ######## 2 errors
//!
//! $ ENGINE network create webapp1
//!   err| Error response from daemon: network with name webapp1 already exists
//!   exit 1
//! ```

/// One command line for bash, with `ENGINE` for the program, and what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    pub section: String,
    pub command: String,
    pub did: Did,
}

/// What a command printed, and its exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Did {
    pub stdout: String,
    pub stderr: String,
    pub exit: i32,
}

/// Reads a recording: all exchanges in their order.
///
/// # Panics
/// A line belongs nowhere.
pub fn parse(text: &str) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut section = String::new();
    let mut open: Option<Exchange> = None;
    for line in text.lines() {
        match (&mut open, line) {
            (None, _) if line.is_empty() || line.starts_with("# ") => {}
            (None, _) if line.starts_with("######## ") => section = line["######## ".len()..].to_owned(),
            (None, _) => {
                let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("not a command: {line}")).to_owned();
                open = Some(Exchange { section: section.clone(), command, did: Did::default() });
            }
            (Some(exchange), _) => {
                if let Some(out) = line.strip_prefix("  out| ") {
                    exchange.did.stdout += &format!("{out}\n");
                } else if let Some(err) = line.strip_prefix("  err| ") {
                    exchange.did.stderr += &format!("{err}\n");
                } else if let Some(code) = line.strip_prefix("  exit ") {
                    exchange.did.exit = code.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
                    exchanges.extend(open.take());
                } else {
                    // Command lines may have several lines.
                    exchange.command += &format!("\n{line}");
                }
            }
        }
    }
    assert_eq!(open, None, "the recording ends within an exchange");
    exchanges
}

#[test]
fn a_recording_is_read_with_commands_of_several_lines() {
    let read =
        parse("# engine\n\n######## 1 a\n\n$ x \"\ny\"\n  out| 1\n  out| \n  err| 2\n  exit 3\n\n$ z\n  exit 0\n");
    let did = Did { stdout: "1\n\n".into(), stderr: "2\n".into(), exit: 3 };
    assert_eq!(read[0], Exchange { section: "1 a".into(), command: "x \"\ny\"".into(), did });
    assert_eq!((read.len(), read[1].command.as_str()), (2, "z"));
}
