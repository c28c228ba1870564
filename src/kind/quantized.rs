//! `quantized`: a model with fewer bits, in MLX's layout, in llama.cpp's, or in bytes whose inputs are rounded too.

mod gguf;
mod int8;
mod limit;
mod methods;
mod mlx;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::affine::{self, Float, Form, Per};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::blocks::Blocks;
use crate::backend::floats;
use crate::failure::Failure;
use crate::model::quantized::Grids;
use crate::model::{Checkpoint, Config, GGUF};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::glob;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::util::{fs, text};
use methods::{Calibrated, Made};

/// The kind.
#[derive(Debug)]
pub struct Quantized;

static SCHEMA: Schema = Schema::new("quantized", "A model whose matrices are rounded to a few bits.").children(&[
    Schema::new("from", "The model.").arg("model", Type::NamedLabel).required().props(&[Prop::new(
        "adapter",
        Type::NamedLabel,
        "an adapter, merged before",
    )]),
    Schema::new(
        "method",
        "`rtn`: to the nearest code, in MLX's layout. `gptq`, `awq`: the same, by what the matrices read. `mixed`: the same, \
         bits by matrix under a budget. `int8`: bytes, and inputs rounded to bytes as they come. `smoothquant`: the same, what \
         is hard to round moved from inputs into weights. `gguf`: blocks of llama.cpp's, in one file.",
    )
    .arg("name", Type::Choice(METHODS))
    .required()
    .flat()
    .props(&[
        Prop::new("bits", Type::Int(2, 8), "bits a weight, of `rtn`, `gptq` and `awq`: 2, 3, 4, 6 or 8"),
        Prop::new(
            "group",
            Type::Int(32, 128),
            "weights that share a scale, in MLX's layout: 32, 64 or 128; 64 where it is not said",
        ),
        Prop::new(
            "symmetric",
            Type::Bool,
            "whether the steps below zero are as those above, in MLX's layout; if not, a grid ends where its weights do",
        ),
        Prop::new(
            "per",
            Type::Choice(&["group", "channel", "tensor"]),
            "what one grid of `rtn` is made for; a row's or a matrix's is written for each of its groups",
        ),
        Prop::new("dtype", Type::Choice(&["float32", "float16", "bfloat16"]), "the number type of scales and of what stays as it is, in MLX's layout; float32 where it is not said"),
        Prop::new("size", Type::Text, "the budget of the file of `mixed`, such as \"70 MB\""),
        Prop::new("strength", Type::Float(0.0, 1.0), "how much of the inputs' magnitude `smoothquant` moves into the weights; 0.5 where it is not said"),
        Prop::new("type", Type::Choice(TYPES), "the form of the blocks of `gguf`"),
    ]),
    Schema::new("calibrate", "The dataset whose records are read by `gptq`, `awq`, `mixed` and `smoothquant`.")
        .arg("data", Type::Label)
        .props(&[
            Prop::new("split", Type::Text, "the split").default(Default::Text("train")),
            Prop::new("rows", Type::Int(1, 1 << 20), "its first records, as many").default(Default::Int(128)),
            Prop::new("max-length", Type::Int(2, 1 << 20), "tokens of a record at most").default(Default::Int(512)),
        ]),
    Schema::new("matrices", "A glob over the names of matrices that have bits of their own, in `rtn`, `gptq` and `awq`; the last that fits holds.")
        .arg("glob", Type::Text)
        .props(&[Prop::new("bits", Type::Int(2, 8), "2, 3, 4, 6 or 8").required()])
        .many(),
    Schema::new("keep", "Globs over the names of matrices that stay as they are.").many_args("globs", Type::Text),
    Schema::new("dequantize", "Whether a model that is quantized already is expanded and rounded again, errors upon errors.")
        .arg("yes", Type::Bool),
    Schema::new("limit", "What a language model may be off by; where it is more, the build fails and says why.").props(&[
        Prop::new(
            "kl",
            Type::FloatAbove(0.0, 1e3),
            "the mean Kullback-Leibler divergence of its predictions from the model's own, in nats a token",
        )
        .required(),
        Prop::new("on", Type::Label, "the dataset").required(),
        Prop::new("split", Type::Text, "its split").default(Default::Text("validation")),
        Prop::new("max-length", Type::Int(2, 1 << 20), "tokens of a record at most").default(Default::Int(512)),
    ]),
    BACKEND,
]);

