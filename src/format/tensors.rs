//! safetensors files, read whole as 32-bit floats and written sorted by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::backend::affine::Float;
use crate::backend::arrays::{Array, Arrays, Values};
use crate::backend::floats;
use crate::failure::Failure;
use crate::util::fs;

/// Reads a file; f16, bf16 and f64 become f32, integers other than u32 and i8 are passed over.
pub fn read(path: &Path) -> Result<Arrays, Failure> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        Failure::target(format!("{} is not a whole safetensors file ({} bytes): {error}", path.display(), bytes.len()))
            .help("it may have been cut off while it was copied: copy or download it again, then build again")
    })?;
    let mut arrays = Arrays::new();
    for (name, view) in file.tensors() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => Values::F32(floats::from_bytes(data, Float::F32)),
            Dtype::F16 => Values::F32(floats::from_bytes(data, Float::F16)),
            Dtype::BF16 => Values::F32(floats::from_bytes(data, Float::Bf16)),
            Dtype::F64 => Values::F32(floats::from_doubles(data)),
            Dtype::U32 => Values::U32(floats::words_from_bytes(data)),
            Dtype::I8 => Values::I8(floats::signed(data)),
            _ => continue,
        };
        arrays.insert(name, Array { shape: view.shape().to_vec(), values });
    }
    Ok(arrays)
}

/// The files that a model directory's weights are in: one, or those its index names, in their order.
pub fn shards(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![dir.join("model.safetensors")]);
    }
    let bad = |why: String| Failure::target(format!("{} is no index of shards: {why}", index.display()));
    let read: serde_json::Value = serde_json::from_str(&fs::read_text(&index)?).map_err(|e| bad(e.to_string()))?;
    let map = read["weight_map"].as_object().ok_or_else(|| bad("it has no `weight_map`".into()))?;
    let names: BTreeSet<&str> = map.values().filter_map(serde_json::Value::as_str).collect();
    for name in &names {
        if !dir.join(name).exists() {
            let lost = map.values().filter(|file| file.as_str() == Some(*name)).count();
            return Err(Failure::target(format!(
                "the shard {} is missing, with {lost} tensors",
                dir.join(name).display()
            ))
            .help("copy or download the model again, with all files that model.safetensors.index.json names"));
        }
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Writes a file, sorted by name: the same arrays give the same bytes.
pub fn write(path: &Path, arrays: &Arrays, metadata: &[(&str, &str)]) -> Result<(), Failure> {
    write_as(path, arrays, metadata, Float::F32)
}

/// The same, with the floats in a number type; what it cannot hold is an error.
pub fn write_as(path: &Path, arrays: &Arrays, metadata: &[(&str, &str)], float: Float) -> Result<(), Failure> {
    let file = to_bytes(arrays, metadata, float).map_err(|f| f.within(path.display()))?;
    Ok(fs::write(path, &file)?)
}

/// The bytes of such a file.
pub fn to_bytes(arrays: &Arrays, metadata: &[(&str, &str)], float: Float) -> Result<Vec<u8>, Failure> {
    for (name, array) in arrays {
        if let Some(value) = floats::too_large(array.floats(), float) {
            return Err(Failure::target(format!("`{name}` holds {value}, which is too large for {float}"))
                .help("write another `dtype`"));
        }
    }
    let dtype = match float {
        Float::F32 => Dtype::F32,
        Float::F16 => Dtype::F16,
        Float::Bf16 => Dtype::BF16,
    };
    let bytes: BTreeMap<&String, (Dtype, Vec<u8>)> = arrays
        .iter()
        .map(|(name, array)| {
            let (dtype, bytes) = match &array.values {
                Values::Codes(matrix) => (dtype, floats::to_bytes(&matrix.expand(), float)),
                Values::F32(v) => (dtype, floats::to_bytes(v, float)),
                Values::I8(v) => (Dtype::I8, floats::unsigned(v)),
                Values::U32(v) => (Dtype::U32, floats::words_to_bytes(v)),
            };
            (name, (dtype, bytes))
        })
        .collect();
    let bad = |e: safetensors::SafeTensorError| Failure::target(format!("cannot be written: {e}"));
    let views = bytes
        .iter()
        .map(|(name, (dtype, data))| Ok((name.as_str(), TensorView::new(*dtype, arrays[*name].shape.clone(), data)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad)?;
    // One entry at most: the library writes metadata in the order of a hash map.
    debug_assert!(metadata.len() <= 1);
    let metadata =
        (!metadata.is_empty()).then(|| metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    safetensors::serialize(views, metadata).map_err(bad)
}
