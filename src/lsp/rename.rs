//! Another name for a target, everywhere it is named.

use std::collections::HashMap;

use lsp_types::{PrepareRenameResponse, TextEdit, Uri, WorkspaceEdit};

use super::index::{Index, Target, Written};
use super::transport::Refusal;
use super::view::View;
use crate::plan::{Label, resolve, seen_from};

/// Whether a label is under the cursor that can be renamed, and where it stands.
pub(super) fn prepare(view: &View<'_>, offset: usize) -> Result<PrepareRenameResponse, Refusal> {
    let written = under_cursor(view, offset)?;
    Ok(PrepareRenameResponse::RangeWithPlaceholder {
        range: view.range(&written.inner),
        placeholder: written.text.clone(),
    })
}

/// The edits that rename the label under the cursor.
#[expect(clippy::mutable_key_type, reason = "the protocol's own map; an address is not changed here")]
pub(super) fn rename(view: &View<'_>, offset: usize, name: &str) -> Result<WorkspaceEdit, Refusal> {
    let index = view.index();
    let written = under_cursor(view, offset)?;
    let label = written.whole();
    let label = label.as_str();
    if let Some(complaint) = Label::complaint(name.strip_prefix('/').unwrap_or(name)) {
        return Err(Refusal::new(Refusal::INVALID_PARAMS, format!("`{name}` cannot be a label: {complaint}")));
    }
    let whole = resolve(&written.base, name);
    free(view, index, label, &whole)?;
    let declared = index.declared(label).map(|t| &t.label);
    let named = index.references.iter().map(|r| &r.label).filter(|w| w.means(label));
    let mut edits: HashMap<Uri, Vec<TextEdit>> = HashMap::new();
    for written in declared.chain(named) {
        let place = &written.place;
        let name = seen_from(&written.base, &whole);
        let location = view
            .location(place)
            .ok_or_else(|| Refusal::failed(format!("{} names `{label}` and has no address", place.path.display())))?;
        edits.entry(location.uri).or_default().push(TextEdit::new(location.range, format!("\"{name}\"")));
    }
    Ok(WorkspaceEdit::new(edits))
}

/// The label under the cursor, if it has one declaration and no matrix has to do with it.
fn under_cursor<'a>(view: &'a View<'_>, offset: usize) -> Result<&'a Written, Refusal> {
    let index = view.index();
    let written = index
        .written_at(&view.path, offset)
        .ok_or_else(|| Refusal::failed("only a target's label can be renamed, and none stands here"))?;
    if written.is_pattern() {
        let message = format!("`{}` stands for several labels of a matrix: change it by hand", written.text);
        return Err(Refusal::failed(message));
    }
    let label = written.whole();
    let label = label.as_str();
    let declared: Vec<&Target> = index.declared(label).collect();
    match declared.as_slice() {
        [] => Err(Refusal::failed(format!("there is no target `{label}`"))),
        [target] if target.label.is_pattern() => Err(Refusal::failed(format!(
            "`{label}` is made by the matrix of `{}` in {}: change that by hand",
            target.label.text,
            view.line(&target.whole)
        ))),
        [_] => match index.references.iter().find(|r| r.label.is_pattern() && r.label.means(label)) {
            None => Ok(written),
            Some(reference) => Err(Refusal::failed(format!(
                "`{}` in {} means `{label}` through a matrix: change that by hand first",
                reference.label.text,
                view.line(&reference.label.place)
            ))),
        },
        [_, other, ..] => {
            let message = format!("there are two targets `{label}`, the other in {}", view.line(&other.whole));
            Err(Refusal::failed(message))
        }
    }
}

/// Refuses a new name that another target has or lies in.
fn free(view: &View<'_>, index: &Index, label: &str, name: &str) -> Result<(), Refusal> {
    let inside = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    for target in &index.targets {
        for other in target.label.labels.iter().filter(|other| *other != label) {
            let line = view.line(&target.whole);
            if other == name {
                return Err(Refusal::failed(format!("there is a target `{name}` already, in {line}")));
            }
            if inside(name, other) || inside(other, name) {
                let message =
                    format!("the output of `{name}` and that of `{other}`, in {line}, would lie in one another");
                return Err(Refusal::failed(message));
            }
        }
    }
    Ok(())
}
