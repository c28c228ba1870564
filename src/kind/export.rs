//! `export`: a model as a file that other programs run, held against the model. `export/check.rs` holds it, `export/card.rs` has what it
//! says of itself, `export/labels.rs` what it may give in place of vectors.

mod card;
mod check;
mod labels;

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use card::{card, metadata, signature};
use check::{Checked, ROUNDS, report};
use labels::Labels;

use super::features::decode_all;
use super::{ActionCx, How, Kind, Needs, Pool, Run};
use crate::backend::arrays::Values;
use crate::export::coreml::Target;
use crate::export::format::{self, Format, Options, Precision, WEIGHT_THRESHOLD};
use crate::export::graph::Graph;
use crate::export::labels::{FILE as LABELS, configure, lines};
use crate::export::onnx::{NEWEST, OLDEST};
use crate::export::opened::Facts;
use crate::export::source::{BATCH, Given, PAST, Part, Pixels, SEQUENCE, Source, Tensors};
use crate::export::weights::{self, Reopened};
use crate::export::written::{Program, Written};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::format::image::{self, Colours, Preprocessing};
use crate::model::{Checkpoint, Config, copy_companions};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Export;

static SCHEMA: Schema = Schema::new("export", "A model as a file that other programs run, held against the model.").children(&[
    Schema::new("from", "The model.").arg("model", Type::NamedLabel).required().props(&[Prop::new(
        "adapter",
        Type::NamedLabel,
        "an adapter, merged before",
    )]),
    Schema::new("part", "Of a picture-text model: what reads texts, or what sees pictures.")
        .arg("name", Type::Choice(&["text", "picture"])),
    Schema::new("format", "The format of the file.").arg("name", Type::Choice(Format::NAMES)).required().flat().props(&[
        Prop::new("precision", Type::Choice(Precision::NAMES), "of its weights and of what it computes; `f16-weights`: 16 bits that are computed with in 32; `int8`: matrices in bytes, and what they multiply rounded as it comes; `int8-calibrated`, of `tflite` and `onnx`: what is computed is in bytes, by what was seen of each value on the pictures of `calibrate`; `int8-weights`: bytes that are made floats before they are used, 32 to a scale where the format can; of `coreml` also `palette6-weights` and `palette4-weights`: numbers of 64 or 16 values of each tensor; `sparse-weights`: what is not zero; `int4-weights`: 4 bits, 32 to a scale; `stored`: quantized matrices as the model has them")
            .default(Default::Text("f32")),
        Prop::new(
            "weight-threshold",
            Type::Int(0, i64::MAX),
            "tensors of no more weights stay as they are where others are kept in 8 bits or fewer; 2048 where it is not said",
        ),
        Prop::new(
            "opset",
            Type::Int(OLDEST as i64, NEWEST as i64),
            "of `onnx`, the version of its operators, 21 where it is not said; what an older one lacks is expanded",
        ),
        Prop::new(
            "target",
            Type::Choice(Target::NAMES),
            "of `coreml`, what it runs on at least; the least that has the precision where it is not said",
        ),
        Prop::new(
            "state",
            Type::Int(1, i64::MAX),
            "of `coreml` and a language model, which keeps keys and values itself then, of one text of so many tokens; iOS 18 and macOS 15 have that. They go in and come out where it is not said",
        ),
    ]),
    Schema::new("pixels", "As what a file that sees pictures is given them: `prepared`, floats as the model's configuration says; `uint8`, red, green and blue in 8 bits, which the file itself makes what the model sees. Their side is the model's where nothing is said")
        .arg("as", Type::Choice(Pixels::NAMES))
        .props(&[
            Prop::new("height", Type::Int(1, PIXELS_MAX), "of `uint8`, of the pictures that the file is given, and brings to the model's side itself"),
            Prop::new("width", Type::Int(1, PIXELS_MAX), "likewise"),
        ]),
    Schema::new("labels", "What the file gives probabilities of, in place of a picture's vector: of a picture-text model's picture part, two labels or more, each told by what the text part makes of its prompts.")
        .many_args("names", Type::Text)
        .children(&[Schema::new("prompt", "A text with {} for the label, in lower case; several are averaged.")
            .arg("template", Type::Text)
            .some()]),
    Schema::new("shape", "Of what the file is given, one number only; any number where nothing is said.").props(&[
        Prop::new("batch", Type::Int(1, i64::MAX), "of texts or pictures"),
        Prop::new("sequence", Type::Int(1, i64::MAX), "of tokens in a text"),
        Prop::new("past", Type::Int(0, i64::MAX), "of tokens that a language model has read before"),
    ]),
    Schema::new("calibrate", "The dataset whose pictures say what the bytes of `int8-calibrated` stand for; by those that come after them the file is held against the model.")
        .arg("data", Type::Label)
        .props(&[
            Prop::new("split", Type::Text, "the split").default(Default::Text("train")),
            Prop::new("rows", Type::Int(1, 1 << 20), "its first records, as many").default(Default::Int(128)),
        ]),
    Schema::new("environment", "The `environment` whose package runs the file, `onnxruntime` an `onnx` one and `ai-edge-litert` a `tflite` one: besides what is part of effai in the check, and for all that measures the export.")
        .arg("target", Type::Of("environment")),
    Schema::new("about", "What the file says of the model, where the model's card says nothing or something else.").props(&[
        Prop::new("author", Type::Text, "who made it"),
        Prop::new("version", Type::Text, "which version it is"),
        Prop::new("license", Type::Text, "under which licence it is"),
        Prop::new("description", Type::Text, "what it is; the first paragraph of the card where it is not said"),
    ]),
    Schema::new("text", "A text that is part of the check, besides those that are drawn.").arg("text", Type::Text).many(),
    Schema::new("verify", "Whether the file is run and held against the model.").optional_arg("yes", Type::Bool).props(&[
        Prop::new(
            "tolerance",
            Type::FloatAbove(0.0, 1.0),
            "what it may differ by, as a share of the largest value; 1e-4 where it is not said, 2e-3 of 16 bits and of a `state`, 0.05 of weights in bytes, 0.3 in 6 bits, 0.2 of `int8-calibrated`, 0.5 in 4 and of `int8`; of `labels` half as many times as much as cosines are multiplied by",
        ),
        Prop::new("cosine", Type::Float(-1.0, 1.0), "what the cosine of a row is at least; 0.99999 where it is not said, 0.997 of weights in bytes, 0.99 of `int8-calibrated`, 0.97 of `int8`, 0.95 in 6 bits, 0.9 in 4; of `labels` less, 0.5 at least"),
        Prop::new("rounds", Type::Int(1, 1000), "inputs that are drawn, of several sizes").default(Default::Int(6)),
        Prop::new("seed", Type::Int(0, i64::MAX), "another seed, other inputs").default(Default::Int(0)),
    ]),
]);

