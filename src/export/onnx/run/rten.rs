//! Files run by rten.

use std::path::Path;
use std::sync::Arc;

use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value as Held, ValueOrView};
use rten_tensor::prelude::*;

use crate::export::engine::{Engine, Value};
use crate::export::onnx::{DATA, FILE};
use crate::export::source::Values;
use crate::export::written::{Array, Written};
use crate::failure::Failure;
use crate::util::fs;

/// What runs the file.
pub(in crate::export) const PROGRAM: &str = "rten 0.24.0";

/// A file that rten runs.
pub(in crate::export) struct Rten {
    model: Model,
    threads: Option<Arc<ThreadPool>>,
}

impl Rten {
    /// Of what was written; `is_whole` keeps every tensor that the file names.
    pub(in crate::export) fn new(written: &Written, is_whole: bool) -> Result<Self, Failure> {
        let mut options = ModelOptions::with_all_ops();
        options.enable_optimization(!is_whole);
        if let Some(data) = written.file(DATA) {
            options.external_data(DATA, data.to_vec());
        }
        let model = written.file(FILE).expect("an ONNX model has it").to_vec();
        let model = options.load(model).map_err(|e| refused(e.to_string()))?;
        Ok(Self { model, threads: None })
    }

    /// Of an artifact, on so many threads.
    pub(in crate::export) fn open(dir: &Path, threads: usize) -> Result<Self, Failure> {
        let mut files = vec![(FILE.to_owned(), fs::read(&dir.join(FILE))?)];
        if dir.join(DATA).exists() {
            files.push((DATA.to_owned(), fs::read(&dir.join(DATA))?));
        }
        let written = Written { files, places: Vec::new() };
        Ok(Self { threads: Some(Arc::new(ThreadPool::with_num_threads(threads))), ..Self::new(&written, false)? })
    }
}

fn refused(what: String) -> Failure {
    Failure::target(format!("{PROGRAM} does not run the exported file: {what}"))
        .help("write `verify #false` to export it all the same, and check it by the program that is to run it")
}

impl Engine for Rten {
    fn name(&self) -> String {
        PROGRAM.to_owned()
    }

    fn has(&self, tensor: &str) -> bool {
        self.model.find_node(tensor).is_some()
    }

    fn length(&self, input: &str, axis: usize) -> Option<usize> {
        let node = self.model.node_info(self.model.find_node(input)?)?;
        match node.shape()?.get(axis)? {
            Dimension::Fixed(length) => Some(*length),
            Dimension::Symbolic(_) => None,
        }
    }

    fn run(&self, inputs: Vec<(&str, Value)>, outputs: &[&str]) -> Result<Vec<Value>, Failure> {
        let node = |name: &str| self.model.node_id(name).map_err(|e| refused(e.to_string()));
        let given = |(name, value): (&str, Value)| -> Result<(NodeId, ValueOrView<'static>), Failure> {
            Ok((node(name)?, held(value)?.into()))
        };
        let inputs = inputs.into_iter().map(given).collect::<Result<Vec<_>, _>>()?;
        let ids = outputs.iter().map(|name| node(name)).collect::<Result<Vec<_>, _>>()?;
        let options = self.threads.clone().map(|threads| {
            let mut options = RunOptions::default();
            options.thread_pool = Some(threads);
            options
        });
        let values = self.model.run(inputs, &ids, options).map_err(|e| refused(e.to_string()))?;
        Ok(values.into_iter().map(Value::Rten).collect())
    }
}

fn held(value: Value) -> Result<Held, Failure> {
    let misshapen = |e: &dyn std::fmt::Display| refused(e.to_string());
    match value {
        Value::Rten(value) => Ok(value),
        Value::Given(shape, Values::Floats(values)) => Held::from_shape(&shape, values).map_err(|e| misshapen(&e)),
        Value::Given(shape, Values::Integers(values)) => Held::from_shape(&shape, values).map_err(|e| misshapen(&e)),
        Value::Given(shape, Values::Bytes(values)) => Held::from_shape(&shape, values).map_err(|e| misshapen(&e)),
        Value::Onnxruntime(_) | Value::LiteRt(_) => Err(refused("it was given a tensor of another program".into())),
    }
}

/// The length of each axis, and the values; none of what is no tensor of floats.
pub(in crate::export) fn floats(value: Held) -> Option<Array> {
    let tensor = value.into_tensor::<f32>()?;
    let shape = tensor.shape().to_vec();
    Some((shape, tensor.into_data()))
}
