//! What goes wrong, sorted into kinds: a kind is what the client can do about it. `api` turns kinds into status codes.

use std::fmt;

/// What kind of failure a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong, whatever the state.
    Invalid,
    NotFound,
    /// The state is in the way.
    Conflict,
    Forbidden,
    /// Somebody else wants to know who asks, or does not take these credentials.
    Unauthorized,
    /// It is so already.
    NotModified,
    NotImplemented,
    /// Our own failure, or the machine's.
    Internal,
}

/// A failure in the words the client reads, errors of the system as Go words them. The chain of causes is already part of
/// the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    /// Why the launcher could not start a process, where that is what has failed.
    pub launch: Option<runtime::FailureKind>,
    /// The exit status of a build's command, where that is what has failed.
    pub exit_code: Option<i32>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: model::errno::in_gos_words(&message.to_string()).into_owned(),
            launch: None,
            exit_code: None,
        }
    }
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(Kind::Invalid, message)
    }
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Kind::NotFound, message)
    }
    pub fn conflict(message: impl fmt::Display) -> Self {
        Self::new(Kind::Conflict, message)
    }
    pub fn forbidden(message: impl fmt::Display) -> Self {
        Self::new(Kind::Forbidden, message)
    }
    /// An error of a worker with its causes, printed once.
    pub fn internal(error: impl std::error::Error) -> Self {
        Self::new(Kind::Internal, chain(&error))
    }
    /// The same kind, with the attempt in front.
    pub fn context(self, attempt: impl fmt::Display) -> Self {
        let message = format!("{attempt}: {}", self.message);
        Self { message: model::errno::in_gos_words(&message).into_owned(), ..self }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Error {}

impl From<model::network::Refusal> for Error {
    fn from(refusal: model::network::Refusal) -> Self {
        use model::ipam::PoolRefusal;
        use model::network::Refusal;
        let kind = match &refusal {
            Refusal::NameTaken(_) => Kind::Conflict,
            Refusal::Predefined(_) | Refusal::OneInstance(_) => Kind::Forbidden,
            Refusal::DeviceTaken { .. } | Refusal::ParentTaken(_) => Kind::Forbidden,
            Refusal::TwoSubnets(..) | Refusal::NotATemplate(_) | Refusal::TemplateOfTemplate => Kind::Forbidden,
            Refusal::TemplateOperates | Refusal::TemplateAndOwn => Kind::Forbidden,
            Refusal::UnknownDriver(_) | Refusal::UnknownIpamDriver(_) | Refusal::NoTemplate(_) => Kind::NotFound,
            Refusal::Overlay => Kind::NotImplemented,
            Refusal::Pool(PoolRefusal::Overlaps { .. }) => Kind::Forbidden,
            _ => Kind::Invalid,
        };
        Error::new(kind, refusal)
    }
}

impl From<model::ipam::LeaseRefusal> for Error {
    fn from(refusal: model::ipam::LeaseRefusal) -> Self {
        use model::ipam::LeaseRefusal;
        let kind = match &refusal {
            LeaseRefusal::Outside(_) => Kind::Invalid,
            _ => Kind::Forbidden,
        };
        Error::new(kind, refusal)
    }
}

impl From<model::endpoint::InterfaceTaken> for Error {
    fn from(refusal: model::endpoint::InterfaceTaken) -> Self {
        Error::conflict(refusal.to_string())
    }
}

impl From<model::port::PortRefusal> for Error {
    fn from(refusal: model::port::PortRefusal) -> Self {
        Error::invalid(refusal)
    }
}
