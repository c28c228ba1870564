//! Readers and writers of file formats; no engine types.

pub mod archive;
pub mod compare;
pub mod dataset;
pub mod difference;
pub mod image;
pub mod junit;
pub mod metrics;
pub mod pickle;
pub mod table;
pub mod template;
pub mod tensors;
pub mod uv_lock;
