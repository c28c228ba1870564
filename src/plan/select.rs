//! Which targets words of the command line mean.

use super::graph::{Index, Plan};
use super::{is_implied, resolve, seen_from};
use crate::recipe::glob;
use crate::recipe::mistake::nearest;

/// What was asked for and is not there.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.message())]
pub struct UnknownTarget {
    /// What was asked for.
    pub found: String,
    /// The nearest label.
    pub near: Option<String>,
}

impl UnknownTarget {
    fn message(&self) -> String {
        match self.found.strip_prefix(TAG) {
            Some(tag) => format!("no target has the tag `{tag}`"),
            None if glob::is_glob(&self.found) => format!("no target is matched by `{}`", self.found),
            None => format!("there is no target `{}`", self.found),
        }
    }
}

/// The tags' own prefix on the command line.
const TAG: &str = "tag:";

impl Plan {
    /// All labels that recipes declare, sorted.
    pub fn declared(&self) -> impl Iterator<Item = &str> {
        self.by_label.iter().map(|i| self.name(*i as usize)).filter(|l| !is_implied(l))
    }

    /// The targets that words of the command line name: labels, globs over labels, `tag:WORD`, or paths below `out/`.
    /// Without words, every declared target.
    pub fn select(&self, words: &[String]) -> Result<Vec<Index>, UnknownTarget> {
        self.select_from("", words)
    }

    /// The same for somebody who stands in the project of this directory: what it calls its own comes first.
    pub fn select_from(&self, base: &str, words: &[String]) -> Result<Vec<Index>, UnknownTarget> {
        if words.is_empty() {
            return Ok((0..self.len()).filter(|i| !self.is_implied(*i) && self.is_below(base, *i)).collect());
        }
        let mut chosen = Vec::new();
        for word in words {
            let mut found = self.matching(base, word);
            if found.is_empty() && !base.is_empty() {
                found = self.matching("", word);
            }
            if found.is_empty() {
                return Err(UnknownTarget { found: word.clone(), near: self.near(base, word) });
            }
            chosen.extend(found);
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }

    fn is_below(&self, base: &str, index: Index) -> bool {
        base.is_empty() || self.name(index).strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
    }

    fn near(&self, base: &str, word: &str) -> Option<String> {
        match word.strip_prefix(TAG) {
            Some(tag) => nearest(tag, self.tag_names.iter()).map(|tag| format!("{TAG}{tag}")),
            None => {
                let own = self.declared().filter(|l| !base.is_empty() && l.starts_with(base));
                let own: Vec<String> = own.map(|l| seen_from(base, l)).collect();
                nearest(word, own.iter().map(String::as_str).chain(self.declared())).map(str::to_owned)
            }
        }
    }

    fn matching(&self, base: &str, word: &str) -> Vec<Index> {
        let word = word.strip_prefix("./").unwrap_or(word).trim_end_matches('/');
        let whole = resolve(base, word);
        if let Some(index) = self.find(&whole) {
            return vec![index];
        }
        if let Some(tag) = word.strip_prefix(TAG) {
            let Some(tag) = self.tag_names.iter().position(|t| t == tag) else { return Vec::new() };
            let tagged = |i: &Index| self.tags.get(*i).contains(&(tag as u32)) && self.is_below(base, *i);
            return (0..self.len()).filter(tagged).collect();
        }
        if let Some(path) = word.strip_prefix("out/") {
            // `out/models/x/config.json` means the target whose artifact holds that file.
            return std::path::Path::new(path).ancestors().find_map(|p| self.find(p.to_str()?)).into_iter().collect();
        }
        if !glob::is_glob(word) {
            return Vec::new();
        }
        let Ok(matcher) = glob::compile(&whole) else { return Vec::new() };
        (0..self.len()).filter(|i| !self.is_implied(*i) && matcher.is_match(self.name(*i))).collect()
    }
}
