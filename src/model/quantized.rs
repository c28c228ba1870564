//! Group-wise affine weights in MLX's layout: see [`crate::backend::affine`].
//!
//! A matrix [out, in] becomes `weight` u32 [out, in * bits / 32] and `scales` and `biases` [out, in / group].

use rayon::prelude::*;
use serde_json::Value;

use crate::backend::affine::{self, Affine, BITS};
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

/// Rounds a matrix to the nearest of `2^bits` evenly spaced values in each group of `group` inputs: [`affine::round`].
pub fn pack(values: &[f32], out: usize, inner: usize, bits: usize, group: usize) -> Packed {
    let (made, error) = affine::round(values, inner, bits, group);
    finish(values, made, error, (out, inner), (bits, group))
}

/// A matrix whose codes are there, beside its values.
pub fn packed(values: &[f32], made: Affine, out: usize, inner: usize, bits: usize, group: usize) -> Packed {
    let back = made.expand(inner, bits, group);
    let error = values.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    finish(values, made, error, (out, inner), (bits, group))
}

fn finish(
    values: &[f32],
    made: Affine,
    error: f64,
    (out, inner): (usize, usize),
    (bits, group): (usize, usize),
) -> Packed {
    let square: f64 = values
        .par_chunks(1 << 16)
        .map(|part| part.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>())
        .collect::<Vec<_>>()
        .iter()
        .sum();
    Packed {
        weight: Array { shape: vec![out, inner * bits / 32], values: Values::U32(made.words) },
        scales: Array::f32(&[out, inner / group], made.scales),
        biases: Array::f32(&[out, inner / group], made.biases),
        relative_error: if square > 0.0 { (error / square).sqrt() } else { 0.0 },
    }
}

/// Bits of a weight and weights of a group, as a model's `config.json` says them; none where it is not quantized.
pub fn grid_of(config: &Value) -> Option<(usize, usize)> {
    let settings = &config["quantization"];
    Some((settings["bits"].as_u64()? as usize, settings["group_size"].as_u64()? as usize))
}

/// Expands every packed matrix of a model, or makes it one of codes where that is asked for and can be; does nothing to a
/// model that has none.
pub fn unpack(arrays: &mut Arrays, config: &str, keep_codes: bool) -> Result<(), Failure> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let Some((bits, group)) = grid_of(&config) else { return Ok(()) };
    if !BITS.contains(&bits) || group == 0 {
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
        let &[out, packed] = &weight.shape[..] else { return Err(broken()) };
        let inner = packed * 32 / bits;
        let groups = inner / group;
        let (scales, biases) = (scales.floats(), biases.floats());
        if scales.len() != out * groups || biases.len() != out * groups || words.len() * 32 != out * inner * bits {
            return Err(broken());
        }
        let codes = affine::codes(words, bits);
        if codes.len() != out * inner {
            return Err(broken());
        }
        if keep_codes && group.is_multiple_of(16) && inner.is_multiple_of(BLOCK) {
            let held = if bits <= 4 { 4 } else { 8 };
            *weight = Array::codes(QMatrix::new(out, inner, group, held, &codes, scales.to_vec(), biases.to_vec()));
            continue;
        }
        let mut values = vec![0.0; out * inner];
        let parts = values.par_chunks_exact_mut(group).zip(codes.par_chunks_exact(group)).zip(scales).zip(biases);
        parts.for_each(|(((values, codes), scale), bias)| {
            values.iter_mut().zip(codes).for_each(|(v, code)| *v = f32::from(*code) * scale + bias);
        });
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
        for (bits, worst) in [(8, 0.02), (6, 0.08), (4, 0.3), (3, 0.6), (2, 1.5)] {
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