#[derive(Deserialize)]
struct Fields {
    from: From,
    method: Method,
    calibrate: Option<Calibrate>,
    matrices: Vec<Matrices>,
    keep: Option<Vec<String>>,
    dequantize: Option<bool>,
    limit: Option<Limit>,
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
    symmetric: Option<bool>,
    per: Option<Per>,
    dtype: Option<Float>,
    size: Option<String>,
    strength: Option<f64>,
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct Matrices {
    glob: String,
    bits: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Limit {
    kl: f64,
    on: String,
    split: String,
    max_length: usize,
}

const METHODS: &[&str] = &["rtn", "gptq", "awq", "mixed", "int8", "smoothquant", "gguf"];
/// The forms of blocks that are written.
const TYPES: &[&str] = &["Q8_0", "Q6_K", "Q5_0", "Q4_K", "Q4_1", "Q4_0"];
/// Weights that share a scale where it is not said.
const GROUP: usize = 64;

/// What a property is of, and how it is written where it must be.
struct Belongs {
    prop: &'static str,
    methods: &'static [&'static str],
    required: &'static [&'static str],
    example: &'static str,
}

const BELONGS: &[Belongs] = &[
    Belongs { prop: "bits", methods: &["rtn", "gptq", "awq"], required: &["rtn", "gptq", "awq"], example: "bits=4" },
    Belongs { prop: "group", methods: &["rtn", "gptq", "awq", "mixed"], required: &[], example: "" },
    Belongs { prop: "symmetric", methods: &["rtn", "gptq", "awq", "mixed"], required: &[], example: "" },
    Belongs { prop: "per", methods: &["rtn"], required: &[], example: "" },
    Belongs { prop: "dtype", methods: &["rtn", "gptq", "awq", "mixed"], required: &[], example: "" },
    Belongs { prop: "size", methods: &["mixed"], required: &["mixed"], example: "size=\"70 MB\"" },
    Belongs { prop: "strength", methods: &["smoothquant"], required: &[], example: "" },
    Belongs { prop: "type", methods: &["gguf"], required: &["gguf"], example: "type=\"Q4_K\"" },
];
/// Methods that read records.
const CALIBRATED: &[&str] = &["gptq", "awq", "mixed", "smoothquant"];

