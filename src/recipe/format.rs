//! One way to lay a recipe out: what `effai fmt` writes.
//!
//! Light rules, which keep what the author grouped: a body on one line stays on one, so do nodes joined by `;`.
//! Four blanks for each brace, one blank between words, at most one empty line, none behind `{` and before `}`.
//! Comments and strings keep their text.
//!
//! It works on tokens and not on kdl's tree, whose own formatting takes empty lines away and tears bodies apart.
//! Only blanks and semicolons change, so the declarations cannot; [`formatted`] has the parser confirm it.

use super::mistake::Mistake;
use super::node::Node;
use super::parse;
use super::source::Sources;
use super::tokens::{Sort, Token, tokens};

/// The text laid out anew, or why it is not KDL. `file` is its number in `sources`.
///
/// # Panics
/// If other declarations came out: a bug in this module.
pub fn formatted(text: &str, file: u32, sources: &Sources) -> Result<String, Vec<Mistake>> {
    let before = parse::parse(text, file, sources)?;
    let new = format(text);
    if new != text {
        let after = parse::parse(&new, file, sources).expect("a formatted recipe is a recipe");
        assert!(same(&before, &after), "formatting keeps every declaration");
    }
    Ok(new)
}

/// Whether two recipes say the same, wherever it stands.
pub fn same(a: &[Node], b: &[Node]) -> bool {
    let entries = |a: &Node, b: &Node| {
        let pairs = a.entries.iter().zip(&b.entries);
        a.entries.len() == b.entries.len() && pairs.into_iter().all(|(a, b)| a.name == b.name && a.value == b.value)
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| a.name == b.name && entries(a, b) && same(&a.children, &b.children))
}

/// Lays out a text that is KDL.
pub fn format(text: &str) -> String {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let tokens = tokens(&text);
    let one_line = on_one_line(&tokens);
    let mut layout = Layout { out: String::with_capacity(text.len()), ..Layout::default() };
    for (i, token) in tokens.iter().enumerate() {
        match token.sort {
            Sort::Newline => layout.breaks += 1,
            Sort::Semicolon => layout.ended |= layout.node_open,
            _ => layout.put(token.sort, &text[token.range.clone()], one_line[i]),
        }
    }
    if !layout.out.is_empty() {
        layout.out.push('\n');
    }
    layout.out
}

/// For each brace that opens, whether the one that closes it stands on the same line or nothing is between them.
fn on_one_line(tokens: &[Token]) -> Vec<bool> {
    let mut one = vec![false; tokens.len()];
    // The place of the brace, whether it is all on one line, whether it is empty.
    let mut open: Vec<(usize, bool, bool)> = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.sort {
            Sort::Open => {
                open.iter_mut().for_each(|(_, _, empty)| *empty = false);
                open.push((i, true, true));
            }
            Sort::Close => {
                if let Some((at, one_line, empty)) = open.pop() {
                    one[at] = one_line || empty;
                    if let Some(outer) = open.last_mut() {
                        outer.1 &= one_line;
                    }
                }
            }
            Sort::Newline => open.iter_mut().for_each(|(_, one_line, _)| *one_line = false),
            Sort::LineComment | Sort::Continued => {
                open.iter_mut().for_each(|(_, one_line, empty)| (*one_line, *empty) = (false, false));
            }
            _ => open.iter_mut().for_each(|(_, _, empty)| *empty = false),
        }
    }
    one
}

#[derive(Default)]
struct Layout {
    out: String,
    /// The last token that was put.
    last: Option<Sort>,
    /// Ends of lines since.
    breaks: usize,
    /// A semicolon since.
    ended: bool,
    /// A node began that nothing ended yet.
    node_open: bool,
    /// The bodies around: whether each is on one line.
    bodies: Vec<bool>,
}

impl Layout {
    fn put(&mut self, sort: Sort, text: &str, one_line: bool) {
        let closes_one_line = sort == Sort::Close && self.bodies.pop().unwrap_or_default();
        self.gap(sort, closes_one_line);
        match sort {
            Sort::Continued => {
                let comment = text[1..].trim();
                self.out.push_str(if comment.is_empty() { "\\" } else { "\\ " });
                self.out.push_str(comment);
            }
            _ => self.out.push_str(text.trim_end()),
        }
        match sort {
            Sort::Open => {
                self.bodies.push(one_line);
                self.node_open = false;
            }
            Sort::LineComment | Sort::BlockComment | Sort::Continued => {}
            _ => self.node_open = true,
        }
        self.last = Some(sort);
        (self.breaks, self.ended) = (0, false);
    }

