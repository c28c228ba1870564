//! What a program has of constants: in itself, in the file of weights, and by operators that expand them.

use rten_tensor::Tensor;
use rten_tensor::prelude::*;

use super::super::proto::{self, Bound};
use super::{Held, element, refused};
use crate::failure::Failure;

/// `weight.bin`.
pub(super) struct File<'a> {
    bytes: &'a [u8],
}

/// At the beginning of a blob's record.
const SENTINEL: u64 = 0xdead_beef;
/// All that begins does so at a multiple of it.
const ALIGNMENT: u64 = 64;

/// An element type's number in the file of weights, and bits of a value.
fn in_file(kind: i32) -> Option<(u64, usize)> {
    Some(match kind {
        element::FLOAT16 => (1, 16),
        element::FLOAT32 => (2, 32),
        element::UINT8 => (3, 8),
        element::INT8 => (4, 8),
        element::INT4 => (8, 4),
        element::UINT1 => (9, 1),
        element::UINT4 => (11, 4),
        element::UINT6 => (13, 6),
        _ => return None,
    })
}

impl<'a> File<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Failure> {
        let file = Self { bytes };
        match file.number(4, 4) {
            Some(2) => Ok(file),
            version => Err(refused(format!("the file of weights has the version {version:?}"))),
        }
    }

    fn number(&self, at: u64, bytes: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// So many values of a kind, by where their record is.
    fn read(&self, at: u64, kind: i32, count: usize) -> Option<&'a [u8]> {
        let (own, bits) = in_file(kind)?;
        let [sentinel, found] = [self.number(at, 4)?, self.number(at + 4, 4)?];
        let [size, from, unused] = [self.number(at + 8, 8)?, self.number(at + 16, 8)?, self.number(at + 24, 8)?];
        let is_whole = size * 8 == (count * bits) as u64 + unused && unused < 8;
        let is_it =
            sentinel == SENTINEL && found == own && at.is_multiple_of(ALIGNMENT) && from.is_multiple_of(ALIGNMENT);
        let from = usize::try_from(from).ok()?;
        self.bytes.get(from..from.checked_add(usize::try_from(size).ok()?)?).filter(|_| is_whole && is_it)
    }
}

/// Codes of so many bits, the lowest bit first.
fn unpacked(bytes: &[u8], bits: usize, count: usize) -> Option<Vec<i32>> {
    let bit = |at: usize| bytes.get(at / 8).map(|byte| i32::from(byte >> (at % 8) & 1));
    (0..count).map(|i| (0..bits).try_fold(0, |code, own| Some(code | bit(i * bits + own)? << own))).collect()
}

/// Values of a kind by their bytes.
fn by_bytes(kind: i32, shape: &[usize], bytes: &[u8]) -> Option<Held> {
    let count: usize = shape.iter().product();
    let ints = |values: Vec<i32>| (values.len() == count).then(|| Held::Ints(Tensor::from_data(shape, values)));
    let floats = |values: Vec<f32>| (values.len() == count).then(|| Held::Floats(Tensor::from_data(shape, values)));
    match kind {
        element::FLOAT32 => floats(bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()),
        element::FLOAT16 => {
            floats(bytes.as_chunks().0.iter().map(|two| half::f16::from_le_bytes(*two).to_f32()).collect())
        }
        element::UINT8 => ints(bytes.iter().map(|byte| i32::from(*byte)).collect()),
        element::INT8 => ints(bytes.iter().map(|byte| i32::from(byte.cast_signed())).collect()),
        element::UINT32 => ints(bytes.as_chunks().0.iter().map(|four| i32::from_le_bytes(*four)).collect()),
        element::INT4 => {
            let codes = unpacked(bytes, 4, count)?;
            ints(codes.into_iter().map(|code| if code > 7 { code - 16 } else { code }).collect())
        }
        element::UINT4 => ints(unpacked(bytes, 4, count)?),
        element::UINT1 => ints(unpacked(bytes, 1, count)?),
        element::UINT6 => ints(unpacked(bytes, 6, count)?),
        _ => None,
    }
}

fn decode(value: &proto::Value, file: &File<'_>) -> Option<Held> {
    let own = value.r#type.as_ref()?.tensor_type.as_ref()?;
    let length = |own: &proto::Dimension| match &own.length {
        Some(proto::Length::Constant(own)) => usize::try_from(own.size).ok(),
        _ => None,
    };
    let shape: Vec<usize> = own.dimensions.iter().map(length).collect::<Option<_>>()?;
    let count: usize = shape.iter().product();
    let ints = |values: Vec<i32>| (values.len() == count).then(|| Held::Ints(Tensor::from_data(&shape[..], values)));
    match value.held.as_ref()? {
        proto::Held::Blob(blob) => by_bytes(own.data_type, &shape, file.read(blob.offset, own.data_type, count)?),
        proto::Held::Immediate(immediate) => match (own.data_type, immediate.tensor.as_ref()?.values.as_ref()?) {
            (element::FLOAT32, proto::Values::Floats(all)) if all.values.len() == count => {
                Some(Held::Floats(Tensor::from_data(&shape[..], all.values.clone())))
            }
            (element::INT32, proto::Values::Ints(all)) => ints(all.values.clone()),
            (element::BOOL, proto::Values::Bools(all)) => ints(all.values.iter().map(|v| i32::from(*v)).collect()),
            (element::STRING, proto::Values::Strings(all)) => all.values.first().cloned().map(Held::Text),
            (kind, proto::Values::Bytes(all)) => by_bytes(kind, &shape, &all.values),
            _ => None,
        },
    }
}

