//! Group-wise affine weights in MLX's layout: see [`crate::backend::affine`].
//!
//! A matrix [out, in] becomes `weight` u32 [out, in * bits / 32] and `scales` and `biases` [out, in / group].

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::backend::affine::{self, Affine, BITS, Form};
use crate::backend::arrays::{Array, Arrays, Values};
use crate::backend::floats;
use crate::backend::int8::{Bytes, Int8, LONGEST};
use crate::backend::qmatrix::{BLOCK, Groups};
use crate::failure::Failure;

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

impl Packed {
    /// Puts the three tensors of a module among a model's.
    pub fn insert(self, module: &str, arrays: &mut Arrays) {
        arrays.insert(format!("{module}.weight"), self.weight);
        arrays.insert(format!("{module}.scales"), self.scales);
        arrays.insert(format!("{module}.biases"), self.biases);
    }
}

/// Rounds a matrix of rows of `inner` weights to the nearest codes: [`affine::round`].
pub fn pack(values: &[f32], inner: usize, form: &Form) -> Packed {
    let (made, error) = affine::round(values, inner, form);
    finish(values, made, error, inner, form)
}

/// A matrix whose codes are there, beside its values.
pub fn packed(values: &[f32], made: Affine, inner: usize, form: &Form) -> Packed {
    let back = made.expand(inner, form.bits, form.group);
    finish(values, made, floats::squared_error(values, &back), inner, form)
}

fn finish(values: &[f32], made: Affine, error: f64, inner: usize, form: &Form) -> Packed {
    let square = floats::squares(values);
    let out = values.len() / inner.max(1);
    Packed {
        weight: Array { shape: vec![out, inner * form.bits / 32], values: Values::U32(made.words) },
        scales: Array::f32(&[out, inner / form.group], made.scales),
        biases: Array::f32(&[out, inner / form.group], made.biases),
        relative_error: if square > 0.0 { (error / square).sqrt() } else { 0.0 },
    }
}

/// Bits of a weight and weights of a group, module by module, as a model's `config.json` says them under `quantization`:
/// for all, and under a module's name where it has its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grids {
    /// Where nothing else is said.
    pub all: (usize, usize),
    /// Of the modules that differ.
    pub own: BTreeMap<String, (usize, usize)>,
}

impl Grids {
    /// Of a configuration; none where the model is not quantized in this layout.
    pub fn read(config: &Value) -> Option<Self> {
        let pair = |v: &Value| Some((v["bits"].as_u64()? as usize, v["group_size"].as_u64()? as usize));
        let settings = &config["quantization"];
        let own = settings.as_object()?.iter().filter_map(|(name, v)| Some((name.clone(), pair(v)?)));
        Some(Self { all: pair(settings)?, own: own.collect() })
    }

    /// Of a module: bits and group.
    pub fn of(&self, module: &str) -> (usize, usize) {
        self.own.get(module).copied().unwrap_or(self.all)
    }

    /// Says it in a configuration, where mlx-lm and where transformers look.
    pub fn write(&self, config: &mut Value) {
        let pair = |(bits, group): (usize, usize)| json!({"group_size": group, "bits": bits, "mode": "affine"});
        let mut settings = pair(self.all);
        for (module, own) in &self.own {
            settings[module] = pair(*own);
        }
        config["quantization"] = settings.clone();
        config["quantization_config"] = settings;
    }
}

/// What of a model stays quantized in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: all is expanded.
    Nothing,
    /// Matrices of bytes, which compute otherwise than their floats.
    Bytes,
    /// All that can be.
    All,
}

/// The last part of the name of the scales of bytes, [out, 1]; compressed-tensors'.
pub const BYTES_SCALE: &str = "weight_scale";

