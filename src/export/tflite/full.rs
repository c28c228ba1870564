//! A model whose values are bytes from end to end: what was seen of each tensor says what its bytes stand for.
//!
//! It is made of a file in floats, operator by operator, as LiteRT's own quantizer does
//! (<https://ai.google.dev/edge/litert/models/quantization_spec>): activations have one scale and one zero, weights a scale for
//! each channel, what is added has the product of both in 32 bits. Floats go in and come out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::TfLiteError;
use super::lower::Lowered;
use super::schema::{self, Code, Kind, Operator, Tensor};
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::export::format::Ranges;
use crate::export::graph::Dim;
use crate::export::grid::{self, Codes, Grid, LAST};

/// Why an operator is refused.
pub(super) const NO_KERNEL: &str = "none that computes in bytes";
/// Why an operator is refused.
pub(super) const CONSTANT: &str = "one of the values that it is given is a constant, which has no bytes";

/// The same in bytes, by the least and the largest value that each tensor was seen to have.
pub(super) fn full(mut lowered: Lowered, ranges: &Ranges) -> Result<Lowered, TfLiteError> {
    means(&mut lowered);
    let front = front(&lowered);
    let made = std::mem::take(&mut lowered.operators);
    let mut full = Full { grids: HashMap::new(), bytes: HashMap::new(), lowered };
    full.grids(&made, &front, ranges)?;
    let given: Vec<usize> = full.lowered.inputs.iter().map(|(_, at)| *at).collect();
    for at in given {
        if full.lowered.tensors[at].kind == Kind::Float32 {
            full.rounded(at);
        }
    }
    for (at, operator) in made.into_iter().enumerate() {
        let (output, is_front) = (operator.output, front.contains(&at));
        if is_front || full.lowered.tensors[output].kind != Kind::Float32 {
            full.lowered.operators.push(operator);
        } else {
            full.operator(operator)?;
        }
        // What is prepared in floats becomes bytes where it is read by what has them.
        if is_front && full.grids.contains_key(&output) {
            full.rounded(output);
        }
    }
    full.outputs();
    Ok(compact(full.lowered))
}

/// The same without tensors that no operator has any more, and without their values.
fn compact(mut lowered: Lowered) -> Lowered {
    let ends = lowered.inputs.iter().chain(&lowered.outputs).map(|(_, at)| *at);
    let of_operators = lowered.operators.iter().flat_map(|operator| {
        operator.inputs.iter().filter_map(|at| usize::try_from(*at).ok()).chain([operator.output])
    });
    let used: BTreeSet<usize> = ends.chain(of_operators).collect();
    let tensors: HashMap<usize, usize> = used.iter().enumerate().map(|(to, from)| (*from, to)).collect();
    let kept: BTreeSet<usize> = used.iter().filter_map(|at| lowered.tensors[*at].buffer).collect();
    let buffers: HashMap<usize, usize> = kept.iter().enumerate().map(|(to, from)| (*from, to)).collect();
    let (mut at, mut of) = (0, 0);
    lowered.tensors.retain(|_| (used.contains(&at), at += 1).0);
    lowered.buffers.retain(|_| (kept.contains(&of), of += 1).0);
    for tensor in &mut lowered.tensors {
        tensor.buffer = tensor.buffer.map(|buffer| buffers[&buffer]);
    }
    for operator in &mut lowered.operators {
        operator.output = tensors[&operator.output];
        for input in operator.inputs.iter_mut().filter(|input| **input >= 0) {
            *input = tensors[&(*input as usize)] as i32;
        }
    }
    for (_, at) in lowered.inputs.iter_mut().chain(&mut lowered.outputs) {
        *at = tensors[at];
    }
    lowered
}

/// A sum that is divided by how many there were is a mean, which has one rounding less.
fn means(lowered: &mut Lowered) {
    let mut at = 0;
    while at < lowered.operators.len() {
        let sum = &lowered.operators[at];
        let readers: Vec<usize> = (0..lowered.operators.len())
            .filter(|other| lowered.operators[*other].inputs.contains(&(sum.output as i32)))
            .collect();
        if let (schema::SUM, &[next]) = (sum.code, &readers[..])
            && lowered.operators[next].code == schema::MUL
            && lowered.outputs.iter().all(|(_, output)| *output != sum.output)
            && let Some(factor) = lowered.operators[next].inputs.iter().find_map(|input| number(lowered, *input))
            && let Some(count) = summed(lowered, sum)
            && (factor * count - 1.0).abs() < 1e-6
        {
            let (gone, output) = (sum.output, lowered.operators[next].output);
            let gone = lowered.tensors[gone].name.clone();
            lowered.places.retain(|place| place.tensor != gone);
            let sum = &mut lowered.operators[at];
            (sum.code, sum.output) = (schema::MEAN, output);
            lowered.operators.remove(next);
        }
        at += 1;
    }
}

