//! TensorFlow Lite files run in this process: what was saved is read back, and computed with rten's operators.
//!
//! It is written apart from the writer, of the schema alone, and knows what the files of this program have in them and no
//! more. What it says of a file is that its bytes are a model, of the shapes that they name, and compute what they are to;
//! how quick LiteRT is with it, and what it does otherwise, LiteRT itself says, where an environment has it (`litert`).

mod kernels;
mod litert;
mod reader;

use std::collections::{BTreeMap, HashMap};

use rten::BufferPool;
use rten_tensor::prelude::*;
use rten_tensor::{Tensor as Dense, TensorView};

use self::reader::{Model, Operator};
use super::FILE;
use crate::export::format::Ranges;
use crate::export::source::{Tensors, Values};
use crate::export::written::{Array, Program, Written};
use crate::failure::Failure;

pub(in crate::export) use litert::{LEAST_PAST, Lent, LiteRt};

/// What runs the file.
const PROGRAM: &str = "effai's evaluator of TensorFlow Lite";

/// A file that was read.
pub(in crate::export) struct Evaluator {
    model: Model,
    constants: HashMap<usize, Held>,
    numbers: BTreeMap<String, usize>,
    is_whole: bool,
}

/// What a tensor holds.
#[derive(Clone, Debug)]
enum Held {
    /// Of 32 bits, or of 16 that were made 32.
    Floats(Dense<f32>),
    /// Integers and truth values.
    Integers(Dense<i32>),
    /// Codes.
    Bytes(Dense<i8>),
    /// Pictures.
    Pixels(Dense<u8>),
}

impl Held {
    fn shape(&self) -> Vec<usize> {
        match self {
            Held::Floats(values) => values.shape().to_vec(),
            Held::Integers(values) => values.shape().to_vec(),
            Held::Bytes(values) => values.shape().to_vec(),
            Held::Pixels(values) => values.shape().to_vec(),
        }
    }
}

/// What is wrong with an operator.
type Fault = String;

fn refused(what: &str) -> Failure {
    Failure::target(format!("{PROGRAM} does not run the exported file: {what}"))
        .help("write `verify #false` to export it all the same, and check it by the program that is to run it")
}

impl Evaluator {
    /// Of what was written; `is_whole` keeps every tensor that the file names.
    pub(in crate::export) fn new(written: &Written, is_whole: bool) -> Result<Self, Failure> {
        let file = written.file(FILE).expect("a TensorFlow Lite model has it");
        let model = reader::model(file).ok_or_else(|| refused("its bytes are no model"))?;
        let mut constants = HashMap::new();
        for (at, tensor) in model.tensors.iter().enumerate() {
            if let Some(bytes) = &tensor.bytes {
                let held = held(tensor, &file[bytes.clone()]);
                constants.insert(at, held.ok_or_else(|| refused(&format!("`{}` has another size", tensor.name)))?);
            }
        }
        let numbers = model.tensors.iter().enumerate().map(|(at, tensor)| (tensor.name.clone(), at)).collect();
        Ok(Self { model, constants, numbers, is_whole })
    }

    fn at(&self, tensor: &str) -> Result<usize, Failure> {
        self.numbers.get(tensor).copied().ok_or_else(|| refused(&format!("it has no tensor `{tensor}`")))
    }

    /// Whether a shape is the one that the file says, where it says one.
    fn agrees(&self, at: usize, shape: &[usize]) -> bool {
        let said = &self.model.tensors[at].shape;
        let is_it = |(said, own): (&i32, &usize)| *said == -1 || usize::try_from(*said) == Ok(*own);
        said.len() == shape.len() && said.iter().zip(shape).all(is_it)
    }
}

