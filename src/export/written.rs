//! What a writer gives, and what runs it.

use std::path::Path;

use rten_tensor::prelude::*;
use rten_tensor::{Tensor as Dense, TensorView};

use super::graph::Id;
use super::source::Tensors;
use super::view::{Seen, View};
use crate::failure::Failure;
use crate::util::fs;

/// Along an axis the place of the highest, of equal ones the first. rten takes the last.
pub(super) fn first_of_highest(
    values: &TensorView<'_, i32>,
    axis: isize,
    keeps_axis: bool,
) -> Result<Dense<i32>, String> {
    let rank = values.ndim() as isize;
    let at = usize::try_from(if axis < 0 { rank + axis } else { axis }).map_err(|e| e.to_string())?;
    let shape = values.shape();
    if shape.get(at).is_none_or(|length| *length == 0) {
        return Err(format!("no highest along axis {axis} of {shape:?}"));
    }
    let places = values.lanes(at).map(|lane| {
        let mut best = (0, i32::MIN);
        for (place, value) in lane.enumerate() {
            if place == 0 || *value > best.1 {
                best = (place as i32, *value);
            }
        }
        best.0
    });
    let mut to = shape.to_vec();
    if keeps_axis {
        to[at] = 1;
    } else {
        to.remove(at);
    }
    Ok(Dense::from_data(&to, places.collect::<Vec<_>>()))
}

/// A written model in memory.
#[derive(Debug)]
pub struct Written {
    /// Its files by their paths in the artifact, the model's own first.
    pub files: Vec<(String, Vec<u8>)>,
    /// Where in it the graph's values are.
    pub places: Vec<Place>,
}

impl Written {
    /// Writes all files.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        for (path, bytes) in &self.files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("it is in the directory"))?;
            fs::write(&path, bytes)?;
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// The bytes of a file, where it is one of them.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.iter().find(|(own, _)| own == path).map(|(_, bytes)| &bytes[..])
    }
}

/// A value of the graph as it was written.
#[derive(Clone, Debug)]
pub struct Place {
    /// The value.
    pub id: Id,
    /// The name of the tensor that has it.
    pub tensor: String,
    /// Its axes.
    pub rank: usize,
    /// How the tensor is to be turned to be the value; empty where it is as it is. Its shape may be another.
    pub turned: Vec<Vec<usize>>,
}

impl Place {
    /// Of a tensor that is seen as the value; none where it cannot be told from it.
    pub(in crate::export) fn of(id: Id, seen: &Seen) -> Option<Self> {
        let views = &seen.views;
        // After a reshape the order of values is the same, and none can be turned.
        let turns = views.iter().take_while(|view| matches!(view, View::Turn(_))).count();
        let turned = views[..turns].iter().map(|view| match view {
            View::Turn(order) => order.clone(),
            View::Reshape(_) => unreachable!("only turns were counted"),
        });
        let all = views[turns..].iter().all(|view| matches!(view, View::Reshape(_)));
        all.then(|| Self { id, tensor: seen.base.clone(), rank: seen.of.len(), turned: turned.collect() })
    }
}

/// The length of each axis, and the values.
pub type Array = (Vec<usize>, Vec<f32>);

/// What runs a written model, and shares no code with its writer.
pub trait Program {
    /// Its name and version, as a record has it.
    fn name(&self) -> String;

    /// Whether a tensor can be asked for.
    fn has(&self, tensor: &str) -> bool;

    /// Whether what is computed on the way can be asked for, of a file that was opened so.
    fn is_open_inside(&self) -> bool {
        true
    }

    /// The values of tensors, of so many axes each.
    fn run(&self, inputs: &[Tensors], tensors: &[(&str, usize)]) -> Result<Vec<Array>, Failure>;

    /// The same of runs one after the other, by a state that goes on where the model has one.
    fn steps(&self, steps: &[&[Tensors]], tensors: &[(&str, usize)]) -> Result<Vec<Vec<Array>>, Failure> {
        steps.iter().map(|inputs| self.run(inputs, tensors)).collect()
    }
}
