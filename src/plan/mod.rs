//! Labels, dependencies, cycles, selection. Pure.

mod label;

pub use label::Label;
