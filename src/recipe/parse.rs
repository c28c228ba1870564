//! KDL text to [`Node`]s: the only user of kdl.
//!
//! The parser recurses with braces and within block comments, so neither reaches it unbounded: a text too deep is
//! refused first, and comments are handed over as blanks of the same length, which keeps every place.

use std::borrow::Cow;

use kdl::{KdlDocument, KdlError, KdlNode, KdlValue};

use super::mistake::Mistake;
use super::node::{Entry, Node, Scalar, Span};
use super::source::Sources;
use super::tokens::{Sort, is_newline, tokens};

/// How deep braces may lie in one another: deeper than any recipe, and far from the end of a thread's stack.
pub const DEPTH_MAX: usize = 48;

/// Parses one recipe, or whole declarations of one. `file` is its number in `sources`, for spans and messages.
pub fn parse(text: &str, file: u32, sources: &Sources) -> Result<Vec<Node>, Vec<Mistake>> {
    let plain = without_comments(text, file, sources).map_err(|mistake| vec![mistake])?;
    match KdlDocument::parse_v2(&plain) {
        Ok(document) => Converter { file, sources, mistakes: Vec::new() }.document(&document),
        Err(error) => Err(explain(text, file, sources, &error)),
    }
}

/// The text with blanks for its comments, byte for byte; refused where the parser would not come back from it.
fn without_comments<'a>(text: &'a str, file: u32, sources: &Sources) -> Result<Cow<'a, str>, Mistake> {
    let refuse = |message: &str, at: usize, len: usize, words: &str| {
        let span = Span { file, start: at as u32, len: len as u32 };
        Err(Mistake::new("recipe::syntax", message).mark(sources, span, words))
    };
    let mut plain = Cow::Borrowed(text);
    let mut depth = 0_usize;
    let mut slashdashes = 0;
    let mut line = Line::default();
    for token in tokens(text) {
        let written = &text[token.range.clone()];
        if let Some(mistake) = (token.sort == Sort::Word).then(|| odd_word(written)).flatten() {
            let span = Span { file, start: token.range.start as u32, len: token.range.len() as u32 };
            return Err(mistake(sources, span, written));
        }
        if !line.takes(token.sort) || (token.sort == Sort::Close && depth == 0) {
            return refuse("something is not expected here", token.range.start, 1, "here");
        }
        slashdashes = if token.sort == Sort::Slashdash { slashdashes + 1 } else { 0 };
        match token.sort {
            Sort::Open if depth == DEPTH_MAX => {
                return refuse("braces lie too deep in one another", token.range.start, 1, "here");
            }
            Sort::Slashdash if slashdashes > DEPTH_MAX => {
                return refuse("too many `/-` in a row", token.range.start, 2, "here");
            }
            Sort::Open => depth += 1,
            Sort::Close => depth = depth.saturating_sub(1),
            Sort::BlockComment if !token.closed => {
                return refuse("this comment has no end", token.range.start, 2, "a `*/` is missing");
            }
            Sort::LineComment | Sort::BlockComment => {
                let blanks = " ".repeat(token.range.len());
                plain.to_mut().replace_range(token.range, &blanks);
            }
            Sort::Continued => {
                let inside = &text[token.range.clone()];
                let end = token.range.start + inside.trim_end_matches(is_newline).len();
                let start = token.range.start + 1;
                plain.to_mut().replace_range(start..end, &" ".repeat(end - start));
            }
            _ => {}
        }
    }
    Ok(plain)
}

type Explained = fn(&Sources, Span, &str) -> Mistake;

/// What is wrong with a word that no recipe can hold, if anything: the parser goes on after each, deeper and deeper.
fn odd_word(word: &str) -> Option<Explained> {
    if word.starts_with('"') || word.trim_start_matches('#').starts_with('"') {
        return None;
    }
    if word.contains('/') {
        return Some(|sources, span, word| {
            Mistake::new("recipe::bare_label", "a bare word cannot hold a slash")
                .mark(sources, span, "needs quotes")
                .help(format!("write it as \"{word}\""))
        });
    }
    if word.starts_with('#') && !["#true", "#false", "#null", "#inf", "#-inf", "#nan"].contains(&word) {
        return Some(|sources, span, word| {
            Mistake::new("recipe::syntax", format!("`{}` is no keyword of KDL", word.escape_debug()))
                .mark(sources, span, "not a keyword")
                .help("there are: #true, #false, #null, #inf, #-inf, #nan")
        });
    }
    word.contains(|c: char| "[]".contains(c) || c.is_control()).then_some(|sources, span, _| {
        Mistake::new("recipe::syntax", "something is not expected here").mark(
            sources,
            span,
            "a bare word has no such character",
        )
    })
}

