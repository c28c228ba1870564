//! The small language that makes a row's text of a record's fields: `emoji/{unified|lower}.png`.
//!
//! A template is text with fields in braces; a field is a path into the record and any number of filters,
//! each with its argument after a colon:
//!
//! | filter | gives |
//! |---|---|
//! | `lower`, `upper`, `trim` | the text so changed |
//! | `strip-prefix:X`, `strip-suffix:X` | the text without X at its beginning, its end |
//! | `without:X` | the text without any X |
//! | `replace:X:Y` | the text with Y for every X |
//! | `before:X`, `after:X` | what stands before, after the first X; the whole text if there is none |
//! | `drop-words:a,b` | the text without these words |
//! | `replace-words:a=b,c=d` | the text with words replaced |
//! | `line:N` | the Nth line, from 1 |
//! | `split:X` | a list of the parts between X |
//! | `join:X` | the list as one text, with X between |
//! | `first` | the first of a list |
//! | `default:X` | X where the field is missing or empty |
//!
//! Filters on a list change each of its items. A brace is written `{{` or `}}`.

use serde_json::Value;

use super::table;

/// A template, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Field { path: String, filters: Vec<Filter> },
}

#[derive(Clone, Debug, PartialEq)]
enum Filter {
    Lower,
    Upper,
    Trim,
    StripPrefix(String),
    StripSuffix(String),
    Without(String),
    Replace(String, String),
    Before(String),
    After(String),
    DropWords(Vec<String>),
    ReplaceWords(Vec<(String, String)>),
    Line(usize),
    Split(String),
    Join(String),
    First,
    Default(String),
}

/// A template that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its other half.
    #[error("`{0}` has a brace without its other half")]
    Brace(String),
    /// Braces with nothing in them.
    #[error("`{0}` has braces without a field in them")]
    Empty(String),
    /// No such filter.
    #[error("there is no filter `{0}`")]
    Filter(String),
    /// A filter's argument is missing or wrong.
    #[error("filter `{0}` {1}")]
    Argument(String, &'static str),
}

/// A template that does not fit a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The field is not there, or null.
    #[error("field `{0}` is missing")]
    Missing(String),
    /// The field is a list where one text is wanted.
    #[error("field `{0}` is a list")]
    List(String),
    /// The field is an object.
    #[error("field `{0}` is an object")]
    Object(String),
}

impl FillError {
    /// The next step.
    pub fn help(&self) -> String {
        match self {
            FillError::Missing(field) => {
                format!("drop such records with `where \"{{{field}}}\" not=\"\"`, or write `{{{field}|default:...}}`")
            }
            FillError::List(field) => format!("write `{{{field}|first}}` or `{{{field}|join:, }}`"),
            FillError::Object(field) => format!("name a field within it: `{{{field}.name}}`"),
        }
    }
}

