//! The numbers that a program told, as a file of its artifact: the last value of each, and the curves.
//!
//! ```text
//! {
//!   "version": 1,
//!   "values": {
//!     "accuracy": 0.97,
//!     "train.loss": 0.21
//!   },
//!   "curves": {
//!     "train.loss": [[0,0.9],[1,0.21]]
//!   }
//! }
//! ```
//!
//! Names stand in their order and points in that of their steps, so that the same numbers are the same bytes. Of several
//! values at one step the last one told counts; the value of a curve is that of its last step, as `effai log` has it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::util::fs;

/// Raised when a field is added or changes its meaning.
pub const VERSION: u64 = 1;

/// What a program told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Numbers without a step.
    alone: BTreeMap<String, f64>,
    curves: BTreeMap<String, BTreeMap<u64, f64>>,
}

#[derive(Deserialize)]
struct File {
    values: BTreeMap<String, f64>,
    curves: BTreeMap<String, Vec<(u64, f64)>>,
}

impl Metrics {
    /// Adds one number; with a step it is a point of a curve.
    pub fn add(&mut self, name: &str, step: Option<u64>, value: f64) {
        match step {
            // Names are few and points are many: one that is known is not written anew.
            Some(step) => match self.curves.get_mut(name) {
                Some(curve) => drop(curve.insert(step, value)),
                None => drop(self.curves.insert(name.to_owned(), BTreeMap::from([(step, value)]))),
            },
            None => drop(self.alone.insert(name.to_owned(), value)),
        }
    }

    /// Whether nothing was told.
    pub fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.curves.is_empty()
    }

    /// The last value of each number, by name.
    pub fn values(&self) -> BTreeMap<&str, f64> {
        let mut values: BTreeMap<&str, f64> = self.alone.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let last = |curve: &BTreeMap<u64, f64>| curve.last_key_value().map(|(_, value)| *value);
        values.extend(self.curves.iter().filter_map(|(name, curve)| Some((name.as_str(), last(curve)?))));
        values
    }

    /// The points of a curve, in the order of their steps; none of a number that was told without any.
    pub fn curve(&self, name: &str) -> Vec<(u64, f64)> {
        self.curves.get(name).into_iter().flatten().map(|(step, value)| (*step, *value)).collect()
    }

    /// As the file is written.
    pub fn to_json(&self) -> String {
        let entry = |name: &str, value: String| format!("\n    {}: {value}", Value::from(name));
        let values = self.values().into_iter().map(|(name, value)| entry(name, Value::from(value).to_string()));
        let points = |curve: &BTreeMap<u64, f64>| -> String {
            let points: Vec<String> = curve.iter().map(|(s, v)| format!("[{s},{}]", Value::from(*v))).collect();
            format!("[{}]", points.join(","))
        };
        let curves = self.curves.iter().map(|(name, curve)| entry(name, points(curve)));
        let object = |entries: Vec<String>| match entries.as_slice() {
            [] => "{}".to_owned(),
            some => format!("{{{}\n  }}", some.join(",")),
        };
        let (values, curves) = (object(values.collect()), object(curves.collect()));
        format!("{{\n  \"version\": {VERSION},\n  \"values\": {values},\n  \"curves\": {curves}\n}}\n")
    }

    /// Reads the file of this name in an artifact; none where there is no such file.
    pub fn of_file(dir: &Path, name: &str) -> Result<Option<Self>, Failure> {
        match fs::read_text(&dir.join(name)) {
            Ok(text) => Self::of_json(&text).map(Some).map_err(|why| {
                Failure::user(format!("{}: {why}", dir.join(name).display()))
                    .help("the field `metrics` of a target has effai write such a file")
            }),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn of_json(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        match file["version"].as_u64() {
            None => return Err("not a file of told numbers: it has no `version`".into()),
            Some(newer) if newer > VERSION => {
                return Err(format!("version {newer} of told numbers, and this effai knows {VERSION}"));
            }
            Some(_) => {}
        }
        let File { values, curves } =
            serde_json::from_value(file).map_err(|e| format!("not a file of told numbers: {e}"))?;
        let alone = values.into_iter().filter(|(name, _)| !curves.contains_key(name)).collect();
        let curves = curves.into_iter().map(|(name, points)| (name, points.into_iter().collect())).collect();
        Ok(Self { alone, curves })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Metrics {
        let mut told = Metrics::default();
        told.add("train.loss", Some(1), 0.25);
        told.add("train.loss", Some(0), 0.9);
        told.add("a \"b\"", None, 1.0);
        told.add("accuracy", None, 0.5);
        told.add("accuracy", None, 0.97);
        told.add("train.loss", Some(1), 0.21);
        told
    }

    #[test]
    fn the_file_is_in_order_and_has_the_last_values() {
        let expected = "{\n  \"version\": 1,\n  \"values\": {\n    \"a \\\"b\\\"\": 1.0,\n    \"accuracy\": 0.97,\n    \
                        \"train.loss\": 0.21\n  },\n  \"curves\": {\n    \"train.loss\": [[0,0.9],[1,0.21]]\n  }\n}\n";
        assert_eq!(told().to_json(), expected);
        assert_eq!(Metrics::default().to_json(), "{\n  \"version\": 1,\n  \"values\": {},\n  \"curves\": {}\n}\n");
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        for told in [told(), Metrics::default()] {
            assert_eq!(Metrics::of_json(&told.to_json()), Ok(told));
        }
        assert_eq!(told().curve("train.loss"), [(0, 0.9), (1, 0.21)]);
        assert!(told().curve("accuracy").is_empty());
    }

    #[test]
    fn other_files_are_refused() {
        for (text, why) in [
            ("[", "not JSON"),
            ("{\"accuracy\": 1}", "no `version`"),
            ("{\"version\": 2}", "version 2 of told numbers, and this effai knows 1"),
            ("{\"version\": 1, \"values\": {\"a\": \"b\"}, \"curves\": {}}", "invalid type"),
        ] {
            let said = Metrics::of_json(text).expect_err("refused");
            assert!(said.contains(why), "{said}");
        }
    }
}
