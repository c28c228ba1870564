//! What each operator computes.

use rten::ops::{self, FloatOperators, Padding};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor as Dense, TensorView};

use super::reader::{INT8, Operator, UINT8};
use super::{Fault, Held, Run};
use crate::export::written::first_of_highest;

/// By `BuiltinOperator`: the options (`BuiltinOptions`) that an operator has, 0 where it has none.
const OPTIONS: &[(i32, u8)] = &[
    (0, 11),
    (2, 10),
    (3, 1),
    (4, 2),
    (6, 38),
    (9, 8),
    (18, 21),
    (22, 17),
    (25, 9),
    (34, 22),
    (36, 23),
    (39, 26),
    (40, 27),
    (41, 28),
    (42, 29),
    (45, 32),
    (47, 33),
    (53, 37),
    (55, 39),
    (56, 40),
    (57, 39),
    (61, 44),
    (65, 48),
    (69, 51),
    (71, 53),
    (74, 27),
    (77, 55),
    (83, 59),
    (96, 73),
    (108, 84),
    (114, 89),
    (126, 101),
    (150, 116),
];

fn failed(what: impl std::fmt::Display) -> Fault {
    what.to_string()
}

/// What is multiplied by.
enum Weights<'a> {
    Floats(TensorView<'a, f32>),
    /// Of bytes, where floats are rounded to bytes before they are multiplied.
    Codes(Dense<f32>),
    /// Of bytes, where what is multiplied is of bytes already.
    Expanded(Dense<f32>),
}

impl Weights<'_> {
    fn view(&self) -> TensorView<'_, f32> {
        match self {
            Weights::Floats(values) => values.view(),
            Weights::Codes(values) | Weights::Expanded(values) => values.view(),
        }
    }

    fn are_codes(&self) -> bool {
        matches!(self, Weights::Codes(_))
    }
}

/// What an operator made.
fn floats<E: std::fmt::Display>(made: Result<Dense<f32>, E>) -> Result<Held, Fault> {
    made.map(Held::Floats).map_err(failed)
}

