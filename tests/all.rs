//! One binary of integration tests: the real program on temporary projects.
#![expect(clippy::disallowed_methods, reason = "tests set up files in the plainest way")]

mod actions;
mod benchmark;
mod checks;
mod cli;
mod clip;
#[cfg(target_os = "linux")]
mod crash;
mod diagnostics;
mod engine;
mod exports;
mod git;
mod language;
mod lsp;
mod measured;
mod messages;
mod predicted;
mod python;
mod recipes;
mod remote;
mod seeing;
mod store;
mod support;
mod told;
mod until;
mod watch;
