//! One binary of integration tests: the real program on temporary projects.

mod cli;
mod diagnostics;
mod support;
