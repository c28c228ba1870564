//! An export that is opened again: what encodes texts or pictures, or goes on with tokens, by a program that runs the file.
//! So what a file gives and how quick it is can be measured as the model's own is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Runtime, Value};
use super::format::{Format, Layout, Precision};
use super::source::{self, IDS, MASK, PIXELS, Part, Pixels, Values};
use crate::failure::Failure;
use crate::format::image::{Colours, Preprocessing};
use crate::model::encoder::Encoder;
use crate::model::fit::Words;
use crate::model::{Config, llama, preprocessing_of, tokenizer_of};
use crate::util::fs;

/// What an export says of itself, for who opens it.
pub const EXPORT: &str = "export.json";

/// The text of [`EXPORT`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Of this format.
    version: u32,
    format: String,
    precision: String,
    part: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pixels: Option<String>,
    /// Height and width of the pictures that it is given, where it brings them to the model's side itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given: Option<[usize; 2]>,
    /// Of how many labels it gives probabilities, where it does so in place of vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<usize>,
    /// The target whose package runs it, as the recipe has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

impl Facts {
    /// Of a file.
    pub fn new(
        format: Format,
        precision: Precision,
        part: Part,
        pixels: Option<Pixels>,
        environment: Option<&str>,
    ) -> Self {
        Self {
            version: 1,
            format: format.name().to_owned(),
            precision: precision.name().to_owned(),
            part: part.name().to_owned(),
            pixels: pixels.map(|pixels| pixels.name().to_owned()),
            given: None,
            labels: None,
            environment: environment.map(str::to_owned),
        }
    }

    /// The same of a file that is given pictures of this height and width.
    #[must_use]
    pub fn given(self, given: Option<[usize; 2]>) -> Self {
        Self { given, ..self }
    }

    /// The same of a file that gives probabilities of so many labels; of none, vectors.
    #[must_use]
    pub fn with_labels(self, count: usize) -> Self {
        Self { labels: (count > 0).then_some(count), ..self }
    }

    /// Refuses a file that is not given what a model is, or does not give it, for who measures those.
    fn check_measured(&self) -> Result<(), Failure> {
        if let Some(count) = self.labels {
            let what = format!("this export gives probabilities of {count} labels, and no vectors");
            return Err(Failure::user(what).help("export the part as \"onnx\" without `labels` too, and measure that"));
        }
        if let Some([height, width]) = self.given {
            let what = format!(
                "the file is given pictures of {width} x {height} pixels, and what measures it has the model's own"
            );
            return Err(Failure::user(what).help("export it without `height` and `width` too, and measure that"));
        }
        Ok(())
    }

    /// Writes them beside the file.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).expect("plain data");
        Ok(fs::write(&dir.join(EXPORT), text.as_bytes())?)
    }

    /// Of what lies in a directory; none of what is no export.
    pub fn read(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(EXPORT);
        if !path.exists() {
            return Ok(None);
        }
        let read = serde_json::from_str(&fs::read_text(&path)?);
        read.map(Some).map_err(|e| Failure::target(format!("{}: {e}", path.display())))
    }

    /// Of an export.
    fn of(dir: &Path) -> Result<Self, Failure> {
        Self::read(dir)?.ok_or_else(|| Failure::target(format!("{} is no export", dir.display())))
    }

    /// What the file is of.
    pub fn part(&self) -> Result<Part, Failure> {
        Part::by_name(&self.part).ok_or_else(|| Failure::target(format!("no export has a part `{}`", self.part)))
    }
}

/// A file that is open.
pub struct Exported {
    engine: Box<dyn Engine>,
    part: Part,
    config: Config,
    tokenizer: Option<Words>,
    preprocessing: Option<Preprocessing>,
    pixels: Pixels,
    layout: Layout,
    /// Positions before all others that are masked, where caches of no position are none that the program takes.
    masked: usize,
    /// Of what it is given one number only.
    batch: Option<usize>,
    sequence: Option<usize>,
}

/// What a language model has read: keys and values of every layer, where what runs the file has them.
#[derive(Default)]
pub struct Read {
    caches: Vec<Value>,
    tokens: usize,
}

/// What runs the export in a directory, of an environment where there is one: its name, and with its version.
pub fn program(dir: &Path, environment: Option<&Path>) -> Result<(&'static str, String), Failure> {
    Runtime::of(&Facts::of(dir)?.format, environment)?.program()
}

