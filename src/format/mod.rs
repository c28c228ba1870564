//! Readers and writers of file formats; no engine types.
