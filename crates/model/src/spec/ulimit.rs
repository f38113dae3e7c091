//! Limits of a process's resources (setrlimit(2)).

use super::Refusal;
use crate::go::or_default;
use serde::{Deserialize, Serialize};

/// `--ulimit nofile=1024:2048`, and the API's `Ulimit`. Negative is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// As Docker names it: `nofile`.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// What the process has, in the resource's unit (setrlimit(2)).
    #[serde(deserialize_with = "or_default")]
    pub soft: i64,
    /// What it may raise that to.
    #[serde(deserialize_with = "or_default")]
    pub hard: i64,
}

impl Ulimit {
    /// Every resource that can be limited, by its name.
    pub const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];

    pub(super) fn check(&self) -> Result<(), Refusal> {
        if !Self::NAMES.contains(&&*self.name) {
            return Err(Refusal::Ulimit(self.name.clone()));
        }
        if self.soft as u64 > self.hard as u64 {
            return Err(Refusal::UlimitOrder { soft: self.soft, hard: self.hard });
        }
        Ok(())
    }
}

impl std::str::FromStr for Ulimit {
    type Err = Refusal;

    /// `NAME=SOFT`, or `NAME=SOFT:HARD`.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let invalid = || Refusal::UlimitArgument(text.to_owned());
        let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
        let limit = Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? };
        limit.check()?;
        Ok(limit)
    }
}