/// Height and width of a picture that a file brings to another size, by a matrix for each: of more it would be slow.
const PIXELS_MAX: i64 = 4096;

/// The opset where none is asked for: that of onnxruntime 1.20 and later.
const OPSET: u32 = 21;

#[derive(Deserialize)]
struct Fields {
    from: From,
    part: Option<String>,
    pixels: Option<Seen>,
    labels: Option<Labels>,
    format: Form,
    shape: Option<Shape>,
    calibrate: Option<Calibrate>,
    environment: Option<String>,
    about: Option<About>,
    text: Vec<String>,
    verify: Option<Verify>,
}

#[derive(Deserialize)]
struct From {
    model: String,
    adapter: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Form {
    name: String,
    precision: String,
    weight_threshold: Option<usize>,
    opset: Option<u32>,
    target: Option<String>,
    state: Option<usize>,
}

impl Form {
    fn precision(&self) -> Precision {
        Precision::by_name(&self.precision).expect("one of the names")
    }

    fn format(&self) -> Format {
        match &self.name[..] {
            "gguf" => Format::Gguf,
            "mlx" => Format::Mlx,
            "safetensors" => Format::Safetensors,
            "onnx" => Format::Onnx { opset: self.opset.unwrap_or(OPSET) },
            "coreml" => {
                let asked = self.target.as_ref().map(|name| Target::by_name(name).expect("one of the names"));
                let of_state = self.state.map_or(Target::IOS15, |_| Target::IOS18);
                let least = Target::least(self.precision()).unwrap_or(Target::IOS15).max(of_state);
                Format::CoreMl { target: asked.unwrap_or(least) }
            }
            "tflite" => Format::TfLite,
            name => unreachable!("`{name}` is no format"),
        }
    }

