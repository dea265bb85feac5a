//! Failures that end a command: a message, a hint, an exit status.

use std::fmt;
use std::process::ExitCode;

use tokio::task::JoinError;

/// The exit status of a failure: documented, with the numbers of sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 1: the daemon refused.
    Refused,
    /// 69: the daemon is unreachable.
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

/// Ends the program after a panic, so that nothing goes on with what a bug has left half changed.
pub fn end_after_panic() -> ! {
    std::process::exit(ExitStatus::Bug.code().into())
}

/// A failure for people to read: what failed, on what, why; and what to do.
#[derive(Clone, Debug)]
pub struct Failure {
    status: ExitStatus,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// Creates a failure of a configuration, environment variable or option value.
    pub fn config(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Config, what: what.into(), hint: None }
    }

    /// Creates a failure of a file, socket or process.
    pub fn io(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Io, what: what.into(), hint: None }
    }

    /// Creates a refusal by the running daemon.
    pub fn refused(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Refused, what: what.into(), hint: None }
    }

    /// Creates a failure to reach the running daemon.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Unavailable, what: what.into(), hint: None }
    }

    /// Creates a failure for a bug of this program.
    pub fn bug(what: impl Into<String>) -> Self {
        Self { status: ExitStatus::Bug, what: what.into(), hint: None }
    }

    /// Adds a hint: what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns what failed, without the hint.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the hint.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the exit status.
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