/// The value of an operation that needs no tensor of the program; none where it is another.
pub(super) fn constant(operation: &proto::Operation, file: &File<'_>) -> Result<Option<Held>, Failure> {
    let op = &operation.r#type[..];
    if op != "const" && !op.starts_with("constexpr_") {
        return Ok(None);
    }
    let name = operation.outputs.first().map_or("", |output| &output.name);
    let wrong = |part: &str| refused(format!("`{part}` of `{name}` cannot be read"));
    let part = |part: &str| -> Result<Held, Failure> {
        let bound = operation.inputs.get(part).and_then(|argument| argument.arguments.first()?.bound.as_ref());
        let value = match bound {
            Some(Bound::Value(value)) => Some(value),
            _ => operation.attributes.get(part),
        };
        value.and_then(|value| decode(value, file)).ok_or_else(|| wrong(part))
    };
    let floats = |name: &str| match part(name)? {
        Held::Floats(tensor) => Ok(tensor),
        _ => Err(wrong(name)),
    };
    let ints = |name: &str| match part(name)? {
        Held::Ints(tensor) => Ok(tensor),
        _ => Err(wrong(name)),
    };
    // What up to iOS 17 says its shape beside it is flat.
    let shape_of = |packed: &Tensor<i32>| match operation.attributes.contains_key("shape") {
        true => Ok(ints("shape")?.iter().map(|n| *n as usize).collect::<Vec<_>>()),
        false => Ok::<_, Failure>(packed.shape().to_vec()),
    };
    let value = match op {
        "const" => part("val")?,
        "constexpr_cast" => Held::Floats(floats("source_val")?),
        "constexpr_affine_dequantize" => {
            let (codes, zeros, scales) = (ints("quantized_data")?, ints("zero_point")?, floats("scale")?);
            if ints("axis")?.iter().ne([&0]) || zeros.len() != scales.len() || codes.shape()[0] != scales.len() {
                return Err(wrong("scale"));
            }
            let (zeros, scales, inner) = (zeros.to_vec(), scales.to_vec(), codes.len() / codes.shape()[0]);
            let each = codes.iter().enumerate();
            let values: Vec<f32> = each.map(|(i, code)| scales[i / inner] * (code - zeros[i / inner]) as f32).collect();
            Held::Floats(Tensor::from_data(codes.shape(), values))
        }
        "constexpr_blockwise_shift_scale" => {
            let (codes, scales) = (ints("data")?, floats("scale")?);
            let offsets = operation.inputs.contains_key("offset").then(|| floats("offset")).transpose()?;
            let offsets = offsets.map_or(vec![0.0; scales.len()], |offsets| offsets.to_vec());
            let shape = codes.shape().to_vec();
            let of_scales = scales.shape().to_vec();
            let divides = |(n, count): (&usize, &usize)| *count > 0 && n.is_multiple_of(*count);
            if of_scales.len() != shape.len()
                || !shape.iter().zip(&of_scales).all(divides)
                || offsets.len() != scales.len()
            {
                return Err(wrong("scale"));
            }
            let scales = scales.to_vec();
            let mut at = vec![0; shape.len()];
            let mut values = Vec::with_capacity(codes.len());
            for code in codes.iter() {
                let block = (0..shape.len())
                    .fold(0, |block, axis| block * of_scales[axis] + at[axis] * of_scales[axis] / shape[axis]);
                values.push(scales[block] * (*code as f32 - offsets[block]));
                for axis in (0..shape.len()).rev() {
                    at[axis] += 1;
                    if at[axis] < shape[axis] {
                        break;
                    }
                    at[axis] = 0;
                }
            }
            Held::Floats(Tensor::from_data(&shape[..], values))
        }
        "constexpr_lut_to_dense" => {
            let (indices, lut) = (ints("indices")?, floats("lut")?.to_vec());
            let (shape, count) = (shape_of(&indices)?, lut.len());
            let codes = if operation.attributes.contains_key("shape") {
                let bytes: Vec<u8> = indices.iter().map(|byte| *byte as u8).collect();
                unpacked(&bytes, count.ilog2() as usize, shape.iter().product()).ok_or_else(|| wrong("indices"))?
            } else {
                indices.to_vec()
            };
            let values: Option<Vec<f32>> = codes.iter().map(|code| lut.get(*code as usize).copied()).collect();
            Held::Floats(Tensor::from_data(&shape[..], values.ok_or_else(|| wrong("lut"))?))
        }
        "constexpr_sparse_to_dense" => {
            let (kept, mask) = (floats("nonzero_data")?, ints("mask")?);
            let shape = shape_of(&mask)?;
            let mask = if operation.attributes.contains_key("shape") {
                let bytes: Vec<u8> = mask.iter().map(|byte| *byte as u8).collect();
                unpacked(&bytes, 1, shape.iter().product()).ok_or_else(|| wrong("mask"))?
            } else {
                mask.to_vec()
            };
            let mut kept = kept.iter();
            let values = mask.iter().map(|is_kept| if *is_kept == 1 { kept.next().copied() } else { Some(0.0) });
            let values: Vec<f32> = values.collect::<Option<_>>().ok_or_else(|| wrong("nonzero_data"))?;
            if kept.next().is_some() {
                return Err(wrong("nonzero_data"));
            }
            Held::Floats(Tensor::from_data(&shape[..], values))
        }
        _ => return Err(refused(format!("`{op}` of `{name}` is not known"))),
    };
    Ok(Some(value))
}
