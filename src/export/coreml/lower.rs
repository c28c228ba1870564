//! The graph's operations as MIL's.

mod pictures;
mod program;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::blob::Blobs;
use super::proto;
use super::{CoremlError, Target, classify, identifier, state};
use crate::backend::Window;
use crate::backend::qmatrix::QMatrix;
use crate::backend::trace::Op;
use crate::export::format::{Options, Precision};
use crate::export::graph::{Dim, Element, Graph, Id, Input, Symbol, Value};
use crate::export::view::{CHANNELS_FIRST, CHANNELS_LAST, Seen, View, is_no_convolution, turned, zeros_after};
use crate::export::written::Place;

pub(super) use program::{Arg, Kind, bound_to, fixed, float_bytes, immediate, text, value_type};

/// The axes that a tensor may have, as coremltools has it: "Core ML only supports tensors with rank <= 5".
const RANK_MAX: usize = 5;
/// The axes that an input of a product by a constant matrix may have.
const LINEAR_RANK_MAX: usize = 3;

/// What a graph became.
pub(super) struct Lowered {
    pub(super) inputs: Vec<proto::NamedType>,
    pub(super) outputs: Vec<String>,
    pub(super) operations: Vec<proto::Operation>,
    /// The file of weights.
    pub(super) weights: Vec<u8>,
    pub(super) places: Vec<Place>,
}

