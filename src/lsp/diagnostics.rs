//! Mistakes as the editor shows them, file by file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lsp_types::{Diagnostic, DiagnosticRelatedInformation, DiagnosticSeverity, Location, NumberOrString, Range};

use super::documents::Documents;
use super::position::Encoding;
use super::project::{Finding, Place, Project};

/// The findings of each recipe of a project, by path; recipes without any are in it too.
pub(super) fn diagnostics(
    project: &Project,
    findings: &[Finding],
    documents: &Documents,
    encoding: Encoding,
) -> BTreeMap<PathBuf, Vec<Diagnostic>> {
    let mut all: BTreeMap<PathBuf, Vec<Diagnostic>> =
        project.recipes.keys().map(|path| (project.root.join(path), Vec::new())).collect();
    for finding in findings {
        let (place, _) = &finding.marks[0];
        let related = finding.marks[1..].iter().filter_map(|(place, words)| {
            let uri = documents.uri(&project.root.join(&place.path))?;
            let location = Location::new(uri, range(project, place, encoding));
            Some(DiagnosticRelatedInformation { location, message: words.clone() })
        });
        let related: Vec<_> = related.collect();
        all.entry(project.root.join(&place.path)).or_default().push(Diagnostic {
            range: range(project, place, encoding),
            severity: Some(DiagnosticSeverity::ERROR),
            code: Some(NumberOrString::String(finding.code.into())),
            source: Some("effai".into()),
            message: finding.message.clone(),
            related_information: (!related.is_empty()).then_some(related),
            ..Diagnostic::default()
        });
    }
    all
}

/// A recipe that is open and that no other names: its mistakes would not be looked for.
pub(super) fn not_included() -> Diagnostic {
    Diagnostic {
        severity: Some(DiagnosticSeverity::INFORMATION),
        code: Some(NumberOrString::String("recipe::not_included".into())),
        source: Some("effai".into()),
        message: "no recipe of a project includes this file, so it is not checked\n\
                  help: name it in effai.kdl: recipes \"recipes/*.kdl\""
            .into(),
        ..Diagnostic::default()
    }
}

fn range(project: &Project, place: &Place, encoding: Encoding) -> Range {
    let Some(recipe) = project.recipes.get(&place.path) else { return Range::default() };
    recipe.lines.range(&recipe.text, &place.bytes, encoding)
}
