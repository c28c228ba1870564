//! What is done to a model's weights before they are written: codes by what matrices read, scales that move between them, bits
//! by budget.

use std::collections::{BTreeMap, BTreeSet};

use super::{Calibrate, Fields, check_finite};
use crate::backend::affine::{self, Affine, Form};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::{Backend, Precision, Tensor, awq, gptq, on_backend, smooth};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::kind::ActionCx;
use crate::model::{Checkpoint, Config, Model, bert, llama};
use crate::quantize::budget::{self, Width};
use crate::quantize::calibrate::{self, Grams};
use crate::quantize::{fold, sensitivity};
use crate::train::language::Language;
use crate::train::text::Example;

/// A model's weights, and what is known already of their codes.
#[derive(Default)]
pub(super) struct Made {
    /// All weights, in floats.
    pub(super) arrays: Arrays,
    /// By module, codes that are chosen.
    pub(super) codes: BTreeMap<String, Affine>,
    /// By module, the bits of those that differ.
    pub(super) bits: BTreeMap<String, usize>,
}

/// Of a model and calibration rows: by the method that the fields name.
pub(super) struct Calibrated<'a> {
    pub(super) fields: &'a Fields,
    pub(super) calibrate: &'a Calibrate,
    pub(super) form: Form,
    /// Of modules that have their own.
    pub(super) bits: BTreeMap<String, usize>,
    pub(super) stays: &'a dyn Fn(&str) -> bool,
}

impl Calibrated<'_> {
    /// Carries it out on a backend.
    pub(super) fn run(&self, cx: &mut ActionCx<'_>, backend: Backend, checkpoint: Checkpoint) -> Result<Made, Failure> {
        on_backend!(backend, run_on(self, cx, checkpoint))
    }

    /// The form of a module.
    fn form_of(&self, module: &str) -> Form {
        Form { bits: self.bits.get(module).copied().unwrap_or(self.form.bits), ..self.form }
    }

    /// Whether a matrix is to be packed, by its name and shape.
    fn is_packed(&self, name: &str, array: &Array) -> bool {
        let module = name.strip_suffix(".weight").unwrap_or_default();
        let whole = matches!(array.shape[..], [_, inner] if inner % self.form.group == 0);
        !module.is_empty() && whole && !(self.stays)(module)
    }
}

fn run_on<T: Tensor>(
    this: &Calibrated<'_>,
    cx: &mut ActionCx<'_>,
    mut checkpoint: Checkpoint,
) -> Result<Made, Failure> {
    for (name, array) in checkpoint.arrays.iter().filter(|(_, array)| array.shape.len() == 2) {
        check_finite(name, array)?;
    }
    if let Config::Bert(config) = checkpoint.config.clone() {
        return encoder::<T>(this, cx, checkpoint, &config);
    }
    let (base, model) = (cx.input(&this.fields.from.model).to_owned(), &this.fields.from.model);
    if this.fields.method.name == "mixed" {
        let mut language = Language::<T>::of(&checkpoint, &base, model)?;
        let examples = examples(cx, &language, this.calibrate)?;
        return by_budget(this, cx, &mut language, &examples, checkpoint.arrays);
    }
    let widest = widest(this, &checkpoint.arrays);
    let mut language = Language::<T>::take(&mut checkpoint, &base, model, Precision::F32)?;
    let examples = examples(cx, &language, this.calibrate)?;
    warn_of_few(cx, widest, examples.iter().map(|example| example.ids.len()).sum());
    let texts: Vec<Vec<u32>> = examples.into_iter().map(|example| example.ids).collect();
    let mut made = Made { bits: this.bits.clone(), ..Made::default() };
    let layers = language.config.num_hidden_layers as u64;
    let config = language.config.clone();
    calibrate::by_layers(&mut language.model.weights, &config, &texts, &mut |layer, mut grams, mut own| {
        let changed = match this.fields.method.name.as_str() {
            "gptq" => by_inputs(this, &own, &grams, &mut made.codes)?,
            "awq" => by_activations(this, &config, layer, &mut own, &mut grams, &mut made.codes),
            _ => smoothed(this, &config, layer, &mut own, &mut grams),
        };
        made.arrays.append(&mut own);
        cx.progress("calibrate", layer as u64 + 1, layers, "layers");
        Ok(changed)
    })?;
    made.arrays.append(&mut language.model.weights.floats("")?);
    Ok(made)
}