    /// What is said that this format has not.
    fn check(&self, problems: &mut Problems<'_>) {
        let format = self.format();
        if self.opset.is_some() && !matches!(format, Format::Onnx { .. }) {
            let what = format!("`opset` means nothing to `{}`", format.name());
            problems.at("format.opset", &what, "given here", "leave it out, or write format \"onnx\"");
        }
        if self.weight_threshold.is_some() && (format.is_of_weights() || !self.precision().is_of_few_bits()) {
            let what = format!("`weight-threshold` means nothing to `{}` in `{}`", self.name, self.precision);
            let help = "leave it out, or name a format that keeps weights in 8 bits or fewer";
            problems.at("format.weight-threshold", &what, "given here", help);
        }
        if !format.precisions().contains(&self.precision()) {
            let what = format!("`{}` is not written in `{}`", format.name(), self.precision);
            let names: Vec<_> = format.precisions().iter().map(|own| format!("`{}`", own.name())).collect();
            let help = format!("it can be one of {}", names.join(", "));
            problems.at("format.precision", &what, "not one of its precisions", &help);
        }
        if self.target.is_some() && self.name != "coreml" {
            let what = format!("`target` means nothing to `{}`", self.name);
            problems.at("format.target", &what, "given here", "leave it out, or write format \"coreml\"");
        }
        if let (Format::CoreMl { target }, Some(least)) = (format, Target::least(self.precision()))
            && target < least
        {
            let what = format!("{} have no operators for `{}`", target.title(), self.precision);
            let help = format!("{} have: leave `target` out", least.title());
            problems.at("format.target", &what, "given here", &help);
        }
        self.check_state(problems);
    }

    fn check_state(&self, problems: &mut Problems<'_>) {
        match self.format() {
            _ if self.state.is_none() => {}
            Format::CoreMl { target } if target < Target::IOS18 => {
                let what = format!("{} have no state", target.title());
                let help = format!("{} have: leave `target` out", Target::IOS18.title());
                problems.at("format.target", &what, "given here", &help);
            }
            Format::CoreMl { .. } => {}
            _ => {
                let what = format!("`state` means nothing to `{}`", self.name);
                problems.at("format.state", &what, "given here", "leave it out, or write format \"coreml\"");
            }
        }
    }
}

#[derive(Deserialize)]
struct Shape {
    batch: Option<usize>,
    sequence: Option<usize>,
    past: Option<usize>,
}

impl Shape {
    /// What is said, by names.
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        let all = [(BATCH, self.batch), (SEQUENCE, self.sequence), (PAST, self.past)];
        all.into_iter().filter_map(|(name, number)| Some((name, number?))).collect()
    }

