//! The builds that clients ask about, by their ids.

use crate::progress::Progress;
use model::image::ImageId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tonic::Status;

/// So many builds are remembered that are over, for who asks late.
const REMEMBERED: usize = 16;

/// All of them.
#[derive(Default)]
pub(crate) struct Builds(Mutex<Known>);

#[derive(Default)]
struct Known {
    builds: HashMap<String, Arc<Build>>,
    over: VecDeque<String>,
}

/// What comes of a build that its client leads.
pub(crate) type Returned = Result<Option<ImageId>, Status>;

/// One build. Its calls come in any order, and by several connections.
pub(crate) struct Build {
    pub(crate) progress: Arc<Progress>,
    /// The session, once the control service was asked for the build.
    pub(crate) session: watch::Sender<Option<String>>,
    /// What the client has given back to the gateway.
    pub(crate) returned: watch::Sender<Option<Returned>>,
    /// What the gateway has built, by the names that it gave to them.
    results: Mutex<HashMap<String, ImageId>>,
}

impl Builds {
    /// A build; whoever asks first makes it known.
    pub(crate) fn get(&self, id: &str) -> Arc<Build> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            Arc::new(Build {
                progress: Arc::new(Progress::new(id)),
                session: watch::Sender::new(None),
                returned: watch::Sender::new(None),
                results: Mutex::default(),
            })
        };
        known.builds.entry(id.to_owned()).or_insert_with(made).clone()
    }

    /// A build is over.
    pub(crate) fn end(&self, id: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.over.push_back(id.to_owned());
        while known.over.len() > REMEMBERED {
            if let Some(oldest) = known.over.pop_front() {
                known.builds.remove(&oldest);
            }
        }
    }
}

impl Build {
    /// The name of something that was built.
    pub(crate) fn add_result(&self, image: ImageId) -> String {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("result-{}", results.len());
        results.insert(name.clone(), image);
        name
    }

    pub(crate) fn result(&self, name: &str) -> Option<ImageId> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
