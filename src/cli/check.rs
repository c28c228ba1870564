//! `effai check`

use super::{Global, Output, open};
use crate::engine::EngineError;
use crate::util::text::count;

/// Read and check the recipes, and nothing else
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(global: &Global, _args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let declared = engine.plan().declared().count();
    let files = engine.recipes().len();
    output.note(&format!("{} in {}, no mistakes", count(declared, "target"), count(files, "recipe")));
    Ok(0)
}