    fn check(&self, fields: &Fields, problems: &mut Problems<'_>) {
        if fields.format.format().is_of_weights() {
            let what = format!("`shape` means nothing to `{}`, which has weights alone", fields.format.name);
            problems.at("shape", &what, "given here", "leave it out");
        }
        if fields.format.state.is_some() {
            let what = "a file with `state` is given one text, any number of its tokens at a time";
            problems.at("shape", what, "given here", "leave it out, or leave out `state`");
        }
        if self.batch.is_some_and(|batch| batch != 1) && fields.sees_one() {
            let what = "Core ML is given one picture at a time";
            let help = match &fields.labels {
                Some(_) => "leave it out: with `labels` a file is a classifier, which sees one",
                None => "leave it out, or write pixels \"prepared\"",
            };
            problems.at("shape.batch", what, "given here", help);
        }
        if self.sequence.is_some() && !fields.text.is_empty() {
            let what = "a text has a length of its own, and `sequence` is another";
            problems.at("text", what, "given here", "leave it out, or leave out `sequence`");
        }
        // Only a language model has both, and the sum of them is a length of its own.
        if self.past.is_some() && self.sequence.is_none() {
            let what = "`past` without `sequence` says nothing of how many tokens there are";
            problems.at("shape.past", what, "given here", "write `sequence` too, or leave `past` out");
        }
    }
}

/// As what pictures are given.
#[derive(Deserialize)]
struct Seen {
    r#as: String,
    height: Option<usize>,
    width: Option<usize>,
}

impl Seen {
    fn pixels(&self) -> Pixels {
        Pixels::by_name(&self.r#as).expect("one of the names")
    }

    fn height_and_width(&self) -> Option<[usize; 2]> {
        Some([self.height?, self.width?])
    }

    fn check(&self, fields: &Fields, problems: &mut Problems<'_>) {
        for (own, other, field) in [(self.height, self.width, "height"), (self.width, self.height, "width")] {
            let place = format!("pixels.{field}");
            if own.is_none() {
                continue;
            }
            if self.pixels() == Pixels::Prepared {
                let what =
                    format!("`{field}` means nothing to pictures that are prepared, which have the model's side");
                problems.at(&place, &what, "given here", "leave it out, or write pixels \"uint8\"");
            } else if other.is_none() {
                let what = format!("`{field}` alone says nothing of the other edge");
                problems.at(&place, &what, "given here", "write `height` and `width`, or neither");
            }
        }
        if self.height.is_some() && self.width.is_some() && fields.calibrate.is_some() {
            let what = "`int8-calibrated` begins with pictures of the model's side";
            problems.at(
                "pixels.height",
                what,
                "given here",
                "leave out `height` and `width`, or take another precision",
            );
        }
    }
}

#[derive(Deserialize)]
struct Calibrate {
    data: String,
    split: String,
    rows: usize,
}

/// What a file says of the model, as a recipe has it.
#[derive(Default, Deserialize)]
struct About {
    author: Option<String>,
    version: Option<String>,
    license: Option<String>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Verify {
    yes: Option<bool>,
    tolerance: Option<f64>,
    cosine: Option<f64>,
    rounds: usize,
    seed: u64,
}

impl Fields {
    fn pixels(&self) -> Option<Pixels> {
        self.pixels.as_ref().map(Seen::pixels)
    }

    /// What it gives probabilities of; none where it gives something else.
    fn labels(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], |own| &own.names)
    }

    /// Whether a picture is one of its own, and not an entry of a tensor; or what it is can be said of one alone.
    fn sees_one(&self) -> bool {
        let is_alone = self.pixels() == Some(Pixels::Uint8) || self.labels.is_some();
        is_alone && matches!(self.format.format(), Format::CoreMl { .. })
    }

    /// What has one number only.
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        if self.sees_one() {
            return vec![(BATCH, 1)];
        }
        self.shape.as_ref().map_or(Vec::new(), Shape::sizes)
    }

    /// Inputs that the file is held against the model by.
    fn rounds(&self) -> usize {
        self.verify.as_ref().map_or(ROUNDS, |asked| asked.rounds)
    }

    fn is_verified(&self) -> bool {
        !matches!(self.verify, Some(Verify { yes: Some(false), .. }))
    }
}

