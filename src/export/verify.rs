//! The check of what was written: the model itself and the file, on the same inputs.
//!
//! The model is run by candle, which notes the value of every operation on the way ([`super::source`]). The file is run by
//! a program that shares no code with the writer ([`super::written::Program`]). Where they differ by more than is allowed, the file is run again with all
//! that the graph has as outputs, and the first operation that departs from what it was given is named.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::format::Precision;
use super::graph::{Graph, Id};
use super::source::{BATCH, Given, PAST, Part, Pixels, Run, SEQUENCE, Source, Tensors};
use super::written::{Array, Place, Program, Written};
use crate::backend::rng::Rng;
use crate::failure::Failure;

/// What is allowed of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowed {
    /// [`Difference::relative`] at most.
    pub relative: f64,
    /// [`Difference::cosine`] at least.
    pub cosine: f64,
}

impl Allowed {
    /// Where nothing is said.
    pub fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 | Precision::Stored | Precision::SparseWeights => Self { relative: 1e-4, cosine: 0.999_99 },
            Precision::F16 | Precision::F16Weights => Self { relative: 2e-3, cosine: 0.999_99 },
            Precision::Bf16 => Self { relative: 2e-2, cosine: 0.999 },
            Precision::Int8Weights => Self { relative: 5e-2, cosine: 0.997 },
            Precision::Palette6Weights => Self { relative: 0.3, cosine: 0.95 },
            Precision::Palette4Weights | Precision::Int4Weights => Self { relative: 0.5, cosine: 0.9 },
            // Of a tensor's inputs, what stands out takes the digits of all else.
            Precision::Int8 => Self { relative: 0.5, cosine: 0.97 },
            Precision::Int8Calibrated => Self { relative: 0.2, cosine: 0.99 },
        }
    }

    /// The same of a file that keeps keys and values in 16 bits, whatever it computes in.
    #[must_use]
    pub fn with_state(self) -> Self {
        Self { relative: self.relative.max(Self::of(Precision::F16).relative), ..self }
    }

    /// The same, and as strict of what is computed, of probabilities: a softmax of cosines times `scale` makes what they are off by larger, by some
    /// half of that.
    #[must_use]
    pub fn with_labels(self, scale: f64) -> Self {
        let larger = (scale / 2.0).ceil().max(1.0);
        // What a cosine lacks goes by the square of what values are off by. In digits that people read.
        let short = |value: f64| (value * 1e5).round() / 1e5;
        let cosine = short(1.0 - (1.0 - self.cosine) * larger * larger).max(0.5);
        Self { relative: short(self.relative * larger).min(1.0), cosine: cosine.min(self.cosine) }
    }
}

/// How far a file is from its model, over all inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Of a value at most.
    pub largest: f64,
    /// Of a value on average.
    pub mean: f64,
    /// The largest over the largest value of the model.
    pub relative: f64,
    /// Of a row at least.
    pub cosine: f64,
    /// Rows whose highest value is at the same place, as a share.
    pub top1: f64,
    values: usize,
    rows: usize,
    sum: f64,
    agree: usize,
}

impl Default for Difference {
    fn default() -> Self {
        Self { largest: 0.0, mean: 0.0, relative: 0.0, cosine: 1.0, top1: 1.0, values: 0, rows: 0, sum: 0.0, agree: 0 }
    }
}

impl Difference {
    /// Takes in rows of `width` values of the model and of the file.
    pub fn add(&mut self, own: &[f32], other: &[f32], width: usize) {
        let mut top = 0.0f64;
        let mut largest = 0.0f64;
        for (a, b) in own.iter().zip(other) {
            let far = (f64::from(*a) - f64::from(*b)).abs();
            // What is no number is as far as can be.
            let far = if far.is_nan() { f64::INFINITY } else { far };
            top = top.max(f64::from(a.abs()));
            largest = largest.max(far);
            self.sum += far;
        }
        self.largest = self.largest.max(largest);
        self.relative = self.relative.max(if largest == 0.0 { 0.0 } else { largest / top.max(f64::MIN_POSITIVE) });
        self.values += own.len();
        for (a, b) in own.chunks_exact(width.max(1)).zip(other.chunks_exact(width.max(1))) {
            self.rows += 1;
            self.agree += usize::from(highest(a) == highest(b));
            self.cosine = self.cosine.min(cosine(a, b));
        }
        self.mean = self.sum / self.values.max(1) as f64;
        self.top1 = self.agree as f64 / self.rows.max(1) as f64;
    }

