//! What a feature sees: the text the cursor is in, the project around it, and the protocol's way of naming places.

use std::cell::OnceCell;
use std::ops;
use std::path::PathBuf;
use std::rc::Rc;

use lsp_types::{Location, Position, Range};

use super::documents::{Documents, Recipe};
use super::index::Index;
use super::position::Encoding;
use super::project::{Place, Project};

/// One text of a project, at the moment of a request.
pub(super) struct View<'a> {
    pub(super) project: &'a Project,
    pub(super) documents: &'a Documents,
    pub(super) encoding: Encoding,
    /// The editor takes texts with places to fill in.
    pub(super) snippets: bool,
    /// From the project's root.
    pub(super) path: PathBuf,
    pub(super) recipe: Rc<Recipe>,
    /// Of the texts as they are now, which may be newer than the last check.
    pub(super) index: OnceCell<Index>,
}

impl View<'_> {
    pub(super) fn text(&self) -> &str {
        &self.recipe.text
    }

    pub(super) fn offset(&self, position: Position) -> usize {
        self.recipe.lines.offset(self.text(), position, self.encoding)
    }

    pub(super) fn range(&self, bytes: &ops::Range<usize>) -> Range {
        self.recipe.lines.range(self.text(), bytes, self.encoding)
    }

    /// A recipe of the project as the editor has it now; a text that no recipe includes is its own project's too.
    pub(super) fn recipe(&self, path: &std::path::Path) -> Option<Rc<Recipe>> {
        if path == self.path {
            return Some(self.recipe.clone());
        }
        match self.documents.document(&self.project.root.join(path)) {
            Some(document) => Some(document.recipe.clone()),
            None => self.project.recipes.get(path).cloned(),
        }
    }

    pub(super) fn location(&self, place: &Place) -> Option<Location> {
        let recipe = self.recipe(&place.path)?;
        let uri = self.documents.uri(&self.project.root.join(&place.path))?;
        Some(Location::new(uri, recipe.lines.range(&recipe.text, &place.bytes, self.encoding)))
    }

    /// `recipes/clip.kdl:12`
    pub(super) fn line(&self, place: &Place) -> String {
        let line = self.recipe(&place.path).map_or(0, |r| r.lines.line(place.bytes.start));
        format!("{}:{}", place.path.display(), line + 1)
    }

    /// The directory of the project that the text is read for.
    pub(super) fn base(&self) -> &str {
        self.project.bases(&self.path).first().map_or("", String::as_str)
    }

    /// The directory from which a path in a node of the text's is counted, from the outermost root.
    pub(super) fn files_from(&self, top: Option<&str>) -> PathBuf {
        match top {
            Some("include") => self.path.parent().unwrap_or(std::path::Path::new("")).to_owned(),
            _ => PathBuf::from(self.base()),
        }
    }

    pub(super) fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut paths: Vec<&PathBuf> = self.project.recipes.keys().collect();
            if !self.project.recipes.contains_key(&self.path) {
                paths.push(&self.path);
            }
            let recipes: Vec<_> = paths.into_iter().filter_map(|p| Some((p, self.recipe(p)?))).collect();
            Index::of(recipes.iter().flat_map(|(path, recipe)| {
                self.project.bases(path).iter().map(move |base| (path.as_path(), base.as_str(), &**recipe))
            }))
        })
    }
}
