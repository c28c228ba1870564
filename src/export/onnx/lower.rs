//! The graph's operations as ONNX's.

mod attend;
mod codes;
mod pictures;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::OnnxError;
use super::proto::{Attribute, Node, Tensor};
use crate::backend::Window;
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::backend::qmatrix::QMatrix;
use crate::backend::trace::Op;
use crate::export::format::{HALVES_MIN, Options, Precision};
use crate::export::graph::{Dim, Graph, Id, Symbol, Value};
use crate::export::source::PAST;
use crate::export::view::{
    CHANNELS_FIRST, CHANNELS_LAST, Seen, View, above_nothing, is_no_convolution, turned, zeros_after,
};
use crate::export::written::Place;

/// ONNX's numbers of element types.
pub(super) const FLOAT: i32 = 1;
pub(super) const UINT8: i32 = 2;
pub(super) const INT8: i32 = 3;
pub(super) const INT32: i32 = 6;
pub(super) const INT64: i32 = 7;
const BOOL: i32 = 9;
const FLOAT16: i32 = 10;

/// onnxruntime's own operators.
const MICROSOFT: &str = "com.microsoft";

/// ONNX's numbers of kinds of attributes.
const OF_FLOAT: i32 = 1;
const OF_INT: i32 = 2;
const OF_INTS: i32 = 7;

/// What a graph became.
pub(super) struct Lowered {
    pub(super) nodes: Vec<Node>,
    pub(super) initializers: Vec<Tensor>,
    /// The sets of operators, with their versions.
    pub(super) domains: Vec<(String, i64)>,
    pub(super) places: Vec<Place>,
}

