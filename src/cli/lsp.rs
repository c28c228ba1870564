//! `effai lsp`

use std::io::{self, BufReader};

use super::{Global, Output};
use crate::engine::EngineError;
use crate::failure::Failure;

/// Serve editors: the language server, on stdin and stdout (docs/editors.md)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As some editors call it; there is no other way
    #[arg(long, hide = true)]
    stdio: bool,
}

pub(super) fn run(_global: &Global, _args: &Args, _output: &Output) -> Result<u8, EngineError> {
    crate::lsp::serve(BufReader::new(io::stdin()), io::stdout())
        .map_err(|e| Failure::environment(format!("the editor cannot be reached: {e}")).into())
}
