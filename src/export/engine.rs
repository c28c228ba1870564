//! What runs an exported file in this process, so that it is measured as its model is: rten, which is part of it, or the library of
//! a package in an `environment`, which is loaded when it is asked for.
//!
//! Each has a file beside its format (`onnx/run/`, `tflite/run/`). A tensor that came out of one can go into it again as it is held
//! there; into no other.

use std::path::{Path, PathBuf};

use super::format::Layout;
use super::onnx::{self, Onnxruntime, Rten};
use super::source::{Tensors, Values};
use super::tflite::{self, LiteRt};
use super::written::{Array, Program};
use crate::failure::Failure;
use crate::util::fs;

/// What has opened a file and runs it.
pub(in crate::export) trait Engine {
    /// Its name and version, as a record has it.
    fn name(&self) -> String;

    /// Whether a tensor can be asked for.
    fn has(&self, tensor: &str) -> bool;

    /// Whether what is computed on the way can be asked for, of a file that was opened so.
    fn is_open_inside(&self) -> bool {
        true
    }

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
    /// As it is lent to LiteRT.
    LiteRt(tflite::Lent),
}

impl Value {
    /// The length of each axis, and the values, of a tensor of floats.
    pub(in crate::export) fn floats(self) -> Result<Array, Failure> {
        let floats = match self {
            Value::Given(shape, Values::Floats(values)) => Some((shape, values)),
            Value::Given(..) => None,
            Value::Rten(value) => onnx::rten_floats(value),
            Value::Onnxruntime(value) => onnx::onnxruntime_floats(&value, 0),
            Value::LiteRt(value) => value.floats(0),
        };
        floats.ok_or_else(no_floats)
    }

    /// The last `count` values of a tensor of floats; of what came out no others are copied.
    pub(in crate::export) fn last(self, count: usize) -> Result<Vec<f32>, Failure> {
        let last = match self {
            Value::Onnxruntime(value) => onnx::onnxruntime_floats(&value, count),
            Value::LiteRt(value) => value.floats(count),
            other => {
                let (shape, mut values) = other.floats()?;
                let values = values.split_off(values.len().saturating_sub(count));
                Some((shape, values))
            }
        };
        last.map(|(_, values)| values).ok_or_else(no_floats)
    }
}

fn no_floats() -> Failure {
    Failure::target("an output of the exported file is no tensor of floats")
}

/// Whatever runs a file can be asked for the values of the graph.
impl<E: Engine> Program for E {
    fn name(&self) -> String {
        Engine::name(self)
    }

    fn has(&self, tensor: &str) -> bool {
        Engine::has(self, tensor)
    }

    fn is_open_inside(&self) -> bool {
        Engine::is_open_inside(self)
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

/// By what a file is run where it is measured.
#[derive(Clone, Copy)]
pub(in crate::export) enum Runtime<'a> {
    /// What is part of this program.
    Rten,
    /// That of an environment.
    Onnxruntime(&'a Path),
    /// Likewise.
    LiteRt(&'a Path),
}

impl<'a> Runtime<'a> {
    /// Of files of a format, by its name in recipes; of an environment, where there is one.
    ///
    /// # Errors
    /// If there is nothing that runs them.
    pub(in crate::export) fn of(format: &str, environment: Option<&'a Path>) -> Result<Self, Failure> {
        match (format, environment) {
            ("onnx", None) => Ok(Self::Rten),
            ("onnx", Some(environment)) => Ok(Self::Onnxruntime(environment)),
            ("tflite", Some(environment)) => Ok(Self::LiteRt(environment)),
            ("tflite", None) => Err(Failure::user("the export names no `environment`, and LiteRT, which runs `tflite`, is of one")
                .help("add `environment \"envs/run\"` to the export: a target of kind `environment` whose project has `ai-edge-litert`")),
            (format, _) => {
                let what = format!("effai has nothing that runs `{format}` as quickly as a Mac does");
                Err(Failure::user(what).help(
                    "export it as \"onnx\" too, and measure that; or time a program of your own: subject \"...\" { run \"...\"; }",
                ))
            }
        }
    }

    /// Its name, and with its version.
    pub(in crate::export) fn program(self) -> Result<(&'static str, String), Failure> {
        match self {
            Self::Rten => Ok(("rten", onnx::RTEN.to_owned())),
            Self::Onnxruntime(environment) => Ok(("onnxruntime", Onnxruntime::program(environment)?)),
            Self::LiteRt(environment) => Ok(("LiteRT", LiteRt::program(environment)?)),
        }
    }

    /// How it is given pictures.
    pub(in crate::export) fn layout(self) -> Layout {
        match self {
            Self::Rten | Self::Onnxruntime(_) => Layout::ChannelsFirst,
            Self::LiteRt(_) => Layout::ChannelsLast,
        }
    }

    /// Positions that the caches of a language model hold at least, of any number.
    pub(in crate::export) fn least_past(self) -> usize {
        match self {
            Self::Rten | Self::Onnxruntime(_) => 0,
            Self::LiteRt(_) => tflite::LEAST_PAST,
        }
    }

    /// Opens the file of an artifact, on so many threads.
    pub(in crate::export) fn open(self, dir: &Path, threads: usize) -> Result<Box<dyn Engine>, Failure> {
        match self {
            Self::Rten => Ok(Box::new(Rten::open(dir, threads)?)),
            Self::Onnxruntime(environment) => Ok(Box::new(Onnxruntime::open(dir, environment, threads)?)),
            Self::LiteRt(environment) => Ok(Box::new(LiteRt::open(dir, environment, threads)?)),
        }
    }
}

/// Where an environment has its packages: a directory of each Python in it, of which there is one.
pub(in crate::export) fn packages(environment: &Path) -> Result<Vec<PathBuf>, Failure> {
    let lib = environment.join("lib");
    let pythons = if lib.exists() { fs::list(&lib)? } else { Vec::new() };
    Ok(pythons.into_iter().map(|python| python.join("site-packages")).filter(|place| place.exists()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_a_file_is_told_by_its_format_and_its_environment() {
        let environment = Path::new("e");
        let of = |format: &str, environment| Runtime::of(format, environment).map(Runtime::layout);
        assert_eq!(of("onnx", None).unwrap(), Layout::ChannelsFirst);
        assert_eq!(of("onnx", Some(environment)).unwrap(), Layout::ChannelsFirst);
        assert_eq!(of("tflite", Some(environment)).unwrap(), Layout::ChannelsLast);
        let said = of("tflite", None).unwrap_err();
        assert!(said.message.contains("names no `environment`"), "{said}");
        assert!(said.help.is_some_and(|help| help.contains("ai-edge-litert")));
        assert!(of("coreml", Some(environment)).unwrap_err().message.contains("nothing that runs `coreml`"));
    }
}
