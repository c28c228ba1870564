//! Many numbers, one by one: as the bytes of a file, looked through, and summed up.
//!
//! Bytes are little-endian, as in safetensors. Sums are of parts of one length, added in one order, so that threads decide
//! nothing.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::affine::Float;

/// Numbers that are summed up together.
const PART: usize = 1 << 16;

/// Bytes of a number type, as 32-bit floats.
pub fn from_bytes(bytes: &[u8], float: Float) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<2>();
    match float {
        Float::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Float::F16 => words.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Float::Bf16 => words.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
    }
}

/// Bytes of 64-bit floats, each to the nearest of 32 bits.
pub fn from_doubles(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
}

/// Bytes of 32-bit words.
pub fn words_from_bytes(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

/// Floats as bytes of a number type, each to the nearest there is.
pub fn to_bytes(values: &[f32], float: Float) -> Vec<u8> {
    match float {
        Float::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Float::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Float::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

/// 32-bit words as bytes.
pub fn words_to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Bytes as they are with a sign.
pub fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|b| b.cast_signed()).collect()
}

/// And without one.
pub fn unsigned(bytes: &[i8]) -> Vec<u8> {
    bytes.iter().map(|b| b.cast_unsigned()).collect()
}

/// Where the first value is that is no finite number.
pub fn not_finite(values: &[f32]) -> Option<usize> {
    values.iter().position(|v| !v.is_finite())
}

/// The first finite value that a number type has no finite one for.
pub fn too_large(values: &[f32], float: Float) -> Option<f32> {
    values.iter().copied().find(|v| v.is_finite() && !float.nearest(*v).is_finite())
}

/// The sum of the squares.
pub fn squares(values: &[f32]) -> f64 {
    let parts = values.par_chunks(PART).map(|part| part.iter().map(|v| f64::from(*v).powi(2)).sum());
    parts.collect::<Vec<f64>>().iter().sum()
}

/// The sum of the squares of what `found` is off by.
pub fn squared_error(values: &[f32], found: &[f32]) -> f64 {
    let off = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    values.par_chunks(PART).zip(found.par_chunks(PART)).map(off).collect::<Vec<f64>>().iter().sum()
}

/// The length of each row of `inner` values.
pub fn lengths(values: &[f32], inner: usize) -> Vec<f32> {
    values.chunks_exact(inner).map(|row| row.iter().map(|v| v * v).sum::<f32>().sqrt()).collect()
}

/// Adds a low-rank update to a matrix [out, inner]: `scale * B A`, of A [rank, inner] and B [out, rank].
pub fn add_low_rank(values: &mut [f32], [a, b]: [&[f32]; 2], rank: usize, inner: usize, scale: f32) {
    for (row, factors) in values.chunks_exact_mut(inner.max(1)).zip(b.chunks_exact(rank.max(1))) {
        for (factor, a) in factors.iter().zip(a.chunks_exact(inner.max(1))) {
            let factor = scale * factor;
            row.iter_mut().zip(a).for_each(|(v, a)| *v += factor * a);
        }
    }
}

/// Brings each row of `inner` values to a length.
pub fn set_lengths(values: &mut [f32], inner: usize, wanted: &[f32]) {
    let lengths = lengths(values, inner);
    for ((row, wanted), length) in values.chunks_exact_mut(inner).zip(wanted).zip(lengths) {
        row.iter_mut().for_each(|v| *v *= wanted / length.max(1e-15));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    #[test]
    fn what_is_written_is_read() {
        let values = random(1000, "values");
        for float in [Float::F32, Float::F16, Float::Bf16] {
            let nearest: Vec<f32> = values.iter().map(|v| float.nearest(*v)).collect();
            assert_eq!(from_bytes(&to_bytes(&values, float), float), nearest, "{float}");
        }
        assert_eq!(words_from_bytes(&words_to_bytes(&[1, u32::MAX, 1 << 30])), [1, u32::MAX, 1 << 30]);
        assert_eq!(from_doubles(&1.5f64.to_le_bytes()), [1.5]);
    }

    #[test]
    fn what_cannot_be_held_is_found() {
        let values = [1.0, 1e6, f32::INFINITY];
        assert_eq!(not_finite(&values), Some(2));
        assert_eq!(too_large(&values, Float::F16), Some(1e6));
        assert_eq!(too_large(&values, Float::Bf16), None);
    }

    #[test]
    fn sums_are_of_all_parts() {
        let values = vec![0.5; 2 * PART + 3];
        assert_eq!(squares(&values), 0.25 * values.len() as f64);
        assert_eq!(squared_error(&values, &vec![-0.5; values.len()]), values.len() as f64);
    }
}
