//! The tensor interface and what stands behind it.