/// The most inputs that a matrix to be packed reads.
fn widest(this: &Calibrated<'_>, arrays: &Arrays) -> usize {
    arrays.iter().filter(|(name, a)| this.is_packed(name, a)).map(|(_, a)| a.shape[1]).max().unwrap_or(0)
}

/// Says where the rows cannot tell all of what a matrix reads.
fn warn_of_few(cx: &mut ActionCx<'_>, widest: usize, tokens: usize) {
    if tokens < widest {
        cx.warning(
            format!("the calibration rows have {tokens} tokens, and matrices read up to {widest} inputs"),
            Some("more `rows` tell more of them".into()),
        );
    }
}

/// GPTQ of a sentence encoder, by the captions of the rows.
fn encoder<T: Tensor>(
    this: &Calibrated<'_>,
    cx: &mut ActionCx<'_>,
    mut checkpoint: Checkpoint,
    config: &bert::Config,
) -> Result<Made, Failure> {
    let (method, model) = (this.fields.method.name.as_str(), &this.fields.from.model);
    if method != "gptq" {
        // Norms come after what is added up, so nothing can be moved from them into the matrices that read it.
        let what = format!("the method `{method}` is of language models, and `{model}` is a sentence encoder");
        return Err(Failure::user(what).help("name the method `gptq`, `rtn` or `int8`"));
    }
    let Calibrate { data, split, rows: asked, max_length } = this.calibrate;
    let rows = Dataset::open(cx.input(data))?.rows(split)?;
    let mut seen = BTreeSet::new();
    let captions = rows.iter().map(|row| row.caption.as_str()).filter(|caption| seen.insert(*caption));
    let captions: Vec<&str> = captions.take(*asked).collect();
    if captions.len() < *asked {
        return Err(too_few(data, split, "different captions", captions.len(), *asked));
    }
    let widest = widest(this, &checkpoint.arrays);
    let mut model = Model::<T>::take(&mut checkpoint, Precision::F32)?;
    let mut texts = model.tokenize(&captions)?;
    texts.iter_mut().for_each(|text| text.truncate(*max_length));
    let tokens: usize = texts.iter().map(Vec::len).sum();
    cx.metric("calibration-tokens", tokens as f64);
    warn_of_few(cx, widest, tokens);
    let mut made = Made { bits: this.bits.clone(), ..Made::default() };
    let layers = config.num_hidden_layers as u64;
    calibrate::by_passes(&mut model.weights, config, &texts, &mut |layer, grams, mut own| {
        let changed = by_inputs(this, &own, &grams, &mut made.codes)?;
        made.arrays.append(&mut own);
        cx.progress("calibrate", layer as u64 + 1, layers, "layers");
        Ok(changed)
    })?;
    let mut rest = model.weights.floats("")?;
    rest.retain(|name, _| !made.arrays.contains_key(name));
    made.arrays.append(&mut rest);
    Ok(made)
}

/// The rows that the method reads.
fn examples<T: Tensor>(
    cx: &mut ActionCx<'_>,
    language: &Language<T>,
    calibrate: &Calibrate,
) -> Result<Vec<Example>, Failure> {
    let data = Dataset::open(cx.input(&calibrate.data))?;
    let mut read = language.examples(&data, &calibrate.split, calibrate.max_length)?;
    if read.examples.len() < calibrate.rows {
        return Err(too_few(&calibrate.data, &calibrate.split, "records", read.examples.len(), calibrate.rows));
    }
    read.examples.truncate(calibrate.rows);
    let tokens: usize = read.examples.iter().map(|example| example.ids.len()).sum();
    cx.metric("calibration-tokens", tokens as f64);
    Ok(read.examples)
}

