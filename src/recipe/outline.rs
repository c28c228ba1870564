//! A recipe's shape, read from any text: what an editor needs of a recipe that is being typed.
//!
//! The parser gives nothing for a text with one brace too few. This reading never fails: an open string ends
//! with its line, an open brace with the next declaration that begins a line, and what makes no sense is
//! passed over. It gives names, words and braces with their places, no meaning; whether the text *is* KDL only
//! the parser says. It also cuts a text into pieces, each with whole declarations, so that the parser, which
//! is slow, sees what was edited and no more, and a mistake in one declaration does not hide the others.

use std::ops::Range;

use super::parse::DEPTH_MAX;
use super::tokens::is_newline;

/// The shape of one text.
#[derive(Debug, Default)]
pub struct Outline {
    /// The nodes at the top.
    pub items: Vec<Item>,
    /// Where comments stand.
    pub comments: Vec<Range<usize>>,
    /// What belongs to no node: a closing brace too many, a comment without an end.
    pub strays: Vec<usize>,
    /// Braces lie deeper in one another than can be read.
    pub too_deep: Option<usize>,
}

/// One node, finished or not.
#[derive(Debug)]
pub struct Item {
    /// Its name; empty where only a brace or a value stands.
    pub name: Word,
    /// Its arguments and properties.
    pub words: Vec<Word>,
    /// What stands between its braces.
    pub body: Option<Body>,
    /// From the first byte to the last.
    pub range: Range<usize>,
    /// Where its line ends: at the brace, the semicolon, the comment or the end of the line.
    pub head_end: usize,
    /// It is commented out by `/-`.
    pub ignored: bool,
    /// Nothing else follows on its line, or it was given up for what follows.
    ended: bool,
}

/// What stands between a node's braces.
#[derive(Debug)]
pub struct Body {
    /// Between the braces; to where it was given up, if the closing one is missing.
    pub inside: Range<usize>,
    /// The children.
    pub items: Vec<Item>,
    /// The closing brace is there.
    pub closed: bool,
}

/// A name, a value or a property.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Word {
    /// The property's name and its place.
    pub key: Option<(String, Range<usize>)>,
    /// The value as meant: without quotes.
    pub text: String,
    /// The value with its quotes.
    pub range: Range<usize>,
    /// The value without its quotes.
    pub inner: Range<usize>,
    /// It is in quotes.
    pub quoted: bool,
    /// The closing quote is there, or none is needed.
    pub closed: bool,
    /// It is commented out by `/-`.
    pub ignored: bool,
}

impl Outline {
    /// Reads a text. `tops` are the names of nodes that stand at the top: where a brace is missing, one of
    /// these at the beginning of a line begins anew.
    pub fn read(text: &str, tops: &[&str]) -> Self {
        let strict = Reader::new(text, &[]).outline();
        if strict.items.iter().all(Item::is_closed) { strict } else { Reader::new(text, tops).outline() }
    }

    /// The top-level nodes in runs that can be parsed apart: a run ends where nothing follows on the line.
    pub fn pieces(&self) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::with_capacity(self.items.len());
        let mut joined = false;
        for item in &self.items {
            match pieces.last_mut() {
                Some(piece) if joined => piece.end = item.range.end,
                _ => pieces.push(item.range.clone()),
            }
            joined = !item.ended;
        }
        pieces
    }
}