/// How far a line is: whether `=` and parentheses may stand where they do.
#[derive(Default)]
struct Line {
    last: Option<Sort>,
    in_type: bool,
    /// The last word is a property's value, or is to be one.
    value: bool,
}

impl Line {
    fn takes(&mut self, sort: Sort) -> bool {
        let fits = match sort {
            Sort::Equals => self.last == Some(Sort::Word) && !self.value && !self.in_type,
            Sort::ParenOpen => !self.in_type,
            Sort::ParenClose => self.in_type,
            _ => true,
        };
        match sort {
            Sort::BlockComment | Sort::LineComment | Sort::Continued => return true,
            Sort::Newline | Sort::Semicolon | Sort::Open | Sort::Close => *self = Self::default(),
            Sort::ParenOpen => self.in_type = true,
            Sort::ParenClose => self.in_type = false,
            Sort::Equals => self.value = true,
            Sort::Word if !self.in_type => self.value = self.value && self.last != Some(Sort::Word),
            Sort::Slashdash => self.value = false,
            Sort::Word => {}
        }
        self.last = Some(sort);
        fits
    }
}

struct Converter<'a> {
    file: u32,
    sources: &'a Sources,
    mistakes: Vec<Mistake>,
}

impl Converter<'_> {
    fn document(mut self, document: &KdlDocument) -> Result<Vec<Node>, Vec<Mistake>> {
        let nodes = self.nodes(document);
        if self.mistakes.is_empty() { Ok(nodes) } else { Err(self.mistakes) }
    }

    fn nodes(&mut self, document: &KdlDocument) -> Vec<Node> {
        document.nodes().iter().map(|node| self.node(node)).collect()
    }

    fn node(&mut self, node: &KdlNode) -> Node {
        let entries =
            node.entries()
                .iter()
                .map(|entry| {
                    let span = self.span(entry.span());
                    let value =
                        match entry.value() {
                            KdlValue::String(text) => Scalar::Text(text.clone()),
                            KdlValue::Integer(n) => Scalar::Int(i64::try_from(*n).unwrap_or_else(|_| {
                                self.mistakes.push(
                                    Mistake::new("recipe::number", format!("the number {n} does not fit in 64 bits"))
                                        .mark(self.sources, span, "too large"),
                                );
                                0
                            })),
                            KdlValue::Float(x) => Scalar::Float(*x),
                            KdlValue::Bool(b) => Scalar::Bool(*b),
                            KdlValue::Null => Scalar::Null,
                        };
                    Entry { name: entry.name().map(|n| n.value().to_owned()), value, span }
                })
                .collect();
        Node {
            name: node.name().value().to_owned(),
            name_span: self.span(node.name().span()),
            entries,
            children: node.children().map(|children| self.nodes(children)).unwrap_or_default(),
        }
    }

    fn span(&self, span: miette::SourceSpan) -> Span {
        Span { file: self.file, start: span.offset() as u32, len: span.len() as u32 }
    }
}

/// Turns kdl's complaints into ours: the commonest mistake, a label without quotes, is named as such.
fn explain(text: &str, file: u32, sources: &Sources, error: &KdlError) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for diagnostic in &error.diagnostics {
        let start = diagnostic.span.offset().min(text.len());
        let mistake = match bare_label_near(text, start) {
            Some((at, word)) => {
                let span = Span { file, start: at as u32, len: word.len() as u32 };
                Mistake::new("recipe::bare_label", "a bare word cannot hold a slash")
                    .mark(sources, span, "needs quotes")
                    .help(format!("write it as \"{word}\""))
            }
            None => {
                let len = diagnostic.span.len().min(text.len() - start);
                let span = Span { file, start: start as u32, len: len as u32 };
                let message = diagnostic.message.clone().unwrap_or_else(|| "not KDL".into());
                Mistake::new("recipe::syntax", lower_first(message.trim_end_matches('.')))
                    .mark(sources, span, diagnostic.label.clone().unwrap_or_else(|| "here".into()))
                    .help(diagnostic.help.clone().unwrap_or_default())
            }
        };
        if !mistakes.iter().any(|m| m.span() == mistake.span()) {
            mistakes.push(mistake);
        }
    }
    // One unreadable word makes kdl complain of all that follows; the cause is enough.
    if let Some(cause) = mistakes.iter().position(|m| m.code == "recipe::bare_label") {
        return vec![mistakes.swap_remove(cause)];
    }
    // After a word it did not expect, kdl also reports every brace around it; that word is the mistake.
    let first_unexpected = mistakes
        .iter()
        .enumerate()
        .filter(|(_, m)| m.message.contains("end of document"))
        .min_by_key(|(_, m)| m.span().map(|s| s.start))
        .map(|(i, _)| i);
    if let Some(i) = first_unexpected {
        let mut mistake = mistakes.swap_remove(i);
        mistake.message = "something is not expected here".into();
        return vec![mistake.help("nodes on one line are separated by `;`, also after a closing brace")];
    }
    mistakes.truncate(1);
    mistakes
}

