//! Targets that a matrix made, by its axes, as their labels tell them: `runs/lr{lr}-{batch}`.

use regex::Regex;
use serde::Serialize;

/// The axes, and where each subject is on them.
#[derive(Debug, Serialize)]
pub struct Over {
    /// In the order in which the first label has them.
    pub axes: Vec<Axis>,
    /// Of each subject the place among each axis' values; none where its label is another.
    pub places: Vec<Option<Vec<usize>>>,
}

/// One axis.
#[derive(Debug, Serialize)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// Its values: numbers ascending, else in the order of the subjects.
    pub values: Vec<String>,
}

/// A label of which not all is known: `{axis}` stands for any value without `/`, `{axis:one|other}` for one of these.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    axes: Vec<String>,
    /// Takes as little for each value as it can, and as much.
    least: Regex,
    most: Regex,
}

/// What is wrong with some labels.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverError {
    /// Nothing stands for a value.
    #[error("`{0}` has no axis")]
    NoAxis(String),
    /// A brace without the other, or nothing between them.
    #[error("`{0}` has a brace that is no axis")]
    Brace(String),
    /// The same axis more than once.
    #[error("`{0}` has the axis `{1}` twice")]
    Twice(String, String),
    /// Labels with different axes.
    #[error("`{0}` has other axes than `{1}`")]
    Others(String, String),
    /// A value ends at more than one place.
    #[error("`{label}` can be read in two ways as `{pattern}`")]
    TwoWays {
        /// The subject's label.
        label: String,
        /// What it is read as.
        pattern: String,
    },
    /// Nothing that is compared is called so.
    #[error("nothing that is compared is called `{0}`")]
    Nobody(String),
    /// Two subjects with the same values.
    #[error("`{0}` and `{1}` have the same values")]
    SamePlace(String, String),
}

impl OverError {
    /// The next step.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoAxis(_) | Self::Brace(_) => {
                "write an axis of the matrix in braces where its value stands in the label: \"runs/lr{lr}-{batch}\""
            }
            Self::Twice(..) => "give each axis a name of its own",
            Self::Others(..) => "give every label the same axes, or make two reports of it",
            Self::TwoWays { .. } => {
                "say which values there are where it is not clear where one ends: \"models/{method:rtn|gptq}{bits}\""
            }
            Self::Nobody(_) => "write it as the targets' labels are written in the recipe, with their axes in braces",
            Self::SamePlace(..) => "let the labels tell all that differs, or compare one of the two",
        }
    }
}

impl Pattern {
    fn read(text: &str) -> Result<Self, OverError> {
        let brace = || OverError::Brace(text.to_owned());
        let (mut axes, mut rest) = (Vec::new(), text);
        let (mut least, mut most) = (String::from("^"), String::from("^"));
        let literal = |regexes: [&mut String; 2], text: &str| regexes.map(|regex| *regex += &regex::escape(text));
        while let Some(open) = rest.find(['{', '}']) {
            let close = rest[open..].find('}').filter(|_| rest[open..].starts_with('{')).ok_or_else(brace)? + open;
            let (name, values) = match rest[open + 1..close].split_once(':') {
                Some((name, values)) => (name, values.split('|').map(regex::escape).collect::<Vec<_>>()),
                None => (&rest[open + 1..close], Vec::new()),
            };
            if name.is_empty() || name.contains('{') || values.iter().any(String::is_empty) {
                return Err(brace());
            }
            if axes.iter().any(|axis| axis == name) {
                return Err(OverError::Twice(text.to_owned(), name.to_owned()));
            }
            axes.push(name.to_owned());
            literal([&mut least, &mut most], &rest[..open]);
            let any = if values.is_empty() { "[^/]+".to_owned() } else { values.join("|") };
            let lazy = if values.is_empty() { "?" } else { "" };
            least += &format!("({any}{lazy})");
            most += &format!("({any})");
            rest = &rest[close + 1..];
        }
        literal([&mut least, &mut most], rest);
        if axes.is_empty() {
            return Err(OverError::NoAxis(text.to_owned()));
        }
        let regex = |text: &str| Regex::new(&format!("{text}$")).map_err(|_| brace());
        Ok(Self { least: regex(&least)?, most: regex(&most)?, text: text.to_owned(), axes })
    }

    /// The value of each axis in this label; none where it is another's.
    fn values(&self, label: &str) -> Result<Option<Vec<String>>, OverError> {
        let read = |regex: &Regex| {
            let found = regex.captures(label)?;
            Some(found.iter().skip(1).flatten().map(|value| value.as_str().to_owned()).collect::<Vec<_>>())
        };
        let (least, most) = (read(&self.least), read(&self.most));
        if least != most {
            return Err(OverError::TwoWays { label: label.to_owned(), pattern: self.text.clone() });
        }
        Ok(least)
    }
}

