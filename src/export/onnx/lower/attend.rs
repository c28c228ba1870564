//! What looks at texts: masks, positions, attention.

use super::super::super::graph::{Dim, Id, Value};
use super::super::OnnxError;
use super::{BOOL, FLOAT, FLOAT16, INT32, Lower, Written, int};
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::backend::texts::Mark;
use crate::export::view::{Seen, View};

impl Lower<'_> {
    /// Where the marked token of each text is: [texts, 1].
    pub(super) fn place_of(&mut self, ids: &str, mark: Mark) -> String {
        let key = format!("place {ids} {mark:?}");
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let first = match mark {
            Mark::Highest => self.cast(ids, INT32),
            Mark::First(id) => {
                let id = self.integers(&[i64::from(id)], true);
                let same = self.node("Equal", &[ids, &id]);
                self.cast(&same, INT32)
            }
        };
        let made = self.node_of("ArgMax", &[&first], vec![int("axis", 1), int("keepdims", 1)]);
        self.made.insert(key, made.clone());
        made
    }

    pub(super) fn mask_as_floats(&mut self, mask: &str) -> String {
        let key = format!("mask {mask}");
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let kind = self.float();
        let made = self.cast(mask, kind);
        self.made.insert(key, made.clone());
        made
    }

    /// What is added to the scores of keys that are padding: [texts, 1, 1, keys].
    fn padding(&mut self, mask: &str) -> Result<String, OnnxError> {
        let key = format!("padding {mask}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let axes = self.integers(&[1, 2], false);
        let seen = self.cast(mask, BOOL);
        let seen = self.node("Unsqueeze", &[&seen, &axes]);
        let (none, least) = (self.number(0.0)?, self.number(self.least())?);
        let made = self.node("Where", &[&seen, &none, &least]);
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// What is added to the scores of keys that are later than their query: [queries, keys].
    fn later(&mut self, queries: &Dim, keys: &Dim) -> Result<String, OnnxError> {
        let key = format!("later {queries} {keys}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let (zero, one) = (self.integers(&[0], true), self.integers(&[1], true));
        let scalar = |lower: &mut Self, dim: &Dim| -> Result<String, OnnxError> {
            let (size, first) = (lower.size(dim)?, lower.integers(&[0], false));
            Ok(lower.node("Squeeze", &[&size, &first]))
        };
        let (queries, keys) = (scalar(self, queries)?, scalar(self, keys)?);
        let before = self.node("Sub", &[&keys, &queries]);
        let of_query = self.node("Range", &[&before, &keys, &one]);
        let of_key = self.node("Range", &[&zero, &keys, &one]);
        let last = self.integers(&[1], false);
        let of_query = self.node("Unsqueeze", &[&of_query, &last]);
        let late = self.node("Greater", &[&of_key, &of_query]);
        let (none, least) = (self.number(0.0)?, self.number(self.least())?);
        let made = self.node("Where", &[&late, &least, &none]);
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// A score that no other is as low as; two of them are no infinity yet.
    fn least(&self) -> f32 {
        if self.is_half { -3e4 } else { -1e38 }
    }

    pub(super) fn attention(
        &mut self,
        value: &Value,
        mask: Option<&str>,
        causal: bool,
        scale: f32,
    ) -> Result<Written, OnnxError> {
        let [q, k, v] = [0, 1, 2].map(|i| value.inputs[i]);
        let of = |id: Id| &self.graph.values[id].shape;
        let (queries, keys) = (of(q)[2].clone(), of(k)[2].clone());
        let [heads, kv_heads] = [q, k].map(|id| of(id)[1].fixed().expect("heads are fixed"));
        let (q_shape, k_shape) = (of(q).clone(), of(k).clone());
        // Heads that share one of keys have an axis of their own, along which the keys are the same.
        let grouped = heads != kv_heads;
        let with_group = |shape: &[Dim], heads: usize, group: usize| {
            View::Reshape(vec![
                shape[0].clone(),
                Dim::Fixed(heads),
                Dim::Fixed(group),
                shape[2].clone(),
                shape[3].clone(),
            ])
        };
        let (mut q, mut k, mut v) = (self.seen(q)?, self.seen(k)?, self.seen(v)?);
        if grouped {
            q = q.seen(with_group(&q_shape, kv_heads, heads / kv_heads));
            k = k.seen(with_group(&k_shape, kv_heads, 1));
            v = v.seen(with_group(&k_shape, kv_heads, 1));
        }
        let order = if grouped { vec![0, 1, 2, 4, 3] } else { vec![0, 1, 3, 2] };
        let (q, k, v) = (self.tensor(&q)?, self.tensor(&k.seen(View::Turn(order)))?, self.tensor(&v)?);
        let scale = self.number(scale)?;
        let q = self.node("Mul", &[&q, &scale]);
        let mut scores = self.node("MatMul", &[&q, &k]);
        if let Some(mask) = mask {
            let mut padding = self.padding(mask)?;
            if grouped {
                let axis = self.integers(&[1], false);
                padding = self.node("Unsqueeze", &[&padding, &axis]);
            }
            scores = self.node("Add", &[&scores, &padding]);
        }
        if causal && queries != Dim::Fixed(1) {
            let later = self.later(&queries, &keys)?;
            scores = self.node("Add", &[&scores, &later]);
        }
        let weights = self.node_of("Softmax", &[&scores], vec![int("axis", -1)]);
        let mixed = self.node("MatMul", &[&weights, &v]);
        let mut shape = value.shape.clone();
        if grouped {
            let View::Reshape(whole) = with_group(&shape, kv_heads, heads / kv_heads) else { unreachable!() };
            shape = whole;
        }
        Ok(Written::Seen(Seen::plain(mixed, shape).seen(View::Reshape(value.shape.clone()))))
    }

    /// The cosines and sines of positions, [length, width / 2] each; the same for all layers.
    fn turns(&mut self, length: &Dim, offset: &Dim, width: usize, base: f32) -> Result<[String; 2], OnnxError> {
        let key = format!("turns {length} {offset} {width} {base}");
        let keys = ["cos", "sin"].map(|which| format!("{key} {which}"));
        if let [Some(cos), Some(sin)] = [0, 1].map(|i| self.made.get(&keys[i])) {
            return Ok([cos.clone(), sin.clone()]);
        }
        let half = width / 2;
        let frequencies: Vec<f32> = (0..half).map(|i| 1.0 / base.powf(2.0 * i as f32 / width as f32)).collect();
        // In 32 bits always: positions beyond 2048 are no numbers of 16 bits.
        let raw = floats::to_bytes(&frequencies, Float::F32);
        let frequencies = self.initializer("frequencies".into(), &[half], FLOAT, raw);
        let (zero, one, axis) = (self.integers(&[0], false), self.integers(&[1], true), self.integers(&[1], false));
        let (from, len) = (self.size(offset)?, self.size(length)?);
        let until = self.node("Add", &[&from, &len]);
        let (from, until) = (self.node("Squeeze", &[&from, &zero]), self.node("Squeeze", &[&until, &zero]));
        let positions = self.node("Range", &[&from, &until, &one]);
        let positions = self.cast(&positions, FLOAT);
        let positions = self.node("Unsqueeze", &[&positions, &axis]);
        let angles = self.node("Mul", &[&positions, &frequencies]);
        let mut made = [self.node("Cos", &[&angles]), self.node("Sin", &[&angles])];
        if self.is_half {
            made = made.map(|turn| self.cast(&turn, FLOAT16));
        }
        for (key, made) in keys.into_iter().zip(&made) {
            self.made.insert(key, made.clone());
        }
        Ok(made)
    }

    /// The halves of each row turn with one another.
    pub(super) fn rope(&mut self, x: &str, shape: &[Dim], offset: &Dim, base: f32) -> Result<String, OnnxError> {
        let width = shape[shape.len() - 1].fixed().expect("widths are fixed");
        let [cos, sin] = self.turns(&shape[shape.len() - 2], offset, width, base)?;
        let axis = self.integers(&[-1], false);
        let ends = [0, width / 2, width].map(|end| self.integers(&[end as i64], false));
        let a = self.node("Slice", &[x, &ends[0], &ends[1], &axis]);
        let b = self.node("Slice", &[x, &ends[1], &ends[2], &axis]);
        let [ac, bs, bc, as_] =
            [(&a, &cos), (&b, &sin), (&b, &cos), (&a, &sin)].map(|(half, turn)| self.node("Mul", &[half, turn]));
        let first = self.node("Sub", &[&ac, &bs]);
        let second = self.node("Add", &[&bc, &as_]);
        Ok(self.node_of("Concat", &[&first, &second], vec![int("axis", -1)]))
    }
}