/// Writes all values of a graph that its outputs need.
pub(super) fn lower(graph: &Graph, target: Target, options: &Options) -> Result<Lowered, CoremlError> {
    let precision = options.precision;
    let is_half = precision == Precision::F16;
    let mut lower = Lower {
        graph,
        target,
        precision,
        weight_threshold: options.weight_threshold,
        float: if is_half { Kind::Float16 } else { Kind::Float32 },
        operations: Vec::new(),
        blobs: Blobs::new(),
        values: Vec::with_capacity(graph.values.len()),
        tensors: HashMap::new(),
        made: HashMap::new(),
        names: HashSet::new(),
        own: String::new(),
    };
    let mut inputs = Vec::with_capacity(graph.inputs.len());
    for input in &graph.inputs {
        let kind = match input.element {
            Element::Float if state::is_scores(graph, &input.name) => Kind::Float16,
            // A picture comes as floats of 0 to 255.
            Element::Float | Element::Bytes(_) => Kind::Float32,
            Element::Integer => Kind::Int32,
        };
        let name = lower.unique(&input.name);
        lower.tensors.insert(name.clone(), (kind, input.shape.clone()));
        inputs.push(proto::NamedType { name, r#type: Some(value_type(kind, &input.shape)) });
    }
    inputs.extend(lower.kept());
    lower.names.extend(graph.outputs.iter().map(|(name, _)| identifier(name)));
    for value in &graph.values {
        if value.shape.len() > RANK_MAX {
            let (op, name, why) = (value.op.name(), value.name.clone(), "a tensor has five axes at most there");
            return Err(CoremlError::NoOperator { op, name, why });
        }
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
    let (outputs, renamed) = lower.outputs()?;
    for place in &mut places {
        if let Some(name) = renamed.get(&place.tensor) {
            place.tensor.clone_from(name);
        }
    }
    let Lower { mut operations, blobs, .. } = lower;
    let outputs = classify::classified(graph, outputs, &mut operations);
    Ok(Lowered { inputs, outputs, operations, weights: blobs.finish(), places })
}

/// A value of the graph in the program.
#[derive(Clone, Debug)]
enum Written {
    /// A constant, which is written by who needs it, as it is needed.
    Constant,
    /// A tensor.
    Seen(Seen),
    /// Windows of pictures, which only a convolution has: of which pictures, and the shape of the windows.
    Windows(Id, Window),
    /// What is kept of earlier runs, which only what is put behind it has.
    Kept(Layer),
}

/// A layer's caches of one tensor of the state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    /// The tensor, by its place in the state.
    pub(super) kept: usize,
    /// Along its first axis.
    pub(super) layer: usize,
}

/// An entry of an axis.
pub(super) enum Entry {
    Known(usize),
    /// A tensor of one integer.
    Computed(String),
}

pub(super) struct Lower<'a> {
    pub(super) graph: &'a Graph,
    pub(super) target: Target,
    pub(super) precision: Precision,
    /// Tensors of no more weights stay as they are.
    pub(super) weight_threshold: usize,
    /// What is computed in.
    pub(super) float: Kind,
    operations: Vec<proto::Operation>,
    pub(super) blobs: Blobs,
    values: Vec<Written>,
    /// What each tensor of the program consists of, and its shape.
    tensors: HashMap<String, (Kind, Vec<Dim>)>,
    /// What was made already and is the same for all, by what it is.
    pub(super) made: HashMap<String, String>,
    names: HashSet<String>,
    /// The value that is being written: what is written for it is named by it.
    pub(super) own: String,
}

impl Lower<'_> {
    /// How large something is: a tensor of one integer and no axes.
    pub(super) fn size(&mut self, dim: &Dim) -> Result<String, CoremlError> {
        if let Dim::Fixed(number) = dim {
            return Ok(self.literal(&Arg::Int(*number as i32)));
        }
        let key = format!("size {dim}");
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let own = std::mem::replace(&mut self.own, key.clone());
        let made = match dim {
            Dim::Fixed(_) => unreachable!("of a fixed size there is a constant"),
            Dim::Product(factor, symbols) => {
                let mut made = self.symbol(symbols[0])?;
                for symbol in &symbols[1..] {
                    let size = self.symbol(symbol)?;
                    made = self.two("mul", &made, &size);
                }
                match factor {
                    1 => made,
                    factor => {
                        let factor = self.literal(&Arg::Int(*factor as i32));
                        self.two("mul", &made, &factor)
                    }
                }
            }
            Dim::Sum(symbols) => match self.whole(dim, symbols) {
                Some((input, axis)) => self.length(&input, axis),
                None => {
                    let mut made = self.symbol(symbols[0])?;
                    for symbol in &symbols[1..] {
                        let size = self.symbol(symbol)?;
                        made = self.two("add", &made, &size);
                    }
                    made
                }
            },
        };
        self.own = own;
        self.made.insert(key, made.clone());
        Ok(made)
    }

    fn entry(&mut self, dim: &Dim) -> Result<Entry, CoremlError> {
        Ok(match dim {
            Dim::Fixed(number) => Entry::Known(*number),
            dim => Entry::Computed(self.size(dim)?),
        })
    }

    fn symbol(&mut self, symbol: Symbol) -> Result<String, CoremlError> {
        let key = format!("symbol {symbol}");
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let made = match self.place(|dim| is_size(dim, symbol)) {
            Some((input, axis)) => self.length(&input, axis),
            None => self.rest(symbol)?,
        };
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// The input and its axis whose length is such.
    fn place(&self, is_it: impl Fn(&Dim) -> bool) -> Option<(Input, usize)> {
        self.graph.inputs.iter().find_map(|input| Some((input.clone(), input.shape.iter().position(&is_it)?)))
    }

    /// The same of a sum whose parts are not all the lengths of axes.
    fn whole(&self, sum: &Dim, parts: &[Symbol]) -> Option<(Input, usize)> {
        let has_all = parts.iter().all(|part| self.place(|dim| is_size(dim, part)).is_some());
        self.place(|dim| dim == sum).filter(|_| !has_all)
    }

    /// How long an axis of an input is.
    fn length(&mut self, input: &Input, axis: usize) -> String {
        let rank = input.shape.len();
        let x = identifier(&input.name);
        let shape = self.op("shape", &[("x", Arg::Of(&x))], Kind::Int32, vec![Dim::Fixed(rank)]);
        let axis = self.literal(&Arg::Int(axis as i32));
        self.gather(&shape, &axis, Kind::Int32, Vec::new())
    }

    /// A size that no input has alone: what others leave of a sum.
    fn rest(&mut self, symbol: Symbol) -> Result<String, CoremlError> {
        let is_sum = |dim: &Dim| matches!(dim, Dim::Sum(symbols) if symbols.contains(&symbol));
        let Some((input, axis)) = self.place(is_sum) else { return Err(CoremlError::NoSize(symbol)) };
        let Dim::Sum(symbols) = &input.shape[axis] else { unreachable!("it is a sum") };
        let mut made = self.length(&input, axis);
        for other in symbols.iter().filter(|other| **other != symbol) {
            let other = self.symbol(other)?;
            made = self.two("sub", &made, &other);
        }
        Ok(made)
    }

    /// A vector of sizes.
    fn vector(&mut self, sizes: &[Dim]) -> Result<String, CoremlError> {
        let fixed: Option<Vec<i32>> = sizes.iter().map(|dim| dim.fixed().map(|n| n as i32)).collect();
        if let Some(fixed) = fixed {
            return Ok(self.literal(&Arg::Ints(&fixed)));
        }
        let made = sizes.iter().map(|dim| self.size(dim)).collect::<Result<Vec<_>, _>>()?;
        let made: Vec<&str> = made.iter().map(String::as_str).collect();
        Ok(self.concat(&made, 0, Kind::Int32, vec![Dim::Fixed(sizes.len())]))
    }

    pub(super) fn concat(&mut self, parts: &[&str], axis: i32, kind: Kind, shape: Vec<Dim>) -> String {
        let args = [("values", Arg::All(parts)), ("axis", Arg::Int(axis)), ("interleave", Arg::Bool(false))];
        self.op("concat", &args, kind, shape)
    }

    /// Rows of the first axis.
    fn gather(&mut self, x: &str, indices: &str, kind: Kind, shape: Vec<Dim>) -> String {
        let mut args = vec![("x", Arg::Of(x)), ("indices", Arg::Of(indices)), ("axis", Arg::Int(0))];
        args.extend(self.of_gathers());
        self.op("gather", &args, kind, shape)
    }

    /// The arguments that later versions of what gathers have.
    fn of_gathers(&self) -> Vec<(&'static str, Arg<'static>)> {
        let mut args = Vec::new();
        if self.target >= Target::IOS16 {
            args.push(("batch_dims", Arg::Int(0)));
        }
        if self.target > Target::IOS16 {
            args.push(("validate_indices", Arg::Bool(false)));
        }
        args
    }

    /// Of two tensors, which fit as numpy has it.
    pub(super) fn two(&mut self, op: &str, a: &str, b: &str) -> String {
        let shape = broadcast(&self.lengths(a), &self.lengths(b));
        let kind = match op {
            "equal" | "greater" => Kind::Bool,
            _ => self.kind(a),
        };
        self.op(op, &[("x", Arg::Of(a)), ("y", Arg::Of(b))], kind, shape)
    }

    /// Of a tensor and a number.
    pub(super) fn with_number(&mut self, op: &str, x: &str, number: f32) -> String {
        let number = self.number(number, self.kind(x));
        self.two(op, x, &number)
    }

    /// Of a tensor, number by number.
    pub(super) fn one(&mut self, op: &str, x: &str, more: &[(&str, Arg<'_>)]) -> String {
        let args: Vec<_> = [("x", Arg::Of(x))].into_iter().chain(more.iter().copied()).collect();
        self.op(op, &args, self.kind(x), self.lengths(x))
    }

    pub(super) fn cast(&mut self, x: &str, kind: Kind) -> String {
        if self.kind(x) == kind {
            return x.to_owned();
        }
        let key = format!("cast {x} {kind:?}");
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let dtype = match kind {
            Kind::Float16 => "fp16",
            Kind::Float32 => "fp32",
            _ => "int32",
        };
        let made = self.op("cast", &[("x", Arg::Of(x)), ("dtype", Arg::Text(dtype))], kind, self.lengths(x));
        self.made.insert(key, made.clone());
        made
    }

    pub(super) fn expand_dims(&mut self, x: &str, axes: &[i32]) -> String {
        let mut shape = self.lengths(x);
        for axis in axes {
            shape.insert(*axis as usize, Dim::Fixed(1));
        }
        self.op("expand_dims", &[("x", Arg::Of(x)), ("axes", Arg::Ints(axes))], self.kind(x), shape)
    }

    pub(super) fn reduce(&mut self, op: &str, x: &str, axes: &[usize], keep: bool) -> String {
        let lengths = self.lengths(x);
        let each = lengths.iter().enumerate();
        let left = each.filter_map(|(axis, dim)| match axes.contains(&axis) {
            true => keep.then_some(Dim::Fixed(1)),
            false => Some(dim.clone()),
        });
        let left = left.collect();
        let axes: Vec<i32> = axes.iter().map(|axis| *axis as i32).collect();
        let args = [("x", Arg::Of(x)), ("axes", Arg::Ints(&axes)), ("keep_dims", Arg::Bool(keep))];
        self.op(op, &args, self.kind(x), left)
    }

    /// A tensor in another shape. One length that is not fixed needs no number.
    fn reshape(&mut self, x: &str, to: &[Dim]) -> Result<String, CoremlError> {
        let open = to.iter().filter(|dim| dim.fixed().is_none()).count();
        let shape = if open <= 1 {
            let lengths: Vec<i32> = to.iter().map(|dim| dim.fixed().map_or(-1, |n| n as i32)).collect();
            self.literal(&Arg::Ints(&lengths))
        } else {
            self.vector(to)?
        };
        Ok(self.op("reshape", &[("x", Arg::Of(x)), ("shape", Arg::Of(&shape))], self.kind(x), to.to_vec()))
    }

    /// The tensor that is as it is seen.
    pub(super) fn tensor(&mut self, seen: &Seen) -> Result<String, CoremlError> {
        let (mut name, mut shape) = (seen.base.clone(), seen.of.clone());
        let mut key = format!("view {name}");
        for view in &seen.views {
            key = format!("{key} {view:?}");
            let to = view.shape(&shape);
            name = match self.made.get(&key) {
                Some(made) => made.clone(),
                None => {
                    let made = match view {
                        View::Turn(order) => {
                            let order: Vec<i32> = order.iter().map(|axis| *axis as i32).collect();
                            let args = [("x", Arg::Of(&name)), ("perm", Arg::Ints(&order))];
                            self.op("transpose", &args, self.kind(&name), to.clone())
                        }
                        View::Reshape(to) => self.reshape(&name, to)?,
                    };
                    self.made.insert(key.clone(), made.clone());
                    made
                }
            };
            shape = to;
        }
        Ok(name)
    }

    /// A value, as it may be seen.
    pub(super) fn seen(&mut self, id: Id) -> Result<Seen, CoremlError> {
        match self.values[id].clone() {
            Written::Seen(seen) => Ok(seen),
            Written::Constant => {
                let value = &self.graph.values[id];
                let key = format!("constant {id}");
                let name = match self.made.get(&key) {
                    Some(name) => name.clone(),
                    None => {
                        let values = value.constant.as_ref().expect("a constant has values");
                        let dims: Vec<usize> =
                            value.shape.iter().map(|dim| dim.fixed().expect("constants are")).collect();
                        self.weight(&value.name, &dims, values)?
                    }
                };
                self.made.insert(key, name.clone());
                Ok(Seen::plain(name, value.shape.clone()))
            }
            Written::Windows(..) => Err(CoremlError::NoOperator {
                op: "patches",
                name: self.graph.values[id].name.clone(),
                why: "windows of pictures are written as a convolution, and what follows is none",
            }),
            Written::Kept(_) => Err(CoremlError::NoOperator {
                op: "input",
                name: self.graph.values[id].name.clone(),
                why: "what is kept is only put something behind",
            }),
        }
    }

    /// A value's tensor, turned and reshaped as the value is.
    pub(super) fn plain(&mut self, id: Id) -> Result<String, CoremlError> {
        let seen = self.seen(id)?;
        self.tensor(&seen)
    }

    pub(super) fn constant(&self, id: Id) -> Option<Arc<Vec<f32>>> {
        self.graph.values[id].constant.clone()
    }

    /// A constant of one axis as an operator wants it, which has no place for what is computed; none where it is no constant.
    fn row(&mut self, id: Id) -> Result<Option<String>, CoremlError> {
        let Some(values) = self.constant(id) else { return Ok(None) };
        let key = format!("row {id}");
        if let Some(name) = self.made.get(&key) {
            return Ok(Some(name.clone()));
        }
        let name = self.floats(&self.graph.values[id].name.clone(), &[values.len()], &values)?;
        self.made.insert(key, name.clone());
        Ok(Some(name))
    }

    fn value(&mut self, value: &Value) -> Result<Written, CoremlError> {
        let inputs = &value.inputs;
        let shape = &value.shape;
        let tensor = |name: String| Ok(Written::Seen(Seen::plain(name, shape.clone())));
        if let Op::Depthwise(window) | Op::Patches(window) = &value.op
            && let Some(why) = is_no_convolution(*window, &self.graph.values[inputs[0]].shape)
        {
            return Err(CoremlError::NoOperator { op: value.op.name(), name: value.name.clone(), why });
        }
        match &value.op {
            Op::Constant => Ok(Written::Constant),
            Op::Input(name) => {
                if let Some(layer) = self.layer_of(name) {
                    return Ok(Written::Kept(layer));
                }
                let own = match self.graph.colours(name) {
                    Some(colours) => self.prepared(&identifier(name), colours)?,
                    None => identifier(name),
                };
                tensor(self.cast(&own, self.float))
            }
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
            Op::Narrow { axis, start, len } => {
                let x = self.plain(inputs[0])?;
                let begin = self.entry(start)?;
                let end = match (start, len) {
                    (Dim::Fixed(start), Dim::Fixed(len)) => Entry::Known(start + len),
                    (Dim::Fixed(0), len) => self.entry(len)?,
                    _ => {
                        let (from, len) = (self.size(start)?, self.size(len)?);
                        Entry::Computed(self.two("add", &from, &len))
                    }
                };
                tensor(self.slice(&x, *axis, &begin, &end, shape.clone()))
            }
            Op::Concat(axis) => {
                if let (Written::Kept(layer), &[_, fresh]) = (&self.values[inputs[0]], &inputs[..]) {
                    let layer = *layer;
                    return Ok(Written::Seen(self.keep(layer, fresh, *axis, shape)?));
                }
                let parts = inputs.iter().map(|input| self.plain(*input)).collect::<Result<Vec<_>, _>>()?;
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                tensor(self.concat(&parts, *axis as i32, self.float, shape.clone()))
            }
            Op::TakeRows(ids) => {
                let x = self.plain(inputs[0])?;
                let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
                let ids = self.literal(&Arg::Ints(&ids));
                tensor(self.gather(&x, &ids, self.float, shape.clone()))
            }
            Op::Repeat(times) => {
                let x = self.plain(inputs[0])?;
                let each = (1..shape.len()).map(|_| Dim::Fixed(1));
                let reps: Vec<Dim> = [times.clone()].into_iter().chain(each).collect();
                let reps = self.vector(&reps)?;
                let args = [("x", Arg::Of(&x)), ("reps", Arg::Of(&reps))];
                tensor(self.op("tile", &args, self.float, shape.clone()))
            }
            Op::Embed(ids) => {
                let table = self.plain(inputs[0])?;
                tensor(self.gather(&table, &identifier(ids), self.float, shape.clone()))
            }
            Op::EmbedQuantized(matrix, ids) => {
                let QMatrix::Groups(groups) = &**matrix else {
                    return Err(CoremlError::RoundsInputs(value.name.clone()));
                };
                let table = self.matrix_of_groups(matrix, groups);
                tensor(self.gather(&table, &identifier(ids), self.float, shape.clone()))
            }
            Op::TakeTokens(ids, mark) => {
                let x = self.plain(inputs[0])?;
                let place = self.place_of(&identifier(ids), *mark, &shape[0])?;
                let mut args = vec![("x", Arg::Of(&x)), ("indices", Arg::Of(&place))];
                args.extend(self.of_gathers());
                tensor(self.op("gather_nd", &args, self.float, shape.clone()))
            }
            Op::MeanTokens(mask) => {
                let x = self.plain(inputs[0])?;
                let mask = self.cast(&identifier(mask), self.float);
                let keep = self.expand_dims(&mask, &[2]);
                let kept = self.two("mul", &x, &keep);
                let sums = self.reduce("reduce_sum", &kept, &[1], false);
                let counts = self.reduce("reduce_sum", &mask, &[1], true);
                // Of a text without tokens, as of one with a token of zeros.
                let counts = self.with_number("maximum", &counts, 1.0);
                tensor(self.two("real_div", &sums, &counts))
            }
            Op::Add => self.binary("add", value),
            Op::Sub => self.binary("sub", value),
            Op::Mul => self.binary("mul", value),
            Op::Div => self.binary("real_div", value),
            Op::Affine(factor, offset) => {
                let (factor, offset) = (*factor as f32, *offset as f32);
                self.each(inputs[0], |lower, x| {
                    let mut y = x.to_owned();
                    if factor != 1.0 {
                        y = lower.with_number("mul", &y, factor);
                    }
                    if offset != 0.0 {
                        y = lower.with_number("add", &y, offset);
                    }
                    y
                })
            }
            Op::Exp => self.each(inputs[0], |lower, x| lower.one("exp", x, &[])),
            // What is added is nothing: coremltools' own default.
            Op::Log => self.each(inputs[0], |lower, x| lower.one("log", x, &[("epsilon", Arg::Number(1e-45))])),
            Op::Sqrt => self.each(inputs[0], |lower, x| lower.one("sqrt", x, &[])),
            Op::Gelu => self.each(inputs[0], |lower, x| lower.one("gelu", x, &[("mode", Arg::Text("EXACT"))])),
            Op::QuickGelu => self.each(inputs[0], |lower, x| {
                let scaled = lower.with_number("mul", x, 1.702);
                let gate = lower.one("sigmoid", &scaled, &[]);
                lower.two("mul", x, &gate)
            }),
            Op::Sum(axis) => self.sum(value, *axis),
            Op::SumAll => {
                let x = self.plain(inputs[0])?;
                let axes: Vec<usize> = (0..self.lengths(&x).len()).collect();
                tensor(self.reduce("reduce_sum", &x, &axes, false))
            }
            Op::Matmul => {
                let (a, b) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                tensor(self.matmul(&a, &b, false, shape.clone()))
            }
            Op::Linear => self.linear(value),
            Op::LinearQuantized(matrix) => {
                let QMatrix::Groups(groups) = &**matrix else {
                    return Err(CoremlError::RoundsInputs(value.name.clone()));
                };
                let x = self.plain(inputs[0])?;
                let matrix = self.matrix_of_groups(matrix, groups);
                tensor(self.product(&x, &matrix, None, shape.clone()))
            }
            Op::Softmax => {
                let x = self.plain(inputs[0])?;
                tensor(self.one("softmax", &x, &[("axis", Arg::Int(-1))]))
            }
            Op::LayerNorm(eps) => {
                let x = self.plain(inputs[0])?;
                let [weight, bias] = [self.row(inputs[1])?, self.row(inputs[2])?];
                let (Some(weight), Some(bias)) = (weight, bias) else {
                    return Err(CoremlError::NoOperator {
                        op: "layer-norm",
                        name: value.name.clone(),
                        why: "its scale or shift depends on an input",
                    });
                };
                let args = [
                    ("axes", Arg::Ints(&[-1])),
                    ("gamma", Arg::Of(&weight)),
                    ("beta", Arg::Of(&bias)),
                    ("epsilon", Arg::Number(self.epsilon(*eps))),
                ];
                tensor(self.one("layer_norm", &x, &args))
            }
            Op::RmsNorm(eps) => {
                let (x, weight) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                // In 32 bits always: squares soon are no numbers of 16 bits.
                let wide = self.cast(&x, Kind::Float32);
                let squares = self.two("mul", &wide, &wide);
                let mean = self.reduce("reduce_mean", &squares, &[shape.len() - 1], true);
                let eps = self.number(*eps, Kind::Float32);
                let root = self.one("rsqrt", &mean, &[("epsilon", Arg::Of(&eps))]);
                let normed = self.two("mul", &wide, &root);
                let normed = self.cast(&normed, self.float);
                tensor(self.two("mul", &normed, &weight))
            }
            Op::Rope { offset, base } => {
                let x = self.plain(inputs[0])?;
                tensor(self.rope(&x, shape, offset, *base)?)
            }
            Op::Swiglu => {
                let (gate, up) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                let gated = self.one("silu", &gate, &[]);
                tensor(self.two("mul", &gated, &up))
            }
            Op::Attention { mask, causal, scale } => {
                Ok(Written::Seen(self.attention(value, mask.as_deref(), *causal, *scale)?))
            }
            Op::Depthwise(window) => {
                let c = shape[3].fixed().expect("channels are fixed");
                let taps = self.constant(inputs[1]).ok_or_else(|| CoremlError::NoOperator {
                    op: "depthwise",
                    name: value.name.clone(),
                    why: "its taps depend on an input",
                })?;
                // [k, k, c] -> [c, 1, k, k]
                let size = window.size;
                let taps = turned(&taps, size * size, c);
                let name = self.graph.values[inputs[1]].name.clone();
                let taps = self.weight(&name, &[c, 1, size, size], &taps)?;
                self.convolution(inputs[0], &taps, inputs.get(2).copied(), *window, c, c)
            }
            Op::Patches(window) => Ok(Written::Windows(inputs[0], *window)),
            Op::ScaleShift(low, high) => {
                let (low, high) = (*low, *high);
                if let &[x] = &inputs[..] {
                    return self.each(x, |lower, x| lower.clip(x, low, high));
                }
                let [x, scale, shift] = [inputs[0], inputs[1], inputs[2]].map(|input| self.plain(input));
                let scaled = self.two("mul", &x?, &scale?);
                let shifted = self.two("add", &scaled, &shift?);
                tensor(self.clip(&shifted, low, high))
            }
        }
    }

    /// What is added below a root: at least what the kind that is computed in can hold.
    fn epsilon(&self, eps: f32) -> f32 {
        /// The least number of 16 bits that is not 0.
        const LEAST_HALF: f32 = 1.0 / (1u32 << 24) as f32;
        if self.float == Kind::Float16 { eps.max(LEAST_HALF) } else { eps }
    }

    /// From one entry of an axis to before another.
    pub(super) fn slice(&mut self, x: &str, axis: usize, begin: &Entry, end: &Entry, shape: Vec<Dim>) -> String {
        let rank = shape.len();
        let whole: Vec<bool> = (0..rank).map(|own| own != axis).collect();
        let mut at = |entry: &Entry| match entry {
            Entry::Known(number) => {
                let all: Vec<i32> = (0..rank).map(|own| if own == axis { *number as i32 } else { 0 }).collect();
                self.literal(&Arg::Ints(&all))
            }
            Entry::Computed(name) => {
                let zero = self.literal(&Arg::Int(0));
                let all: Vec<&str> = (0..rank).map(|own| if own == axis { &name[..] } else { &zero[..] }).collect();
                self.concat(&all, 0, Kind::Int32, vec![Dim::Fixed(rank)])
            }
        };
        let (begin, end) = (at(begin), at(end));
        let args = [
            ("x", Arg::Of(x)),
            ("begin", Arg::Of(&begin)),
            ("end", Arg::Of(&end)),
            ("begin_mask", Arg::Bools(&whole)),
            ("end_mask", Arg::Bools(&whole)),
        ];
        self.op("slice_by_index", &args, self.kind(x), shape)
    }

    fn clip(&mut self, x: &str, low: f32, high: f32) -> String {
        match (low.is_finite(), high.is_finite()) {
            (true, true) => self.one("clip", x, &[("alpha", Arg::Number(low)), ("beta", Arg::Number(high))]),
            (true, false) => self.with_number("maximum", x, low),
            (false, true) => self.with_number("minimum", x, high),
            (false, false) => x.to_owned(),
        }
    }

    /// What is done to each number by itself is done to the tensor as it lies, however it is seen.
    fn each(&mut self, id: Id, write: impl Fn(&mut Self, &str) -> String) -> Result<Written, CoremlError> {
        let seen = self.seen(id)?;
        let base = write(self, &seen.base);
        Ok(Written::Seen(Seen { base, ..seen }))
    }

    fn binary(&mut self, op: &str, value: &Value) -> Result<Written, CoremlError> {
        let (a, b) = (self.seen(value.inputs[0])?, self.seen(value.inputs[1])?);
        if a.of == b.of && a.views == b.views && !a.views.is_empty() {
            let base = self.two(op, &a.base, &b.base);
            return Ok(Written::Seen(Seen { base, ..a }));
        }
        let (a, b) = (self.tensor(&a)?, self.tensor(&b)?);
        let made = self.two(op, &a, &b);
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }

    fn sum(&mut self, value: &Value, axis: usize) -> Result<Written, CoremlError> {
        let x = self.seen(value.inputs[0])?;
        // The sum over the positions of pictures, [n, h * w, c] of [n, c, h, w].
        if let [View::Turn(order), View::Reshape(flat)] = &x.views[..]
            && *order == CHANNELS_LAST
            && axis == 1
            && let [n, _, c] = &flat[..]
            && *n == x.of[0]
            && *c == x.of[1]
        {
            let sums = self.reduce("reduce_sum", &x.base, &[2, 3], false);
            let sums = Seen::plain(sums, vec![n.clone(), c.clone()]);
            return Ok(Written::Seen(sums.seen(View::Reshape(value.shape.clone()))));
        }
        let x = self.tensor(&x)?;
        let made = self.reduce("reduce_sum", &x, &[axis], true);
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }

    /// A product, of the second turned where it is asked for.
    pub(super) fn matmul(&mut self, a: &str, b: &str, turned: bool, shape: Vec<Dim>) -> String {
        let args = [
            ("x", Arg::Of(a)),
            ("y", Arg::Of(b)),
            ("transpose_x", Arg::Bool(false)),
            ("transpose_y", Arg::Bool(turned)),
        ];
        self.op("matmul", &args, self.float, shape)
    }

    /// `x [.., in] * matrix [out, in]^T`, of a constant matrix.
    fn product(&mut self, x: &str, matrix: &str, bias: Option<&str>, shape: Vec<Dim>) -> String {
        if shape.len() > LINEAR_RANK_MAX {
            let made = self.matmul(x, matrix, true, shape);
            return bias.map_or(made.clone(), |bias| self.two("add", &made, bias));
        }
        let args = [("x", Arg::Of(x)), ("weight", Arg::Of(matrix))];
        let args: Vec<_> = args.into_iter().chain(bias.map(|bias| ("bias", Arg::Of(bias)))).collect();
        self.op("linear", &args, self.float, shape)
    }

    fn linear(&mut self, value: &Value) -> Result<Written, CoremlError> {
        let &[x, weight, ..] = &value.inputs[..] else { unreachable!("a product has two inputs") };
        let bias = value.inputs.get(2).copied();
        let known = self.constant(weight);
        let dims: Vec<usize> = self.graph.values[weight].shape.iter().filter_map(Dim::fixed).collect();
        let shape = || value.shape.clone();
        let (Some(weights), &[out, inner]) = (&known, &dims[..]) else {
            let (x, weight) = (self.plain(x)?, self.plain(weight)?);
            let mut made = self.matmul(&x, &weight, true, shape());
            if let Some(bias) = bias {
                let bias = self.plain(bias)?;
                made = self.two("add", &made, &bias);
            }
            return Ok(Written::Seen(Seen::plain(made, shape())));
        };
        let name = self.graph.values[weight].name.clone();
        if let Written::Windows(of, window) = self.values[x] {
            let (size, c) = (window.size, inner / (window.size * window.size));
            // [out, k, k, c] -> [out, c, k, k]
            let rows = weights.chunks_exact(inner).flat_map(|row| turned(row, size * size, c));
            let kernel: Vec<f32> = rows.collect();
            let kernel = self.weight(&name, &[out, c, size, size], &kernel)?;
            let made = self.convolution(of, &kernel, bias, window, out, 1)?;
            let Written::Seen(seen) = made else { unreachable!("a convolution is a tensor") };
            return Ok(Written::Seen(seen.seen(View::Reshape(shape()))));
        }
        let seen = self.seen(x)?;
        if seen.is_channels_last() {
            let kernel = self.weight(&name, &[out, inner, 1, 1], weights)?;
            let [h, w] = [2, 3].map(|axis| seen.of[axis].fixed().expect("pictures are of one size"));
            let window = Window { size: 1, stride: 1, before: 0, out_h: h, out_w: w };
            return self.convolution(x, &kernel, bias, window, out, 1);
        }
        let (x, matrix) = (self.tensor(&seen)?, self.plain(weight)?);
        let row = bias.map(|bias| self.row(bias)).transpose()?.flatten();
        let mut made = self.product(&x, &matrix, row.as_deref(), shape());
        if let (Some(bias), None) = (bias, row) {
            let bias = self.plain(bias)?;
            made = self.two("add", &made, &bias);
        }
        Ok(Written::Seen(Seen::plain(made, shape())))
    }

    /// Of pictures that are NHWC, by a kernel [out, in / groups, k, k]: -> [n, out_h, out_w, out], which lies as NCHW.
    fn convolution(
        &mut self,
        pictures: Id,
        kernel: &str,
        bias: Option<Id>,
        window: Window,
        out: usize,
        groups: usize,
    ) -> Result<Written, CoremlError> {
        let seen = self.seen(pictures)?.seen(View::Turn(CHANNELS_FIRST.to_vec()));
        let shape = seen.shape();
        let x = self.tensor(&seen)?;
        let Window { stride, before, out_h, out_w, .. } = window;
        let after =
            |out: usize, len: &Dim| zeros_after(window, out, len.fixed().expect("pictures are of one size")) as i32;
        let (below, right) = (after(out_h, &shape[2]), after(out_w, &shape[3]));
        let (before, stride) = (before as i32, stride as i32);
        let bias = match bias {
            Some(id) => Some(self.row(id)?.ok_or_else(|| CoremlError::NoOperator {
                op: "linear",
                name: self.own.clone(),
                why: "what is added to a convolution depends on an input",
            })?),
            None => None,
        };
        let strides = [stride, stride];
        let pad = [before, below, before, right];
        let mut args = vec![
            ("x", Arg::Of(&x)),
            ("weight", Arg::Of(kernel)),
            ("strides", Arg::Ints(&strides)),
            ("pad_type", Arg::Text("custom")),
            ("pad", Arg::Ints(&pad)),
            ("dilations", Arg::Ints(&[1, 1])),
            ("groups", Arg::Int(groups as i32)),
        ];
        args.extend(bias.as_ref().map(|bias| ("bias", Arg::Of(bias))));
        let of = vec![shape[0].clone(), Dim::Fixed(out), Dim::Fixed(out_h), Dim::Fixed(out_w)];
        let made = self.op("conv", &args, self.float, of.clone());
        Ok(Written::Seen(Seen::plain(made, of).seen(View::Turn(CHANNELS_LAST.to_vec()))))
    }

    /// Gives the outputs their names: what computes one is renamed. What was renamed, and to what.
    fn outputs(&mut self) -> Result<(Vec<String>, HashMap<String, String>), CoremlError> {
        let mut renamed: HashMap<String, String> = HashMap::new();
        let mut names = Vec::new();
        for (name, id) in &self.graph.outputs {
            self.own.clone_from(name);
            let name = identifier(name);
            let x = self.plain(*id)?;
            let x = self.cast(&x, Kind::Float32);
            let gives = |op: &proto::Operation| op.outputs.first().is_some_and(|output| output.name == x);
            let is_computed = self
                .operations
                .iter()
                .any(|op| gives(op) && op.r#type != "const" && !op.r#type.starts_with("constexpr_"));
            if is_computed && !renamed.contains_key(&x) {
                renamed.insert(x, name.clone());
            } else {
                let (shape, inputs) = (self.lengths(&x), [("x".to_owned(), bound_to(&x))]);
                self.emit("identity", inputs.into(), BTreeMap::new(), name.clone(), Kind::Float32, shape);
            }
            names.push(name);
        }
        for op in &mut self.operations {
            for argument in op.inputs.values_mut().flat_map(|argument| &mut argument.arguments) {
                if let Some(proto::Bound::Name(name)) = &mut argument.bound
                    && let Some(to) = renamed.get(name)
                {
                    name.clone_from(to);
                }
            }
            if let Some(output) = op.outputs.first_mut()
                && let Some(to) = renamed.get(&output.name)
            {
                output.name.clone_from(to);
                op.attributes.insert("name".into(), text(to));
            }
        }
        Ok((names, renamed))
    }
}

fn is_size(dim: &Dim, symbol: Symbol) -> bool {
    *dim == Dim::Product(1, vec![symbol])
}

/// The shape of what two tensors give together, as numpy has it.
fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |axis| shape[axis].clone())
    };
    let each = (0..rank).map(|axis| match (at(a, axis), at(b, axis)) {
        (Dim::Fixed(1), other) => other,
        (own, _) => own,
    });
    each.collect()
}