/// A constant of one float.
fn number(lowered: &Lowered, input: i32) -> Option<f32> {
    let tensor = &lowered.tensors[usize::try_from(input).ok()?];
    let values = floats::from_bytes(&lowered.buffers[tensor.buffer?], Float::F32);
    (tensor.kind == Kind::Float32 && values.len() == 1).then(|| values[0])
}

/// How many values a sum is of, where that is known.
fn summed(lowered: &Lowered, sum: &Operator) -> Option<f32> {
    let tensor = |input: i32| usize::try_from(input).ok().map(|at| &lowered.tensors[at]);
    let (x, axes) = (tensor(sum.inputs[0])?, tensor(sum.inputs[1])?);
    let axes = lowered.buffers[axes.buffer?].as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
    let lengths = axes.map(|axis| x.shape[usize::try_from(axis).ok()?].fixed()).collect::<Option<Vec<_>>>()?;
    Some(lengths.iter().product::<usize>() as f32)
}

/// The operators that make floats of pictures that are given as bytes: they stay as they are.
fn front(lowered: &Lowered) -> HashSet<usize> {
    let is_picture = |input: &i32| usize::try_from(*input).is_ok_and(|at| lowered.tensors[at].kind == Kind::Uint8);
    let (mut front, mut made) = (HashSet::new(), HashSet::new());
    for (at, operator) in lowered.operators.iter().enumerate() {
        let begins = operator.code == schema::CAST && operator.inputs.iter().any(is_picture);
        let goes_on = matches!(operator.code, schema::MUL | schema::ADD) && made.contains(&operator.inputs[0]);
        if begins || goes_on {
            front.insert(at);
            made.insert(operator.output as i32);
        }
    }
    front
}

struct Full {
    lowered: Lowered,
    grids: HashMap<usize, Grid>,
    /// By tensors in floats that stay, the same in bytes.
    bytes: HashMap<usize, usize>,
}

/// The inputs of an operator that are values and not weights, sizes or axes; none where it has no kernel for bytes.
fn values(operator: &Operator) -> Option<usize> {
    Some(match operator.code {
        schema::CONV_2D | schema::DEPTHWISE_CONV_2D | schema::FULLY_CONNECTED => 1,
        schema::MEAN | schema::RESHAPE | schema::PAD | schema::RELU | schema::RELU6 => 1,
        schema::ADD | schema::CONCATENATION => operator.inputs.len(),
        _ => return None,
    })
}

impl Full {
    /// What the bytes of each tensor stand for. Where an operator moves bytes and computes nothing, what goes in and what
    /// comes out stand for the same.
    fn grids(&mut self, operators: &[Operator], front: &HashSet<usize>, ranges: &Ranges) -> Result<(), TfLiteError> {
        let tensors = &self.lowered.tensors;
        let mut group: Vec<usize> = (0..tensors.len()).collect();
        let mut read = Vec::new();
        for (at, operator) in operators.iter().enumerate() {
            if front.contains(&at) || tensors[operator.output].kind != Kind::Float32 {
                continue;
            }
            let name = || tensors[operator.output].name.clone();
            let refused = |why| TfLiteError::NoOperator { op: operator.code.name, name: name(), why };
            let count = values(operator).ok_or_else(|| refused(NO_KERNEL))?;
            let given: Vec<usize> = operator.inputs[..count].iter().map(|input| *input as usize).collect();
            if given.iter().any(|input| tensors[*input].buffer.is_some()) {
                return Err(refused(CONSTANT));
            }
            let moves = matches!(operator.code, schema::RESHAPE | schema::PAD | schema::CONCATENATION);
            for input in given.iter().chain([&operator.output]) {
                read.push(*input);
                if moves {
                    let (one, other) = (group[*input], group[operator.output]);
                    group.iter_mut().filter(|own| **own == other).for_each(|own| *own = one);
                }
            }
        }
        let mut seen: BTreeMap<usize, [f32; 2]> = BTreeMap::new();
        for at in &read {
            let name = &tensors[*at].name;
            let Some([low, high]) = ranges.get(name) else { return Err(TfLiteError::NotSeen(name.clone())) };
            let own = seen.entry(group[*at]).or_insert([0.0, 0.0]);
            *own = [own[0].min(*low), own[1].max(*high)];
        }
        self.grids = read.into_iter().map(|at| (at, Grid::of(seen[&group[at]]))).collect();
        Ok(())
    }

    fn tensor(&mut self, name: String, kind: Kind, like: usize, buffer: Option<usize>) -> usize {
        let shape = self.lowered.tensors[like].shape.clone();
        self.lowered.tensors.push(Tensor { name, kind, shape, buffer, scales: None, zero: 0 });
        self.lowered.tensors.len() - 1
    }