/// Makes matrices of bytes into what is computed with, by compressed-tensors' `int-quantized` form.
fn unpack_bytes(arrays: &mut Arrays, config: &Value, keep: Keep) -> Result<(), Failure> {
    let settings = &config["quantization_config"];
    if settings["quant_method"] != "compressed-tensors" {
        return Ok(());
    }
    let groups = settings["config_groups"].as_object().into_iter().flatten().map(|(_, group)| group);
    for group in groups {
        let (weights, inputs) = (&group["weights"], &group["input_activations"]);
        let is_known = weights["num_bits"] == 8
            && weights["type"] == "int"
            && weights["symmetric"] == true
            && weights["strategy"] == "channel"
            && inputs["num_bits"] == 8
            && inputs["dynamic"] == true
            && inputs["symmetric"] == true
            && inputs["strategy"] == "token";
        if !is_known {
            return Err(Failure::target("the model is compressed in a form that effai does not compute with")
                .help("of compressed-tensors' forms, it knows bytes by channel with inputs rounded by token"));
        }
    }
    let of = |n: &String| n.strip_suffix(BYTES_SCALE).and_then(|n| n.strip_suffix('.')).map(str::to_owned);
    let modules: Vec<String> = arrays.keys().filter_map(of).collect();
    for module in modules {
        let broken = || {
            Failure::target(format!("the bytes of `{module}` do not fit their scales"))
                .help("take config.json and the weights from one and the same model")
        };
        let scales = arrays.remove(&format!("{module}.{BYTES_SCALE}")).ok_or_else(broken)?;
        let weight = arrays.get_mut(&format!("{module}.weight")).ok_or_else(broken)?;
        let (Values::I8(codes), &[rows, inner]) = (&weight.values, &weight.shape[..]) else { return Err(broken()) };
        let scales = scales.floats().to_vec();
        if scales.len() != rows || codes.len() != rows * inner || inner > LONGEST {
            return Err(broken());
        }
        let matrix = Int8 { rows, inner, codes: codes.clone(), scales };
        *weight = match keep {
            Keep::Nothing => Array::f32(&[rows, inner], matrix.expand()),
            Keep::Bytes | Keep::All => Array::codes(Bytes::new(matrix)),
        };
    }
    Ok(())
}

/// Expands every packed matrix of a model, or makes it one that is computed with as it is where that is asked for and can
/// be; does nothing to a model that has none.
pub fn unpack(arrays: &mut Arrays, config: &str, keep: Keep) -> Result<(), Failure> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    unpack_bytes(arrays, &config, keep)?;
    let Some(grids) = Grids::read(&config) else { return Ok(()) };
    let modules: Vec<String> = arrays.keys().filter_map(|n| n.strip_suffix(".scales").map(str::to_owned)).collect();
    for module in modules {
        let (bits, group) = grids.of(&module);
        if !BITS.contains(&bits) || group == 0 {
            return Err(Failure::target(format!(
                "`{module}` has weights of {bits} bits in groups of {group}, which cannot be unpacked"
            ))
            .help("effai reads 2, 3, 4, 6 and 8 bits"));
        }
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
        if keep == Keep::All && group.is_multiple_of(16) && inner.is_multiple_of(BLOCK) {
            let held = if bits <= 4 { 4 } else { 8 };
            *weight = Array::codes(Groups::new(out, inner, group, held, &codes, scales.to_vec(), biases.to_vec()));
            continue;
        }
        *weight = Array::f32(&[out, inner], affine::expand(&codes, scales, biases, group));
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
            let packed = pack(&values, 128, &Form::new(bits, 64));
            let mut arrays = Arrays::new();
            packed.insert("m", &mut arrays);
            let (mut kept, config) =
                (arrays.clone(), format!(r#"{{"quantization": {{"bits": {bits}, "group_size": 64}}}}"#));
            unpack(&mut kept, &config, Keep::All).expect("unpacks");
            unpack(&mut arrays, &config, Keep::Nothing).expect("unpacks");
            let back = arrays["m.weight"].floats();
            assert!(matches!(kept["m.weight"].values, Values::Codes(_)));
            assert_eq!(kept["m.weight"].expanded(), back, "{bits} bits");
            let largest = values.iter().zip(back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest < worst, "{bits} bits: {largest}");
        }
    }

    #[test]
    fn a_module_may_have_bits_of_its_own() {
        let grids = Grids { all: (4, 64), own: BTreeMap::from([("a.b".to_owned(), (6, 32))]) };
        let mut config = json!({"hidden_size": 8});
        grids.write(&mut config);
        assert_eq!(Grids::read(&config), Some(grids.clone()));
        assert_eq!((grids.of("a.b"), grids.of("a.c")), ((6, 32), (4, 64)));
        assert_eq!(Grids::read(&json!({"hidden_size": 8})), None);
    }
}