    /// What stands between the last token and the next.
    fn gap(&mut self, next: Sort, closes_one_line: bool) {
        use Sort::{BlockComment, Close, Continued, Equals, LineComment, Open, ParenClose, ParenOpen, Slashdash};
        let Some(last) = self.last else { return };
        let comment = matches!(next, LineComment | BlockComment);
        match (last, next) {
            (Open, Close) if closes_one_line => {}
            (_, Close) if closes_one_line => {
                let semicolon = if self.node_open || self.ended { ";" } else { "" };
                self.out.push_str(semicolon);
                self.out.push(' ');
            }
            (_, Close) => self.new_line(0, 0),
            (Open, _) if self.bodies.last() == Some(&true) || (comment && self.breaks == 0) => self.out.push(' '),
            (Open, _) => self.new_line(0, 0),
            (Continued, _) if self.breaks == 0 => self.new_line(0, usize::from(self.node_open)),
            // An end of a line that is taken away, then one that counts.
            (Continued, _) => self.end_line(1),
            (LineComment, _) => self.end_line(self.breaks.saturating_sub(1)),
            (Slashdash, _) if !comment => {}
            (_, _) if self.breaks > 0 => self.end_line(self.breaks - 1),
            (_, LineComment) => self.out.push(' '),
            (_, _) if self.ended => {
                self.out.push_str("; ");
                self.node_open = false;
            }
            (_, _) if comment => self.out.push(' '),
            (Equals | ParenOpen | ParenClose, _) | (_, Equals | ParenClose) => {}
            (_, _) => self.out.push(' '),
        }
    }

    /// Ends the node, if one is open, and its line.
    fn end_line(&mut self, empty: usize) {
        self.node_open = false;
        self.new_line(empty.min(1), 0);
    }

    fn new_line(&mut self, empty: usize, deeper: usize) {
        for _ in 0..=empty {
            self.out.push('\n');
        }
        for _ in 0..self.bodies.len() + deeper {
            self.out.push_str("    ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut sources = Sources::default();
        let file = sources.add("effai.kdl".into(), text.into());
        let once = formatted(text, file, &sources).unwrap_or_else(|m| panic!("{text:?}: {}", m[0]));
        assert_eq!(once, expected, "of {text:?}");
        assert_eq!(format(&once), once, "again, of {text:?}");
    }

    #[test]
    fn blanks() {
        check("a   1  b = 2\n", "a 1 b=2\n");
        check("\n\n\na\n\n\n\nb\n\n", "a\n\nb\n");
        check("a {\n\n  b\n\n\n\tc 1 ;\n\n}\n", "a {\n    b\n\n    c 1\n}\n");
        check("a \"x  y\"   #true\r\nb\r\n", "a \"x  y\" #true\nb\n");
        check("\u{feff}a", "a\n");
        check("a (u8) 1 b=( v ) \"w\"\n", "a (u8)1 b=(v)\"w\"\n");
        check("", "");
        check("  \n ", "");
    }

    #[test]
    fn bodies() {
        check("a {b 1;c}\n", "a { b 1; c; }\n");
        check("a { }\nb {\n}\n", "a {}\nb {}\n");
        check("a { b { c; }; d\n}\n", "a {\n    b { c; }; d\n}\n");
        check("a {\nb { c 1\n}}\n", "a {\n    b {\n        c 1\n    }\n}\n");
        check("a { b {\n} }\n", "a {\n    b {}\n}\n");
        check("a 1; b 2;  c\n", "a 1; b 2; c\n");
    }

    #[test]
    fn comments() {
        check("// a \n   // b\n\n\n//c\n", "// a\n// b\n\n//c\n");
        check("a { // one\n  // two\nb; // three\n}  // four\n", "a { // one\n    // two\n    b // three\n} // four\n");
        check("a /* x\n  y */ 1\n", "a /* x\n  y */ 1\n");
        check("a { /* x */ }\n", "a { /* x */ }\n");
        check("a { b; /* x */ c }\n", "a { b; /* x */ c; }\n");
        check("/- a { b\n c }\nd /- 1 /- { e } { f }\n", "/-a {\n    b\n    c\n}\nd /-1 /-{ e; } { f; }\n");
        check("/-\n\na 1\nb\n", "/-a 1\nb\n");
    }

    #[test]
    fn lines_that_go_on() {
        check("a \\\n 1 \\ // c\n   2 {\n b\n}\n", "a \\\n    1 \\ // c\n    2 {\n    b\n}\n");
        check("a 1 \\\n\nb\n", "a 1 \\\n\nb\n");
        check("a \"\"\"\n  x\n   y\n  \"\"\"   1\n", "a \"\"\"\n  x\n   y\n  \"\"\" 1\n");
    }
}
