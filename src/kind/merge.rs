//! `merge`: a model with an adapter's updates in its own weights, which needs no adapter any more.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{ActionCx, How, Kind, Needs, Pool, Run};
use crate::backend::affine::Form;
use crate::backend::arrays::{Array, Arrays};
use crate::failure::Failure;
use crate::format::tensors;
use crate::model::quantized::{self, Grids};
use crate::model::{Checkpoint, Config, GGUF, copy_companions, weights};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Schema, Type};
use crate::train::peft;
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Merge;

static SCHEMA: Schema =
    Schema::new("merge", "A model with an adapter's updates in its own weights: it needs no adapter any more.")
        .children(&[
            Schema::new("base", "The model.").arg("model", Type::NamedLabel).required(),
            Schema::new("adapter", "The adapter of it.").arg("adapter", Type::NamedLabel).required(),
            Schema::new(
                "dequantize",
                "Of a quantized base: `#true` writes 32-bit floats; else what changed is rounded as the base was.",
            )
            .arg("yes", Type::Bool),
            Schema::new(
                "other-base",
                "The adapter may be of another model, whose matrices have the same names and shapes.",
            )
            .arg("yes", Type::Bool),
        ]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    base: String,
    adapter: String,
    dequantize: Option<bool>,
    other_base: Option<bool>,
}

/// Where rounding takes more than this of what an adapter changed in a matrix, it is told.
const LOST_MOST: f64 = 0.5;

impl Kind for Merge {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn is_main(&self, metric: &str) -> bool {
        !["error.", "lost."].iter().any(|begin| metric.starts_with(begin))
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Merge {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        check_inputs(cx, &fields)?;
        let base = cx.input(&fields.base).to_owned();
        let is_gguf = base.join(GGUF).exists();
        match fields.dequantize {
            Some(false) if is_gguf => {
                return Err(Failure::user(format!("`{}` is a GGUF file, and merged weights are not rounded to its types", fields.base))
                    .help("write `dequantize #true`, and make a `quantized` target of the merged model where it is to be small"));
            }
            None if is_gguf => cx.warning(
                format!("`{}` is a GGUF file: the merged model is written as 32-bit floats", fields.base),
                Some("write `dequantize #true` where that is meant; a `quantized` target makes it small again".into()),
            ),
            _ => {}
        }
        let mut checkpoint = Checkpoint::open(&base, None)?;
        let adapter = peft::read(cx.input(&fields.adapter))?;
        let changed = changed(&checkpoint.arrays, &adapter.arrays)?;
        let before: Arrays = changed.iter().map(|name| (name.clone(), checkpoint.arrays[name].clone())).collect();
        weights::merge(&mut checkpoint.arrays, &adapter.arrays, adapter.scale)?;
        let mut config: Value = serde_json::from_str(&fs::read_text(&base.join("config.json"))?)
            .map_err(|e| Failure::target(format!("config.json: {e}")))?;
        let grids = Grids::read(&config).filter(|_| fields.dequantize != Some(true));
        let (arrays, format, form) = match grids {
            Some(grids) => {
                let arrays = rounded(cx, &fields, &before, &checkpoint.arrays, &grids)?;
                let (bits, group) = grids.all;
                (arrays, "mlx", format!("rounded to {bits} bits in groups of {group} as the base is"))
            }
            None => {
                let is_packed = is_gguf || Grids::read(&config).is_some();
                if let Some(config) = config.as_object_mut() {
                    config.retain(|name, _| name != "quantization" && name != "quantization_config");
                }
                let form = if is_packed { "32-bit floats, the base's expanded" } else { "32-bit floats" };
                (std::mem::take(&mut checkpoint.arrays), "pt", form.to_owned())
            }
        };
        let out = cx.out().to_owned();
        let file = out.join("model.safetensors");
        tensors::write(&file, &arrays, &[("format", format)])?;
        cx.metric("bytes", file.metadata().map_or(0, |m| m.len()) as f64);
        fs::write(&out.join("config.json"), serde_json::to_string_pretty(&config).expect("plain").as_bytes())?;
        copy_companions(&base, &out)?;
        let library = match checkpoint.config {
            _ if format == "mlx" => "mlx",
            Config::Llama(_) | Config::Bert(_) | Config::Clip(_) => "transformers",
            _ => "effai",
        };
        let card = format!(
            "---\nlibrary_name: {library}\nbase_model: {base}\n---\n\n# {label}\n\n`{base}` with the adapter `{adapter}` merged: {n} of its tensors are changed; {form}.\n",
            base = fields.base,
            label = cx.decl.label,
            adapter = fields.adapter,
            n = changed.len(),
        );
        Ok(fs::write(&out.join("README.md"), card.as_bytes())?)
    }
}

/// Refuses an adapter as a base, a model as an adapter, and an adapter of another model.
fn check_inputs(cx: &ActionCx<'_>, fields: &Fields) -> Result<(), Failure> {
    let config = |label: &str| cx.input(label).join("adapter_config.json");
    let (base, adapter) = (&fields.base, &fields.adapter);
    if config(base).exists() {
        return Err(Failure::user(format!("`{base}` is an adapter, not a model"))
            .help("merge it into its own base in a target of its own, and name that"));
    }
    if !config(adapter).exists() {
        return Err(Failure::user(format!("`{adapter}` is a model that stands alone, not an adapter"))
            .help("use it as it is: there is nothing to merge"));
    }
    let own = declared_base(&config(adapter))?;
    let is_other = cx.inputs.get(&own).is_some_and(|dir| dir != cx.input(base));
    if is_other && fields.other_base != Some(true) {
        return Err(Failure::user(format!("`{adapter}` is an adapter of `{own}`, not of `{base}`"))
            .help(format!("write base \"{own}\", or `other-base #true` where it is meant for another model")));
    }
    Ok(())
}

/// The label of the model that an adapter was trained on.
fn declared_base(config: &Path) -> Result<String, Failure> {
    let config: Value = serde_json::from_str(&fs::read_text(config)?)
        .map_err(|e| Failure::target(format!("{} is not JSON: {e}", config.display())))?;
    Ok(config["base_model_name_or_path"].as_str().unwrap_or_default().to_owned())
}

/// The names of the base's tensors that an adapter changes. Tensors in their own right must fit those of the base;
/// [`weights::merge`] sees to the rest.
fn changed(base: &Arrays, adapter: &Arrays) -> Result<BTreeSet<String>, Failure> {
    let other = |what: String| Err(Failure::target(what).help("use the base that the adapter was trained on"));
    let mut names = BTreeSet::new();
    for (name, array) in adapter {
        let module = name.rsplit_once(".lora_").map(|(module, _)| module);
        let target = module.map_or_else(|| name.clone(), |module| format!("{module}.weight"));
        let Some(own) = base.get(&target) else {
            return other(format!("the adapter holds `{name}`, and the base has no `{target}`"));
        };
        let size = |array: &Array| array.shape.iter().product::<usize>();
        if module.is_none() && size(own) != size(array) {
            let message = format!("the adapter's `{name}` is {:?}, and the base's is {:?}", array.shape, own.shape);
            return other(message);
        }
        names.insert(target);
    }
    Ok(names)
}

/// Sums of squares over the matrices that were rounded.
#[derive(Default)]
struct Sums {
    weight: f64,
    update: f64,
    error: f64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.weight += other.weight;
        self.update += other.update;
        self.error += other.error;
    }

