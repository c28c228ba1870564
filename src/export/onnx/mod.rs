//! ONNX files: <https://onnx.ai/onnx/repo-docs/IR.html>.
//!
//! The graph's operations become ONNX's, of the opset that is asked for; what has no operator there is expanded. Pictures are
//! NHWC here and NCHW there: a value is written in the layout in which it is computed, and seen in another by who asks
//! (`view`), so that a network for pictures is written without a transposition between its layers.
//!
//! Equal graphs give equal bytes: nothing is written that is not the model's.

mod lower;
mod proto;
mod qdq;
mod run;

use prost::Message;

use super::engine::{Engine, Value};
use super::format::{AUTHOR, DESCRIPTION, LICENSE, Options, Precision, Ranges};
use super::graph::{Dim, Element, Graph, Symbol};
use super::source::{Tensors, Values};
use super::written::Written;
use crate::failure::Failure;

pub(super) use run::{Onnxruntime, RTEN, Rten, onnxruntime_floats, rten_floats};

/// The oldest opset that is written: since then, axes are inputs of a sum.
pub const OLDEST: u32 = 13;
/// The newest opset that is written: what onnxruntime of the same year runs.
pub const NEWEST: u32 = 26;
/// More than so many bytes cannot be in one message of protocol buffers.
const MESSAGE_MAX: usize = i32::MAX as usize - (1 << 20);
/// The file of a model.
pub const FILE: &str = "model.onnx";
/// The file of the weights that a message cannot hold.
pub const DATA: &str = "model.onnx.data";
/// Weights of so many bytes and more lie in the file of their own.
const EXTERNAL_MIN: usize = 1024;

/// A graph that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// An operation that is written only together with another.
    #[error("ONNX has no operator for `{op}` of `{name}`: {why}")]
    NoOperator {
        /// The operation.
        op: &'static str,
        /// The value.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A matrix whose inputs are rounded too, row by row.
    #[error("ONNX has no operator for `linear-quantized` of `{0}`, whose inputs are rounded row by row")]
    RoundsInputs(String),
    /// A size that no input has.
    #[error("no input of the graph says how large `{0}` is")]
    NoSize(Symbol),
    /// A weight beyond the range of 16 bits.
    #[error("`{name}` holds {value}, which is too large for 16 bits")]
    TooLarge {
        /// The weight.
        name: String,
        /// Its value.
        value: f32,
    },
}

impl OnnxError {
    /// The next step.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoOperator { .. } => "export it in another format",
            Self::RoundsInputs(_) => "export the model that it was made of, with precision \"int8\"",
            Self::NoSize(_) => "export it in another format",
            Self::TooLarge { .. } => "write precision \"f32\"",
        }
    }
}

impl From<OnnxError> for Failure {
    fn from(error: OnnxError) -> Self {
        Failure::target(error.to_string()).help(error.help())
    }
}

/// Writes a graph.
pub fn write(graph: &Graph, opset: u32, options: &Options) -> Result<Written, OnnxError> {
    write_within(graph, opset, options, MESSAGE_MAX)
}