fn too_few(data: &str, split: &str, what: &str, there: usize, asked: usize) -> Failure {
    Failure::user(format!("`{data}` has {there} {what} in its split `{split}`, and {asked} are to be read")).help(
        format!(
            "write rows={there} or fewer, or name a larger dataset: the fewer, the less is known of what matrices read"
        ),
    )
}

/// GPTQ: a layer's matrices, rounded by what they read; what the layer goes on with.
fn by_inputs(
    this: &Calibrated<'_>,
    own: &Arrays,
    grams: &Grams,
    codes: &mut BTreeMap<String, Affine>,
) -> Result<Vec<(String, Array)>, Failure> {
    let mut changed = Vec::new();
    for (name, array) in own.iter().filter(|(name, array)| this.is_packed(name, array)) {
        let module = name.strip_suffix(".weight").expect("a weight");
        let (Some(gram), form) = (grams.get(&calibrate::reader(module)), this.form_of(module)) else { continue };
        let affine = gptq::round(array.floats(), gram, &form).ok_or_else(|| {
            Failure::target(format!("what `{module}` reads on the calibration rows says nothing of it"))
                .help("calibrate with other records, or leave it as it is by `keep`")
        })?;
        changed.push((name.clone(), expanded(&affine, array, &form)));
        codes.insert(module.to_owned(), affine);
    }
    Ok(changed)
}

fn expanded(affine: &Affine, array: &Array, form: &Form) -> Array {
    Array::f32(&array.shape, affine.expand(array.shape[1], form.bits, form.group))
}

/// AWQ: scales for all inputs of a layer, then each group's range; `own` becomes the weights with the scales in them.
fn by_activations(
    this: &Calibrated<'_>,
    config: &llama::Config,
    layer: usize,
    own: &mut Arrays,
    grams: &mut Grams,
    codes: &mut BTreeMap<String, Affine>,
) -> Vec<(String, Array)> {
    for fold in llama::folds(config, layer) {
        let names: Vec<String> = fold.readers.iter().map(|module| format!("{module}.weight")).collect();
        let readers: Vec<&[f32]> =
            names.iter().filter(|name| this.is_packed(name, &own[*name])).map(|name| own[name].floats()).collect();
        let Some(gram) = grams.get(&calibrate::reader(&fold.readers[0])).filter(|_| !readers.is_empty()) else {
            continue;
        };
        let outputs = own[&format!("{}.weight", fold.before)].shape[0];
        let scales = awq::scales(&readers, gram, &fold.outputs, outputs, &this.form_of(&fold.readers[0]));
        fold::apply(own, grams, &fold, &scales);
    }
    let mut changed: Vec<(String, Array)> = Vec::new();
    for (name, array) in own.iter() {
        if !this.is_packed(name, array) {
            changed.push((name.clone(), array.clone()));
            continue;
        }
        let module = name.strip_suffix(".weight").expect("a weight");
        let (form, mut values) = (this.form_of(module), array.floats().to_vec());
        // As in the paper's own code: what queries and keys are off by goes through a softmax, and is left alone.
        let is_cut = !module.ends_with("q_proj") && !module.ends_with("k_proj");
        if let Some(gram) = grams.get(&calibrate::reader(module)).filter(|_| is_cut) {
            awq::clip(&mut values, gram, &form);
        }
        let (affine, _) = affine::round(&values, array.shape[1], &form);
        changed.push((name.clone(), expanded(&affine, array, &form)));
        codes.insert(module.to_owned(), affine);
    }
    changed
}

/// SmoothQuant: what the norms give is divided, and the weights that read it multiplied. The layer goes on as it was.
fn smoothed(
    this: &Calibrated<'_>,
    config: &llama::Config,
    layer: usize,
    own: &mut Arrays,
    grams: &mut Grams,
) -> Vec<(String, Array)> {
    for fold in llama::folds(config, layer).into_iter().filter(|fold| fold.of_norm) {
        let names: Vec<String> = fold.readers.iter().map(|module| format!("{module}.weight")).collect();
        let readers: Vec<&[f32]> = names.iter().map(|name| own[name].floats()).collect();
        let Some(gram) = grams.get(&calibrate::reader(&fold.readers[0])) else { continue };
        let scales = smooth::scales(&readers, &gram.largest, this.fields.method.strength.unwrap_or(0.5) as f32);
        fold::apply(own, grams, &fold, &scales);
    }
    Vec::new()
}

