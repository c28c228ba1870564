//! ML Programs computed by rten's operators, in this process: what is Core ML's own runs on Apple's systems only.
//!
//! It reads the package's bytes and knows nothing of how they were written. What each operation gives is held against the
//! type that the program declares; what is declared in 16 bits is rounded to them.

mod classify;
mod compute;
mod state;
mod weights;

use std::collections::HashMap;

use prost::Message;
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

use super::proto::{self, Bound, Length};
use super::{MAIN, MODEL, WEIGHTS};
use crate::export::source::{Tensors, Values};
use crate::export::written::{Array, Program, Written};
use crate::failure::Failure;

/// What runs the file.
const PROGRAM: &str = "effai's evaluator of ML programs, by operators of rten 0.24.0";

/// MIL's numbers of element types.
mod element {
    pub(super) const BOOL: i32 = 1;
    pub(super) const STRING: i32 = 2;
    pub(super) const FLOAT16: i32 = 10;
    pub(super) const FLOAT32: i32 = 11;
    pub(super) const FLOAT64: i32 = 12;
    pub(super) const INT8: i32 = 21;
    pub(super) const INT32: i32 = 23;
    pub(super) const INT4: i32 = 25;
    pub(super) const UINT8: i32 = 31;
    pub(super) const UINT32: i32 = 33;
    pub(super) const UINT4: i32 = 35;
    pub(super) const UINT1: i32 = 37;
    pub(super) const UINT6: i32 = 38;
}

/// A value of a program.
#[derive(Clone, Debug)]
enum Held {
    Floats(Tensor<f32>),
    /// Integers, and truth as 1 and 0.
    Ints(Tensor<i32>),
    Text(String),
}

impl Held {
    fn shape(&self) -> Vec<usize> {
        match self {
            Held::Floats(tensor) => tensor.shape().to_vec(),
            Held::Ints(tensor) => tensor.shape().to_vec(),
            Held::Text(_) => Vec::new(),
        }
    }
}

/// A package that is computed.
pub(in crate::export) struct Evaluator {
    inputs: Vec<proto::NamedType>,
    /// What is kept from run to run.
    states: Vec<state::Declared>,
    /// What the model says of its inputs to who runs it.
    described: Vec<proto::Feature>,
    operations: Vec<proto::Operation>,
    /// What it makes labels of, last of all.
    classes: Option<classify::Classes>,
    /// What depends on no input.
    constants: HashMap<String, Held>,
    /// The last operation that needs a tensor.
    last: HashMap<String, usize>,
}

fn refused(what: impl std::fmt::Display) -> Failure {
    Failure::target(format!("effai's evaluator does not run the exported program: {what}"))
        .help("write `verify #false` to export it all the same, and check it by the program that is to run it")
}