/// All filters' names, for messages.
pub const FILTERS: &[&str] = &[
    "lower",
    "upper",
    "trim",
    "strip-prefix",
    "strip-suffix",
    "without",
    "replace",
    "before",
    "after",
    "drop-words",
    "replace-words",
    "line",
    "split",
    "join",
    "first",
    "default",
];

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let end = rest.find('}').filter(|_| brace == "{").ok_or_else(|| TemplateError::Brace(text.into()))?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            let mut words = rest[..end].split('|');
            let path = words.next().unwrap_or("").trim().to_owned();
            if path.is_empty() {
                return Err(TemplateError::Empty(text.into()));
            }
            if path.contains('{') {
                return Err(TemplateError::Brace(text.into()));
            }
            parts.push(Part::Field { path, filters: words.map(Filter::parse).collect::<Result<_, _>>()? });
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// The paths of its fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field { path, .. } => Some(path.as_str()),
            Part::Text(_) => None,
        })
    }

    /// One text.
    pub fn fill(&self, record: &Value) -> Result<String, FillError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Field { path, filters } => match value(record, path, filters)? {
                    None => return Err(FillError::Missing(path.clone())),
                    Some(Filled::Many(_)) => return Err(FillError::List(path.clone())),
                    Some(Filled::One(one)) => text.push_str(&one),
                },
            }
        }
        Ok(text)
    }

    /// Any number of texts: a list for a template that is one field, none where a field is missing.
    pub fn fill_many(&self, record: &Value) -> Result<Vec<String>, FillError> {
        if let [Part::Field { path, filters }] = self.parts.as_slice() {
            return Ok(match value(record, path, filters)? {
                None => Vec::new(),
                Some(Filled::One(one)) => vec![one],
                Some(Filled::Many(many)) => many,
            });
        }
        match self.fill(record) {
            Ok(text) => Ok(vec![text]),
            Err(FillError::Missing(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Where the fields are anything: a glob of the texts it may give, whose `*` crosses directories.
    pub fn as_glob(&self) -> String {
        let escape = |text: &String| {
            text.chars().flat_map(|c| if "*?[]{}".contains(c) { vec!['[', c, ']'] } else { vec![c] }).collect()
        };
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => escape(text),
                Part::Field { .. } => String::from("*"),
            })
            .collect()
    }
}

enum Filled {
    One(String),
    Many(Vec<String>),
}

fn value(record: &Value, path: &str, filters: &[Filter]) -> Result<Option<Filled>, FillError> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        _ => Err(FillError::Object(path.to_owned())),
    };
    let mut filled = match table::get(record, path) {
        None => None,
        Some(Value::Array(items)) => {
            Some(Filled::Many(items.iter().filter(|v| !v.is_null()).map(text).collect::<Result<_, _>>()?))
        }
        Some(one) => Some(Filled::One(text(one)?)),
    };
    for filter in filters {
        filled = match (filter, filled) {
            (Filter::Default(other), None) => Some(Filled::One(other.clone())),
            (Filter::Default(other), Some(Filled::One(one))) if one.is_empty() => Some(Filled::One(other.clone())),
            (Filter::Default(other), Some(Filled::Many(many))) if many.is_empty() => Some(Filled::One(other.clone())),
            (_, None) => None,
            (Filter::First, Some(Filled::Many(many))) => many.into_iter().next().map(Filled::One),
            (Filter::Join(between), Some(Filled::Many(many))) => Some(Filled::One(many.join(between))),
            (Filter::Split(at), Some(Filled::One(one))) => Some(Filled::Many(
                one.split(at.as_str()).map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect(),
            )),
            (filter, Some(Filled::One(one))) => Some(Filled::One(filter.apply(one))),
            (filter, Some(Filled::Many(many))) => {
                Some(Filled::Many(many.into_iter().map(|s| filter.apply(s)).collect()))
            }
        };
    }
    Ok(filled)
}

impl Filter {
    fn parse(word: &str) -> Result<Self, TemplateError> {
        let (name, argument) = match word.split_once(':') {
            Some((name, argument)) => (name.trim(), Some(argument.to_owned())),
            None => (word.trim(), None),
        };
        let some = |argument: Option<String>| {
            argument
                .filter(|a| !a.is_empty())
                .ok_or_else(|| TemplateError::Argument(name.into(), "needs an argument after a colon"))
        };
        let list = |argument: Option<String>| -> Result<Vec<String>, TemplateError> {
            Ok(some(argument)?.split(',').map(|w| w.trim().to_owned()).collect())
        };
        let filter = match name {
            "lower" => Self::Lower,
            "upper" => Self::Upper,
            "trim" => Self::Trim,
            "first" => Self::First,
            "strip-prefix" => Self::StripPrefix(some(argument)?),
            "strip-suffix" => Self::StripSuffix(some(argument)?),
            "without" => Self::Without(some(argument)?),
            "before" => Self::Before(some(argument)?),
            "after" => Self::After(some(argument)?),
            "split" => Self::Split(some(argument)?),
            "join" => Self::Join(some(argument)?),
            "default" => Self::Default(argument.unwrap_or_default()),
            "drop-words" => Self::DropWords(list(argument)?),
            "replace" => {
                let both = some(argument)?;
                let wrong = TemplateError::Argument(name.into(), "needs two arguments, replace:OLD:NEW");
                match both.split_once(':') {
                    Some((old, new)) if !old.is_empty() => Self::Replace(old.into(), new.into()),
                    _ => return Err(wrong),
                }
            }
            "replace-words" => {
                let pair = |w: String| w.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
                let wrong = || TemplateError::Argument(name.into(), "needs pairs, replace-words:OLD=NEW,OLD=NEW");
                Self::ReplaceWords(
                    list(argument)?.into_iter().map(|w| pair(w).ok_or_else(wrong)).collect::<Result<_, _>>()?,
                )
            }
            "line" => match some(argument)?.trim().parse() {
                Ok(n) if n > 0 => Self::Line(n),
                _ => return Err(TemplateError::Argument(name.into(), "needs a line's number, from 1")),
            },
            _ => return Err(TemplateError::Filter(name.into())),
        };
        Ok(filter)
    }

