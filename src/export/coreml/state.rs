//! What a language model has read, as state of the program: the caches of all layers in tensors of 16 bits, which Core ML has no
//! others of (coremltools 9: "State only support fp16 dtype"). A run writes its own keys and values behind those before them, and
//! reads as far as its tokens see. coremltools' `coreml_update_state` is written as two operations, `write_state` and `read_state`.

use super::lower::{Arg, Kind, Layer, Lower, value_type};
use super::{ARRAY_OF_HALVES, CoremlError, feature, identifier, proto};
use crate::export::graph::{Dim, Graph, Id, Kept};
use crate::export::view::{Seen, View};

/// The axes of what is kept: layers, texts, heads, positions, width.
const RANK: usize = 5;
const POSITIONS: usize = 3;
/// Those along which a slice has all.
const WHOLE: [bool; RANK] = [false, true, true, false, true];

/// Whether an input is added to the scores of attention.
pub(super) fn is_scores(graph: &Graph, input: &str) -> bool {
    graph.state.as_ref().is_some_and(|state| state.scores == input)
}

/// What the model says that it keeps.
pub(super) fn features(graph: &Graph) -> Vec<proto::Feature> {
    let kept = graph.state.iter().flat_map(|state| &state.kept).map(|kept| {
        let shape = kept.shape.iter().map(|length| *length as i64).collect();
        let array = proto::Array { shape, data_type: ARRAY_OF_HALVES, shape_range: None };
        feature(&kept.name, proto::FeatureKind::State(proto::StateFeature { array: Some(array) }))
    });
    kept.collect()
}

fn lengths(kept: &Kept) -> Vec<Dim> {
    kept.shape.iter().map(|length| Dim::Fixed(*length)).collect()
}

impl Lower<'_> {
    /// What is kept, as inputs of the function.
    pub(super) fn kept(&mut self) -> Vec<proto::NamedType> {
        let kept = self.graph.state.iter().flat_map(|state| &state.kept);
        let kept = kept.map(|kept| {
            let wrapped = Some(value_type(Kind::Float16, &lengths(kept)));
            let state_type = Some(Box::new(proto::StateType { wrapped }));
            let name = self.unique(&kept.name);
            proto::NamedType { name, r#type: Some(proto::ValueType { state_type, ..Default::default() }) }
        });
        kept.collect()
    }

    /// The layer whose cache an input is.
    pub(super) fn layer_of(&self, input: &str) -> Option<Layer> {
        let state = self.graph.state.as_ref()?;
        let of = |kept: &Kept| kept.caches.iter().position(|cache| cache == input);
        state.kept.iter().enumerate().find_map(|(at, kept)| Some(Layer { kept: at, layer: of(kept)? }))
    }

    /// Writes keys or values [texts, heads, tokens, width] behind those that a layer has: all of them, as they are kept.
    pub(super) fn keep(&mut self, layer: Layer, fresh: Id, axis: usize, shape: &[Dim]) -> Result<Seen, CoremlError> {
        let Layer { kept, layer } = layer;
        let kept = self.graph.state.as_ref().expect("it has layers").kept[kept].clone();
        if axis + 1 != POSITIONS {
            return Err(CoremlError::NoOperator {
                op: "concat",
                name: self.own.clone(),
                why: "what is kept goes on along its positions",
            });
        }
        let name = identifier(&kept.name);
        let fresh = self.plain(fresh)?;
        let fresh = self.cast(&fresh, Kind::Float16);
        let own = self.lengths(&fresh)[axis].clone();
        let fresh = self.expand_dims(&fresh, &[0]);
        let before = self.before(&own, &shape[axis])?;
        let all = self.size(&shape[axis])?;
        let begin = self.corner(layer, &before);
        let end = self.corner(layer + 1, &all);
        // The tensor as the layer before has left it; the first reads it.
        let key = format!("state {name}");
        let whole = match self.made.get(&key) {
            Some(whole) => whole.clone(),
            None => self.read_state(&name, &kept),
        };
        let args = [
            ("x", Arg::Of(&whole)),
            ("update", Arg::Of(&fresh)),
            ("begin", Arg::Of(&begin)),
            ("end", Arg::Of(&end)),
            ("begin_mask", Arg::Bools(&WHOLE)),
            ("end_mask", Arg::Bools(&WHOLE)),
        ];
        let written = self.op("slice_update", &args, Kind::Float16, lengths(&kept));
        self.act("write_state", &[("input", Arg::Of(&name)), ("data", Arg::Of(&written))]);
        let whole = self.read_state(&name, &kept);
        self.made.insert(key, whole.clone());
        let first = self.size(&Dim::Fixed(0))?;
        let begin = self.corner(layer, &first);
        let args = [
            ("x", Arg::Of(&whole)),
            ("begin", Arg::Of(&begin)),
            ("end", Arg::Of(&end)),
            ("begin_mask", Arg::Bools(&WHOLE)),
            ("end_mask", Arg::Bools(&WHOLE)),
        ];
        let of: Vec<Dim> = [Dim::Fixed(1)].into_iter().chain(shape.iter().cloned()).collect();
        let seen = self.op("slice_by_index", &args, Kind::Float16, of.clone());
        let seen = self.cast(&seen, self.float);
        Ok(Seen::plain(seen, of).seen(View::Reshape(shape.to_vec())))
    }

    fn read_state(&mut self, name: &str, kept: &Kept) -> String {
        self.op("read_state", &[("input", Arg::Of(name))], Kind::Float16, lengths(kept))
    }

    /// How many tokens were read before: of all, what is not a run's own.
    fn before(&mut self, own: &Dim, all: &Dim) -> Result<String, CoremlError> {
        let key = format!("before {own} of {all}");
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let (own, all) = (self.size(own)?, self.size(all)?);
        let made = self.two("sub", &all, &own);
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// A corner of a slice: a layer, and a position. Keys and values have the same.
    fn corner(&mut self, layer: usize, position: &str) -> String {
        let key = format!("corner {layer} {position}");
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let (layer, zero) = (self.literal(&Arg::Int(layer as i32)), self.literal(&Arg::Int(0)));
        let made = self.concat(&[&layer, &zero, &zero, position, &zero], 0, Kind::Int32, vec![Dim::Fixed(RANK)]);
        self.made.insert(key, made.clone());
        made
    }
}
