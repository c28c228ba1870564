//! LoRA and DoRA adapters in PEFT's layout.
//!
//! `base_model.model.MODULE.lora_A.weight` [rank, in] and `.lora_B.weight` [out, rank]; of a 1 x 1 convolution
//! [rank, in, 1, 1] and [out, rank, 1, 1]. In DoRA also `.lora_magnitude_vector` `[out]`, of a convolution
//! [1, out, 1, 1]. Modules trained whole stand under their own names and are listed
//! in `modules_to_save`.

use std::path::Path;

use serde_json::{Value, json};

use crate::backend::arrays::Arrays;
use crate::failure::Failure;
use crate::format::tensors;
use crate::model::weights::MAGNITUDE;
use crate::util::fs;

/// The file of the weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// An adapter, read: names as [`crate::model::weights::merge`] takes them, matrices of two axes.
#[derive(Debug)]
pub struct Adapter {
    /// The matrices, and modules trained whole.
    pub arrays: Arrays,
    /// alpha / rank, or alpha / sqrt(rank).
    pub scale: f32,
}

/// What an adapter's configuration says.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The base's label.
    pub base: &'a str,
    /// PEFT's word for what the model does, such as `CAUSAL_LM`.
    pub task: Option<&'a str>,
    /// Rank.
    pub rank: usize,
    /// Alpha.
    pub alpha: f64,
    /// The updates count alpha / sqrt(rank), not alpha / rank.
    pub rank_stabilised: bool,
    /// Rows have magnitudes of their own: DoRA.
    pub decomposed: bool,
    /// Dropout in training.
    pub dropout: f64,
    /// Modules with low-rank updates.
    pub targets: &'a [String],
    /// Those of them that are convolutions.
    pub convolutions: &'a [String],
    /// Modules trained whole.
    pub whole: &'a [String],
}

/// Reads an adapter directory.
pub fn read(dir: &Path) -> Result<Adapter, Failure> {
    let path = dir.join("adapter_config.json");
    let config: Value = serde_json::from_str(&fs::read_text(&path)?)
        .map_err(|e| Failure::target(format!("{} is not JSON: {e}", path.display())))?;
    adapter(&config, tensors::read(&dir.join(WEIGHTS))?).map_err(|f| f.within(path.display()))
}

/// An adapter of this configuration and these tensors. What would be computed otherwise is refused.
pub fn adapter(config: &Value, tensors: Arrays) -> Result<Adapter, Failure> {
    let (Some(rank), Some(alpha)) = (config["r"].as_f64(), config["lora_alpha"].as_f64()) else {
        return Err(Failure::target("it has no `r` and `lora_alpha`").help("LoRA and DoRA adapters are read"));
    };
    let some = |name: &str| match &config[name] {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Bool(is) => *is,
        Value::String(text) => text != "none",
        _ => false,
    };
    let others = ["rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias", "lora_bias", "layer_replication"];
    if let Some(name) = others.into_iter().find(|name| some(name)) {
        return Err(Failure::target(format!("`{name}` is set, which is not supported")));
    }
    let mut arrays = Arrays::new();
    for (name, mut array) in tensors {
        let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
        if name.contains(".lora_") {
            let part = name.rsplit_once(".lora_").map_or("", |(_, part)| part);
            if !["A.weight", "B.weight", "magnitude_vector"].contains(&part) {
                return Err(Failure::target(format!("it holds `{name}`, which is not supported")));
            }
            if let [a, b, 1, 1] = array.shape[..] {
                array.shape = if name.ends_with(MAGNITUDE) { vec![b] } else { vec![a, b] };
            }
        }
        arrays.insert(name, array);
    }
    let stabilised = config["use_rslora"].as_bool().unwrap_or(false);
    Ok(Adapter { arrays, scale: (alpha / if stabilised { rank.sqrt() } else { rank }) as f32 })
}

/// Writes an adapter directory's configuration and weights.
pub fn write(dir: &Path, settings: &Settings<'_>, arrays: &Arrays) -> Result<(), Failure> {
    let mut config = json!({
        "peft_type": "LORA",
        "task_type": settings.task,
        "base_model_name_or_path": settings.base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rank_stabilised,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "target_modules": settings.targets,
        "modules_to_save": if settings.whole.is_empty() { json!(null) } else { json!(settings.whole) },
    });
    if settings.decomposed {
        config["use_dora"] = true.into();
    }
    let text = serde_json::to_string_pretty(&config).expect("plain data");
    fs::write(&dir.join("adapter_config.json"), text.as_bytes())?;
    let mut out = Arrays::new();
    for (name, array) in arrays {
        let mut array = array.clone();
        let module = name.rsplit_once(".lora_").map(|(module, _)| module.to_owned());
        if module.is_some_and(|m| settings.convolutions.contains(&m)) {
            if name.ends_with(MAGNITUDE) {
                array.shape.insert(0, 1);
            }
            array.shape.extend([1, 1]);
        }
        out.insert(format!("{PREFIX}{name}"), array);
    }
    tensors::write(&dir.join(WEIGHTS), &out, &[("format", "pt")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::arrays::Array;

    #[test]
    fn magnitudes_have_pefts_shapes_and_are_read_back() {
        let arrays: Arrays = ["p", "c"]
            .iter()
            .flat_map(|module| {
                let array =
                    |shape: &[usize]| Array::f32(shape, (0..shape.iter().product()).map(|i| i as f32).collect());
                [("lora_A.weight", array(&[2, 3])), ("lora_B.weight", array(&[4, 2])), (MAGNITUDE, array(&[4]))]
                    .map(|(part, array)| (format!("{module}.{part}"), array))
            })
            .collect();
        let settings = Settings {
            base: "m",
            task: None,
            rank: 2,
            alpha: 4.0,
            rank_stabilised: false,
            decomposed: true,
            dropout: 0.0,
            targets: &["p".into(), "c".into()],
            convolutions: &["c".into()],
            whole: &[],
        };
        let dir = tempfile::tempdir().expect("made");
        write(dir.path(), &settings, &arrays).expect("written");
        let files = tensors::read(&dir.path().join(WEIGHTS)).expect("read");
        assert_eq!(files["base_model.model.p.lora_magnitude_vector"].shape, [4]);
        assert_eq!(files["base_model.model.c.lora_magnitude_vector"].shape, [1, 4, 1, 1]);
        let again = read(dir.path()).expect("read");
        assert_eq!(again.scale, 2.0);
        assert!(again.arrays.iter().all(|(name, array)| array.shape == arrays[name].shape));
    }
}