impl Kind for Quantized {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: a chat template and what pictures are prepared by go along.
    /// 3: a tie goes to the even code, as in MLX. 4: the card tells how many bits. 5: the K-quants' sums in another order.
    fn version(&self) -> u32 {
        5
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let Fields { method, calibrate, limit, matrices, .. } = decl.read();
        let name = method.name.as_str();
        for belongs in BELONGS {
            let prop = belongs.prop;
            let given = !decl.fields["method"][prop].is_null();
            if given && !belongs.methods.contains(&name) {
                let what = format!("`{prop}` means nothing to the method `{name}`");
                let help = format!("leave it out, or name the method `{}`", belongs.methods.join("` or `"));
                problems.at(&format!("method.{prop}"), what, "given here", help);
            }
            if !given && belongs.required.contains(&name) {
                let help = format!("add {}", belongs.example);
                problems.at("method", format!("the method `{name}` needs `{prop}`"), "this method", help);
            }
        }
        match (CALIBRATED.contains(&name), &calibrate) {
            (true, None) => {
                let help = "add calibrate \"data/...\"";
                problems.at("method", format!("the method `{name}` needs `calibrate`"), "this method", help);
            }
            (false, Some(_)) => {
                let what = format!("`calibrate` means nothing to the method `{name}`");
                let help = format!("leave it out, or name the method `{}`", CALIBRATED.join("` or `"));
                problems.at("calibrate", what, "given here", help);
            }
            _ => {}
        }
        if !CALIBRATED.contains(&name) && limit.is_none() && decl.fields[BACKEND.name].is_string() {
            problems.at(BACKEND.name, format!("the method `{name}` runs no model"), "this", "leave it out");
        }
        for (i, own) in matrices.iter().enumerate() {
            let path = format!("matrices.{i}");
            if !matches!(name, "rtn" | "gptq" | "awq") {
                let what = format!("`matrices` means nothing to the method `{name}`");
                problems.at(&path, what, "given here", "leave it out, or name the method `rtn`, `gptq` or `awq`");
            } else if !affine::BITS.contains(&own.bits) {
                let what = format!("{} bits are not supported", own.bits);
                problems.at(&path, what, "these", "use 2, 3, 4, 6 or 8");
            }
        }
        if let Some(bits) = method.bits.filter(|bits| !affine::BITS.contains(bits)) {
            problems.at("method.bits", format!("{bits} bits are not supported"), "these", "use 2, 3, 4, 6 or 8");
        }
        if let Some(group) = method.group.filter(|group| !affine::GROUPS.contains(group)) {
            let what = format!("groups of {group} are not supported");
            problems.at("method.group", what, "these", "use 32, 64 or 128");
        }
        if method.group.is_some() && method.per.is_some_and(|per| per != Per::Group) {
            let what = "`group` means nothing where a grid is a row's or a matrix's";
            problems.at("method.group", what, "given here", "leave it out");
        }
        if let Some(Err(why)) = method.size.as_deref().map(text::parse_bytes) {
            problems.at("method.size", why, "this", "write it as 70 MB or 64 MiB");
        }
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn is_main(&self, metric: &str) -> bool {
        !["error.", "sensitivity.", "bits.", "calibration-"].iter().any(|begin| metric.starts_with(begin))
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Fields {
    /// The form of MLX's layout.
    fn form(&self) -> Form {
        let Method { bits, group, symmetric, per, dtype, .. } = &self.method;
        Form {
            bits: bits.unwrap_or(4),
            group: group.unwrap_or(GROUP),
            symmetric: symmetric.unwrap_or(false),
            per: per.unwrap_or_default(),
            float: dtype.unwrap_or_default(),
        }
    }

    /// The budget of `mixed`, in bytes.
    fn size(&self) -> Result<u64, Failure> {
        text::parse_bytes(self.method.size.as_deref().unwrap_or_default()).map_err(Failure::user)
    }
}

impl Run for Quantized {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let base = cx.input(&fields.from.model).to_owned();
        check_source(&fields, &base)?;
        let checkpoint = match &fields.from.adapter {
            Some(adapter) => Checkpoint::open(cx.input(adapter), Some(&base))?,
            None => Checkpoint::open(&base, None)?,
        };
        let compiled = |g: &String| glob::compile(g).map_err(|e| Failure::user(e.to_string()));
        let keep: Vec<_> = fields.keep.iter().flatten().map(compiled).collect::<Result<_, _>>()?;
        let stays = |module: &str| {
            let positions = module.contains("position_embedding") || module.contains("token_type");
            positions || keep.iter().any(|g| g.is_match(module))
        };
        if let Some(form) = fields.method.r#type.as_deref().and_then(Blocks::by_name) {
            gguf::write(cx, &fields, checkpoint, &base, form, &stays)?;
        } else {
            let form = fields.form();
            let bits = own_bits(&fields, &checkpoint.arrays)?;
            let is_language = matches!(checkpoint.config, Config::Llama(_));
            let made = match &fields.calibrate {
                None => Made { arrays: checkpoint.arrays, bits, ..Made::default() },
                Some(calibrate) => {
                    let backend = cx.backend()?;
                    Calibrated { fields: &fields, calibrate, form, bits, stays: &stays }.run(cx, backend, checkpoint)?
                }
            };
            match fields.method.name.as_str() {
                "int8" | "smoothquant" => int8::write(cx, &fields, made, &base, is_language, &stays)?,
                _ => mlx::write(cx, &fields, made, &base, &form, &stays)?,
            }
        }
        match &fields.limit {
            Some(limit) => limit::hold(cx, &fields, limit, &base),
            None => Ok(()),
        }
    }
}

/// Bits by module, of those that have their own; a glob that fits nothing is an error.
fn own_bits(fields: &Fields, arrays: &Arrays) -> Result<BTreeMap<String, usize>, Failure> {
    let mut bits = BTreeMap::new();
    for own in &fields.matrices {
        let glob = glob::compile(&own.glob).map_err(|e| Failure::user(e.to_string()))?;
        let matrices = arrays.iter().filter(|(_, array)| array.shape.len() == 2);
        let names = matrices.filter_map(|(name, _)| name.strip_suffix(".weight")).filter(|name| glob.is_match(name));
        let before = bits.len();
        bits.extend(names.map(|name| (name.to_owned(), own.bits)));
        if bits.len() == before && !bits.keys().any(|name| glob.is_match(name)) {
            let mut there = arrays.keys().filter_map(|name| name.strip_suffix(".weight"));
            return Err(Failure::user(format!("no matrix of `{}` is called `{}`", fields.from.model, own.glob))
                .help(format!("the first is `{}`", there.next().unwrap_or_default())));
        }
    }
    Ok(bits)
}

/// Refuses a model that is quantized already, where nobody said that it is meant.
fn check_source(fields: &Fields, base: &Path) -> Result<(), Failure> {
    if fields.dequantize == Some(true) {
        return Ok(());
    }
    let config = base.join("config.json");
    let read = |text: String| serde_json::from_str::<Value>(&text).unwrap_or_default();
    let config = if config.exists() { read(fs::read_text(&config)?) } else { Value::Null };
    let form = match Grids::read(&config) {
        _ if base.join(GGUF).exists() => "a GGUF file".to_owned(),
        Some(grids) => format!("of {} bits", grids.all.0),
        None if config["quantization_config"].is_object() => "of bytes".to_owned(),
        None => return Ok(()),
    };
    Err(Failure::user(format!("`{}` is quantized already: it is {form}", fields.from.model))
        .help("quantize the model it was made from; or write `dequantize #true`, and errors come upon errors"))
}

/// How many weights there are, and how many of them are codes.
#[derive(Default)]
struct Weighed {
    all: usize,
    packed: usize,
    /// Matrices that stay as they are because no groups of a row are whole, and how long their rows are.
    passed_over: Vec<(String, usize)>,
}

impl Weighed {
    /// Tells what a matrix is off by.
    fn error(&self, cx: &mut ActionCx<'_>, module: &str, relative: f64) {
        cx.metric(&format!("error.{module}"), relative);
    }

