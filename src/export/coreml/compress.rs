//! Weights in fewer bits, by operators that Core ML undoes when it loads them or as it computes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lower::{Kind, Lower, fixed, float_bytes, text};
use super::proto::{self, Bound};
use super::{CoremlError, Target};
use crate::backend::floats;
use crate::backend::int8::Int8;
use crate::backend::palette;
use crate::backend::qmatrix::{Groups, QMatrix};
use crate::export::format::{HALVES_MIN, Precision};

/// Weights that share a scale.
const BLOCK: usize = 32;

/// An argument of an operator of weights: its name, kind, shape, bytes.
type Part<'a> = (&'a str, Kind, &'a [usize], Vec<u8>);

impl Lower<'_> {
    /// A constant of the model as the file keeps it.
    pub(super) fn weight(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Result<String, CoremlError> {
        let is_half = self.precision == Precision::F16Weights;
        let least = if is_half { HALVES_MIN } else { self.weight_threshold + 1 };
        if dims.len() < 2 || values.len() < least {
            return self.floats(name, dims, values);
        }
        let inner = values.len() / dims[0];
        let is_newest = self.target >= Target::IOS18;
        Ok(match self.precision {
            Precision::F32
            | Precision::F16
            | Precision::Int8
            | Precision::Int8Calibrated
            | Precision::Bf16
            | Precision::Stored => {
                return self.floats(name, dims, values);
            }
            Precision::F16Weights => {
                if let Some(value) = floats::too_large(values, crate::backend::affine::Float::F16) {
                    return Err(CoremlError::TooLarge { name: name.to_owned(), value });
                }
                let parts = [("source_val", Kind::Float16, dims, float_bytes(values, Kind::Float16))];
                self.constexpr("constexpr_cast", name, dims, &parts, &[("output_dtype", text("fp32"))])
            }
            Precision::Int8Weights if is_newest => self.blockwise(name, dims, values, Kind::Int8),
            Precision::Int8Weights => {
                let rounded = Int8::round(values, inner).0;
                let (codes, scales) = (floats::unsigned(&rounded.codes), float_bytes(&rounded.scales, Kind::Float32));
                let count = [dims[0]];
                let parts = [
                    ("quantized_data", Kind::Int8, dims, codes),
                    ("zero_point", Kind::Int8, &count[..], vec![0; dims[0]]),
                    ("scale", Kind::Float32, &count[..], scales),
                ];
                let axis = proto::Values::Ints(proto::Ints { values: vec![0] });
                let axis = [("axis", super::lower::immediate(Kind::Int32, &[], axis))];
                self.constexpr("constexpr_affine_dequantize", name, dims, &parts, &axis)
            }
            Precision::Palette6Weights => self.palette(name, dims, values, 6),
            Precision::Palette4Weights => self.palette(name, dims, values, 4),
            Precision::SparseWeights => {
                let kept: Vec<f32> = values.iter().copied().filter(|weight| *weight != 0.0).collect();
                let mask = packed(values.iter().map(|weight| u8::from(*weight != 0.0)), 1);
                let (count, bytes, rank) = ([kept.len()], [mask.len()], [dims.len()]);
                let kept = ("nonzero_data", Kind::Float32, &count[..], float_bytes(&kept, Kind::Float32));
                if is_newest {
                    self.constexpr(
                        "constexpr_sparse_to_dense",
                        name,
                        dims,
                        &[kept, ("mask", Kind::Uint1, dims, mask)],
                        &[],
                    )
                } else {
                    let parts = [kept, ("mask", Kind::Uint8, &bytes[..], mask), of_shape(dims, &rank)];
                    self.constexpr("constexpr_sparse_to_dense", name, dims, &parts, &[])
                }
            }
            Precision::Int4Weights => self.blockwise(name, dims, values, Kind::Int4),
        })
    }

    /// Signed codes with a scale for each block along the inner axis of a matrix or of a kernel's inputs, or for each row
    /// where blocks do not divide it.
    fn blockwise(&mut self, name: &str, dims: &[usize], values: &[f32], kind: Kind) -> String {
        let block = if dims[1].is_multiple_of(BLOCK) { BLOCK } else { dims[1] };
        let bits = if kind == Kind::Int4 { 4 } else { 8 };
        let (codes, scales) = blocks(values, dims, block, bits);
        let mut of_scales: Vec<usize> =
            dims.iter().enumerate().map(|(axis, n)| if axis == 0 { *n } else { 1 }).collect();
        of_scales[1] = dims[1] / block;
        let parts = [
            ("data", kind, dims, packed(codes.into_iter(), bits)),
            ("scale", Kind::Float32, &of_scales[..], float_bytes(&scales, Kind::Float32)),
        ];
        self.constexpr("constexpr_blockwise_shift_scale", name, dims, &parts, &[])
    }

    /// Numbers of the values of a palette, which is of all weights together.
    fn palette(&mut self, name: &str, dims: &[usize], values: &[f32], bits: usize) -> String {
        let (palette, codes) = palette::of(values, 1 << bits);
        let (codes, lut) = (packed(codes.into_iter(), bits), float_bytes(&palette, Kind::Float32));
        if self.target >= Target::IOS18 {
            let kind = if bits == 4 { Kind::Uint4 } else { Kind::Uint6 };
            let of_lut: Vec<usize> = dims.iter().map(|_| 1).chain([palette.len(), 1]).collect();
            let parts = [("indices", kind, dims, codes), ("lut", Kind::Float32, &of_lut[..], lut)];
            return self.constexpr("constexpr_lut_to_dense", name, dims, &parts, &[]);
        }
        let (count, bytes, rank) = ([palette.len()], [codes.len()], [dims.len()]);
        let parts = [
            ("indices", Kind::Uint8, &bytes[..], codes),
            ("lut", Kind::Float32, &count[..], lut),
            of_shape(dims, &rank),
        ];
        self.constexpr("constexpr_lut_to_dense", name, dims, &parts, &[])
    }

    /// A matrix in affine codes as it is stored, once for all that need it: `scale * (code - offset)`.
    pub(super) fn matrix_of_groups(&mut self, matrix: &Arc<QMatrix>, groups: &Groups) -> String {
        let key = format!("codes {}", Arc::as_ptr(matrix).addr());
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let &Groups { rows, inner, group, bits, .. } = groups;
        let mut codes = groups.unpacked();
        let mut scales = groups.scales.clone();
        let mut offsets = Vec::with_capacity(scales.len());
        for (i, (scale, bias)) in scales.iter_mut().zip(&groups.biases).enumerate() {
            // Of a group of equal weights nothing but the bias is left.
            if *scale == 0.0 {
                codes[i * group..][..group].fill(0);
                *scale = 1.0;
            }
            offsets.push(-bias / *scale);
        }
        let (dims, of_groups) = ([rows, inner], [rows, inner / group]);
        let kind = if bits == 4 { Kind::Uint4 } else { Kind::Uint8 };
        let parts = [
            ("data", kind, &dims[..], packed(codes.into_iter(), bits)),
            ("scale", Kind::Float32, &of_groups[..], float_bytes(&scales, Kind::Float32)),
            ("offset", Kind::Float32, &of_groups[..], float_bytes(&offsets, Kind::Float32)),
        ];
        let name = format!("{}.codes", self.own);
        let made = self.constexpr("constexpr_blockwise_shift_scale", &name, &dims, &parts, &[]);
        self.made.insert(key, made.clone());
        made
    }

    /// An operator of constants, whose arguments are no tensors of the program: attributes up to iOS 17, since then inputs.
    fn constexpr(
        &mut self,
        op: &str,
        name: &str,
        dims: &[usize],
        parts: &[Part<'_>],
        more: &[(&str, proto::Value)],
    ) -> String {
        let mut values = BTreeMap::new();
        for (name, kind, dims, raw) in parts {
            values.insert((*name).to_owned(), self.held(*kind, dims, raw));
        }
        values.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let name = self.unique(name);
        if self.target < Target::IOS18 {
            return self.emit(op, BTreeMap::new(), values, name, self.float, fixed(dims));
        }
        let bound = |value| proto::Argument { arguments: vec![proto::Binding { bound: Some(Bound::Value(value)) }] };
        let inputs = values.into_iter().map(|(name, value)| (name, bound(value))).collect();
        self.emit(op, inputs, BTreeMap::new(), name, self.float, fixed(dims))
    }
}

/// The argument that says the shape of what is packed.
fn of_shape<'a>(dims: &[usize], rank: &'a [usize; 1]) -> Part<'a> {
    ("shape", Kind::Uint32, rank, dims.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect())
}

/// Codes of so many bits one after the other, the lowest bit first; what is beyond their bits is left out.
fn packed(codes: impl Iterator<Item = u8>, bits: usize) -> Vec<u8> {
    let (mut held, mut count) = (0u32, 0);
    let mut bytes = Vec::new();
    for code in codes {
        held |= (u32::from(code) & ((1 << bits) - 1)) << count;
        count += bits;
        while count >= 8 {
            bytes.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        bytes.push(held as u8);
    }
    bytes
}

/// Signed codes of so many bits of a tensor [rows, width, ..], and the scale of each block along the second axis with all
/// that follows it.
fn blocks(values: &[f32], dims: &[usize], block: usize, bits: usize) -> (Vec<u8>, Vec<f32>) {
    let last = ((1 << (bits - 1)) - 1) as f32;
    let size = block * dims[2..].iter().product::<usize>();
    let mut codes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / size);
    for block in values.chunks_exact(size) {
        let scale = block.iter().fold(0.0f32, |top, v| top.max(v.abs())) / last;
        let steps = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        codes.extend(block.iter().map(|v| ((v * steps).round() as i8).cast_unsigned()));
        scales.push(scale);
    }
    (codes, scales)
}
