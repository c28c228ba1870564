//! `effai provenance`

use super::{Global, Output, open};
use crate::engine::EngineError;

/// Print how targets were made, as in-toto statements with SLSA's provenance: unsigned, one JSON object a line
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, or tag:WORD
    #[arg(required = true)]
    targets: Vec<String>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    for index in engine.select(&args.targets, &[])? {
        output.object(&engine.statement(index)?);
    }
    Ok(0)
}
