//! Restart policies: when a container that has ended runs again, and how long that waits.

use crate::container::{HostConfig, RestartPolicy};
use std::time::Duration;

/// A restart waits for twice as long as the last one, from here up to a minute; a run of ten seconds begins anew.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
const GOOD_RUN: Duration = Duration::from_secs(10);

/// What is to become of a container that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// It stays so.
    #[default]
    No,
    /// It runs again, whatever the end.
    Always,
    /// As `Always`, but a daemon that starts leaves alone what a client has stopped.
    UnlessStopped,
    /// It runs again after a failure.
    OnFailure {
        /// How often at most; `None` is without end.
        most: Option<u32>,
    },
}

impl Policy {
    /// # Errors
    /// In Docker's words: there is no such policy, or it has no count.
    pub fn read(told: &RestartPolicy) -> Result<Self, String> {
        let most = told.maximum_retry_count;
        if most < 0 {
            return Err("invalid restart policy: maximum retry count cannot be negative".into());
        }
        let policy = match told.name.as_str() {
            "" | "no" => Policy::No,
            "always" => Policy::Always,
            "unless-stopped" => Policy::UnlessStopped,
            // More often than anybody counts is without end.
            "on-failure" => Policy::OnFailure { most: u32::try_from(most).ok().filter(|most| *most > 0) },
            other => {
                return Err(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                     'unless-stopped'"
                ));
            }
        };
        if most != 0 && !matches!(policy, Policy::OnFailure { .. }) {
            return Err(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure', not with '{}'",
                told.name
            ));
        }
        Ok(policy)
    }

    /// Whether a container that has just ended, after so many restarts, is to be started again. What a client has stopped is
    /// not.
    pub fn comes_again(self, stopped_by_client: bool, exit_code: i64, restarts: u32) -> bool {
        match self {
            _ if stopped_by_client => false,
            Policy::No => false,
            Policy::Always | Policy::UnlessStopped => true,
            Policy::OnFailure { most } => exit_code != 0 && most.is_none_or(|most| restarts < most),
        }
    }

    /// Whether a daemon that starts is to start a container that does not run. `between_runs`: it waited for its next run
    /// when the last daemon ended.
    pub fn comes_with_the_daemon(self, stopped_by_client: bool, between_runs: bool) -> bool {
        match self {
            Policy::No => false,
            Policy::Always => true,
            Policy::UnlessStopped => !stopped_by_client,
            Policy::OnFailure { .. } => between_runs,
        }
    }
}

impl HostConfig {
    /// The restart policy, which was looked at when the container was created.
    pub fn restarts(&self) -> Policy {
        Policy::read(&self.restart_policy).unwrap_or_default()
    }
}

/// How long the next restart waits, after a run that itself began after waiting for `last`.
pub fn backoff(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < GOOD_RUN => last.saturating_mul(2).min(LONGEST_BACKOFF),
        _ => FIRST_BACKOFF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, maximum_retry_count: i64) -> Result<Policy, String> {
        Policy::read(&RestartPolicy { name: name.into(), maximum_retry_count })
    }

    #[test]
    fn policies_are_read_and_refused() {
        assert_eq!(read("", 0), Ok(Policy::No));
        assert_eq!(read("on-failure", 0), Ok(Policy::OnFailure { most: None }));
        assert_eq!(read("on-failure", 3), Ok(Policy::OnFailure { most: Some(3) }));
        for (name, count, words) in [
            ("sometimes", 0, "unknown policy 'sometimes'"),
            ("always", 3, "only be used with 'on-failure', not with 'always'"),
            ("on-failure", -3, "cannot be negative"),
        ] {
            let refused = read(name, count).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn who_comes_again_after_an_end_and_with_a_daemon() {
        let check = |policy: Policy, after: [bool; 3], with: [bool; 3]| {
            let ends = [(false, 0, 0), (false, 1, 2), (true, 1, 0)];
            assert_eq!(ends.map(|(stopped, code, n)| policy.comes_again(stopped, code, n)), after, "{policy:?}");
            let found = [(false, false), (true, false), (false, true)];
            assert_eq!(
                found.map(|(stopped, between)| policy.comes_with_the_daemon(stopped, between)),
                with,
                "{policy:?}"
            );
        };
        check(Policy::No, [false; 3], [false; 3]);
        check(Policy::Always, [true, true, false], [true; 3]);
        check(Policy::UnlessStopped, [true, true, false], [true, false, true]);
        check(Policy::OnFailure { most: None }, [false, true, false], [false, false, true]);
        check(Policy::OnFailure { most: Some(2) }, [false, false, false], [false, false, true]);
        check(Policy::OnFailure { most: Some(3) }, [false, true, false], [false, false, true]);
    }

    #[test]
    fn a_restart_waits_twice_as_long_as_the_last_one_until_a_run_was_good() {
        let (quick, good) = (Duration::from_secs(1), GOOD_RUN);
        let mut waited = Vec::new();
        let mut last = None;
        for ran in [quick, quick, quick, good, quick] {
            last = Some(backoff(last, ran));
            waited.extend(last.map(|d| d.as_millis()));
        }
        assert_eq!(waited, [100, 200, 400, 100, 200]);
        assert_eq!(backoff(Some(LONGEST_BACKOFF), quick), LONGEST_BACKOFF);
    }
}
