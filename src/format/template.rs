//! The small language that turns a record's fields into a row: `{field}`, `{a.b}`, `{list.0}`, `{field|filter}`.
//!
//! | filter | does |
//! |---|---|
//! | `lower` | lower case |
//! | `without:TEXT` | takes every TEXT out |
//! | `words` | `_` and `-` become spaces |
//! | `before:TEXT` | what stands before the first TEXT |
//! | `drop:a b c` | takes these words out |
//! | `swap:a=b c=d` | puts one word for another |

use serde_json::Value;

/// A template that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TemplateError {
    /// A `{` without its `}`.
    #[error("`{{` without `}}` in \"{0}\"")]
    Open(String),
    /// An unknown filter.
    #[error("there is no filter `{0}`")]
    Filter(String),
}

/// A template, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Field { path: String, filters: Vec<Filter> },
}

#[derive(Clone, Debug, PartialEq)]
enum Filter {
    Lower,
    Words,
    Without(String),
    Before(String),
    Drop(Vec<String>),
    Swap(Vec<(String, String)>),
}

impl Template {
    /// Reads a template.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or_else(|| TemplateError::Open(text.into()))? + open;
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].into()));
            }
            let mut words = rest[open + 1..close].split('|');
            let path = words.next().unwrap_or_default().trim().to_owned();
            let filters = words.map(filter).collect::<Result<_, _>>()?;
            pieces.push(Piece::Field { path, filters });
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self { pieces })
    }

    /// The text for a record; none if a field is missing or null.
    pub fn text(&self, record: &Value) -> Option<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(t) => text.push_str(t),
                Piece::Field { path, filters } => text.push_str(&apply(scalar(lookup(record, path)?)?, filters)),
            }
        }
        Some(text)
    }

    /// The texts for a record: one for each item, where the template is one field that holds a list.
    pub fn texts(&self, record: &Value) -> Vec<String> {
        if let [Piece::Field { path, filters }] = &self.pieces[..]
            && let Some(Value::Array(items)) = lookup(record, path)
        {
            return items.iter().filter_map(scalar).map(|t| apply(t, filters)).collect();
        }
        self.text(record).into_iter().collect()
    }
}

fn filter(text: &str) -> Result<Filter, TemplateError> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let words = || value.split_whitespace().map(str::to_owned);
    match name.trim() {
        "lower" => Ok(Filter::Lower),
        "words" => Ok(Filter::Words),
        "without" => Ok(Filter::Without(value.into())),
        "before" => Ok(Filter::Before(value.into())),
        "drop" => Ok(Filter::Drop(words().collect())),
        "swap" => Ok(Filter::Swap(
            words().filter_map(|w| w.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()))).collect(),
        )),
        other => Err(TemplateError::Filter(other.into())),
    }
}

fn apply(text: String, filters: &[Filter]) -> String {
    filters.iter().fold(text, |text, filter| match filter {
        Filter::Lower => text.to_lowercase(),
        Filter::Words => text.replace(['_', '-'], " "),
        Filter::Without(part) => text.replace(part.as_str(), ""),
        Filter::Before(part) => text.split(part.as_str()).next().unwrap_or_default().trim().to_owned(),
        Filter::Drop(words) => {
            text.split_whitespace().filter(|w| !words.iter().any(|d| d == w)).collect::<Vec<_>>().join(" ")
        }
        Filter::Swap(pairs) => text
            .split_whitespace()
            .map(|w| pairs.iter().find(|(a, _)| a == w).map_or(w, |(_, b)| b.as_str()))
            .collect::<Vec<_>>()
            .join(" "),
    })
}

fn lookup<'a>(record: &'a Value, path: &str) -> Option<&'a Value> {
    // An item of a list goes by its number, from 0.
    let step = |value: &'a Value, name: &str| value.get(name).or_else(|| value.get(name.parse::<usize>().ok()?));
    path.split('.').try_fold(record, step).filter(|v| !v.is_null())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_filters() {
        let record =
            serde_json::json!({"unified": "1F468-FE0F", "short": ["man_a", "b"], "l": {"label": "Man: red hair"}});
        let text = |t: &str| Template::new(t).expect("reads").text(&record);
        assert_eq!(text("a/{unified|without:-FE0F|lower}.png").as_deref(), Some("a/1f468.png"));
        assert_eq!(text("{l.label|lower|before::|swap:man=person}").as_deref(), Some("person"));
        assert_eq!(text("{missing}"), None);
        assert_eq!(text("{short.1}").as_deref(), Some("b"));
        assert_eq!(Template::new("{short|words}").expect("reads").texts(&record), ["man a", "b"]);
        assert_eq!(Template::new("{a|nope}"), Err(TemplateError::Filter("nope".into())));
    }
}
