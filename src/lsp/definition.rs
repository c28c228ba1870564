//! From a label to its declaration and to the places that name it; from a path to the file.

use lsp_types::{Location, Range};

use super::grammar;
use super::place::{On, Place};
use super::view::View;
use crate::recipe::glob;
use crate::recipe::load::PROJECT_FILE;
use crate::recipe::roots::plain;
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
    let place_of = place.path();
    let meaning = grammar::meaning(&place_of)?;
    let On::Value(value) = place.on else { return None };
    let word = value.word?;
    if !matches!(meaning.word(word, value.number)?, Type::File | Type::Glob) {
        return None;
    }
    let top = place_of.first().map(|item| item.name.text.as_str());
    let suffix = if top == Some("projects") { format!("/{PROJECT_FILE}") } else { String::new() };
    let pattern = format!("{}{suffix}", word.text.trim_end_matches('/'));
    let found = glob::list_below(&view.project.root, &view.files_from(top), &pattern).ok()?.files;
    let paths = found.iter().take(FILES_MAX).map(|path| view.project.root.join(plain(path)));
    let uris = paths.filter_map(|path| view.documents.uri(&path));
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
