//! One binary of integration tests: the real program on temporary projects.
#![expect(clippy::disallowed_methods, reason = "tests set up files in the plainest way")]

mod cli;
mod diagnostics;
mod engine;
mod lsp;
mod seeing;
mod store;
mod support;
mod watch;
