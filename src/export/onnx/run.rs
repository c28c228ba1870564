//! ONNX files run in this process: by rten, which is part of it, or by onnxruntime, whose library an environment has.

mod onnxruntime;
mod rten;

pub(in crate::export) use onnxruntime::{Onnxruntime, floats as onnxruntime_floats};
pub(in crate::export) use rten::{PROGRAM as RTEN, Rten, floats as rten_floats};
