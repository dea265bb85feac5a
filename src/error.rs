//! What may end a command: a sentence, a hint, an exit status.

use std::fmt;
use std::process::ExitCode;

use tokio::task::JoinError;

/// Which of the documented exit statuses a failure gives (sysexits(3) numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 1: no.
    Refused,
    /// 69: the daemon cannot be reached.
    Unavailable,
    /// 70: a bug of this program.
    Bug,
    /// 74: input, output or a socket.
    Io,
    /// 78: configuration.
    Config,
}

impl ExitStatus {
    const fn code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Io => 74,
            Self::Config => 78,
        }
    }
}

/// A failure that a person must see: what failed, on what, why; and what to do.
#[derive(Clone, Debug)]
pub struct Failure {
    status: ExitStatus,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A wrong configuration, environment variable or option value.
    pub fn config(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Config, what: what.into(), hint: None }
    }

    /// A file, socket or process that did not do what it should.
    pub fn io(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Io, what: what.into(), hint: None }
    }

    /// The running daemon says no.
    pub fn refused(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Refused, what: what.into(), hint: None }
    }

    /// The running daemon could not be reached.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Unavailable, what: what.into(), hint: None }
    }

    /// Something that cannot happen has happened.
    pub fn bug(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Bug, what: what.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What failed, without the hint.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit status that this failure gives.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// All that is wrong at once; the first failure decides the exit status.
pub type Failures = Vec<Failure>;

/// So that `?` takes a single failure where several are possible.
impl From<Failure> for Failures {
    fn from(failure: Failure) -> Self {
        vec![failure]
    }
}

/// A blocking task that has panicked.
impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        Self::bug(error.to_string())
    }
}
