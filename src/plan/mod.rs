//! Labels, dependencies, cycles, selection. Pure: it reads declarations and nothing else.

mod graph;
mod label;

pub use graph::{Dependency, Index, Plan, Role, Target, UnknownTarget};
pub use label::Label;
