//! The formats of exported models: which precisions each has, who writes it, and what runs it.

use super::graph::Graph;
use super::onnx;
use super::tflite;
use super::written::{Program, Written};
use crate::failure::Failure;

/// In what numbers a file computes and its weights are kept. Which of them a format has: [`Format::precisions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits; what goes in and comes out has 32.
    F16,
    /// Weights in 16 bits, which are made 32 before anything is computed.
    F16Weights,
    /// Matrices in bytes, and what they multiply rounded to bytes as it comes; all else in 32 bits.
    Int8,
    /// Weights in bytes by rows, which are made 32-bit floats before anything is computed.
    Int8Weights,
    /// Quantized matrices as the model has them, all else in 32 bits.
    Stored,
}

impl Precision {
    const ALL: &[Precision] = &[
        Precision::F32,
        Precision::F16,
        Precision::F16Weights,
        Precision::Int8,
        Precision::Int8Weights,
        Precision::Stored,
    ];
    /// Every precision's name.
    pub const NAMES: &[&str] = &["f32", "f16", "f16-weights", "int8", "int8-weights", "stored"];

    /// The one of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|own| *own == name).map(|at| Self::ALL[at])
    }

    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        let at = Self::ALL.iter().position(|own| *own == self).expect("all are there");
        Self::NAMES[at]
    }
}

/// How pictures lie, in what a file is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// NCHW.
    ChannelsFirst,
    /// NHWC.
    ChannelsLast,
}

/// A format, with what is chosen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ONNX, of an opset between [`onnx::OLDEST`] and [`onnx::NEWEST`].
    Onnx {
        /// The version of its operators.
        opset: u32,
    },
    /// TensorFlow Lite, which LiteRT runs.
    TfLite,
}

/// How a graph is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Of weights and of what is computed.
    pub precision: Precision,
    /// What the file says of itself, in this order.
    pub metadata: Vec<(String, String)>,
}

impl Format {
    /// Every format's name.
    pub const NAMES: &[&str] = &["onnx", "tflite"];

    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Format::Onnx { .. } => "onnx",
            Format::TfLite => "tflite",
        }
    }

    /// Its name among people, with what is chosen of it.
    pub fn title(self) -> String {
        match self {
            Format::Onnx { opset } => format!("ONNX, opset {opset}"),
            Format::TfLite => "TensorFlow Lite".to_owned(),
        }
    }

    /// The name of the library that runs it, as a model's card has it on the hub.
    pub fn library(self) -> &'static str {
        match self {
            Format::Onnx { .. } => "onnx",
            Format::TfLite => "tflite",
        }
    }

    /// What it can be written in.
    pub fn precisions(self) -> &'static [Precision] {
        match self {
            Format::Onnx { .. } => Precision::ALL,
            Format::TfLite => &[Precision::F32, Precision::F16Weights, Precision::Int8],
        }
    }

    /// How it is given pictures.
    pub fn layout(self) -> Layout {
        match self {
            Format::Onnx { .. } => Layout::ChannelsFirst,
            Format::TfLite => Layout::ChannelsLast,
        }
    }
}

/// Writes a graph.
pub fn write(graph: &Graph, options: &Options) -> Result<Written, Failure> {
    match options.format {
        Format::Onnx { opset } => Ok(onnx::write(graph, opset, options)?),
        Format::TfLite => Ok(tflite::write(graph, options)?),
    }
}

/// A file as what runs it; `is_whole` keeps every tensor that it names.
pub fn open(written: &Written, format: Format, is_whole: bool) -> Result<Box<dyn Program>, Failure> {
    match format {
        Format::Onnx { .. } => Ok(Box::new(onnx::Rten::new(written, is_whole)?)),
        Format::TfLite => Ok(Box::new(tflite::Evaluator::new(written, is_whole)?)),
    }
}

/// What is run in a file's place, where its program lacks what it computes in: the same operators and weights in 32 bits,
/// and what a record says of it.
pub fn twin(graph: &Graph, options: &Options) -> Result<Option<(Written, &'static str)>, Failure> {
    match (options.format, options.precision) {
        // rten has no floats of 16 bits.
        (Format::Onnx { .. }, Precision::F16 | Precision::F16Weights) => {
            let options = Options { precision: Precision::F32, ..options.clone() };
            Ok(Some((write(&graph.rounded_to_halves(), &options)?, "with the weights of 16 bits in 32")))
        }
        (Format::Onnx { .. } | Format::TfLite, _) => Ok(None),
    }
}