impl Exported {
    /// Opens the file in a directory, on so many threads; by what an environment has, where there is one.
    pub fn open(dir: &Path, environment: Option<&Path>, threads: usize) -> Result<Self, Failure> {
        let facts = Facts::of(dir)?;
        facts.check_measured()?;
        let runtime = Runtime::of(&facts.format, environment)?;
        let part = facts.part()?;
        let engine = runtime.open(dir, threads)?;
        let config = Config::read(dir)?;
        let first = if part == Part::Picture { PIXELS } else { IDS };
        let batch = engine.length(first, 0);
        let sequence = (part != Part::Picture).then(|| engine.length(first, 1)).flatten();
        let pixels = facts.pixels.as_deref().and_then(Pixels::by_name).unwrap_or_default();
        let tokenizer = if part == Part::Picture { None } else { tokenizer_of(dir, &config, sequence)? };
        let mut preprocessing = if part == Part::Picture { preprocessing_of(dir, &config)? } else { None };
        if let (Some(preprocessing), Pixels::Uint8) = (&mut preprocessing, pixels) {
            // All that is left to do is to cut and to scale.
            (preprocessing.mean, preprocessing.std) = (Colours::All(0.0), Colours::All(1.0));
        }
        let past = match &config {
            Config::Llama(config) => source::past_names(config).first().and_then(|name| engine.length(name, 2)),
            _ => None,
        };
        let masked = if past.is_none() { runtime.least_past() } else { 0 };
        let layout = runtime.layout();
        Ok(Self { engine, part, config, tokenizer, preprocessing, pixels, layout, masked, batch, sequence })
    }

    /// What runs it, with its version.
    pub fn program(&self) -> String {
        self.engine.name()
    }

    /// The shape of the model that it was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The shape, of a language model.
    pub fn language(&self) -> Result<&llama::Config, Failure> {
        match &self.config {
            Config::Llama(config) if self.part == Part::Language => Ok(config),
            _ => Err(Failure::user("this export is no language model")),
        }
    }

    /// The logits that follow the last of these tokens, which come after what was read: one for each token known.
    pub fn go_on(&self, ids: &[u32], read: &mut Read) -> Result<Vec<f32>, Failure> {
        let known = self.language()?.vocab_size;
        self.tokens(&[ids.to_vec()], read)?.last(known)
    }

    /// The logits that follow each of these tokens, which nothing comes before: [tokens, vocabulary].
    pub fn all_logits(&self, ids: &[u32]) -> Result<Vec<f32>, Failure> {
        Ok(self.tokens(&[ids.to_vec()], &mut Read::default())?.floats()?.1)
    }

    /// Reads tokens after what was read; the logits of all of them: [rows, tokens, vocabulary], those of padding among them.
    fn tokens(&self, rows: &[Vec<u32>], read: &mut Read) -> Result<Value, Failure> {
        let config = self.language()?;
        let count = rows.iter().map(Vec::len).max().unwrap_or(0);
        let own = self.batch.is_none_or(|batch| batch == rows.len());
        if !own || self.sequence.is_some_and(|sequence| sequence != count) {
            let what = format!("the file does not read {} texts of {count} tokens at once", rows.len());
            return Err(Failure::user(what).help("export it without `shape`"));
        }
        let names = source::past_names(config);
        let caches: Vec<Value> = if read.caches.is_empty() {
            let shape = vec![rows.len(), config.kv_heads(), self.masked, config.head_width()];
            let nothing = vec![0.0; shape.iter().product()];
            names.iter().map(|_| Value::Given(shape.clone(), Values::Floats(nothing.clone()))).collect()
        } else {
            std::mem::take(&mut read.caches)
        };
        let [ids, mask] = inputs(rows, count, self.masked, read.tokens);
        let all = [(IDS, ids), (MASK, mask)].into_iter().chain(names.iter().map(String::as_str).zip(caches));
        let outputs = source::language_outputs(config);
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let mut values = self.engine.run(all.collect(), &outputs)?.into_iter();
        let logits = values.next().expect("it was asked for");
        read.caches = values.collect();
        read.tokens += count;
        Ok(logits)
    }

    /// In batches as large as the file is given them: rows of d values, of which those that fill up the last batch are none.
    fn in_batches(
        &self,
        count: usize,
        run: impl Fn(&[usize]) -> Result<Vec<f32>, Failure>,
    ) -> Result<Vec<f32>, Failure> {
        let size = self.batch.unwrap_or(count).max(1);
        let mut all = Vec::new();
        for begin in (0..count).step_by(size) {
            let own = size.min(count - begin);
            let places: Vec<usize> = (0..size).map(|i| begin + i.min(own - 1)).collect();
            let values = run(&places)?;
            all.extend_from_slice(&values[..values.len() / size * own]);
        }
        Ok(all)
    }

