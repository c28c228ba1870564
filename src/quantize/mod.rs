//! Fewer bits by what a model sees: what its matrices read, and what rounding them does to it.
//!
//! `rtn` needs nothing but the weights ([`crate::backend::affine`]). What is here runs the model over calibration rows: their inputs
//! to a matrix are summed up in its [`crate::backend::gram::Gram`], and no row is needed any more. What is computed from the two
//! is the backend's.

pub mod budget;
pub mod calibrate;
pub mod fold;
pub mod sensitivity;
