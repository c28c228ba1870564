//! LoRA and DoRA adapters in mlx-lm's layout: `MODULE.lora_a` [in, rank] and `MODULE.lora_b` [rank, out], the transposes of
//! PEFT's, and `MODULE.m` `[out]`, DoRA's magnitudes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::peft::{Adapter, Settings};
use crate::backend::arrays::{Array, Arrays};
use crate::failure::Failure;
use crate::format::tensors;
use crate::model::weights::MAGNITUDE;
use crate::util::fs;

/// Writes `adapters.safetensors` and `adapter_config.json`, for a base of `depth` layers.
pub fn write(dir: &Path, settings: &Settings<'_>, depth: usize, scale: f64, arrays: &Arrays) -> Result<(), Failure> {
    let mut out = Arrays::new();
    for (name, array) in arrays {
        if let Some(module) = name.strip_suffix(MAGNITUDE) {
            out.insert(format!("{module}m"), array.clone());
            continue;
        }
        let Some((module, which)) = name.strip_suffix(".weight").and_then(|name| name.rsplit_once(".lora_")) else {
            continue;
        };
        out.insert(format!("{module}.lora_{}", which.to_lowercase()), turned(array));
    }
    let (num_layers, keys) = place(settings.targets, depth);
    let config = json!({
        "fine_tune_type": if settings.decomposed { "dora" } else { "lora" },
        "num_layers": num_layers,
        "lora_parameters": {"rank": settings.rank, "scale": scale, "dropout": settings.dropout, "keys": keys},
        "model": settings.base,
    });
    let text = serde_json::to_string_pretty(&config).expect("plain data");
    fs::write(&dir.join("adapter_config.json"), text.as_bytes())?;
    tensors::write(&dir.join("adapters.safetensors"), &out, &[("format", "mlx")])
}

/// An adapter of this configuration and these tensors, named as PEFT names it.
pub fn adapter(config: &Value, tensors: Arrays) -> Result<Adapter, Failure> {
    let kind = config["fine_tune_type"].as_str().unwrap_or("lora");
    let Some(scale) = config["lora_parameters"]["scale"].as_f64().filter(|_| ["lora", "dora"].contains(&kind)) else {
        return Err(Failure::target(format!("a `fine_tune_type` of `{kind}`, or no `scale`"))
            .help("LoRA and DoRA adapters are read"));
    };
    let mut arrays = Arrays::new();
    for (name, array) in tensors {
        let renamed = match name.rsplit_once('.') {
            Some((module, "lora_a")) => Some((format!("{module}.lora_A.weight"), 2)),
            Some((module, "lora_b")) => Some((format!("{module}.lora_B.weight"), 2)),
            Some((module, "m")) => Some((format!("{module}.{MAGNITUDE}"), 1)),
            _ => None,
        };
        let Some((renamed, _)) = renamed.filter(|(_, axes)| array.shape.len() == *axes) else {
            return Err(Failure::target(format!("it holds `{name}`, which is not supported")));
        };
        let array = if array.shape.len() == 2 { turned(&array) } else { array };
        arrays.insert(renamed, array);
    }
    Ok(Adapter { arrays, scale: scale as f32 })
}

/// `num_layers` and `keys`: mlx-lm adapts the last layers, each by the same names (`self_attn.q_proj`). What is not so is told
/// by whole names, which it looks for in the model as such.
fn place(targets: &[String], depth: usize) -> (usize, BTreeSet<String>) {
    let parts = |target: &String| -> Option<(usize, String)> {
        let (layer, name) = target.strip_prefix("model.layers.")?.split_once('.')?;
        Some((layer.parse().ok()?, name.to_owned()))
    };
    let (layers, keys): (BTreeSet<usize>, BTreeSet<String>) = targets.iter().filter_map(parts).unzip();
    let last = layers.iter().eq((depth.saturating_sub(layers.len())..depth).collect::<Vec<_>>().iter());
    if last && layers.len() * keys.len() == targets.len() {
        return (layers.len(), keys);
    }
    (0, targets.iter().cloned().collect())
}

fn turned(array: &Array) -> Array {
    let (rows, columns) = (array.shape[0], array.shape[1]);
    let values = (0..rows * columns).map(|at| array.floats()[at % rows * columns + at / rows]).collect();
    Array::f32(&[columns, rows], values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_are_not_the_last_are_told_by_whole_names() {
        let found = |targets: &[&str]| {
            let targets: Vec<String> = targets.iter().map(|t| format!("model.layers.{t}")).collect();
            let (layers, keys) = place(&targets, 3);
            (layers, keys.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(found(&["1.q", "1.v", "2.q", "2.v"]), (2, vec!["q".to_owned(), "v".to_owned()]));
        assert_eq!(found(&["0.q"]), (0, vec!["model.layers.0.q".to_owned()]));
        assert_eq!(found(&["1.q", "2.v"]).0, 0);
    }
}
