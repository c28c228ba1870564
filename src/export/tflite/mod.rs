//! TensorFlow Lite files, which LiteRT runs: <https://ai.google.dev/edge/litert>.
//!
//! The graph's operations become TensorFlow Lite's built-in ones; what has no operator there is expanded. Pictures are NHWC
//! here and there. A size that is open is -1 in a tensor's signature: who runs the file resizes its inputs, and shapes
//! that need several open sizes are computed of the inputs' own.
//!
//! Equal graphs give equal bytes: nothing is written that is not the model's.

mod about;
mod flat;
mod full;
mod lower;
mod run;
mod schema;

use super::format::{Options, Precision, Ranges};
use super::graph::{Dim, Graph, Symbol};
use super::source::Tensors;
use super::written::Written;
use crate::failure::Failure;

pub(super) use run::{Evaluator, LEAST_PAST, Lent, LiteRt};

/// The file of a model.
pub const FILE: &str = "model.tflite";
/// More bytes than so many are no offset of a FlatBuffer that all readers take.
const FILE_MAX: usize = i32::MAX as usize - (1 << 20);

/// A graph that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TfLiteError {
    /// An operation that is written only together with another, or not at all.
    #[error("TensorFlow Lite has no operator for `{op}` of `{name}`: {why}")]
    NoOperator {
        /// The operation.
        op: &'static str,
        /// The value.
        name: String,
        /// Why not.
        why: &'static str,
    },
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
    /// A tensor whose bytes stand for nothing.
    #[error("`{0}` was not computed where the ranges of values were looked for")]
    NotSeen(String),
    /// More than a file holds.
    #[error("the weights are {} MB, and a TensorFlow Lite file holds 2,147 at most", .0 / 1_000_000)]
    TooMany(usize),
}

impl TfLiteError {
    /// The next step.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoOperator { why: full::NO_KERNEL | full::CONSTANT, .. } => {
                "write precision \"int8\", which rounds what matrices multiply as it comes"
            }
            Self::NoOperator { .. } | Self::NoSize(_) | Self::NotSeen(_) => "export it in another format",
            Self::TooLarge { .. } => "write precision \"f32\"",
            Self::TooMany(_) => "write precision \"f16-weights\" or \"int8\", or export it in another format",
        }
    }
}

impl From<TfLiteError> for Failure {
    fn from(error: TfLiteError) -> Self {
        Failure::target(error.to_string()).help(error.help())
    }
}

/// Writes a graph.
pub fn write(graph: &Graph, options: &Options) -> Result<Written, TfLiteError> {
    let mut lowered = lower::lower(graph, options)?;
    if options.precision == Precision::Int8Calibrated {
        lowered = full::full(lowered, &options.ranges)?;
    }
    let bytes = lowered.buffers.iter().map(Vec::len).sum();
    if bytes > FILE_MAX {
        return Err(TfLiteError::TooMany(bytes));
    }
    let places = std::mem::take(&mut lowered.places);
    let mut file = schema::file(lowered, &options.metadata, &graph.labels);
    if !graph.labels.is_empty() {
        file = about::with_labels(file, &graph.labels);
    }
    Ok(Written { files: vec![(FILE.to_owned(), file)], places })
}

/// The least and the largest value of each tensor of a graph's file in 32 bits, over all that is given.
///
/// # Errors
/// If it is not written, or not run.
pub fn ranges(graph: &Graph, options: &Options, given: &[Vec<Tensors>]) -> Result<Ranges, Failure> {
    let plain = Options { precision: Precision::F32, ..options.clone() };
    let program = Evaluator::new(&write(graph, &plain)?, false)?;
    let mut seen = Ranges::new();
    for inputs in given {
        program.see(inputs, &mut seen)?;
    }
    Ok(seen)
}

/// The number that stands for a length before an input is resized: all sizes that are open are 1.
fn length(dim: &Dim) -> i32 {
    let number = match dim {
        Dim::Fixed(number) => *number,
        Dim::Product(factor, _) => *factor,
        Dim::Sum(symbols) => symbols.len(),
    };
    i32::try_from(number).expect("a tensor of less than 2 GB")
}