/// A constant.
fn held(tensor: &reader::Tensor, bytes: &[u8]) -> Option<Held> {
    let shape: Vec<usize> = tensor.shape.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?;
    let count: usize = shape.iter().product();
    let is_of = |width: usize| bytes.len() == count * width;
    match tensor.kind {
        reader::FLOAT32 if is_of(4) => {
            let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            Some(Held::Floats(Dense::from_data(&shape, values)))
        }
        reader::FLOAT16 if is_of(2) => {
            let float = |bytes: &[u8; 2]| half::f16::from_le_bytes(*bytes).to_f32();
            let values: Vec<f32> = bytes.as_chunks::<2>().0.iter().map(float).collect();
            Some(Held::Floats(Dense::from_data(&shape, values)))
        }
        // What is added to sums of products of bytes.
        reader::INT32 if is_of(4) && !tensor.scales.is_empty() => {
            let scale = |i: usize| tensor.scales[i % tensor.scales.len()];
            let whole = bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).enumerate();
            let values: Vec<f32> = whole.map(|(i, value)| (f64::from(value) * f64::from(scale(i))) as f32).collect();
            (tensor.scales.len() == count && shape.len() == 1).then(|| Held::Floats(Dense::from_data(&shape, values)))
        }
        reader::INT32 if is_of(4) => {
            let values: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
            Some(Held::Integers(Dense::from_data(&shape, values)))
        }
        reader::INT8 if is_of(1) => {
            let values: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
            Some(Held::Bytes(Dense::from_data(&shape, values)))
        }
        reader::INT4 if bytes.len() == count.div_ceil(2) => {
            // The sign is the highest of the four.
            let both = |byte: &u8| [(byte << 4).cast_signed() >> 4, byte.cast_signed() >> 4];
            let values: Vec<i8> = bytes.iter().flat_map(both).take(count).collect();
            Some(Held::Bytes(Dense::from_data(&shape, values)))
        }
        _ => None,
    }
}

impl Program for Evaluator {
    fn name(&self) -> String {
        PROGRAM.to_owned()
    }

    fn has(&self, tensor: &str) -> bool {
        self.numbers.contains_key(tensor)
    }

    fn run(&self, inputs: &[Tensors], tensors: &[(&str, usize)]) -> Result<Vec<Array>, Failure> {
        self.compute(inputs, tensors, &mut |_, _| {})
    }
}

impl Evaluator {
    /// Widens what was seen of each tensor of floats by a run.
    pub(in crate::export) fn see(&self, inputs: &[Tensors], seen: &mut Ranges) -> Result<(), Failure> {
        let mut widen = |at: usize, values: &mut dyn Iterator<Item = f32>| {
            let own = seen.entry(self.model.tensors[at].name.clone()).or_insert([f32::INFINITY, f32::NEG_INFINITY]);
            *own = values.fold(*own, |[low, high], value| [low.min(value), high.max(value)]);
        };
        for (name, at) in &self.model.inputs {
            if let Some(Values::Floats(values)) = inputs.iter().find(|own| own.name == *name).map(|own| &own.values) {
                widen(*at, &mut values.iter().copied());
            }
        }
        self.compute(inputs, &[], &mut |at, held| {
            if let Held::Floats(values) = held {
                widen(at, &mut values.iter().copied());
            }
        })?;
        Ok(())
    }

    /// What an operator gives, as a tensor of bytes holds it: the nearest of its values, in floats.
    fn stepped(&self, at: usize, held: Held) -> Held {
        let tensor = &self.model.tensors[at];
        match (held, &tensor.scales[..]) {
            (Held::Floats(values), [scale]) if tensor.kind == reader::INT8 => {
                let zero = tensor.zero as f32;
                Held::Floats(values.map(|x| (((x / scale).round() + zero).clamp(-128.0, 127.0) - zero) * scale))
            }
            (held, _) => held,
        }
    }

