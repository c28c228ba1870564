//! Labels, dependencies, cycles, selection. Pure: it reads declarations and nothing else.

mod graph;
mod label;
mod table;

pub use graph::{Dependency, Index, Plan, Question, Role, UnknownTarget, file_below};
pub use label::{Label, resolve, seen_from};
pub use table::{Lists, Texts};
