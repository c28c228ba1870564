//! The graph of a model, for any number of texts or pictures of any length.
//!
//! A traced run has numbers for shapes. So a model is run twice, with sizes that are primes and differ, and the two runs
//! are held against each other, operation by operation: a number that is the same in both is fixed, one that differs must be
//! a product of sizes (or the sum of two), and which one is certain, since the ratio of two products of different primes
//! names its factors. What cannot be explained so is an error that names the operation, and never a guess. What a model
//! computes of sizes that it only compares (no longer than it reads, say) is not seen: `verify` runs several sizes.
//!
//! What depends on nothing is a constant here, by the values that it had; what no output needs is not here at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::backend::affine::Float;
use crate::backend::trace::{Op, TraceTensor};
use crate::failure::Failure;
use crate::format::image::Pass;

/// How many of something a graph is given: `batch`, `sequence`.
pub type Symbol = &'static str;

/// A number that may depend on how much a graph is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Always the same.
    Fixed(usize),
    /// A number times some sizes.
    Product(usize, Vec<Symbol>),
    /// Of sizes.
    Sum(Vec<Symbol>),
}

impl Dim {
    /// The number, where it is always the same.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether it is so many times this size, and none where that is none.
    pub fn is_times(&self, symbol: Symbol) -> bool {
        matches!(self, Dim::Product(_, symbols) if symbols.contains(&symbol))
    }
}

impl Dim {
    /// The same where some sizes are numbers; none where a sum has some of its sizes only.
    fn with(&self, sizes: &[(Symbol, usize)]) -> Option<Self> {
        let number = |symbol: &Symbol| sizes.iter().find(|(own, _)| own == symbol).map(|(_, number)| *number);
        match self {
            Dim::Fixed(number) => Some(Dim::Fixed(*number)),
            Dim::Product(factor, symbols) => {
                let factor = symbols.iter().filter_map(number).product::<usize>() * factor;
                let open: Vec<Symbol> = symbols.iter().filter(|symbol| number(symbol).is_none()).copied().collect();
                Some(if open.is_empty() { Dim::Fixed(factor) } else { Dim::Product(factor, open) })
            }
            Dim::Sum(symbols) => match symbols.iter().map(number).collect::<Option<Vec<_>>>() {
                Some(numbers) => Some(Dim::Fixed(numbers.iter().sum())),
                None => symbols.iter().all(|symbol| number(symbol).is_none()).then(|| self.clone()),
            },
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(number) => write!(f, "{number}"),
            Dim::Product(1, symbols) => f.write_str(&symbols.join("*")),
            Dim::Product(factor, symbols) => write!(f, "{factor}*{}", symbols.join("*")),
            Dim::Sum(symbols) => f.write_str(&symbols.join("+")),
        }
    }
}

/// One size in both runs.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Its name.
    pub symbol: Symbol,
    /// In the one run and in the other: four different primes where there are two sizes.
    pub runs: [usize; 2],
}

/// What a graph is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub element: Element,
    /// The length of each axis.
    pub shape: Vec<Dim>,
}

/// What an input consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// Floats.
    Float,
    /// Token ids, or a mask of 1 and 0.
    Integer,
    /// Pictures as bytes of red, green and blue. The values of the input in the graph are what they become, of the model's side;
    /// the shape is what is given.
    Bytes(Colours),
}

/// What bytes of pictures become before anything else is computed: `byte * scale + shift`, by colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colours {
    /// Of red, green and blue.
    pub scale: [f32; 3],
    /// Of red, green and blue, after it was scaled.
    pub shift: [f32; 3],
}

/// What a file keeps from run to run, where it is neither given it nor gives it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The input that is added to the scores of attention, [texts, 1, queries, keys]: it says what is later than a token, too.
    pub scores: String,
    /// The tensors that are kept.
    pub kept: Vec<Kept>,
}

/// A tensor of a state: the caches of all layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// The length of each axis: layers, texts, heads, positions, width.
    pub shape: Vec<usize>,
    /// By layer, the input that is the first positions of it. What is put behind them in a run is kept.
    pub caches: Vec<String>,
}

/// A value's number in its graph.
pub type Id = usize;