    /// Of two checks, what holds for both.
    #[must_use]
    pub fn worst(&self, other: &Self) -> Self {
        let (values, rows) = (self.values + other.values, self.rows + other.rows);
        let (sum, agree) = (self.sum + other.sum, self.agree + other.agree);
        Self {
            largest: self.largest.max(other.largest),
            mean: sum / values.max(1) as f64,
            relative: self.relative.max(other.relative),
            cosine: self.cosine.min(other.cosine),
            top1: agree as f64 / rows.max(1) as f64,
            values,
            rows,
            sum,
            agree,
        }
    }

    /// The numbers by the names of their metrics.
    pub fn metrics(&self) -> [(&'static str, f64); 5] {
        [
            ("error.max", self.largest),
            ("error.mean", self.mean),
            ("error.relative", self.relative),
            ("cosine", self.cosine),
            ("top-1", self.top1),
        ]
    }

    /// The numbers as reports name them, each the better the lower, to two digits as [`Difference::json`] has them.
    pub fn told(&self) -> [(&'static str, f64); 4] {
        [
            ("largest error, of the largest value", two_digits(self.relative)),
            ("mean error", two_digits(self.mean)),
            ("1 - least cosine", two_digits((1.0 - self.cosine).max(0.0))),
            ("another first, of rows", 1.0 - self.top1),
        ]
    }

    /// To two digits: another processor's instructions differ in the third.
    pub fn json(&self) -> Json {
        // Of what is near one, what is missing has the digits.
        json!({
            "max_absolute_error": two_digits(self.largest),
            "mean_absolute_error": two_digits(self.mean),
            "max_relative_error": two_digits(self.relative),
            "cosine": 1.0 - two_digits((1.0 - self.cosine).max(0.0)),
            "top1_agreement": self.top1,
        })
    }
}

fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

fn highest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 { f64::from(u8::from(a == b)) } else { (dot(a, b) / lengths).min(1.0) }
}

/// Inputs of several sizes, drawn; of what has one number only, of that one.
pub fn drawn(source: &Source, rounds: usize, seed: u64) -> Vec<Given> {
    let mut rng = Rng::new(seed, "export");
    let (most, known) = source.reads();
    let mut all = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let rows = source.size(BATCH).unwrap_or(1 + round % 3);
        if source.has_state() {
            let len = longest(round, most.min(STATE_MOST)).max(2).min(most);
            let row: Vec<u32> = (0..len).map(|_| rng.below(known) as u32).collect();
            all.extend(steps(&row));
            continue;
        }
        all.push(match source.part() {
            Part::Picture => {
                let [height, width] = source.height_and_width();
                let count = rows * height * width * 3;
                match source.pixels() {
                    Pixels::Prepared => Given::Pictures((0..count).map(|_| rng.between(-1.0, 1.0)).collect(), rows),
                    Pixels::Uint8 => {
                        let pixels: Vec<u8> = (0..count).map(|_| rng.below(256) as u8).collect();
                        let size = if source.has_passes() { SQUARE } else { 1 };
                        Given::Bytes(squares(&pixels, [height, width], size), rows)
                    }
                }
            }
            Part::Text => {
                let longest = source.size(SEQUENCE).unwrap_or(longest(round, most.min(64)));
                let text = |rng: &mut Rng, row: usize| {
                    // The first is as long as it goes, others are padded.
                    let len = if row == 0 { longest } else { 1 + rng.below(longest) };
                    let mut ids: Vec<u32> = (0..len).map(|_| rng.below(known) as u32).collect();
                    if let Some(end) = source.ends_with() {
                        ids.iter_mut().filter(|id| **id == end).for_each(|id| *id = 0);
                        *ids.last_mut().expect("at least one token") = end;
                    }
                    ids
                };
                Given::Texts((0..rows).map(|row| text(&mut rng, row)).collect(), 0)
            }
            Part::Language => {
                // A prompt, then one token more, in turns.
                let len = longest(round / 2, most.min(32)).max(2);
                let before = if round % 2 == 0 { 0 } else { len - 1 };
                // Both have a number, or neither.
                let (before, len) = match (source.size(PAST), source.size(SEQUENCE)) {
                    (Some(past), Some(sequence)) => (past, past + sequence),
                    _ => (before, len),
                };
                let row = |rng: &mut Rng| (0..len).map(|_| rng.below(known) as u32).collect();
                Given::Texts((0..rows).map(|_| row(&mut rng)).collect(), before)
            }
        });
    }
    all
}