impl Run<'_> {
    /// What an operator gives of what was computed before.
    pub(super) fn operator(&self, operator: &Operator) -> Result<Held, Fault> {
        let wanted = OPTIONS.iter().find(|(code, _)| *code == operator.code).map_or(0, |(_, options)| *options);
        if operator.kind_of_options != wanted {
            return Err(format!("options {} of operator {}", operator.kind_of_options, operator.code));
        }
        let pool = &self.pool;
        let x = || self.floats(operator, 0);
        match operator.code {
            // ADD, MUL, SUB, DIV, MAXIMUM, MINIMUM
            0 | 18 | 41 | 42 | 55 | 57 => self.binary(operator),
            // CONCATENATION
            2 => {
                let parts =
                    (0..operator.inputs.len()).map(|i| self.floats(operator, i)).collect::<Result<Vec<_>, _>>()?;
                floats(ops::concat(pool, &parts, operator.int(0) as isize))
            }
            // CONV_2D
            3 => self.convolution(operator, false),
            // DEPTHWISE_CONV_2D
            4 => self.convolution(operator, true),
            // DEQUANTIZE: those of 16 bits were made 32 when they were read.
            6 => match self.input(operator, 0)? {
                Held::Floats(x) => Ok(Held::Floats(x.clone())),
                Held::Bytes(codes) => self.expanded(operator.inputs[0].expect("it was read"), codes).map(Held::Floats),
                Held::Integers(_) | Held::Pixels(_) => Err("integers have no scales".into()),
            },
            // FLOOR
            8 => Ok(Held::Floats(x()?.map(|x| x.floor()))),
            // FULLY_CONNECTED
            9 => self.fully_connected(operator),
            // LOGISTIC
            14 => Ok(Held::Floats(x()?.map(|x| 1.0 / (1.0 + (-x).exp())))),
            // RELU, RELU6
            19 => Ok(Held::Floats(x()?.map(|x| x.max(0.0)))),
            21 => Ok(Held::Floats(x()?.map(|x| x.clamp(0.0, 6.0)))),
            // RESHAPE
            22 => {
                let to = self.integers(operator, 1)?;
                match self.input(operator, 0)? {
                    Held::Floats(x) => reshaped(x.view(), &to).map(Held::Floats),
                    Held::Integers(x) => reshaped(x.view(), &to).map(Held::Integers),
                    Held::Bytes(_) | Held::Pixels(_) => Err("codes in another shape".into()),
                }
            }
            // SOFTMAX
            25 if operator.float(0) == 1.0 => floats(x()?.softmax(-1)),
            // PAD
            34 => {
                let around = self.integers(operator, 1)?;
                let (before, after) = (around.iter().step_by(2), around.iter().skip(1).step_by(2));
                let around: Vec<i32> = before.chain(after).copied().collect();
                let around = NdTensor::from_data([around.len()], around);
                floats(ops::pad(pool, x()?, &around.view(), ops::PadMode::Constant, 0.0))
            }
            // GATHER
            36 => self.gather(operator),
            // TRANSPOSE
            39 => {
                let order = self.sizes(operator, 1)?;
                Ok(Held::Floats(x()?.permuted(&order).to_tensor()))
            }
            // MEAN, SUM
            40 | 74 => {
                let axes = self.integers(operator, 1)?;
                let keeps = operator.byte(0) == 1;
                floats(match operator.code {
                    40 => x()?.reduce_mean(Some(&axes), keeps),
                    _ => ops::reduce_sum(pool, x()?, Some(&axes), keeps),
                })
            }
            // STRIDED_SLICE: of one entry of a shape, whose axis is dropped.
            45 => {
                let x = self.integers(operator, 0)?;
                let [from, until, step] = [1, 2, 3].map(|i| self.sizes(operator, i));
                let (from, until, step) = (from?, until?, step?);
                let one = match (&from[..], &until[..], &step[..], operator.int(4)) {
                    ([from], [until], [1], 1) if from + 1 == *until => x.get(*from),
                    _ => None,
                };
                let one = one.ok_or("it is no single entry that is taken")?;
                Ok(Held::Integers(Dense::from_data(&[], vec![*one])))
            }
            // EXP, SIN, LOG, SQRT, COS
            47 => Ok(Held::Floats(x()?.map(|x| x.exp()))),
            66 => Ok(Held::Floats(x()?.map(|x| x.sin()))),
            73 => Ok(Held::Floats(x()?.map(|x| x.ln()))),
            75 => Ok(Held::Floats(x()?.map(|x| x.sqrt()))),
            108 => Ok(Held::Floats(x()?.map(|x| x.cos()))),
            // CAST
            53 => match (self.input(operator, 0)?, operator.byte(1)) {
                (Held::Integers(x), 0) => Ok(Held::Floats(x.map(|x| *x as f32))),
                (Held::Bytes(x), 0) => Ok(Held::Floats(x.map(|x| f32::from(*x)))),
                (Held::Pixels(x), 0) if operator.byte(0) == UINT8 => Ok(Held::Floats(x.map(|x| f32::from(*x)))),
                (Held::Integers(x), 2) => Ok(Held::Integers(x.clone())),
                (_, to) => Err(format!("numbers of kind {} as kind {to}", operator.byte(0))),
            },
            // ARG_MAX
            56 => match (self.input(operator, 0)?, &self.integers(operator, 1)?[..]) {
                (Held::Integers(x), [axis]) => first_of_highest(&x.view(), *axis as isize, false).map(Held::Integers),
                _ => Err("not along one axis of integers".into()),
            },
            // GREATER, EQUAL
            61 | 71 => match (self.input(operator, 0)?, self.input(operator, 1)?) {
                (Held::Integers(a), Held::Integers(b)) => {
                    let (a, b) = (a.view(), b.view());
                    let made = if operator.code == 61 { ops::greater(pool, a, b) } else { ops::equal(pool, a, b) };
                    made.map(Held::Integers).map_err(failed)
                }
                _ => Err("two that are not both integers".into()),
            },
            // SLICE
            65 => {
                let (from, len) = (self.integers(operator, 1)?, self.integers(operator, 2)?);
                let until: Vec<i32> = from.iter().zip(&len).map(|(from, len)| from + len).collect();
                let x = x()?;
                if until.iter().zip(x.shape()).any(|(until, len)| usize::try_from(*until).is_ok_and(|n| n > *len)) {
                    return Err(format!("{until:?} is beyond {:?}", x.shape()));
                }
                let [from, until] = [from, until].map(|list| NdTensor::from_data([list.len()], list));
                floats(ops::slice(pool, x, &from.view(), &until.view(), None, None))
            }
            // TILE
            69 => {
                let often = self.integers(operator, 1)?;
                let often = NdTensor::from_data([often.len()], often);
                floats(ops::tile(pool, x()?, often.view()))
            }
            // SHAPE
            77 if operator.byte(0) == 2 => {
                let shape = self.input(operator, 0)?.shape();
                let lengths: Vec<i32> = shape.iter().map(|n| *n as i32).collect();
                Ok(Held::Integers(Dense::from_data(&[lengths.len()], lengths)))
            }
            // PACK, of single integers.
            83 if operator.int(1) == 0 && usize::try_from(operator.int(0)) == Ok(operator.inputs.len()) => {
                let mut all = Vec::new();
                for number in 0..operator.inputs.len() {
                    let one = self.integers(operator, number)?;
                    all.push(*one.first().filter(|_| one.len() == 1).ok_or("not one integer each")?);
                }
                Ok(Held::Integers(Dense::from_data(&[all.len()], all)))
            }
            // RANGE
            96 => {
                let [from, until, step] = [0, 1, 2].map(|i| self.integers(operator, i));
                match (&from?[..], &until?[..], &step?[..]) {
                    ([from], [until], [step]) => ops::range(*from, *until, *step).map(Held::Integers).map_err(failed),
                    _ => Err("not from one number to another".into()),
                }
            }
            // QUANTIZE: what is made of floats is brought to the tensor's steps by who holds it.
            114 => Ok(Held::Floats(x()?.to_tensor())),
            // BATCH_MATMUL
            126 if operator.byte(0) == 0 => {
                let b = self.floats(operator, 1)?;
                let mut axes: Vec<usize> = (0..b.ndim()).collect();
                if operator.byte(1) == 1 {
                    axes.swap(b.ndim() - 2, b.ndim() - 1);
                }
                floats(ops::matmul(pool, x()?, b.permuted(&axes), None))
            }
            // GELU
            150 if operator.byte(0) == 0 => {
                Ok(Held::Floats(x()?.map(|x| 0.5 * x * (1.0 + error_function(x * std::f32::consts::FRAC_1_SQRT_2)))))
            }
            code => Err(format!("operator {code} with these options is not one that effai writes")),
        }
    }

    fn binary(&self, operator: &Operator) -> Result<Held, Fault> {
        if operator.byte(0) != 0 {
            return Err("something is done after it".into());
        }
        let pool = &self.pool;
        match (self.input(operator, 0)?, self.input(operator, 1)?) {
            (Held::Floats(a), Held::Floats(b)) => {
                let (a, b) = (a.view(), b.view());
                let made = match operator.code {
                    0 => ops::add(pool, a, b),
                    18 => ops::mul(pool, a, b),
                    41 => ops::sub(pool, a, b),
                    42 => {
                        // rten takes the axes of what is divided for those of the quotient.
                        let first = vec![1; b.ndim().saturating_sub(a.ndim())];
                        let a = Dense::from_data(&[&first[..], a.shape()].concat(), a.to_vec());
                        ops::div(pool, a.view(), b)
                    }
                    55 => ops::max(pool, &[a, b]),
                    _ => ops::min(pool, &[a, b]),
                };
                made.map(Held::Floats).map_err(failed)
            }
            (Held::Integers(a), Held::Integers(b)) => {
                let (a, b) = (a.view(), b.view());
                let made = match operator.code {
                    0 => ops::add(pool, a, b),
                    18 => ops::mul(pool, a, b),
                    41 => ops::sub(pool, a, b),
                    code => return Err(format!("operator {code} of integers")),
                };
                made.map(Held::Integers).map_err(failed)
            }
            _ => Err("two of different kinds".into()),
        }
    }

    fn gather(&self, operator: &Operator) -> Result<Held, Fault> {
        let Held::Integers(ids) = self.input(operator, 1)? else { return Err("by what is no integers".into()) };
        let (axis, batch) = (operator.int(0), operator.int(1));
        match (self.input(operator, 0)?, batch) {
            (Held::Floats(x), 0) => {
                ops::gather(&self.pool, x.view(), axis as isize, ids.view()).map(Held::Floats).map_err(failed)
            }
            (Held::Bytes(x), 0) => {
                ops::gather(&self.pool, x.view(), axis as isize, ids.view()).map(Held::Bytes).map_err(failed)
            }
            // One entry for each of the first axis.
            (Held::Floats(x), 1) if axis == 1 && ids.ndim() == 1 => {
                let mut rows = Vec::new();
                for (row, id) in ids.iter().enumerate() {
                    let id = usize::try_from(*id).map_err(failed)?;
                    if row >= x.size(0) || id >= x.size(1) {
                        return Err(format!("entry {id} of row {row} of {:?}", x.shape()));
                    }
                    rows.push(x.slice((row..row + 1, id..id + 1)));
                }
                let made = ops::concat(&self.pool, &rows, 0).map_err(failed)?;
                let shape = [&x.shape()[..1], &x.shape()[2..]].concat();
                Ok(Held::Floats(made.into_shape(&shape[..])))
            }
            _ => Err("entries of another kind".into()),
        }
    }

    /// Weights, made floats where they are codes.
    fn weights(&self, operator: &Operator) -> Result<Weights<'_>, Fault> {
        match self.input(operator, 1)? {
            Held::Floats(values) => Ok(Weights::Floats(values.view())),
            Held::Bytes(codes) => {
                let at = operator.inputs[1].expect("it was read");
                let expanded = self.expanded(at, codes)?;
                // What bytes are multiplied by is not rounded once more.
                let x = operator.inputs[0].map(|at| self.file.model.tensors[at].kind);
                Ok(if x == Some(INT8) { Weights::Expanded(expanded) } else { Weights::Codes(expanded) })
            }
            Held::Integers(_) | Held::Pixels(_) => Err("weights that are integers".into()),
        }
    }

    /// Codes times the scales of their tensor.
    fn expanded(&self, at: usize, codes: &Dense<i8>) -> Result<Dense<f32>, Fault> {
        let tensor = &self.file.model.tensors[at];
        let (axis, shape) = (tensor.axis, codes.shape().to_vec());
        if shape.get(axis) != Some(&tensor.scales.len()) {
            return Err(format!("{} scales of {shape:?}", tensor.scales.len()));
        }
        let inner: usize = shape[axis + 1..].iter().product();
        let scale = |i: usize| tensor.scales[i / inner % tensor.scales.len()];
        let values = codes.to_vec().into_iter().enumerate().map(|(i, code)| f32::from(code) * scale(i));
        Ok(Dense::from_data(&shape, values.collect::<Vec<_>>()))
    }

    fn fully_connected(&self, operator: &Operator) -> Result<Held, Fault> {
        let x = self.floats(operator, 0)?;
        let weights = self.weights(operator)?;
        let (weights, are_codes) = (weights.view(), weights.are_codes());
        if operator.byte(0) != 0 || operator.byte(1) != 0 || operator.byte(2) != 1 {
            return Err("options that are not those of a product of all axes".into());
        }
        if operator.byte(3) != u8::from(are_codes) {
            return Err("inputs of codes are rounded between their least and largest".into());
        }
        let width = *x.shape().last().ok_or("a product of a number")?;
        let rounded = if are_codes { rounded(&x, width) } else { x.to_tensor() };
        let made = ops::matmul(&self.pool, rounded.view(), weights.permuted(&[1, 0]), None).map_err(failed)?;
        if operator.inputs.get(2).copied().flatten().is_none() {
            return Ok(Held::Floats(made));
        }
        let bias = self.floats(operator, 2)?;
        ops::add(&self.pool, made.view(), bias).map(Held::Floats).map_err(failed)
    }

    fn convolution(&self, operator: &Operator, is_each: bool) -> Result<Held, Fault> {
        let x = self.floats(operator, 0)?;
        let &[_, h, w, c] = x.shape() else { return Err("pictures without four axes".into()) };
        let weights = self.weights(operator)?;
        let (weights, are_codes) = (weights.view(), weights.are_codes());
        let &[_, kh, kw, _] = weights.shape() else { return Err("a kernel without four axes".into()) };
        let strides = [operator.int(2), operator.int(1)].map(|step| step as usize);
        if strides.contains(&0) || (is_each && operator.int(3) != 1) {
            return Err("no step, or several outputs of a channel".into());
        }
        let around = |len: usize, size: usize, stride: usize| {
            let whole = ((len.div_ceil(stride) - 1) * stride + size).saturating_sub(len);
            if operator.byte(0) == 0 { [whole / 2, whole - whole / 2] } else { [0, 0] }
        };
        let ([top, below], [left, right]) = (around(h, kh, strides[0]), around(w, kw, strides[1]));
        let padding = Padding::Fixed([top, left, below, right].into_iter().collect());
        // Of codes, each picture is rounded by itself.
        let x = if are_codes { rounded(&x, h * w * c) } else { x.to_tensor() };
        let (order, groups) = if is_each { ([3, 0, 1, 2], c) } else { ([0, 3, 1, 2], 1) };
        let bias = self.floats(operator, 2)?;
        let kernel = weights.permuted(&order).to_tensor();
        // Laid out so: of some shapes rten's product of windows wants rows that lie together.
        let (x, kernel) = (x.permuted(&[0, 3, 1, 2]).to_tensor(), kernel.view());
        let made =
            ops::conv(&self.pool, x.view(), kernel, Some(bias), padding, groups, &strides, &[1, 1]).map_err(failed)?;
        let made = made.permuted(&[0, 2, 3, 1]).to_tensor();
        match operator.byte(if is_each { 4 } else { 3 }) {
            0 => Ok(Held::Floats(made)),
            1 => Ok(Held::Floats(made.map(|x| x.max(0.0)))),
            3 => Ok(Held::Floats(made.map(|x| x.clamp(0.0, 6.0)))),
            activation => Err(format!("activation {activation}")),
        }
    }
}