/// What one operation gives.
#[derive(Clone, Debug)]
pub struct Value {
    /// A name that no other value has, of the weights it is computed by where there are any.
    pub name: String,
    /// The operation.
    pub op: Op<Dim>,
    /// What it is given; each comes before it.
    pub inputs: Vec<Id>,
    /// The length of each axis.
    pub shape: Vec<Dim>,
    /// The values of a constant.
    pub constant: Option<Arc<Vec<f32>>>,
    /// Which operation of a run gives the same; none where what is written goes another way.
    pub place: Option<usize>,
}

/// A model as a graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// What it is given.
    pub inputs: Vec<Input>,
    /// All values, each after what it is computed of.
    pub values: Vec<Value>,
    /// What it gives, by name.
    pub outputs: Vec<(String, Id)>,
    /// What is kept in place of some inputs, which are none of [`Self::inputs`].
    pub state: Option<State>,
    /// How pictures that are given as bytes in another size get that of the input in the graph: along the height, then the width.
    pub resize: Option<[Pass; 2]>,
    /// What the probabilities that it gives are of, in their order; none where it gives something else.
    pub labels: Vec<String>,
}

/// All operations of a run that its outputs need, each after what it is given: always in the same order.
pub fn order(outputs: &[TraceTensor]) -> Vec<TraceTensor> {
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    let mut stack: Vec<(TraceTensor, bool)> = outputs.iter().rev().map(|output| (output.clone(), false)).collect();
    while let Some((node, is_done)) = stack.pop() {
        if is_done {
            all.push(node);
        } else if seen.insert(node.id()) {
            let inputs: Vec<TraceTensor> = node.node().inputs.iter().rev().cloned().collect();
            stack.push((node, true));
            stack.extend(inputs.into_iter().map(|input| (input, false)));
        }
    }
    all
}

/// The same operation in both runs, with what differs explained.
struct Both<'a> {
    sizes: &'a [Size],
    /// Of the operation, for messages.
    name: &'a str,
}

impl Both<'_> {
    fn number(&self, [a, b]: [usize; 2]) -> Result<Dim, Failure> {
        explain(self.sizes, [a, b]).ok_or_else(|| {
            let [one, other] = [0, 1].map(|run| {
                let sizes = self.sizes.iter().map(|size| format!("{} = {}", size.symbol, size.runs[run]));
                sizes.collect::<Vec<_>>().join(", ")
            });
            Failure::target(format!(
                "`{}` has the number {a} where {one}, and {b} where {other}: no product of them",
                self.name
            ))
            .help("an export is for any number of texts and tokens, and this model's shapes depend on them in another way")
        })
    }

    fn numbers(&self, a: &[usize], b: &[usize]) -> Result<Vec<Dim>, Failure> {
        if a.len() != b.len() {
            return Err(self.differs());
        }
        a.iter().zip(b).map(|(a, b)| self.number([*a, *b])).collect()
    }

    fn differs(&self) -> Failure {
        let what = format!("at `{}` the model does something else for another number of texts or tokens", self.name);
        Failure::target(what).help("such a model has no one graph, and cannot be exported")
    }

    fn op(&self, a: &Op<usize>, b: &Op<usize>) -> Result<Op<Dim>, Failure> {
        Ok(match (a, b) {
            (Op::Reshape(a), Op::Reshape(b)) => Op::Reshape(self.numbers(a, b)?),
            (Op::Repeat(a), Op::Repeat(b)) => Op::Repeat(self.number([*a, *b])?),
            (Op::Narrow { axis, start, len }, Op::Narrow { axis: same, start: other_start, len: other_len })
                if axis == same =>
            {
                let (start, len) = (self.number([*start, *other_start])?, self.number([*len, *other_len])?);
                Op::Narrow { axis: *axis, start, len }
            }
            (Op::Rope { offset, base }, Op::Rope { offset: other, base: same }) if base == same => {
                Op::Rope { offset: self.number([*offset, *other])?, base: *base }
            }
            (a, b) if a == b => plain(a).ok_or_else(|| self.differs())?,
            _ => return Err(self.differs()),
        })
    }
}