/// Pixels of one colour a side, of pictures that become smaller: of noise nothing would be left but grey.
const SQUARE: usize = 8;

/// Pictures in squares, each of the colour that its first pixel has.
fn squares(pixels: &[u8], [height, width]: [usize; 2], size: usize) -> Vec<u8> {
    let first = |at: usize| {
        let (pixel, colour) = (at / 3, at % 3);
        let (x, row) = (pixel % width, pixel / width);
        let y = row % height;
        ((row - y % size) * width + x - x % size) * 3 + colour
    };
    (0..pixels.len()).map(|at| pixels[first(at)]).collect()
}

/// Tokens of a text that a state is checked by, where it holds so many.
const STATE_MOST: usize = 64;

/// One text by a state that goes on: half of it is a prompt, then some tokens one at a time, then the rest.
pub fn steps(row: &[u32]) -> Vec<Given> {
    const ONE_BY_ONE: usize = 3;
    let prompt = row.len().div_ceil(2);
    let alone = (prompt + ONE_BY_ONE).min(row.len());
    let mut until: Vec<usize> = (prompt..=alone).collect();
    until.extend((alone < row.len()).then_some(row.len()));
    let before = [0].into_iter().chain(until.clone());
    before.zip(until).map(|(before, until)| Given::Texts(vec![row[..until].to_vec()], before)).collect()
}

/// What is given one after the other by one state; all by itself where there is none.
fn by_state<'a>(source: &Source, given: &'a [Given]) -> Vec<&'a [Given]> {
    let goes_on = |given: &Given| matches!(given, Given::Texts(_, before) if *before > 0);
    given.chunk_by(|_, next| source.has_state() && goes_on(next)).collect()
}

/// Tokens of the longest text of a round: few, then more.
fn longest(round: usize, most: usize) -> usize {
    [7, 16, 1, 33, 64][round % 5].min(most).max(1)
}

/// Opens what was written in what runs it; whole where every tensor that it names is kept.
pub type Programs<'a> = &'a dyn Fn(bool) -> Result<Box<dyn Program>, Failure>;

