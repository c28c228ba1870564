//! The formats of exported models: which precisions each has, who writes it, and what runs it.

use std::collections::BTreeMap;
use std::path::Path;

use super::coreml::{self, Target};
use super::graph::Graph;
use super::onnx;
use super::source::{self, Tensors};
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
    /// All that is computed in bytes, by what was seen of each tensor.
    Int8Calibrated,
    /// Weights in bytes, by groups of 32 of a row where the format can and by rows else, which are made 32-bit floats before
    /// anything is computed.
    Int8Weights,
    /// The same in 4 bits, by groups of a row.
    Int4Weights,
    /// Weights in 16 bits with the range of 32, which are made 32 before anything is computed.
    Bf16,
    /// Weights as numbers of 64 values that each tensor has, which are looked up before anything is computed.
    Palette6Weights,
    /// The same of 16 values.
    Palette4Weights,
    /// Weights that are not zero, and where they are.
    SparseWeights,
    /// Quantized matrices as the model has them, all else in 32 bits.
    Stored,
}

impl Precision {
    const ALL: &[Precision] = &[
        Precision::F32,
        Precision::F16,
        Precision::F16Weights,
        Precision::Int8,
        Precision::Int8Calibrated,
        Precision::Int8Weights,
        Precision::Palette6Weights,
        Precision::Palette4Weights,
        Precision::SparseWeights,
        Precision::Int4Weights,
        Precision::Bf16,
        Precision::Stored,
    ];
    /// Every precision's name.
    pub const NAMES: &[&str] = &[
        "f32",
        "f16",
        "f16-weights",
        "int8",
        "int8-calibrated",
        "int8-weights",
        "palette6-weights",
        "palette4-weights",
        "sparse-weights",
        "int4-weights",
        "bf16",
        "stored",
    ];

    /// The one of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|own| *own == name).map(|at| Self::ALL[at])
    }

    /// Whether weights are kept in 8 bits or fewer, those of large tensors alone.
    pub fn is_of_few_bits(self) -> bool {
        matches!(
            self,
            Precision::Int8
                | Precision::Int8Weights
                | Precision::Palette6Weights
                | Precision::Palette4Weights
                | Precision::SparseWeights
                | Precision::Int4Weights
        )
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

impl Layout {
    /// The shape of so many pictures of a height and a width.
    pub fn shape(self, count: usize, [height, width]: [usize; 2]) -> [usize; 4] {
        match self {
            Layout::ChannelsFirst => [count, 3, height, width],
            Layout::ChannelsLast => [count, height, width, 3],
        }
    }

    /// Pictures in NHWC, of so many pixels each, as they lie.
    pub fn laid<V: Copy>(self, values: &[V], count: usize, pixels: usize) -> Vec<V> {
        match self {
            Layout::ChannelsFirst => source::channels_first(values, count, pixels),
            Layout::ChannelsLast => values.to_vec(),
        }
    }
}

/// A format, with what is chosen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ONNX, of an opset between [`onnx::OLDEST`] and [`onnx::NEWEST`].
    Onnx {
        /// The version of its operators.
        opset: u32,
    },
    /// An ML Program for Core ML.
    CoreMl {
        /// What it runs on at least.
        target: Target,
    },
    /// llama.cpp's file of a language model's weights.
    Gguf,
    /// MLX's safetensors, as mlx-lm loads them.
    Mlx,
    /// Hugging Face's safetensors.
    Safetensors,
    /// TensorFlow Lite, which LiteRT runs.
    TfLite,
}

/// In a file's metadata, what formats have places of their own for: the target's label.
pub const LABEL: &str = "effai.label";
/// Who made the model.
pub const AUTHOR: &str = "author";
/// Under which licence it is.
pub const LICENSE: &str = "license";
/// Which version of it this is.
pub const VERSION: &str = "version";
/// What it is, in a sentence or two.
pub const DESCRIPTION: &str = "description";
/// What the probabilities that it gives are of: a list of them as JSON.
pub const LABELS: &str = "labels";
/// How pictures are prepared before the file is given them: `format::image::Preprocessing` as JSON.
pub const PREPROCESSING: &str = "preprocessing";

/// Fewer weights of a tensor are not worth 16 bits, which are made 32 before they are used.
pub(super) const HALVES_MIN: usize = 256;
/// Weights of a tensor that are too few to be worth fewer bits, as coremltools counts them
/// (`OpLinearQuantizerConfig(weight_threshold)`): of EfficientNet-Lite0 they are a part in 600, and rounded to bytes the first
/// depthwise kernel's 288 alone take the cosine of what it sees to 0.987.
pub const WEIGHT_THRESHOLD: usize = 2048;

/// The least and the largest value of tensors, by their names in a file.
pub type Ranges = BTreeMap<String, [f32; 2]>;

/// How a graph is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Of weights and of what is computed.
    pub precision: Precision,
    /// What the file says of itself, in this order.
    pub metadata: Vec<(String, String)>,
    /// Tokens that the model reads at most, for formats whose files say so; 0 where it reads none.
    pub longest: usize,
    /// Tensors of no more weights stay as they are, of a precision that keeps others in fewer than 16 bits.
    pub weight_threshold: usize,
    /// What was seen of each tensor, of a precision that is calibrated: [`ranges`].
    pub ranges: Ranges,
}

