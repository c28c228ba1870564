//! GGUF files, read by candle's reader: metadata, and tensors expanded to 32-bit floats. Version 1 to 3; F32, F16, BF16,
//! the legacy quantizations (Q4_0 to Q8_1) and the K-quants (Q2_K to Q8_K).

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{self, Content, TensorInfo, Value};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::f16;
use rayon::prelude::*;

use super::affine::Float;
use super::blocks::Blocks;
use super::floats;
use super::qmatrix::{BLOCK, Groups};
use crate::arrays::{Array, Arrays};

/// What a file of this format is not, or what it holds that is not known.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be read at all.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ends too early, or is another format's.
    #[error("{} is not a whole GGUF file: {why}", path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// In which respect.
        why: String,
    },
    /// A tensor of a number type that candle's reader has not.
    #[error("{} holds a tensor of GGUF type {number}, which is not known", path.display())]
    UnknownType {
        /// The file.
        path: PathBuf,
        /// `ggml_type`'s number.
        number: String,
    },
    /// Within one tensor.
    #[error("tensor `{name}`: {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// What.
        source: Box<GgufError>,
    },
    /// It cannot be written.
    #[error("cannot write GGUF: {0}")]
    Write(String),
    /// Bytes that are no blocks of that form.
    #[error("blocks of {form} cannot be expanded: {why}")]
    Blocks {
        /// The form.
        form: &'static str,
        /// Why.
        why: String,
    },
}

impl GgufError {
    /// The next step.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotWhole { .. } => {
                Some("it may have been cut off while it was copied: copy or download it again, then build again")
            }
            Self::UnknownType { .. } => {
                Some("effai reads F32, F16, BF16, Q4_0 to Q8_1 and the K-quants; convert the file to one of these")
            }
            Self::Tensor { source, .. } => source.help(),
            Self::Io { .. } | Self::Write(_) | Self::Blocks { .. } => None,
        }
    }
}

/// A file, its header read.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    content: Content,
}

impl Gguf {
    /// Reads the header.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let mut reader = BufReader::new(open(path)?);
        let content = Content::read(&mut reader).map_err(|e| bad(path, &e))?;
        let end = |info: &TensorInfo| {
            let blocks = info.shape.elem_count() / info.ggml_dtype.block_size();
            content.tensor_data_offset + info.offset + (blocks * info.ggml_dtype.type_size()) as u64
        };
        let needed = content.tensor_infos.values().map(end).max().unwrap_or(0);
        let bytes = reader.get_ref().metadata().map_err(|source| io(path, source))?.len();
        if bytes < needed {
            return Err(GgufError::NotWhole { path: path.to_owned(), why: format!("{bytes} bytes of {needed}") });
        }
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

    /// Each tensor's name and the length of its axes.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.content.tensor_infos.iter().map(|(name, info)| (name.as_str(), info.shape.dims()))
    }

    /// How many numbers its tensors hold.
    pub fn parameters(&self) -> usize {
        self.content.tensor_infos.values().map(|info| info.shape.elem_count()).sum()
    }

    /// All tensors, expanded to floats; matrices as their codes where that is asked for and they are of [`Groups`]' form.
    pub fn arrays(&self, keep_codes: bool) -> Result<Arrays, GgufError> {
        let read = |name: &String| -> Result<(String, Array), GgufError> {
            let mut file = open(&self.path)?;
            let bad =
                |e: candle_core::Error| GgufError::Tensor { name: name.clone(), source: Box::new(bad(&self.path, &e)) };
            let tensor = self.content.tensor(&mut file, name, &Device::Cpu).map_err(bad)?;
            let shape = tensor.shape().dims().to_vec();
            if keep_codes && let [rows, inner] = shape[..] {
                let bytes = tensor.data().map_err(bad)?;
                if let Some(matrix) = codes(tensor.dtype(), &bytes, rows, inner) {
                    return Ok((name.clone(), Array::codes(matrix)));
                }
            }
            let tensor = tensor.dequantize(&Device::Cpu).map_err(bad)?;
            let values = tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(bad)?;
            Ok((name.clone(), Array::f32(&shape, values)))
        };
        let names: Vec<&String> = self.content.tensor_infos.keys().collect();
        names.into_par_iter().map(read).collect()
    }
}

