//! Fewer bits by what a model sees: rounding that knows the inputs of each matrix.
//!
//! `rtn` needs nothing but the weights ([`crate::backend::affine`]). What is here reads calibration rows: their inputs to a matrix
//! are summed up in its [`gram::Gram`], and no row is needed any more.

pub mod awq;
pub mod budget;
pub mod calibrate;
pub mod fold;
pub mod gptq;
pub mod gram;
pub mod sensitivity;
pub mod smooth;