impl Format {
    /// Every format's name.
    pub const NAMES: &[&str] = &["onnx", "coreml", "tflite", "gguf", "mlx", "safetensors"];

    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Format::Onnx { .. } => "onnx",
            Format::CoreMl { .. } => "coreml",
            Format::Gguf => "gguf",
            Format::Mlx => "mlx",
            Format::Safetensors => "safetensors",
            Format::TfLite => "tflite",
        }
    }

    /// Its name among people, with what is chosen of it.
    pub fn title(self) -> String {
        match self {
            Format::Onnx { opset } => format!("ONNX, opset {opset}"),
            Format::CoreMl { target } => format!("Core ML for {} and later", target.title()),
            Format::Gguf => "GGUF".to_owned(),
            Format::Mlx => "safetensors in MLX's layout".to_owned(),
            Format::Safetensors => "safetensors".to_owned(),
            Format::TfLite => "TensorFlow Lite".to_owned(),
        }
    }

    /// The name of the library that runs it, as a model's card has it on the hub.
    pub fn library(self) -> &'static str {
        match self {
            Format::Onnx { .. } => "onnx",
            Format::CoreMl { .. } => "coreml",
            Format::Gguf => "gguf",
            Format::Mlx => "mlx",
            Format::Safetensors => "transformers",
            Format::TfLite => "tflite",
        }
    }

    /// Whether it has a model's weights and none of its operations.
    pub fn is_of_weights(self) -> bool {
        matches!(self, Format::Gguf | Format::Mlx | Format::Safetensors)
    }

    /// What it can be written in.
    pub fn precisions(self) -> &'static [Precision] {
        match self {
            Format::Onnx { .. } => &[
                Precision::F32,
                Precision::F16,
                Precision::F16Weights,
                Precision::Int8,
                Precision::Int8Calibrated,
                Precision::Int8Weights,
                Precision::Stored,
            ],
            Format::CoreMl { .. } => &[
                Precision::F32,
                Precision::F16,
                Precision::F16Weights,
                Precision::Int8Weights,
                Precision::Palette6Weights,
                Precision::Palette4Weights,
                Precision::SparseWeights,
                Precision::Int4Weights,
                Precision::Stored,
            ],
            Format::Gguf => &[Precision::F32, Precision::F16, Precision::Int8Weights, Precision::Int4Weights],
            Format::Mlx => {
                &[Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8Weights, Precision::Int4Weights]
            }
            Format::Safetensors => &[Precision::F32, Precision::F16, Precision::Bf16],
            Format::TfLite => &[
                Precision::F32,
                Precision::F16Weights,
                Precision::Int8,
                Precision::Int8Calibrated,
                Precision::Int8Weights,
                Precision::Stored,
            ],
        }
    }

    /// How it is given pictures.
    pub fn layout(self) -> Layout {
        match self {
            Format::TfLite => Layout::ChannelsLast,
            _ => Layout::ChannelsFirst,
        }
    }

    /// Positions that a language model's caches hold at least: where no tensor is empty, a prompt comes after one that is
    /// masked.
    pub fn least_past(self) -> usize {
        match self {
            Format::CoreMl { .. } => 1,
            _ => 0,
        }
    }

    /// The package by which an environment runs its files, where there is one.
    pub fn package(self) -> Option<&'static str> {
        match self {
            Format::Onnx { .. } => Some("onnxruntime"),
            Format::TfLite => Some("ai-edge-litert"),
            _ => None,
        }
    }

    /// The same as [`Format::least_past`], of caches of any number that an environment's program is given.
    pub fn least_past_in_environment(self) -> usize {
        match self {
            Format::TfLite => tflite::LEAST_PAST,
            _ => self.least_past(),
        }
    }

    /// The name of an input or output in a file.
    pub fn names(self, name: &str) -> String {
        match self {
            Format::CoreMl { .. } => coreml::identifier(name),
            _ => name.to_owned(),
        }
    }
}

/// Writes a graph.
pub fn write(graph: &Graph, options: &Options) -> Result<Written, Failure> {
    match options.format {
        Format::Onnx { opset } => Ok(onnx::write(graph, opset, options)?),
        Format::CoreMl { target } => Ok(coreml::write(graph, target, options)?),
        Format::Gguf | Format::Mlx | Format::Safetensors => unreachable!("weights alone have no graph"),
        Format::TfLite => Ok(tflite::write(graph, options)?),
    }
}

/// What the tensors of a graph are seen to have, in a format that can be calibrated.
pub fn ranges(graph: &Graph, options: &Options, given: &[Vec<Tensors>]) -> Result<Ranges, Failure> {
    match options.format {
        Format::Onnx { opset } => onnx::ranges(graph, opset, options, given),
        _ => tflite::ranges(graph, options, given),
    }
}

/// A file as what runs it; `is_whole` keeps every tensor that it names.
pub fn open(written: &Written, format: Format, is_whole: bool) -> Result<Box<dyn Program>, Failure> {
    match format {
        Format::Onnx { .. } => Ok(Box::new(onnx::Rten::new(written, is_whole)?)),
        Format::CoreMl { .. } => Ok(Box::new(coreml::Evaluator::new(written)?)),
        Format::Gguf | Format::Mlx | Format::Safetensors => unreachable!("weights alone are opened as a model"),
        Format::TfLite => Ok(Box::new(tflite::Evaluator::new(written, is_whole)?)),
    }
}

/// A file as the program of an environment runs it; `is_whole` keeps every tensor that it names, where the program can.
pub fn open_in_environment(
    written: &Written,
    format: Format,
    is_whole: bool,
    environment: &Path,
) -> Result<Box<dyn Program>, Failure> {
    match format {
        Format::Onnx { .. } => Ok(Box::new(onnx::Onnxruntime::new(written, is_whole, environment)?)),
        Format::TfLite => Ok(Box::new(tflite::LiteRt::new(written, environment)?)),
        format => unreachable!("no environment runs `{}`", format.name()),
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
        _ => Ok(None),
    }
}
