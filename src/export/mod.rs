//! Models as files that other programs run: the graph of a model, its writers, and the check of what was written.
//!
//! ```text
//! model code -> backend::trace -> graph -> a writer -> verify
//! ```
//!
//! A writer knows the graph and its format, and no model. What a format has no operator for is expanded where it is
//! written; what it cannot carry is refused by the operator's name.

pub mod coreml;
mod engine;
pub mod format;
pub mod graph;
mod grid;
pub mod labels;
pub mod onnx;
pub mod opened;
pub mod source;
pub mod tflite;
pub mod verify;
mod view;
pub mod weights;
pub mod written;

#[cfg(test)]
mod tests;
