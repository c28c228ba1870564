//! Exports among what is measured: `features`, `perplexity`, `speed` and `benchmark` take one as they take a model.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ActionCx;
use crate::event::ActionEvent;
use crate::export::opened::{Exported, Facts};
use crate::failure::Failure;
use crate::model;
use crate::train::language::{Foresees, Rows};
use crate::train::text::Example;
use crate::util::fs;

/// What runs an export.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Runs {
    /// The environment whose package does; else what is part of this program.
    pub(super) environment: Option<PathBuf>,
}

/// What runs an export's artifact; none of what is no export.
pub(super) fn runs(cx: &ActionCx<'_>, dir: &Path) -> Result<Option<Runs>, Failure> {
    let facts = Facts::read(dir)?;
    Ok(facts.map(|facts| Runs { environment: facts.environment.map(|label| cx.input(&label).to_owned()) }))
}

/// An input, opened, where it is an export; what runs it goes into the record.
pub(super) fn exported(cx: &mut ActionCx<'_>, label: &str) -> Result<Option<Exported>, Failure> {
    let dir = cx.input(label).to_owned();
    let Some(Runs { environment }) = runs(cx, &dir)? else { return Ok(None) };
    let exported = Exported::open(&dir, environment.as_deref(), cx.threads).map_err(|f| f.within(label))?;
    (cx.events)(ActionEvent::Backend { name: exported.program() });
    Ok(Some(exported))
}

/// Bytes of a model's weight files; of an export those of its file, and of its weights where they lie in another.
pub(super) fn weight_bytes(dir: &Path) -> Result<u64, Failure> {
    if Facts::read(dir)?.is_none() {
        return model::weight_bytes(dir);
    }
    let is_of_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("model."));
    let files = fs::list(dir)?.into_iter().filter(is_of_it);
    Ok(files.map(|path| path.metadata().map_or(0, |metadata| metadata.len())).sum())
}

/// Of each example the logits alone that its tokens which count are foreseen by.
struct Logits {
    targets: Vec<u32>,
    values: Vec<f32>,
}

impl Foresees for Exported {
    fn vocabulary(&self) -> usize {
        self.language().map_or(0, |config| config.vocab_size)
    }

    /// A file gives the logits of all tokens, those of padding among them.
    fn at_once(&self) -> usize {
        1
    }

    fn read<'a>(&'a self, batch: &[&Example]) -> Result<Box<dyn Rows + 'a>, Failure> {
        let width = self.vocabulary();
        let (mut targets, mut values) = (Vec::new(), Vec::new());
        for example in batch {
            let logits = self.all_logits(&example.ids[..example.ids.len() - 1])?;
            for (at, id) in example.ids.iter().enumerate().skip(1).filter(|(at, _)| example.counts[*at]) {
                targets.push(*id);
                values.extend_from_slice(&logits[(at - 1) * width..][..width]);
            }
        }
        Ok(Box::new(Logits { targets, values }))
    }
}

impl Rows for Logits {
    fn targets(&self) -> &[u32] {
        &self.targets
    }

    fn logits(&self, begin: usize, count: usize) -> Result<Vec<f32>, Failure> {
        let width = self.values.len() / self.targets.len().max(1);
        Ok(self.values[begin * width..][..count * width].to_vec())
    }
}
