//! Labels, dependencies, cycles, selection. Pure: it reads declarations and nothing else.

mod graph;
mod inputs;
mod label;
mod select;
mod table;

pub use graph::{Dependency, Index, Plan, Question, Role, file_below};
pub use label::{Label, at_revision, complaint_of_revision, is_implied, resolve, seen_from};
pub use select::UnknownTarget;
pub use table::{Lists, Texts};
