//! A recipe's text as a run of tokens: what the formatter arranges, and what the parser is spared.
//!
//! Like [`super::outline`] it never fails and gives no meaning. Of a text that is KDL it is exact; of any other it
//! gives something, and the parser says what is wrong. Every byte that is no blank lies in just one token.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A name, a number, a string of any form, a keyword.
    Word,
    /// `=`
    Equals,
    /// `{`
    Open,
    /// `}`
    Close,
    /// `;`
    Semicolon,
    /// `(`
    ParenOpen,
    /// `)`
    ParenClose,
    /// The end of a line.
    Newline,
    /// `// ...` without the end of its line.
    LineComment,
    /// `/* ... */`
    BlockComment,
    /// `/-`
    Slashdash,
    /// `\` with what stands behind it, to and with the end of its line.
    Continued,
}

/// One token and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub sort: Sort,
    /// Where it is.
    pub range: Range<usize>,
    /// Its end is there: of a string or a block comment that has none, it is not.
    pub closed: bool,
}

/// The tokens of a text.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { text, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = reader.next() {
        tokens.push(token);
    }
    tokens
}

/// Whether KDL ends a line with this character.
pub fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    (c.is_whitespace() && !is_newline(c)) || c == '\u{feff}'
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn next(&mut self) -> Option<Token> {
        self.skip(is_blank);
        let start = self.at;
        let first = self.rest().chars().next()?;
        let (sort, closed) = match first {
            c if is_newline(c) => {
                self.newline();
                (Sort::Newline, true)
            }
            '=' => self.one(Sort::Equals),
            '{' => self.one(Sort::Open),
            '}' => self.one(Sort::Close),
            ';' => self.one(Sort::Semicolon),
            '(' => self.one(Sort::ParenOpen),
            ')' => self.one(Sort::ParenClose),
            '\\' => {
                self.continued();
                (Sort::Continued, true)
            }
            '/' if self.rest().starts_with("//") => {
                self.skip(|c| !is_newline(c));
                (Sort::LineComment, true)
            }
            '/' if self.rest().starts_with("/*") => (Sort::BlockComment, self.block_comment()),
            '/' if self.rest().starts_with("/-") => {
                self.at += 2;
                (Sort::Slashdash, true)
            }
            _ => (Sort::Word, self.word()),
        };
        Some(Token { sort, range: start..self.at, closed })
    }

    fn one(&mut self, sort: Sort) -> (Sort, bool) {
        self.at += 1;
        (sort, true)
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !wanted(c)).unwrap_or(rest.len());
    }

    fn newline(&mut self) {
        let len =
            if self.rest().starts_with("\r\n") { 2 } else { self.rest().chars().next().map_or(0, char::len_utf8) };
        self.at += len;
    }

    fn continued(&mut self) {
        self.at += 1;
        loop {
            self.skip(is_blank);
            if !self.rest().starts_with("/*") {
                break;
            }
            self.block_comment();
        }
        if self.rest().starts_with("//") {
            self.skip(|c| !is_newline(c));
        }
        if self.rest().starts_with(is_newline) {
            self.newline();
        }
    }

    /// Whether the comment ends.
    fn block_comment(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let mut depth = 0_usize;
        let mut i = self.at;
        while i < bytes.len() {
            match (bytes[i], bytes.get(i + 1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    i += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    i += 2;
                    if depth == 0 {
                        self.at = i;
                        return true;
                    }
                }
                _ => i += 1,
            }
        }
        self.at = bytes.len();
        false
    }

    /// Whether the word ends.
    fn word(&mut self) -> bool {
        let hashes = self.rest().bytes().take_while(|b| *b == b'#').count();
        if self.rest()[hashes..].starts_with('"') {
            return self.string(hashes);
        }
        let rest = self.rest();
        let ends = |c: char| c.is_whitespace() || is_newline(c) || "{};=()\"\\".contains(c);
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let comment = ["//", "/*", "/-"].iter().filter_map(|c| word.find(c)).filter(|at| *at > 0).min();
        // At least one character, whatever it is: the reading goes on.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        self.at += comment.unwrap_or(word.len()).max(first);
        true
    }

    fn string(&mut self, hashes: usize) -> bool {
        let lines = self.rest()[hashes..].starts_with("\"\"\"");
        let quotes = if lines { "\"\"\"" } else { "\"" };
        let end = format!("{quotes}{}", "#".repeat(hashes));
        self.at += hashes + quotes.len();
        loop {
            let rest = self.rest();
            let Some(i) = rest.find(|c: char| c == '"' || c == '\\' || (!lines && is_newline(c))) else {
                self.at = self.text.len();
                return false;
            };
            self.at += i;
            let here = self.rest();
            if here.starts_with(&end) {
                self.at += end.len();
                return true;
            }
            match here.chars().next() {
                Some('\\') if hashes == 0 => {
                    self.at += 1;
                    match self.rest().chars().next() {
                        // Takes all white space away, ends of lines too.
                        Some(c) if c.is_whitespace() => self.skip(char::is_whitespace),
                        Some(c) => self.at += c.len_utf8(),
                        None => {}
                    }
                }
                Some('"' | '\\') => self.at += 1,
                // A string on one line without an end: given up, so that the rest is read.
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|t| &text[t.range]).collect()
    }

    #[test]
    fn texts() {
        assert_eq!(words("a \"b c\" d=1 { e; }"), ["a", "\"b c\"", "d", "=", "1", "{", "e", ";", "}"]);
        assert_eq!(words("a // b\r\n/* /* */ { */c"), ["a", "// b", "\r\n", "/* /* */ { */", "c"]);
        assert_eq!(
            words("a #\"\"}\"# #true /-1 \\ // x\n 2"),
            ["a", "#\"\"}\"#", "#true", "/-", "1", "\\ // x\n", "2"]
        );
        assert_eq!(words("a \"\"\"\n { \" \n \"\"\" (u8)2"), ["a", "\"\"\"\n { \" \n \"\"\"", "(", "u8", ")", "2"]);
        assert_eq!(words("a \"x\\\"{\" \"y \\\n  z\" \"\""), ["a", "\"x\\\"{\"", "\"y \\\n  z\"", "\"\""]);
        assert_eq!(words("a/*b*/c//d"), ["a", "/*b*/", "c", "//d"]);
    }

    #[test]
    fn no_text_is_too_much() {
        for text in ["\"", "#", "/*", "/", "(", "\\", "\"\\", "é/é", "##\"#", "\"\"\"\n\\", "/*/"] {
            let whole: usize = tokens(text).into_iter().map(|t| t.range.len()).sum();
            assert_eq!(whole, text.len(), "{text:?}");
        }
        assert!(!tokens("/* /* */").remove(0).closed);
        assert!(!tokens("\"a\nb").remove(0).closed);
    }
}
