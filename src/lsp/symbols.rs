//! The outline of a recipe, as an editor lists it.

use lsp_types::{DocumentSymbol, SymbolKind};

use super::grammar::{self, Sort};
use super::view::View;
use crate::recipe::outline::Item;

/// The declarations and settings of a text, with their fields.
pub(super) fn symbols(view: &View<'_>) -> Vec<DocumentSymbol> {
    let items = view.recipe.outline.items.iter().filter(|item| !item.ignored && !item.name.text.is_empty());
    items.map(|item| symbol(view, item, Depth::Top)).collect()
}

#[derive(Clone, Copy)]
enum Depth {
    Top,
    Below,
}

fn symbol(view: &View<'_>, item: &Item, depth: Depth) -> DocumentSymbol {
    let first = item.args().next().filter(|w| !w.text.is_empty());
    let is_target = || grammar::top(&item.name.text).is_some_and(|m| matches!(m.sort, Sort::Target));
    let (name, detail, kind) = match (depth, first) {
        (Depth::Top, Some(label)) if is_target() => {
            (label.text.clone(), Some(item.name.text.clone()), SymbolKind::CLASS)
        }
        (_, first) => (item.name.text.clone(), first.map(|w| w.text.clone()), SymbolKind::FIELD),
    };
    let children: Vec<DocumentSymbol> =
        item.children().filter(|c| !c.name.text.is_empty()).map(|c| symbol(view, c, Depth::Below)).collect();
    #[expect(deprecated, reason = "the protocol's type has the field")]
    DocumentSymbol {
        name,
        detail,
        kind,
        tags: None,
        deprecated: None,
        range: view.range(&item.range),
        selection_range: view.range(&match (depth, first) {
            (Depth::Top, Some(label)) => label.range.clone(),
            _ => item.name.range.clone(),
        }),
        children: (!children.is_empty()).then_some(children),
    }
}