    /// Of the merged weights themselves.
    fn relative(&self) -> f64 {
        (self.error / self.weight.max(f64::MIN_POSITIVE)).sqrt()
    }

    /// Of what the adapter changed.
    fn lost(&self) -> f64 {
        (self.error / self.update).sqrt()
    }
}

/// The base's tensors as they lie, but that those which changed are rounded anew; the error is told.
fn rounded(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    before: &Arrays,
    merged: &Arrays,
    grids: &Grids,
) -> Result<Arrays, Failure> {
    let mut arrays = Arrays::new();
    for shard in tensors::shards(cx.input(&fields.base))? {
        arrays.extend(tensors::read(&shard)?);
    }
    let (mut all, mut worst, mut count) = (Sums::default(), (0.0, String::new()), 0);
    for (i, (name, old)) in before.iter().enumerate() {
        cx.progress("round", i as u64 + 1, before.len() as u64, "tensors");
        let new = &merged[name];
        let module = name.strip_suffix(".weight").unwrap_or_default();
        if !arrays.contains_key(&format!("{module}.scales")) {
            arrays.insert(name.clone(), new.clone());
            continue;
        }
        let (old, values) = (old.floats(), new.floats());
        let update = values.iter().zip(old).map(|(new, old)| f64::from(new - old).powi(2)).sum();
        if update == 0.0 {
            // Rounding again what is rounded may move it.
            continue;
        }
        let (bits, group) = grids.of(module);
        let packed = quantized::pack(values, new.shape[1], &Form::new(bits, group));
        let weight = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let own = Sums { weight, update, error: packed.relative_error.powi(2) * weight };
        cx.metric(&format!("error.{module}"), own.relative());
        cx.metric(&format!("lost.{module}"), own.lost());
        if own.lost() > worst.0 {
            worst = (own.lost(), module.to_owned());
        }
        all.add(&own);
        count += 1;
        packed.insert(module, &mut arrays);
    }
    if count == 0 {
        return Ok(arrays);
    }
    cx.metric("error", all.relative());
    cx.metric("lost", all.lost());
    if worst.0 > LOST_MOST {
        cx.warning(
            format!(
                "rounding the merged weights to {bits} bits moves `{module}` by {worst:.2} times what the adapter changed in it, and all {count} matrices by {lost:.2} times",
                module = worst.1,
                worst = worst.0,
                lost = all.lost(),
                bits = grids.all.0,
            ),
            Some(format!("`dequantize #true` writes floats, unrounded; or merge into the model that `{}` was made from and quantize that", fields.base)),
        );
    }
    Ok(arrays)
}
