//! Small programs over the tensor interface, each made by its seed alone.
//!
//! A program is drawn while it runs. What is drawn depends on the seed and on shapes whose open lengths are symbols, never on
//! numbers or values: so it is the same program on candle and when it is traced, whatever sizes it is given. Weights are of
//! awkward sizes, and some of what is computed depends on no input.

// Named, since tests have this file elsewhere among their modules.
#[path = "network.rs"]
pub(crate) mod network;

use std::sync::Arc;

use effai::backend::int8::{Bytes, Int8};
use effai::backend::qmatrix::{Groups, QMatrix};
use effai::backend::rng::Rng;
use effai::backend::texts::{Mark, Named};
use effai::backend::{Result, Scope, Tensor, Texts, Window};
use effai::export::graph::{Dim, Element, Input, Symbol};
use effai::export::source::{BATCH, IDS, MASK, PAST, PIXELS, SEQUENCE};

/// The token that every text has.
pub(crate) const MARKED: u32 = TOKENS as u32 - 1;
/// Tokens that a table has rows for.
pub(crate) const TOKENS: usize = 11;
/// Axes that a value has at most: one more than Core ML has.
const RANK_MAX: usize = 6;
/// Entries that a value has at most, by [`NOMINAL`] sizes.
const ENTRIES_MAX: usize = 3000;
const NOMINAL: Sizes = Sizes { batch: 3, sequence: 5, past: 4 };
/// What a value that an exponential is taken of is within.
const EXPONENT_MAX: f32 = 4.0;
/// Values are made smaller beyond this.
const TOP_MAX: f32 = 64.0;

/// How much a program is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) sequence: usize,
    pub(crate) past: usize,
}

impl Sizes {
    fn one(&self, symbol: Symbol) -> usize {
        match symbol {
            BATCH => self.batch,
            SEQUENCE => self.sequence,
            _ => self.past,
        }
    }

    fn of(&self, dim: &Dim) -> usize {
        match dim {
            Dim::Fixed(number) => *number,
            Dim::Product(factor, symbols) => factor * symbols.iter().map(|own| self.one(own)).product::<usize>(),
            Dim::Sum(symbols) => symbols.iter().map(|own| self.one(own)).sum(),
        }
    }

    /// A shape in numbers.
    pub(crate) fn shape(&self, dims: &[Dim]) -> Vec<usize> {
        dims.iter().map(|dim| self.of(dim)).collect()
    }
}

/// What a program is given: drawn by the seed before all else.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Inputs as a graph has them.
    pub(crate) inputs: Vec<Input>,
    /// Of what it is given one number only.
    pub(crate) fixed: Vec<(Symbol, usize)>,
    /// Operations at most that it has, not counting what one of them is put together of.
    steps: usize,
}

fn open(symbol: Symbol) -> Dim {
    Dim::Product(1, vec![symbol])
}

fn fixed(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|n| Dim::Fixed(*n)).collect()
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        if seed >= network::FIRST {
            return Self::network(seed);
        }
        let rng = &mut Rng::new(seed, "plan");
        let mut inputs = Vec::new();
        let integer = |name: &str, shape| Input { name: name.into(), element: Element::Integer, shape };
        let float = |name: &str, shape| Input { name: name.into(), element: Element::Float, shape };
        let (has_texts, has_pictures) = (rng.below(2) == 0, rng.below(3) == 0);
        let has_past = has_texts && rng.below(5) < 2;
        if has_texts {
            let seen = if has_past { Dim::Sum(vec![SEQUENCE, PAST]) } else { open(SEQUENCE) };
            inputs.push(integer(IDS, vec![open(BATCH), open(SEQUENCE)]));
            inputs.push(integer(MASK, vec![open(BATCH), seen]));
        }
        if has_past {
            let (heads, width) = (1 + rng.below(3), 2 * (1 + rng.below(3)));
            for name in ["past_key_values.0.key", "past_key_values.0.value"] {
                let shape = vec![open(BATCH), Dim::Fixed(heads), open(PAST), Dim::Fixed(width)];
                inputs.push(float(name, shape));
            }
        }
        if has_pictures {
            let (h, w) = (3 + rng.below(5), 3 + rng.below(5));
            let (w, c) = (if rng.below(3) == 0 { w } else { h }, [1, 2, 3, 3, 5][rng.below(5)]);
            let rest = if rng.below(2) == 0 { [c, h, w] } else { [h, w, c] };
            inputs.push(float(PIXELS, [vec![open(BATCH)], fixed(&rest)].concat()));
        }
        let mut names = vec!["x", "y"];
        while !names.is_empty() && (inputs.is_empty() || rng.below(5) < 2) {
            let width = Dim::Fixed(width(rng));
            let shape = match rng.below(9) {
                0 | 1 => vec![open(BATCH), width],
                2 | 3 => vec![open(BATCH), open(SEQUENCE), width],
                4 => vec![width],
                5 => vec![open(SEQUENCE), width],
                6 => vec![open(BATCH)],
                7 => vec![open(BATCH), Dim::Fixed(1 + rng.below(3)), open(SEQUENCE), width],
                _ => vec![open(BATCH), width, open(SEQUENCE)],
            };
            inputs.push(float(names.remove(0), shape));
        }
        let all = [(BATCH, 2), (SEQUENCE, 3), (PAST, 4)];
        let fixed = match rng.below(8) {
            0 => all.to_vec(),
            1 => all[..1].to_vec(),
            _ => Vec::new(),
        };
        Self { seed, inputs, fixed, steps: 3 + rng.below(8) }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.inputs.iter().any(|input| input.name == name)
    }

    /// Sizes of the runs that its numbers are compared by. Only where there are caches, they are empty in the last.
    pub(crate) fn sizes(&self) -> Vec<Sizes> {
        let rng = &mut Rng::new(self.seed, "sizes");
        let mut all: Vec<Sizes> = (0..2)
            .map(|_| Sizes { batch: 1 + rng.below(3), sequence: 1 + rng.below(5), past: 1 + rng.below(4) })
            .collect();
        if self.has(PAST_KEY) {
            all.push(Sizes { past: 0, ..all[0] });
        }
        let own = |symbol: Symbol| self.fixed.iter().find(|(own, _)| *own == symbol).map(|(_, number)| *number);
        for sizes in &mut all {
            sizes.batch = own(BATCH).unwrap_or(sizes.batch);
            sizes.sequence = own(SEQUENCE).unwrap_or(sizes.sequence);
            sizes.past = own(PAST).unwrap_or(sizes.past);
        }
        all
    }

    /// Texts of a run: the first is as long as it goes, others are padded.
    pub(crate) fn texts(&self, sizes: Sizes) -> Vec<Vec<u32>> {
        let rng = &mut Rng::new(self.seed, "texts");
        let text = |row: usize| {
            let length = if row == 0 { sizes.sequence } else { 1 + rng.below(sizes.sequence) };
            // One of them is the highest and the marked one: of equals rten takes the last, and every other program the first.
            let mut ids: Vec<u32> = (0..length).map(|_| rng.below(TOKENS - 1) as u32).collect();
            ids[rng.below(length)] = MARKED;
            ids
        };
        (0..sizes.batch).map(text).collect()
    }

    /// Values of an input of floats.
    pub(crate) fn floats(&self, input: &Input, sizes: Sizes) -> Vec<f32> {
        let rng = &mut Rng::new(self.seed, &input.name);
        (0..sizes.shape(&input.shape).iter().product()).map(|_| rng.between(-1.0, 1.0)).collect()
    }
}