/// An operation that has no number of its own that may depend on sizes.
fn plain(op: &Op<usize>) -> Option<Op<Dim>> {
    Some(match op.clone() {
        Op::Reshape(_) | Op::Repeat(_) | Op::Narrow { .. } | Op::Rope { .. } => return None,
        Op::Constant => Op::Constant,
        Op::Input(name) => Op::Input(name),
        Op::SwapAxes(a, b) => Op::SwapAxes(a, b),
        Op::Concat(axis) => Op::Concat(axis),
        Op::TakeRows(ids) => Op::TakeRows(ids),
        Op::Embed(name) => Op::Embed(name),
        Op::EmbedQuantized(table, name) => Op::EmbedQuantized(table, name),
        Op::TakeTokens(name, mark) => Op::TakeTokens(name, mark),
        Op::MeanTokens(name) => Op::MeanTokens(name),
        Op::Add => Op::Add,
        Op::Sub => Op::Sub,
        Op::Mul => Op::Mul,
        Op::Div => Op::Div,
        Op::Affine(factor, offset) => Op::Affine(factor, offset),
        Op::Exp => Op::Exp,
        Op::Log => Op::Log,
        Op::Sqrt => Op::Sqrt,
        Op::Gelu => Op::Gelu,
        Op::QuickGelu => Op::QuickGelu,
        Op::Sum(axis) => Op::Sum(axis),
        Op::SumAll => Op::SumAll,
        Op::Matmul => Op::Matmul,
        Op::Linear => Op::Linear,
        Op::LinearQuantized(matrix) => Op::LinearQuantized(matrix),
        Op::Softmax => Op::Softmax,
        Op::LayerNorm(eps) => Op::LayerNorm(eps),
        Op::RmsNorm(eps) => Op::RmsNorm(eps),
        Op::Swiglu => Op::Swiglu,
        Op::Attention { mask, causal, scale } => Op::Attention { mask, causal, scale },
        Op::Depthwise(window) => Op::Depthwise(window),
        Op::Patches(window) => Op::Patches(window),
        Op::ScaleShift(low, high) => Op::ScaleShift(low, high),
    })
}

/// What a number is that was `a` in the one run and `b` in the other.
fn explain(sizes: &[Size], [a, b]: [usize; 2]) -> Option<Dim> {
    if a == b {
        return Some(Dim::Fixed(a));
    }
    for chosen in 1..1usize << sizes.len() {
        let chosen: Vec<&Size> = (0..sizes.len()).filter(|i| chosen >> i & 1 == 1).map(|i| &sizes[i]).collect();
        let symbols = || chosen.iter().map(|size| size.symbol).collect();
        let [one, other] = [0, 1].map(|run| chosen.iter().map(|size| size.runs[run]).product::<usize>());
        if a.is_multiple_of(one) && b.is_multiple_of(other) && a / one == b / other {
            return Some(Dim::Product(a / one, symbols()));
        }
        let sums = [0, 1].map(|run| chosen.iter().map(|size| size.runs[run]).sum::<usize>());
        if chosen.len() == 2 && sums == [a, b] {
            return Some(Dim::Sum(symbols()));
        }
    }
    None
}

impl Graph {
    /// Of two runs of one model, whose outputs have these names.
    pub fn of(inputs: Vec<Input>, names: &[&str], runs: [&[TraceTensor]; 2], sizes: &[Size]) -> Result<Self, Failure> {
        let [one, other] = runs.map(order);
        let place_in = |all: &[TraceTensor]| -> HashMap<usize, Id> {
            all.iter().enumerate().map(|(place, node)| (node.id(), place)).collect()
        };
        let (in_one, in_other) = (place_in(&one), place_in(&other));
        if one.len() != other.len() {
            return Err(Both { sizes, name: "the whole" }.differs());
        }
        let mut named = Names::default();
        let mut values: Vec<Value> = Vec::with_capacity(one.len());
        for (place, (a, b)) in one.iter().zip(&other).enumerate() {
            let name = named.give(a);
            let both = Both { sizes, name: &name };
            let places = |node: &TraceTensor, of: &HashMap<usize, Id>| -> Vec<Id> {
                node.node().inputs.iter().map(|input| of[&input.id()]).collect()
            };
            let (op, shape) = (both.op(&a.node().op, &b.node().op)?, both.numbers(&a.node().shape, &b.node().shape)?);
            let inputs = places(a, &in_one);
            if inputs != places(b, &in_other) {
                return Err(both.differs());
            }
            let is_same = a.id() == b.id() || op != Op::Constant || same_values(a, b)?;
            if !is_same {
                return Err(both.differs());
            }
            values.push(Value { name, op, inputs, shape, constant: None, place: Some(place) });
        }
        let outputs = names.iter().zip(runs[0]).map(|(name, node)| ((*name).to_owned(), in_one[&node.id()])).collect();
        let mut graph = Self { inputs, values, outputs, ..Self::default() };
        graph.fold(&one)?;
        Ok(graph)
    }

