//! MIL's operators by rten's.

use std::collections::HashMap;

use rten::ops;
use rten::{BufferPool, FloatOperators};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, SliceItem, Tensor, TensorView};

use super::super::proto::{self, Bound};
use super::Held;
use crate::export::written::first_of_highest;

/// An operation and what it is given.
pub(super) struct Given<'a> {
    pub(super) operation: &'a proto::Operation,
    pub(super) values: &'a HashMap<String, Held>,
    pub(super) constants: &'a HashMap<String, Held>,
}

type Done<T> = Result<T, String>;

fn told<T, E: std::fmt::Display>(result: Result<T, E>) -> Done<T> {
    result.map_err(|e| e.to_string())
}

impl<'a> Given<'a> {
    fn named(&self, name: &str) -> Done<&'a Held> {
        let value = self.values.get(name).or_else(|| self.constants.get(name));
        value.ok_or_else(|| format!("`{name}` is not computed before it"))
    }

    fn all(&self, arg: &str) -> Done<Vec<&'a Held>> {
        let argument = self.operation.inputs.get(arg).ok_or_else(|| format!("no argument `{arg}`"))?;
        let each = argument.arguments.iter().map(|binding| match &binding.bound {
            Some(Bound::Name(name)) => self.named(name),
            _ => Err(format!("`{arg}` is no tensor")),
        });
        each.collect()
    }

    fn held(&self, arg: &str) -> Done<&'a Held> {
        self.all(arg)?.first().copied().ok_or_else(|| format!("`{arg}` is empty"))
    }

    fn has(&self, arg: &str) -> bool {
        self.operation.inputs.contains_key(arg)
    }

    fn floats(&self, arg: &str) -> Done<TensorView<'a, f32>> {
        match self.held(arg)? {
            Held::Floats(tensor) => Ok(tensor.view()),
            _ => Err(format!("`{arg}` is no tensor of floats")),
        }
    }

    fn ints(&self, arg: &str) -> Done<TensorView<'a, i32>> {
        match self.held(arg)? {
            Held::Ints(tensor) => Ok(tensor.view()),
            _ => Err(format!("`{arg}` is no tensor of integers")),
        }
    }

    fn list(&self, arg: &str) -> Done<Vec<i32>> {
        Ok(self.ints(arg)?.to_vec())
    }

    fn int(&self, arg: &str) -> Done<i32> {
        self.list(arg)?.first().copied().ok_or_else(|| format!("`{arg}` is empty"))
    }

    fn float(&self, arg: &str) -> Done<f32> {
        self.floats(arg)?.iter().next().copied().ok_or_else(|| format!("`{arg}` is empty"))
    }

    fn text(&self, arg: &str) -> Done<&'a str> {
        match self.held(arg)? {
            Held::Text(text) => Ok(text),
            _ => Err(format!("`{arg}` is no text")),
        }
    }

    /// Number by number.
    fn each(&self, f: impl Fn(f32) -> f32) -> Done<Held> {
        Ok(Held::Floats(self.floats("x")?.map(|x| f(*x))))
    }

    /// Of two tensors of one kind.
    fn two<E: std::fmt::Display>(
        &self,
        floats: impl Fn(TensorView<f32>, TensorView<f32>) -> Result<Tensor<f32>, E>,
        ints: impl Fn(TensorView<i32>, TensorView<i32>) -> Result<Tensor<i32>, E>,
    ) -> Done<Held> {
        Ok(match (self.held("x")?, self.held("y")?) {
            (Held::Floats(a), Held::Floats(b)) => Held::Floats(told(floats(a.view(), b.view()))?),
            (Held::Ints(a), Held::Ints(b)) => Held::Ints(told(ints(a.view(), b.view()))?),
            _ => return Err("what it is given differs in kind".into()),
        })
    }

    /// What is done alike to tensors of any kind.
    fn any<E: std::fmt::Display>(
        &self,
        floats: impl Fn(TensorView<f32>) -> Result<Tensor<f32>, E>,
        ints: impl Fn(TensorView<i32>) -> Result<Tensor<i32>, E>,
    ) -> Done<Held> {
        Ok(match self.held("x")? {
            Held::Floats(x) => Held::Floats(told(floats(x.view()))?),
            Held::Ints(x) => Held::Ints(told(ints(x.view()))?),
            Held::Text(_) => return Err("`x` is a text".into()),
        })
    }

    /// What the operation gives.
    pub(super) fn compute(&self) -> Done<Held> {
        let pool = &BufferPool::new();
        match &self.operation.r#type[..] {
            "identity" => Ok(self.held("x")?.clone()),
            "add" => self.two(|a, b| ops::add(pool, a, b), |a, b| ops::add(pool, a, b)),
            "sub" => self.two(|a, b| ops::sub(pool, a, b), |a, b| ops::sub(pool, a, b)),
            "mul" => self.two(|a, b| ops::mul(pool, a, b), |a, b| ops::mul(pool, a, b)),
            // rten takes the axes of what is divided for those of the quotient.
            "real_div" => self.two(
                |a, b| {
                    let first = vec![1; b.ndim().saturating_sub(a.ndim())];
                    let a = Tensor::from_data(&[&first[..], a.shape()].concat(), a.to_vec());
                    ops::div(pool, a.view(), b)
                },
                |a, b| ops::div(pool, a, b),
            ),
            "maximum" => self.two(|a, b| ops::max(pool, &[a, b]), |a, b| ops::max(pool, &[a, b])),
            "minimum" => self.two(|a, b| ops::min(pool, &[a, b]), |a, b| ops::min(pool, &[a, b])),
            "equal" => match (self.held("x")?, self.held("y")?) {
                (Held::Ints(a), Held::Ints(b)) => Ok(Held::Ints(told(ops::equal(pool, a.view(), b.view()))?)),
                _ => Err("floats are not compared".into()),
            },
            "greater" => match (self.held("x")?, self.held("y")?) {
                (Held::Ints(a), Held::Ints(b)) => Ok(Held::Ints(told(ops::greater(pool, a.view(), b.view()))?)),
                _ => Err("floats are not compared".into()),
            },
            "floor" => self.each(f32::floor),
            "exp" => self.each(f32::exp),
            "log" => {
                let least = self.float("epsilon")?;
                self.each(|x| (x + least).ln())
            }
            "sqrt" => self.each(f32::sqrt),
            "rsqrt" => {
                let least = self.float("epsilon")?;
                self.each(|x| 1.0 / (x + least).sqrt())
            }
            "cos" => self.each(f32::cos),
            "sin" => self.each(f32::sin),
            "sigmoid" => self.each(sigmoid),
            "silu" => self.each(|x| x * sigmoid(x)),
            "gelu" => match self.text("mode")? {
                "EXACT" => self.each(|x| {
                    let x = f64::from(x);
                    (0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
                }),
                mode => Err(format!("`{mode}` is not known")),
            },
            "clip" => {
                let (low, high) = (self.float("alpha")?, self.float("beta")?);
                self.each(|x| x.max(low).min(high))
            }
            "cast" => {
                let to_floats = matches!(self.text("dtype")?, "fp32" | "fp16");
                Ok(match (self.held("x")?, to_floats) {
                    (Held::Ints(x), true) => Held::Floats(x.map(|x| *x as f32)),
                    (Held::Floats(x), false) => Held::Ints(x.map(|x| *x as i32)),
                    (same, _) => same.clone(),
                })
            }
            "shape" => {
                let shape: Vec<i32> = self.held("x")?.shape().iter().map(|n| *n as i32).collect();
                Ok(Held::Ints(Tensor::from_data(&[shape.len()], shape)))
            }
            "range_1d" => {
                let made = told(ops::range(self.int("start")?, self.int("end")?, self.int("step")?))?;
                Ok(Held::Ints(made))
            }
            "concat" => self.concat(pool),
            "gather" => {
                let axis = self.int("axis")? as isize;
                let indices = self.ints("indices")?;
                self.any(
                    |x| ops::gather(pool, x, axis, indices.clone()),
                    |x| ops::gather(pool, x, axis, indices.clone()),
                )
            }
            "gather_nd" => {
                let indices = self.ints("indices")?;
                self.any(
                    |x| ops::gather_nd(pool, x, indices.clone(), 0),
                    |x| ops::gather_nd(pool, x, indices.clone(), 0),
                )
            }
            "reshape" => {
                let shape = NdTensor::from(self.list("shape")?);
                self.any(
                    |x| ops::reshape(pool, x, &shape.view(), false),
                    |x| ops::reshape(pool, x, &shape.view(), false),
                )
            }
            "expand_dims" => {
                let mut shape = self.held("x")?.shape();
                for axis in self.list("axes")? {
                    let axis = usize::try_from(axis).map_err(|_| "an axis from the end".to_owned())?;
                    if axis > shape.len() {
                        return Err(format!("no axis {axis}"));
                    }
                    shape.insert(axis, 1);
                }
                let shape = NdTensor::from(shape.iter().map(|n| *n as i32).collect::<Vec<_>>());
                self.any(|x| ops::reshape(pool, x, &shape.view(), true), |x| ops::reshape(pool, x, &shape.view(), true))
            }
            "transpose" => {
                let order: Vec<usize> = self.list("perm")?.iter().map(|axis| *axis as usize).collect();
                if order.len() != self.held("x")?.shape().len() {
                    return Err("`perm` has another number of axes".into());
                }
                self.any(|x| Ok::<_, String>(x.permuted(&order).to_tensor()), |x| Ok(x.permuted(&order).to_tensor()))
            }
            "tile" => {
                let reps = NdTensor::from(self.list("reps")?);
                self.any(|x| ops::tile(pool, x, reps.view()), |x| ops::tile(pool, x, reps.view()))
            }
            "slice_by_index" => self.slice(pool),
            "slice_update" => self.update(),
            "reduce_sum" => {
                let (axes, keep) = (self.list("axes")?, self.int("keep_dims")? == 1);
                self.any(
                    |x| ops::reduce_sum(pool, x, Some(&axes), keep),
                    |x| ops::reduce_sum(pool, x, Some(&axes), keep),
                )
            }
            "reduce_max" => {
                let (axes, keep) = (self.list("axes")?, self.int("keep_dims")? == 1);
                self.any(
                    |x| ops::reduce_max(pool, x, Some(&axes), keep),
                    |x| ops::reduce_max(pool, x, Some(&axes), keep),
                )
            }
            "reduce_mean" => {
                let (axes, keep) = (self.list("axes")?, self.int("keep_dims")? == 1);
                Ok(Held::Floats(told(ops::reduce_mean(pool, self.floats("x")?, Some(&axes), keep))?))
            }
            "reduce_argmax" => {
                let (axis, keep) = (self.int("axis")? as isize, self.int("keep_dims")? == 1);
                Ok(Held::Ints(told(first_of_highest(&self.ints("x")?, axis, keep))?))
            }
            "softmax" => Ok(Held::Floats(told(self.floats("x")?.softmax(self.int("axis")? as isize))?)),
            "layer_norm" => {
                if self.list("axes")? != [-1] {
                    return Err("axes other than the last".into());
                }
                let (x, gamma, beta) = (self.floats("x")?, self.floats("gamma")?, self.floats("beta")?);
                let eps = self.float("epsilon")?;
                Ok(Held::Floats(told(ops::layer_normalization(pool, x, gamma, Some(beta), -1, Some(eps)))?))
            }
            "matmul" => {
                let turned = |arg: &str, by: &str| -> Done<TensorView<'a, f32>> {
                    let mut tensor = self.floats(arg)?;
                    let rank = tensor.ndim();
                    if self.int(by)? == 1 {
                        let order: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                        tensor = tensor.permuted(&order);
                    }
                    Ok(tensor)
                };
                let (x, y) = (turned("x", "transpose_x")?, turned("y", "transpose_y")?);
                Ok(Held::Floats(told(ops::matmul(pool, x, y, None))?))
            }
            "linear" => {
                let (x, weight) = (self.floats("x")?, self.floats("weight")?);
                let mut made = told(ops::matmul(pool, x, weight.transposed(), None))?;
                if self.has("bias") {
                    made = told(ops::add(pool, made.view(), self.floats("bias")?))?;
                }
                Ok(Held::Floats(made))
            }
            "conv" => self.conv(pool),
            op => Err(format!("`{op}` is not known")),
        }
    }

    fn concat(&self, pool: &BufferPool) -> Done<Held> {
        if self.int("interleave")? != 0 {
            return Err("parts that alternate".into());
        }
        let axis = self.int("axis")? as isize;
        let parts = self.all("values")?;
        // Numbers one after the other are a row of them.
        let row = |shape: &[usize]| if shape.is_empty() { vec![1] } else { shape.to_vec() };
        let floats: Option<Vec<_>> = parts
            .iter()
            .map(|part| match part {
                Held::Floats(tensor) => Some(tensor.reshaped(&row(tensor.shape())[..]).to_tensor()),
                _ => None,
            })
            .collect();
        if let Some(floats) = floats {
            let views: Vec<_> = floats.iter().map(|part| part.view()).collect();
            return Ok(Held::Floats(told(ops::concat(pool, &views, axis))?));
        }
        let ints: Option<Vec<_>> = parts
            .iter()
            .map(|part| match part {
                Held::Ints(tensor) => Some(tensor.reshaped(&row(tensor.shape())[..]).to_tensor()),
                _ => None,
            })
            .collect();
        let ints = ints.ok_or("parts that differ in kind")?;
        let views: Vec<_> = ints.iter().map(|part| part.view()).collect();
        Ok(Held::Ints(told(ops::concat(pool, &views, axis))?))
    }

    /// From where to before where, along each axis.
    fn bounds(&self) -> Done<(Vec<i32>, Vec<i32>)> {
        let (mut begin, mut end) = (self.list("begin")?, self.list("end")?);
        let masks = [self.list("begin_mask")?, self.list("end_mask")?];
        let rank = self.held("x")?.shape().len();
        if self.has("stride") || self.has("squeeze_mask") {
            return Err("steps other than 1".into());
        }
        if [begin.len(), end.len(), masks[0].len(), masks[1].len()] != [rank; 4] {
            return Err("bounds of another number of axes".into());
        }
        for axis in 0..rank {
            if masks[0][axis] == 1 {
                begin[axis] = 0;
            }
            if masks[1][axis] == 1 {
                end[axis] = i32::MAX;
            }
        }
        Ok((begin, end))
    }

    fn slice(&self, pool: &BufferPool) -> Done<Held> {
        let (begin, end) = self.bounds()?;
        let (begin, end) = (NdTensor::from(begin), NdTensor::from(end));
        self.any(
            |x| ops::slice(pool, x, &begin.view(), &end.view(), None, None),
            |x| ops::slice(pool, x, &begin.view(), &end.view(), None, None),
        )
    }

    /// A tensor with another in a part of it, which has to be as large.
    fn update(&self) -> Done<Held> {
        let (begin, end) = self.bounds()?;
        let Held::Floats(mut made) = self.held("x")?.clone() else { return Err("`x` is no tensor of floats".into()) };
        let part = self.floats("update")?;
        let mut ranges = Vec::with_capacity(begin.len());
        for (axis, length) in made.shape().iter().enumerate() {
            let (from, until) = (begin[axis], end[axis].min(i32::try_from(*length).map_err(|e| e.to_string())?));
            let is_inside = from >= 0 && (end[axis] == until || end[axis] == i32::MAX);
            if !is_inside || until - from != part.shape().get(axis).map_or(-1, |own| *own as i32) {
                return Err(format!("{:?} does not fit {:?} from {begin:?} to {end:?}", part.shape(), made.shape()));
            }
            ranges.push(SliceItem::from(from as isize..until as isize));
        }
        made.slice_mut(&ranges[..]).copy_from(&part);
        Ok(Held::Floats(made))
    }

    fn conv(&self, pool: &BufferPool) -> Done<Held> {
        if self.text("pad_type")? != "custom" {
            return Err("`pad_type` is not `custom`".into());
        }
        let sizes = |arg: &str| Ok::<_, String>(self.list(arg)?.iter().map(|n| *n as usize).collect::<Vec<_>>());
        let &[top, bottom, left, right] = &sizes("pad")?[..] else { return Err("`pad` has no four numbers".into()) };
        let bias = if self.has("bias") { Some(self.floats("bias")?) } else { None };
        let made = ops::conv(
            pool,
            self.floats("x")?,
            self.floats("weight")?,
            bias,
            [top, left, bottom, right].into(),
            self.int("groups")? as usize,
            &sizes("strides")?,
            &sizes("dilations")?,
        );
        Ok(Held::Floats(told(made)?))
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function to 1.5e-7: Abramowitz and Stegun, 1964, 7.1.26.
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = terms.iter().fold(0.0, |sum, term| (sum + term) * t);
    (1.0 - sum * (-x * x).exp()).copysign(x)
}
