//! Work that a client watches: pulls, pushes and builds answer with lines of JSON that say how they go.

use crate::bodies::{json_lines, json_lines_after, stream_error};
use crate::error::{Answer, Failure};
use crate::socket::Client;
use axum::response::IntoResponse;
use image::Progress;
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Lines kept for a failure to be understood by: a quiet build may write without end.
const WITHHELD: usize = 4096;

/// Says how some work goes. Any number of hands may hold it.
#[derive(Clone)]
pub struct Teller {
    lines: mpsc::UnboundedSender<Value>,
    withheld: Arc<Mutex<VecDeque<Value>>>,
}

impl Teller {
    /// One line, as JSON. The first one sends the answer's status.
    pub fn say(&self, line: &impl Serialize) {
        let _ = self.lines.send(serde_json::to_value(line).unwrap_or_default());
    }

    /// A line that is told only if the work fails, and only if it is one of the last.
    pub fn withhold(&self, line: Value) {
        let mut withheld = self.withheld();
        if withheld.len() == WITHHELD {
            withheld.pop_front();
        }
        withheld.push_back(line);
    }

    /// For workers that know no more than how far they are.
    pub fn progress(self) -> Arc<dyn Fn(Progress) + Send + Sync> {
        Arc::new(move |line| self.say(&line))
    }

    /// The work is done: the last line.
    fn end<T>(&self, done: engine::Result<T>, last: impl FnOnce(T) -> Option<Value>) {
        match done {
            Ok(value) => {
                if let Some(line) = last(value) {
                    self.say(&line);
                }
            }
            Err(failed) => {
                std::mem::take(&mut *self.withheld()).iter().for_each(|line| self.say(line));
                self.say(&stream_error(&failed.message, failed.exit_code));
            }
        }
    }

    fn withheld(&self) -> MutexGuard<'_, VecDeque<Value>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers with what the work tells, and a last line when it is done. What fails before anything was said is a status;
/// the rest is told inside the stream. A client that goes away ends the work.
pub async fn told<T, F>(
    client: Client,
    begin: impl FnOnce(Teller) -> Answer<F>,
    last: impl FnOnce(T) -> Option<Value> + Send + 'static,
) -> Answer
where
    T: Send + 'static,
    F: Future<Output = engine::Result<T>> + Send + 'static,
{
    let (lines, mut receiver) = mpsc::unbounded_channel();
    let teller = Teller { lines, withheld: Arc::default() };
    let mut work = Box::pin(begin(teller.clone())?);
    let first = tokio::select! {
        biased;
        first = receiver.recv() => first,
        done = &mut work => {
            return match done {
                Err(failed) if receiver.is_empty() && teller.withheld().is_empty() => Err(failed.into()),
                done => {
                    teller.end(done, last);
                    // The stream ends with the last who could say more.
                    drop((work, teller));
                    Ok(json_lines(receiver).into_response())
                }
            };
        }
        () = client.gone() => return Err(gone()),
    };
    tokio::spawn(async move {
        tokio::select! {
            done = &mut work => teller.end(done, last),
            () = teller.lines.closed() => {}
            // Before the next line is written to nobody.
            () = client.gone() => {}
        }
    });
    Ok(json_lines_after(first, receiver).into_response())
}

/// What nobody reads: Docker's words for it.
pub fn gone() -> Failure {
    Failure::invalid("context canceled")
}