impl Over {
    /// Places these labels by how they are written; an error with which of `written` it is about.
    pub fn of(written: &[String], labels: &[String]) -> Result<Self, (usize, OverError)> {
        let mut patterns: Vec<Pattern> = Vec::new();
        for (i, text) in written.iter().enumerate() {
            let pattern = Pattern::read(text).map_err(|e| (i, e))?;
            if let Some(first) = patterns.first() {
                let sorted = |pattern: &Pattern| {
                    let mut axes = pattern.axes.clone();
                    axes.sort();
                    axes
                };
                if sorted(first) != sorted(&pattern) {
                    return Err((i, OverError::Others(text.clone(), first.text.clone())));
                }
            }
            patterns.push(pattern);
        }
        let names = patterns.first().map(|pattern| pattern.axes.clone()).unwrap_or_default();
        let mut found: Vec<Option<Vec<String>>> = vec![None; labels.len()];
        for (i, pattern) in patterns.iter().enumerate() {
            let mut is_somebody = false;
            for (subject, label) in labels.iter().enumerate() {
                let Some(values) = pattern.values(label).map_err(|e| (i, e))? else { continue };
                is_somebody = true;
                let value = |name: &String| {
                    let at = pattern.axes.iter().position(|axis| axis == name).expect("the same axes");
                    values[at].clone()
                };
                found[subject].get_or_insert_with(|| names.iter().map(value).collect());
            }
            if !is_somebody {
                return Err((i, OverError::Nobody(pattern.text.clone())));
            }
        }
        for (i, values) in found.iter().enumerate().filter(|(_, values)| values.is_some()) {
            if let Some(other) = found[..i].iter().position(|other| other == values) {
                return Err((0, OverError::SamePlace(labels[other].clone(), labels[i].clone())));
            }
        }
        let axis = |(at, name): (usize, &String)| {
            let mut values: Vec<String> = Vec::new();
            for value in found.iter().flatten().map(|values| &values[at]) {
                if !values.contains(value) {
                    values.push(value.clone());
                }
            }
            let number = |text: &String| text.parse::<f64>().ok();
            if values.iter().all(|value| number(value).is_some()) {
                values.sort_by(|a, b| number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)));
            }
            Axis { name: name.clone(), values }
        };
        let axes: Vec<Axis> = names.iter().enumerate().map(axis).collect();
        let place = |values: Vec<String>| -> Vec<usize> {
            let at = |(axis, value): (&Axis, &String)| axis.values.iter().position(|known| known == value);
            axes.iter().zip(&values).filter_map(at).collect()
        };
        let places = found.into_iter().map(|values| values.map(place)).collect();
        Ok(Self { axes, places })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(written: &[&str], labels: &[&str]) -> Result<Over, String> {
        let owned = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Over::of(&owned(written), &owned(labels)).map_err(|(i, e)| format!("{i}: {e}"))
    }

    #[test]
    fn labels_tell_their_places() {
        let found =
            over(&["runs/lr{lr}-b{batch}"], &["runs/lr0.1-b32", "runs/lr0.01-b32", "runs/base", "runs/lr0.1-b4"]);
        let found = found.unwrap();
        let values: Vec<(&str, &[String])> = found.axes.iter().map(|a| (a.name.as_str(), &a.values[..])).collect();
        assert_eq!(values, [("lr", &["0.01".to_owned(), "0.1".into()][..]), ("batch", &["4".to_owned(), "32".into()])]);
        assert_eq!(found.places, [Some(vec![1, 1]), Some(vec![0, 1]), None, Some(vec![1, 0])]);
    }

    #[test]
    fn several_labels_have_the_same_axes_in_any_order() {
        let found = over(
            &["models/{method:rtn|gptq}{bits:8|4}", "models/{bits}-bits-{method}"],
            &["models/rtn8", "models/gptq4", "models/rtn8-symmetric", "models/2-bits-awq"],
        );
        let found = found.unwrap();
        assert_eq!(found.axes[0].values, ["rtn", "gptq", "awq"]);
        assert_eq!(found.axes[1].values, ["2", "4", "8"]);
        assert_eq!(found.places, [Some(vec![0, 2]), Some(vec![1, 1]), None, Some(vec![2, 0])]);
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let refused = |written: &[&str], labels: &[&str]| over(written, labels).unwrap_err();
        assert_eq!(refused(&["runs/a"], &["runs/a"]), "0: `runs/a` has no axis");
        for broken in ["runs/{", "runs/}a{b}", "runs/{}", "runs/{a{b}", "runs/{a:}", "runs/{a:b|}"] {
            assert!(refused(&[broken], &["runs/a"]).contains("a brace that is no axis"), "{broken}");
        }
        assert_eq!(refused(&["{a}-{a}"], &["x-y"]), "0: `{a}-{a}` has the axis `a` twice");
        assert_eq!(refused(&["r/{a}", "r/{b}-x"], &["r/1"]), "1: `r/{b}-x` has other axes than `r/{a}`");
        assert_eq!(refused(&["{a}-{b}"], &["x-y-z"]), "0: `x-y-z` can be read in two ways as `{a}-{b}`");
        assert_eq!(refused(&["r/{a}", "s/{a}"], &["r/1"]), "1: nothing that is compared is called `s/{a}`");
        assert_eq!(refused(&["r/{a}", "s/{a}"], &["r/1", "s/1"]), "0: `r/1` and `s/1` have the same values");
    }
}
