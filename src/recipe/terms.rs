//! On what terms a target's action runs: what it may use up, when it is tried again, and what its numbers must not cross.
//!
//! They decide whether an action ends well, never what it makes: no facts, so another limit rebuilds nothing. Any target
//! may have them; what it is made with, its parts are.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema::{Prop, Schema, Type};

/// What an action may use up.
pub const AT_MOST: Schema = Schema::new(
    "at-most",
    "What the target's action may use up; one that takes more is ended, and has failed. No facts, so another limit \
     rebuilds nothing.",
)
.props(&[
    Prop::new("time", Type::Span, "how long it may run, such as \"10 min\"; then it is asked to end, and made to"),
    Prop::new("memory", Type::Size, "what all its processes hold together, such as \"8 GiB\""),
    Prop::new("disk", Type::Size, "what lies where it runs, such as \"20 GiB\""),
]);

/// When an action is tried again.
pub const RETRY: Schema = Schema::new(
    "retry",
    "Runs the target's action again, at most so many times, where it failed in a way that is said here. Each time is told \
     and in the log. No fact.",
)
.arg("times", Type::Int(1, 100))
.children(&[
    Schema::new(
        "on",
        "What passes by itself: `network`, names that are not found and connections that break; `memory`, or `time`, that \
         ran out.",
    )
    .many_args("failures", Type::Choice(&["network", "memory", "time"])),
    Schema::new("code", "Exit codes of its program.").many_args("codes", Type::Int(1, 255)),
    Schema::new("says", "Words in the log of the run that failed.").many_args("texts", Type::Text),
    Schema::new(
        "wait",
        "How long to wait before the first time, 1 s where it is not said; twice as long before each one after, 5 min at \
         most.",
    )
    .arg("span", Type::Span),
]);

/// What a metric must not cross.
pub const GUARD: Schema = Schema::new(
    "guard",
    "What a metric of the target must not cross: `effai ci report` ends with 1 where it does. No fact.",
)
.arg("metric", Type::Text)
.props(&[
    Prop::new("min", Type::Float(f64::NEG_INFINITY, f64::INFINITY), "the least it may be"),
    Prop::new("max", Type::Float(f64::NEG_INFINITY, f64::INFINITY), "the most"),
    Prop::new("drop", Type::Float(0.0, f64::INFINITY), "how far it may fall below the base branch's"),
    Prop::new("rise", Type::Float(0.0, f64::INFINITY), "how far it may rise above it"),
])
.many();

/// All, as fields of one node.
pub static SCHEMA: Schema = Schema::new("", "").children(&[AT_MOST, RETRY, GUARD]);

/// The first wait where none is said, and the longest.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The terms of one target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Terms {
    /// What it may use up.
    pub at_most: Limits,
    /// When it is tried again.
    pub retry: Option<Retry>,
    /// What its metrics must not cross.
    pub guard: Vec<Guard>,
}

/// What a metric must not cross.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Guard {
    /// Its name.
    pub metric: String,
    /// The least it may be.
    pub min: Option<f64>,
    /// The most.
    pub max: Option<f64>,
    /// How far it may fall below the base's.
    pub drop: Option<f64>,
    /// How far it may rise above it.
    pub rise: Option<f64>,
}

/// What an action may use up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Seconds of wall time.
    pub time: Option<f64>,
    /// Bytes of memory that all its processes hold together.
    pub memory: Option<u64>,
    /// Bytes that lie where it runs.
    pub disk: Option<u64>,
}

/// What an action used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// It ran for too long.
    Time,
    /// It held too much.
    Memory,
    /// It wrote too much.
    Disk,
}

/// When an action is tried again.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Retry {
    /// At most so many times.
    pub times: u32,
    /// `network`, `memory`, `time`.
    #[serde(default)]
    pub on: Vec<String>,
    /// Exit codes.
    #[serde(default)]
    pub code: Vec<i32>,
    /// Words of its log.
    #[serde(default)]
    pub says: Vec<String>,
    wait: Option<f64>,
}

impl Terms {
    /// Of a declaration, by its fields.
    ///
    /// # Panics
    /// If they are not what [`SCHEMA`] makes: a bug.
    pub fn of(fields: &Value) -> Self {
        Self::deserialize(fields).unwrap_or_else(|e| panic!("terms of no known shape: {e}"))
    }

    /// Puts terms among a declaration's fields.
    pub fn put(terms: &Value, fields: &mut Value) {
        for name in SCHEMA.children.iter().map(|schema| schema.name) {
            if let Some(terms) = terms.get(name) {
                fields[name] = terms.clone();
            }
        }
    }

    /// Gives a part the terms of its whole, but for guards: numbers are the whole's.
    pub fn hand_on(whole: &Value, part: &mut Value) {
        for name in [AT_MOST.name, RETRY.name] {
            if let Some(terms) = whole.get(name) {
                part[name] = terms.clone();
            }
        }
    }

    /// Guards that have no limit: which of them, and the metric's name.
    pub fn guards_nothing(fields: &Map<String, Value>) -> Vec<(usize, &str)> {
        let guards = fields.get(GUARD.name).and_then(Value::as_array).into_iter().flatten().enumerate();
        let limits = ["min", "max", "drop", "rise"];
        let empty = guards.filter(|(_, guard)| limits.iter().all(|limit| guard.get(limit).is_none_or(Value::is_null)));
        empty.filter_map(|(at, guard)| Some((at, guard["metric"].as_str()?))).collect()
    }

    /// Whether the terms of a declaration say something that means nothing: a `retry` after no failure.
    pub fn retries_nothing(fields: &Map<String, Value>) -> bool {
        let causes = ["on", "code", "says"];
        fields.get(RETRY.name).is_some_and(|retry| causes.iter().all(|cause| retry.get(cause).is_none()))
    }
}

impl Retry {
    /// How long to wait before it runs again for the `n`th time, from 1.
    pub fn wait(&self, n: u32) -> Duration {
        let first = self.wait.map_or(WAIT, Duration::from_secs_f64);
        first.saturating_mul(1 << (n - 1).min(16)).min(WAIT_MAX.max(first))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits = |wait: Option<f64>| {
            let retry = Retry { times: 100, on: vec![], code: vec![1], says: vec![], wait };
            [1, 2, 3, 20, 100].map(|n| retry.wait(n).as_secs_f64())
        };
        assert_eq!(waits(None), [1.0, 2.0, 4.0, 300.0, 300.0]);
        assert_eq!(waits(Some(0.25)), [0.25, 0.5, 1.0, 300.0, 300.0]);
        assert_eq!(waits(Some(600.0)), [600.0; 5]);
        assert_eq!(waits(Some(0.0)), [0.0; 5]);
    }

    #[test]
    fn a_part_has_the_terms_of_its_whole() {
        let whole = json!({ "at-most": { "memory": 10 }, "retry": { "times": 2, "code": [7] }, "rank": 8 });
        let mut part = json!({ "url": "x" });
        Terms::hand_on(&whole, &mut part);
        assert_eq!(Terms::of(&part), Terms::of(&whole));
        assert_eq!(part["rank"], Value::Null);
        assert_eq!(Terms::of(&json!({})), Terms::default());
    }
}