    /// What bytes of the input of this name become; none where it has no bytes.
    pub fn colours(&self, input: &str) -> Option<Colours> {
        self.inputs.iter().find(|own| own.name == input).and_then(|own| match own.element {
            Element::Bytes(colours) => Some(colours),
            Element::Float | Element::Integer => None,
        })
    }

    /// Whether a value is kept from run to run.
    pub fn is_kept(&self, id: Id) -> bool {
        let first = self.values[id].inputs.first().map(|input| &self.values[*input].op);
        let (Some(state), Op::Concat(_), Some(Op::Input(name))) = (&self.state, &self.values[id].op, first) else {
            return false;
        };
        state.kept.iter().any(|kept| kept.caches.contains(name))
    }

    /// Makes constants of what depends on nothing, neither input nor size, and drops what is of no more use.
    fn fold(&mut self, run: &[TraceTensor]) -> Result<(), Failure> {
        for (at, node) in run.iter().enumerate() {
            let value = &self.values[at];
            let has_sizes = match &value.op {
                Op::Reshape(shape) => shape.iter().any(|dim| dim.fixed().is_none()),
                Op::Repeat(times) => times.fixed().is_none(),
                Op::Narrow { start, len, .. } => start.fixed().is_none() || len.fixed().is_none(),
                Op::Rope { offset, .. } => offset.fixed().is_none(),
                _ => false,
            };
            let are_constants = value.inputs.iter().all(|input| self.values[*input].op == Op::Constant);
            let is_sized = value.shape.iter().any(|dim| dim.fixed().is_none());
            if node.node().is_fixed && are_constants && !has_sizes && !is_sized {
                let value = &mut self.values[at];
                (value.op, value.inputs) = (Op::Constant, Vec::new());
            }
        }
        self.drop_dead();
        let mut names = Names::default();
        for value in &mut self.values {
            let node = &run[value.place.expect("still as it was traced")];
            // Anew: what was computed of weights and is no more has taken names.
            value.name = names.give(node);
            if value.op == Op::Constant {
                value.constant = Some(Arc::new(node.values().expect("what depends on nothing is known")?));
            }
        }
        Ok(())
    }

    /// Drops values that no output needs.
    pub fn drop_dead(&mut self) {
        let mut is_live = vec![false; self.values.len()];
        for (_, id) in &self.outputs {
            is_live[*id] = true;
        }
        // What a value is given comes before it: one pass backwards sees all.
        for at in (0..self.values.len()).rev() {
            if is_live[at] {
                for input in self.values[at].inputs.clone() {
                    is_live[input] = true;
                }
            }
        }
        let mut next = 0;
        let moved: Vec<Id> = is_live.iter().map(|live| (next, next += usize::from(*live)).0).collect();
        let mut at = 0;
        self.values.retain(|_| (is_live[at], at += 1).0);
        self.values.iter_mut().flat_map(|value| &mut value.inputs).for_each(|input| *input = moved[*input]);
        self.outputs.iter_mut().for_each(|(_, id)| *id = moved[*id]);
    }

