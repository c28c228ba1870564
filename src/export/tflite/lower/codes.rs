//! Matrices that a model has in affine codes already, as it has them.

use std::sync::Arc;

use super::super::TfLiteError;
use super::super::schema::{self, Kind};
use super::{Lower, fixed};
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::backend::qmatrix::{Groups, QMatrix};
use crate::export::graph::Dim;

/// A matrix in affine codes as tensors of a file have it: `scale * code + bias`, of codes around zero.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    /// Of all rows, one after the other.
    buffer: usize,
    kind: Kind,
    /// [rows, groups]
    scales: Vec<f32>,
    /// [rows, groups]
    biases: Vec<f32>,
}

impl Codes {
    /// Without their buffer: the bytes that are to be in it.
    fn of(groups: &Groups) -> (Vec<u8>, Self) {
        let middle = 1u8 << (groups.bits - 1);
        let mut codes = groups.unpacked();
        let mut scales = groups.scales.clone();
        for (codes, scale) in codes.chunks_exact_mut(groups.group).zip(&mut scales) {
            // Programs take no scale of zero; of such a group nothing but the bias is left.
            if *scale == 0.0 {
                codes.fill(middle);
                *scale = 1.0;
            }
            codes.iter_mut().for_each(|code| *code = code.wrapping_sub(middle));
        }
        let of_middle = groups.scales.iter().map(|scale| f32::from(middle) * scale);
        let biases = groups.biases.iter().zip(of_middle).map(|(bias, of_middle)| bias + of_middle).collect();
        let (kind, codes) = match groups.bits {
            8 => (Kind::Int8, codes),
            // Two to a byte, the first in its low half.
            _ => {
                let pairs = codes.as_chunks::<2>().0.iter();
                (Kind::Int4, pairs.map(|[first, second]| first & 0xf | second << 4).collect())
            }
        };
        (codes, Self { buffer: usize::MAX, kind, scales, biases })
    }
}

impl Lower<'_> {
    /// The codes of a matrix: in the file once for all who need them.
    fn codes_of(&mut self, matrix: &Arc<QMatrix>, groups: &Groups) -> Codes {
        let key = Arc::as_ptr(matrix).addr();
        if let Some(made) = self.stored.get(&key) {
            return made.clone();
        }
        let (bytes, codes) = Codes::of(groups);
        let made = Codes { buffer: self.buffer(bytes), ..codes };
        self.stored.insert(key, made.clone());
        made
    }

    /// A matrix [rows, inner] of its codes. What has scales of its own for each entry of an axis a program makes floats once;
    /// what is added, where it is not zero, at each run.
    pub(super) fn matrix_of_groups(&mut self, matrix: &Arc<QMatrix>, groups: &Groups) -> Result<String, TfLiteError> {
        let key = format!("matrix {}", Arc::as_ptr(matrix).addr());
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let codes = self.codes_of(matrix, groups);
        let (name, count) = (self.own.clone(), codes.scales.len());
        let dims = [count, groups.group];
        let made = self.tensor_of(format!("{name}.codes"), codes.kind, fixed(&dims), Some(codes.buffer));
        let at = self.at[&made];
        self.tensors[at].scales = Some((codes.scales, 0));
        let mut made = self.node(schema::DEQUANTIZE, &[&made], Vec::new(), Kind::Float32, fixed(&dims));
        self.of_version(if codes.kind == Kind::Int4 { 6 } else { 5 });
        if codes.biases.iter().any(|bias| *bias != 0.0) {
            let biases = self.floats(format!("{name}.biases"), &[count, 1], &codes.biases)?;
            made = self.join(schema::ADD, &made, &biases);
        }
        let made = self.reshaped(&made, &fixed(&[groups.rows, groups.inner]))?;
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// Rows of a table in codes.
    pub(super) fn embedded_codes(
        &mut self,
        matrix: &Arc<QMatrix>,
        groups: &Groups,
        ids: &str,
        shape: &[Dim],
    ) -> Result<String, TfLiteError> {
        let codes = self.codes_of(matrix, groups);
        let (name, count) = (self.own.clone(), groups.inner / groups.group);
        let dims = fixed(&[groups.rows, count, groups.group]);
        let table = self.tensor_of(format!("{name}.codes"), codes.kind, dims, Some(codes.buffer));
        let of_groups = [groups.rows, count, 1];
        let rows = self.gathered(&table, ids, 0, 0);
        let floats = self.cast(&rows, Kind::Float32);
        let mut made = floats;
        for (part, values, code) in [("scales", &codes.scales, schema::MUL), ("biases", &codes.biases, schema::ADD)] {
            let buffer = self.buffer(floats::to_bytes(values, Float::F32));
            let of_all = self.tensor_of(format!("{name}.{part}"), Kind::Float32, fixed(&of_groups), Some(buffer));
            let of_rows = self.gathered(&of_all, ids, 0, 0);
            made = self.join(code, &made, &of_rows);
        }
        self.reshaped(&made, shape)
    }
}