/// Bits a matrix is measured with.
const PROBE: usize = 3;

/// Bits by matrix, so that the file is within its budget and the divergence as small as the measured shares say.
fn by_budget<T: Tensor>(
    this: &Calibrated<'_>,
    cx: &mut ActionCx<'_>,
    language: &mut Language<T>,
    examples: &[Example],
    arrays: Arrays,
) -> Result<Made, Failure> {
    let packed: Vec<(&String, &Array)> = arrays.iter().filter(|(name, array)| this.is_packed(name, array)).collect();
    let module = |name: &String| name.strip_suffix(".weight").unwrap_or_default().to_owned();
    let modules: Vec<String> = packed.iter().map(|(name, _)| module(name)).collect();
    let round = |array: &Array, bits: usize| affine::round(array.floats(), array.shape[1], &Form { bits, ..this.form });
    let probe = |module: &str| {
        let array = &arrays[&format!("{module}.weight")];
        let form = Form { bits: PROBE, ..this.form };
        expanded(&round(array, PROBE).0, array, &form)
    };
    let config = language.config.clone();
    let total = modules.len() as u64;
    let costs =
        sensitivity::by_module(&mut language.model.weights, &config, examples, &modules, &probe, &mut |done| {
            cx.progress("sensitivity", done as u64, total, "matrices");
        })?;
    // Scales and biases.
    let each = if this.form.float == affine::Float::F32 { 8 } else { 4 };
    let mut choices = Vec::new();
    for (name, array) in &packed {
        let count = array.floats().len();
        let cost = costs.get(&module(name)).copied().unwrap_or(0.0);
        let (_, measured) = round(array, PROBE);
        cx.metric(&format!("sensitivity.{}", module(name)), cost);
        choices.push(
            affine::BITS
                .iter()
                .map(|bits| Width {
                    bits: *bits,
                    bytes: (count * bits / 8 + count / this.form.group * each) as u64,
                    // Of a small disturbance, the divergence grows with the square.
                    cost: cost * round(array, *bits).1 / measured.max(f64::MIN_POSITIVE),
                })
                .collect::<Vec<_>>(),
        );
    }
    let size = this.fields.size()?;
    let whole: u64 = arrays
        .iter()
        .filter(|(name, array)| !this.is_packed(name, array))
        .map(|(_, array)| (array.floats().len() * each / 2) as u64)
        .sum();
    // Names and shapes at the file's beginning: about so many a tensor.
    let names = arrays.keys().map(|name| 3 * (name.len() as u64 + 90)).sum::<u64>();
    let chosen = budget::allocate(&choices, size.saturating_sub(whole + names)).ok_or_else(|| {
        let least: u64 = choices.iter().map(|widths| widths[0].bytes).sum::<u64>() + whole + names;
        Failure::user(format!(
            "the model takes {:.1} MB at the least, in {} bits, and {:.1} MB are the budget",
            least as f64 / 1e6,
            affine::BITS[0],
            size as f64 / 1e6
        ))
        .help("raise `size`, or `keep` fewer matrices")
    })?;
    let mut bits = BTreeMap::new();
    for ((module, choice), widths) in modules.iter().zip(&chosen).zip(&choices) {
        cx.metric(&format!("bits.{module}"), widths[*choice].bits as f64);
        bits.insert(module.clone(), widths[*choice].bits);
    }
    let foreseen: f64 = chosen.iter().zip(&choices).map(|(choice, widths)| widths[*choice].cost).sum();
    cx.metric("kl-foreseen", foreseen);
    Ok(Made { arrays, bits, ..Made::default() })
}
