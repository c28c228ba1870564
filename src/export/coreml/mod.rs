//! Core ML packages: an ML Program as coremltools writes it, <https://apple.github.io/coremltools/>.
//!
//! The graph's operations become those of MIL, Core ML's own language; every argument is an operation `const`, as there. A
//! convolution is NCHW there: see [`super::onnx`] for how layouts are settled. Weights lie in a file of their own.
//!
//! Equal graphs give equal bytes: the identifiers in the package's manifest are digests of what they name.

mod attend;
mod blob;
mod classify;
mod compress;
mod lower;
mod proto;
mod run;
mod state;

use std::collections::BTreeMap;

use prost::Message;
use serde_json::json;

use super::format::{AUTHOR, DESCRIPTION, LICENSE, Options, Precision, VERSION};
use super::graph::{Dim, Element, Graph, Symbol};
use super::written::Written;
use crate::failure::Failure;

pub(super) use run::Evaluator;

/// The directory that is the package.
pub const PACKAGE: &str = "model.mlpackage";
const MANIFEST: &str = "model.mlpackage/Manifest.json";
const MODEL: &str = "model.mlpackage/Data/com.apple.CoreML/model.mlmodel";
const WEIGHTS: &str = "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin";
/// The name of [`WEIGHTS`] in a program.
const WEIGHTS_IN_PROGRAM: &str = "@model_path/weights/weight.bin";
/// The only function.
const MAIN: &str = "main";

/// Core ML's numbers of what arrays consist of.
const ARRAY_OF_FLOATS: i32 = 65568;
const ARRAY_OF_INTS: i32 = 131_104;
const ARRAY_OF_HALVES: i32 = 65552;

/// Core ML's number of a colour space (`ImageFeatureType.ColorSpace` of FeatureTypes.proto).
const RGB: i32 = 20;

/// Texts or pictures at most that a file takes at a time: a range has to end.
const BATCH_MAX: usize = 64;

/// What a package runs on at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Of Model.proto: 6 came with iOS 15, each year brought the next.
    specification: i32,
}

impl Target {
    /// Every target's name.
    pub const NAMES: &[&str] = &["iOS15", "iOS16", "iOS17", "iOS18", "macOS12", "macOS13", "macOS14", "macOS15"];

    /// Plain operators.
    pub const IOS15: Self = Self { specification: 6 };
    /// Weights in bytes, palettes, without zeros.
    pub const IOS16: Self = Self { specification: 7 };
    /// Weights by blocks, codes of 4 bits, state.
    pub const IOS18: Self = Self { specification: 9 };

    /// The one of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|own| *own == name)?;
        Some(Self { specification: 6 + (at % 4) as i32 })
    }

    /// Its names.
    pub fn title(self) -> String {
        let year = self.specification;
        format!("iOS {} and macOS {}", year + 9, year + 6)
    }

    /// The least that has the operators of a precision; none where no target has.
    pub fn least(precision: Precision) -> Option<Self> {
        match precision {
            Precision::F32 | Precision::F16 => Some(Self::IOS15),
            Precision::F16Weights | Precision::Int8Weights => Some(Self::IOS16),
            Precision::Palette6Weights | Precision::Palette4Weights | Precision::SparseWeights => Some(Self::IOS16),
            Precision::Int4Weights | Precision::Stored => Some(Self::IOS18),
            Precision::Int8 | Precision::Int8Calibrated | Precision::Bf16 => None,
        }
    }

    /// The set of operators.
    fn opset(self) -> String {
        format!("CoreML{}", self.specification - 1)
    }
}

/// A graph that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CoremlError {
    /// An operation that is written only together with another.
    #[error("Core ML has no operator for `{op}` of `{name}`: {why}")]
    NoOperator {
        /// The operation.
        op: &'static str,
        /// The value.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A matrix whose inputs are rounded too, row by row.
    #[error("Core ML has no operator for `linear-quantized` of `{0}`, whose inputs are rounded row by row")]
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

impl CoremlError {
    /// The next step.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoOperator { .. } | Self::NoSize(_) => "export it in another format",
            Self::RoundsInputs(_) => "export the model that it was made of, with precision \"int8-weights\"",
            Self::TooLarge { .. } => "write precision \"f32\"",
        }
    }
}

impl From<CoremlError> for Failure {
    fn from(error: CoremlError) -> Self {
        Failure::target(error.to_string()).help(error.help())
    }
}