    fn vectors(&self, inputs: Vec<(&str, Value)>) -> Result<Vec<f32>, Failure> {
        let output = source::vectors_output(self.part, &self.config);
        let value = self.engine.run(inputs, &[output])?.remove(0);
        Ok(value.floats()?.1)
    }
}

impl Encoder for Exported {
    fn preprocessing(&self) -> Option<Preprocessing> {
        self.preprocessing
    }

    fn tokenizer(&self) -> Result<&Words, Failure> {
        self.tokenizer.as_ref().ok_or_else(|| Failure::target("the export has no tokenizer.json beside it"))
    }

    fn reads(&self) -> bool {
        self.part == Part::Text
    }

    fn texts(&self, rows: &[Vec<u32>]) -> Result<Vec<f32>, Failure> {
        if self.part != Part::Text {
            return Err(Failure::user("this export gives no vector of a text"));
        }
        self.in_batches(rows.len(), |places| {
            let own: Vec<Vec<u32>> = places.iter().map(|place| rows[*place].clone()).collect();
            let longest = own.iter().map(Vec::len).max().unwrap_or(0);
            let count = self.sequence.unwrap_or(longest);
            if longest > count {
                let what = format!("the file reads texts of {count} tokens, and one has {longest}");
                return Err(Failure::user(what).help("export it with another `sequence`, or without"));
            }
            let [ids, mask] = inputs(&own, count, 0, 0);
            self.vectors(vec![(IDS, ids), (MASK, mask)])
        })
    }

    fn pictures(&self, values: &[f32], count: usize) -> Result<Vec<f32>, Failure> {
        let preprocessing = self.preprocessing.ok_or_else(|| Failure::user("this export sees no pictures"))?;
        let side = preprocessing.size;
        let size = side * side * 3;
        self.in_batches(count, |places| {
            let own: Vec<f32> = places.iter().flat_map(|place| &values[place * size..][..size]).copied().collect();
            let laid = self.layout.laid(&own, places.len(), side * side);
            let values = match self.pixels {
                Pixels::Prepared => Values::Floats(laid),
                Pixels::Uint8 => Values::Bytes(laid.into_iter().map(|value| value.round() as u8).collect()),
            };
            self.vectors(vec![(PIXELS, Value::Given(self.layout.shape(places.len(), [side; 2]).into(), values))])
        })
    }
}

/// Ids, and the mask of them, of what was read before, and of masked positions before that.
fn inputs(rows: &[Vec<u32>], count: usize, masked: usize, before: usize) -> [Value; 2] {
    let all = masked + before + count;
    let (mut ids, mut mask) = (vec![0; rows.len() * count], vec![0; rows.len() * all]);
    for (row, text) in rows.iter().enumerate() {
        for (at, id) in text.iter().enumerate() {
            ids[row * count + at] = *id as i32;
        }
        mask[row * all + masked..][..before + text.len()].fill(1);
    }
    let ids = Value::Given(vec![rows.len(), count], Values::Integers(ids));
    [ids, Value::Given(vec![rows.len(), all], Values::Integers(mask))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_export_says_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Facts::read(dir.path()).unwrap(), None);
        let format = Format::Onnx { opset: 21 };
        let facts = Facts::new(format, Precision::Int8, Part::Picture, Some(Pixels::Uint8), Some("environments/x"));
        facts.save(dir.path()).unwrap();
        assert_eq!(Facts::read(dir.path()).unwrap(), Some(facts.clone()));
        assert_eq!((facts.part().unwrap(), &facts.precision[..]), (Part::Picture, "int8"));
        assert!(facts.check_measured().is_ok() && facts.clone().with_labels(0) == facts);
        let error = facts.with_labels(3).check_measured().unwrap_err();
        assert_eq!(error.message, "this export gives probabilities of 3 labels, and no vectors");
    }

    #[test]
    fn texts_are_filled_up_and_what_was_read_before_is_seen() {
        let [ids, mask] = inputs(&[vec![5, 6], vec![7]], 3, 0, 1);
        let values = |value| match value {
            Value::Given(shape, Values::Integers(values)) => (shape, values),
            _ => unreachable!("integers"),
        };
        assert_eq!(values(ids), (vec![2, 3], vec![5, 6, 0, 7, 0, 0]));
        assert_eq!(values(mask), (vec![2, 4], vec![1, 1, 1, 0, 1, 1, 0, 0]));
        let [_, mask] = inputs(&[vec![5, 6]], 2, 1, 1);
        assert_eq!(values(mask), (vec![1, 4], vec![0, 1, 1, 1]));
    }
}