    fn compute(
        &self,
        inputs: &[Tensors],
        tensors: &[(&str, usize)],
        told: &mut dyn FnMut(usize, &Held),
    ) -> Result<Vec<Array>, Failure> {
        let mut run = Run { file: self, values: HashMap::new(), pool: BufferPool::new() };
        for (name, at) in &self.model.inputs {
            let given = inputs.iter().find(|input| input.name == *name);
            let input = given.ok_or_else(|| refused(&format!("it reads `{name}`, which the model does not")))?;
            if !self.agrees(*at, &input.shape) {
                return Err(refused(&format!("`{name}` is of another shape there than {:?}", input.shape)));
            }
            let held = match (&input.values, self.model.tensors[*at].kind) {
                (Values::Floats(values), reader::FLOAT32) => {
                    Held::Floats(Dense::from_data(&input.shape, values.clone()))
                }
                (Values::Integers(values), reader::INT32) => {
                    Held::Integers(Dense::from_data(&input.shape, values.clone()))
                }
                (Values::Bytes(values), reader::UINT8) => Held::Pixels(Dense::from_data(&input.shape, values.clone())),
                _ => return Err(refused(&format!("`{name}` consists of something else there"))),
            };
            run.values.insert(*at, held);
        }
        // What comes out is named by the signature.
        let named = |name: &str| self.model.outputs.iter().find(|(own, _)| own == name).map(|(_, at)| *at);
        let asked = tensors.iter().map(|(name, _)| named(name).map_or_else(|| self.at(name), Ok));
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let mut left = self.uses(&asked);
        for (number, operator) in self.model.operators.iter().enumerate() {
            let name = &self.model.tensors[operator.output].name;
            let fault = |what: String| refused(&format!("at `{name}`, operator {number}: {what}"));
            let held = self.stepped(operator.output, run.operator(operator).map_err(fault)?);
            told(operator.output, &held);
            if !self.agrees(operator.output, &held.shape()) {
                let said = &self.model.tensors[operator.output].shape;
                return Err(fault(format!("it gives {:?}, and the file says {said:?}", held.shape())));
            }
            run.values.insert(operator.output, held);
            for input in operator.inputs.iter().flatten() {
                let uses = left.entry(*input).or_insert(1);
                *uses -= 1;
                if *uses == 0 && !self.is_whole {
                    run.values.remove(input);
                }
            }
        }
        let taken = asked.iter().zip(tensors).map(|(at, (name, rank))| match run.held(*at) {
            Ok(Held::Floats(values)) if values.ndim() == *rank => Ok((values.shape().to_vec(), values.to_vec())),
            _ => Err(refused(&format!("`{name}` is no tensor of floats of its rank"))),
        });
        taken.collect()
    }
}

impl Evaluator {
    /// How often each tensor is read, by operators and by who asks.
    fn uses(&self, asked: &[usize]) -> HashMap<usize, usize> {
        let mut uses = HashMap::new();
        let read = self.model.operators.iter().flat_map(|operator| operator.inputs.iter().flatten());
        for at in read.chain(asked) {
            *uses.entry(*at).or_insert(0) += 1;
        }
        uses
    }
}

/// One run.
struct Run<'a> {
    file: &'a Evaluator,
    values: HashMap<usize, Held>,
    pool: BufferPool,
}

impl Run<'_> {
    fn held(&self, at: usize) -> Result<&Held, Fault> {
        let held = self.values.get(&at).or_else(|| self.file.constants.get(&at));
        held.ok_or_else(|| format!("`{}` is read before it is computed", self.file.model.tensors[at].name))
    }

    fn input(&self, operator: &Operator, number: usize) -> Result<&Held, Fault> {
        let at = operator.inputs.get(number).copied().flatten();
        self.held(at.ok_or_else(|| format!("it has no input {number}"))?)
    }

    fn floats(&self, operator: &Operator, number: usize) -> Result<TensorView<'_, f32>, Fault> {
        match self.input(operator, number)? {
            Held::Floats(values) => Ok(values.view()),
            _ => Err(format!("its input {number} is no floats")),
        }
    }

    /// Integers in a row.
    fn integers(&self, operator: &Operator, number: usize) -> Result<Vec<i32>, Fault> {
        match self.input(operator, number)? {
            Held::Integers(values) => Ok(values.to_vec()),
            _ => Err(format!("its input {number} is no integers")),
        }
    }

    /// Lengths or places in a row, none below zero.
    fn sizes(&self, operator: &Operator, number: usize) -> Result<Vec<usize>, Fault> {
        let all = self.integers(operator, number)?;
        let sizes: Result<Vec<usize>, _> = all.iter().map(|n| usize::try_from(*n)).collect();
        sizes.map_err(|_| format!("its input {number} has a number below zero: {all:?}"))
    }
}