/// Holds a file against its model on all that is given; past the tolerance it fails and names the operation.
pub fn check(
    source: &Source,
    graph: &Graph,
    (written, programs): (&Written, Programs<'_>),
    given: &[Given],
    allowed: Allowed,
    told: &mut dyn FnMut(usize),
) -> Result<Difference, Failure> {
    let names = source.outputs();
    let program = programs(false)?;
    let mut all = Difference::default();
    let mut round = 0;
    for given in by_state(source, given) {
        let runs = given.iter().map(|given| source.run(given)).collect::<Result<Vec<_>, _>>()?;
        let ranks = runs[0].outputs.iter().map(|output| output.node().shape.len());
        let asked: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(ranks).collect();
        let steps: Vec<&[Tensors]> = runs.iter().map(|run| &run.inputs[..]).collect();
        for (step, found) in program.steps(&steps, &asked)?.into_iter().enumerate() {
            let own = compare(&runs[step], found, &mut all)?;
            if let Some(what) = past(&own, allowed) {
                let run = unmasked(source, &given[step], runs[step].masked)?;
                let (before, relative) = (&steps[..step], allowed.relative);
                let run = run.as_ref().unwrap_or(&runs[step]);
                let parted = if program.is_open_inside() {
                    match parting(graph, (written, programs), (before, run), relative)? {
                        Some((name, error)) => format!("{what}; they part at `{name}`, by {error:.1e}"),
                        None => {
                            format!("{what}, and no operation of the graph departs by so much from what it was given")
                        }
                    }
                } else {
                    format!("{what}; it was run by {}, which does not say where they part", program.name())
                };
                return Err(Failure::target(parted).help(
                    "a wider `tolerance` or `cosine` allows it; a file in 32 bits that departs is a fault of effai, which you may report",
                ));
            }
            round += 1;
            told(round);
        }
    }
    Ok(all)
}

/// How far what came of a run is from the model's, which is added to all.
fn compare(run: &Run, found: Vec<Array>, all: &mut Difference) -> Result<Difference, Failure> {
    let mut own = Difference::default();
    for (output, found) in run.outputs.iter().zip(found) {
        let expected = output.values().expect("it was given")?;
        // Keys and values of a cache are no answers: they count by their error alone.
        let is_answer = output.id() == run.outputs[0].id();
        let (shape, values) = if is_answer { found } else { after_masked(found, run.masked) };
        if shape != output.node().shape {
            return Err(Failure::target(format!(
                "the exported file gives a tensor {shape:?} where the model gives {:?}",
                output.node().shape
            )));
        }
        let width = shape.last().copied().unwrap_or(1);
        if is_answer {
            own.add(&expected, &values, width);
            all.add(&expected, &values, width);
        } else {
            let mut cache = Difference::default();
            cache.add(&expected, &values, width);
            own.relative = own.relative.max(cache.relative);
            all.relative = all.relative.max(cache.relative);
        }
    }
    Ok(own)
}

/// What is past what is allowed, in words.
fn past(own: &Difference, allowed: Allowed) -> Option<String> {
    let Allowed { relative, cosine } = allowed;
    if own.relative > relative {
        let far = own.relative;
        return Some(format!(
            "the exported file and its model differ by {far:.1e} of the largest value, more than {relative:e}"
        ));
    }
    (own.cosine < cosine).then(|| {
        format!("a row of the exported file has the cosine {:.6} to its model's, less than {cosine}", own.cosine)
    })
}

/// A cache [texts, heads, positions, width] without so many positions at its beginning.
fn after_masked((mut shape, values): Array, masked: usize) -> Array {
    if masked == 0 {
        return (shape, values);
    }
    let size = shape[2] * shape[3];
    let values = values.chunks_exact(size).flat_map(|head| &head[masked * shape[3]..]).copied().collect();
    shape[2] -= masked;
    (shape, values)
}

/// A run in which the model has every value that the file has, where that is another: masked positions are none that it
/// computes, so the first token of each text stands there.
fn unmasked(source: &Source, given: &Given, masked: usize) -> Result<Option<Run>, Failure> {
    match given {
        Given::Texts(rows, before) if masked > 0 && rows[0].len() > 1 => {
            source.run(&Given::Texts(rows.clone(), before + masked)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Of what a value departs by, this is noise: sums in another order.
const NOISE: f64 = 0.02;
/// An operation that makes an error so many times as large as what it was given is its source.
const GROWS: f64 = 8.0;
/// What is kept in 16 bits departs by so much where nothing is wrong.
const OF_KEPT: f64 = 1.0 / 1024.0;

/// The first operation whose result departs from the model's while what it was given does not, and by how much; in a run that
/// goes on from others, where there is a state.
pub fn parting(
    graph: &Graph,
    (written, programs): (&Written, Programs<'_>),
    (before, run): (&[&[Tensors]], &Run),
    tolerance: f64,
) -> Result<Option<(String, f64)>, Failure> {
    let program = programs(true)?;
    let is_input = |place: &&Place| run.inputs.iter().any(|input| input.name == place.tensor);
    let computed = written.places.iter().filter(|place| !is_input(place));
    // What the program has folded away has no tensor any more.
    let places: Vec<&Place> = computed.filter(|place| program.has(&place.tensor)).collect();
    let mut errors: Vec<Option<f64>> = vec![None; graph.values.len()];
    // Several values may be one tensor, seen in different ways.
    let unique: BTreeMap<&str, usize> = places.iter().map(|place| (&place.tensor[..], place.rank)).collect();
    let asked: Vec<(&str, usize)> = unique.into_iter().collect();
    let steps = [before, &[&run.inputs[..]]].concat();
    let values = program.steps(&steps, &asked)?.pop().unwrap_or_default();
    let found: BTreeMap<&str, Array> = asked.iter().map(|(tensor, _)| *tensor).zip(values).collect();
    for place in &places {
        let (shape, values) = found[&place.tensor[..]].clone();
        let Some(at) = graph.values[place.id].place else { continue };
        let expected = run.nodes[at].values().expect("it was given")?;
        let values = place.turned.iter().fold((shape, values), |(shape, values), order| turn(&shape, &values, order)).1;
        if values.len() != expected.len() {
            errors[place.id] = Some(f64::INFINITY);
            continue;
        }
        let mut difference = Difference::default();
        difference.add(&expected, &values, values.len());
        errors[place.id] = Some(difference.relative);
    }
    let floor = tolerance * NOISE;
    let before = |id: Id| -> f64 { largest_before(graph, &errors, id) };
    let least = |id: Id| if graph.is_kept(id) { floor.max(OF_KEPT) } else { floor };
    let departs =
        |id: &Id| errors[*id].is_some_and(|error| error > least(*id) && error > GROWS * before(*id).max(floor / GROWS));
    let by_error = |id: Id| (graph.values[id].name.clone(), errors[id].unwrap_or(0.0));
    let first = (0..graph.values.len()).find(|id| departs(id));
    let first = first.or_else(|| (0..graph.values.len()).find(|id| errors[*id].is_some_and(|error| error > tolerance)));
    Ok(first.map(by_error))
}

/// The largest error among what a value is computed of; past values that have no tensor, of what those are computed of.
fn largest_before(graph: &Graph, errors: &[Option<f64>], id: Id) -> f64 {
    let of = |input: &Id| errors[*input].unwrap_or_else(|| largest_before(graph, errors, *input));
    graph.values[id].inputs.iter().map(of).fold(0.0, f64::max)
}

/// Axes in another order.
fn turn(shape: &[usize], values: &[f32], order: &[usize]) -> (Vec<usize>, Vec<f32>) {
    let mut strides = vec![1; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    let to: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
    let mut at = vec![0; to.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[at.iter().zip(order).map(|(at, axis)| at * strides[*axis]).sum::<usize>()]);
        for axis in (0..to.len()).rev() {
            at[axis] += 1;
            if at[axis] < to[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
    (to, out)
}

/// What the check found, beside the file.
pub fn report(difference: &Difference, program: &str, allowed: Allowed, rounds: usize, seed: u64) -> Json {
    let mut report = difference.json();
    report["program"] = program.into();
    report["tolerance"] = allowed.relative.into();
    report["cosine_allowed"] = allowed.cosine.into();
    report["rounds"] = rounds.into();
    report["seed"] = seed.into();
    report
}

/// The name of the report.
pub const REPORT: &str = "verify.json";

/// Writes it.
pub fn save(report: &Json, dir: &Path) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report).expect("plain");
    Ok(crate::util::fs::write(&dir.join(REPORT), text.as_bytes())?)
}