/// Writes all values of a graph that its outputs need.
pub(super) fn lower(graph: &Graph, opset: u32, options: &Options) -> Result<Lowered, OnnxError> {
    let precision = options.precision;
    let mut lower = Lower {
        graph,
        opset,
        is_half: precision == Precision::F16,
        keeps_halves: precision == Precision::F16Weights,
        has_bytes: precision == Precision::Int8,
        keeps_bytes: precision == Precision::Int8Weights,
        weight_threshold: options.weight_threshold,
        uses: graph.uses(),
        nodes: Vec::new(),
        initializers: Vec::new(),
        values: Vec::with_capacity(graph.values.len()),
        made: HashMap::new(),
        names: BTreeMap::new(),
        own: String::new(),
    };
    for input in graph.inputs.iter().map(|input| &input.name).chain(graph.outputs.iter().map(|(name, _)| name)) {
        lower.names.insert(input.clone(), 1);
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
    for (name, id) in &graph.outputs {
        lower.own.clone_from(name);
        let x = lower.plain(*id)?;
        let last = if lower.is_half { lower.cast(&x, FLOAT) } else { x };
        let node = Node {
            input: vec![last],
            output: vec![name.clone()],
            name: format!("{name}/node"),
            op_type: "Identity".into(),
            ..Node::default()
        };
        lower.nodes.push(node);
    }
    let Lower { nodes, initializers, .. } = lower;
    let mut domains = vec![(String::new(), i64::from(opset))];
    if nodes.iter().any(|node| node.domain == MICROSOFT) {
        domains.push((MICROSOFT.into(), 1));
    }
    Ok(Lowered { nodes, initializers, domains, places })
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
    opset: u32,
    is_half: bool,
    keeps_halves: bool,
    /// Matrices in bytes, and what they multiply.
    has_bytes: bool,
    /// Matrices in bytes, which are made floats before they are used.
    keeps_bytes: bool,
    /// Tensors of no more weights stay as they are.
    weight_threshold: usize,
    uses: Vec<usize>,
    nodes: Vec<Node>,
    initializers: Vec<Tensor>,
    values: Vec<Written>,
    /// What was made already and is the same for all, by what it is.
    made: HashMap<String, String>,
    /// How often a name was given.
    names: BTreeMap<String, usize>,
    /// The value that is being written: what is written for it is named by it.
    own: String,
}

impl Lower<'_> {
    fn unique(&mut self, name: String) -> String {
        crate::export::graph::unique(&mut self.names, name)
    }

    fn node_of(&mut self, op: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let output = self.unique(format!("{}/{op}", self.own));
        self.nodes.push(Node {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.clone()],
            // No tensor's name: some programs find both by theirs.
            name: format!("{output}/node"),
            op_type: op.to_owned(),
            attribute,
            domain: String::new(),
        });
        output
    }

    fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        self.node_of(op, inputs, Vec::new())
    }

    fn initializer(&mut self, name: String, dims: &[usize], data_type: i32, raw: Vec<u8>) -> String {
        let name = self.unique(name);
        let dims = dims.iter().map(|n| *n as i64).collect();
        self.initializers.push(Tensor {
            dims,
            data_type,
            name: name.clone(),
            raw_data: Some(raw),
            external_data: Vec::new(),
            data_location: 0,
        });
        name
    }

    /// Floats, in the file's precision.
    fn floats(&mut self, name: String, dims: &[usize], values: &[f32]) -> Result<String, OnnxError> {
        let is_kept = self.keeps_halves && values.len() >= HALVES_MIN;
        let float = if self.is_half || is_kept { Float::F16 } else { Float::F32 };
        if let Some(value) = floats::too_large(values, float) {
            return Err(OnnxError::TooLarge { name, value });
        }
        let kind = if float == Float::F16 { FLOAT16 } else { FLOAT };
        let made = self.initializer(name, dims, kind, floats::to_bytes(values, float));
        Ok(if is_kept { self.cast(&made, FLOAT) } else { made })
    }

    fn float(&self) -> i32 {
        if self.is_half { FLOAT16 } else { FLOAT }
    }

    /// One number, the same for all who need it.
    fn number(&mut self, value: f32) -> Result<String, OnnxError> {
        let key = format!("number {}", value.to_bits());
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let kept = if self.is_half { above_nothing(value) } else { value };
        let name = self.floats(format!("number {value}"), &[], &[kept])?;
        self.made.insert(key, name.clone());
        Ok(name)
    }

    /// Integers, the same for all who need them; of one axis, or of none.
    fn integers(&mut self, values: &[i64], is_scalar: bool) -> String {
        let key = format!("{} {values:?}", if is_scalar { "integer" } else { "integers" });
        if let Some(name) = self.made.get(&key) {
            return name.clone();
        }
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims: &[usize] = if is_scalar { &[] } else { &[values.len()] };
        let name = self.initializer(key.clone(), dims, INT64, raw);
        self.made.insert(key, name.clone());
        name
    }

    /// A tensor of one integer: how large something is.
    fn size(&mut self, dim: &Dim) -> Result<String, OnnxError> {
        if let Dim::Fixed(number) = dim {
            return Ok(self.integers(&[*number as i64], false));
        }
        let key = format!("size {dim}");
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let own = std::mem::replace(&mut self.own, key.clone());
        let made = match dim {
            Dim::Fixed(_) => unreachable!("of a fixed size there is a constant"),
            Dim::Product(factor, symbols) => {
                let mut made: Option<String> = None;
                for symbol in symbols {
                    let size = self.symbol(symbol)?;
                    made = Some(match made {
                        Some(before) => self.node("Mul", &[&before, &size]),
                        None => size,
                    });
                }
                let made = made.expect("a product of sizes has one");
                match factor {
                    1 => made,
                    factor => {
                        let factor = self.integers(&[*factor as i64], false);
                        self.node("Mul", &[&made, &factor])
                    }
                }
            }
            Dim::Sum(symbols) => {
                let mut made = self.symbol(symbols[0])?;
                for symbol in &symbols[1..] {
                    let size = self.symbol(symbol)?;
                    made = self.node("Add", &[&made, &size]);
                }
                made
            }
        };
        self.own = own;
        self.made.insert(key, made.clone());
        Ok(made)
    }

    fn symbol(&mut self, symbol: Symbol) -> Result<String, OnnxError> {
        let key = format!("symbol {symbol}");
        if let Some(name) = self.made.get(&key) {
            return Ok(name.clone());
        }
        let is_it = |dim: &Dim| *dim == Dim::Product(1, vec![symbol]);
        let place = self.graph.inputs.iter().find_map(|input| Some((input, input.shape.iter().position(is_it)?)));
        let Some((input, axis)) = place else { return Err(OnnxError::NoSize(symbol)) };
        let shape = self.node("Shape", &[&input.name]);
        let axis = self.integers(&[axis as i64], false);
        let made = self.node("Gather", &[&shape, &axis]);
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// The tensor of a shape, for who makes one of that shape.
    fn shape(&mut self, shape: &[Dim]) -> Result<String, OnnxError> {
        let fixed: Option<Vec<i64>> = shape.iter().map(|dim| dim.fixed().map(|n| n as i64)).collect();
        if let Some(fixed) = fixed {
            return Ok(self.integers(&fixed, false));
        }
        let sizes = shape.iter().map(|dim| self.size(dim)).collect::<Result<Vec<_>, _>>()?;
        let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
        Ok(self.node_of("Concat", &sizes, vec![int("axis", 0)]))
    }

    /// A tensor in another shape. A length that stays in its place needs no number, nor does one other.
    fn reshape(&mut self, x: &str, from: &[Dim], to: &[Dim]) -> Result<String, OnnxError> {
        let mut lengths = Vec::with_capacity(to.len());
        let mut open = 0;
        for (axis, dim) in to.iter().enumerate() {
            lengths.push(match dim {
                Dim::Fixed(number) => *number as i64,
                dim if from.get(axis) == Some(dim) => 0,
                _ => {
                    open += 1;
                    -1
                }
            });
        }
        // An empty axis would be taken for one that stays.
        let has_empty = to.contains(&Dim::Fixed(0));
        let may_be_empty = |dim: &Dim| dim.is_times(PAST);
        if let Some(axis) = to.iter().position(may_be_empty)
            && open > 0
        {
            // Of what is empty every length could be the one that is left out: it is the empty one, beside numbers.
            if to[axis + 1..].iter().any(may_be_empty) || has_empty {
                return Err(OnnxError::NoOperator {
                    op: "reshape",
                    name: self.own.clone(),
                    why: "two of its axes may be empty",
                });
            }
            let left_out = self.integers(&[-1], false);
            let mut parts = Vec::with_capacity(to.len());
            for (at, dim) in to.iter().enumerate() {
                parts.push(if at == axis { left_out.clone() } else { self.size(dim)? });
            }
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let shape = self.node_of("Concat", &parts, vec![int("axis", 0)]);
            return Ok(self.node("Reshape", &[x, &shape]));
        }
        let shape = if open <= 1 && !has_empty { self.integers(&lengths, false) } else { self.shape(to)? };
        Ok(self.node("Reshape", &[x, &shape]))
    }

    /// The tensor that is as it is seen.
    fn tensor(&mut self, seen: &Seen) -> Result<String, OnnxError> {
        let (mut name, mut shape) = (seen.base.clone(), seen.of.clone());
        let mut key = format!("view {name}");
        for view in &seen.views {
            key = format!("{key} {view:?}");
            name = match self.made.get(&key) {
                Some(made) => made.clone(),
                None => {
                    let made = match view {
                        View::Turn(order) => {
                            let order: Vec<i64> = order.iter().map(|axis| *axis as i64).collect();
                            self.node_of("Transpose", &[&name], vec![ints("perm", order)])
                        }
                        View::Reshape(to) => self.reshape(&name, &shape, to)?,
                    };
                    self.made.insert(key.clone(), made.clone());
                    made
                }
            };
            shape = view.shape(&shape);
        }
        Ok(name)
    }

    /// A value, as it may be seen.
    fn seen(&mut self, id: Id) -> Result<Seen, OnnxError> {
        let graph = self.graph;
        match self.values[id].clone() {
            Written::Seen(seen) => Ok(seen),
            Written::Constant => {
                let value = &graph.values[id];
                let values = value.constant.as_ref().expect("a constant has values");
                let dims: Vec<usize> = value.shape.iter().map(|dim| dim.fixed().expect("constants are")).collect();
                let key = format!("constant {id}");
                let name = match self.made.get(&key) {
                    Some(name) => name.clone(),
                    None if self.is_kept_in_bytes(&dims, values) => {
                        let (codes, scales) = self.table(id);
                        let scales = self.of_rows(&scales, dims.len());
                        self.expanded_rows(&codes, &scales)
                    }
                    None => self.floats(value.name.clone(), &dims, values)?,
                };
                self.made.insert(key, name.clone());
                Ok(Seen::plain(name, value.shape.clone()))
            }
            Written::Windows(..) => Err(OnnxError::NoOperator {
                op: "patches",
                name: graph.values[id].name.clone(),
                why: "windows of pictures are written as a convolution, and what follows is none",
            }),
        }
    }

    /// A value's tensor, turned and reshaped as the value is.
    fn plain(&mut self, id: Id) -> Result<String, OnnxError> {
        let seen = self.seen(id)?;
        self.tensor(&seen)
    }

    fn constant(&self, id: Id) -> Option<Arc<Vec<f32>>> {
        self.graph.values[id].constant.clone()
    }

    fn cast(&mut self, x: &str, kind: i32) -> String {
        self.node_of("Cast", &[x], vec![int("to", i64::from(kind))])
    }

    fn value(&mut self, value: &Value) -> Result<Written, OnnxError> {
        let inputs = &value.inputs;
        let shape = &value.shape;
        let tensor = |name: String| Ok(Written::Seen(Seen::plain(name, shape.clone())));
        if let Op::Depthwise(window) | Op::Patches(window) = &value.op
            && let Some(why) = is_no_convolution(*window, &self.graph.values[inputs[0]].shape)
        {
            return Err(OnnxError::NoOperator { op: value.op.name(), name: value.name.clone(), why });
        }
        match &value.op {
            Op::Constant => Ok(Written::Constant),
            Op::Input(name) => {
                let own = match self.graph.colours(name) {
                    Some(colours) => self.prepared(name, colours),
                    None => name.clone(),
                };
                tensor(if self.is_half { self.cast(&own, FLOAT16) } else { own })
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
                let from = self.size(start)?;
                let until = match (start, len) {
                    (Dim::Fixed(start), Dim::Fixed(len)) => self.integers(&[(start + len) as i64], false),
                    (Dim::Fixed(0), len) => self.size(len)?,
                    (_, len) => {
                        let len = self.size(len)?;
                        self.node("Add", &[&from, &len])
                    }
                };
                let axis = self.integers(&[*axis as i64], false);
                tensor(self.node("Slice", &[&x, &from, &until, &axis]))
            }
            Op::Concat(axis) => {
                let parts = inputs.iter().map(|input| self.plain(*input)).collect::<Result<Vec<_>, _>>()?;
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                tensor(self.node_of("Concat", &parts, vec![int("axis", *axis as i64)]))
            }
            Op::TakeRows(ids) => {
                let x = self.plain(inputs[0])?;
                let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
                let ids = self.integers(&ids, false);
                tensor(self.node_of("Gather", &[&x, &ids], vec![int("axis", 0)]))
            }
            Op::Repeat(_) => {
                let x = self.plain(inputs[0])?;
                let to = self.shape(shape)?;
                tensor(self.node("Expand", &[&x, &to]))
            }
            Op::Embed(ids) if self.is_table_of_bytes(inputs[0]) => {
                // Rows of bytes are taken, and made floats.
                let (codes, scales) = self.table(inputs[0]);
                let codes = self.node_of("Gather", &[&codes, ids], vec![int("axis", 0)]);
                let scales = self.node_of("Gather", &[&scales, ids], vec![int("axis", 0)]);
                // A scale for each row, whatever a row is.
                let axes: Vec<i64> = (2..shape.len() as i64).collect();
                let scales = if axes.is_empty() {
                    scales
                } else {
                    let axes = self.integers(&axes, false);
                    self.node("Unsqueeze", &[&scales, &axes])
                };
                let floats = self.cast(&codes, FLOAT);
                tensor(self.node("Mul", &[&floats, &scales]))
            }
            Op::Embed(ids) => {
                let table = self.plain(inputs[0])?;
                tensor(self.node_of("Gather", &[&table, ids], vec![int("axis", 0)]))
            }
            Op::EmbedQuantized(matrix, ids) => {
                let QMatrix::Groups(groups) = &**matrix else {
                    return Err(OnnxError::RoundsInputs(value.name.clone()));
                };
                let [codes, scales, biases] = self.codes(matrix, groups);
                let [codes, scales, biases] =
                    [codes, scales, biases].map(|of| self.node_of("Gather", &[&of, ids], vec![int("axis", 0)]));
                tensor(self.expanded(&codes, &scales, &biases, &[0, 0, groups.inner as i64]))
            }
            Op::TakeTokens(ids, mark) => {
                let x = self.plain(inputs[0])?;
                let place = self.place_of(ids, *mark);
                tensor(self.node_of("GatherND", &[&x, &place], vec![int("batch_dims", 1)]))
            }
            Op::MeanTokens(mask) => {
                let x = self.plain(inputs[0])?;
                let mask = self.mask_as_floats(mask);
                let (one, last) = (self.integers(&[1], false), self.integers(&[2], false));
                let keep = self.node("Unsqueeze", &[&mask, &last]);
                let kept = self.node("Mul", &[&x, &keep]);
                let sums = self.node_of("ReduceSum", &[&kept, &one], vec![int("keepdims", 0)]);
                let counts = self.node_of("ReduceSum", &[&mask, &one], vec![int("keepdims", 1)]);
                // Of a text without tokens, as of one with a token of zeros.
                let least = self.number(1.0)?;
                let counts = self.node("Max", &[&counts, &least]);
                tensor(self.node("Div", &[&sums, &counts]))
            }
            Op::Add => self.binary("Add", value),
            Op::Sub => self.binary("Sub", value),
            Op::Mul => self.binary("Mul", value),
            Op::Div => self.binary("Div", value),
            Op::Affine(factor, offset) => {
                let (factor, offset) = (*factor as f32, *offset as f32);
                self.each(inputs[0], |lower, x| {
                    let mut y = x.to_owned();
                    if factor != 1.0 {
                        let factor = lower.number(factor)?;
                        y = lower.node("Mul", &[&y, &factor]);
                    }
                    if offset != 0.0 {
                        let offset = lower.number(offset)?;
                        y = lower.node("Add", &[&y, &offset]);
                    }
                    Ok(y)
                })
            }
            Op::Exp => self.each(inputs[0], |lower, x| Ok(lower.node("Exp", &[x]))),
            Op::Log => self.each(inputs[0], |lower, x| Ok(lower.node("Log", &[x]))),
            Op::Sqrt => self.each(inputs[0], |lower, x| Ok(lower.node("Sqrt", &[x]))),
            Op::Gelu => self.each(inputs[0], Self::gelu),
            Op::QuickGelu => self.each(inputs[0], |lower, x| {
                let factor = lower.number(1.702)?;
                let scaled = lower.node("Mul", &[x, &factor]);
                let gate = lower.node("Sigmoid", &[&scaled]);
                Ok(lower.node("Mul", &[x, &gate]))
            }),
            Op::Sum(axis) => self.sum(value, *axis),
            Op::SumAll => {
                let x = self.plain(inputs[0])?;
                tensor(self.node_of("ReduceSum", &[&x], vec![int("keepdims", 0)]))
            }
            Op::Matmul => {
                let (a, b) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                tensor(self.node("MatMul", &[&a, &b]))
            }
            Op::Linear => self.linear(value),
            Op::LinearQuantized(matrix) => {
                let QMatrix::Groups(groups) = &**matrix else {
                    return Err(OnnxError::RoundsInputs(value.name.clone()));
                };
                let x = self.plain(inputs[0])?;
                tensor(self.product_of_groups(&x, matrix, groups, shape.len())?)
            }
            Op::Softmax => {
                let x = self.plain(inputs[0])?;
                tensor(self.node_of("Softmax", &[&x], vec![int("axis", -1)]))
            }
            Op::LayerNorm(eps) => {
                let [x, weight, bias] = [inputs[0], inputs[1], inputs[2]].map(|input| self.plain(input));
                tensor(self.layer_norm(&x?, &weight?, &bias?, *eps)?)
            }
            Op::RmsNorm(eps) => {
                let (x, weight) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                let squares = self.node("Mul", &[&x, &x]);
                let mean = self.mean(&squares);
                let eps = self.number(*eps)?;
                let above = self.node("Add", &[&mean, &eps]);
                let root = self.node("Sqrt", &[&above]);
                let normed = self.node("Div", &[&x, &root]);
                tensor(self.node("Mul", &[&normed, &weight]))
            }
            Op::Rope { offset, base } => {
                let x = self.plain(inputs[0])?;
                tensor(self.rope(&x, shape, offset, *base)?)
            }
            Op::Swiglu => {
                let (gate, up) = (self.plain(inputs[0])?, self.plain(inputs[1])?);
                let open = self.node("Sigmoid", &[&gate]);
                let gated = self.node("Mul", &[&gate, &open]);
                tensor(self.node("Mul", &[&gated, &up]))
            }
            Op::Attention { mask, causal, scale } => self.attention(value, mask.as_deref(), *causal, *scale),
            Op::Depthwise(window) => {
                let c = shape[3].fixed().expect("channels are fixed");
                let taps = self.constant(inputs[1]).ok_or_else(|| OnnxError::NoOperator {
                    op: "depthwise",
                    name: value.name.clone(),
                    why: "its taps depend on an input",
                })?;
                // [k, k, c] -> [c, 1, k, k]
                let size = window.size;
                let taps = turned(&taps, size * size, c);
                let name = self.graph.values[inputs[1]].name.clone();
                let taps = self.kernel(name, &[c, 1, size, size], &taps)?;
                self.convolution(inputs[0], &taps, inputs.get(2).copied(), *window, c, c)
            }
            Op::Patches(window) => Ok(Written::Windows(inputs[0], *window)),
            Op::ScaleShift(low, high) => {
                let (low, high) = (*low, *high);
                if let &[x] = &inputs[..] {
                    return self.each(x, |lower, x| lower.clip(x, low, high));
                }
                let [x, scale, shift] = [inputs[0], inputs[1], inputs[2]].map(|input| self.plain(input));
                let scaled = self.node("Mul", &[&x?, &scale?]);
                let shifted = self.node("Add", &[&scaled, &shift?]);
                tensor(self.clip(&shifted, low, high)?)
            }
        }
    }

    fn clip(&mut self, x: &str, low: f32, high: f32) -> Result<String, OnnxError> {
        if low.is_infinite() && high.is_infinite() {
            return Ok(x.to_owned());
        }
        let mut bound = |value: f32| if value.is_finite() { self.number(value) } else { Ok(String::new()) };
        let (low, high) = (bound(low)?, bound(high)?);
        Ok(self.node("Clip", &[x, &low, &high]))
    }

    /// What is done to each number by itself is done to the tensor as it lies, however it is seen.
    fn each(
        &mut self,
        id: Id,
        write: impl Fn(&mut Self, &str) -> Result<String, OnnxError>,
    ) -> Result<Written, OnnxError> {
        let seen = self.seen(id)?;
        let base = write(self, &seen.base)?;
        Ok(Written::Seen(Seen { base, ..seen }))
    }

    fn binary(&mut self, op: &str, value: &Value) -> Result<Written, OnnxError> {
        if let Some(made) = self.binary_by_one(op, value)? {
            return Ok(made);
        }
        let (a, b) = (self.seen(value.inputs[0])?, self.seen(value.inputs[1])?);
        if a.of == b.of && a.views == b.views && !a.views.is_empty() {
            let base = self.node(op, &[&a.base, &b.base]);
            return Ok(Written::Seen(Seen { base, ..a }));
        }
        // A tensor that is divided has all axes: rten 0.24 takes them for those of the quotient.
        let a = if op == "Div" { with_axes(a, value.shape.len()) } else { a };
        let (a, b) = (self.tensor(&a)?, self.tensor(&b)?);
        let made = self.node(op, &[&a, &b]);
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }

    /// By a constant of one entry along one axis, which is written without an axis: rten 0.24 takes such a one for as many as a
    /// product has columns. None where it is something else.
    fn binary_by_one(&mut self, op: &str, value: &Value) -> Result<Option<Written>, OnnxError> {
        for (at, other) in [(1, 0), (0, 1)] {
            let [one, other] = [at, other].map(|at| value.inputs[at]);
            let rank = |id: Id| self.graph.values[id].shape.len();
            let (Some(&[number]), 1, 1..) = (self.constant(one).as_deref().map(Vec::as_slice), rank(one), rank(other))
            else {
                continue;
            };
            // What is divided keeps its axes.
            if at == 0 && op == "Div" {
                continue;
            }
            let seen = self.seen(other)?;
            let number = self.number(number)?;
            let inputs = if at == 1 { [&seen.base[..], &number] } else { [&number[..], &seen.base] };
            let base = self.node(op, &inputs);
            return Ok(Some(Written::Seen(Seen { base, ..seen })));
        }
        Ok(None)
    }

    fn sum(&mut self, value: &Value, axis: usize) -> Result<Written, OnnxError> {
        let x = self.seen(value.inputs[0])?;
        // The sum over the positions of pictures, [n, h * w, c] of [n, c, h, w].
        if let [View::Turn(order), View::Reshape(flat)] = &x.views[..]
            && *order == CHANNELS_LAST
            && axis == 1
            && let [n, _, c] = &flat[..]
            && *n == x.of[0]
            && *c == x.of[1]
        {
            let axes = self.integers(&[2, 3], false);
            let sums = self.node_of("ReduceSum", &[&x.base, &axes], vec![int("keepdims", 0)]);
            let sums = Seen::plain(sums, vec![n.clone(), c.clone()]);
            return Ok(Written::Seen(sums.seen(View::Reshape(value.shape.clone()))));
        }
        let x = self.tensor(&x)?;
        let axes = self.integers(&[axis as i64], false);
        let made = self.node_of("ReduceSum", &[&x, &axes], vec![int("keepdims", 1)]);
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }

    /// The mean over the last axis, which stays.
    fn mean(&mut self, x: &str) -> String {
        if self.opset < 18 {
            return self.node_of("ReduceMean", &[x], vec![ints("axes", vec![-1]), int("keepdims", 1)]);
        }
        let axes = self.integers(&[-1], false);
        self.node_of("ReduceMean", &[x, &axes], vec![int("keepdims", 1)])
    }

    fn layer_norm(&mut self, x: &str, weight: &str, bias: &str, eps: f32) -> Result<String, OnnxError> {
        if self.opset >= 17 {
            let own = vec![int("axis", -1), float("epsilon", eps)];
            return Ok(self.node_of("LayerNormalization", &[x, weight, bias], own));
        }
        let mean = self.mean(x);
        let centred = self.node("Sub", &[x, &mean]);
        let squares = self.node("Mul", &[&centred, &centred]);
        let variance = self.mean(&squares);
        let eps = self.number(eps)?;
        let above = self.node("Add", &[&variance, &eps]);
        let root = self.node("Sqrt", &[&above]);
        let normed = self.node("Div", &[&centred, &root]);
        let scaled = self.node("Mul", &[&normed, weight]);
        Ok(self.node("Add", &[&scaled, bias]))
    }

    fn gelu(&mut self, x: &str) -> Result<String, OnnxError> {
        if self.opset >= 20 {
            return Ok(self.node("Gelu", &[x]));
        }
        let (root, one, half) = (self.number(std::f32::consts::SQRT_2)?, self.number(1.0)?, self.number(0.5)?);
        let scaled = self.node("Div", &[x, &root]);
        let error = self.node("Erf", &[&scaled]);
        let above = self.node("Add", &[&error, &one]);
        let twice = self.node("Mul", &[x, &above]);
        Ok(self.node("Mul", &[&twice, &half]))
    }

    fn linear(&mut self, value: &Value) -> Result<Written, OnnxError> {
        let &[x, weight, ..] = &value.inputs[..] else { unreachable!("a product has two inputs") };
        let bias = value.inputs.get(2).copied();
        let known = self.constant(weight);
        let dims: Vec<usize> = self.graph.values[weight].shape.iter().filter_map(Dim::fixed).collect();
        if let (Some(weights), &[out, inner]) = (&known, &dims[..]) {
            let name = || self.graph.values[weight].name.clone();
            if let Written::Windows(of, window) = self.values[x] {
                let (size, c) = (window.size, inner / (window.size * window.size));
                // [out, k, k, c] -> [out, c, k, k]
                let rows = weights.chunks_exact(inner).flat_map(|row| turned(row, size * size, c));
                let kernel: Vec<f32> = rows.collect();
                let kernel = self.kernel(name(), &[out, c, size, size], &kernel)?;
                let made = self.convolution(of, &kernel, bias, window, out, 1)?;
                let Written::Seen(seen) = made else { unreachable!("a convolution is a tensor") };
                return Ok(Written::Seen(seen.seen(View::Reshape(value.shape.clone()))));
            }
            let seen = self.seen(x)?;
            if seen.is_channels_last() {
                let kernel = self.kernel(name(), &[out, inner, 1, 1], weights)?;
                let [h, w] = [2, 3].map(|axis| seen.of[axis].fixed().expect("pictures are of one size"));
                let window = Window { size: 1, stride: 1, before: 0, out_h: h, out_w: w };
                return self.convolution(x, &kernel, bias, window, out, 1);
            }
        }
        let x = self.plain(x)?;
        if let Some(weights) = known.as_ref().filter(|own| self.has_bytes && own.len() > self.weight_threshold) {
            let made = self.product_of_bytes(&x, weight, weights, dims[1], bias)?;
            return Ok(Written::Seen(Seen::plain(made, value.shape.clone())));
        }
        let matrix = match known {
            Some(weights) if self.uses[weight] == 1 => {
                let name = self.graph.values[weight].name.clone();
                let (out, inner) = (dims[0], dims[1]);
                if self.is_kept_in_bytes(&dims, &weights) {
                    self.matrix_of_bytes(name, &weights, out, inner)
                } else {
                    self.floats(name, &[inner, out], &turned(&weights, out, inner))?
                }
            }
            // Others need it as it is: it is in the file once.
            _ => {
                let weight = self.seen(weight)?.seen(View::Turn(vec![1, 0]));
                self.tensor(&weight)?
            }
        };
        let mut made = self.node("MatMul", &[&x, &matrix]);
        if let Some(bias) = bias {
            let bias = self.plain(bias)?;
            made = self.node("Add", &[&made, &bias]);
        }
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
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
    ) -> Result<Written, OnnxError> {
        let seen = self.seen(pictures)?.seen(View::Turn(CHANNELS_FIRST.to_vec()));
        let shape = seen.shape();
        let x = self.tensor(&seen)?;
        let Window { size, stride, before, out_h, out_w } = window;
        let after =
            |out: usize, len: &Dim| zeros_after(window, out, len.fixed().expect("pictures are of one size")) as i64;
        let (below, right) = (after(out_h, &shape[2]), after(out_w, &shape[3]));
        let (before, size, stride) = (before as i64, size as i64, stride as i64);
        let own = vec![
            ints("kernel_shape", vec![size, size]),
            ints("strides", vec![stride, stride]),
            ints("pads", vec![before, before, below, right]),
            int("group", groups as i64),
        ];
        let bias = bias.map(|bias| self.plain(bias)).transpose()?;
        let inputs: Vec<&str> = [&x[..], kernel].into_iter().chain(bias.as_deref()).collect();
        let made = self.node_of("Conv", &inputs, own);
        let of = vec![shape[0].clone(), Dim::Fixed(out), Dim::Fixed(out_h), Dim::Fixed(out_w)];
        Ok(Written::Seen(Seen::plain(made, of).seen(View::Turn(CHANNELS_LAST.to_vec()))))
    }
}

/// The same with so many axes, of which the first have one entry.
fn with_axes(seen: Seen, rank: usize) -> Seen {
    let shape = seen.shape();
    let first = vec![Dim::Fixed(1); rank.saturating_sub(shape.len())];
    seen.seen(View::Reshape([first, shape].concat()))
}

fn attribute(name: &str, kind: i32) -> Attribute {
    Attribute { name: name.to_owned(), kind, ..Attribute::default() }
}

pub(super) fn int(name: &str, value: i64) -> Attribute {
    Attribute { i: Some(value), ..attribute(name, OF_INT) }
}

fn ints(name: &str, values: Vec<i64>) -> Attribute {
    Attribute { ints: values, ..attribute(name, OF_INTS) }
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute { f: Some(value), ..attribute(name, OF_FLOAT) }
}