    /// The metrics of the whole file, and the card.
    fn conclude(
        &self,
        cx: &mut ActionCx<'_>,
        fields: &Fields,
        file: &str,
        library: &str,
        how: &str,
    ) -> Result<(), Failure> {
        if self.packed == 0 {
            let what = format!("no matrix of `{}` is packed: of {} weights, none can be", fields.from.model, self.all);
            return Err(Failure::user(what)
                .help("look at `keep`; rows must be whole groups, of 32, 64 or 128 weights; or take another method"));
        }
        if let [(first, inner), ..] = &self.passed_over[..] {
            let count = text::count(self.passed_over.len(), "tensor");
            let group = fields.form().group;
            let help = "write group=32, or `keep` them, which says that it is meant".to_owned();
            cx.warning(
                format!("{count} stay as they are: no whole groups of {group} are in a row of {inner} (`{first}`)"),
                Some(help),
            );
        }
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
    let Some(at) = floats::not_finite(array.floats()) else { return Ok(()) };
    let inner = array.shape.iter().skip(1).product::<usize>().max(1);
    let value = array.floats()[at];
    Err(Failure::target(format!("`{name}` holds {value} in row {}, column {}", at / inner, at % inner))
        .help("the model is broken: build or import it again"))
}

/// Root of the mean squared error over the root mean square of the weights.
fn relative_error(values: &[f32], found: &[f32]) -> f64 {
    let square = floats::squares(values);
    if square > 0.0 { (floats::squared_error(values, found) / square).sqrt() } else { 0.0 }
}
