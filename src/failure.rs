//! What went wrong, in the three classes that decide the exit code.
//!
//! Modules have `thiserror` enums of their own; where one of those crosses a process or reaches the user
//! it becomes a [`Failure`]: class, message, next step. A bug is none of these, it panics.

use serde::{Deserialize, Serialize};

use crate::backend::gguf::GgufError;
use crate::backend::{BackendError, ProbeError};

/// Whose move it is next; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A target's action failed: exit code 1.
    Target,
    /// The recipe, a flag or the configuration is wrong: exit code 2.
    User,
    /// Disk, network, device or a missing program: exit code 3.
    Environment,
}

impl Class {
    /// The process's exit code for this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Target => 1,
            Class::User => 2,
            Class::Environment => 3,
        }
    }
}

/// One failure as it is told: a lower-case message without a final stop, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Decides the exit code.
    pub class: Class,
    /// What happened, to what.
    pub message: String,
    /// The next useful step, if there is one to name.
    pub help: Option<String>,
}

impl Failure {
    /// A failed action: bad data, a diverged loss, a file that is not what it should be.
    pub fn target(message: impl Into<String>) -> Self {
        Self { class: Class::Target, message: message.into(), help: None }
    }

    /// A mistake in a recipe or a flag that only showed when the action ran.
    pub fn user(message: impl Into<String>) -> Self {
        Self { class: Class::User, message: message.into(), help: None }
    }

    /// The machine is at fault: disk, network, a program that is not installed.
    pub fn environment(message: impl Into<String>) -> Self {
        Self { class: Class::Environment, message: message.into(), help: None }
    }

    /// Adds the next step.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Puts what was being done before the message: `context: message`.
    #[must_use]
    pub fn within(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Failure::target(format!("a computation failed: {error}"))
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Failure::environment(error.to_string()).help(error.help())
    }
}

impl From<GgufError> for Failure {
    fn from(error: GgufError) -> Self {
        let failure = match &error {
            GgufError::Io { .. } => Failure::environment(chain(&error)),
            _ => Failure::target(error.to_string()),
        };
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

/// Joins an error and its sources into one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.contains(&source_text) {
            text.push_str(": ");
            text.push_str(&source_text);
        }
        next = source.source();
    }
    text
}
