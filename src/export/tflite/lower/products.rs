//! Products: matrices, convolutions, tables, in the numbers that their weights are kept in.

use super::super::TfLiteError;
use super::super::schema::{self, Kind, SAME, VALID};
use super::{Lower, Written, byte, fixed, int};
use crate::backend::Window;
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::backend::int8::Int8;
use crate::export::graph::{Dim, Id, Value};
use crate::export::view::{Seen, View, turned, zeros_after};

impl Lower<'_> {
    /// A product of matrices, of the second as it is or turned.
    pub(super) fn product(&mut self, a: &str, b: &str, is_turned: bool) -> Result<String, TfLiteError> {
        let (left, right) = (self.shape_of(a), self.shape_of(b));
        let (rows, columns) = (left.len() - 2, right.len() - if is_turned { 2 } else { 1 });
        let mut shape = super::together(&left[..rows], &right[..right.len() - 2]);
        shape.extend([left[rows].clone(), right[columns].clone()]);
        // Of a tensor by itself XNNPACK gives the product by the turned one.
        let own = if a == b { self.reshaped(b, &right)? } else { b.to_owned() };
        Ok(self.node(schema::BATCH_MATMUL, &[a, &own], vec![byte(1, u8::from(is_turned))], Kind::Float32, shape))
    }

    /// Whether weights are many enough to be kept in bytes.
    fn is_kept_in_bytes(&self, values: &[f32]) -> bool {
        self.has_bytes && values.len() > self.weight_threshold
    }

    /// The rows of a constant, each of what lies beyond its first axis, as bytes with a scale each: once for all who need
    /// them. -> its codes' buffer, and its scales.
    fn bytes_of(&mut self, id: Id) -> (usize, Vec<f32>) {
        if let Some(made) = self.rounded.get(&id) {
            return made.clone();
        }
        let values = self.constant(id).expect("a constant");
        let inner = self.dims(id)[1..].iter().product();
        let rounded = Int8::round(&values, inner).0;
        let made = (self.buffer(bytes(&rounded.codes)), above_zero(rounded.scales));
        self.rounded.insert(id, made.clone());
        made
    }

    /// Weights whose rows are what comes out, in this shape of the same order.
    fn weights(&mut self, id: Id, dims: &[usize]) -> Result<String, TfLiteError> {
        let key = format!("weights {id} {dims:?}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let (name, values) = (self.graph.values[id].name.clone(), self.constant(id).expect("a constant"));
        let made = if self.is_kept_in_bytes(&values) {
            let (buffer, scales) = self.bytes_of(id);
            self.codes(name, dims, buffer, scales, 0)
        } else if *dims == self.dims(id)[..] {
            // Who else needs it has the same.
            self.plain(id)?
        } else {
            self.floats(name, dims, &values)?
        };
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// Codes with a scale for each entry of an axis, as the operators are given them.
    fn codes(&mut self, name: String, dims: &[usize], buffer: usize, scales: Vec<f32>, axis: usize) -> String {
        let made = self.tensor_of(name, Kind::Int8, fixed(dims), Some(buffer));
        let at = self.at[&made];
        self.tensors[at].scales = Some((scales, axis));
        if !self.expands_bytes {
            return made;
        }
        let own = std::mem::replace(&mut self.own, made.clone());
        let floats = self.node(schema::DEQUANTIZE, &[&made], Vec::new(), Kind::Float32, fixed(dims));
        self.of_version(5);
        self.own = own;
        floats
    }

    /// Rows of a table.
    pub(super) fn embedded(&mut self, table: Id, ids: &str) -> Result<String, TfLiteError> {
        let is_kept = self.constant(table).is_some_and(|values| self.is_kept_in_bytes(&values));
        if !is_kept {
            let table = self.plain(table)?;
            return Ok(self.gathered(&table, ids, 0, 0));
        }
        // Rows of bytes are taken, and made floats.
        let (buffer, scales) = self.bytes_of(table);
        let (name, dims) = (self.graph.values[table].name.clone(), self.dims(table));
        let codes = self.tensor_of(format!("{name}.codes"), Kind::Int8, fixed(&dims), Some(buffer));
        let own = self.buffer(floats::to_bytes(&scales, Float::F32));
        // Of one entry each: a product goes along the rows.
        let of_rows: Vec<usize> = dims.iter().enumerate().map(|(axis, n)| if axis == 0 { *n } else { 1 }).collect();
        let scales = self.tensor_of(format!("{name}.scale"), Kind::Float32, fixed(&of_rows), Some(own));
        let codes = self.gathered(&codes, ids, 0, 0);
        let scales = self.gathered(&scales, ids, 0, 0);
        let floats = self.cast(&codes, Kind::Float32);
        Ok(self.join(schema::MUL, &floats, &scales))
    }

    pub(super) fn linear(&mut self, value: &Value) -> Result<Written, TfLiteError> {
        let &[x, weight, ..] = &value.inputs[..] else { unreachable!("a product has two inputs") };
        let bias = value.inputs.get(2).copied();
        if self.constant(weight).is_none() {
            if self.graph.values[x].shape.len() < 2 {
                let why = "of what has one axis there are products by constants alone";
                return Err(TfLiteError::NoOperator { op: "linear", name: value.name.clone(), why });
            }
            let (x, matrix) = (self.plain(x)?, self.plain(weight)?);
            let mut made = self.product(&x, &matrix, true)?;
            if let Some(bias) = bias {
                let bias = self.plain(bias)?;
                made = self.join(schema::ADD, &made, &bias);
            }
            return Ok(Written::Seen(Seen::plain(made, value.shape.clone())));
        }
        let &[out, inner] = &self.dims(weight)[..] else { unreachable!("a matrix has two axes") };
        if let Written::Windows(of, window) = self.values[x] {
            let (size, c) = (window.size, inner / (window.size * window.size));
            let kernel = self.weights(weight, &[out, size, size, c])?;
            let made = self.convolution(of, &kernel, bias, window, out)?;
            return Ok(Written::Seen(made.seen(View::Reshape(value.shape.clone()))));
        }
        if let [_, h, w, _] = &self.graph.values[x].shape[..]
            && let (Some(out_h), Some(out_w)) = (h.fixed(), w.fixed())
        {
            let kernel = self.weights(weight, &[out, 1, 1, inner])?;
            let window = Window { size: 1, stride: 1, before: 0, out_h, out_w };
            return Ok(Written::Seen(self.convolution(x, &kernel, bias, window, out)?));
        }
        let x = self.plain(x)?;
        let matrix = self.weights(weight, &[out, inner])?;
        let bias = bias.map(|bias| self.plain(bias)).transpose()?;
        let made = self.fully_connected(&x, &matrix, bias.as_deref().unwrap_or_default(), &value.shape);
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }

    /// A product by the rows of a matrix; a bias without a name is none.
    pub(super) fn fully_connected(&mut self, x: &str, matrix: &str, bias: &str, shape: &[Dim]) -> String {
        let is_bytes = self.of(matrix).kind == Kind::Int8;
        // Axes stay as they are (`keep_num_dims`); inputs are rounded between their least and largest, row by row.
        let mut options = vec![byte(2, 1)];
        if is_bytes {
            options.push(byte(3, 1));
        }
        let made = self.node(schema::FULLY_CONNECTED, &[x, matrix, bias], options, Kind::Float32, shape.to_vec());
        self.of_version(if is_bytes { 12 } else { 5 });
        made
    }

    /// The pictures that a window goes over, and how: what a program cannot lay around them is laid before.
    fn framed(&mut self, pictures: Id, window: Window) -> Result<(String, u8), TfLiteError> {
        let x = self.plain(pictures)?;
        let shape = self.shape_of(&x);
        let Window { stride, before, out_h, out_w, .. } = window;
        let length = |axis: usize| shape[axis].fixed().expect("pictures are of one size");
        let ends = [zeros_after(window, out_h, length(1)), zeros_after(window, out_w, length(2))];
        if before == 0 && ends == [0, 0] {
            return Ok((x, VALID));
        }
        // As many outputs as there are steps, and the odd row and column last.
        let is_same = [(out_h, ends[0], length(1)), (out_w, ends[1], length(2))]
            .into_iter()
            .all(|(out, end, len)| out == len.div_ceil(stride) && (before == end || before + 1 == end));
        if is_same {
            return Ok((x, SAME));
        }
        let [below, right] = ends.map(|n| n as i32);
        let before = before as i32;
        let around = self.integers(&[0, 0, before, below, before, right, 0, 0], &[4, 2]);
        let [h, w] = [1, 2].map(|axis| length(axis) + before as usize + ends[axis - 1]);
        let to = vec![shape[0].clone(), Dim::Fixed(h), Dim::Fixed(w), shape[3].clone()];
        Ok((self.node(schema::PAD, &[&x, &around], Vec::new(), Kind::Float32, to), VALID))
    }

    /// What is added to each channel: zeros where there is nothing, since some programs want it there.
    fn bias(&mut self, bias: Option<Id>, channels: usize) -> Result<String, TfLiteError> {
        match bias {
            Some(bias) => self.plain(bias),
            None => {
                let key = format!("zeros {channels}");
                let made = match self.made.get(&key) {
                    Some(made) => made.clone(),
                    None => self.floats(key.clone(), &[channels], &vec![0.0; channels])?,
                };
                self.made.insert(key, made.clone());
                Ok(made)
            }
        }
    }

    /// Of pictures that are NHWC, by a kernel [out, k, k, in]: -> [n, out_h, out_w, out].
    fn convolution(
        &mut self,
        pictures: Id,
        kernel: &str,
        bias: Option<Id>,
        window: Window,
        out: usize,
    ) -> Result<Seen, TfLiteError> {
        let (x, padding) = self.framed(pictures, window)?;
        let bias = self.bias(bias, out)?;
        let Window { stride, out_h, out_w, .. } = window;
        let shape = vec![self.of(&x).shape[0].clone(), Dim::Fixed(out_h), Dim::Fixed(out_w), Dim::Fixed(out)];
        let options = vec![byte(0, padding), int(1, stride), int(2, stride)];
        let is_bytes = self.of(kernel).kind == Kind::Int8;
        let made = self.node(schema::CONV_2D, &[&x, kernel, &bias], options, Kind::Float32, shape.clone());
        if is_bytes {
            self.of_version(5);
        }
        Ok(Seen::plain(made, shape))
    }

    /// A convolution of each channel by itself.
    pub(super) fn depthwise(&mut self, value: &Value, window: Window) -> Result<Written, TfLiteError> {
        let taps = value.inputs[1];
        let channels = value.shape[3].fixed().expect("channels are fixed");
        let Some(values) = self.constant(taps) else {
            return Err(TfLiteError::NoOperator {
                op: "depthwise",
                name: value.name.clone(),
                why: "its taps depend on an input",
            });
        };
        let size = window.size;
        let dims = [1, size, size, channels];
        let name = self.graph.values[taps].name.clone();
        let kernel = if self.is_kept_in_bytes(&values) {
            // A scale for each channel, which is the last axis.
            let rounded = Int8::round(&turned(&values, size * size, channels), size * size).0;
            let buffer = self.buffer(bytes(&turned(&rounded.codes, channels, size * size)));
            self.codes(name, &dims, buffer, above_zero(rounded.scales), 3)
        } else {
            self.floats(name, &dims, &values)?
        };
        let (x, padding) = self.framed(value.inputs[0], window)?;
        let bias = self.bias(value.inputs.get(2).copied(), channels)?;
        let options = vec![byte(0, padding), int(1, window.stride), int(2, window.stride), int(3, 1)];
        let inputs = [&x[..], &kernel, &bias];
        let made = self.node(schema::DEPTHWISE_CONV_2D, &inputs, options, Kind::Float32, value.shape.clone());
        if self.of(&kernel).kind == Kind::Int8 {
            self.of_version(6);
        }
        Ok(Written::Seen(Seen::plain(made, value.shape.clone())))
    }
}

/// Of a row of zeros: programs take no scale of zero, and any other does.
fn above_zero(scales: Vec<f32>) -> Vec<f32> {
    scales.into_iter().map(|scale| if scale == 0.0 { 1.0 } else { scale }).collect()
}

fn bytes(codes: &[i8]) -> Vec<u8> {
    codes.iter().map(|code| code.cast_unsigned()).collect()
}