const PAST_KEY: &str = "past_key_values.0.key";

/// The inputs of texts, as they are named.
pub(crate) fn named() -> Named {
    Named { ids: IDS.into(), mask: MASK.into() }
}

/// Widths of weights: one, primes, some that codes come in.
fn width(rng: &mut Rng) -> usize {
    [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 17, 32][rng.below(13)]
}

/// By how much values are moved, to find out what a program makes of small errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Noise {
    None,
    /// What each operation gives, each number by a part of itself.
    Each(f32),
    /// What each operation gives, and weights, by a part of the tensor's largest number.
    Tensors(f32),
    /// Weights alone, likewise.
    Weights(f32),
}

/// What a program is given in one run.
pub(crate) struct Given<T> {
    pub(crate) sizes: Sizes,
    pub(crate) texts: Option<Texts>,
    /// Inputs of floats in the order of the plan.
    pub(crate) floats: Vec<T>,
    pub(crate) noise: Noise,
}

#[derive(Clone)]
struct Known<T> {
    tensor: T,
    dims: Vec<Dim>,
    /// About as large as it gets.
    top: f32,
}

struct Program<'a, T> {
    plan: &'a Plan,
    rng: Rng,
    sizes: Sizes,
    texts: Option<&'a Texts>,
    noise: Noise,
    noise_rng: Rng,
    pool: Vec<Known<T>>,
    /// Of each in the pool, whether something was computed of it.
    is_used: Vec<bool>,
    weights: usize,
}

/// Runs the program of a plan: what comes out, by name.
pub(crate) fn run<T: Tensor>(plan: &Plan, given: &Given<T>) -> Result<Vec<(String, T)>> {
    let mut program = Program {
        plan,
        rng: Rng::new(plan.seed, "program"),
        sizes: given.sizes,
        texts: given.texts.as_ref(),
        noise: given.noise,
        noise_rng: Rng::new(plan.seed, "noise"),
        pool: Vec::new(),
        is_used: Vec::new(),
        weights: 0,
    };
    let floats = plan.inputs.iter().filter(|input| input.element == Element::Float);
    for (input, tensor) in floats.zip(&given.floats) {
        let x = Known { tensor: tensor.clone(), dims: input.shape.clone(), top: 1.0 };
        program.keep(x.clone());
        let is_first =
            matches!(&x.dims[..], [_, Dim::Fixed(c), ..] if input.name == PIXELS && x.dims[3] != Dim::Fixed(*c));
        if is_first && !plan.is_network() {
            let turned = program.swapped(&x, 1, 2)?;
            let turned = program.swapped(&turned, 2, 3)?;
            program.keep(turned);
        }
    }
    if program.texts.is_some() {
        let x = program.embedded()?;
        program.keep(x);
    }
    for _ in 0..plan.steps {
        program.step()?;
    }
    Ok(program.outputs())
}

