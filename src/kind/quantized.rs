//! `quantized`: a model with fewer bits, in MLX's layout or in llama.cpp's.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::affine::Affine;
use crate::backend::blocks::Blocks;
use crate::backend::gguf::{Fact, Stored, StoredValues, expand};
use crate::backend::{self, Tensor, affine, on_backend};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::format::tensors::{self, Array, Arrays};
use crate::model::{self, Checkpoint, Config, copy_companions, gguf, llama, quantized};
use crate::quantize::{calibrate, gptq};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::glob;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::train::language::Language;
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Quantized;

static SCHEMA: Schema = Schema::new("quantized", "A model whose matrices are rounded to a few bits in groups.")
    .children(&[
        Schema::new("from", "The model.").arg("model", Type::NamedLabel).required().props(&[Prop::new(
            "adapter",
            Type::NamedLabel,
            "an adapter, merged before",
        )]),
        Schema::new(
            "method",
            "`rtn`: to the nearest code, in MLX's layout. `gptq`: the same, by what the matrices read. `gguf`: blocks of llama.cpp's, in one file.",
        )
        .arg("name", Type::Choice(&["rtn", "gptq", "gguf"]))
        .required()
        .flat()
        .props(&[
            Prop::new("bits", Type::Int(2, 8), "rtn, gptq: bits a weight: 2, 3, 4, 6 or 8"),
            Prop::new(
                "group",
                Type::Int(32, 128),
                "rtn, gptq: weights that share a scale: 32, 64 or 128; 64 where it is not said",
            ),
            Prop::new("type", Type::Choice(TYPES), "gguf: the blocks' form"),
        ]),
        Schema::new("calibrate", "gptq: the dataset whose records it reads.").arg("data", Type::Label).props(&[
            Prop::new("split", Type::Text, "the split").default(Default::Text("train")),
            Prop::new("rows", Type::Int(1, 1 << 20), "its first records, as many").default(Default::Int(128)),
            Prop::new("max-length", Type::Int(2, 1 << 20), "tokens of a record at most").default(Default::Int(512)),
        ]),
        BACKEND,
        Schema::new("keep", "Globs over the names of matrices that stay as they are.").many_args("globs", Type::Text),
    ]);

