//! Readers and writers of file formats; no engine types.

pub mod dataset;
pub mod pickle;