/// A fact of a file's metadata, to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A text.
    Text(String),
    /// A whole number.
    Number(u32),
    /// A number that may have a fraction.
    Float(f32),
    /// A truth value.
    Flag(bool),
    /// Texts.
    Texts(Vec<String>),
    /// Whole numbers.
    Numbers(Vec<i32>),
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name, as llama.cpp calls it.
    pub name: String,
    /// The length of each axis, row-major.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: StoredValues,
}

/// Values of a tensor to be written.
#[derive(Clone, Debug)]
pub enum StoredValues {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// The same, to be written as floats of 16 bits, which hold them.
    F16(Vec<f32>),
    /// Blocks, and the bytes of whole ones.
    Blocks(Blocks, Vec<u8>),
}

/// The bytes of a file, by candle's writer: version 2, which llama.cpp reads like 3.
pub fn write(facts: &[(String, Fact)], tensors: &[Stored]) -> Result<Vec<u8>, GgufError> {
    let facts: Vec<(&str, Value)> = facts.iter().map(|(key, fact)| (key.as_str(), value(fact))).collect();
    let facts: Vec<(&str, &Value)> = facts.iter().map(|(key, value)| (*key, value)).collect();
    let quantized = |tensor: &Stored| -> candle_core::Result<QTensor> {
        let shape = tensor.shape.as_slice();
        let storage = match &tensor.values {
            StoredValues::F32(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                QStorage::from_data(bytes.into(), &Device::Cpu, GgmlDType::F32)?
            }
            StoredValues::F16(values) => {
                QStorage::from_data(floats::to_bytes(values, Float::F16).into(), &Device::Cpu, GgmlDType::F16)?
            }
            StoredValues::Blocks(form, bytes) => QStorage::from_data(bytes.into(), &Device::Cpu, kind(*form))?,
        };
        QTensor::new(storage, shape)
    };
    let failed = |e: candle_core::Error| GgufError::Write(e.to_string());
    let made = tensors.iter().map(quantized).collect::<candle_core::Result<Vec<_>>>().map_err(failed)?;
    let named: Vec<(&str, &QTensor)> = tensors.iter().map(|t| t.name.as_str()).zip(&made).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &facts, &named).map_err(failed)?;
    Ok(bytes.into_inner())
}

fn value(fact: &Fact) -> Value {
    match fact {
        Fact::Text(text) => Value::String(text.clone()),
        Fact::Number(number) => Value::U32(*number),
        Fact::Float(number) => Value::F32(*number),
        Fact::Flag(flag) => Value::Bool(*flag),
        Fact::Texts(texts) => Value::Array(texts.iter().cloned().map(Value::String).collect()),
        Fact::Numbers(numbers) => Value::Array(numbers.iter().copied().map(Value::I32).collect()),
    }
}

/// The weights that blocks stand for, by candle's reader; `bytes` are whole blocks of `count` weights.
pub fn expand(form: Blocks, bytes: &[u8], count: usize) -> Result<Vec<f32>, GgufError> {
    let failed = |e: candle_core::Error| GgufError::Blocks { form: form.name(), why: e.to_string() };
    let storage = QStorage::from_data(bytes.into(), &Device::Cpu, kind(form)).map_err(failed)?;
    let tensor = QTensor::new(storage, (count,)).map_err(failed)?;
    tensor.dequantize(&Device::Cpu).and_then(|t| t.to_vec1()).map_err(failed)
}

/// candle's name of a form.
pub(super) fn kind(form: Blocks) -> GgmlDType {
    match form {
        Blocks::Q8_0 => GgmlDType::Q8_0,
        Blocks::Q4_0 => GgmlDType::Q4_0,
        Blocks::Q4_1 => GgmlDType::Q4_1,
        Blocks::Q5_0 => GgmlDType::Q5_0,
        Blocks::Q4K => GgmlDType::Q4K,
        Blocks::Q6K => GgmlDType::Q6K,
    }
}

