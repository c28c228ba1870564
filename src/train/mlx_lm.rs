//! LoRA adapters in mlx-lm's layout: `MODULE.lora_a` [in, rank] and `MODULE.lora_b` [rank, out], the transposes of PEFT's.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::peft::Settings;
use crate::failure::Failure;
use crate::format::tensors::{self, Array, Arrays};
use crate::util::fs;

/// Writes `adapters.safetensors` and `adapter_config.json`.
pub fn write(dir: &Path, settings: &Settings<'_>, scale: f64, arrays: &Arrays) -> Result<(), Failure> {
    let mut out = Arrays::new();
    for (name, array) in arrays {
        let Some((module, which)) = name.strip_suffix(".weight").and_then(|name| name.rsplit_once(".lora_")) else {
            continue;
        };
        out.insert(format!("{module}.lora_{}", which.to_lowercase()), turned(array));
    }
    // `model.layers.3.self_attn.q_proj`: mlx-lm adapts whole layers from the last on, each by the same names.
    let parts = |target: &str| -> Option<(usize, String)> {
        let (layer, name) = target.strip_prefix("model.layers.")?.split_once('.')?;
        Some((layer.parse().ok()?, name.to_owned()))
    };
    let (layers, keys): (BTreeSet<usize>, BTreeSet<String>) =
        settings.targets.iter().filter_map(|target| parts(target)).unzip();
    let config = json!({
        "fine_tune_type": "lora",
        "num_layers": layers.len(),
        "lora_parameters": {"rank": settings.rank, "scale": scale, "dropout": settings.dropout, "keys": keys},
        "model": settings.base,
    });
    let text = serde_json::to_string_pretty(&config).expect("plain data");
    fs::write(&dir.join("adapter_config.json"), text.as_bytes())?;
    tensors::write(&dir.join("adapters.safetensors"), &out, &[("format", "mlx")])
}

fn turned(array: &Array) -> Array {
    let (rows, columns) = (array.shape[0], array.shape[1]);
    let values = (0..rows * columns).map(|at| array.floats()[at % rows * columns + at / rows]).collect();
    Array::f32(&[columns, rows], values)
}
