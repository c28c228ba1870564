//! A mistake in a recipe, as it is shown: the message, the place, the other place, the next step.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::node::Span;
use super::source::Sources;

/// One mistake. Marks are in one file; a terminal is told of places in other files below the help.
#[derive(Clone, Debug)]
pub struct Mistake {
    /// `recipe::unknown_field`; stable, for scripts and the documentation.
    pub code: &'static str,
    /// What is wrong: lower case, no final stop.
    pub message: String,
    /// The next step.
    pub help: Option<String>,
    text: Option<Arc<NamedSource<String>>>,
    marks: Vec<(Span, String)>,
    elsewhere: Vec<Elsewhere>,
}

/// A marked place in another file than the first.
#[derive(Clone, Debug)]
struct Elsewhere {
    span: Span,
    /// As a terminal is told.
    place: String,
    words: String,
}

impl Mistake {
    /// A mistake without a place yet.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, text: None, marks: Vec::new(), elsewhere: Vec::new() }
    }

    /// Marks a place, with the words that stand under it.
    #[must_use]
    pub fn mark(mut self, sources: &Sources, span: Span, words: impl Into<String>) -> Self {
        match self.marks.first() {
            Some((first, _)) if first.file != span.file => {
                let place = sources.place(span);
                self.elsewhere.push(Elsewhere { span, place, words: words.into() });
            }
            _ => {
                self.text = sources.text(span);
                self.marks.push((span, words.into()));
            }
        }
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        let help = help.into();
        if help.is_empty() {
            return self;
        }
        self.help = Some(match self.help {
            Some(other) => format!("{help}\n{other}"),
            None => help,
        });
        self
    }

    /// Every marked place with its words, those in other files last.
    pub fn marks(&self) -> impl Iterator<Item = (Span, &str)> {
        let elsewhere = self.elsewhere.iter().map(|e| (e.span, e.words.as_str()));
        self.marks.iter().map(|(span, words)| (*span, words.as_str())).chain(elsewhere)
    }

    /// Moves the marks into a file: those of a text that was parsed as a piece of it, which begins so many bytes later.
    #[must_use]
    pub fn moved(mut self, file: u32, bytes: u32) -> Self {
        self.marks.iter_mut().for_each(|(span, _)| *span = Span { file, start: span.start + bytes, len: span.len });
        self
    }

    /// The first marked place.
    pub fn span(&self) -> Option<Span> {
        self.marks.first().map(|(span, _)| *span)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let elsewhere = self.elsewhere.iter().map(|e| format!("{}: {}", e.place, e.words));
        let lines: Vec<String> = self.help.iter().cloned().chain(elsewhere).collect();
        (!lines.is_empty()).then(|| Box::new(lines.join("\n")) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.text.as_ref().map(|text| &**text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.marks.iter().map(|(span, words)| {
            let at = SourceSpan::new((span.start as usize).into(), span.len as usize);
            LabeledSpan::new_with_span((!words.is_empty()).then(|| words.clone()), at)
        })))
    }
}

/// All mistakes of a project's recipes, told together.
#[derive(Debug, thiserror::Error)]
#[error("{} in the recipes", crate::util::text::count(mistakes.len(), "mistake"))]
pub struct Mistakes {
    /// At least one, in the order of the text.
    pub mistakes: Vec<Mistake>,
}

/// The nearest of the known names, if one is near enough to be meant.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found_lower = found.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&found_lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().max(found.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
