//! `quantized`: a model with fewer bits, in MLX's layout.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ActionCx, How, Kind, Needs, Pool, Run};
use crate::backend::affine;
use crate::failure::Failure;
use crate::format::tensors::{self, Arrays};
use crate::model::{Checkpoint, copy_companions, quantized};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::glob;
use crate::recipe::schema::{Default, Prop, Schema, Type};
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
        Schema::new("method", "How.").arg("name", Type::Choice(&["rtn"])).required().flat().props(&[
            Prop::new("bits", Type::Int(2, 8), "bits a weight: 2, 3, 4, 6 or 8").required(),
            Prop::new("group", Type::Int(32, 128), "weights that share a scale: 32, 64 or 128")
                .default(Default::Int(64)),
        ]),
        Schema::new("keep", "Globs over the names of matrices that stay as they are.").many_args("globs", Type::Text),
    ]);

#[derive(Deserialize)]
struct Fields {
    from: From,
    method: Method,
    keep: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct From {
    model: String,
    adapter: Option<String>,
}

#[derive(Deserialize)]
struct Method {
    bits: usize,
    group: usize,
}

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
        let fields: Fields = decl.read();
        if !affine::BITS.contains(&fields.method.bits) {
            problems.at(
                "method.bits",
                format!("{} bits are not supported", fields.method.bits),
                "these",
                "use 2, 3, 4, 6 or 8",
            );
        }
        if !affine::GROUPS.contains(&fields.method.group) {
            problems.at(
                "method.group",
                format!("groups of {} are not supported", fields.method.group),
                "these",
                "use 32, 64 or 128",
            );
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
        let Method { bits, group } = fields.method;
        let mut arrays = Arrays::new();
        let (mut packed_weights, mut all_weights) = (0usize, 0usize);
        let total = checkpoint.arrays.len() as u64;
        for (i, (name, array)) in checkpoint.arrays.into_iter().enumerate() {
            cx.progress("quantize", i as u64 + 1, total, "tensors");
            all_weights += array.floats().len();
            let module = name.strip_suffix(".weight").unwrap_or_default().to_owned();
            let fits = matches!(array.shape[..], [_, inner] | [_, inner, 1, 1] if inner % group == 0);
            let positions = module.contains("position_embedding") || module.contains("token_type");
            if module.is_empty() || !fits || positions || keep.iter().any(|g| g.is_match(&module)) {
                arrays.insert(name, array);
                continue;
            }
            let packed = quantized::pack(array.floats(), array.shape[0], array.shape[1], bits, group);
            packed_weights += array.floats().len();
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
        copy_companions(&base, &out)?;
        let bytes = out.join("model.safetensors").metadata().map_or(0, |m| m.len());
        let bits_per_weight = bytes as f64 * 8.0 / all_weights.max(1) as f64;
        cx.metric("bits-per-weight", bits_per_weight);
        cx.metric("bytes", bytes as f64);
        let adapter = fields.from.adapter.map(|a| format!(" with `{a}` merged")).unwrap_or_default();
        let card = format!(
            "---\nlibrary_name: mlx\nbase_model: {from}\n---\n\n# {label}\n\n`{from}`{adapter}, rounded to {bits} bits in groups of {group}: {bits_per_weight:.2} bits a weight in the file, {share:.1} % of the weights packed.\n",
            from = fields.from.model,
            label = cx.decl.label,
            share = 100.0 * packed_weights as f64 / all_weights.max(1) as f64
        );
        Ok(fs::write(&out.join("README.md"), card.as_bytes())?)
    }
}
