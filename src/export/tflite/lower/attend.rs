//! What looks at texts: masks, positions, attention.

use super::super::TfLiteError;
use super::super::schema::{self, Kind};
use super::{Lower, Written, byte, fixed};
use crate::backend::texts::Mark;
use crate::export::graph::{Dim, Id, Value};
use crate::export::view::{Seen, View};

/// A score that no other is as low as; two of them are no infinity yet.
const LEAST: f32 = -1e38;

impl Lower<'_> {
    /// Where the marked token of each text is: [texts].
    pub(super) fn place_of(&mut self, ids: &str, mark: Mark) -> String {
        let key = format!("place {ids} {mark:?}");
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let first = match mark {
            Mark::Highest => ids.to_owned(),
            Mark::First(id) => {
                let id = self.integers(&[i32::try_from(id).expect("a token")], &[]);
                let same = self.compare(schema::EQUAL, ids, &id);
                self.cast(&same, Kind::Int32)
            }
        };
        let (axis, shape) = (self.integers(&[1], &[]), self.shape_of(&first));
        let options = vec![byte(0, Kind::Int32 as u8)];
        let made = self.node(schema::ARG_MAX, &[&first, &axis], options, Kind::Int32, shape[..1].to_vec());
        self.made.insert(key, made.clone());
        made
    }

    pub(super) fn mask_as_floats(&mut self, mask: &str) -> String {
        let key = format!("mask {mask}");
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let made = self.cast(mask, Kind::Float32);
        self.made.insert(key, made.clone());
        made
    }

    /// What is added to the scores of keys that are padding: [texts, 1, 1, keys].
    fn padding(&mut self, mask: &str) -> Result<String, TfLiteError> {
        let key = format!("padding {mask}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let seen = self.mask_as_floats(mask);
        let (one, least) = (self.number(1.0)?, self.number(LEAST)?);
        let hidden = self.join(schema::SUB, &one, &seen);
        let added = self.join(schema::MUL, &hidden, &least);
        let [texts, keys] = &self.shape_of(mask)[..] else { unreachable!("a mask has two axes") };
        let to = [texts.clone(), Dim::Fixed(1), Dim::Fixed(1), keys.clone()];
        let made = self.reshaped(&added, &to)?;
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// Whole numbers from one size on, as many as another: [len].
    fn counted(&mut self, from: &Dim, until: &Dim, len: &Dim) -> Result<String, TfLiteError> {
        let (from, until, one) = (self.size(from)?, self.size(until)?, self.integers(&[1], &[]));
        Ok(self.node(schema::RANGE, &[&from, &until, &one], Vec::new(), Kind::Int32, vec![len.clone()]))
    }

    /// What is added to the scores of keys that are later than their query: [queries, keys].
    fn later(&mut self, queries: &Dim, keys: &Dim) -> Result<String, TfLiteError> {
        let key = format!("later {queries} {keys}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let of_key = self.counted(&Dim::Fixed(0), keys, keys)?;
        let own = self.counted(&Dim::Fixed(0), queries, queries)?;
        // How many keys were there before the first query.
        let (all, new) = (self.size(keys)?, self.size(queries)?);
        let before = self.join(schema::SUB, &all, &new);
        let own = self.join(schema::ADD, &own, &before);
        let of_query = self.reshaped(&own, &[queries.clone(), Dim::Fixed(1)])?;
        let late = self.compare(schema::GREATER, &of_key, &of_query);
        let late = self.cast(&late, Kind::Float32);
        let least = self.number(LEAST)?;
        let made = self.join(schema::MUL, &late, &least);
        self.made.insert(key, made.clone());
        Ok(made)
    }

    pub(super) fn softmax(&mut self, x: &str) -> String {
        let shape = self.shape_of(x);
        let beta = (0, super::Slot::Float(1.0));
        self.node(schema::SOFTMAX, &[x], vec![beta], Kind::Float32, shape)
    }

    pub(super) fn attention(
        &mut self,
        value: &Value,
        mask: Option<&str>,
        causal: bool,
        scale: f32,
    ) -> Result<Written, TfLiteError> {
        let [q, k, v] = [0, 1, 2].map(|i| value.inputs[i]);
        let of = |id: Id| self.graph.values[id].shape.clone();
        let (q_shape, k_shape) = (of(q), of(k));
        let (queries, keys) = (q_shape[2].clone(), k_shape[2].clone());
        let [heads, kv_heads] = [&q_shape, &k_shape].map(|shape| shape[1].fixed().expect("heads are fixed"));
        // Heads that share one of keys lie beside one another: their queries are one long list.
        let grouped = heads != kv_heads;
        let list = |lower: &mut Self, x: &str, last: &Dim| -> Result<String, TfLiteError> {
            let long = times(&queries, heads / kv_heads);
            lower.reshaped(x, &[q_shape[0].clone(), Dim::Fixed(kv_heads), long, last.clone()])
        };
        let (q, k, v) = (self.plain(q)?, self.plain(k)?, self.plain(v)?);
        let scale = self.number(scale)?;
        let mut q = self.join(schema::MUL, &q, &scale);
        if grouped {
            q = list(self, &q, &q_shape[3])?;
        }
        let mut scores = self.product(&q, &k, true)?;
        if grouped {
            let whole = [q_shape[0].clone(), Dim::Fixed(heads), queries.clone(), keys.clone()];
            scores = self.reshaped(&scores, &whole)?;
        }
        if let Some(mask) = mask {
            let padding = self.padding(mask)?;
            scores = self.join(schema::ADD, &scores, &padding);
        }
        if causal && queries != Dim::Fixed(1) {
            let later = self.later(&queries, &keys)?;
            scores = self.join(schema::ADD, &scores, &later);
        }
        let mut weights = self.softmax(&scores);
        if grouped {
            weights = list(self, &weights, &keys)?;
        }
        let mixed = self.product(&weights, &v, false)?;
        let shape = self.shape_of(&mixed);
        Ok(Written::Seen(Seen::plain(mixed, shape).seen(View::Reshape(value.shape.clone()))))
    }

    /// The cosines and sines of positions, [length, width / 2] each; the same for all layers.
    fn turns(&mut self, length: &Dim, offset: &Dim, width: usize, base: f32) -> Result<[String; 2], TfLiteError> {
        let key = format!("turns {length} {offset} {width} {base}");
        let keys = ["cos", "sin"].map(|which| format!("{key} {which}"));
        if let [Some(cos), Some(sin)] = [0, 1].map(|i| self.made.get(&keys[i])) {
            return Ok([cos.clone(), sin.clone()]);
        }
        let half = width / 2;
        let frequencies: Vec<f32> = (0..half).map(|i| 1.0 / base.powf(2.0 * i as f32 / width as f32)).collect();
        let frequencies = self.floats("frequencies".into(), &[half], &frequencies)?;
        let own = self.counted(&Dim::Fixed(0), length, length)?;
        let from = self.size(offset)?;
        let positions = self.join(schema::ADD, &own, &from);
        let positions = self.cast(&positions, Kind::Float32);
        let positions = self.reshaped(&positions, &[length.clone(), Dim::Fixed(1)])?;
        let angles = self.join(schema::MUL, &positions, &frequencies);
        let made = [self.map(schema::COS, &angles), self.map(schema::SIN, &angles)];
        for (key, made) in keys.into_iter().zip(&made) {
            self.made.insert(key, made.clone());
        }
        Ok(made)
    }

    /// The halves of each row turn with one another.
    pub(super) fn rope(&mut self, x: &str, shape: &[Dim], offset: &Dim, base: f32) -> Result<String, TfLiteError> {
        let last = shape.len() - 1;
        let width = shape[last].fixed().expect("widths are fixed");
        let [cos, sin] = self.turns(&shape[last - 1], offset, width, base)?;
        let half = |lower: &mut Self, from: usize| -> Result<String, TfLiteError> {
            let (mut at, mut len) = (fixed(&vec![0; shape.len()]), shape.to_vec());
            (at[last], len[last]) = (Dim::Fixed(from), Dim::Fixed(width / 2));
            lower.sliced(x, &at, &len)
        };
        let (a, b) = (half(self, 0)?, half(self, width / 2)?);
        let [ac, bs, bc, as_] =
            [(&a, &cos), (&b, &sin), (&b, &cos), (&a, &sin)].map(|(half, turn)| self.join(schema::MUL, half, turn));
        let first = self.join(schema::SUB, &ac, &bs);
        let second = self.join(schema::ADD, &bc, &as_);
        Ok(self.concatenated(&[&first, &second], last, shape.to_vec()))
    }
}

/// A number of sizes.
fn times(dim: &Dim, factor: usize) -> Dim {
    match dim {
        Dim::Fixed(number) => Dim::Fixed(number * factor),
        Dim::Product(own, symbols) => Dim::Product(own * factor, symbols.clone()),
        Dim::Sum(_) => unreachable!("queries are those of one input"),
    }
}