impl Item {
    /// Whether every brace in it is closed.
    fn is_closed(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.closed && body.items.iter().all(Item::is_closed))
    }

    /// The arguments, in order.
    pub fn args(&self) -> impl Iterator<Item = &Word> {
        self.words.iter().filter(|w| w.key.is_none() && !w.ignored)
    }

    /// The children that are not commented out.
    pub fn children(&self) -> impl Iterator<Item = &Item> {
        self.body.iter().flat_map(|body| &body.items).filter(|item| !item.ignored)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    tops: &'a [&'a str],
    outline: Outline,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, tops: &'a [&'a str]) -> Self {
        Self { text, at: 0, tops, outline: Outline::default() }
    }

    fn outline(mut self) -> Outline {
        self.outline.items = self.items(0);
        self.outline
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !wanted(c)).unwrap_or(rest.len());
    }

    /// Nodes up to a closing brace, which is left to the caller.
    fn items(&mut self, depth: usize) -> Vec<Item> {
        let mut items = Vec::new();
        loop {
            self.between(true);
            match self.peek() {
                None => return items,
                Some(';') => self.at += 1,
                Some('}') if depth > 0 => return items,
                Some('}') => {
                    self.outline.strays.push(self.at);
                    self.at += 1;
                }
                Some(_) if depth > 0 && self.begins_anew() => return items,
                Some(_) => items.push(self.item(depth)),
            }
        }
    }

    /// At the beginning of a line stands the name of a top-level node.
    fn begins_anew(&self) -> bool {
        let word = || self.rest().split(|c: char| c.is_whitespace() || c == '{').next().unwrap_or_default();
        self.text[..self.at].ends_with(is_newline) && self.tops.contains(&word())
    }

    fn item(&mut self, depth: usize) -> Item {
        let start = self.at;
        let ignored = self.slashdash();
        self.annotation();
        let name = match self.peek() {
            Some(c) if !"{}=;)".contains(c) && !is_newline(c) => self.value(),
            _ => Word { range: self.at..self.at, inner: self.at..self.at, closed: true, ..Word::default() },
        };
        let mut item =
            Item { name, words: Vec::new(), body: None, range: start..self.at, head_end: 0, ignored, ended: true };
        self.head(&mut item, depth);
        if item.range.end == start {
            // Nothing a node begins with: passed over, so that the reading goes on.
            self.at += self.peek().map_or(0, char::len_utf8);
            item.range.end = self.at;
        }
        if item.body.as_ref().is_some_and(|body| body.closed) {
            self.between(false);
            item.ended = self.peek().is_none_or(|c| is_newline(c) || c == ';') || self.rest().starts_with("//");
        }
        item
    }

    /// Words and a body, to the end of the node's line.
    fn head(&mut self, item: &mut Item, depth: usize) {
        loop {
            self.between(false);
            if item.body.is_none() {
                item.head_end = self.at;
            }
            let before = self.at;
            let ignored = self.slashdash();
            match self.peek() {
                Some('{') if depth + 1 >= DEPTH_MAX => {
                    self.outline.too_deep.get_or_insert(self.at);
                    self.at += 1;
                }
                Some('{') => {
                    let body = self.body(depth);
                    item.range.end = self.at;
                    if !ignored {
                        item.body = Some(body);
                        return;
                    }
                }
                None | Some('}' | ';') => return,
                Some(c) if is_newline(c) || self.rest().starts_with("//") => return,
                Some('=' | ')') => self.at += 1,
                Some(_) => {
                    self.annotation();
                    let word = self.word();
                    item.words.push(Word { ignored, ..word });
                }
            }
            if self.at == before {
                return;
            }
            item.range.end = self.at;
        }
    }

    fn body(&mut self, depth: usize) -> Body {
        self.at += 1;
        let start = self.at;
        let items = self.items(depth + 1);
        let inside = start..self.at;
        let closed = self.peek() == Some('}');
        self.at += usize::from(closed);
        Body { inside, items, closed }
    }

    /// A value, or a property with its value, which may be missing yet.
    fn word(&mut self) -> Word {
        let word = self.value();
        let end = self.at;
        self.skip_while(is_blank);
        if self.peek() != Some('=') {
            self.at = end;
            return word;
        }
        self.at += 1;
        let after = self.at;
        self.skip_while(is_blank);
        self.annotation();
        let value = match self.peek() {
            Some(c) if !"{};=)".contains(c) && !is_newline(c) && !c.is_whitespace() => self.value(),
            _ => {
                self.at = after;
                Word { range: after..after, inner: after..after, closed: true, ..Word::default() }
            }
        };
        Word { key: Some((word.text, word.range)), ..value }
    }

    fn value(&mut self) -> Word {
        let hashes = self.rest().bytes().take_while(|b| *b == b'#').count();
        if self.rest()[hashes..].starts_with('"') { self.string(hashes) } else { self.bare() }
    }

    fn bare(&mut self) -> Word {
        let start = self.at;
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || is_newline(c) || "{};=()\"\\".contains(c));
        let word = &rest[..end.unwrap_or(rest.len())];
        let word = word.find("//").or_else(|| word.find("/*")).map_or(word, |comment| &word[..comment]);
        self.at += word.len();
        let range = start..self.at;
        Word { text: word.to_owned(), range: range.clone(), inner: range, closed: true, ..Word::default() }
    }

    /// A string of any of KDL's forms. An open one ends with its line.
    fn string(&mut self, hashes: usize) -> Word {
        let start = self.at;
        let open = hashes + if self.rest()[hashes..].starts_with("\"\"\"") { 3 } else { 1 };
        let lines = open - hashes == 3;
        let end_mark = format!("{}{}", &"\"\"\""[..open - hashes], "#".repeat(hashes));
        let content = &self.rest()[open..];
        let mut end = None;
        let mut escaped = false;
        for (i, c) in content.char_indices() {
            if escaped {
                escaped = false;
            } else if content[i..].starts_with(&end_mark) {
                end = Some(i);
                break;
            } else if is_newline(c) && !lines {
                break;
            } else {
                escaped = c == '\\' && hashes == 0;
            }
        }
        let len = end.unwrap_or_else(|| content.find(is_newline).unwrap_or(content.len()));
        let inner = start + open..start + open + len;
        self.at = inner.end + end.map_or(0, |_| end_mark.len());
        let raw = &self.text[inner.clone()];
        let text = if hashes == 0 { unescaped(raw) } else { raw.to_owned() };
        Word { key: None, text, range: start..self.at, inner, quoted: true, closed: end.is_some(), ignored: false }
    }

    /// Passes over `/-` and what may stand after it.
    fn slashdash(&mut self) -> bool {
        let mut found = false;
        while self.rest().starts_with("/-") {
            self.at += 2;
            self.between(true);
            found = true;
        }
        found
    }

    /// Passes over a type, `(u8)`.
    fn annotation(&mut self) {
        if self.peek() == Some('(') {
            let rest = self.rest();
            let line = &rest[..rest.find(is_newline).unwrap_or(rest.len())];
            self.at += line.find(')').map_or(1, |i| i + 1);
        }
    }

    /// Passes over blanks and comments, and over the ends of lines where they separate nothing.
    fn between(&mut self, lines: bool) {
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                self.block_comment();
            } else if lines && rest.starts_with("//") {
                let start = self.at;
                self.skip_while(|c| !is_newline(c));
                self.outline.comments.push(start..self.at);
            } else if rest.starts_with('\\') {
                self.continued_line();
            } else if rest.starts_with(|c| is_blank(c) || lines && is_newline(c)) {
                self.skip_while(|c| is_blank(c) || lines && is_newline(c));
            } else {
                return;
            }
        }
    }

    /// `\`, and the end of the line it takes away.
    fn continued_line(&mut self) {
        self.at += 1;
        self.skip_while(is_blank);
        if self.rest().starts_with("//") {
            let start = self.at;
            self.skip_while(|c| !is_newline(c));
            self.outline.comments.push(start..self.at);
        }
        let newline = if self.rest().starts_with("\r\n") { 2 } else { self.peek().map_or(0, char::len_utf8) };
        if self.peek().is_some_and(is_newline) {
            self.at += newline;
        }
    }

    /// `/* ... */`, which may hold others. One without an end is passed over to the end of its line.
    fn block_comment(&mut self) {
        let start = self.at;
        let mut depth = 0_usize;
        for (i, _) in self.rest().match_indices(['/', '*']) {
            let here = &self.text[start + i..];
            if start + i < self.at {
                continue;
            }
            if here.starts_with("/*") {
                depth += 1;
                self.at = start + i + 2;
            } else if here.starts_with("*/") {
                depth -= 1;
                self.at = start + i + 2;
                if depth == 0 {
                    self.outline.comments.push(start..self.at);
                    return;
                }
            }
        }
        self.outline.strays.push(start);
        self.at = start;
        self.skip_while(|c| !is_newline(c));
        self.outline.comments.push(start..self.at);
    }
}

