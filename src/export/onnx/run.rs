//! ONNX files run by rten, in this process.

use rten::{Model, ModelOptions, NodeId, Value, ValueOrView};

use super::{DATA, FILE};
use crate::export::source::{Tensors, Values};
use crate::export::written::{Array, Program, Written};
use crate::failure::Failure;

/// What runs the file.
const PROGRAM: &str = "rten 0.24.0";

/// A file that rten runs.
pub(in crate::export) struct Rten {
    model: Model,
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
        Ok(Self { model })
    }
}

fn refused(what: String) -> Failure {
    Failure::target(format!("{PROGRAM} does not run the exported file: {what}"))
        .help("write `verify #false` to export it all the same, and check it by the program that is to run it")
}

impl Program for Rten {
    fn name(&self) -> String {
        PROGRAM.to_owned()
    }

    fn has(&self, tensor: &str) -> bool {
        self.model.find_node(tensor).is_some()
    }

    fn run(&self, inputs: &[Tensors], tensors: &[(&str, usize)]) -> Result<Vec<Array>, Failure> {
        let node = |name: &str| self.model.node_id(name).map_err(|e| refused(e.to_string()));
        let given = |input: &Tensors| -> Result<(NodeId, ValueOrView<'static>), Failure> {
            let value = match &input.values {
                Values::Floats(values) => {
                    Value::from_shape(&input.shape, values.clone()).map_err(|e| refused(e.to_string()))?
                }
                Values::Integers(values) => {
                    Value::from_shape(&input.shape, values.clone()).map_err(|e| refused(e.to_string()))?
                }
                Values::Bytes(values) => {
                    Value::from_shape(&input.shape, values.clone()).map_err(|e| refused(e.to_string()))?
                }
            };
            Ok((node(&input.name)?, value.into()))
        };
        let inputs = inputs.iter().map(given).collect::<Result<Vec<_>, _>>()?;
        let ids = tensors.iter().map(|(name, _)| node(name)).collect::<Result<Vec<_>, _>>()?;
        let values = self.model.run(inputs, &ids, None).map_err(|e| refused(e.to_string()))?;
        let taken = values.into_iter().zip(tensors).map(|(value, (_, rank))| array(value, *rank));
        taken.collect::<Option<_>>().ok_or_else(|| refused("an output is no tensor of floats of its rank".into()))
    }
}

/// A tensor of floats of so many axes.
fn array(value: Value, rank: usize) -> Option<Array> {
    fn of<const N: usize>((shape, values): ([usize; N], Vec<f32>)) -> Array {
        (shape.into(), values)
    }
    match rank {
        0 => value.into_shape_vec::<f32, 0>().ok().map(of),
        1 => value.into_shape_vec::<f32, 1>().ok().map(of),
        2 => value.into_shape_vec::<f32, 2>().ok().map(of),
        3 => value.into_shape_vec::<f32, 3>().ok().map(of),
        4 => value.into_shape_vec::<f32, 4>().ok().map(of),
        5 => value.into_shape_vec::<f32, 5>().ok().map(of),
        6 => value.into_shape_vec::<f32, 6>().ok().map(of),
        _ => None,
    }
}
