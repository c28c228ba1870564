//! ONNX files run in this process: by rten, which is part of it, or by onnxruntime, whose library an environment has.

mod onnxruntime;
mod rten;

use std::path::Path;

use super::{DATA, FILE};
use crate::export::source::{Tensors, Values};
use crate::export::written::{Array, Program, Written};
use crate::failure::Failure;
use crate::util::fs;

pub(in crate::export) use onnxruntime::Onnxruntime;
pub(in crate::export) use rten::Rten;

/// What runs a file.
pub(in crate::export) trait Engine {
    /// Its name and version, as a record has it.
    fn name(&self) -> String;

    /// Whether a tensor can be asked for.
    fn has(&self, tensor: &str) -> bool;

    /// The length of an input along an axis, where the file says one.
    fn length(&self, input: &str, axis: usize) -> Option<usize>;

    /// Gives the values of some tensors.
    fn run(&self, inputs: Vec<(&str, Value)>, outputs: &[&str]) -> Result<Vec<Value>, Failure>;
}

/// A tensor that goes in or came out.
pub(in crate::export) enum Value {
    /// Of values that are at hand.
    Given(Vec<usize>, Values),
    /// As rten holds it.
    Rten(::rten::Value),
    /// As onnxruntime holds it.
    Onnxruntime(ort::value::DynValue),
}

impl Value {
    /// The length of each axis, and the values, of a tensor of floats.
    pub(in crate::export) fn floats(self) -> Result<Array, Failure> {
        let none = || Failure::target("an output of the exported file is no tensor of floats");
        match self {
            Value::Given(shape, Values::Floats(values)) => Ok((shape, values)),
            Value::Given(..) => Err(none()),
            Value::Rten(value) => rten::floats(value).ok_or_else(none),
            Value::Onnxruntime(value) => onnxruntime::floats(&value, 0).ok_or_else(none),
        }
    }

    /// The last `count` values of a tensor of floats; of what came out no others are copied.
    pub(in crate::export) fn last(self, count: usize) -> Result<Vec<f32>, Failure> {
        match self {
            Value::Onnxruntime(value) => {
                let all = onnxruntime::floats(&value, count);
                all.map(|(_, values)| values)
                    .ok_or_else(|| Failure::target("an output of the exported file is no tensor of floats"))
            }
            other => {
                let mut values = other.floats()?.1;
                Ok(values.split_off(values.len().saturating_sub(count)))
            }
        }
    }
}

/// Whatever runs a file can be asked for the values of the graph.
impl<E: Engine> Program for E {
    fn name(&self) -> String {
        Engine::name(self)
    }

    fn has(&self, tensor: &str) -> bool {
        Engine::has(self, tensor)
    }

    fn run(&self, inputs: &[Tensors], tensors: &[(&str, usize)]) -> Result<Vec<Array>, Failure> {
        let given = |input: &Tensors| Value::Given(input.shape.clone(), input.values.clone());
        let inputs = inputs.iter().map(|input| (&input.name[..], given(input))).collect();
        let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
        let values = Engine::run(self, inputs, &names)?.into_iter().zip(tensors);
        let taken = values.map(|(value, (name, rank))| {
            let (shape, values) = value.floats()?;
            if shape.len() != *rank {
                let what = format!("the exported file gives `{name}` {} axes, and {rank} are meant", shape.len());
                return Err(Failure::target(what));
            }
            Ok((shape, values))
        });
        taken.collect()
    }
}

/// Opens a file by onnxruntime of an environment, or else by rten.
pub(in crate::export) fn open(
    dir: &Path,
    environment: Option<&Path>,
    threads: usize,
) -> Result<Box<dyn Engine>, Failure> {
    if let Some(environment) = environment {
        return Ok(Box::new(Onnxruntime::open(dir, environment, threads)?));
    }
    let mut files = vec![(FILE.to_owned(), fs::read(&dir.join(FILE))?)];
    if dir.join(DATA).exists() {
        files.push((DATA.to_owned(), fs::read(&dir.join(DATA))?));
    }
    Ok(Box::new(Rten::of(&Written { files, places: Vec::new() }, false, threads)?))
}

/// What [`open`] opens a file by: its name, and with its version.
pub(in crate::export) fn program(environment: Option<&Path>) -> Result<(&'static str, String), Failure> {
    match environment {
        Some(environment) => Ok(("onnxruntime", onnxruntime::program(environment)?)),
        None => Ok(("rten", rten::PROGRAM.to_owned())),
    }
}
