//! The graph's operations as TensorFlow Lite's.

mod attend;
mod codes;
mod pictures;
mod products;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::TfLiteError;
use super::flat::Slot;
use super::schema::{self, Activation, Code, Kind, Operator, Tensor};
use crate::backend::Window;
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::backend::qmatrix::{Groups, QMatrix};
use crate::backend::trace::Op;
use crate::export::format::{HALVES_MIN, Options, Precision};
use crate::export::graph::{Dim, Element, Graph, Id, Symbol, Value};
use crate::export::view::{Seen, View, is_no_convolution};
use crate::export::written::Place;

/// What a graph became.
pub(super) struct Lowered {
    pub(super) tensors: Vec<Tensor>,
    pub(super) buffers: Vec<Vec<u8>>,
    pub(super) operators: Vec<Operator>,
    /// By name, the tensors that are given.
    pub(super) inputs: Vec<(String, usize)>,
    /// By name, the tensors that come out.
    pub(super) outputs: Vec<(String, usize)>,
    pub(super) places: Vec<Place>,
}

/// Writes all values of a graph that its outputs need.
pub(super) fn lower(graph: &Graph, options: &Options) -> Result<Lowered, TfLiteError> {
    let precision = options.precision;
    let mut lower = Lower {
        graph,
        keeps_halves: precision == Precision::F16Weights,
        has_bytes: matches!(precision, Precision::Int8 | Precision::Int8Weights),
        expands_bytes: precision == Precision::Int8Weights,
        weight_threshold: options.weight_threshold,
        uses: graph.uses(),
        tensors: Vec::new(),
        buffers: Vec::new(),
        operators: Vec::new(),
        at: HashMap::new(),
        values: Vec::with_capacity(graph.values.len()),
        made: HashMap::new(),
        rounded: HashMap::new(),
        stored: HashMap::new(),
        names: BTreeMap::new(),
        own: String::new(),
    };
    // No other tensor has an output's name.
    for (name, _) in &graph.outputs {
        lower.names.insert(name.clone(), 1);
    }
    let mut inputs = Vec::with_capacity(graph.inputs.len());
    for input in &graph.inputs {
        let kind = match input.element {
            Element::Float => Kind::Float32,
            Element::Integer => Kind::Int32,
            Element::Bytes(_) => Kind::Uint8,
        };
        let name = lower.tensor_of(input.name.clone(), kind, input.shape.clone(), None);
        inputs.push((input.name.clone(), lower.at[&name]));
    }
    for value in &graph.values {
        lower.own.clone_from(&value.name);
        let written = lower.value(value)?;
        lower.values.push(written);
    }
    let mut places = Vec::new();
    for (id, written) in lower.values.iter().enumerate() {
        if let Written::Seen(seen) = written {
            places.extend(Place::of(id, seen));
        }
    }
    let mut outputs = Vec::with_capacity(graph.outputs.len());
    for (name, id) in &graph.outputs {
        lower.own.clone_from(name);
        let mut x = lower.plain(*id)?;
        let at = lower.at[&x];
        // What is given or known, or has a name already, comes out as a tensor of its own.
        let is_computed = lower.operators.iter().any(|operator| operator.output == at);
        if !is_computed || outputs.iter().any(|(_, other)| *other == at) {
            x = lower.reshaped(&x, &graph.values[*id].shape)?;
        }
        let at = lower.at[&x];
        places
            .iter_mut()
            .filter(|place: &&mut Place| place.tensor == x)
            .for_each(|place| place.tensor.clone_from(name));
        lower.tensors[at].name.clone_from(name);
        outputs.push((name.clone(), at));
    }
    let Lower { tensors, buffers, operators, .. } = lower;
    Ok(Lowered { tensors, buffers, operators, inputs, outputs, places })
}

/// A value of the graph in the file.
#[derive(Clone, Debug)]
enum Written {
    /// A constant, which is written by who needs it, as it is needed.
    Constant,
    /// A tensor.
    Seen(Seen),
    /// Windows of pictures, which only a convolution has: of which pictures, and the shape of the windows.
    Windows(Id, Window),
}