/// An unquoted word with a slash in it, on the line of a complaint or the one before.
fn bare_label_near(text: &str, offset: usize) -> Option<(usize, &str)> {
    let offset = (0..=offset).rev().find(|i| text.is_char_boundary(*i))?;
    let start = text[..offset].rmatch_indices('\n').nth(1).map_or(0, |(i, _)| i + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |i| offset + i);
    let mut line_start = start;
    for line in text[start..end].split('\n') {
        if let Some((at, word)) = bare_label_in(line) {
            return Some((line_start + at, word));
        }
        line_start += line.len() + 1;
    }
    None
}

fn bare_label_in(line: &str) -> Option<(usize, &str)> {
    let mut quoted = false;
    let mut begin = 0;
    for (i, c) in line.char_indices().chain([(line.len(), ' ')]) {
        if c == '"' {
            quoted = !quoted;
        } else if quoted || !(c.is_whitespace() || "={};".contains(c)) {
            continue;
        }
        let word = &line[begin..i];
        if word.starts_with("//") {
            return None;
        }
        if !quoted && c != '"' && word.contains('/') {
            return Some((begin, word));
        }
        begin = i + c.len_utf8();
    }
    None
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn complaint(text: &str) -> (String, String) {
        let mut sources = Sources::default();
        let file = sources.add(PathBuf::from("effai.kdl"), text.into());
        let mistakes = parse(text, file, &sources).expect_err("should not parse");
        let span = mistakes[0].span().expect("a place");
        (mistakes[0].message.clone(), text[span.start as usize..(span.start + span.len) as usize].into())
    }

    #[test]
    fn a_bare_label_is_named_as_such() {
        let expected = ("a bare word cannot hold a slash".to_owned(), "data/emoji".to_owned());
        assert_eq!(complaint("dataset data/emoji {\n}\n"), expected);
        assert_eq!(complaint("// a comment\ndataset data/emoji {\n}\n"), expected);
        assert_eq!(complaint("a \"x/y\"\ndataset data/emoji\n"), expected);
        assert_eq!(complaint("model \"m\" {\n    train data/emoji { epochs 2; }\n}\n"), expected);
    }

    #[test]
    fn what_the_parser_would_not_come_back_from_is_refused_or_kept_from_it() {
        assert_eq!(complaint(&"a {".repeat(10_000)).0, "braces lie too deep in one another");
        assert_eq!(complaint(&"/-".repeat(10_000)).0, "too many `/-` in a row");
        assert_eq!(complaint("a /* b\n"), ("this comment has no end".into(), "/*".into()));
        for garbage in ["a \0", "a ) ", "= ", "a = ", "} ", "a ] ", "#x ", "( ", "a = b = ", "x/y ", "a=1=2 "] {
            assert!(!complaint(&garbage.repeat(20_000)).0.is_empty());
        }
        let stars = "/*".repeat(50_000) + &"*/".repeat(50_000);
        let text =
            format!("{stars}\n/*{}*/\na \\ /* é */ // {{\n  1 // b\n", "*/ ".repeat(0) + &"* / ".repeat(100_000));
        let mut sources = Sources::default();
        let file = sources.add(PathBuf::from("effai.kdl"), text.clone());
        let nodes = parse(&text, file, &sources).expect("parses");
        let one = nodes[0].entries[0].span;
        assert_eq!((nodes.len(), &text[one.start as usize..][..one.len as usize]), (1, "1"));
    }

    #[test]
    fn values_keep_their_type_and_place() {
        let text = "m \"é\" 3 x=1e-3 on=#true\n";
        let mut sources = Sources::default();
        let file = sources.add(PathBuf::from("effai.kdl"), text.into());
        let nodes = parse(text, file, &sources).expect("parses");
        let values: Vec<_> = nodes[0].entries.iter().map(|e| e.value.clone()).collect();
        assert_eq!(values, [Scalar::Text("é".into()), Scalar::Int(3), Scalar::Float(1e-3), Scalar::Bool(true)]);
        let three = nodes[0].entries[1].span;
        assert_eq!(&text[three.start as usize..][..three.len as usize], "3");
    }
}