    /// A tensor is one of bytes.
    fn in_bytes(&mut self, at: usize) {
        let grid = self.grids[&at];
        let tensor = &mut self.lowered.tensors[at];
        (tensor.kind, tensor.scales, tensor.zero) = (Kind::Int8, Some((vec![grid.scale], 0)), grid.zero);
    }

    fn emit(&mut self, code: Code, version: i32, inputs: Vec<usize>, output: usize) {
        let inputs = inputs.into_iter().map(|input| input as i32).collect();
        self.lowered.operators.push(Operator { code, version, inputs, output, options: Vec::new() });
    }

    /// Floats that stay, as bytes for who reads them.
    fn rounded(&mut self, at: usize) {
        let Some(grid) = self.grids.get(&at).copied() else { return };
        let name = format!("{}/quantize", self.lowered.tensors[at].name);
        let made = self.tensor(name, Kind::Int8, at, None);
        self.grids.insert(made, grid);
        self.in_bytes(made);
        self.emit(schema::QUANTIZE, 1, vec![at], made);
        self.bytes.insert(at, made);
    }

    fn operator(&mut self, mut operator: Operator) -> Result<(), TfLiteError> {
        let count = values(&operator).expect("it was looked at");
        for input in &mut operator.inputs[..count] {
            let at = *input as usize;
            *input = self.bytes.get(&at).map_or(*input, |made| *made as i32);
        }
        let (axis, version) = match operator.code {
            schema::CONV_2D => (Some(0), 3),
            schema::DEPTHWISE_CONV_2D => (Some(3), 3),
            schema::FULLY_CONNECTED => (Some(0), 5),
            schema::RESHAPE => (None, 1),
            _ => (None, 2),
        };
        if let Some(axis) = axis {
            self.weights(&mut operator, axis);
        }
        operator.version = version;
        self.in_bytes(operator.output);
        self.lowered.operators.push(operator);
        Ok(())
    }

    /// The weights of an operator in bytes with a scale for each entry of an axis, and what is added in 32 bits.
    fn weights(&mut self, operator: &mut Operator, axis: usize) {
        let (x, weight) = (operator.inputs[0] as usize, operator.inputs[1] as usize);
        let bias = operator.inputs.get(2).copied().and_then(|at| usize::try_from(at).ok());
        let floats_of = |at: usize| {
            let buffer = self.lowered.tensors[at].buffer.expect("weights are constants");
            floats::from_bytes(&self.lowered.buffers[buffer], Float::F32)
        };
        let (values, added) = (floats_of(weight), bias.map(floats_of));
        let lengths: Vec<usize> =
            self.lowered.tensors[weight].shape.iter().map(|dim: &Dim| dim.fixed().expect("constants are")).collect();
        let given = self.grids[&x].scale;
        let Codes { codes, scales, sums } =
            grid::codes(&values, (&lengths, axis), &lengths, added.as_deref(), (given, LAST));
        let codes = codes.into_iter().map(i8::cast_unsigned).collect();
        let sums = sums.map(|all| {
            let bytes: Vec<u8> = all.into_iter().flat_map(i32::to_le_bytes).collect();
            (bytes, scales.iter().map(|scale| given * scale).collect())
        });
        let name = format!("{}/weights", self.lowered.tensors[operator.output].name);
        operator.inputs[1] = self.constant(name, Kind::Int8, weight, codes, scales, axis);
        if let (Some((bytes, scales)), Some(bias)) = (sums, bias) {
            let name = format!("{}/bias", self.lowered.tensors[operator.output].name);
            operator.inputs[2] = self.constant(name, Kind::Int32, bias, bytes, scales, 0);
        }
    }

    fn constant(
        &mut self,
        name: String,
        kind: Kind,
        like: usize,
        bytes: Vec<u8>,
        scales: Vec<f32>,
        axis: usize,
    ) -> i32 {
        self.lowered.buffers.push(bytes);
        let made = self.tensor(name, kind, like, Some(self.lowered.buffers.len() - 1));
        self.lowered.tensors[made].scales = Some((scales, axis));
        made as i32
    }

    /// What comes out is floats, under its name.
    fn outputs(&mut self) {
        for i in 0..self.lowered.outputs.len() {
            let (name, at) = self.lowered.outputs[i].clone();
            if self.lowered.tensors[at].kind != Kind::Int8 {
                continue;
            }
            let own = format!("{name}/bytes");
            let whole = self.tensor(name.clone(), Kind::Float32, at, None);
            self.lowered.tensors[at].name.clone_from(&own);
            self.lowered
                .places
                .iter_mut()
                .filter(|place| place.tensor == name)
                .for_each(|place| place.tensor.clone_from(&own));
            self.emit(schema::DEQUANTIZE, 2, vec![at], whole);
            self.lowered.outputs[i].1 = whole;
        }
    }
}