impl Kind for Export {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: bytes of weights are made floats without `DequantizeLinear`. 3: author, version and description are in the
    /// metadata, which TensorFlow Lite has in its own form too; weights' digests are; `metrics.json`. 5: few weights stay as they
    /// are, bytes have a scale for 32, scales by numbers are one. 6: `export.json`. 7: pictures of another size, labels.
    fn version(&self) -> u32 {
        7
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        fields.format.check(problems);
        if fields.part.is_some() && fields.format.format().is_of_weights() {
            let what = format!("a `{}` file has all parts of a model", fields.format.name);
            problems.at("part", &what, "given here", "leave it out");
        }
        if fields.pixels.is_some() && fields.format.format().is_of_weights() {
            let what = format!("`pixels` means nothing to `{}`, which has weights alone", fields.format.name);
            problems.at("pixels", &what, "given here", "leave it out");
        }
        match (fields.format.precision() == Precision::Int8Calibrated, &fields.calibrate) {
            (true, None) => {
                let what = "the precision `int8-calibrated` needs `calibrate`";
                problems.at("format.precision", what, "this precision", "add calibrate \"data/...\"");
            }
            (false, Some(_)) => {
                let what = format!("`calibrate` means nothing to the precision `{}`", fields.format.precision);
                let help = "leave it out, or write precision=\"int8-calibrated\"";
                problems.at("calibrate", &what, "given here", help);
            }
            _ => {}
        }
        if fields.environment.is_some() && fields.format.format().package().is_none() {
            let what =
                format!("`environment` means nothing to `{}`, which effai runs by no package", fields.format.name);
            let help = "leave it out, or write format \"onnx\" or \"tflite\"";
            problems.at("environment", &what, "given here", help);
        }
        if fields.about.is_some() && fields.format.format().is_of_weights() {
            let what = format!("`about` means nothing to `{}`, which has weights alone", fields.format.name);
            problems.at("about", &what, "given here", "leave it out");
        }
        if let Some(labels) = &fields.labels {
            labels.check(&fields, problems);
        }
        if let Some(shape) = &fields.shape {
            shape.check(&fields, problems);
        }
        if let Some(pixels) = &fields.pixels {
            pixels.check(&fields, problems);
        }
        let Some(Verify { yes: Some(false), tolerance, .. }) = fields.verify else { return };
        // Where a profile turns the check off, what the recipe allows elsewhere waits.
        let is_beside = decl.span("verify.tolerance").start > decl.span("verify.yes").start;
        if tolerance.is_some() && is_beside {
            let what = "`tolerance` means nothing where the file is not held against the model";
            problems.at("verify.tolerance", what, "given here", "leave it out, or write `verify` without `#false`");
        }
        if !fields.text.is_empty() {
            let what = "`text` means nothing where the file is not held against the model";
            problems.at("text", what, "given here", "leave it out, or write `verify` without `#false`");
        }
    }