    fn apply(&self, text: String) -> String {
        let words = |text: &str, change: &dyn Fn(&str) -> Option<String>| -> String {
            text.split_whitespace().filter_map(change).collect::<Vec<_>>().join(" ")
        };
        match self {
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Trim => text.trim().to_owned(),
            Self::StripPrefix(x) => text.strip_prefix(x.as_str()).map(str::to_owned).unwrap_or(text),
            Self::StripSuffix(x) => text.strip_suffix(x.as_str()).map(str::to_owned).unwrap_or(text),
            Self::Without(x) => text.replace(x.as_str(), ""),
            Self::Replace(x, y) => text.replace(x.as_str(), y),
            Self::Before(x) => text.split_once(x.as_str()).map(|(a, _)| a.to_owned()).unwrap_or(text),
            Self::After(x) => text.split_once(x.as_str()).map(|(_, b)| b.to_owned()).unwrap_or(text),
            Self::DropWords(list) => words(&text, &|w| (!list.iter().any(|x| x == w)).then(|| w.to_owned())),
            Self::ReplaceWords(pairs) => {
                words(&text, &|w| Some(pairs.iter().find(|(old, _)| old == w).map_or(w, |(_, new)| new).to_owned()))
            }
            Self::Line(n) => text.lines().nth(n - 1).unwrap_or("").trim().to_owned(),
            // On a single text these change nothing.
            Self::Split(_) | Self::Join(_) | Self::First | Self::Default(_) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: &str) {
        let record = serde_json::json!({
            "unified": "1F600-FE0F", "name": "GRINNING FACE", "names": ["a_b", "c"], "n": 3, "null": null,
            "label": {"label": "Woman: blond hair", "tags": []}, "text": "A frog.\nde=Ein Frosch\n",
        });
        let found = match Template::parse(template) {
            Err(error) => error.to_string(),
            Ok(template) => template.fill(&record).unwrap_or_else(|e| e.to_string()),
        };
        assert_eq!(found, expected, "{template}");
    }

    #[test]
    fn templates_are_filled() {
        check("img/{unified|lower|without:-fe0f}.png", "img/1f600.png");
        check("{name|lower}", "grinning face");
        check("{n} {{x}}", "3 {x}");
        check("{names|replace:_: |join:, }", "a b, c");
        check("{names|first}", "a_b");
        check("{names.1}", "c");
        check("{label.label|lower|before::}", "woman");
        check("{label.label|lower|before::|drop-words:woman,man|default:people}", "people");
        check("{name|lower|replace-words:face=head}", "grinning head");
        check("{text|line:1|strip-suffix:.|strip-prefix:A }", "frog");
        check("{text|after:=|trim}", "Ein Frosch");
        check("{null|default:none}", "none");
        check("{name|lower|split: |first}", "grinning");
        check("{label.tags|default:none}", "none");
    }

    #[test]
    fn mistakes_are_told() {
        check("{name", "`{name` has a brace without its other half");
        check("name}", "`name}` has a brace without its other half");
        check("{}", "`{}` has braces without a field in them");
        check("{name|lowr}", "there is no filter `lowr`");
        check("{name|without}", "filter `without` needs an argument after a colon");
        check("{name|replace:x}", "filter `replace` needs two arguments, replace:OLD:NEW");
        check("{name|line:0}", "filter `line` needs a line's number, from 1");
        check("{nam}", "field `nam` is missing");
        check("{null}", "field `null` is missing");
        check("{names}", "field `names` is a list");
        check("{label}", "field `label` is an object");
    }

    #[test]
    fn lists_come_from_one_field() {
        let record = serde_json::json!({"names": ["a_b", null, "c"], "one": "x"});
        let many = |t: &str| Template::parse(t).unwrap().fill_many(&record).unwrap();
        assert_eq!(many("{names|replace:_: }"), ["a b", "c"]);
        assert_eq!(many("{one}"), ["x"]);
        assert_eq!(many("a {one}"), ["a x"]);
        assert!(many("{none}").is_empty() && many("a {none}").is_empty());
    }

    #[test]
    fn a_template_has_a_glob() {
        assert_eq!(Template::parse("{dir}/{stem}.[txt]").unwrap().as_glob(), "*/*.[[]txt[]]");
    }
}
