//! MLX's layout: codes, scales and biases in a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::methods::Made;
use super::{Fields, Weighed, check_finite};
use crate::backend::affine::{Form, Per};
use crate::backend::arrays::Arrays;
use crate::failure::Failure;
use crate::format::tensors;
use crate::kind::ActionCx;
use crate::model::copy_companions;
use crate::model::quantized::{self, Grids};
use crate::util::fs;

/// Writes the model: matrices that `made` has codes for as these, other ones to the nearest.
pub(super) fn write(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    made: Made,
    base: &Path,
    form: &Form,
    stays: &dyn Fn(&str) -> bool,
) -> Result<(), Failure> {
    let Made { arrays: given, mut codes, bits } = made;
    let mut arrays = Arrays::new();
    let mut weights = Weighed::default();
    let mut own = BTreeMap::new();
    let total = given.len() as u64;
    for (i, (name, array)) in given.into_iter().enumerate() {
        cx.progress("quantize", i as u64 + 1, total, "tensors");
        weights.all += array.floats().len();
        let module = name.strip_suffix(".weight").unwrap_or_default().to_owned();
        let (&[_, inner] | &[_, inner, 1, 1]) = &array.shape[..] else {
            arrays.insert(name, array);
            continue;
        };
        if module.is_empty() || stays(&module) {
            arrays.insert(name, array);
            continue;
        }
        if inner % form.group != 0 {
            weights.passed_over.push((module, inner));
            arrays.insert(name, array);
            continue;
        }
        check_finite(&name, &array)?;
        let form = match bits.get(&module) {
            Some(bits) => Form { bits: *bits, ..*form },
            None => *form,
        };
        let packed = match codes.remove(&module) {
            Some(made) => quantized::packed(array.floats(), made, inner, &form),
            None => quantized::pack(array.floats(), inner, &form),
        };
        weights.packed += array.floats().len();
        weights.error(cx, &module, packed.relative_error);
        if bits.contains_key(&module) {
            own.insert(module.clone(), (form.bits, form.group));
        }
        packed.insert(&module, &mut arrays);
    }
    let out = cx.out().to_owned();
    tensors::write_as(&out.join("model.safetensors"), &arrays, &[("format", "mlx")], form.float)?;
    let mut config: Value = serde_json::from_str(&fs::read_text(&base.join("config.json"))?)
        .map_err(|e| Failure::target(format!("config.json: {e}")))?;
    Grids { all: (form.bits, form.group), own }.write(&mut config);
    fs::write(&out.join("config.json"), serde_json::to_string_pretty(&config).expect("plain").as_bytes())?;
    copy_companions(base, &out)?;
    let shared = match form.per {
        Per::Group => format!("in groups of {}", form.group),
        Per::Channel => "with one grid a row".to_owned(),
        Per::Tensor => "with one grid a matrix".to_owned(),
    };
    let widths = if bits.is_empty() { format!("to {} bits", form.bits) } else { "to bits by matrix".to_owned() };
    weights.conclude(cx, fields, "model.safetensors", "mlx", &format!("rounded {widths} {shared}"))
}
