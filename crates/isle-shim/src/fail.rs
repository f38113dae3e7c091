//! A step's failure, on the way from where it happened to the daemon.

use rustix::io::Errno;
use shim_protocol::launch::{Failure, FailureKind, Step};

/// Say at which step, and about what, a call failed.
pub trait At<T> {
    fn at(self, step: Step, about: impl Into<String>) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, about: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|errno| failure(step, errno, about))
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: Step, about: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| failure(step, Errno::from_io_error(&error).unwrap_or(Errno::IO), about))
    }
}

pub fn failure(step: Step, errno: Errno, about: impl Into<String>) -> Failure {
    Failure { step, kind: FailureKind::Other, errno: errno.raw_os_error(), about: about.into() }
}
