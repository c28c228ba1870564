//! An adapter that another tool made: read in PEFT's layout or in mlx-lm's, held against its base, written in both.

use serde::Deserialize;
use serde_json::Value;

use crate::backend::arrays::Arrays;
use crate::failure::Failure;
use crate::format::archive::read_members;
use crate::format::tensors;
use crate::kind::fetch::{SOURCE_PROPS, Source, check_source, fetched};
use crate::kind::{ActionCx, Part};
use crate::model::{Checkpoint, Config, weights};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Schema, Type};
use crate::train::peft::{Adapter, Settings};
use crate::train::{mlx_lm, peft};
use crate::util::fs;

/// Where it comes from.
pub(super) const SOURCE: Schema =
    Schema::new("source", "Import: the package that holds it.").props(SOURCE_PROPS).children(&[
        Schema::new("weights", "The path of its adapter_model.safetensors, or of mlx-lm's adapters.safetensors.")
            .arg("path", Type::Text)
            .required(),
        Schema::new("config", "The path of its adapter_config.json.").arg("path", Type::Text).required(),
    ]);

#[derive(Deserialize)]
struct Fields {
    base: String,
    source: Import,
}

#[derive(Deserialize)]
struct Import {
    #[serde(flatten)]
    source: Source,
    weights: String,
    config: String,
}

/// Whether an adapter is imported; what its declaration lacks or has too much is said.
pub(super) fn check(decl: &Decl, problems: &mut Problems<'_>) -> bool {
    let given = |name: &str| !decl.fields[name].is_null();
    if !given("source") {
        for (name, help) in [("method", "method \"lora\" rank=8"), ("train", "train \"data/...\" { ... }")] {
            if !given(name) {
                problems.at("", format!("an adapter that is trained needs `{name}`"), "this", format!("add {help}"));
            }
        }
        return !given("method") || !given("train");
    }
    check_source(&decl.read::<Fields>().source.source, "source", problems);
    for name in ["method", "target-modules", "heads", "train"].into_iter().filter(|name| given(name)) {
        let help = "leave it out, or train in a target of its own";
        problems.at(name, format!("`{name}` means nothing to an adapter that is imported"), "given here", help);
    }
    true
}

/// Whether an adapter is imported.
pub(super) fn is_import(decl: &Decl) -> bool {
    !decl.fields["source"].is_null()
}

/// The package.
pub(super) fn part(decl: &Decl) -> Part {
    let mut source = decl.fields["source"].clone();
    if let Some(map) = source.as_object_mut() {
        map.retain(|k, _| !["weights", "config", "license"].contains(&k.as_str()));
    }
    Part { name: "source".into(), kind: "fetch", fields: source }
}

/// Reads, checks and writes it.
pub(super) fn run(cx: &mut ActionCx<'_>) -> Result<(), Failure> {
    let fields: Fields = cx.decl.read();
    let Import { source, weights: weights_path, config: config_path } = &fields.source;
    let archive = fetched(cx.part("source"))?.map_err(Failure::target)?;
    let members = read_members(&archive, &|path| path == weights_path || path == config_path)?;
    let member = |path: &str| {
        members.get(path).ok_or_else(|| {
            Failure::target(format!("{} holds no `{path}`", source.origin())).help("check the path in the recipe")
        })
    };
    let config: Value = serde_json::from_slice(member(config_path)?)
        .map_err(|e| Failure::target(format!("{config_path} is not JSON: {e}")))?;
    let file = cx.scratch().join("weights.safetensors");
    fs::write(&file, member(weights_path)?)?;
    let arrays = tensors::read(&file).map_err(|f| f.within(weights_path))?;
    let is_mlx = !config["lora_parameters"].is_null();
    let Adapter { arrays, scale } =
        if is_mlx { mlx_lm::adapter(&config, arrays) } else { peft::adapter(&config, arrays) }
            .map_err(|f| f.within(config_path))?;
    let mut base = Checkpoint::open(cx.input(&fields.base), None)?;
    let convolutions: Vec<String> = modules(&arrays)
        .filter(|m| base.arrays.get(&format!("{m}.weight")).is_some_and(|array| array.shape.len() == 4))
        .collect();
    if let Some(name) = arrays.keys().find(|name| !name.contains(".lora_") && !base.arrays.contains_key(*name)) {
        return Err(Failure::target(format!("{weights_path} holds `{name}`, which the base does not have")));
    }
    // It fits where it can be put on.
    weights::merge(&mut base.arrays, &arrays, scale)?;
    let modules: Vec<String> = modules(&arrays).collect();
    let whole: Vec<String> = serde_json::from_value(config["modules_to_save"].clone()).unwrap_or_default();
    let number = |peft: &str, mlx: &str| if is_mlx { &config["lora_parameters"][mlx] } else { &config[peft] }.as_f64();
    let rank = number("r", "rank").unwrap_or(1.0);
    let stabilised = config["use_rslora"].as_bool().unwrap_or(false);
    let settings = Settings {
        base: &fields.base,
        task: matches!(base.config, Config::Llama(_)).then_some("CAUSAL_LM"),
        rank: rank as usize,
        alpha: f64::from(scale) * if stabilised { rank.sqrt() } else { rank },
        rank_stabilised: stabilised,
        decomposed: arrays.keys().any(|name| name.ends_with(weights::MAGNITUDE)),
        dropout: number("lora_dropout", "dropout").unwrap_or(0.0),
        targets: &modules,
        convolutions: &convolutions,
        whole: &whole,
    };
    peft::write(cx.out(), &settings, &arrays)?;
    if let Config::Llama(config) = &base.config {
        mlx_lm::write(&cx.out().join("mlx"), &settings, config.num_hidden_layers, f64::from(scale), &arrays)?;
    }
    cx.metric("parameters", arrays.values().map(|a| a.floats().len()).sum::<usize>() as f64);
    let card = format!(
        "---\nlibrary_name: peft\nbase_model: {base}\nlicense: {licence}\n---\n\n# {label}\n\nUpdates of rank {rank} of {n} matrices of `{base}`, imported from {origin} (`{weights_path}`), sha256 `{sha}` of the package.\n",
        base = fields.base,
        licence = source.license.as_deref().unwrap_or("unknown").to_lowercase(),
        label = cx.decl.label,
        n = modules.len(),
        origin = source.origin(),
        sha = source.sha256.as_deref().unwrap_or("not pinned"),
    );
    Ok(fs::write(&cx.out().join("README.md"), card.as_bytes())?)
}

fn modules(arrays: &Arrays) -> impl Iterator<Item = String> {
    arrays.keys().filter_map(|name| name.strip_suffix(".lora_A.weight")).map(str::to_owned)
}
