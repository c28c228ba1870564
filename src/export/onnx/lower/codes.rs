//! Matrices and tables that are kept in few bits, and products by them.

use std::sync::Arc;

use super::super::super::graph::{Dim, Id};
use super::super::OnnxError;
use super::super::proto::Node;
use super::{FLOAT, INT8, Lower, MICROSOFT, UINT8, int, ints};
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::backend::int8::Int8;
use crate::backend::qmatrix::{Groups, QMatrix};
use crate::export::view::turned;

/// Weights that share a scale.
const GROUP: usize = 32;

impl Lower<'_> {
    /// The rows of a table, or of what else has several axes, as bytes, and their scales: once for all.
    pub(super) fn table(&mut self, id: Id) -> (String, String) {
        let key = format!("table {id}");
        let value = &self.graph.values[id];
        if let Some(name) = self.made.get(&key) {
            return (name.clone(), format!("{name}.scale"));
        }
        let (name, dims) = (value.name.clone(), value.shape.iter().filter_map(Dim::fixed).collect::<Vec<_>>());
        let inner = dims[1..].iter().product();
        let rounded = Int8::round(value.constant.as_ref().expect("a constant"), inner).0;
        let made = self.rows_of_bytes(name, &dims, &rounded.codes, &rounded.scales);
        self.made.insert(key, made.0.clone());
        made
    }

    /// Codes of this shape, and the scales of what they are rounded by.
    fn rows_of_bytes(&mut self, name: String, dims: &[usize], codes: &[i8], scales: &[f32]) -> (String, String) {
        let codes = self.initializer(name, dims, INT8, bytes(codes));
        let scales =
            self.initializer(format!("{codes}.scale"), &[scales.len()], FLOAT, floats::to_bytes(scales, Float::F32));
        (codes, scales)
    }

    /// Whether weights are many enough, and have rows.
    pub(super) fn is_kept_in_bytes(&self, dims: &[usize], values: &[f32]) -> bool {
        self.keeps_bytes && dims.len() > 1 && values.len() > self.weight_threshold
    }

    /// Whether a table is a constant whose rows are kept in bytes.
    pub(super) fn is_table_of_bytes(&self, id: Id) -> bool {
        let has_many = self.graph.values[id].constant.as_ref().is_some_and(|own| own.len() > self.weight_threshold);
        has_many && (self.has_bytes || self.keeps_bytes)
    }

    /// Codes times their scales, which are in the shape by which they fit. No `DequantizeLinear`: onnxruntime makes of that and a
    /// product one that rounds what is multiplied to bytes as well.
    pub(super) fn expanded_rows(&mut self, codes: &str, scales: &str) -> String {
        let floats = self.cast(codes, FLOAT);
        self.node("Mul", &[&floats, scales])
    }

    /// The scales of what has rows, in a shape of so many axes.
    pub(super) fn of_rows(&mut self, scales: &str, rank: usize) -> String {
        let shape: Vec<i64> = [-1].into_iter().chain(std::iter::repeat_n(1, rank - 1)).collect();
        let shape = self.integers(&shape, false);
        self.node("Reshape", &[scales, &shape])
    }

    /// A matrix [out, inner] as [inner, out], kept in bytes.
    pub(super) fn matrix_of_bytes(&mut self, name: String, weights: &[f32], out: usize, inner: usize) -> String {
        let whole = self.groups_of_bytes(name, &[out, inner], weights);
        self.node_of("Transpose", &[&whole], vec![ints("perm", vec![1, 0])])
    }

    /// The kernel [out, in / groups, k, k] of a convolution.
    pub(super) fn kernel(&mut self, name: String, dims: &[usize], values: &[f32]) -> Result<String, OnnxError> {
        if !self.is_kept_in_bytes(dims, values) {
            return self.floats(name, dims, values);
        }
        Ok(self.groups_of_bytes(name, dims, values))
    }

    /// Weights in bytes with a scale for each group of a row, or for a row where groups do not divide it.
    fn groups_of_bytes(&mut self, name: String, dims: &[usize], values: &[f32]) -> String {
        let inner: usize = dims[1..].iter().product();
        let group = if inner.is_multiple_of(GROUP) { GROUP } else { inner };
        let rounded = Int8::round(values, group).0;
        let shape = [dims[0], inner / group];
        let codes = self.initializer(name, &[shape[0], shape[1], group], INT8, bytes(&rounded.codes));
        let scales = floats::to_bytes(&rounded.scales, Float::F32);
        let scales = self.initializer(format!("{codes}.scale"), &[shape[0], shape[1], 1], FLOAT, scales);
        let whole = self.expanded_rows(&codes, &scales);
        let to: Vec<i64> = dims.iter().map(|n| *n as i64).collect();
        let to = self.integers(&to, false);
        self.node("Reshape", &[&whole, &to])
    }

    /// The codes of a matrix, [rows, groups, group], its scales and its biases, [rows, groups, 1]: once for all.
    pub(super) fn codes(&mut self, matrix: &Arc<QMatrix>, groups: &Groups) -> [String; 3] {
        let key = format!("codes {}", Arc::as_ptr(matrix).addr());
        let names = ["codes", "scales", "biases"].map(|part| format!("{}.{part}", self.own));
        let keys = [0, 1, 2].map(|part| format!("{key} {part}"));
        if let [Some(codes), Some(scales), Some(biases)] = [0, 1, 2].map(|part| self.made.get(&keys[part])) {
            return [codes.clone(), scales.clone(), biases.clone()];
        }
        let (rows, count) = (groups.rows, groups.inner / groups.group);
        let [codes, scales, biases] = names;
        let of = |values: &[f32]| floats::to_bytes(values, Float::F32);
        let made = [
            self.initializer(codes, &[rows, count, groups.group], UINT8, groups.unpacked()),
            self.initializer(scales, &[rows, count, 1], FLOAT, of(&groups.scales)),
            self.initializer(biases, &[rows, count, 1], FLOAT, of(&groups.biases)),
        ];
        for (key, made) in keys.into_iter().zip(&made) {
            self.made.insert(key, made.clone());
        }
        made
    }

    /// `code * scale + bias`, in this shape.
    pub(super) fn expanded(&mut self, codes: &str, scales: &str, biases: &str, shape: &[i64]) -> String {
        let floats = self.cast(codes, FLOAT);
        let scaled = self.node("Mul", &[&floats, scales]);
        let shifted = self.node("Add", &[&scaled, biases]);
        let shape = self.integers(shape, false);
        self.node("Reshape", &[&shifted, &shape])
    }

    /// A product by codes in groups. onnxruntime's operator for 4 bits has a scale for each group, and 8 for the code of zero:
    /// what a group's bias differs from that is multiplied by the sum of what the group reads.
    pub(super) fn product_of_groups(
        &mut self,
        x: &str,
        matrix: &Arc<QMatrix>,
        groups: &Groups,
        rank: usize,
    ) -> Result<String, OnnxError> {
        let &Groups { rows, inner, group, bits, .. } = groups;
        // Of one row alone programs have no such operator: it wants two axes.
        if bits != 4 || !group.is_power_of_two() || rank < 2 {
            let [codes, scales, biases] = self.codes(matrix, groups);
            let key = format!("expanded {codes}");
            let matrix = match self.made.get(&key) {
                Some(made) => made.clone(),
                None => {
                    let floats = self.expanded(&codes, &scales, &biases, &[rows as i64, inner as i64]);
                    self.node_of("Transpose", &[&floats], vec![ints("perm", vec![1, 0])])
                }
            };
            self.made.insert(key, matrix.clone());
            return Ok(self.node("MatMul", &[x, &matrix]));
        }
        let count = inner / group;
        let packed = groups.unpacked().as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4).collect();
        let name = self.own.clone();
        let codes = self.initializer(format!("{name}.codes"), &[rows, count, group / 2], UINT8, packed);
        let scales = floats::to_bytes(&groups.scales, Float::F32);
        let scales = self.initializer(format!("{name}.scales"), &[rows, count], FLOAT, scales);
        let own = [("K", inner), ("N", rows), ("bits", bits), ("block_size", group), ("accuracy_level", 1)];
        let own = own.map(|(name, value)| int(name, value as i64));
        let product = self.node_of("MatMulNBits", &[x, &codes, &scales], own.into());
        self.nodes.last_mut().expect("just written").domain = MICROSOFT.into();
        let rest: Vec<f32> = groups.biases.iter().zip(&groups.scales).map(|(bias, scale)| bias + 8.0 * scale).collect();
        if rest.iter().all(|rest| *rest == 0.0) {
            return Ok(product);
        }
        let key = format!("sums {x} {group}");
        let sums = match self.made.get(&key) {
            Some(made) => made.clone(),
            None => {
                let kept = std::iter::repeat_n(0, rank - 1).chain([count as i64, group as i64]);
                let shape = self.integers(&kept.collect::<Vec<_>>(), false);
                let grouped = self.node("Reshape", &[x, &shape]);
                let last = self.integers(&[-1], false);
                self.node_of("ReduceSum", &[&grouped, &last], vec![int("keepdims", 0)])
            }
        };
        self.made.insert(key, sums.clone());
        let rest = self.floats(format!("{name}.rest"), &[count, rows], &turned(&rest, rows, count))?;
        let shifted = self.node("MatMul", &[&sums, &rest]);
        Ok(self.node("Add", &[&product, &shifted]))
    }

    /// A product whose factors are both rounded to bytes: the rows of the matrix by a scale each, what it multiplies by one
    /// scale for all, found as it comes.
    pub(super) fn product_of_bytes(
        &mut self,
        x: &str,
        weight: Id,
        weights: &[f32],
        inner: usize,
        bias: Option<Id>,
    ) -> Result<String, OnnxError> {
        // What several matrices read is rounded once.
        let key = format!("bytes {x}");
        let parts = ["y", "y_scale", "y_zero_point"].map(|part| format!("{key}/{part}"));
        if !self.made.contains_key(&key) {
            self.made.insert(key.clone(), String::new());
            self.nodes.push(Node {
                input: vec![x.to_owned()],
                output: parts.to_vec(),
                name: key,
                op_type: "DynamicQuantizeLinear".into(),
                ..Node::default()
            });
        }
        let [rounded, scale, zero] = &parts;
        let name = self.graph.values[weight].name.clone();
        let matrix = Int8::round_to_seven_bits(weights, inner);
        let out = matrix.rows;
        let codes = self.initializer(name.clone(), &[inner, out], INT8, bytes(&turned(&matrix.codes, out, inner)));
        let scales = floats::to_bytes(&matrix.scales, Float::F32);
        let scales = self.initializer(format!("{name}.scale"), &[out], FLOAT, scales);
        let sums = self.node("MatMulInteger", &[rounded, &codes, zero]);
        let sums = self.cast(&sums, FLOAT);
        let scale = self.node("Mul", &[scale, &scales]);
        let mut made = self.node("Mul", &[&sums, &scale]);
        if let Some(bias) = bias {
            let bias = self.plain(bias)?;
            made = self.node("Add", &[&made, &bias]);
        }
        Ok(made)
    }
}

fn bytes(codes: &[i8]) -> Vec<u8> {
    codes.iter().map(|code| code.cast_unsigned()).collect()
}