impl<T: Tensor> Program<'_, T> {
    fn keep(&mut self, x: Known<T>) {
        self.pool.push(x);
        self.is_used.push(false);
    }

    fn outputs(&mut self) -> Vec<(String, T)> {
        let mut chosen: Vec<usize> = (0..self.pool.len()).rev().filter(|at| !self.is_used[*at]).take(4).collect();
        // An input as it came, a value that another is computed of, or one twice.
        if self.rng.below(6) == 0 {
            chosen.push(self.rng.below(self.pool.len()));
        }
        let names = ["logits", "present.0.key", "y.1", "sentence_embedding", "last"];
        names.iter().zip(chosen).map(|(name, at)| ((*name).to_owned(), self.pool[at].tensor.clone())).collect()
    }

    fn chance(&mut self, of: usize) -> bool {
        self.rng.below(of) == 0
    }

    /// One of the pool that will do and is never empty: caches may be, and are only laid otherwise before they are not.
    fn pick(&mut self, does: impl Fn(&[Dim]) -> bool) -> Option<Known<T>> {
        let may_be_empty = |dim: &Dim| matches!(dim, Dim::Product(_, symbols) if symbols.contains(&PAST));
        let found = self.pick_any(|dims| !dims.iter().any(may_be_empty) && does(dims));
        found.filter(|found| self.goes_on(found.top))
    }

    /// One of the pool that will do; the last that does more often than not, so that programs get deep.
    fn pick_any(&mut self, does: impl Fn(&[Dim]) -> bool) -> Option<Known<T>> {
        let fit: Vec<usize> = (0..self.pool.len()).filter(|at| does(&self.pool[*at].dims)).collect();
        let last = *fit.last()?;
        let at = if self.chance(3) { fit[self.rng.below(fit.len())] } else { last };
        self.is_used[at] = true;
        Some(self.pool[at].clone())
    }

    /// Moves what an operation gave.
    fn moved(&mut self, tensor: T) -> Result<T> {
        let by = match self.noise {
            Noise::None | Noise::Weights(_) => return Ok(tensor),
            Noise::Each(by) | Noise::Tensors(by) => by,
        };
        let mut values = tensor.to_f32()?;
        self.disturb(&mut values, by, matches!(self.noise, Noise::Tensors(_)));
        T::from_f32(&values, &tensor.shape())
    }

    fn disturb(&mut self, values: &mut [f32], by: f32, is_whole: bool) {
        let top = values.iter().fold(0.0f32, |top, value| top.max(value.abs()));
        for value in values {
            let own = if is_whole { top } else { value.abs() };
            *value += own * self.noise_rng.between(-by, by);
        }
    }

    /// What an operation gave, of these lengths.
    fn made(&mut self, tensor: T, dims: Vec<Dim>, top: f32) -> Result<Option<Known<T>>> {
        debug_assert_eq!(tensor.shape(), self.sizes.shape(&dims), "the shapes that are followed are the tensors'");
        let tensor = self.moved(tensor)?;
        let mut made = Known { tensor, dims, top };
        if made.top > TOP_MAX && !self.plan.is_network() {
            let by = 1.0 / f64::from(made.top);
            let tensor = made.tensor.affine(by, 0.0)?;
            made = Known { tensor: self.moved(tensor)?, top: 1.0, ..made };
        }
        Ok(Some(made))
    }

    /// A constant; most are within one, about.
    fn weight(&mut self, shape: &[usize], low: f32, high: f32) -> Result<T> {
        let at = self.weights;
        self.weights += 1;
        let rng = &mut Rng::new(self.plan.seed, &format!("weight {at}"));
        let mut values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.between(low, high)).collect();
        if rng.below(6) == 0 {
            values.iter_mut().for_each(|value| *value = if rng.below(3) == 0 { 0.0 } else { *value });
        }
        match self.noise {
            Noise::None => {}
            Noise::Each(by) => self.disturb(&mut values, by, false),
            Noise::Tensors(by) | Noise::Weights(by) => self.disturb(&mut values, by, true),
        }
        let tensor = T::from_f32(&values, shape)?;
        // Some have no name, some share one, some have that of an input.
        Ok(match rng.below(12) {
            0 => tensor,
            1 => tensor.named("m.weight"),
            2 => tensor.named("m_weight"),
            3 => tensor.named("x"),
            4 => tensor.named("m.weight.2"),
            5 => tensor.named("add.2"),
            6 => tensor.named("logits"),
            _ => tensor.named(&format!("m.{at}.weight")),
        })
    }

    /// The same by a matrix of so many columns: what comes out is about as large as what went in.
    fn matrix(&mut self, rows: usize, columns: usize) -> Result<T> {
        let spread = 1.0 / (columns as f32).sqrt();
        self.weight(&[rows, columns], -spread, spread)
    }

    fn fits(&self, dims: &[Dim]) -> bool {
        dims.len() <= RANK_MAX && NOMINAL.shape(dims).iter().product::<usize>() <= ENTRIES_MAX
    }

    fn step(&mut self) -> Result<()> {
        for _ in 0..24 {
            if let Some(made) = self.any()? {
                self.keep(made);
                return Ok(());
            }
        }
        Ok(())
    }

    fn any(&mut self) -> Result<Option<Known<T>>> {
        if self.plan.is_network() {
            return self.of_network();
        }
        match self.rng.below(46) {
            0..3 => self.reshape(),
            3..5 => self.swap_axes(),
            5..7 => self.narrow(),
            7..9 => self.concat(),
            9 => self.take_rows(),
            10 => self.repeat(),
            11 => self.embed(),
            12 => self.take_or_mean_tokens(),
            13..18 => self.binary(),
            18 => self.affine(),
            19..24 => self.unary(),
            24..26 => self.sum(),
            26..28 => self.matmul(),
            28..31 => self.linear(),
            31 => self.linear_quantized(),
            32 => self.softmax(),
            33..35 => self.norm(),
            35 => self.rope(),
            36 => self.swiglu(),
            37..40 => self.attention(),
            40..42 => self.depthwise(),
            42..44 => self.patches(),
            44 => self.scale_shift(),
            _ => self.constant(),
        }
    }

    fn constant(&mut self) -> Result<Option<Known<T>>> {
        let rank = self.rng.below(4);
        let shape: Vec<usize> = (0..rank).map(|_| [1, 2, 3, 5][self.rng.below(4)]).collect();
        let tensor = self.weight(&shape, -1.0, 1.0)?;
        Ok(Some(Known { tensor, dims: fixed(&shape), top: 1.0 }))
    }

    fn as_shape(&mut self, x: &Known<T>, dims: Vec<Dim>) -> Result<Known<T>> {
        let tensor = x.tensor.reshape(&self.sizes.shape(&dims))?;
        Ok(Known { tensor, dims, top: x.top })
    }

    fn reshape(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick_any(|_| true) else { return Ok(None) };
        let mut dims = x.dims.clone();
        match self.rng.below(6) {
            0 => dims.insert(self.rng.below(dims.len() + 1), Dim::Fixed(1)),
            1 => {
                let Some(at) = dims.iter().position(|dim| *dim == Dim::Fixed(1)) else { return Ok(None) };
                dims.remove(at);
            }
            2 if dims.len() > 1 => {
                let at = self.rng.below(dims.len() - 1);
                let Some(both) = times(&dims[at..at + 2]) else { return Ok(None) };
                dims.splice(at..at + 2, [both]);
            }
            3 if !dims.is_empty() => {
                let at = self.rng.below(dims.len());
                let Some(split) = self.layout(&dims[at..=at], 2) else { return Ok(None) };
                dims.splice(at..=at, split);
            }
            _ => {
                let axes = 1 + self.rng.below(RANK_MAX);
                let Some(all) = self.layout(&dims, axes) else { return Ok(None) };
                dims = all;
            }
        }
        if !self.fits(&dims) {
            return Ok(None);
        }
        self.as_shape(&x, dims).map(Some)
    }

    /// The same number of entries, along so many axes at most.
    fn layout(&mut self, dims: &[Dim], axes: usize) -> Option<Vec<Dim>> {
        let mut made = vec![(1usize, Vec::<Symbol>::new()); axes];
        for dim in dims {
            let (mut factor, symbols) = match dim {
                Dim::Fixed(number) => (*number, Vec::new()),
                Dim::Product(factor, symbols) => (*factor, symbols.clone()),
                Dim::Sum(_) => return None,
            };
            for symbol in symbols {
                let at = self.rng.below(axes);
                if made[at].1.contains(&symbol) {
                    return None;
                }
                made[at].1.push(symbol);
            }
            for prime in [2, 3, 5, 7, 11, 13, 17] {
                while factor.is_multiple_of(prime) {
                    factor /= prime;
                    let at = self.rng.below(axes);
                    made[at].0 *= prime;
                }
            }
            let at = self.rng.below(axes);
            made[at].0 *= factor;
        }
        let dim = |(factor, symbols): (usize, Vec<Symbol>)| match symbols.is_empty() {
            true => Dim::Fixed(factor),
            false => Dim::Product(factor, symbols),
        };
        Some(made.into_iter().map(dim).collect())
    }

    fn swapped(&mut self, x: &Known<T>, a: usize, b: usize) -> Result<Known<T>> {
        let mut dims = x.dims.clone();
        dims.swap(a, b);
        Ok(Known { tensor: x.tensor.swap_axes(a, b)?, dims, top: x.top })
    }

    fn swap_axes(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|dims| dims.len() > 1) else { return Ok(None) };
        let (a, b) = (self.rng.below(x.dims.len()), self.rng.below(x.dims.len()));
        self.swapped(&x, a, b).map(Some)
    }

    fn narrow(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick_any(|dims| !dims.is_empty()) else { return Ok(None) };
        let axis = self.rng.below(x.dims.len());
        let (start, len) = match &x.dims[axis] {
            Dim::Fixed(number) if *number > 1 => {
                let len = 1 + self.rng.below(*number);
                (Dim::Fixed(self.rng.below(number - len + 1)), Dim::Fixed(len))
            }
            Dim::Product(1, symbols) if !symbols.contains(&PAST) => (Dim::Fixed(0), Dim::Fixed(1)),
            Dim::Product(factor, symbols) if *factor > 1 => {
                let len = 1 + self.rng.below(*factor);
                let start = match self.rng.below(factor - len + 1) {
                    0 => Dim::Fixed(0),
                    start => Dim::Product(start, symbols.clone()),
                };
                (start, Dim::Product(len, symbols.clone()))
            }
            Dim::Sum(symbols) if symbols.len() == 2 => match self.rng.below(3) {
                0 => (Dim::Fixed(0), open(symbols[0])),
                1 => (open(symbols[1]), open(symbols[0])),
                _ => (open(symbols[0]), open(symbols[1])),
            },
            _ => return Ok(None),
        };
        let mut dims = x.dims.clone();
        dims[axis] = len.clone();
        let tensor = x.tensor.narrow(axis, self.sizes.of(&start), self.sizes.of(&len))?;
        self.made(tensor, dims, x.top)
    }

    fn concat(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick_any(|dims| !dims.is_empty()) else { return Ok(None) };
        let axis = self.rng.below(x.dims.len());
        let own = x.dims.clone();
        let other = self.pick_any(|dims| {
            dims.len() == own.len()
                && (0..dims.len()).all(|i| i == axis || dims[i] == own[i])
                && plus(&own[axis], &dims[axis]).is_some()
        });
        let Some(y) = other else { return Ok(None) };
        let mut dims = own;
        dims[axis] = plus(&dims[axis], &y.dims[axis]).expect("it was chosen so");
        if !self.fits(&dims) {
            return Ok(None);
        }
        let parts = if matches!(dims[axis], Dim::Sum(_)) || self.chance(2) {
            [x.tensor.clone(), y.tensor.clone()]
        } else {
            [y.tensor.clone(), x.tensor.clone()]
        };
        let mut parts = parts.to_vec();
        // Three of them, where one is a constant.
        let rest: Option<Vec<usize>> = dims.iter().map(Dim::fixed).collect();
        if let Some(mut shape) = rest.filter(|_| self.chance(2)) {
            shape[axis] = 1;
            dims[axis] = plus(&dims[axis], &Dim::Fixed(1)).expect("both are numbers");
            let own = self.weight(&shape, -1.0, 1.0)?;
            let at = self.rng.below(3);
            parts.insert(at, own);
        }
        let tensor = T::concat(&parts, axis)?;
        self.made(tensor, dims, x.top.max(y.top))
    }

    fn take_rows(&mut self) -> Result<Option<Known<T>>> {
        let is_there = |dims: &[Dim]| match dims.first() {
            Some(Dim::Fixed(_)) => true,
            Some(Dim::Product(_, symbols)) => !symbols.contains(&PAST),
            _ => false,
        };
        let Some(x) = self.pick(is_there) else { return Ok(None) };
        let rows = x.dims[0].fixed().unwrap_or(1);
        let ids: Vec<u32> = (0..1 + self.rng.below(4)).map(|_| self.rng.below(rows) as u32).collect();
        let mut dims = x.dims.clone();
        dims[0] = Dim::Fixed(ids.len());
        let tensor = x.tensor.take_rows(&ids)?;
        self.made(tensor, dims, x.top)
    }

    fn repeat(&mut self) -> Result<Option<Known<T>>> {
        let x = if self.chance(2) {
            let shape: Vec<usize> = [1].into_iter().chain((0..self.rng.below(3)).map(|i| 2 + i)).collect();
            Known { tensor: self.weight(&shape, -1.0, 1.0)?, dims: fixed(&shape), top: 1.0 }
        } else {
            let found = self.pick(|dims| dims.first() == Some(&Dim::Fixed(1)));
            let Some(x) = found else { return Ok(None) };
            x
        };
        let times =
            if self.chance(3) || !self.has_size(BATCH) { Dim::Fixed(1 + self.rng.below(4)) } else { open(BATCH) };
        let mut dims = x.dims.clone();
        dims[0] = times;
        if !self.fits(&dims) || x.dims[1..].contains(&dims[0]) {
            return Ok(None);
        }
        let tensor = x.tensor.repeat(self.sizes.of(&dims[0]))?;
        self.made(tensor, dims, x.top)
    }

    fn has_size(&self, symbol: Symbol) -> bool {
        self.plan.inputs.iter().any(|input| input.shape.contains(&open(symbol)))
    }

    fn embedded(&mut self) -> Result<Known<T>> {
        let texts = self.texts.expect("who asks has texts");
        let rest = match self.rng.below(8) {
            0 => Vec::new(),
            1 => vec![1 + self.rng.below(3), width(&mut self.rng)],
            _ => vec![width(&mut self.rng)],
        };
        let table = self.weight(&[&[TOKENS], &rest[..]].concat(), -1.0, 1.0)?;
        let tensor = table.embed(texts)?;
        let dims = [vec![open(BATCH), open(SEQUENCE)], fixed(&rest)].concat();
        Ok(self.made(tensor, dims, 1.0)?.expect("always"))
    }

    fn embed(&mut self) -> Result<Option<Known<T>>> {
        let Some(texts) = self.texts else { return Ok(None) };
        if self.chance(2) {
            return self.embedded().map(Some);
        }
        let (matrix, inner) = self.codes(TOKENS)?;
        let tensor = T::embed_quantized(&matrix, texts)?;
        self.made(tensor, vec![open(BATCH), open(SEQUENCE), Dim::Fixed(inner)], 1.0)
    }

    fn take_or_mean_tokens(&mut self) -> Result<Option<Known<T>>> {
        let Some(texts) = self.texts else { return Ok(None) };
        let seen = self.seen();
        let is_mean = self.chance(2);
        let rows = if is_mean { seen } else { open(SEQUENCE) };
        let is_it = |dims: &[Dim]| matches!(dims, [batch, own, Dim::Fixed(_)] if *batch == open(BATCH) && *own == rows);
        let Some(x) = self.pick(is_it) else { return Ok(None) };
        let tensor = if is_mean {
            x.tensor.mean_tokens(&texts.lengths_after(self.before()))?
        } else {
            let mark = if self.chance(2) { Mark::Highest } else { Mark::First(MARKED) };
            x.tensor.take_tokens(texts, mark)?
        };
        let dims = vec![x.dims[0].clone(), x.dims[2].clone()];
        self.made(tensor, dims, x.top)
    }

    /// What the mask is as long as.
    fn seen(&self) -> Dim {
        if self.before() > 0 || self.plan.has(PAST_KEY) { Dim::Sum(vec![SEQUENCE, PAST]) } else { open(SEQUENCE) }
    }

    /// Tokens that were read before.
    fn before(&self) -> usize {
        if self.plan.has(PAST_KEY) { self.sizes.past } else { 0 }
    }

    fn binary(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|_| true) else { return Ok(None) };
        let own = x.dims.clone();
        let other = if self.chance(2) { self.pick(|dims| together(&own, dims).is_some()) } else { None };
        let y = match other {
            Some(y) => y,
            None => {
                // Some of the last axes, of which some have one entry.
                let rank = self.rng.below(own.len() + 1);
                let shape: Vec<usize> = own[own.len() - rank..]
                    .iter()
                    .map(|dim| if self.rng.below(3) == 0 { 1 } else { dim.fixed().unwrap_or(1) })
                    .collect();
                Known { tensor: self.weight(&shape, -1.0, 1.0)?, dims: fixed(&shape), top: 1.0 }
            }
        };
        let dims = together(&x.dims, &y.dims).expect("it was chosen so");
        if !self.fits(&dims) {
            return Ok(None);
        }
        let (x, y) = if self.chance(2) { (x, y) } else { (y, x) };
        match self.rng.below(4) {
            0 => {
                let tensor = x.tensor.add(&y.tensor)?;
                self.made(tensor, dims, x.top + y.top)
            }
            1 => {
                let tensor = x.tensor.sub(&y.tensor)?;
                self.made(tensor, dims, x.top + y.top)
            }
            2 => {
                let tensor = x.tensor.mul(&y.tensor)?;
                self.made(tensor, dims, x.top * y.top)
            }
            _ => {
                let above = self.above(&y, 0.5)?;
                let tensor = x.tensor.div(&above.tensor)?;
                self.made(tensor, dims, 2.0 * x.top)
            }
        }
    }

    /// Its square and so much: what may be divided by, or have a root.
    fn above(&mut self, x: &Known<T>, least: f64) -> Result<Known<T>> {
        let squares = x.tensor.mul(&x.tensor)?;
        let squares = self.moved(squares)?;
        let tensor = squares.affine(1.0, least)?;
        Ok(Known { tensor: self.moved(tensor)?, dims: x.dims.clone(), top: x.top * x.top + least as f32 })
    }

    fn affine(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|_| true) else { return Ok(None) };
        let factor = [1.0, -1.0, 0.5, 2.5, 0.1][self.rng.below(5)];
        let offset = [0.0, 0.0, 1.0, -0.3][self.rng.below(4)];
        let tensor = x.tensor.affine(factor, offset)?;
        self.made(tensor, x.dims, x.top * factor.abs() as f32 + offset.abs() as f32)
    }

    fn unary(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|_| true) else { return Ok(None) };
        let (tensor, top) = match self.rng.below(6) {
            0 => {
                let mut own = x.clone();
                if x.top > EXPONENT_MAX {
                    let small = x.tensor.affine(f64::from(EXPONENT_MAX / x.top), 0.0)?;
                    own = Known { tensor: self.moved(small)?, top: EXPONENT_MAX, ..own };
                }
                (own.tensor.exp()?, own.top.exp())
            }
            1 => {
                let above = self.above(&x, 0.3)?;
                (above.tensor.log()?, above.top.ln().abs().max(1.2))
            }
            2 => {
                let above = self.above(&x, 0.1)?;
                (above.tensor.sqrt()?, above.top.sqrt())
            }
            3 | 4 => (x.tensor.gelu()?, x.top),
            _ => (x.tensor.quick_gelu()?, x.top),
        };
        self.made(tensor, x.dims, top)
    }

    fn sum(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|_| true) else { return Ok(None) };
        if x.dims.is_empty() || self.chance(4) {
            let count = NOMINAL.shape(&x.dims).iter().product::<usize>();
            let tensor = x.tensor.sum_all()?;
            return self.made(tensor, Vec::new(), x.top * count as f32);
        }
        let axis = self.rng.below(x.dims.len());
        let count = NOMINAL.of(&x.dims[axis]);
        let mut dims = x.dims.clone();
        dims[axis] = Dim::Fixed(1);
        let tensor = x.tensor.sum(axis)?;
        self.made(tensor, dims, x.top * count as f32)
    }

    fn matmul(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|dims| dims.len() > 1) else { return Ok(None) };
        let rank = x.dims.len();
        let (lead, inner) = (x.dims[..rank - 2].to_vec(), x.dims[rank - 1].clone());
        let known: Option<Vec<usize>> = lead.iter().chain([&inner]).map(Dim::fixed).collect();
        let y = match (self.rng.below(3), known) {
            (0, Some(mut shape)) => {
                shape.push(1 + self.rng.below(5));
                let spread = 1.0 / (shape[rank - 2] as f32).sqrt();
                Known { tensor: self.weight(&shape, -spread, spread)?, dims: fixed(&shape), top: spread }
            }
            (1, _) => {
                let does = |dims: &[Dim]| dims.len() == rank && dims[..rank - 2] == lead && dims[rank - 2] == inner;
                let Some(y) = self.pick(does) else { return Ok(None) };
                y
            }
            _ => self.swapped(&x, rank - 1, rank - 2)?,
        };
        let dims = [&lead[..], &[x.dims[rank - 2].clone(), y.dims[rank - 1].clone()]].concat();
        if !self.fits(&dims) {
            return Ok(None);
        }
        let tensor = x.tensor.matmul(&y.tensor)?;
        self.made(tensor, dims, x.top * y.top * NOMINAL.of(&inner) as f32)
    }

    /// A product by rows of a matrix, most often a constant one.
    fn product(&mut self, x: &Known<T>, out: usize) -> Result<Known<T>> {
        let inner = x.dims.last().and_then(Dim::fixed).expect("who asks knows the width");
        let mut dims = x.dims.clone();
        *dims.last_mut().expect("it has a width") = Dim::Fixed(out);
        let weight = self.matrix(out, inner)?;
        let bias = if self.chance(2) { Some(self.weight(&[out], -0.5, 0.5)?) } else { None };
        let spread = 0.6 * (inner as f32).sqrt();
        // A norm that is folded into the product where nothing else needs it.
        if self.chance(5) {
            let (scale, shift) = (self.weight(&[out], 0.5, 1.5)?, self.weight(&[out], -0.5, 0.5)?);
            let (low, high) = self.bounds();
            let made = match bias {
                Some(bias) => x.tensor.linear(&weight, Some(&bias))?.scale_shift(&scale, &shift, low, high)?,
                None => x.tensor.linear_scale_shift(&weight, &scale, &shift, low, high)?,
            };
            return Ok(self.made(made, dims, 1.0 + 1.5 * spread * x.top)?.expect("always"));
        }
        let made = x.tensor.linear(&weight, bias.as_ref())?;
        Ok(self.made(made, dims, 0.5 + spread * x.top)?.expect("always"))
    }

    fn linear(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|dims| matches!(dims.last(), Some(Dim::Fixed(_)))) else { return Ok(None) };
        let out = width(&mut self.rng);
        let mut dims = x.dims.clone();
        let last = dims.len() - 1;
        dims[last] = Dim::Fixed(out);
        if !self.fits(&dims) {
            return Ok(None);
        }
        if !self.chance(5) {
            return self.product(&x, out).map(Some);
        }
        // By a matrix, or with a bias, that depends on an input.
        let inner = x.dims[last].clone();
        let found = self.pick(|dims| matches!(dims, [Dim::Fixed(_), own] if *own == inner));
        let weight = match found {
            Some(weight) => weight,
            None => {
                let shape = [out, inner.fixed().expect("it was chosen so")];
                Known { tensor: self.matrix(shape[0], shape[1])?, dims: fixed(&shape), top: 1.0 }
            }
        };
        dims[last] = weight.dims[0].clone();
        let bias = self.pick(|dims| dims.len() == 1 && dims[0] == weight.dims[0]);
        let top = x.top * weight.top * NOMINAL.of(&inner) as f32 + bias.as_ref().map_or(0.0, |bias| bias.top);
        let tensor = x.tensor.linear(&weight.tensor, bias.as_ref().map(|bias| &bias.tensor))?;
        self.made(tensor, dims, top)
    }

    /// A matrix of so many rows that stays quantized, and its width.
    fn codes(&mut self, rows: usize) -> Result<(Arc<QMatrix>, usize)> {
        let inner = [32, 64][self.rng.below(2)];
        let (bits, group) = ([4, 8][self.rng.below(2)], [16, 32, inner][self.rng.below(3)]);
        let is_of_bytes = self.chance(10);
        let at = self.weights;
        self.weights += 1;
        let rng = &mut Rng::new(self.plan.seed, &format!("codes {at}"));
        if is_of_bytes {
            let values: Vec<f32> = (0..rows * inner).map(|_| rng.between(-0.2, 0.2)).collect();
            return Ok((Arc::new(QMatrix::from(Bytes::new(Int8::round(&values, inner).0))), inner));
        }
        let codes: Vec<u8> = (0..rows * inner).map(|_| rng.below(1 << bits) as u8).collect();
        let count = rows * inner / group;
        let step = 0.4 / (1 << bits) as f32;
        // Now and then a group is of equal weights.
        let mut scales: Vec<f32> = (0..count).map(|_| step * rng.between(0.5, 1.0)).collect();
        scales.iter_mut().for_each(|scale| *scale = if rng.below(6) == 0 { 0.0 } else { *scale });
        let lowest = if rng.below(4) == 0 { -8.0 } else { -0.5 * (1 << bits) as f32 + 0.3 };
        let biases = scales.iter().map(|scale| if *scale == 0.0 { 0.1 } else { lowest * scale }).collect();
        Ok((Arc::new(QMatrix::from(Groups::new(rows, inner, group, bits, &codes, scales, biases))), inner))
    }

    fn linear_quantized(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|dims| matches!(dims.last(), Some(Dim::Fixed(_)))) else { return Ok(None) };
        let rows = width(&mut self.rng);
        let (matrix, inner) = self.codes(rows)?;
        let mut dims = x.dims.clone();
        let last = dims.len() - 1;
        dims[last] = Dim::Fixed(inner);
        if !self.fits(&dims) {
            return Ok(None);
        }
        let x = if x.dims[last] == Dim::Fixed(inner) { x } else { self.product(&x, inner)? };
        dims[last] = Dim::Fixed(rows);
        let tensor = x.tensor.linear_quantized(&matrix)?;
        self.made(tensor, dims, x.top * 0.2 * inner as f32)
    }

    fn softmax(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|dims| !dims.is_empty()) else { return Ok(None) };
        let tensor = x.tensor.softmax()?;
        self.made(tensor, x.dims, 1.0)
    }

    fn norm(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|dims| matches!(dims.last(), Some(Dim::Fixed(_)))) else { return Ok(None) };
        let width = x.dims.last().and_then(Dim::fixed).expect("it was chosen so");
        let eps = [1e-5, 1e-12, 1e-3][self.rng.below(3)];
        let found = if self.chance(8) { self.pick(|dims| *dims == [Dim::Fixed(width)]) } else { None };
        let weight = match found {
            Some(weight) => weight.tensor,
            None => self.weight(&[width], 0.5, 1.5)?,
        };
        let top = 1.0 + 1.5 * (width as f32).sqrt();
        let tensor = match self.rng.below(4) {
            0 => x.tensor.normalize()?,
            1 | 2 => {
                let bias = self.weight(&[width], -0.5, 0.5)?;
                x.tensor.layer_norm(&weight, &bias, eps)?
            }
            _ => x.tensor.rms_norm(&weight, eps)?,
        };
        self.made(tensor, x.dims, top)
    }

    fn rope_of(&mut self, x: &Known<T>) -> Result<Known<T>> {
        let offset = match self.rng.below(3) {
            0 => 0,
            1 => self.before(),
            _ => 5,
        };
        let base = [10_000.0, 100.0][self.rng.below(2)];
        let tensor = x.tensor.rope(offset, base)?;
        Ok(self.made(tensor, x.dims.clone(), 1.5 * x.top)?.expect("always"))
    }

    fn rope(&mut self) -> Result<Option<Known<T>>> {
        let is_even = |dim: &Dim| matches!(dim, Dim::Fixed(width) if width.is_multiple_of(2));
        let Some(x) = self.pick(|dims| dims.len() > 1 && dims.last().is_some_and(is_even)) else { return Ok(None) };
        self.rope_of(&x).map(Some)
    }

    fn swiglu(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|_| true) else { return Ok(None) };
        let own = x.dims.clone();
        let Some(y) = self.pick(|dims| *dims == own) else { return Ok(None) };
        let tensor = x.tensor.swiglu(&y.tensor)?;
        self.made(tensor, x.dims, x.top * y.top)
    }

    /// Rows [n, tokens, width] as heads [n, heads, tokens, head width].
    fn heads(&mut self, x: &Known<T>, heads: usize, width: usize) -> Result<Known<T>> {
        let made = self.product(x, heads * width)?;
        let dims = vec![x.dims[0].clone(), x.dims[1].clone(), Dim::Fixed(heads), Dim::Fixed(width)];
        let split = self.as_shape(&made, dims)?;
        self.swapped(&split, 1, 2)
    }

    fn attention(&mut self) -> Result<Option<Known<T>>> {
        if self.chance(4) {
            return self.attention_as_it_is();
        }
        let is_it = |dims: &[Dim]| matches!(dims, [_, Dim::Product(..) | Dim::Fixed(_), Dim::Fixed(_)]);
        let Some(x) = self.pick(is_it) else { return Ok(None) };
        let is_texts = x.dims[0] == open(BATCH) && x.dims[1] == open(SEQUENCE);
        let cache: Vec<Known<T>> = self
            .pool
            .iter()
            .filter(|known| matches!(&known.dims[..], [_, Dim::Fixed(_), past, _] if *past == open(PAST)))
            .take(2)
            .cloned()
            .collect();
        let goes_on = is_texts && cache.len() == 2 && cache[0].dims == cache[1].dims && !self.chance(4);
        let (kv_heads, width) = match &cache[..] {
            [keys, _] if goes_on => (keys.dims[1].fixed().unwrap_or(1), keys.dims[3].fixed().unwrap_or(1)),
            _ => (1 + self.rng.below(3), [1, 2, 3, 4, 6][self.rng.below(5)]),
        };
        let heads = kv_heads * (1 + self.rng.below(3));
        if !self.fits(&[&x.dims[..2], &fixed(&[heads * width])].concat()) {
            return Ok(None);
        }
        let (mut q, mut k) = (self.heads(&x, heads, width)?, self.heads(&x, kv_heads, width)?);
        let mut v = self.heads(&x, kv_heads, width)?;
        if width % 2 == 0 && self.chance(2) {
            (q, k) = (self.rope_of(&q)?, self.rope_of(&k)?);
        }
        if goes_on {
            for (own, past) in [(&mut k, &cache[0]), (&mut v, &cache[1])] {
                let mut dims = own.dims.clone();
                dims[2] = self.seen();
                let tensor = T::concat(&[past.tensor.clone(), own.tensor.clone()], 2)?;
                *own = self.made(tensor, dims, own.top.max(past.top))?.expect("always");
                self.keep(own.clone());
            }
        }
        let made = self.attend(&q, &k, &v)?;
        // As a model goes on from there.
        if self.chance(2) {
            let turned = self.swapped(&made, 1, 2)?;
            let dims = vec![x.dims[0].clone(), x.dims[1].clone(), Dim::Fixed(heads * width)];
            return self.as_shape(&turned, dims).map(Some);
        }
        Ok(Some(made))
    }

    fn attend(&mut self, q: &Known<T>, k: &Known<T>, v: &Known<T>) -> Result<Known<T>> {
        let (rows, queries, keys) = (&q.dims[0], &q.dims[2], &k.dims[2]);
        let may_be_causal = queries == keys
            || *queries == Dim::Fixed(1) && !matches!(keys, Dim::Product(_, symbols) if symbols.contains(&PAST))
            || matches!((queries, keys), (Dim::Product(1, own), Dim::Sum(all)) if own.len() == 1 && all.contains(&own[0]))
            || matches!((queries, keys), (Dim::Fixed(own), Dim::Fixed(all)) if own <= all);
        let causal = may_be_causal && self.chance(2);
        let may_be_masked = *rows == open(BATCH) && *keys == self.seen();
        let lengths = match self.texts.filter(|_| may_be_masked) {
            Some(texts) if !self.chance(4) => texts.lengths_after(self.before()),
            _ => vec![self.sizes.of(keys); self.sizes.of(rows)].into(),
        };
        let scale = [1.0, 0.5, 0.35][self.rng.below(3)];
        let tensor = T::attention(&q.tensor, &k.tensor, &v.tensor, &Scope { lengths, causal }, scale)?;
        Ok(self.made(tensor, q.dims.clone(), v.top)?.expect("always"))
    }

    fn attention_as_it_is(&mut self) -> Result<Option<Known<T>>> {
        let Some(q) = self.pick(|dims| matches!(dims, [_, Dim::Fixed(_), _, _])) else { return Ok(None) };
        let own = q.dims.clone();
        let heads = own[1].fixed().unwrap_or(1);
        let is_it = |dims: &[Dim]| {
            let is_head = matches!(dims.get(1), Some(Dim::Fixed(kv)) if heads.is_multiple_of(*kv));
            let is_empty = matches!(dims.get(2), Some(Dim::Product(_, symbols)) if symbols.contains(&PAST));
            dims.len() == 4 && is_head && !is_empty && dims[0] == own[0] && dims[3] == own[3]
        };
        let Some(k) = self.pick(is_it) else { return Ok(None) };
        let own = k.dims.clone();
        let v = self.pick(|dims| *dims == own).unwrap_or_else(|| k.clone());
        if !self.fits(&[&q.dims[..3], &k.dims[2..3]].concat()) {
            return Ok(None);
        }
        self.attend(&q, &k, &v).map(Some)
    }

    fn bounds(&mut self) -> (f32, f32) {
        let none = f32::INFINITY;
        let all = [(0.0, 6.0), (0.0, none), (-none, none), (-1.0, 1.0), (0.0, 1.0), (-none, 0.5), (-0.5, none)];
        // What else a value is bound to has no kernel for bytes.
        let count = if self.plan.is_network() { 3 } else { all.len() };
        all[self.rng.below(count)]
    }

    fn scale_shift(&mut self) -> Result<Option<Known<T>>> {
        let Some(x) = self.pick(|dims| matches!(dims.last(), Some(Dim::Fixed(_)))) else { return Ok(None) };
        let width = x.dims.last().and_then(Dim::fixed).expect("it was chosen so");
        let (scale, shift) = (self.weight(&[width], 0.5, 1.5)?, self.weight(&[width], -0.5, 0.5)?);
        let (low, high) = self.bounds();
        let tensor = x.tensor.scale_shift(&scale, &shift, low, high)?;
        self.made(tensor, x.dims, 1.5 * x.top + 0.5)
    }

    fn pictures(&mut self) -> Option<(Known<T>, [usize; 3])> {
        let is_it = |dims: &[Dim]| matches!(dims, [_, Dim::Fixed(_), Dim::Fixed(_), Dim::Fixed(_)]);
        let x = self.pick(is_it)?;
        let [h, w, c] = [1, 2, 3].map(|axis| x.dims[axis].fixed().expect("it was chosen so"));
        Some((x, [h, w, c]))
    }

    fn window(&mut self, h: usize, w: usize) -> Option<Window> {
        let (size, stride) = (1 + self.rng.below(4), 1 + self.rng.below(3));
        if h == w && self.chance(2) {
            return Some(Window::same(h, w, size, stride));
        }
        let before = if self.chance(2) { 0 } else { self.rng.below(size) };
        let after = if self.chance(2) { before } else { self.rng.below(size + 1) };
        let mut steps = |len: usize| {
            let all = (len + before + after).checked_sub(size)? / stride + 1;
            // Fewer than there could be.
            Some(if all > 1 && self.rng.below(12) == 0 { all - 1 } else { all })
        };
        let (out_h, out_w) = (steps(h)?, steps(w)?);
        Some(Window { size, stride, before, out_h, out_w })
    }

    fn depthwise(&mut self) -> Result<Option<Known<T>>> {
        let Some((x, [h, w, c])) = self.pictures() else { return Ok(None) };
        let Some(window) = self.window(h, w) else { return Ok(None) };
        let dims = [&x.dims[..1], &fixed(&[window.out_h, window.out_w, c])].concat();
        if !self.fits(&dims) {
            return Ok(None);
        }
        let weight = self.weight(&[window.size, window.size, c], -0.5, 0.5)?;
        let top = 0.5 * (window.size * window.size) as f32 * x.top;
        if !self.chance(2) {
            let tensor = x.tensor.depthwise(&weight, window)?;
            return self.made(tensor, dims, top);
        }
        let (scale, shift) = (self.weight(&[c], 0.5, 1.5)?, self.weight(&[c], -0.5, 0.5)?);
        let (low, high) = self.bounds();
        let tensor = x.tensor.depthwise_scale_shift(&weight, window, &scale, &shift, low, high)?;
        self.made(tensor, dims, 1.5 * top + 0.5)
    }

    fn patches(&mut self) -> Result<Option<Known<T>>> {
        let Some((x, [h, w, c])) = self.pictures() else { return Ok(None) };
        let Some(window) = self.window(h, w) else { return Ok(None) };
        let inner = window.size * window.size * c;
        let out = width(&mut self.rng);
        let Some(rows) = times(&[x.dims[0].clone(), Dim::Fixed(window.out_h), Dim::Fixed(window.out_w)]) else {
            return Ok(None);
        };
        if !self.fits(&[rows.clone(), Dim::Fixed(inner)]) || !self.fits(&[rows.clone(), Dim::Fixed(out)]) {
            return Ok(None);
        }
        let tensor = x.tensor.patches(window)?;
        let mut made = self.made(tensor, vec![rows, Dim::Fixed(inner)], x.top)?.expect("always");
        let whole = [&x.dims[..1], &fixed(&[window.out_h, window.out_w])].concat();
        let kind = if self.plan.is_network() { 11 } else { self.rng.below(12) };
        match kind {
            // No convolution.
            0 => return Ok(Some(made)),
            1 => {
                let dims = [&whole[..], &fixed(&[window.size * window.size, c])].concat();
                made = self.as_shape(&made, dims)?;
                return self.product(&made, out).map(Some);
            }
            2 => {
                made = self.as_shape(&made, [&whole[..], &fixed(&[inner])].concat())?;
                return self.product(&made, out).map(Some);
            }
            _ => {}
        }
        let made = self.product(&made, out)?;
        self.as_shape(&made, [&whole[..], &fixed(&[out])].concat()).map(Some)
    }
}