    fn alongside(&self, decl: &Decl) -> Vec<String> {
        decl.read::<Fields>().environment.into_iter().collect()
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Export {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let base = cx.input(&fields.from.model).to_owned();
        let (format, precision) = (fields.format.format(), fields.format.precision());
        let open = if precision == Precision::Stored { Checkpoint::open_as_stored } else { Checkpoint::open };
        let mut checkpoint = match &fields.from.adapter {
            Some(adapter) => open(cx.input(adapter), Some(&base))?,
            None => open(&base, None)?,
        };
        let has_codes = checkpoint.arrays.values().any(|array| matches!(array.values, Values::Codes(_)));
        if precision == Precision::Stored && !has_codes {
            return Err(Failure::user(format!("no matrix of `{}` is stored quantized", fields.from.model))
                .help("name a `quantized` target of it, or take another precision"));
        }
        if format.is_of_weights() {
            return weights_alone(cx, &fields, &base, checkpoint);
        }
        let part = part_of(&fields, &checkpoint.config)?;
        cx.progress("trace", 0, 3, "steps");
        let mut source = Source::new(&mut checkpoint, part, format.layout())?.with_least_past(format.least_past());
        let given = fields.pixels.as_ref().and_then(Seen::height_and_width);
        if let Some(pixels) = fields.pixels() {
            source = source.with_pixels(pixels)?;
        }
        if let Some(given) = given {
            source = source.with_height_and_width(given)?;
        }
        if let Some(context) = fields.format.state {
            source = source.with_state(context)?;
        }
        if let Some(Labels { names, prompt }) = &fields.labels {
            source = source.with_labels(names, prompt)?;
        }
        let mut source = source.fixed(&fields.sizes())?;
        let graph = source.graph()?;
        cx.log(format!(
            "{} operations: {}",
            graph.values.len(),
            graph.operations().into_iter().collect::<Vec<_>>().join(", ")
        ));
        cx.progress("write", 1, 3, "steps");
        let metadata = metadata(cx, &fields, part, &base, &checkpoint)?;
        let mut options = Options {
            format,
            precision,
            metadata,
            longest: source.reads().0,
            weight_threshold: fields.format.weight_threshold.unwrap_or(WEIGHT_THRESHOLD),
            ranges: format::Ranges::new(),
        };
        let mut instead_of_drawn = None;
        if let Some(calibrate) = &fields.calibrate {
            let (seen, held_out) = pictures(cx, calibrate, &source, fields.rounds())?;
            let given: Vec<Vec<Tensors>> = seen.iter().map(|given| vec![source.seen(given)]).collect();
            options.ranges = format::ranges(&graph, &options, &given)?;
            instead_of_drawn = Some(held_out);
        }
        let written = format::write(&graph, &options)?;
        save(cx, &written, &base, fields.labels())?;
        Facts::new(format, precision, part, fields.pixels(), fields.environment.as_deref())
            .given(given.filter(|_| source.has_passes()))
            .with_labels(fields.labels().len())
            .save(cx.out())?;
        cx.progress("verify", 2, 3, "steps");
        let signature = signature(format, part, &source);
        let mut held = None;
        if fields.is_verified() {
            let twin = format::twin(&graph, &options)?;
            let (file, instead) = twin.as_ref().map_or((&written, None), |(file, how)| (file, Some(*how)));
            let (tokenizer, pictures) = (checkpoint.tokenizer.as_ref(), instead_of_drawn.as_deref());
            let checked = Checked { source: &source, graph: &graph, tokenizer, precision, pictures };
            let programs = |is_whole: bool| format::open(file, format, is_whole);
            let mut own = checked.run(cx, &fields, (file, &programs), instead)?;
            if let Some(environment) = &fields.environment {
                let environment = cx.input(environment).to_owned();
                if source.size(PAST).is_none() {
                    source = source.with_least_past(format.least_past_in_environment());
                }
                let checked = Checked { source: &source, graph: &graph, tokenizer, precision, pictures };
                let programs = |is_whole: bool| format::open_in_environment(&written, format, is_whole, &environment);
                own = own.also(checked.run(cx, &fields, (&written, &programs), None)?);
            }
            held = Some(own);
        }
        report(cx, &held, &written)?;
        card(cx, &fields, &signature, &held, &written)
    }
}

/// A model's weights in another layout, each part of it held against the model.
fn weights_alone(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    base: &Path,
    mut checkpoint: Checkpoint,
) -> Result<(), Failure> {
    let (format, precision) = (fields.format.format(), fields.format.precision());
    cx.progress("write", 0, 2, "steps");
    let label = cx.decl.label.to_string();
    let written = weights::Model { checkpoint: &checkpoint, dir: base, name: &label }.write(format, precision)?;
    save(cx, &written, base, &[])?;
    cx.progress("verify", 1, 2, "steps");
    let mut held = None;
    if fields.is_verified() {
        let parts = Part::of(&checkpoint.config);
        let mut source = Source::new(&mut checkpoint, parts[0], format.layout())?;
        for part in parts {
            source = source.of_part(*part);
            let programs = |_is_whole: bool| -> Result<Box<dyn Program>, Failure> {
                Ok(Box::new(Reopened::new(&written, base, *part, format)?))
            };
            let graph = Graph::default();
            let checked = Checked {
                source: &source,
                graph: &graph,
                tokenizer: checkpoint.tokenizer.as_ref(),
                precision,
                pictures: None,
            };
            let own = checked.run(cx, fields, (&written, &programs), None)?;
            held = Some(match held {
                Some(before) => own.worst(before),
                None => own,
            });
        }
    }
    report(cx, &held, &written)?;
    card(cx, fields, "", &held, &written)
}

/// The pictures that a file is calibrated by, and those after them, as many as there are rounds; where there are none, the same.
fn pictures(
    cx: &mut ActionCx<'_>,
    calibrate: &Calibrate,
    source: &Source,
    rounds: usize,
) -> Result<(Vec<Given>, Vec<Given>), Failure> {
    let Some(preprocessing) = source.preprocessing().filter(|_| source.part() == Part::Picture) else {
        return Err(Failure::user("`int8-calibrated` is for what sees pictures, and this part reads texts")
            .help("write precision \"int8\", or part \"picture\""));
    };
    let mut rows = Dataset::open(cx.input(&calibrate.data))?.rows(&calibrate.split)?;
    rows.truncate(calibrate.rows + rounds);
    if rows.is_empty() {
        let what = format!("the split `{}` of `{}` has no rows", calibrate.split, calibrate.data);
        return Err(Failure::user(what).help("name a split that has pictures"));
    }
    let count = source.size(BATCH).unwrap_or(1);
    let mut all = Vec::with_capacity(rows.len());
    for (row, picture) in rows.iter().zip(decode_all(&rows)?) {
        all.push(match source.pixels() {
            Pixels::Prepared => {
                Given::Pictures(image::view(&picture, 0, &preprocessing, 0, &row.id)?.repeat(count), count)
            }
            Pixels::Uint8 => {
                let plain = Preprocessing { mean: Colours::All(0.0), std: Colours::All(1.0), ..preprocessing };
                let values = image::view(&picture, 0, &plain, 0, &row.id)?;
                Given::Bytes(values.into_iter().map(|value| value as u8).collect::<Vec<_>>().repeat(count), count)
            }
        });
    }
    let held_out = all.split_off(calibrate.rows.min(all.len()));
    let held_out = if held_out.is_empty() { all.iter().take(rounds).cloned().collect() } else { held_out };
    Ok((all, held_out))
}

/// Writes the files and what goes along: the model's own configuration and tokenizer, which who runs the file needs, and which labels
/// there are.
fn save(cx: &mut ActionCx<'_>, written: &Written, base: &Path, labels: &[String]) -> Result<(), Failure> {
    let out = cx.out().to_owned();
    written.save(&out)?;
    cx.metric("bytes", written.bytes() as f64);
    if written.file("config.json").is_none() {
        let path = base.join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_text(&path)?)
            .map_err(|e| Failure::target(format!("{}: {e}", path.display())))?;
        // What was packed is expanded.
        if let Some(config) = config.as_object_mut() {
            config.retain(|name, _| name != "quantization" && name != "quantization_config");
            if !labels.is_empty() {
                configure(config, labels);
            }
        }
        fs::write(&out.join("config.json"), serde_json::to_string_pretty(&config).expect("plain").as_bytes())?;
    }
    if !labels.is_empty() {
        fs::write(&out.join(LABELS), lines(labels).as_bytes())?;
    }
    copy_companions(base, &out)
}

/// The part that is meant: of a model that has one, that one.
fn part_of(fields: &Fields, config: &Config) -> Result<Part, Failure> {
    let (parts, model) = (Part::of(config), &fields.from.model);
    let names = || parts.iter().map(|part| format!("`{}`", part.name())).collect::<Vec<_>>().join(" and ");
    match (&fields.part, parts) {
        (None, [part]) => Ok(*part),
        (None, _) => Err(Failure::user(format!("`{model}` has the parts {}, and a file holds one", names()))
            .help("write part \"text\" or part \"picture\"; a target each for both")),
        (Some(name), parts) => parts.iter().find(|part| part.name() == name).copied().ok_or_else(|| {
            Failure::user(format!("`{model}` has no part `{name}`, only {}", names())).help("leave `part` out")
        }),
    }
}