pub(super) fn write_within(
    graph: &Graph,
    opset: u32,
    options: &Options,
    bytes_max: usize,
) -> Result<Written, OnnxError> {
    let mut lowered = lower::lower(graph, opset, options)?;
    if options.precision == Precision::Int8Calibrated {
        lowered = qdq::pairs(lowered, &options.ranges);
    }
    let mut initializer = lowered.initializers;
    let bytes = |tensor: &proto::Tensor| tensor.raw_data.as_ref().map_or(0, Vec::len);
    let mut data = None;
    if initializer.iter().map(bytes).sum::<usize>() > bytes_max {
        let mut all = Vec::new();
        for tensor in initializer.iter_mut().filter(|tensor| bytes(tensor) >= EXTERNAL_MIN) {
            let values = tensor.raw_data.take().expect("it has bytes");
            // As others write it: a page can be mapped.
            all.resize(all.len().next_multiple_of(4096), 0);
            let entry = |key: &str, value: String| proto::Entry { key: key.into(), value };
            tensor.external_data = vec![
                entry("location", DATA.into()),
                entry("offset", all.len().to_string()),
                entry("length", values.len().to_string()),
            ];
            tensor.data_location = 1;
            all.extend(values);
        }
        data = Some(all);
    }
    let metadata = options.metadata.iter().filter(|(key, _)| key != DESCRIPTION);
    let input = graph.inputs.iter().map(|input| {
        let kind = match input.element {
            Element::Float => lower::FLOAT,
            Element::Integer => lower::INT64,
            Element::Bytes(_) => lower::UINT8,
        };
        value_info(&input.name, kind, &input.shape)
    });
    let output = graph.outputs.iter().map(|(name, id)| value_info(name, lower::FLOAT, &graph.values[*id].shape));
    let said = |key: &str| {
        options.metadata.iter().find(|(own, _)| own == key).map_or(String::new(), |(_, value)| value.clone())
    };
    let model = proto::Model {
        ir_version: ir_version(opset),
        producer_name: "effai".into(),
        doc_string: said(DESCRIPTION),
        graph: Some(proto::Graph {
            node: lowered.nodes,
            name: "model".into(),
            initializer,
            input: input.collect(),
            output: output.collect(),
        }),
        opset_import: lowered
            .domains
            .into_iter()
            .map(|(domain, version)| proto::OperatorSet { domain, version })
            .collect(),
        metadata_props: metadata.map(|(key, value)| proto::Entry { key: named(key), value: value.clone() }).collect(),
    };
    let mut files = vec![(FILE.to_owned(), model.encode_to_vec())];
    files.extend(data.map(|data| (DATA.to_owned(), data)));
    Ok(Written { files, places: lowered.places })
}

/// What the tensors of a graph are seen to have that can be bytes, by the names that its file has for them: the least and the
/// largest value, over all that is given.
///
/// # Errors
/// If it is not written, or not run.
pub fn ranges(graph: &Graph, opset: u32, options: &Options, given: &[Vec<Tensors>]) -> Result<Ranges, Failure> {
    let plain = Options { precision: Precision::F32, ..options.clone() };
    let names = qdq::tensors(&lower::lower(graph, opset, &plain)?);
    let program = Rten::new(&write(graph, opset, &plain)?, true)?;
    let mut seen = Ranges::new();
    let mut see = |name: &str, values: &[f32]| {
        let own = seen.entry(name.to_owned()).or_insert([f32::INFINITY, f32::NEG_INFINITY]);
        *own = values.iter().fold(*own, |[low, high], value| [low.min(*value), high.max(*value)]);
    };
    for inputs in given {
        let (own, made): (Vec<&str>, Vec<&str>) =
            names.iter().map(String::as_str).partition(|name| inputs.iter().any(|input| input.name == *name));
        for input in inputs.iter().filter(|input| own.contains(&&input.name[..])) {
            if let Values::Floats(values) = &input.values {
                see(&input.name, values);
            }
        }
        let values = |input: &Tensors| Value::Given(input.shape.clone(), input.values.clone());
        let inputs = inputs.iter().map(|input| (&input.name[..], values(input))).collect();
        for (name, value) in made.iter().zip(Engine::run(&program, inputs, &made)?) {
            // Sizes are no floats.
            if let Ok((_, values)) = value.floats() {
                see(name, &values);
            }
        }
    }
    // Of what was empty nothing was seen.
    seen.retain(|_, [low, high]| low <= high);
    Ok(seen)
}

/// The key of an entry of the metadata: those that ONNX names itself are as it does (IR.md, "Optional Metadata").
fn named(key: &str) -> String {
    match key {
        AUTHOR | LICENSE => format!("model_{key}"),
        key => key.to_owned(),
    }
}

/// The version of the file's own form that came with an opset.
fn ir_version(opset: u32) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

fn value_info(name: &str, elem_type: i32, shape: &[Dim]) -> proto::ValueInfo {
    let length = |dim: &Dim| match dim {
        Dim::Fixed(number) => proto::Length::Number(*number as i64),
        dim => proto::Length::Name(dim.to_string()),
    };
    let dim = shape.iter().map(|dim| proto::Dimension { length: Some(length(dim)) }).collect();
    let tensor_type = proto::TensorType { elem_type, shape: Some(proto::Shape { dim }) };
    proto::ValueInfo { name: name.to_owned(), r#type: Some(proto::Type { tensor_type: Some(tensor_type) }) }
}
