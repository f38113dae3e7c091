//! What has happened: told to whoever listens, and remembered for a while (OB-01).

use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use tokio::sync::broadcast;

/// How many past events `since` can reach back to.
const REMEMBERED: usize = 1024;

/// Something that has happened to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `container`, `network`, `image`, `volume`, `builder` (of builds' caches) or `daemon` (that it reloads).
    pub kind: &'static str,
    /// `create`, `start`, `die` …
    pub action: String,
    /// The object's id; a volume's name.
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
    pub time: Timestamp,
}

#[derive(Debug)]
pub struct Events {
    live: broadcast::Sender<Event>,
    past: Mutex<VecDeque<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { live: broadcast::channel(REMEMBERED).0, past: Mutex::default() }
    }
}

impl Events {
    /// How many clients listen.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    pub fn tell(&self, kind: &'static str, action: &str, actor: String, attributes: BTreeMap<String, String>) {
        let event = Event { kind, action: action.to_owned(), actor, attributes, time: Timestamp::now() };
        let mut past = self.past.lock().expect("no holder panics");
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Told under the lock, so that a listener sees each event once: in the past or live.
        let _ = self.live.send(event);
    }

    /// Things of a kind that nobody used are gone, each told of before; `reclaimed` are the bytes they had. It has
    /// happened to no single object.
    pub fn tell_prune(&self, kind: &'static str, reclaimed: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
        self.tell(kind, "prune", String::new(), attributes);
    }

    /// The remembered events from `since` on, and all that follow.
    pub fn listen(&self, since: Option<Timestamp>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.past.lock().expect("no holder panics");
        let known = since.map_or_else(Vec::new, |since| past.iter().filter(|e| e.time >= since).cloned().collect());
        (known, self.live.subscribe())
    }
}