    /// How many values are computed of each, outputs of the graph included.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        self.values.iter().flat_map(|value| &value.inputs).for_each(|input| uses[*input] += 1);
        self.outputs.iter().for_each(|(_, id)| uses[*id] += 1);
        uses
    }

    /// Puts the scale and shift of a norm that follows a product into the product's own weights, as who runs a model would.
    /// What is left of the norm is its bounds. What is scaled by numbers again and again is so once: of scales that follow one
    /// another onnxruntime, where it puts them into products, takes away those that others need as well.
    pub fn fold_scales(&mut self) {
        self.fold_numbers();
        let uses = self.uses();
        let mut instead: Vec<Id> = (0..self.values.len()).collect();
        let mut added: Vec<(Id, Value, Value)> = Vec::new();
        for at in 0..self.values.len() {
            let inputs: Vec<Id> = self.values[at].inputs.iter().map(|input| instead[*input]).collect();
            self.values[at].inputs = inputs;
            let (Op::ScaleShift(low, high), &[x, scale, shift]) = (&self.values[at].op, &self.values[at].inputs[..])
            else {
                continue;
            };
            let is_bound = low.is_finite() || high.is_finite();
            let product = &self.values[x];
            // Only once: what was folded is needed as it is by all who need the norm.
            let is_whole = added.iter().all(|(own, ..)| *own != x);
            let is_product = matches!(product.op, Op::Linear | Op::Depthwise(_)) && uses[x] == 1 && is_whole;
            let constant = |id: Id| self.values[id].constant.clone();
            let (Some(scale), Some(shift), true) = (constant(scale), constant(shift), is_product) else { continue };
            let Some(weight) = product.inputs.get(1).and_then(|weight| constant(*weight)) else { continue };
            let bias = match product.inputs.get(2) {
                Some(bias) => match constant(*bias) {
                    Some(bias) => Some(bias),
                    None => continue,
                },
                None => None,
            };
            // A matrix has a row for each channel; taps have the channels last.
            let inner = if product.op == Op::Linear { weight.len() / scale.len() } else { 1 };
            let scaled: Vec<f32> = weight.iter().enumerate().map(|(i, w)| w * scale[i / inner % scale.len()]).collect();
            let before = |i: usize| bias.as_ref().map_or(0.0, |bias| bias[i]);
            let shifted: Vec<f32> = (0..scale.len()).map(|i| before(i) * scale[i] + shift[i]).collect();
            let weight = &self.values[product.inputs[1]];
            let constant = |name: String, shape: Vec<Dim>, values: Vec<f32>| Value {
                name,
                op: Op::Constant,
                inputs: Vec::new(),
                shape,
                constant: Some(Arc::new(values)),
                place: None,
            };
            let own = constant(format!("{}.scaled", weight.name), weight.shape.clone(), scaled);
            let bias = constant(format!("{}.shift", weight.name), vec![Dim::Fixed(shifted.len())], shifted);
            added.push((x, own, bias));
            self.values[x].place = None;
            if is_bound {
                self.values[at].inputs.truncate(1);
            } else {
                self.values[x].place = self.values[at].place;
                instead[at] = x;
            }
        }
        self.outputs.iter_mut().for_each(|(_, id)| *id = instead[*id]);
        // The new constants go to the front, so that all come before their use.
        let count = 2 * added.len();
        self.values.iter_mut().flat_map(|value| &mut value.inputs).for_each(|input| *input += count);
        self.outputs.iter_mut().for_each(|(_, id)| *id += count);
        for (i, (x, ..)) in added.iter().enumerate() {
            let x = &mut self.values[*x];
            x.inputs.truncate(1);
            x.inputs.extend([2 * i, 2 * i + 1]);
        }
        let fresh = added.into_iter().flat_map(|(_, weight, bias)| [weight, bias]);
        self.values.splice(0..0, fresh);
        self.drop_dead();
    }

    fn fold_numbers(&mut self) {
        for at in 0..self.values.len() {
            let (Op::Affine(factor, offset), &[x]) = (&self.values[at].op, &self.values[at].inputs[..]) else {
                continue;
            };
            if let Op::Affine(first, before) = self.values[x].op {
                self.values[at].op = Op::Affine(first * factor, before * factor + offset);
                self.values[at].inputs = self.values[x].inputs.clone();
            }
        }
    }

    /// The same with all constants as 16 bits hold them.
    #[must_use]
    pub fn rounded_to_halves(&self) -> Self {
        let mut graph = self.clone();
        for constant in graph.values.iter_mut().filter_map(|value| value.constant.as_mut()) {
            *constant = Arc::new(constant.iter().map(|v| Float::F16.nearest(*v)).collect());
        }
        graph
    }

    /// The same for one number of some things only.
    pub fn fixed(&self, sizes: &[(Symbol, usize)]) -> Result<Self, Failure> {
        let dim = |dim: &Dim| {
            dim.with(sizes).ok_or_else(|| {
                let (names, dim) = (sizes.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("` and `"), dim);
                Failure::user(format!("`{names}` alone says nothing of `{dim}`"))
                    .help("of what is added up, all or nothing has a number in `shape`")
            })
        };
        let dims = |dims: &[Dim]| dims.iter().map(dim).collect::<Result<Vec<_>, _>>();
        let mut graph = self.clone();
        for input in &mut graph.inputs {
            input.shape = dims(&input.shape)?;
        }
        for value in &mut graph.values {
            value.shape = dims(&value.shape)?;
            value.op = match &value.op {
                Op::Reshape(to) => Op::Reshape(dims(to)?),
                Op::Repeat(times) => Op::Repeat(dim(times)?),
                Op::Narrow { axis, start, len } => Op::Narrow { axis: *axis, start: dim(start)?, len: dim(len)? },
                Op::Rope { offset, base } => Op::Rope { offset: dim(offset)?, base: *base },
                op => op.clone(),
            };
        }
        Ok(graph)
    }

    /// The names of its operations, each once.
    pub fn operations(&self) -> BTreeSet<&'static str> {
        self.values.iter().map(|value| value.op.name()).collect()
    }
}

