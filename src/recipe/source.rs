//! The texts of a project's recipes, for messages that point into them.

use std::path::PathBuf;
use std::sync::Arc;

use miette::NamedSource;

use super::node::Span;

/// Every recipe that was read, by number.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

/// One recipe's text.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its path from the project's root.
    pub path: PathBuf,
    /// Its text, named for messages.
    pub text: Arc<NamedSource<String>>,
}

impl Sources {
    /// Adds a text; its number is what spans carry.
    pub fn add(&mut self, path: PathBuf, text: String) -> u32 {
        let name = path.display().to_string();
        self.files.push(SourceFile { path, text: Arc::new(NamedSource::new(name, text).with_language("kdl")) });
        self.files.len() as u32 - 1
    }

    /// The text a span lies in; none for a span of nothing, as of a target made in a test.
    pub fn text(&self, span: Span) -> Option<Arc<NamedSource<String>>> {
        self.files.get(span.file as usize).map(|f| f.text.clone())
    }

    /// `recipes/clip.kdl:12`
    pub fn place(&self, span: Span) -> String {
        let Some(file) = self.files.get(span.file as usize) else { return "a recipe".into() };
        let before = &file.text.inner().as_bytes()[..(span.start as usize).min(file.text.inner().len())];
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        format!("{}:{line}", file.path.display())
    }

    /// The files, in the order they were read.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }
}
