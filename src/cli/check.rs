//! `effai check`

use super::{Global, Output, open};
use crate::engine::{Engine, EngineError};
use crate::plan::Index;
use crate::recipe::mistake::{Mistake, Mistakes};
use crate::util::text::count;

/// Read and check the recipes, and nothing else
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(global: &Global, _args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let mistakes = at_revisions(&mut engine)?;
    if !mistakes.is_empty() {
        return Err(Mistakes { mistakes }.into());
    }
    let declared = engine.plan().declared().count();
    let files = engine.recipes().len();
    output.note(&format!("{} in {}, no mistakes", count(declared, "target"), count(files, "recipe")));
    Ok(0)
}

/// What recipes name at a revision that is none, or has no such line in its lock.
fn at_revisions(engine: &mut Engine) -> Result<Vec<Mistake>, EngineError> {
    let named: Vec<Index> = (0..engine.plan().len()).filter(|index| engine.plan().is_at_revision(*index)).collect();
    engine.look(&named)?;
    let sources = engine.sources();
    let mistake = |index: Index| {
        let failure = engine.at_revision(index)?.err()?;
        let mistake = Mistake::new("recipe::at_revision", failure.message);
        Some(mistake.mark(&sources, engine.plan().place(index), "named here").help(failure.help.unwrap_or_default()))
    };
    Ok(named.into_iter().filter_map(mistake).collect())
}
