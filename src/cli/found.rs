//! A model that is named on the command line, and where its artifact comes to lie.

use std::path::PathBuf;

use super::{Global, open};
use crate::backend::Backend;
use crate::engine::EngineError;
use crate::failure::Failure;

/// A model's target, or an adapter's.
pub(super) struct Found {
    /// Its label.
    pub(super) label: String,
    /// The label of the model that it adapts.
    pub(super) base: Option<String>,
    /// What computes where nobody says otherwise.
    pub(super) backend: Backend,
    root: PathBuf,
}

impl Found {
    /// The one target that a name means.
    pub(super) fn of(global: &Global, name: &str) -> Result<Self, EngineError> {
        let engine = open(global)?;
        let chosen = engine.select(std::slice::from_ref(&name.to_owned()), &[])?;
        let [index] = chosen[..] else {
            let message = format!("`{name}` means {} targets", chosen.len());
            return Err(Failure::user(message).help("name one model or adapter").into());
        };
        let base = engine.decl(index)?.fields["base"].as_str().and_then(|label| engine.find(label));
        Ok(Self {
            label: engine.label(index).to_string(),
            base: base.map(|base| engine.label(base).to_string()),
            backend: engine.backend(),
            root: engine.root.clone(),
        })
    }

    /// Where the artifact of a label lies once it was built.
    pub(super) fn place(&self, label: &str) -> PathBuf {
        self.root.join("out").join(label.trim_start_matches('/'))
    }
}
