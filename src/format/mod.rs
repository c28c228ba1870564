//! Readers and writers of file formats; no engine types.

pub mod archive;
pub mod dataset;
pub mod mapping;
pub mod pickle;
pub mod table;
