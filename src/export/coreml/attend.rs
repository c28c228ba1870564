//! What looks at texts: masks, positions, attention.

use super::CoremlError;
use super::lower::{Arg, Entry, Kind, Lower};
use crate::backend::texts::Mark;
use crate::export::graph::{Dim, Id, Value};
use crate::export::view::{Seen, View};

impl Lower<'_> {
    /// The integers from one to before another, both tensors of one integer.
    fn range(&mut self, from: &str, until: &str, step: i32, length: &Dim) -> String {
        let args = [("start", Arg::Of(from)), ("end", Arg::Of(until)), ("step", Arg::Int(step))];
        self.op("range_1d", &args, Kind::Int32, vec![length.clone()])
    }

    /// Where the marked token of each text is: [texts, 2], the text and the token.
    pub(super) fn place_of(&mut self, ids: &str, mark: Mark, texts: &Dim) -> Result<String, CoremlError> {
        let key = format!("place {ids} {mark:?}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let wanted = match mark {
            Mark::Highest => {
                let args = [("x", Arg::Of(ids)), ("axes", Arg::Ints(&[1])), ("keep_dims", Arg::Bool(true))];
                self.op("reduce_max", &args, Kind::Int32, vec![texts.clone(), Dim::Fixed(1)])
            }
            Mark::First(id) => self.size(&Dim::Fixed(id as usize))?,
        };
        let same = self.two("equal", ids, &wanted);
        let same = self.cast(&same, Kind::Int32);
        // Which of several is found is not said: the first of them has the highest number.
        let (zero, length) = (self.size(&Dim::Fixed(0))?, self.lengths(ids)[1].clone());
        let longest = self.size(&length)?;
        let falling = self.range(&longest, &zero, -1, &length);
        let first = self.two("mul", &same, &falling);
        let mut args = vec![("x", Arg::Of(&first)), ("axis", Arg::Int(1)), ("keep_dims", Arg::Bool(true))];
        if self.target > super::Target::IOS16 {
            args.push(("output_dtype", Arg::Text("int32")));
        }
        let place = self.op("reduce_argmax", &args, Kind::Int32, vec![texts.clone(), Dim::Fixed(1)]);
        let count = self.size(texts)?;
        let rows = self.range(&zero, &count, 1, texts);
        let rows = self.expand_dims(&rows, &[1]);
        let made = self.concat(&[&rows, &place], 1, Kind::Int32, vec![texts.clone(), Dim::Fixed(2)]);
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// A score that no other is as low as; two of them are no infinity yet.
    fn least(&self) -> f32 {
        if self.float == Kind::Float16 { -3e4 } else { -1e38 }
    }

    /// What is added to the scores of keys that are padding: [texts, 1, 1, keys].
    fn padding(&mut self, mask: &str) -> String {
        let key = format!("padding {mask}");
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let mask = self.cast(mask, self.float);
        let seen = self.expand_dims(&mask, &[1, 2]);
        let hidden = self.with_number("sub", &seen, 1.0);
        let made = self.with_number("mul", &hidden, -self.least());
        self.made.insert(key, made.clone());
        made
    }

    /// What is added to the scores of keys that are later than their query: [queries, keys].
    fn later(&mut self, queries: &Dim, keys: &Dim) -> Result<String, CoremlError> {
        let key = format!("later {queries} {keys}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let zero = self.size(&Dim::Fixed(0))?;
        let (all, own) = (self.size(keys)?, self.size(queries)?);
        let before = if queries == keys { zero.clone() } else { self.two("sub", &all, &own) };
        let of_query = self.range(&before, &all, 1, queries);
        let of_key = self.range(&zero, &all, 1, keys);
        let of_query = self.expand_dims(&of_query, &[1]);
        let late = self.two("greater", &of_key, &of_query);
        let late = self.cast(&late, self.float);
        let made = self.with_number("mul", &late, self.least());
        self.made.insert(key, made.clone());
        Ok(made)
    }

    pub(super) fn attention(
        &mut self,
        value: &Value,
        mask: Option<&str>,
        causal: bool,
        scale: f32,
    ) -> Result<Seen, CoremlError> {
        let [q, k, v] = [0, 1, 2].map(|i| value.inputs[i]);
        let of = |id: Id| &self.graph.values[id].shape;
        let (queries, keys) = (of(q)[2].clone(), of(k)[2].clone());
        let [heads, kv_heads] = [q, k].map(|id| of(id)[1].fixed().expect("heads are fixed"));
        let (q_shape, k_shape) = (of(q).clone(), of(k).clone());
        // Heads that share one of keys have an axis of their own, along which the keys are the same.
        let grouped = heads != kv_heads;
        let with_group = |shape: &[Dim], heads: usize, group: usize| {
            let groups = [shape[0].clone(), Dim::Fixed(heads), Dim::Fixed(group)];
            groups.into_iter().chain(shape[2..].iter().cloned()).collect::<Vec<Dim>>()
        };
        let (mut q, mut k, mut v) = (self.seen(q)?, self.seen(k)?, self.seen(v)?);
        if grouped {
            q = q.seen(View::Reshape(with_group(&q_shape, kv_heads, heads / kv_heads)));
            k = k.seen(View::Reshape(with_group(&k_shape, kv_heads, 1)));
            v = v.seen(View::Reshape(with_group(&k_shape, kv_heads, 1)));
        }
        let mut of_scores = q.shape();
        *of_scores.last_mut().expect("it has axes") = keys.clone();
        let (q, k, v) = (self.tensor(&q)?, self.tensor(&k)?, self.tensor(&v)?);
        let q = self.with_number("mul", &q, scale);
        let mut scores = self.matmul(&q, &k, true, of_scores);
        let says_all = mask.is_some_and(|mask| super::state::is_scores(self.graph, mask));
        if let Some(mask) = mask {
            let mask = super::identifier(mask);
            let mut padding = if says_all { self.cast(&mask, self.float) } else { self.padding(&mask) };
            if grouped {
                padding = self.expand_dims(&padding, &[1]);
            }
            scores = self.two("add", &scores, &padding);
        }
        if causal && !says_all && queries != Dim::Fixed(1) {
            let later = self.later(&queries, &keys)?;
            scores = self.two("add", &scores, &later);
        }
        let weights = self.one("softmax", &scores, &[("axis", Arg::Int(-1))]);
        let shape = if grouped { with_group(&value.shape, kv_heads, heads / kv_heads) } else { value.shape.clone() };
        let mixed = self.matmul(&weights, &v, false, shape.clone());
        Ok(Seen::plain(mixed, shape).seen(View::Reshape(value.shape.clone())))
    }

    /// The cosines and sines of positions, [length, width / 2] each; the same for all layers.
    fn turns(&mut self, length: &Dim, offset: &Dim, width: usize, base: f32) -> Result<[String; 2], CoremlError> {
        let key = format!("turns {length} {offset} {width} {base}");
        let keys = ["cos", "sin"].map(|which| format!("{key} {which}"));
        if let [Some(cos), Some(sin)] = [0, 1].map(|i| self.made.get(&keys[i])) {
            return Ok([cos.clone(), sin.clone()]);
        }
        let half = width / 2;
        let frequencies: Vec<f32> = (0..half).map(|i| 1.0 / base.powf(2.0 * i as f32 / width as f32)).collect();
        // In 32 bits always: positions beyond 2048 are no numbers of 16 bits.
        let frequencies = self.floats_of("frequencies", &[half], &frequencies, Kind::Float32)?;
        let (from, len) = (self.size(offset)?, self.size(length)?);
        let until = self.two("add", &from, &len);
        let positions = self.range(&from, &until, 1, length);
        let positions = self.cast(&positions, Kind::Float32);
        let positions = self.expand_dims(&positions, &[1]);
        let angles = self.two("mul", &positions, &frequencies);
        let made = ["cos", "sin"].map(|which| {
            let turn = self.one(which, &angles, &[]);
            self.cast(&turn, self.float)
        });
        for (key, made) in keys.into_iter().zip(&made) {
            self.made.insert(key, made.clone());
        }
        Ok(made)
    }

    /// The halves of each row turn with one another.
    pub(super) fn rope(&mut self, x: &str, shape: &[Dim], offset: &Dim, base: f32) -> Result<String, CoremlError> {
        let last = shape.len() - 1;
        let width = shape[last].fixed().expect("widths are fixed");
        let [cos, sin] = self.turns(&shape[last - 1], offset, width, base)?;
        let mut of_half = shape.to_vec();
        of_half[last] = Dim::Fixed(width / 2);
        let [a, b] = [[0, width / 2], [width / 2, width]]
            .map(|[from, until]| self.slice(x, last, &Entry::Known(from), &Entry::Known(until), of_half.clone()));
        let [ac, bs, bc, as_] =
            [(&a, &cos), (&b, &sin), (&b, &cos), (&a, &sin)].map(|(half, turn)| self.two("mul", half, turn));
        let first = self.two("sub", &ac, &bs);
        let second = self.two("add", &bc, &as_);
        Ok(self.concat(&[&first, &second], -1, self.float, shape.to_vec()))
    }
}
