//! Group-wise affine weights in MLX's layout.
//!
//! A matrix [out, in] becomes `weight` u32 [out, in * bits / 32], low bits first, and `scales` and `biases`
//! [out, in / group]: `w = q * scale + bias`. Only widths that divide 32 are packed here.

use rayon::prelude::*;

use crate::backend::qmatrix::{BLOCK, QMatrix};
use crate::failure::Failure;
use crate::format::tensors::{Array, Arrays, Values};

/// A packed matrix.
#[derive(Debug)]
pub struct Packed {
    /// [out, in * bits / 32]
    pub weight: Array,
    /// [out, in / group]
    pub scales: Array,
    /// [out, in / group]
    pub biases: Array,
    /// Root of the mean squared error over the root mean square of the weights.
    pub relative_error: f64,
}

/// One row: packed words, scales, biases, squared error.
type PackedRow = (Vec<u32>, Vec<f32>, Vec<f32>, f64);

/// Rounds a matrix to the nearest of `2^bits` evenly spaced values in each group of `group` inputs.
///
/// The grid's end on the side of the larger magnitude is exact, as in MLX, and zero is on the grid.
pub fn pack(values: &[f32], out: usize, inner: usize, bits: usize, group: usize) -> Packed {
    let per_word = 32 / bits;
    let (words, groups) = (inner / per_word, inner / group);
    let rows: Vec<PackedRow> = (0..out)
        .into_par_iter()
        .map(|row| {
            let row = &values[row * inner..][..inner];
            let (mut packed, mut scales, mut biases) = (vec![0u32; words], vec![0.0; groups], vec![0.0; groups]);
            let mut error = 0.0;
            for g in 0..groups {
                let (scale, bias) = grid(&row[g * group..][..group], bits);
                (scales[g], biases[g]) = (scale, bias);
                for i in g * group..(g + 1) * group {
                    let q = ((row[i] - bias) / scale).round().clamp(0.0, ((1u32 << bits) - 1) as f32) as u32;
                    packed[i / per_word] |= q << (i % per_word * bits);
                    error += f64::from(row[i] - (q as f32 * scale + bias)).powi(2);
                }
            }
            (packed, scales, biases, error)
        })
        .collect();
    let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    let error: f64 = rows.iter().map(|r| r.3).sum();
    let gather = |pick: &dyn Fn(&PackedRow) -> Vec<f32>| rows.iter().flat_map(pick).collect();
    let weight = rows.iter().flat_map(|r| r.0.iter().copied()).collect();
    Packed {
        weight: Array { shape: vec![out, words], values: Values::U32(weight) },
        scales: Array::f32(&[out, groups], gather(&|r| r.1.clone())),
        biases: Array::f32(&[out, groups], gather(&|r| r.2.clone())),
        relative_error: if square > 0.0 { (error / square).sqrt() } else { 0.0 },
    }
}

/// Scale and bias of one group.
fn grid(group: &[f32], bits: usize) -> (f32, f32) {
    let levels = ((1u32 << bits) - 1) as f32;
    let low = group.iter().copied().fold(f32::INFINITY, f32::min);
    let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = ((high - low) / levels).max(1e-7);
    let (scale, edge) = if low.abs() > high.abs() { (span, low) } else { (-span, high) };
    let zero = (edge / scale).round();
    if zero == 0.0 { (scale, 0.0) } else { (edge / zero, edge) }
}

/// Expands every packed matrix of a model, or makes it one of codes where that is asked for and can be; does nothing to a
/// model that has none.
pub fn unpack(arrays: &mut Arrays, config: &str, keep_codes: bool) -> Result<(), Failure> {
    let config: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    let settings = &config["quantization"];
    let (Some(bits), Some(group)) = (settings["bits"].as_u64(), settings["group_size"].as_u64()) else { return Ok(()) };
    let (bits, group) = (bits as usize, group as usize);
    if ![1, 2, 4, 8].contains(&bits) || group == 0 {
        return Err(Failure::target(format!("weights of {bits} bits in groups of {group} cannot be unpacked yet")));
    }
    let modules: Vec<String> = arrays.keys().filter_map(|n| n.strip_suffix(".scales").map(str::to_owned)).collect();
    for module in modules {
        let broken = || {
            Failure::target(format!("the packed weight `{module}` does not fit its scales"))
                .help("take config.json and the weights from one and the same model")
        };
        let (Some(scales), Some(biases)) =
            (arrays.remove(&format!("{module}.scales")), arrays.remove(&format!("{module}.biases")))
        else {
            return Err(broken());
        };
        let weight = arrays.get_mut(&format!("{module}.weight")).ok_or_else(broken)?;
        let Values::U32(words) = &weight.values else { return Err(broken()) };
        let per_word = 32 / bits;
        let &[out, packed] = &weight.shape[..] else { return Err(broken()) };
        let inner = packed * per_word;
        let groups = inner / group;
        let (scales, biases) = (scales.floats(), biases.floats());
        if scales.len() != out * groups || biases.len() != out * groups || words.len() != out * inner / per_word {
            return Err(broken());
        }
        let mask = (1u64 << bits) as u32 - 1;
        if keep_codes && [4, 8].contains(&bits) && group.is_multiple_of(16) && inner.is_multiple_of(BLOCK) {
            let code = |i: usize| (words[i / per_word] >> (i % per_word * bits) & mask) as u8;
            let codes: Vec<u8> = (0..out * inner).map(code).collect();
            *weight = Array::codes(QMatrix::new(out, inner, group, bits, &codes, scales.to_vec(), biases.to_vec()));
            continue;
        }
        let values = (0..out * inner)
            .into_par_iter()
            .map(|i| {
                let q = words[i / per_word] >> (i % per_word * bits) & mask;
                let g = i / inner * groups + i % inner / group;
                q as f32 * scales[g] + biases[g]
            })
            .collect();
        *weight = Array::f32(&[out, inner], values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rng::Rng;

    #[test]
    fn unpacking_gives_back_what_was_packed_to_half_a_step() {
        let mut rng = Rng::new(1, "w");
        let values: Vec<f32> = (0..8 * 128).map(|_| rng.normal()).collect();
        for (bits, worst) in [(8, 0.02), (4, 0.3)] {
            let packed = pack(&values, 8, 128, bits, 64);
            let mut arrays = Arrays::from([
                ("m.weight".to_owned(), packed.weight),
                ("m.scales".to_owned(), packed.scales),
                ("m.biases".to_owned(), packed.biases),
            ]);
            let (mut kept, config) =
                (arrays.clone(), format!(r#"{{"quantization": {{"bits": {bits}, "group_size": 64}}}}"#));
            unpack(&mut kept, &config, true).expect("unpacks");
            unpack(&mut arrays, &config, false).expect("unpacks");
            let back = arrays["m.weight"].floats();
            assert!(matches!(kept["m.weight"].values, Values::Codes(_)));
            assert_eq!(kept["m.weight"].expanded(), back, "{bits} bits");
            let largest = values.iter().zip(back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest < worst, "{bits} bits: {largest}");
        }
    }
}