#[derive(Deserialize)]
struct Fields {
    from: From,
    method: Method,
    calibrate: Option<Calibrate>,
    keep: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct From {
    model: String,
    adapter: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Calibrate {
    data: String,
    split: String,
    rows: usize,
    max_length: usize,
}

#[derive(Deserialize)]
struct Method {
    name: String,
    bits: Option<usize>,
    group: Option<usize>,
    r#type: Option<String>,
}

/// The forms of blocks that are written.
const TYPES: &[&str] = &["Q8_0", "Q6_K", "Q5_0", "Q4_K", "Q4_1", "Q4_0"];
/// Weights that share a scale where it is not said.
const GROUP: usize = 64;

impl Kind for Quantized {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: a chat template and what pictures are prepared by go along.
    /// 3: a tie goes to the even code, as in MLX.
    fn version(&self) -> u32 {
        3
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let Fields { method: Method { name, bits, group, r#type }, calibrate, .. } = decl.read();
        let is_rtn = name != "gguf";
        match (name == "gptq", &calibrate) {
            (true, None) => {
                let help = "add calibrate \"data/...\"";
                problems.at("method", "the method `gptq` needs `calibrate`", "this method", help);
            }
            (false, Some(_)) => {
                let what = format!("`calibrate` means nothing to the method `{name}`");
                problems.at("calibrate", what, "given here", "leave it out, or name the method `gptq`");
            }
            _ => {}
        }
        if name != "gptq" && decl.fields[BACKEND.name].is_string() {
            problems.at(BACKEND.name, format!("the method `{name}` runs no model"), "this", "leave it out");
        }
        for (field, given, belongs) in
            [("bits", bits.is_some(), is_rtn), ("group", group.is_some(), is_rtn), ("type", r#type.is_some(), !is_rtn)]
        {
            if given && !belongs {
                let what = format!("`{field}` means nothing to the method `{name}`");
                problems.at(&format!("method.{field}"), what, "given here", "leave it out, or name the other method");
            }
        }
        match (is_rtn, bits, &r#type) {
            (true, None, _) => {
                problems.at("method", format!("the method `{name}` needs `bits`"), "this method", "add bits=4");
            }
            (false, _, None) => {
                problems.at("method", "the method `gguf` needs `type`", "this method", "add type=\"Q4_K\"");
            }
            _ => {}
        }
        if let Some(bits) = bits.filter(|bits| !affine::BITS.contains(bits)) {
            problems.at("method.bits", format!("{bits} bits are not supported"), "these", "use 2, 3, 4, 6 or 8");
        }
        if let Some(group) = group.filter(|group| !affine::GROUPS.contains(group)) {
            let what = format!("groups of {group} are not supported");
            problems.at("method.group", what, "these", "use 32, 64 or 128");
        }
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Quantized {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let base = cx.input(&fields.from.model).to_owned();
        let checkpoint = match &fields.from.adapter {
            Some(adapter) => Checkpoint::open(cx.input(adapter), Some(&base))?,
            None => Checkpoint::open(&base, None)?,
        };
        let keep: Vec<_> = fields
            .keep
            .iter()
            .flatten()
            .map(|g| glob::compile(g).map_err(|e| Failure::user(e.to_string())))
            .collect::<Result<_, _>>()?;
        let stays = |module: &str| {
            let positions = module.contains("position_embedding") || module.contains("token_type");
            positions || keep.iter().any(|g| g.is_match(module))
        };
        match fields.method.r#type.as_deref().and_then(Blocks::by_name) {
            Some(form) => write_gguf(cx, &fields, checkpoint, &base, form, &stays),
            None => {
                let rounded = match &fields.calibrate {
                    Some(calibrate) => {
                        on_backend!(cx.backend()?, by_inputs(cx, &fields, calibrate, &checkpoint, &base, &stays))?
                    }
                    None => BTreeMap::new(),
                };
                write_mlx(cx, &fields, checkpoint, &base, &stays, rounded)
            }
        }
    }
}

/// To the nearest code, in MLX's layout.
fn write_mlx(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    checkpoint: Checkpoint,
    base: &Path,
    stays: &dyn Fn(&str) -> bool,
    mut rounded: BTreeMap<String, Affine>,
) -> Result<(), Failure> {
    let (bits, group) = (fields.method.bits.expect("checked"), fields.method.group.unwrap_or(GROUP));
    let mut arrays = Arrays::new();
    let mut weights = Weighed::default();
    let total = checkpoint.arrays.len() as u64;
    for (i, (name, array)) in checkpoint.arrays.into_iter().enumerate() {
        cx.progress("quantize", i as u64 + 1, total, "tensors");
        weights.all += array.floats().len();
        let module = name.strip_suffix(".weight").unwrap_or_default().to_owned();
        let fits = matches!(array.shape[..], [_, inner] | [_, inner, 1, 1] if inner % group == 0);
        if module.is_empty() || !fits || stays(&module) {
            arrays.insert(name, array);
            continue;
        }
        check_finite(&name, &array)?;
        let packed = match rounded.remove(&module) {
            Some(made) => quantized::packed(array.floats(), made, array.shape[0], array.shape[1], bits, group),
            None => quantized::pack(array.floats(), array.shape[0], array.shape[1], bits, group),
        };
        weights.packed += array.floats().len();
        cx.metric(&format!("error.{module}"), packed.relative_error);
        arrays.insert(format!("{module}.weight"), packed.weight);
        arrays.insert(format!("{module}.scales"), packed.scales);
        arrays.insert(format!("{module}.biases"), packed.biases);
    }
    let out = cx.out().to_owned();
    tensors::write(&out.join("model.safetensors"), &arrays, &[("format", "mlx")])?;
    let mut config: Value = serde_json::from_str(&fs::read_text(&base.join("config.json"))?)
        .map_err(|e| Failure::target(format!("config.json: {e}")))?;
    let settings = json!({"group_size": group, "bits": bits, "mode": "affine"});
    config["quantization"] = settings.clone();
    config["quantization_config"] = settings;
    fs::write(&out.join("config.json"), serde_json::to_string_pretty(&config).expect("plain").as_bytes())?;
    copy_companions(base, &out)?;
    let how = format!("rounded to {bits} bits in groups of {group}");
    weights.conclude(cx, fields, "model.safetensors", "mlx", &how)
}

/// The matrices of a language model's layers, rounded by what they read on the calibration rows; by their modules' names.
fn by_inputs<T: Tensor>(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    calibrate: &Calibrate,
    checkpoint: &Checkpoint,
    base: &Path,
    stays: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, Affine>, Failure> {
    let (bits, group) = (fields.method.bits.expect("checked"), fields.method.group.unwrap_or(GROUP));
    let mut language = Language::<T>::of(checkpoint, base, &fields.from.model)?;
    let data = Dataset::open(cx.input(&calibrate.data))?;
    let mut read = language.examples(&data, &calibrate.split, calibrate.max_length)?;
    read.examples.truncate(calibrate.rows);
    let texts: Vec<Vec<u32>> = read.examples.into_iter().map(|example| example.ids).collect();
    let tokens: usize = texts.iter().map(Vec::len).sum();
    cx.metric("calibration-tokens", tokens as f64);
    let mut made = BTreeMap::new();
    let layers = language.config.num_hidden_layers as u64;
    let config = language.config.clone();
    calibrate::by_layers(&mut language.model.weights, &config, &texts, &mut |layer, grams| {
        let mut changed = Vec::new();
        let prefix = format!("{}.", llama::layer_name(layer));
        for (name, array) in checkpoint.arrays.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
        {
            let Some(module) = name.strip_suffix(".weight").filter(|module| !stays(module)) else { continue };
            let Some(gram) = grams.get(&calibrate::reader(module)) else { continue };
            let &[rows, inner] = &array.shape[..] else { continue };
            if !inner.is_multiple_of(group) {
                continue;
            }
            check_finite(name, array)?;
            let affine = gptq::round(array.floats(), gram, bits, group).ok_or_else(|| {
                Failure::target(format!("what `{module}` reads on the calibration rows says nothing of it"))
                    .help("calibrate with other records, or leave it as it is by `keep`")
            })?;
            changed.push((name.clone(), Array::f32(&[rows, inner], affine.expand(inner, bits, group))));
            made.insert(module.to_owned(), affine);
        }
        cx.progress("calibrate", layer as u64 + 1, layers, "layers");
        Ok(changed)
    })?;
    Ok(made)
}

/// In llama.cpp's blocks, in one file.
fn write_gguf(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    checkpoint: Checkpoint,
    base: &Path,
    form: Blocks,
    stays: &dyn Fn(&str) -> bool,
) -> Result<(), Failure> {
    let Config::Llama(config) = &checkpoint.config else {
        return Err(Failure::user(format!("{} is not a language model", fields.from.model))
            .help("GGUF files are written of architecture \"llama\"; take the method `rtn` for others"));
    };
    let read = |name: &str| -> Result<Value, Failure> {
        let path = base.join(name);
        if !path.exists() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&fs::read_text(&path)?).map_err(|e| Failure::target(format!("{}: {e}", path.display())))
    };
    let mut facts = gguf::facts(config, &read("tokenizer.json")?, &read("tokenizer_config.json")?)?;
    facts.push(("general.name".into(), Fact::Text(cx.decl.label.to_string())));
    let mut weights = Weighed::default();
    let (mut stored, mut others) = (Vec::new(), BTreeMap::<&str, usize>::new());
    let total = checkpoint.arrays.len() as u64;
    for (i, (name, array)) in checkpoint.arrays.iter().enumerate() {
        cx.progress("quantize", i as u64 + 1, total, "tensors");
        let Some((theirs, array)) = gguf::outward(name, array, config) else { continue };
        weights.all += array.floats().len();
        let module = name.strip_suffix(".weight").unwrap_or_default();
        let inner = array.shape.get(1).copied().unwrap_or(0);
        let taken = form.for_rows_of(inner).filter(|_| array.shape.len() == 2 && !stays(module));
        let Some(taken) = taken else {
            stored.push(Stored {
                name: theirs,
                shape: array.shape.clone(),
                values: StoredValues::F32(array.floats().to_vec()),
            });
            continue;
        };
        check_finite(name, &array)?;
        if taken != form {
            *others.entry(taken.name()).or_default() += 1;
        }
        let bytes = taken.round(array.floats(), inner);
        cx.metric(
            &format!("error.{module}"),
            relative_error(array.floats(), &expand(taken, &bytes, array.floats().len())?),
        );
        weights.packed += array.floats().len();
        stored.push(Stored { name: theirs, shape: array.shape.clone(), values: StoredValues::Blocks(taken, bytes) });
    }
    for (name, count) in &others {
        let what = format!(
            "{count} matrices are {name}: their rows are no multiple of the {} weights of a {} block",
            form.size(),
            form.name()
        );
        cx.warning(what, None);
    }
    let out = cx.out().to_owned();
    backend::gguf::write(&out.join(model::GGUF), &facts, &stored)?;
    let config = serde_json::to_string_pretty(&checkpoint.config).expect("plain data");
    fs::write(&out.join("config.json"), config.as_bytes())?;
    copy_companions(base, &out)?;
    weights.conclude(cx, fields, model::GGUF, "gguf", &format!("in blocks of {}", form.name()))
}

/// How many weights there are, and how many of them are codes.
#[derive(Default)]
struct Weighed {
    all: usize,
    packed: usize,
}

impl Weighed {
    /// The metrics of the whole file, and the card.
    fn conclude(
        &self,
        cx: &mut ActionCx<'_>,
        fields: &Fields,
        file: &str,
        library: &str,
        how: &str,
    ) -> Result<(), Failure> {
        let bytes = cx.out().join(file).metadata().map_or(0, |m| m.len());
        let bits_per_weight = bytes as f64 * 8.0 / self.all.max(1) as f64;
        cx.metric("bits-per-weight", bits_per_weight);
        cx.metric("bytes", bytes as f64);
        let adapter = fields.from.adapter.as_ref().map(|a| format!(" with `{a}` merged")).unwrap_or_default();
        let card = format!(
            "---\nlibrary_name: {library}\nbase_model: {from}\n---\n\n# {label}\n\n`{from}`{adapter}, {how}: {bits_per_weight:.2} bits a weight in the file, {share:.1} % of the weights packed.\n",
            from = fields.from.model,
            label = cx.decl.label,
            share = 100.0 * self.packed as f64 / self.all.max(1) as f64
        );
        Ok(fs::write(&cx.out().join("README.md"), card.as_bytes())?)
    }
}

/// Refuses weights that no grid holds.
fn check_finite(name: &str, array: &Array) -> Result<(), Failure> {
    let Some(at) = array.floats().iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let inner = array.shape.iter().skip(1).product::<usize>().max(1);
    let value = array.floats()[at];
    Err(Failure::target(format!("`{name}` holds {value} in row {}, column {}", at / inner, at % inner))
        .help("the model is broken: build or import it again"))
}

/// Root of the mean squared error over the root mean square of the weights.
fn relative_error(values: &[f32], found: &[f32]) -> f64 {
    let off: f64 = values.iter().zip(found).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    if square > 0.0 { (off / square).sqrt() } else { 0.0 }
}
