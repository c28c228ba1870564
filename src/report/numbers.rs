//! What a report holds: `report.json`, typed.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::measure::hardware::Hardware;
use crate::report::encoders::Encoded;
use crate::report::language::{Answers, Texts};
use crate::report::over::Over;
use crate::report::predictions::Predicted;
use crate::report::quantization::Quantization;
use crate::report::retrieval::{Quantized, Test, ZeroShot};
use crate::report::timing::Timing;
use crate::report::told::{Front, Told};

/// Of `report.json`. 1: first. 2: differences, the headline, what quantization costs, accuracy by class. 3: `of`, `texts`
/// and `answers` of language models, an adapter's `base` and `own_bytes`. 4: of language models `metrics`, accuracy, divergence
/// and `same_top`, `bits_per_weight`, speed and `quantization`. 5: `encoded`, of encoders. 8, after those below: `hardware`.
pub const VERSION: u32 = 8;

/// Of `report.json` with told numbers: version 5 with `told`, and subjects without `bytes`. The others are as they were.
pub const VERSION_OF_TOLD: u32 = 6;

/// Of `report.json` with predictions: version 6 with `predicted` in place of `told`.
pub const VERSION_OF_PREDICTIONS: u32 = 7;

/// Of `report.json` with times: version 6 with `timing`. The others are as they were. 9: of programs. 10: `model` of models, with
/// what they did. 11: `set_aside`.
pub const VERSION_OF_TIMING: u32 = 11;

/// Among the metrics of language models: how well they foresee texts.
pub const PERPLEXITY: &str = "perplexity";
/// How far their predictions are from the first one's.
pub const KL: &str = "kl";
/// The share of tokens that were the most likely.
pub const ACCURACY: &str = "accuracy";
/// How near an encoder's vectors are to the first one's.
pub const COSINE: &str = "cosine";
/// How quick they are on this machine.
pub const SPEED: &str = "speed";

/// All of a report. What the one sort of models has none of is left out, or empty where version 2 had it.
#[derive(Debug, Default, Serialize)]
pub struct Numbers {
    /// Of this format: [`VERSION`], [`VERSION_OF_TOLD`], [`VERSION_OF_PREDICTIONS`] or [`VERSION_OF_TIMING`].
    pub version: u32,
    /// The target.
    pub label: String,
    /// Which models, and so which of the numbers there are.
    pub of: Of,
    /// What was asked for, of language models and encoders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
    /// What was found, in words.
    pub headline: Vec<String>,
    /// Where speed was measured, if it was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// What that machine can do, where speeds are held against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// Of samples and intervals.
    pub seed: u64,
    /// The models, the first of which is the reference.
    pub subjects: Vec<Subject>,
    /// The galleries.
    pub tests: Vec<Test>,
    /// The classifications.
    pub zero_shot: Vec<ZeroShot>,
    /// What the quantized models cost and save.
    pub quantized: Vec<Quantized>,
    /// Texts, of language models.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<Texts>,
    /// What is encoded, of encoders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub encoded: Vec<Encoded>,
    /// Numbers that programs told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Told>,
    /// Two of those numbers against each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fronts: Vec<Front>,
    /// Predictions beside what was true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
    /// Times, of programs and of what models do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Models by their distance from the first, where that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// Questions, of language models.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answers>,
    /// Subjects by the axes of the matrix that made them, where that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
    /// What is not in the report, and why.
    pub left_out: Vec<String>,
}

impl Numbers {
    /// What the things are called that are compared.
    pub fn noun(&self) -> &'static str {
        match self.of {
            Of::Told | Of::Predictions => "target",
            Of::Timing => "subject",
            _ => "model",
        }
    }

    /// Whether this metric of language models or encoders was asked for.
    pub fn has(&self, metric: &str) -> bool {
        self.metrics.iter().any(|m| m == metric)
    }

    /// Models in the order of the tables, by their places: as they are, or by distance.
    pub fn order(&self) -> Vec<usize> {
        match &self.quantization {
            Some(found) => found.places(&self.subjects),
            None => (0..self.subjects.len()).collect(),
        }
    }
}

/// Which sort of models a report is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// Picture-text models.
    #[default]
    Pictures,
    /// Language models.
    Language,
    /// Models by the vectors that they give.
    Encoders,
    /// Any targets, by the numbers that their programs told.
    Told,
    /// Any targets, by their predictions of the same items.
    Predictions,
    /// Programs, by how long they take.
    Timing,
}

impl Of {
    /// Whether the things compared are no models, of whose size and speed nothing is known.
    pub fn is_of_targets(self) -> bool {
        matches!(self, Self::Told | Self::Predictions | Self::Timing)
    }
}

/// A model.
#[derive(Debug, Default, Serialize)]
pub struct Subject {
    /// Its label.
    pub label: String,
    /// Its label, as short as it can be among the others.
    pub name: String,
    /// Bits a weight where it is quantized.
    pub bits: Option<u64>,
    /// Of its weights on disk; an adapter's with its base's. 0 of what is no model.
    #[serde(skip_serializing_if = "is_none")]
    pub bytes: u64,
    /// Bits of its weights on disk for each weight of the first model, where a distance is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
    /// The model it adapts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// An adapter's weights alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_bytes: Option<u64>,
    /// `speed.json`, where it was measured.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub speed: Value,
}

impl Subject {
    /// A number of its speed, 0 where it is missing.
    pub fn speed(&self, key: &str) -> f64 {
        self.speed[key].as_f64().unwrap_or(0.0)
    }

    /// Millions of bytes on disk.
    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }

    /// Millions of bytes on disk besides its base.
    pub fn own_megabytes(&self) -> f64 {
        self.own_bytes.unwrap_or(self.bytes) as f64 / 1e6
    }
}

fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

/// Labels without the folders they do not need to be told apart.
pub fn short_names(labels: &[String]) -> Vec<String> {
    let last = |label: &str| label.rsplit('/').next().unwrap_or(label).to_owned();
    let names: Vec<String> = labels.iter().map(|l| last(l)).collect();
    let apart = names.iter().collect::<BTreeSet<_>>().len() == names.len();
    if apart { names } else { labels.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_folders_unless_they_then_collide() {
        let names = |l: &[&str]| short_names(&l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["models/a", "adapters/b"]), ["a", "b"]);
        assert_eq!(names(&["models/a", "adapters/a"]), ["models/a", "adapters/a"]);
    }
}