fn same_values(a: &TraceTensor, b: &TraceTensor) -> Result<bool, Failure> {
    let values = |node: &TraceTensor| node.values().expect("a constant is known");
    let (a, b) = (values(a)?, values(b)?);
    Ok(a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())))
}

/// Names that are given once each.
#[derive(Default)]
struct Names {
    given: BTreeMap<String, usize>,
}

impl Names {
    fn give(&mut self, node: &TraceTensor) -> String {
        let op = node.node().op.name();
        let weight = node.node().inputs.iter().skip(1).find_map(TraceTensor::name);
        let name = match (node.name(), weight) {
            (Some(name), _) => name.to_string(),
            (None, Some(weight)) => {
                let module = weight.rsplit_once('.').map_or(&weight[..], |(module, _)| module);
                format!("{module}/{op}")
            }
            (None, None) => op.to_owned(),
        };
        unique(&mut self.given, name)
    }
}

/// A name that was not given yet, by how often each was.
pub(in crate::export) fn unique(given: &mut BTreeMap<String, usize>, name: String) -> String {
    loop {
        let count = given.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            return name;
        }
        // Something may be called so itself.
        let made = format!("{name}.{count}");
        if !given.contains_key(&made) {
            given.insert(made.clone(), 1);
            return made;
        }
    }
}

impl fmt::Display for Graph {
    /// One line for each input, constant and operation: what people and tests read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |shape: &[Dim]| {
            let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
            format!("[{}]", dims.join(", "))
        };
        for input in &self.inputs {
            let element = match input.element {
                Element::Float => "float",
                Element::Integer => "integer",
                Element::Bytes(_) => "bytes",
            };
            writeln!(f, "input {} {element} {}", input.name, shape(&input.shape))?;
        }
        for value in self.values.iter().filter(|value| !matches!(value.op, Op::Input(_))) {
            let inputs: Vec<&str> = value.inputs.iter().map(|input| &self.values[*input].name[..]).collect();
            let own = match &value.op {
                Op::Narrow { axis, start, len } => format!(" axis {axis} from {start} by {len}"),
                Op::SwapAxes(a, b) => format!(" {a} {b}"),
                Op::Concat(axis) | Op::Sum(axis) => format!(" axis {axis}"),
                Op::Embed(name) | Op::EmbedQuantized(_, name) | Op::TakeTokens(name, _) | Op::MeanTokens(name) => {
                    format!(" by {name}")
                }
                Op::Affine(factor, offset) => format!(" * {factor} + {offset}"),
                Op::LayerNorm(eps) | Op::RmsNorm(eps) => format!(" eps {eps}"),
                Op::Rope { offset, base } => format!(" from {offset} base {base}"),
                Op::Attention { mask, causal, scale } => format!(
                    " scale {scale}{}{}",
                    if *causal { " causal" } else { "" },
                    mask.as_ref().map(|mask| format!(" by {mask}")).unwrap_or_default()
                ),
                Op::Depthwise(window) | Op::Patches(window) => {
                    format!(" {} step {}", window.size, window.stride)
                }
                Op::ScaleShift(low, high) => format!(" within {low} and {high}"),
                _ => String::new(),
            };
            let (name, op) = (&value.name, value.op.name());
            let given = if inputs.is_empty() { String::new() } else { format!(" {}", inputs.join(" ")) };
            writeln!(f, "{name} {} = {op}{given}{own}", shape(&value.shape))?;
        }
        for (name, id) in &self.outputs {
            writeln!(f, "output {name} = {}", self.values[*id].name)?;
        }
        Ok(())
    }
}
