//! From a label to its declaration and to the places that name it; from a path to the file.

use lsp_types::{Location, Range};

use super::grammar;
use super::place::{On, Place};
use super::view::View;
use crate::recipe::glob;
use crate::recipe::schema::Type;

/// Files that a glob is followed to.
const FILES_MAX: usize = 100;

/// Where what the cursor is on is declared.
pub(super) fn definition(view: &View<'_>, offset: usize) -> Vec<Location> {
    match view.index().written_at(&view.path, offset) {
        Some(written) => {
            let targets = written.labels.iter().flat_map(|label| view.index().declared(label));
            distinct(targets.filter_map(|t| view.location(&t.label.place)).collect())
        }
        None => files(view, offset).unwrap_or_default(),
    }
}

/// Every place that names the label the cursor is on; its declarations first, if they are asked for.
pub(super) fn references(view: &View<'_>, offset: usize, declarations: Declarations) -> Vec<Location> {
    let index = view.index();
    let Some(written) = index.written_at(&view.path, offset) else { return Vec::new() };
    let declared = written.labels.iter().flat_map(|label| index.declared(label)).map(|t| &t.label.place);
    let declared: Vec<_> = match declarations {
        Declarations::Told => declared.collect(),
        Declarations::LeftOut => Vec::new(),
    };
    let named = index.references.iter().filter(|r| written.labels.iter().any(|label| r.label.means(label)));
    let places = declared.into_iter().chain(named.map(|r| &r.label.place));
    distinct(places.filter_map(|place| view.location(place)).collect())
}

/// Whether declarations are told among the places that name a label.
#[derive(Clone, Copy, Debug)]
pub(super) enum Declarations {
    /// First.
    Told,
    /// Not at all.
    LeftOut,
}

/// The files a path or a glob under the cursor stands for.
fn files(view: &View<'_>, offset: usize) -> Option<Vec<Location>> {
    let place = Place::at(&view.recipe.outline, offset);
    let meaning = grammar::meaning(&place.path())?;
    let On::Value(value) = place.on else { return None };
    let word = value.word?;
    if !matches!(meaning.word(word, value.number)?, Type::File | Type::Glob) {
        return None;
    }
    let found = glob::expand(&view.project.root, &word.text).ok()?;
    let uris = found.iter().take(FILES_MAX).filter_map(|path| view.documents.uri(&view.project.root.join(path)));
    Some(uris.map(|uri| Location::new(uri, Range::default())).collect())
}

fn distinct(locations: Vec<Location>) -> Vec<Location> {
    let mut kept: Vec<Location> = Vec::with_capacity(locations.len());
    for location in locations {
        if !kept.contains(&location) {
            kept.push(location);
        }
    }
    kept
}