struct Lower<'a> {
    graph: &'a Graph,
    /// Weights in 16 bits.
    keeps_halves: bool,
    /// Weights in bytes.
    has_bytes: bool,
    /// They are made floats before they are used; else the operators that have them round what they multiply.
    expands_bytes: bool,
    /// Tensors of no more weights stay as they are.
    weight_threshold: usize,
    uses: Vec<usize>,
    tensors: Vec<Tensor>,
    buffers: Vec<Vec<u8>>,
    operators: Vec<Operator>,
    /// The tensors' numbers by their names.
    at: HashMap<String, usize>,
    values: Vec<Written>,
    /// What was made already and is the same for all, by what it is.
    made: HashMap<String, String>,
    /// Constants that were rounded to bytes, by their buffers and scales.
    rounded: HashMap<Id, (usize, Vec<f32>)>,
    /// Matrices that the model has in codes, by where they are.
    stored: HashMap<usize, codes::Codes>,
    /// How often a name was given.
    names: BTreeMap<String, usize>,
    /// The value that is being written: what is written for it is named by it.
    own: String,
}

/// A matrix's codes, where those alone are what it is.
fn groups_of<'a>(matrix: &'a QMatrix, value: &Value) -> Result<&'a Groups, TfLiteError> {
    match matrix {
        QMatrix::Groups(groups) => Ok(groups),
        _ => Err(TfLiteError::NoOperator {
            op: value.op.name(),
            name: value.name.clone(),
            why: "what it multiplies is rounded too, row by row",
        }),
    }
}

/// A slot of options that is an enumeration or a truth value.
fn byte(slot: u16, value: u8) -> (u16, Slot) {
    (slot, Slot::Byte(value))
}

fn int(slot: u16, value: usize) -> (u16, Slot) {
    (slot, Slot::Int(i32::try_from(value).expect("a small number")))
}

fn fixed(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|n| Dim::Fixed(*n)).collect()
}

/// The shape of what two are together, of which axes of one entry count as often as the other's.
fn together(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let of = |shape: &[Dim], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |own| shape[own].clone())
    };
    (0..rank).map(|axis| if of(a, axis) == Dim::Fixed(1) { of(b, axis) } else { of(a, axis) }).collect()
}

