//! Labels, dependencies, cycles, selection. Pure: it reads declarations and nothing else.

mod graph;
mod label;
mod table;

pub use graph::{Dependency, Index, Plan, Question, Role, UnknownTarget};
pub use label::Label;
pub use table::{Lists, Texts};
