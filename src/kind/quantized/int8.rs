//! Bytes: each row of a matrix has one scale, and inputs are rounded to bytes as they come. The layout is compressed-tensors'
//! `int-quantized`, which transformers and vLLM load.

use std::path::Path;

use serde_json::{Value, json};

use super::methods::Made;
use super::{Fields, Weighed, check_finite};
use crate::backend::arrays::{Array, Arrays, Values};
use crate::backend::floats;
use crate::backend::int8::Int8;
use crate::failure::Failure;
use crate::format::tensors;
use crate::kind::ActionCx;
use crate::model::copy_companions;
use crate::model::quantized::BYTES_SCALE;
use crate::util::fs;

/// Writes the model. Tables of vectors stay as they are: nothing is multiplied by them but, in some, the last matrix.
pub(super) fn write(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    made: Made,
    base: &Path,
    is_language: bool,
    stays: &dyn Fn(&str) -> bool,
) -> Result<(), Failure> {
    let mut arrays = Arrays::new();
    let mut weights = Weighed::default();
    let mut ignored = Vec::new();
    if is_language {
        // Where it is the embedding's, too, and no tensor has its name.
        ignored.push("lm_head".to_owned());
    }
    let total = made.arrays.len() as u64;
    for (i, (name, array)) in made.arrays.into_iter().enumerate() {
        cx.progress("quantize", i as u64 + 1, total, "tensors");
        weights.all += array.floats().len();
        let module = name.strip_suffix(".weight").unwrap_or_default().to_owned();
        let (&[_, inner] | &[_, inner, 1, 1]) = &array.shape[..] else {
            arrays.insert(name, array);
            continue;
        };
        let is_table = module.contains("embed") || is_language && module == "lm_head";
        if module.is_empty() || is_table || stays(&module) {
            if !module.is_empty() && !ignored.contains(&module) {
                ignored.push(module);
            }
            arrays.insert(name, array);
            continue;
        }
        check_finite(&name, &array)?;
        let (rounded, error) = Int8::round(array.floats(), inner);
        let square = floats::squares(array.floats());
        weights.error(cx, &module, (error / square.max(f64::MIN_POSITIVE)).sqrt());
        weights.packed += array.floats().len();
        let rows = rounded.rows;
        arrays.insert(format!("{module}.{BYTES_SCALE}"), Array::f32(&[rows, 1], rounded.scales));
        arrays.insert(name, Array { shape: vec![rows, inner], values: Values::I8(rounded.codes) });
    }
    let out = cx.out().to_owned();
    tensors::write(&out.join("model.safetensors"), &arrays, &[("format", "pt")])?;
    let mut config: Value = serde_json::from_str(&fs::read_text(&base.join("config.json"))?)
        .map_err(|e| Failure::target(format!("config.json: {e}")))?;
    let bytes = |strategy: &str, dynamic: bool| json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": strategy, "dynamic": dynamic});
    config["quantization_config"] = json!({
        "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": bytes("channel", false), "input_activations": bytes("token", true),
            "format": "int-quantized",
        }},
        "ignore": ignored,
    });
    if let Some(settings) = config.as_object_mut() {
        settings.remove("quantization");
    }
    fs::write(&out.join("config.json"), serde_json::to_string_pretty(&config).expect("plain").as_bytes())?;
    copy_companions(base, &out)?;
    weights.conclude(
        cx,
        fields,
        "model.safetensors",
        "transformers",
        "rounded to bytes by row, inputs to bytes by token",
    )
}