/// In another shape, of which one length may be -1.
fn reshaped<T: Copy>(x: TensorView<'_, T>, to: &[i32]) -> Result<Dense<T>, Fault> {
    let known: usize = to.iter().filter(|n| **n != -1).map(|n| *n as usize).product();
    let open = to.iter().filter(|n| **n == -1).count();
    let length = |n: &i32| if *n == -1 { x.len().checked_div(known).unwrap_or(0) } else { *n as usize };
    let shape: Vec<usize> = to.iter().map(length).collect();
    if open > 1 || shape.iter().product::<usize>() != x.len() {
        return Err(format!("{:?} as {to:?}", x.shape()));
    }
    Ok(Dense::from_data(&shape, x.to_vec()))
}

/// Each row of so many numbers as 8 bits hold it between its least and its largest, as programs do with what codes are
/// multiplied by (`AsymmetricQuantizeFloats` of LiteRT's portable kernels).
fn rounded(x: &TensorView<'_, f32>, width: usize) -> Dense<f32> {
    let shape = x.shape().to_vec();
    let mut values = x.to_vec();
    for row in values.chunks_exact_mut(width.max(1)) {
        let (low, high) = row.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
        let scale = (f64::from(high) - f64::from(low)) / 255.0;
        if scale == 0.0 {
            continue;
        }
        let zero = (-128.0 - f64::from(low) / scale).round().clamp(-128.0, 127.0);
        for x in row {
            let code = (f64::from(*x) / scale + zero).round().clamp(-128.0, 127.0);
            *x = ((code - zero) * scale) as f32;
        }
    }
    Dense::from_data(&shape, values)
}

/// By a rational function that is right to 1.5e-7: Abramowitz and Stegun, 7.1.26.
fn error_function(x: f32) -> f32 {
    let far = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * far);
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = terms.iter().fold(0.0, |sum, term| sum * t + term) * t;
    let value = 1.0 - sum * (-far * far).exp();
    (value as f32).copysign(x)
}