fn is_blank(c: char) -> bool {
    (c.is_whitespace() && !is_newline(c)) || c == '\u{feff}'
}

/// The escapes that a name or a path may need; others stay as they are written.
fn unescaped(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match (c, (c == '\\').then(|| chars.next()).flatten()) {
            ('\\', Some(c @ ('"' | '\\' | '/'))) => text.push(c),
            ('\\', Some('n')) => text.push('\n'),
            ('\\', Some('t')) => text.push('\t'),
            ('\\', Some('s')) => text.push(' '),
            ('\\', Some(other)) => text.extend(['\\', other]),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPS: &[&str] = &["dataset", "model"];

    /// The nodes as `name(word word key=word){children}`; `!` after a word or body without its end.
    fn shape(text: &str) -> String {
        fn word(w: &Word) -> String {
            let key = w.key.as_ref().map_or(String::new(), |(k, _)| format!("{k}="));
            format!("{key}{}{}", w.text, if w.closed { "" } else { "!" })
        }
        fn item(i: &Item) -> String {
            let words: Vec<String> = i.words.iter().map(word).collect();
            let body = i
                .body
                .as_ref()
                .map_or(String::new(), |b| format!("{{{}}}{}", items(&b.items), if b.closed { "" } else { "!" }));
            format!("{}{}({}){body}", if i.ignored { "-" } else { "" }, i.name.text, words.join(" "))
        }
        fn items(all: &[Item]) -> String {
            all.iter().map(item).collect::<Vec<_>>().join(" ")
        }
        items(&Outline::read(text, TOPS).items)
    }

    #[test]
    fn whole_texts() {
        assert_eq!(shape("model \"m\" { a 1; b x=2 \"y z\" }"), "model(m){a(1) b(x=2 y z)}");
        assert_eq!(shape("// c\nmodel \"é\\\"\" /* {\n */ 2 // }\n/- a 1\nb"), "model(é\" 2) -a(1) b()");
        assert_eq!(shape("a \\\n  1\nb #\"x\"y\"# #true x = 3"), "a(1) b(x\"y #true x=3)");
        assert_eq!(shape("a \"\"\"\n  x { \"\n  \"\"\" {\n b\n}"), "a(\n  x { \"\n  ){b()}");
        assert_eq!(shape("a /- 1 /- { x } { y }"), "a(1){y()}");
    }

    #[test]
    fn texts_that_are_being_typed() {
        assert_eq!(shape("model \"m\" {\n  from \"mo\n  b 1\n}\n"), "model(m){from(mo!) b(1)}");
        assert_eq!(shape("model \"m\" {\n  a {\n}\ndataset \"d\" { b; }\n"), "model(m){a(){}}! dataset(d){b()}");
        assert_eq!(shape("model \"m\" {\n  a x=\n  b"), "model(m){a(x=) b()}!");
        assert_eq!(shape("}\nmodel data/x"), "model(data/x)");
        assert_eq!(shape("model \"m\" { a \"x"), "model(m){a(x!)}!");
        assert_eq!(shape("= ) { a } ("), "(){a()} ()");
    }

    #[test]
    fn pieces_hold_whole_lines() {
        let text = "model \"m\" { a; }\n\n// x\ndataset \"d\" { b; } c\nd; e";
        let pieces: Vec<&str> = Outline::read(text, TOPS).pieces().into_iter().map(|r| &text[r]).collect();
        assert_eq!(pieces, ["model \"m\" { a; }", "dataset \"d\" { b; } c", "d", "e"]);
        let text = "model \"m\" {\n  a\ndataset \"d\" { b; }\n";
        let pieces: Vec<&str> = Outline::read(text, TOPS).pieces().into_iter().map(|r| &text[r]).collect();
        assert_eq!(pieces, ["model \"m\" {\n  a\n", "dataset \"d\" { b; }"]);
    }

    #[test]
    fn no_text_is_too_much() {
        for text in ["{", "\"", "#", "/*", "/-", "(", "\\", "=", "a=", "a=\"", "é{é", "\u{2028}}", "/* /* */", "##\"#"]
        {
            Outline::read(text, TOPS);
        }
        let deep = "a {".repeat(100_000);
        assert!(Outline::read(&deep, TOPS).too_deep.is_some());
    }
}