/// How many entries some axes have together.
fn times(dims: &[Dim]) -> Option<Dim> {
    let (mut factor, mut symbols) = (1, Vec::new());
    for dim in dims {
        match dim {
            Dim::Fixed(number) => factor *= number,
            Dim::Product(own, more) => {
                factor *= own;
                if more.iter().any(|symbol| symbols.contains(symbol)) {
                    return None;
                }
                symbols.extend(more);
            }
            Dim::Sum(_) => return None,
        }
    }
    Some(if symbols.is_empty() { Dim::Fixed(factor) } else { Dim::Product(factor, symbols) })
}

/// How long two are one after the other.
fn plus(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Fixed(a), Dim::Fixed(b)) => Some(Dim::Fixed(a + b)),
        (Dim::Product(a, own), Dim::Product(b, other)) if own == other => Some(Dim::Product(a + b, own.clone())),
        (Dim::Product(1, own), Dim::Product(1, other)) => match [own[..].first()?, other[..].first()?] {
            [&PAST, &SEQUENCE] | [&SEQUENCE, &PAST] if own.len() + other.len() == 2 => {
                Some(Dim::Sum(vec![SEQUENCE, PAST]))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The shape of what two tensors give together.
fn together(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |axis| shape[axis].clone())
    };
    let each = |axis: usize| match (at(a, axis), at(b, axis)) {
        (one, other) if one == other || other == Dim::Fixed(1) => Some(one),
        (Dim::Fixed(1), other) => Some(other),
        _ => None,
    };
    (0..rank).map(each).collect()
}