/// A quantized matrix as it lies in the file (llama.cpp's `ggml-common.h` has the blocks) as codes, scales and biases;
/// none for types that are not of that form.
fn codes(kind: GgmlDType, bytes: &[u8], rows: usize, inner: usize) -> Option<Groups> {
    if !inner.is_multiple_of(if kind == GgmlDType::Q4K { 256 } else { BLOCK }) {
        return None;
    }
    let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
    let (size, bits) = match kind {
        GgmlDType::Q4_0 => (18, 4),
        GgmlDType::Q4_1 => (20, 4),
        GgmlDType::Q5_0 => (22, 8),
        GgmlDType::Q5_1 => (24, 8),
        GgmlDType::Q8_0 => (34, 8),
        GgmlDType::Q4K => (144, 4),
        _ => return None,
    };
    let (mut all, mut scales, mut biases) = (Vec::with_capacity(rows * inner), Vec::new(), Vec::new());
    for block in bytes.chunks_exact(size) {
        let scale = half(block);
        // Sixteen bytes of two codes each, the low halves first.
        let nibbles = |bytes: &[u8]| -> [u8; BLOCK] { std::array::from_fn(|i| bytes[i % 16] >> (i / 16 * 4) & 15) };
        // ... and a fifth bit of each.
        let fifth = |bytes: &[u8], i: usize| (bytes[i / 8] >> (i % 8) & 1) << 4;
        let (codes, bias): ([u8; BLOCK], f32) = match kind {
            GgmlDType::Q4_0 => (nibbles(&block[2..]), -8.0 * scale),
            GgmlDType::Q4_1 => (nibbles(&block[4..]), half(&block[2..])),
            GgmlDType::Q5_0 | GgmlDType::Q5_1 => {
                let at = if kind == GgmlDType::Q5_0 { 2 } else { 4 };
                let low = nibbles(&block[at + 4..]);
                let bias = if at == 2 { -16.0 * scale } else { half(&block[2..]) };
                (std::array::from_fn(|i| low[i] | fifth(&block[at..at + 4], i)), bias)
            }
            GgmlDType::Q8_0 => (std::array::from_fn(|i| block[2 + i].wrapping_add(128)), -128.0 * scale),
            _ => {
                let (least, packed) = (half(&block[2..]), &block[4..16]);
                for j in 0..8 {
                    let (s, m) = six_bits(packed, j);
                    scales.push(scale * f32::from(s));
                    biases.push(-least * f32::from(m));
                    let bytes = &block[16 + j / 2 * BLOCK..][..BLOCK];
                    all.extend(bytes.iter().map(|b| b >> (j % 2 * 4) & 15));
                }
                continue;
            }
        };
        all.extend(codes);
        scales.push(scale);
        biases.push(bias);
    }
    (all.len() == rows * inner).then(|| Groups::new(rows, inner, BLOCK, bits, &all, scales, biases))
}

/// Scale and minimum number j of the eight that a Q4_K block packs in twelve bytes, six bits each.
fn six_bits(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        return (packed[j] & 63, packed[j + 4] & 63);
    }
    let high = |at: usize| packed[at] >> 6 << 4;
    (packed[j + 4] & 15 | high(j - 4), packed[j + 4] >> 4 | high(j))
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

#[expect(clippy::disallowed_methods, reason = "the error names the path")]
fn open(path: &Path) -> Result<File, GgufError> {
    File::open(path).map_err(|source| io(path, source))
}

fn io(path: &Path, source: std::io::Error) -> GgufError {
    GgufError::Io { path: path.to_owned(), source }
}

fn bad(path: &Path, error: &candle_core::Error) -> GgufError {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let path = path.to_owned();
    match first.strip_prefix("unknown dtype for tensor ") {
        Some(number) => GgufError::UnknownType { path, number: number.to_owned() },
        None => GgufError::NotWhole { path, why: first.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    #[test]
    fn codes_are_the_weights_to_the_last_bit() {
        let kinds =
            [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1, GgmlDType::Q8_0, GgmlDType::Q4K];
        let floats = candle_core::Tensor::from_vec(random(3 * 512, "w"), (3, 512), &Device::Cpu).expect("fits");
        for kind in kinds {
            let quantized = QTensor::quantize(&floats, kind).expect("quantized");
            let matrix = codes(kind, &quantized.data().expect("bytes"), 3, 512).expect("of that form");
            let expected = quantized.dequantize(&Device::Cpu).and_then(|t| t.flatten_all()?.to_vec1()).expect("floats");
            assert_eq!(matrix.expand(), expected as Vec<f32>, "{kind:?}");
        }
        assert!(codes(GgmlDType::Q6K, &[0; 210], 1, 256).is_none());
    }
}
