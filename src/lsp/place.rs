//! What stands at the cursor, in any text.

use crate::recipe::outline::{Item, Outline, Word};

/// A cursor's place among the nodes of a recipe.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The nodes between whose braces it is, from the outermost.
    pub(super) inside: Vec<&'a Item>,
    /// The node on whose line it is, or would be.
    pub(super) on: On<'a>,
}

/// What of a node the cursor is on.
#[derive(Debug)]
pub(super) enum On<'a> {
    /// No node: one may begin here.
    Nothing,
    /// Where nothing can be added: in a comment, behind a closing quote.
    Void,
    /// Its name.
    Name(&'a Item),
    /// A property's name.
    Key(&'a Item, &'a Word),
    /// A value, or the place for one.
    Value(Value<'a>),
}

/// A value, or the place for one.
#[derive(Debug)]
pub(super) struct Value<'a> {
    /// The node it belongs to.
    pub(super) item: &'a Item,
    /// What is written of it.
    pub(super) word: Option<&'a Word>,
    /// How many arguments stand before it.
    pub(super) number: usize,
}

impl<'a> Place<'a> {
    pub(super) fn at(outline: &'a Outline, offset: usize) -> Self {
        if outline.comments.iter().any(|c| c.start < offset && offset <= c.end) {
            return Self { inside: Vec::new(), on: On::Void };
        }
        let mut inside = Vec::new();
        let mut items = &outline.items;
        loop {
            // Of two that touch here, the one that begins.
            let Some(item) = items.iter().rev().find(|item| item.range.start <= offset) else {
                return Self { inside, on: On::Nothing };
            };
            match &item.body {
                Some(body) if body.inside.start <= offset && offset <= body.inside.end => {
                    inside.push(item);
                    items = &body.items;
                }
                _ => return Self { inside, on: on(item, offset) },
            }
        }
    }

    /// The nodes around the cursor and the one it is on.
    pub(super) fn path(&self) -> Vec<&'a Item> {
        let item = match &self.on {
            On::Nothing | On::Void => None,
            On::Name(item) | On::Key(item, _) => Some(*item),
            On::Value(value) => Some(value.item),
        };
        self.inside.iter().copied().chain(item).collect()
    }
}

fn on(item: &Item, offset: usize) -> On<'_> {
    if offset > item.head_end {
        return On::Nothing;
    }
    if offset <= item.name.range.end {
        return On::Name(item);
    }
    for word in &item.words {
        if let Some((_, key)) = &word.key
            && key.start <= offset
            && offset <= key.end
        {
            return On::Key(item, word);
        }
        if word.range.start <= offset && offset <= word.range.end {
            let behind = word.quoted && word.closed && offset > word.inner.end;
            return if behind { On::Void } else { value(item, Some(word), offset) };
        }
    }
    value(item, None, offset)
}

fn value<'a>(item: &'a Item, word: Option<&'a Word>, offset: usize) -> On<'a> {
    let number =
        item.words.iter().filter(|w| w.key.is_none() && !w.ignored && w.range.end < offset && Some(*w) != word).count();
    On::Value(Value { item, word, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the cursor `|` is.
    fn at(text: &str) -> String {
        let offset = text.find('|').expect("a cursor");
        let text = text.replace('|', "");
        let outline = Outline::read(&text, &["model"]);
        let place = Place::at(&outline, offset);
        let inside: Vec<&str> = place.inside.iter().map(|i| i.name.text.as_str()).collect();
        let on = match place.on {
            On::Nothing => "nothing".into(),
            On::Void => "void".into(),
            On::Name(item) => format!("name {}", item.name.text),
            On::Key(_, word) => format!("key {}", word.key.as_ref().expect("a key").0),
            On::Value(v) => match v.word {
                Some(Word { key: Some((key, _)), text, .. }) => format!("{} {key}={text}", v.item.name.text),
                Some(word) => format!("{} {}:{}", v.item.name.text, v.number, word.text),
                None => format!("{} {}", v.item.name.text, v.number),
            },
        };
        format!("{} {on}", inside.join("/"))
    }

    #[test]
    fn places() {
        assert_eq!(at("mod|"), " name mod");
        assert_eq!(at("model \"m\" { | }"), "model nothing");
        assert_eq!(at("model \"m\" {\n  tr|\n}\n"), "model name tr");
        assert_eq!(at("model \"m\" {\n  a \"x|\n  b\n}\n"), "model a 0:x");
        assert_eq!(at("model \"m\" {\n  a \"x\" |\n"), "model a 1");
        assert_eq!(at("model \"m\" {\n  a \"x\"|\n"), "model void");
        assert_eq!(at("model \"m\" {\n  a k=|\n"), "model a k=");
        assert_eq!(at("model \"m\" {\n  a k=\"|\"\n"), "model a k=");
        assert_eq!(at("model \"m\" {\n  a k|=1\n"), "model key k");
        assert_eq!(at("model \"m\" { a { b 1; |"), "model/a nothing");
        assert_eq!(at("model \"m\" { // |"), " void");
        assert_eq!(at("model \"m\" {\n\n|model \"n\" {}\n"), " name model");
    }
}
