//! GGUF files, read by candle's reader: metadata, and tensors expanded to 32-bit floats. Version 1 to 3; F32, F16, BF16,
//! the legacy quantizations (Q4_0 to Q8_1) and the K-quants (Q2_K to Q8_K).

use std::io::BufReader;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use rayon::prelude::*;

use crate::failure::Failure;
use crate::format::tensors::{Array, Arrays};
use crate::util::fs;

/// A file, its header read.
#[derive(Debug)]
pub struct Gguf {
    path: std::path::PathBuf,
    content: Content,
}

impl Gguf {
    /// Reads the header.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let mut reader = BufReader::new(fs::open(path)?);
        let content = Content::read(&mut reader).map_err(|e| bad(path, &e))?;
        Ok(Self { path: path.to_owned(), content })
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number of the metadata.
    pub fn number(&self, key: &str) -> Option<usize> {
        number(self.content.metadata.get(key)?)
    }

    /// A number of the metadata that may have a fraction.
    pub fn float(&self, key: &str) -> Option<f32> {
        match self.content.metadata.get(key)? {
            Value::F32(value) => Some(*value),
            Value::F64(value) => Some(*value as f32),
            other => number(other).map(|n| n as f32),
        }
    }

    /// A truth value of the metadata.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.content.metadata.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A list of texts of the metadata.
    pub fn texts(&self, key: &str) -> Option<Vec<&str>> {
        let Value::Array(all) = self.content.metadata.get(key)? else { return None };
        all.iter().map(|v| if let Value::String(text) = v { Some(text.as_str()) } else { None }).collect()
    }

    /// A list of whole numbers of the metadata.
    pub fn numbers(&self, key: &str) -> Option<Vec<usize>> {
        let Value::Array(all) = self.content.metadata.get(key)? else { return None };
        all.iter().map(number).collect()
    }

    /// Whether it has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// How many numbers its tensors hold.
    pub fn parameters(&self) -> usize {
        self.content.tensor_infos.values().map(|info| info.shape.elem_count()).sum()
    }

    /// All tensors, expanded.
    pub fn arrays(&self) -> Result<Arrays, Failure> {
        let read = |name: &String| -> Result<(String, Array), Failure> {
            let mut file = fs::open(&self.path)?;
            let bad = |e: candle_core::Error| bad(&self.path, &e).within(format!("tensor `{name}`"));
            let tensor = self.content.tensor(&mut file, name, &Device::Cpu).map_err(bad)?;
            let tensor = tensor.dequantize(&Device::Cpu).map_err(bad)?;
            let shape = tensor.dims().to_vec();
            let values = tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(bad)?;
            Ok((name.clone(), Array::f32(&shape, values)))
        };
        let names: Vec<&String> = self.content.tensor_infos.keys().collect();
        names.into_par_iter().map(read).collect()
    }
}

fn number(value: &Value) -> Option<usize> {
    match *value {
        Value::U8(n) => Some(n.into()),
        Value::U16(n) => Some(n.into()),
        Value::U32(n) => usize::try_from(n).ok(),
        Value::U64(n) => usize::try_from(n).ok(),
        Value::I8(n) => usize::try_from(n).ok(),
        Value::I16(n) => usize::try_from(n).ok(),
        Value::I32(n) => usize::try_from(n).ok(),
        Value::I64(n) => usize::try_from(n).ok(),
        _ => None,
    }
}

fn bad(path: &Path, error: &candle_core::Error) -> Failure {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    if let Some(number) = first.strip_prefix("unknown dtype for tensor ") {
        return Failure::target(format!("{} holds a tensor of GGUF type {number}, which is not known", path.display()))
            .help("effai reads F32, F16, BF16, Q4_0 to Q8_1 and the K-quants; convert the file to one of these");
    }
    Failure::target(format!("{} is not a whole GGUF file: {first}", path.display()))
        .help("it may have been cut off while it was copied: copy or download it again, then build again")
}
