//! Whether a container is well: what its health check (`HEALTHCHECK`, `--health-*`) has found so far, and what follows.
//!
//! ```text
//!              a probe succeeds
//! starting ────────────────────────▶ healthy
//!    │  ▲ none                        │  ▲
//!    │  within the start period       │  │ a probe succeeds
//!    └──── `retries` fail in a row ───┴─▶ unhealthy
//! ```

use crate::image::Healthcheck;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// How many probes are remembered.
const REMEMBERED: usize = 5;
/// How much of a probe's output is kept, in bytes.
pub const OUTPUT_MAX: usize = 4096;

/// What its checks make of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Too few have been run to say.
    #[default]
    Starting,
    /// The last one succeeded.
    Healthy,
    /// Too many have failed in a row.
    Unhealthy,
}

impl Status {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One run of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// When it was started.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// -1: it could not be run, or took too long.
    pub exit_code: i64,
    /// What it wrote, at most [`OUTPUT_MAX`] bytes.
    pub output: String,
}

/// What is known of a container's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What the last ones say.
    pub status: Status,
    /// How many have failed since one succeeded.
    pub failing_streak: u32,
    /// The last ones, the oldest first.
    pub log: VecDeque<Probe>,
}

impl Health {
    /// Takes a probe in. `running_for` is how long the container had been running when the probe began. The status, if it
    /// is another one now.
    pub fn take(&mut self, probe: Probe, check: &Healthcheck, running_for: Duration) -> Option<Status> {
        let before = self.status;
        if probe.exit_code == 0 {
            self.failing_streak = 0;
            self.status = Status::Healthy;
        } else if !(self.status == Status::Starting && running_for < check.start_period()) {
            self.failing_streak += 1;
            if self.failing_streak >= check.retries() {
                self.status = Status::Unhealthy;
            }
        }
        self.log.push_back(probe);
        if self.log.len() > REMEMBERED {
            self.log.pop_front();
        }
        (self.status != before).then_some(self.status)
    }
}

fn or(nanoseconds: i64, default: Duration) -> Duration {
    u64::try_from(nanoseconds).ok().filter(|n| *n > 0).map_or(default, Duration::from_nanos)
}

impl Healthcheck {
    /// What is executed; `None` where nothing is to be. `shell` is the image's, `None` for `/bin/sh -c`.
    pub fn command(&self, shell: Option<&[String]>) -> Option<Vec<String>> {
        match self.test.as_deref()? {
            [kind, arguments @ ..] if kind == "CMD" && !arguments.is_empty() => Some(arguments.to_vec()),
            [kind, text] if kind == "CMD-SHELL" => {
                let shell = shell.filter(|s| !s.is_empty()).map(<[String]>::to_vec);
                let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                command.push(text.clone());
                Some(command)
            }
            _ => None,
        }
    }

    /// How long one run may take; Docker's default is 30 seconds.
    pub fn timeout(&self) -> Duration {
        or(self.timeout, Duration::from_secs(30))
    }

    /// How long failures do not count after a start; Docker's default is none.
    pub fn start_period(&self) -> Duration {
        or(self.start_period, Duration::ZERO)
    }

    /// How many failures in a row make a container unhealthy.
    pub fn retries(&self) -> u32 {
        u32::try_from(self.retries).ok().filter(|n| *n > 0).unwrap_or(3)
    }

    /// How long until the next probe.
    pub fn pause(&self, status: Status, running_for: Duration) -> Duration {
        if status == Status::Starting && running_for < self.start_period() {
            or(self.start_interval, Duration::from_secs(5))
        } else {
            or(self.interval, Duration::from_secs(30))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn probe(exit_code: i64) -> Probe {
        Probe { start: Timestamp::UNIX_EPOCH, end: Timestamp::UNIX_EPOCH, exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let check = Healthcheck { retries: 2, start_period: 10 * SECOND, ..Healthcheck::default() };
        let mut health = Health::default();
        let late = Duration::from_secs(60);
        for _ in 0..9 {
            assert_eq!(health.take(probe(1), &check, Duration::from_secs(9)), None, "it may take its time to start");
        }
        assert_eq!((health.failing_streak, health.log.len()), (0, REMEMBERED));
        assert_eq!(health.take(probe(1), &check, late), None);
        assert_eq!(health.take(probe(-1), &check, late), Some(Status::Unhealthy));
        assert_eq!(health.take(probe(1), &check, late), None);
        assert_eq!(health.failing_streak, 3);
        assert_eq!(health.take(probe(0), &check, late), Some(Status::Healthy));
        assert_eq!(health.take(probe(1), &check, Duration::ZERO), None);
        assert_eq!(health.failing_streak, 1, "one that was healthy does not start any more");
    }

    #[test]
    fn checks_have_dockers_defaults() {
        let check = Healthcheck { start_period: 10 * SECOND, ..Healthcheck::default() };
        assert_eq!((check.timeout(), check.retries()), (Duration::from_secs(30), 3));
        assert_eq!(check.pause(Status::Starting, Duration::from_secs(1)), Duration::from_secs(5));
        assert_eq!(check.pause(Status::Starting, Duration::from_secs(10)), Duration::from_secs(30));
        assert_eq!(check.pause(Status::Healthy, Duration::from_secs(1)), Duration::from_secs(30));
    }

    #[test]
    fn commands_are_executed_as_they_are_or_by_a_shell() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let of = |test: &[&str], shell: Option<&[String]>| {
            Healthcheck { test: Some(words(test)), ..Healthcheck::default() }.command(shell)
        };
        assert_eq!(of(&["CMD", "a", "b"], None), Some(words(&["a", "b"])));
        assert_eq!(of(&["CMD-SHELL", "a b"], None), Some(words(&["/bin/sh", "-c", "a b"])));
        assert_eq!(of(&["CMD-SHELL", "a"], Some(&words(&["/sh"]))), Some(words(&["/sh", "a"])));
        assert_eq!((of(&["NONE"], None), of(&[], None)), (None, None));
        assert_eq!(Healthcheck::default().command(None), None);
    }
}