/// A name as a program has it: letters, digits, `_`.
fn plain(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

impl Evaluator {
    /// Of what was written.
    pub(in crate::export) fn new(written: &Written) -> Result<Self, Failure> {
        let file = |path: &str| written.file(path).ok_or_else(|| refused(format!("no {path}")));
        let model = proto::Model::decode(file(MODEL)?).map_err(refused)?;
        let weights = weights::File::new(file(WEIGHTS)?)?;
        let description = model.description.unwrap_or_default();
        let mut functions = model.ml_program.ok_or_else(|| refused("no program"))?.functions;
        let mut function = functions.remove(MAIN).ok_or_else(|| refused("no function `main`"))?;
        let block = function.block_specializations.remove(&function.opset);
        let block = block.ok_or_else(|| refused(format!("no block for {}", function.opset)))?;
        let (states, inputs) = state::parted(function.inputs, &description.state)?;
        let mut constants = HashMap::new();
        let mut operations = Vec::new();
        for operation in block.operations {
            match weights::constant(&operation, &weights)? {
                Some(value) => {
                    let output = operation.outputs.first().ok_or_else(|| refused("a constant without a name"))?;
                    fits(output, &value)?;
                    constants.insert(output.name.clone(), value);
                }
                None => operations.push(operation),
            }
        }
        state::check(&operations, &states)?;
        let classes = classify::taken(&mut operations, &block.outputs, &description)?;
        let described = description.input;
        let mut last = HashMap::new();
        for (at, operation) in operations.iter().enumerate() {
            for name in names(operation) {
                last.insert(name.to_owned(), at);
            }
        }
        Ok(Self { inputs, states, described, operations, classes, constants, last })
    }
}

impl Evaluator {
    /// A picture as Core ML gives it to a program: one, of the side that is said, as floats of 0 to 255.
    fn picture(&self, name: &str, shape: &[usize], bytes: &[u8]) -> Result<Held, Failure> {
        /// `RGB` of `ImageFeatureType.ColorSpace`.
        const RED_GREEN_BLUE: i32 = 20;
        let own = self.described.iter().find(|own| own.name == plain(name)).and_then(|own| own.r#type.as_ref());
        let Some(proto::FeatureKind::Image(image)) = own.and_then(|own| own.kind.as_ref()) else {
            return Err(refused(format!("`{name}` is no picture there")));
        };
        let said = [1, 3, image.height, image.width];
        if image.color_space != RED_GREEN_BLUE || !shape.iter().map(|n| *n as i64).eq(said) {
            return Err(refused(format!("`{name}` is a picture {said:?} there, and comes as {shape:?}")));
        }
        let values = bytes.iter().map(|byte| f32::from(*byte)).collect::<Vec<_>>();
        Ok(Held::Floats(Tensor::from_data(shape, values)))
    }
}

/// The tensors that an operation needs.
fn names(operation: &proto::Operation) -> impl Iterator<Item = &str> {
    operation.inputs.values().flat_map(|argument| &argument.arguments).filter_map(|binding| match &binding.bound {
        Some(Bound::Name(name)) => Some(&name[..]),
        _ => None,
    })
}

/// What is declared in 16 bits is rounded to them.
fn rounded(declared: &proto::NamedType, value: &mut Held) {
    let declared = declared.r#type.as_ref().and_then(|own| own.tensor_type.as_ref()).map(|own| own.data_type);
    if let (Held::Floats(tensor), Some(element::FLOAT16)) = (value, declared) {
        tensor.apply(|value| half::f16::from_f32(*value).to_f32());
    }
}

/// Refuses a value that is not of the type that it is declared to be.
fn fits(declared: &proto::NamedType, value: &Held) -> Result<(), Failure> {
    let name = &declared.name;
    let declared = declared.r#type.as_ref().and_then(|own| own.tensor_type.as_ref());
    let declared = declared.ok_or_else(|| refused(format!("`{name}` has no type")))?;
    let shape = value.shape();
    let is_length = |(own, length): (&proto::Dimension, &usize)| match &own.length {
        Some(Length::Constant(own)) => own.size == *length as u64,
        Some(Length::Unknown(_)) => true,
        None => false,
    };
    let is_shape = declared.rank == shape.len() as i64
        && declared.dimensions.len() == shape.len()
        && declared.dimensions.iter().zip(&shape).all(is_length);
    let is_kind = match value {
        Held::Floats(_) => matches!(declared.data_type, element::FLOAT16 | element::FLOAT32),
        Held::Ints(_) => !matches!(declared.data_type, element::FLOAT16 | element::FLOAT32 | element::STRING),
        Held::Text(_) => declared.data_type == element::STRING,
    };
    if is_shape && is_kind {
        return Ok(());
    }
    let declared = declared.dimensions.iter().map(|own| match &own.length {
        Some(Length::Constant(own)) => own.size.to_string(),
        _ => "?".to_owned(),
    });
    let declared = declared.collect::<Vec<_>>().join(", ");
    Err(refused(format!("`{name}` is declared as [{declared}], and comes as {shape:?}")))
}

impl Program for Evaluator {
    fn name(&self) -> String {
        PROGRAM.to_owned()
    }

    fn has(&self, tensor: &str) -> bool {
        let tensor = plain(tensor);
        let is_given = self.inputs.iter().any(|input| input.name == tensor);
        is_given || self.operations.iter().any(|operation| operation.outputs.iter().any(|own| own.name == tensor))
    }

    fn run(&self, inputs: &[Tensors], tensors: &[(&str, usize)]) -> Result<Vec<Array>, Failure> {
        self.step(inputs, tensors, &mut state::fresh(&self.states))
    }

    fn steps(&self, steps: &[&[Tensors]], tensors: &[(&str, usize)]) -> Result<Vec<Vec<Array>>, Failure> {
        let mut kept = state::fresh(&self.states);
        steps.iter().map(|inputs| self.step(inputs, tensors, &mut kept)).collect()
    }
}

impl Evaluator {
    /// One run, which changes what is kept.
    fn step(
        &self,
        inputs: &[Tensors],
        tensors: &[(&str, usize)],
        kept: &mut state::Kept,
    ) -> Result<Vec<Array>, Failure> {
        let asked: Vec<String> = tensors.iter().map(|(name, _)| plain(name)).collect();
        let mut values: HashMap<String, Held> = HashMap::new();
        for input in inputs {
            let value = match &input.values {
                Values::Floats(values) => Held::Floats(Tensor::from_data(&input.shape[..], values.clone())),
                Values::Integers(values) => Held::Ints(Tensor::from_data(&input.shape[..], values.clone())),
                Values::Bytes(bytes) => self.picture(&input.name, &input.shape, bytes)?,
            };
            values.insert(plain(&input.name), value);
        }
        for input in &self.inputs {
            let value = values.get_mut(&input.name).ok_or_else(|| refused(format!("`{}` is not given", input.name)))?;
            rounded(input, value);
            if value.shape().contains(&0) {
                return Err(refused(format!("`{}` is empty", input.name)));
            }
            fits(input, value)?;
        }
        let mut found: HashMap<String, Array> = HashMap::new();
        for (at, operation) in self.operations.iter().enumerate() {
            if operation.r#type == state::WRITE {
                state::write(operation, &values, kept)?;
                continue;
            }
            let output = operation.outputs.first().ok_or_else(|| refused("an operation without a result"))?;
            let value = if operation.r#type == state::READ {
                state::read(operation, kept)?
            } else {
                let given = compute::Given { operation, values: &values, constants: &self.constants };
                let mut value = given.compute().map_err(|e| refused(format!("`{}`: {e}", output.name)))?;
                // Numbers that it was given in 16 bits already: of all that is kept, few are another's.
                if operation.r#type != "slice_update" {
                    rounded(output, &mut value);
                }
                value
            };
            fits(output, &value)?;
            values.insert(output.name.clone(), value);
            for name in names(operation) {
                if self.last.get(name) == Some(&at) && !asked.iter().any(|asked| asked == name) {
                    values.remove(name);
                }
            }
        }
        if let Some(classes) = &self.classes {
            classes.check(values.get(classes.probabilities()))?;
        }
        for name in &asked {
            if let Some(Held::Floats(tensor)) = values.get(name) {
                found.insert(name.clone(), (tensor.shape().to_vec(), tensor.to_vec()));
            }
        }
        let taken = asked.iter().zip(tensors).map(|(name, (_, rank))| {
            let array = found.get(name).filter(|(shape, _)| shape.len() == *rank).cloned();
            array.ok_or_else(|| refused(format!("`{name}` is no tensor of floats of {rank} axes")))
        });
        taken.collect()
    }
}
