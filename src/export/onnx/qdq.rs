//! A model whose values are bytes, by what was seen of each: pairs of `QuantizeLinear` and `DequantizeLinear`, of which onnxruntime
//! makes kernels that compute in integers (<https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html>).
//!
//! Convolutions and products by constant weights, sums of two values and what lies beside one another are computed so; all else
//! stays in floats between pairs. Weights have a scale for each channel, what is added has 32 bits.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::lower::{FLOAT, INT8, INT32, Lowered, UINT8, int};
use super::proto::{Node, Tensor};
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::export::format::Ranges;
use crate::export::grid::{self, Codes, Grid};

/// The largest code of a weight: of 7 bits. Processors without VNNI add two products of bytes in 16, which those of 8 bits exceed
/// (onnxruntime's `reduce_range`).
const LAST: f32 = 63.0;

/// What hides a score is lower than any value that a model computes: the steps of bytes that reach so far are wider than all scores
/// together, and would make them one.
const HIDES: f32 = -1e30;

/// The tensors that may be bytes: what comes in and goes out of operators that compute so.
pub(super) fn tensors(lowered: &Lowered) -> Vec<String> {
    let Found { given, made, .. } = Found::of(lowered, |_| false);
    given.into_iter().chain(made).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The same in pairs, by the least and the largest value that each tensor was seen to have. What was not seen is no tensor of floats.
pub(super) fn pairs(mut lowered: Lowered, ranges: &Ranges) -> Lowered {
    let found = Found::of(&lowered, |name| ranges.get(name).is_some_and(|[low, _]| *low < HIDES));
    let is_seen = |name: &String| ranges.contains_key(name);
    let grids: BTreeMap<String, Grid> = found
        .given
        .iter()
        .chain(&found.made)
        .filter(|name| is_seen(name))
        .map(|name| (name.clone(), Grid::of(ranges[name])))
        .collect();
    let mut nodes = Vec::new();
    for weights in &found.weights {
        // What they multiply was no float: then they are not computed with in bytes.
        let Some(given) = grids.get(&weights.given) else { continue };
        weights.write(&mut lowered.initializers, &mut nodes, given.scale);
    }
    let made: BTreeSet<String> = lowered.nodes.iter().flat_map(|node| node.output.iter().cloned()).collect();
    let mut renamed = HashMap::new();
    for (name, grid) in &grids {
        if made.contains(name) {
            continue;
        }
        // An input keeps its name, and who reads it reads what is rounded.
        let rounded = format!("{name}/rounded");
        pair(&mut lowered.initializers, &mut nodes, name, &rounded, *grid);
        renamed.insert(name.clone(), rounded);
    }
    for mut node in std::mem::take(&mut lowered.nodes) {
        for input in &mut node.input {
            if let Some(rounded) = renamed.get(input) {
                input.clone_from(rounded);
            }
        }
        let own: Vec<String> = node.output.iter().filter(|name| grids.contains_key(*name)).cloned().collect();
        for output in &mut node.output {
            if grids.contains_key(output) {
                *output = format!("{output}/exact");
            }
        }
        nodes.push(node);
        for name in own {
            pair(&mut lowered.initializers, &mut nodes, &format!("{name}/exact"), &name, grids[&name]);
        }
    }
    lowered.nodes = nodes;
    lowered
}

/// `from` as bytes and back, under another name.
fn pair(initializers: &mut Vec<Tensor>, nodes: &mut Vec<Node>, from: &str, to: &str, grid: Grid) {
    let (scale, zero, bytes) = (format!("{to}/scale"), format!("{to}/zero"), format!("{to}/bytes"));
    initializers.push(constant(&scale, &[], FLOAT, grid.scale.to_le_bytes().to_vec()));
    // Without a sign, as its kernels for x86 have them: what has one is made so there, and with some opsets not loaded.
    initializers.push(constant(&zero, &[], UINT8, vec![(grid.zero + 128) as u8]));
    nodes.push(node("QuantizeLinear", &[from, &scale, &zero], &bytes, None));
    nodes.push(node("DequantizeLinear", &[&bytes, &scale, &zero], to, None));
}

fn node(op: &str, inputs: &[&str], output: &str, axis: Option<usize>) -> Node {
    Node {
        input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        output: vec![output.to_owned()],
        name: format!("{output}/{op}/node"),
        op_type: op.to_owned(),
        attribute: axis.map(|axis| int("axis", axis as i64)).into_iter().collect(),
        domain: String::new(),
    }
}

fn constant(name: &str, dims: &[i64], data_type: i32, raw: Vec<u8>) -> Tensor {
    Tensor {
        dims: dims.to_vec(),
        data_type,
        name: name.to_owned(),
        raw_data: Some(raw),
        external_data: Vec::new(),
        data_location: 0,
    }
}

/// Weights that one operator multiplies by.
struct Weights {
    /// What they multiply.
    given: String,
    weight: String,
    /// That of their channels.
    axis: usize,
    bias: Option<String>,
}

impl Weights {
    /// In place of floats, their codes and what makes floats of those.
    fn write(&self, initializers: &mut Vec<Tensor>, nodes: &mut Vec<Node>, given: f32) {
        let take = |initializers: &mut Vec<Tensor>, name: &str| {
            let at = initializers.iter().position(|own| own.name == name).expect("it was found");
            initializers.remove(at)
        };
        let floats_of = |tensor: &Tensor| floats::from_bytes(tensor.raw_data.as_deref().unwrap_or(&[]), Float::F32);
        let weight = take(initializers, &self.weight);
        let bias = self.bias.as_ref().map(|bias| take(initializers, bias));
        let lengths: Vec<usize> = weight.dims.iter().map(|length| *length as usize).collect();
        // Kernels [out, in, height, width], each over one plane.
        let kernels = match *lengths {
            [out, planes, height, width] => vec![out * planes, height, width, 1],
            _ => lengths.clone(),
        };
        let added = bias.as_ref().map(floats_of);
        let Codes { codes, scales, sums } =
            grid::codes(&floats_of(&weight), (&lengths, self.axis), &kernels, added.as_deref(), (given, LAST));
        let bytes = codes.into_iter().map(i8::cast_unsigned).collect();
        write(initializers, nodes, &weight, (INT8, bytes), &scales, self.axis);
        if let (Some(bias), Some(sums)) = (bias, sums) {
            let bytes = sums.into_iter().flat_map(i32::to_le_bytes).collect();
            let scales: Vec<f32> = scales.iter().map(|scale| given * scale).collect();
            write(initializers, nodes, &bias, (INT32, bytes), &scales, 0);
        }
    }
}

fn write(
    initializers: &mut Vec<Tensor>,
    nodes: &mut Vec<Node>,
    of: &Tensor,
    (kind, bytes): (i32, Vec<u8>),
    scales: &[f32],
    axis: usize,
) {
    let (codes, scale) = (format!("{}/bytes", of.name), format!("{}/scale", of.name));
    initializers.push(constant(&codes, &of.dims, kind, bytes));
    initializers.push(constant(&scale, &[scales.len() as i64], FLOAT, floats::to_bytes(scales, Float::F32)));
    nodes.push(node("DequantizeLinear", &[&codes, &scale], &of.name, Some(axis)));
}

/// What can be computed in bytes.
#[derive(Default)]
struct Found {
    /// What its operators are given.
    given: Vec<String>,
    /// What comes out of them, past a bound that follows.
    made: Vec<String>,
    weights: Vec<Weights>,
}

impl Found {
    /// Sums with what hides scores stay in floats.
    fn of(lowered: &Lowered, hides: impl Fn(&str) -> bool) -> Self {
        let constants: HashMap<&str, &Tensor> =
            lowered.initializers.iter().map(|tensor| (&tensor.name[..], tensor)).collect();
        let mut readers: HashMap<&str, Vec<&Node>> = HashMap::new();
        for node in &lowered.nodes {
            node.input.iter().for_each(|input| readers.entry(input).or_default().push(node));
        }
        let reader = |name: &str| match readers.get(name).map(Vec::as_slice) {
            Some(&[only]) => Some(only),
            _ => None,
        };
        // Of floats that nothing else reads.
        let own = |name: &str| {
            constants.get(name).copied().filter(|tensor| tensor.data_type == FLOAT && reader(name).is_some())
        };
        let is_constant = |name: &String| constants.contains_key(&name[..]);
        let mut found = Self::default();
        for node in &lowered.nodes {
            match (&node.op_type[..], &node.input[..]) {
                ("Conv" | "MatMul", [x, weight, rest @ ..]) if !is_constant(x) => {
                    let Some(tensor) = own(weight) else { continue };
                    let axis = match (&node.op_type[..], tensor.dims.len()) {
                        ("Conv", _) => 0,
                        (_, 2) => 1,
                        _ => continue,
                    };
                    let bias = rest.first().filter(|bias| own(bias).is_some()).cloned();
                    if bias.is_none() && !rest.is_empty() {
                        continue;
                    }
                    found.given.push(x.clone());
                    found.weights.push(Weights { given: x.clone(), weight: weight.clone(), axis, bias });
                }
                ("Add" | "Concat", inputs) if !inputs.iter().any(|input| is_constant(input) || hides(input)) => {
                    found.given.extend_from_slice(inputs);
                }
                _ => continue,
            }
            let output = &node.output[0];
            match reader(output) {
                // What a bound leaves of it is what is seen.
                Some(next) if matches!(&next.op_type[..], "Clip" | "Relu") => found.made.push(next.output[0].clone()),
                // A product's own bias comes first.
                Some(next) if next.op_type == "Add" && next.input.iter().any(is_constant) => {
                    found.made.push(next.output[0].clone());
                }
                _ => found.made.push(output.clone()),
            }
        }
        found
    }
}