/// Writes a graph.
pub fn write(graph: &Graph, target: Target, options: &Options) -> Result<Written, CoremlError> {
    let lowered = lower::lower(graph, target, options)?;
    // No tensor is empty in Core ML: what was read before is one position at least, if a masked one, where it is given.
    let least_past = usize::from(graph.state.is_none());
    let input = graph.inputs.iter().map(|input| {
        let data_type = match input.element {
            Element::Float if state::is_scores(graph, &input.name) => ARRAY_OF_HALVES,
            Element::Float => ARRAY_OF_FLOATS,
            Element::Integer => ARRAY_OF_INTS,
            Element::Bytes(_) => return picture(&input.name, &input.shape),
        };
        let ranges: Vec<[usize; 2]> = input.shape.iter().map(|dim| range(dim, options.longest, least_past)).collect();
        let size_ranges = ranges
            .iter()
            .map(|[least, most]| proto::SizeRange { lower_bound: *least as u64, upper_bound: *most as i64 });
        let array = proto::Array {
            shape: ranges.iter().map(|[least, _]| *least as i64).collect(),
            data_type,
            shape_range: Some(proto::ShapeRange { size_ranges: size_ranges.collect() }),
        };
        feature(&input.name, proto::FeatureKind::Array(array))
    });
    let output = graph.outputs.iter().map(|(name, _)| {
        let array = proto::Array { shape: Vec::new(), data_type: ARRAY_OF_FLOATS, shape_range: None };
        feature(name, proto::FeatureKind::Array(array))
    });
    let description = proto::Description {
        input: input.collect(),
        output: output.collect(),
        state: state::features(graph),
        metadata: Some(metadata(&options.metadata)),
        ..Default::default()
    };
    let description = classify::described(graph, description);
    let function = proto::Function {
        inputs: lowered.inputs,
        opset: target.opset(),
        block_specializations: BTreeMap::from([(
            target.opset(),
            proto::Block { outputs: lowered.outputs, operations: lowered.operations },
        )]),
    };
    let model = proto::Model {
        specification_version: target.specification,
        description: Some(description),
        ml_program: Some(proto::Program { version: 1, functions: BTreeMap::from([(MAIN.to_owned(), function)]) }),
    };
    let (model, weights) = (model.encode_to_vec(), lowered.weights);
    let manifest = manifest(&model, &weights);
    let files = vec![(MODEL.to_owned(), model), (WEIGHTS.to_owned(), weights), (MANIFEST.to_owned(), manifest)];
    Ok(Written { files, places: lowered.places })
}

/// How long an axis may be: from, to. At least so many tokens were read before.
fn range(dim: &Dim, longest: usize, least_past: usize) -> [usize; 2] {
    match dim {
        Dim::Fixed(length) => [*length, *length],
        Dim::Product(1, symbols) if symbols == &["batch"] => [1, BATCH_MAX],
        Dim::Product(..) => [1, longest.max(1)],
        Dim::Sum(symbols) => {
            let least = symbols.len() - 1 + least_past;
            [least, longest.max(least)]
        }
    }
}

fn feature(name: &str, kind: proto::FeatureKind) -> proto::Feature {
    proto::Feature {
        name: identifier(name),
        short_description: String::new(),
        r#type: Some(proto::FeatureType { kind: Some(kind) }),
    }
}

/// One picture: the program is given its values of 0 to 255 as floats [1, 3, height, width].
fn picture(name: &str, shape: &[Dim]) -> proto::Feature {
    let length = |axis: usize| shape[axis].fixed().expect("pictures are of one size") as i64;
    let image = proto::Image { width: length(3), height: length(2), color_space: RGB };
    feature(name, proto::FeatureKind::Image(image))
}

/// What has a field of its own, and all else as the user's own.
fn metadata(all: &[(String, String)]) -> proto::Metadata {
    let mut made = proto::Metadata::default();
    for (key, value) in all {
        match &key[..] {
            LICENSE => made.license.clone_from(value),
            AUTHOR => made.author.clone_from(value),
            VERSION => made.version.clone_from(value),
            DESCRIPTION => made.short_description.clone_from(value),
            _ => {
                made.user_defined.insert(key.clone(), value.clone());
            }
        }
    }
    made
}

/// A name as MIL has them, letters, digits and `_`: what coremltools' `NameSanitizer` makes of it.
pub fn identifier(name: &str) -> String {
    let made: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if made.starts_with(|c: char| c.is_ascii_alphabetic()) { made } else { format!("var_{made}") }
}

/// The package's table of contents.
fn manifest(model: &[u8], weights: &[u8]) -> Vec<u8> {
    let id = |bytes: &[u8]| {
        let hex = blake3::hash(bytes).to_hex();
        let part = |from: usize, to: usize| &hex[from..to];
        [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
    };
    // The model names the weights' places only: both are of both.
    let own = id(&[blake3::hash(model).as_bytes(), &blake3::hash(weights).as_bytes()[..]].concat());
    let of_weights = id(weights);
    let manifest = json!({
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            own.as_str(): {
                "author": "com.apple.CoreML",
                "description": "CoreML Model Specification",
                "name": "model.mlmodel",
                "path": "com.apple.CoreML/model.mlmodel",
            },
            of_weights.as_str(): {
                "author": "com.apple.CoreML",
                "description": "CoreML Model Weights",
                "name": "weights",
                "path": "com.apple.CoreML/weights",
            },
        },
        "rootModelIdentifier": own.as_str(),
    });
    serde_json::to_vec_pretty(&manifest).expect("plain")
}
