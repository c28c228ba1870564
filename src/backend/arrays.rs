//! Named tensors in memory, as they are read from files and written to them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::qmatrix::QMatrix;

/// A tensor in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Values,
}

/// Values of one of the number types that effai keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 32-bit words: packed weights.
    U32(Vec<u32>),
    /// Bytes with a sign: weights of a row's scale.
    I8(Vec<i8>),
    /// A matrix that stays quantized, [rows, inner].
    Codes(Arc<QMatrix>),
}

impl Array {
    /// An array of floats.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), values: Values::F32(values) }
    }

    /// A matrix that stays quantized.
    pub fn codes(matrix: impl Into<QMatrix>) -> Self {
        let matrix = matrix.into();
        Self { shape: vec![matrix.rows(), matrix.inner()], values: Values::Codes(Arc::new(matrix)) }
    }

    /// Its floats; none of packed words and codes.
    pub fn floats(&self) -> &[f32] {
        match &self.values {
            Values::F32(values) => values,
            Values::U32(_) | Values::I8(_) | Values::Codes(_) => &[],
        }
    }

    /// Its floats, those of codes computed; none of packed words.
    pub fn expanded(&self) -> Cow<'_, [f32]> {
        match &self.values {
            Values::Codes(matrix) => matrix.expand().into(),
            _ => self.floats().into(),
        }
    }
}

/// Named arrays, sorted.
pub type Arrays = BTreeMap<String, Array>;