impl Lower<'_> {
    fn unique(&mut self, name: String) -> String {
        crate::export::graph::unique(&mut self.names, name)
    }

    fn tensor_of(&mut self, name: String, kind: Kind, shape: Vec<Dim>, buffer: Option<usize>) -> String {
        let name = self.unique(name);
        self.at.insert(name.clone(), self.tensors.len());
        self.tensors.push(Tensor { name: name.clone(), kind, shape, buffer, scales: None, zero: 0 });
        name
    }

    fn of(&self, tensor: &str) -> &Tensor {
        &self.tensors[self.at[tensor]]
    }

    fn shape_of(&self, tensor: &str) -> Vec<Dim> {
        self.of(tensor).shape.clone()
    }

    /// An operator; an input without a name is one that could be and is not.
    fn node(&mut self, code: Code, inputs: &[&str], options: Vec<(u16, Slot)>, kind: Kind, shape: Vec<Dim>) -> String {
        let output = self.tensor_of(format!("{}/{}", self.own, code.name), kind, shape, None);
        let number = |name: &&str| if name.is_empty() { -1 } else { self.at[*name] as i32 };
        let inputs = inputs.iter().map(number).collect();
        let output_at = self.at[&output];
        self.operators.push(Operator { code, version: 1, inputs, output: output_at, options });
        output
    }

    /// The last operator is of a later version.
    fn of_version(&mut self, version: i32) {
        self.operators.last_mut().expect("just written").version = version;
    }

    /// Something done to each number.
    fn map(&mut self, code: Code, x: &str) -> String {
        let (kind, shape) = (self.of(x).kind, self.shape_of(x));
        self.node(code, &[x], Vec::new(), kind, shape)
    }

    /// Something of two numbers.
    fn join(&mut self, code: Code, a: &str, b: &str) -> String {
        let (kind, shape) = (self.of(a).kind, together(&self.of(a).shape, &self.of(b).shape));
        self.node(code, &[a, b], Vec::new(), kind, shape)
    }

    /// A truth value of two numbers.
    fn compare(&mut self, code: Code, a: &str, b: &str) -> String {
        let shape = together(&self.of(a).shape, &self.of(b).shape);
        self.node(code, &[a, b], Vec::new(), Kind::Bool, shape)
    }

    fn cast(&mut self, x: &str, kind: Kind) -> String {
        let (from, shape) = (self.of(x).kind, self.shape_of(x));
        self.node(schema::CAST, &[x], vec![byte(0, from as u8), byte(1, kind as u8)], kind, shape)
    }

    fn buffer(&mut self, bytes: Vec<u8>) -> usize {
        self.buffers.push(bytes);
        self.buffers.len() - 1
    }

    /// Floats, in the file's precision.
    fn floats(&mut self, name: String, dims: &[usize], values: &[f32]) -> Result<String, TfLiteError> {
        let is_kept = self.keeps_halves && values.len() >= HALVES_MIN;
        let (float, kind) = if is_kept { (Float::F16, Kind::Float16) } else { (Float::F32, Kind::Float32) };
        if let Some(value) = floats::too_large(values, float) {
            return Err(TfLiteError::TooLarge { name, value });
        }
        let buffer = self.buffer(floats::to_bytes(values, float));
        let made = self.tensor_of(name, kind, fixed(dims), Some(buffer));
        if !is_kept {
            return Ok(made);
        }
        let own = std::mem::replace(&mut self.own, made.clone());
        let whole = self.node(schema::DEQUANTIZE, &[&made], Vec::new(), Kind::Float32, fixed(dims));
        self.of_version(3);
        self.own = own;
        Ok(whole)
    }

    /// One number, the same for all who need it.
    fn number(&mut self, value: f32) -> Result<String, TfLiteError> {
        let key = format!("number {}", value.to_bits());
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let name = self.floats(format!("number {value}"), &[], &[value])?;
        self.made.insert(key, name.clone());
        Ok(name)
    }

    /// Integers, the same for all who need them.
    fn integers(&mut self, values: &[i32], dims: &[usize]) -> String {
        let key = format!("integers {values:?} {dims:?}");
        if let Some(name) = self.made.get(&key) {
            return name.clone();
        }
        let buffer = self.buffer(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        let name = if dims.is_empty() { format!("integer {}", values[0]) } else { format!("integers {values:?}") };
        let name = self.tensor_of(name, Kind::Int32, fixed(dims), Some(buffer));
        self.made.insert(key, name.clone());
        name
    }

    fn list(&mut self, values: &[usize]) -> String {
        let values: Vec<i32> = values.iter().map(|n| i32::try_from(*n).expect("a small number")).collect();
        self.integers(&values, &[values.len()])
    }

    /// How large something is, as a tensor without axes.
    fn size(&mut self, dim: &Dim) -> Result<String, TfLiteError> {
        if let Dim::Fixed(number) = dim {
            return Ok(self.integers(&[i32::try_from(*number).expect("a size")], &[]));
        }
        let key = format!("size {dim}");
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let own = std::mem::replace(&mut self.own, key.clone());
        let (code, factor, symbols) = match dim {
            Dim::Product(factor, symbols) => (schema::MUL, *factor, symbols),
            Dim::Sum(symbols) => (schema::ADD, 1, symbols),
            Dim::Fixed(_) => unreachable!("of a fixed size there is a constant"),
        };
        let mut made = self.symbol(symbols[0])?;
        for symbol in &symbols[1..] {
            let size = self.symbol(symbol)?;
            made = self.join(code, &made, &size);
        }
        if factor != 1 {
            let factor = self.size(&Dim::Fixed(factor))?;
            made = self.join(schema::MUL, &made, &factor);
        }
        self.own = own;
        self.made.insert(key, made.clone());
        Ok(made)
    }

    fn symbol(&mut self, symbol: Symbol) -> Result<String, TfLiteError> {
        let key = format!("symbol {symbol}");
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let is_it = |dim: &Dim| *dim == Dim::Product(1, vec![symbol]);
        let place = self.graph.inputs.iter().find_map(|input| Some((input, input.shape.iter().position(is_it)?)));
        let Some((input, axis)) = place else { return Err(TfLiteError::NoSize(symbol)) };
        let rank = input.shape.len();
        let shape =
            self.node(schema::SHAPE, &[&input.name], vec![byte(0, Kind::Int32 as u8)], Kind::Int32, fixed(&[rank]));
        let [from, until, step] = [axis, axis + 1, 1].map(|at| self.list(&[at]));
        // The one axis is dropped (`shrink_axis_mask`).
        let options = vec![int(4, 1)];
        let made = self.node(schema::STRIDED_SLICE, &[&shape, &from, &until, &step], options, Kind::Int32, Vec::new());
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// Sizes as a tensor of one axis, for who makes one of that shape.
    fn sizes(&mut self, shape: &[Dim]) -> Result<String, TfLiteError> {
        if let Some(fixed) = shape.iter().map(Dim::fixed).collect::<Option<Vec<_>>>() {
            return Ok(self.list(&fixed));
        }
        let key = format!("sizes {shape:?}");
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let sizes = shape.iter().map(|dim| self.size(dim)).collect::<Result<Vec<_>, _>>()?;
        let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
        let options = vec![int(0, sizes.len()), int(1, 0)];
        let made = self.node(schema::PACK, &sizes, options, Kind::Int32, fixed(&[shape.len()]));
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// A tensor in another shape. Of one open length the program finds the number.
    fn reshaped(&mut self, x: &str, to: &[Dim]) -> Result<String, TfLiteError> {
        let open = to.iter().filter(|dim| dim.fixed().is_none()).count();
        let has_empty = to.contains(&Dim::Fixed(0));
        let shape = if open <= 1 && !has_empty {
            let length = |dim: &Dim| dim.fixed().map_or(-1, |n| i32::try_from(n).expect("a length"));
            let lengths: Vec<i32> = to.iter().map(length).collect();
            self.integers(&lengths, &[lengths.len()])
        } else {
            self.sizes(to)?
        };
        let kind = self.of(x).kind;
        Ok(self.node(schema::RESHAPE, &[x, &shape], Vec::new(), kind, to.to_vec()))
    }

    fn transposed(&mut self, x: &str, order: &[usize]) -> String {
        let axes = self.list(order);
        let (kind, from) = (self.of(x).kind, self.shape_of(x));
        let shape = order.iter().map(|axis| from[*axis].clone()).collect();
        self.node(schema::TRANSPOSE, &[x, &axes], Vec::new(), kind, shape)
    }

    /// A sum or a mean over axes.
    fn reduced(&mut self, code: Code, x: &str, axes: &[usize], keeps: bool) -> String {
        let (list, mut shape) = (self.list(axes), self.shape_of(x));
        if keeps {
            axes.iter().for_each(|axis| shape[*axis] = Dim::Fixed(1));
        } else {
            let mut axis = 0;
            shape.retain(|_| (!axes.contains(&axis), axis += 1).0);
        }
        self.node(code, &[x, &list], vec![byte(0, u8::from(keeps))], Kind::Float32, shape)
    }

    /// A part of each axis: where it begins, and how much it is.
    fn sliced(&mut self, x: &str, from: &[Dim], len: &[Dim]) -> Result<String, TfLiteError> {
        let (from, size, kind) = (self.sizes(from)?, self.sizes(len)?, self.of(x).kind);
        Ok(self.node(schema::SLICE, &[x, &from, &size], Vec::new(), kind, len.to_vec()))
    }

    fn concatenated(&mut self, parts: &[&str], axis: usize, shape: Vec<Dim>) -> String {
        let kind = self.of(parts[0]).kind;
        self.node(schema::CONCATENATION, parts, vec![int(0, axis)], kind, shape)
    }

    /// Entries of an axis by the numbers in another tensor; the first `batch` axes of both are the same.
    fn gathered(&mut self, x: &str, ids: &str, axis: usize, batch: usize) -> String {
        let (shape, by) = (self.shape_of(x), self.shape_of(ids));
        let to = [&shape[..axis], &by[batch..], &shape[axis + 1..]].concat();
        let kind = self.of(x).kind;
        let made = self.node(schema::GATHER, &[x, ids], vec![int(0, axis), int(1, batch)], kind, to);
        if batch > 0 {
            self.of_version(5);
        } else if kind == Kind::Int8 {
            self.of_version(2);
        }
        made
    }

    /// The tensor that is as it is seen.
    fn tensor(&mut self, seen: &Seen) -> Result<String, TfLiteError> {
        let mut name = seen.base.clone();
        let mut key = format!("view {name}");
        for view in &seen.views {
            key = format!("{key} {view:?}");
            name = match self.made.get(&key) {
                Some(made) => made.clone(),
                None => {
                    let made = match view {
                        View::Turn(order) => self.transposed(&name, order),
                        View::Reshape(to) => self.reshaped(&name, to)?,
                    };
                    self.made.insert(key.clone(), made.clone());
                    made
                }
            };
        }
        Ok(name)
    }

    /// A value, as it may be seen.
    fn seen(&mut self, id: Id) -> Result<Seen, TfLiteError> {
        let graph = self.graph;
        match self.values[id].clone() {
            Written::Seen(seen) => Ok(seen),
            Written::Constant => {
                let value = &graph.values[id];
                let key = format!("constant {id}");
                let name = match self.made.get(&key) {
                    Some(name) => name.clone(),
                    None => {
                        let values = value.constant.as_ref().expect("a constant has values");
                        self.floats(value.name.clone(), &self.dims(id), values)?
                    }
                };
                self.made.insert(key, name.clone());
                Ok(Seen::plain(name, value.shape.clone()))
            }
            Written::Windows(..) => Err(TfLiteError::NoOperator {
                op: "patches",
                name: graph.values[id].name.clone(),
                why: "windows of pictures are written as a convolution, and what follows is none",
            }),
        }
    }

    /// The shape of a constant.
    fn dims(&self, id: Id) -> Vec<usize> {
        self.graph.values[id].shape.iter().map(|dim| dim.fixed().expect("constants are")).collect()
    }

    /// A value's tensor, turned and reshaped as the value is.
    fn plain(&mut self, id: Id) -> Result<String, TfLiteError> {
        let seen = self.seen(id)?;
        self.tensor(&seen)
    }

    fn constant(&self, id: Id) -> Option<Arc<Vec<f32>>> {
        self.graph.values[id].constant.clone()
    }

    fn value(&mut self, value: &Value) -> Result<Written, TfLiteError> {
        let inputs = &value.inputs;
        let shape = &value.shape;
        let tensor = |name: String| Ok(Written::Seen(Seen::plain(name, shape.clone())));
        if let Op::Depthwise(window) | Op::Patches(window) = &value.op
            && let Some(why) = is_no_convolution(*window, &self.graph.values[inputs[0]].shape)
        {
            return Err(TfLiteError::NoOperator { op: value.op.name(), name: value.name.clone(), why });
        }
        match &value.op {
            Op::Constant => Ok(Written::Constant),
            Op::Input(name) => match self.graph.colours(name) {
                Some(colours) => tensor(self.prepared(name, colours)?),
                None => tensor(name.clone()),
            },
            Op::Reshape(to) => {
                // Their rows may lie otherwise, and are the same.
                if let Written::Windows(of, window) = &self.values[inputs[0]]
                    && to.last() == self.graph.values[inputs[0]].shape.last()
                {
                    return Ok(Written::Windows(*of, *window));
                }
                Ok(Written::Seen(self.seen(inputs[0])?.seen(View::Reshape(to.clone()))))
            }
            Op::SwapAxes(a, b) => {
                let mut order: Vec<usize> = (0..shape.len()).collect();
                order.swap(*a, *b);
                Ok(Written::Seen(self.seen(inputs[0])?.seen(View::Turn(order))))
            }
            Op::Narrow { axis, start, .. } => {
                let x = self.plain(inputs[0])?;
                let mut from = fixed(&vec![0; shape.len()]);
                from[*axis] = start.clone();
                tensor(self.sliced(&x, &from, shape)?)
            }
            Op::Concat(axis) => {
                let parts = inputs.iter().map(|input| self.plain(*input)).collect::<Result<Vec<_>, _>>()?;
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                tensor(self.concatenated(&parts, *axis, shape.clone()))
            }
            Op::TakeRows(ids) => {
                let x = self.plain(inputs[0])?;
                let ids = self.list(&ids.iter().map(|id| *id as usize).collect::<Vec<_>>());
                tensor(self.gathered(&x, &ids, 0, 0))
            }
            Op::Repeat(times) => {
                let x = self.plain(inputs[0])?;
                let mut often = fixed(&vec![1; shape.len()]);
                often[0] = times.clone();
                let often = self.sizes(&often)?;
                tensor(self.node(schema::TILE, &[&x, &often], Vec::new(), Kind::Float32, shape.clone()))
            }
            Op::Embed(ids) => tensor(self.embedded(inputs[0], ids)?),
            Op::TakeTokens(ids, mark) => {
                let x = self.plain(inputs[0])?;
                let place = self.place_of(ids, *mark);
                tensor(self.gathered(&x, &place, 1, 1))
            }
            Op::MeanTokens(mask) => {
                let x = self.plain(inputs[0])?;
                let mask = self.mask_as_floats(mask);
                let mut each = self.shape_of(&mask);
                each.push(Dim::Fixed(1));
                let keep = self.reshaped(&mask, &each)?;
                let kept = self.join(schema::MUL, &x, &keep);
                let sums = self.reduced(schema::SUM, &kept, &[1], false);
                let counts = self.reduced(schema::SUM, &mask, &[1], true);
                // Of a text without tokens, as of one with a token of zeros.
                let least = self.number(1.0)?;
                let counts = self.join(schema::MAXIMUM, &counts, &least);
                tensor(self.join(schema::DIV, &sums, &counts))
            }
            Op::Add => self.binary(schema::ADD, value),
            Op::Sub => self.binary(schema::SUB, value),
            Op::Mul => self.binary(schema::MUL, value),
            Op::Div => self.binary(schema::DIV, value),
            Op::Affine(factor, offset) => {
                let (factor, offset) = (*factor as f32, *offset as f32);
                self.each(inputs[0], |lower, x| {
                    let mut y = x.to_owned();
                    if factor != 1.0 {
                        let factor = lower.number(factor)?;
                        y = lower.join(schema::MUL, &y, &factor);
                    }
                    if offset != 0.0 {
                        let offset = lower.number(offset)?;
                        y = lower.join(schema::ADD, &y, &offset);
                    }
                    Ok(y)
                })
            }
            Op::Exp => self.each(inputs[0], |lower, x| Ok(lower.map(schema::EXP, x))),
            Op::Log => self.each(inputs[0], |lower, x| Ok(lower.map(schema::LOG, x))),
            Op::Sqrt => self.each(inputs[0], |lower, x| Ok(lower.map(schema::SQRT, x))),
            // By the error function, as models have it, and not by a hyperbola.
            Op::Gelu => self.each(inputs[0], |lower, x| Ok(lower.map(schema::GELU, x))),
            Op::QuickGelu => self.each(inputs[0], |lower, x| {
                let factor = lower.number(1.702)?;
                let scaled = lower.join(schema::MUL, x, &factor);
                let gate = lower.map(schema::LOGISTIC, &scaled);
                Ok(lower.join(schema::MUL, x, &gate))
            }),
            Op::Sum(axis) => self.sum(value, *axis),
            Op::SumAll => {
                let seen = self.seen(inputs[0])?;
                let axes: Vec<usize> = (0..seen.of.len()).collect();
                tensor(self.reduced(schema::SUM, &seen.base, &axes, false))
            }
            Op::Matmul => {
                let (a, b) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                tensor(self.product(&a, &b, false)?)
            }
            Op::Linear => self.linear(value),
            Op::Softmax => {
                let x = self.plain(inputs[0])?;
                tensor(self.softmax(&x))
            }
            Op::LayerNorm(eps) => {
                let [x, weight, bias] = [inputs[0], inputs[1], inputs[2]].map(|input| self.plain(input));
                let (x, last) = (x?, shape.len() - 1);
                let mean = self.reduced(schema::MEAN, &x, &[last], true);
                let centred = self.join(schema::SUB, &x, &mean);
                let normed = self.over_root(&centred, *eps)?;
                let scaled = self.join(schema::MUL, &normed, &weight?);
                tensor(self.join(schema::ADD, &scaled, &bias?))
            }
            Op::RmsNorm(eps) => {
                let (x, weight) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                let normed = self.over_root(&x, *eps)?;
                tensor(self.join(schema::MUL, &normed, &weight))
            }
            Op::Rope { offset, base } => {
                let x = self.plain(inputs[0])?;
                tensor(self.rope(&x, shape, offset, *base)?)
            }
            Op::Swiglu => {
                let (gate, up) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                let open = self.map(schema::LOGISTIC, &gate);
                let gated = self.join(schema::MUL, &gate, &open);
                tensor(self.join(schema::MUL, &gated, &up))
            }
            Op::Attention { mask, causal, scale } => self.attention(value, mask.as_deref(), *causal, *scale),
            Op::Depthwise(window) => self.depthwise(value, *window),
            Op::Patches(window) => Ok(Written::Windows(inputs[0], *window)),
            Op::ScaleShift(low, high) => {
                let (low, high) = (*low, *high);
                if let &[x] = &inputs[..] {
                    let is_alone = self.uses[x] == 1;
                    return self.each(x, |lower, x| lower.clip(x, low, high, is_alone));
                }
                let [x, scale, shift] = [inputs[0], inputs[1], inputs[2]].map(|input| self.plain(input));
                let scaled = self.join(schema::MUL, &x?, &scale?);
                let shifted = self.join(schema::ADD, &scaled, &shift?);
                tensor(self.clip(&shifted, low, high, false)?)
            }
            Op::EmbedQuantized(matrix, ids) => {
                let groups = groups_of(matrix, value)?;
                tensor(self.embedded_codes(matrix, groups, ids, shape)?)
            }
            Op::LinearQuantized(matrix) => {
                let groups = groups_of(matrix, value)?;
                let (x, matrix) = (self.plain(inputs[0])?, self.matrix_of_groups(matrix, groups)?);
                tensor(self.fully_connected(&x, &matrix, "", shape))
            }
        }
    }

    /// Bounds; what a convolution gives it bounds itself where nobody else needs it.
    fn clip(&mut self, x: &str, low: f32, high: f32, is_alone: bool) -> Result<String, TfLiteError> {
        let bounds = match (low, high) {
            (0.0, 6.0) => Some((Activation::Relu6, schema::RELU6)),
            (0.0, f32::INFINITY) => Some((Activation::Relu, schema::RELU)),
            _ => None,
        };
        if let Some((activation, code)) = bounds {
            let at = self.at[x];
            let last = self.operators.last_mut().filter(|operator| is_alone && operator.output == at);
            // The slot of `fused_activation_function` in the options of each.
            let slot = match last.as_ref().map(|operator| operator.code) {
                Some(schema::CONV_2D) => Some(3),
                Some(schema::DEPTHWISE_CONV_2D) => Some(4),
                _ => None,
            };
            if let (Some(operator), Some(slot)) = (last, slot) {
                operator.options.push(byte(slot, activation as u8));
                return Ok(x.to_owned());
            }
            return Ok(self.map(code, x));
        }
        let mut made = x.to_owned();
        for (bound, code) in [(low, schema::MAXIMUM), (high, schema::MINIMUM)] {
            if bound.is_finite() {
                let bound = self.number(bound)?;
                made = self.join(code, &made, &bound);
            }
        }
        Ok(made)
    }

    /// Over the root of the mean of its squares.
    fn over_root(&mut self, x: &str, eps: f32) -> Result<String, TfLiteError> {
        let last = self.of(x).shape.len() - 1;
        let squares = self.join(schema::MUL, x, x);
        let mean = self.reduced(schema::MEAN, &squares, &[last], true);
        let eps = self.number(eps)?;
        let above = self.join(schema::ADD, &mean, &eps);
        let root = self.map(schema::SQRT, &above);
        Ok(self.join(schema::DIV, x, &root))
    }

    /// What is done to each number by itself is done to the tensor as it lies, however it is seen.
    fn each(
        &mut self,
        id: Id,
        write: impl Fn(&mut Self, &str) -> Result<String, TfLiteError>,
    ) -> Result<Written, TfLiteError> {
        let seen = self.seen(id)?;
        let base = write(self, &seen.base)?;
        Ok(Written::Seen(Seen { base, ..seen }))
    }

    fn binary(&mut self, code: Code, value: &Value) -> Result<Written, TfLiteError> {
        let (a, b) = (self.seen(value.inputs[0])?, self.seen(value.inputs[1])?);
        if a.of == b.of && a.views == b.views && !a.views.is_empty() {
            let base = self.join(code, &a.base, &b.base);
            return Ok(Written::Seen(Seen { base, ..a }));
        }
        let (a, b) = (self.tensor(&a)?, self.tensor(&b)?);
        let made = self.join(code, &a, &b);
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }

    fn sum(&mut self, value: &Value, axis: usize) -> Result<Written, TfLiteError> {
        let x = self.seen(value.inputs[0])?;
        // The sum over the positions of pictures, [n, h * w, c] of [n, h, w, c].
        if let [View::Reshape(flat)] = &x.views[..]
            && axis == 1
            && let ([n, _, c], [pictures, _, _, channels]) = (&flat[..], &x.of[..])
            && n == pictures
            && c == channels
        {
            let sums = self.reduced(schema::SUM, &x.base, &[1, 2], false);
            let sums = Seen::plain(sums, vec![n.clone(), c.clone()]);
            return Ok(Written::Seen(sums.seen(View::Reshape(value.shape.clone()))));
        }
        let x = self.tensor(&x)?;
        let made = self.reduced(schema::SUM, &x, &[axis], true);
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }
}
