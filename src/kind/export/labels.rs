//! Labels in a recipe: what an export of a picture-text model's picture part gives probabilities of.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Fields;
use crate::recipe::decl::Problems;

/// What ends a line, to one program or another.
const ENDS_A_LINE: [char; 7] = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

#[derive(Deserialize)]
pub(super) struct Labels {
    pub(super) names: Vec<String>,
    pub(super) prompt: Vec<String>,
}

impl Labels {
    /// What is no label, and where there can be none.
    pub(super) fn check(&self, fields: &Fields, problems: &mut Problems<'_>) {
        if fields.format.format().is_of_weights() {
            let what = format!("`labels` mean nothing to `{}`, which has weights alone", fields.format.name);
            problems.at("labels", what, "given here", "leave them out");
        }
        if fields.part.as_deref() == Some("text") {
            let what = "`labels` are for what sees pictures, and the part `text` reads";
            problems.at("part", what, "given here", "write part \"picture\", or leave `labels` out");
        }
        if let [only] = &self.names[..] {
            let what = format!("`{only}` is the only label, and each picture would be one");
            problems.at("labels", what, "given here", "add what else a picture may be");
        }
        let mut seen = BTreeSet::new();
        for name in &self.names {
            if name.trim().is_empty() {
                problems.at("labels", "a label has no name", "given here", "leave it out, or name it");
            } else if name.contains(ENDS_A_LINE) {
                let what = format!("the label {name:?} is more than one line, and `labels.txt` has one a line");
                problems.at("labels", what, "given here", "write it in one");
            } else if !seen.insert(name.to_lowercase()) {
                let what = format!("the label `{name}` is there twice, as prompts have it: in lower case");
                problems.at("labels", what, "given here", "leave one out");
            }
        }
        for (at, prompt) in self.prompt.iter().enumerate().filter(|(_, prompt)| !prompt.contains("{}")) {
            let what = format!("the prompt \"{prompt}\" has no place for a label, and says the same of each");
            problems.at(&format!("labels.prompt.{at}"), what, "given here", "write {} where the label belongs");
        }
    }
}
