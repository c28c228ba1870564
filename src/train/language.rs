//! A language model that learns: its next-token loss, and the order in which examples are seen.

use std::path::Path;

use super::text::{Example, Examples, Reader};
use crate::backend::rng::Rng;
use crate::backend::{self, Tensor};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::format::tensors::Arrays;
use crate::model::chat::Chat;
use crate::model::weights::Weights;
use crate::model::{Checkpoint, Config, Model, llama};

/// Batches whose examples are sorted by length together: rows of a batch are then about as long as each other, and what
/// is seen when stays random.
const BUCKET: usize = 16;

/// A language model with its tokenizer and chat template.
pub struct Language<T: Tensor> {
    /// The model.
    pub model: Model<T>,
    /// Its shape.
    pub config: llama::Config,
    /// Its chat template, where it has one.
    pub chat: Option<Chat>,
}

impl<T: Tensor> Language<T> {
    /// Opens a directory; `label` is for the error where it is something else.
    pub fn open(dir: &Path, base: Option<&Path>, label: &str) -> Result<(Self, Arrays), Failure> {
        let checkpoint = Checkpoint::open_as_codes(dir, base)?;
        let Config::Llama(config) = checkpoint.config.clone() else {
            return Err(Failure::user(format!("{label} is not a language model"))
                .help("name a model of architecture \"llama\""));
        };
        let model = Model::new(&checkpoint)?;
        let chat = Chat::open(base.unwrap_or(dir))?;
        Ok((Self { model, config, chat }, checkpoint.arrays))
    }

    /// The tokens of a text, as it is.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, Failure> {
        self.model.tokenizer()?.ids(text, false)
    }

    /// The records of a split as examples.
    pub fn examples(&self, data: &Dataset, split: &str, length_max: usize) -> Result<Examples, Failure> {
        let length_max = length_max.min(self.config.max_position_embeddings);
        let reader =
            Reader { tokenizer: self.model.tokenizer()?, chat: self.chat.as_ref(), config: &self.config, length_max };
        reader.examples(&data.rows(split)?, split)
    }

    /// The mean loss of each example's tokens that count, in nats, and how many those are.
    pub fn losses(&self, examples: &[Example], told: &mut dyn FnMut(usize)) -> Result<Vec<(f64, usize)>, Failure> {
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by_key(|i| (examples[*i].ids.len(), *i));
        let mut all = vec![(0.0, 0); examples.len()];
        let mut done = 0;
        for chunk in order.chunks(EVALUATED) {
            let batch: Vec<&Example> = chunk.iter().map(|i| &examples[*i]).collect();
            let losses = token_losses(&self.model.weights, &self.config, &batch, false)?.to_f32()?;
            let mut rest = losses.as_slice();
            for i in chunk {
                let (own, after) = rest.split_at(examples[*i].targets());
                all[*i] = (own.iter().map(|l| f64::from(*l)).sum::<f64>() / own.len() as f64, own.len());
                rest = after;
            }
            done += chunk.len();
            told(done);
        }
        Ok(all)
    }
}

/// Examples whose losses are computed at once.
const EVALUATED: usize = 8;

/// The loss of each token that counts, in nats: `[targets]`, the examples' one after the other. Packed, nothing is padded.
pub fn token_losses<T: Tensor>(
    weights: &Weights<T>,
    config: &llama::Config,
    batch: &[&Example],
    packed: bool,
) -> backend::Result<T> {
    // Nothing is predicted from the last token.
    let ids: Vec<Vec<u32>> = batch.iter().map(|e| e.ids[..e.ids.len() - 1].to_vec()).collect();
    let length = ids.iter().map(Vec::len).max().unwrap_or(0);
    let (x, begins): (T, Vec<usize>) = if packed {
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let begins = backend::segments(&lengths).map(|(start, _)| start).collect();
        (llama::encode_packed(weights, config, &ids)?, begins)
    } else {
        let x = llama::encode(weights, config, &ids, None)?.reshape(&[ids.len() * length, config.hidden_size])?;
        (x, (0..ids.len()).map(|row| row * length).collect())
    };
    let (mut places, mut targets) = (Vec::new(), Vec::new());
    for (begin, example) in begins.iter().zip(batch) {
        for (i, id) in example.ids.iter().enumerate().skip(1).filter(|(i, _)| example.counts[*i]) {
            places.push((begin + i - 1) as u32);
            targets.push(*id);
        }
    }
    weights.cross_entropy(llama::head(config), &x.take_rows(&places)?, &targets)
}

/// Which examples each step sees: every example once an epoch, in an order of that epoch.
#[derive(Debug)]
pub struct Order {
    lengths: Vec<usize>,
    batch: usize,
    seed: u64,
    epoch: Option<(u64, Vec<Vec<usize>>)>,
}

impl Order {
    /// Of examples of these lengths.
    pub fn new(lengths: Vec<usize>, batch: usize, seed: u64) -> Self {
        Self { lengths, batch, seed, epoch: None }
    }

    /// Steps of an epoch.
    pub fn steps(&self) -> u64 {
        self.lengths.len().div_ceil(self.batch) as u64
    }

    /// The examples of a step; depends on nothing that came before it.
    pub fn at(&mut self, step: u64) -> Vec<usize> {
        let (epoch, place) = (step / self.steps(), (step % self.steps()) as usize);
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.epoch = Some((epoch, self.batches(epoch)));
        }
        self.epoch.as_ref().map(|(_, batches)| batches[place].clone()).unwrap_or_default()
    }

    fn batches(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut rng = Rng::new(self.seed, &format!("order of epoch {epoch}"));
        let mut order = rng.permutation(self.lengths.len());
        for bucket in order.chunks_mut(BUCKET * self.batch) {
            bucket.sort_by_key(|i| self.lengths[*i]);
        }
        let batches: Vec<Vec<usize>> = order.chunks(self.batch).map(<[usize]>::to_vec).collect();
        rng.permutation(batches.len()).into_iter().map(|i| batches[i].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_each_example_once_and_like_lengths_together() {
        let lengths: Vec<usize> = (0..103).map(|i| i * 37 % 101).collect();
        let mut order = Order::new(lengths.clone(), 4, 7);
        let steps = order.steps();
        let mut seen: Vec<usize> = (0..steps).flat_map(|step| order.at(step)).collect();
        let spread = |batch: &[usize]| {
            let of = || batch.iter().map(|i| lengths[*i]);
            of().max().unwrap_or(0) - of().min().unwrap_or(0)
        };
        let mean: usize = (0..steps).map(|step| spread(&order.at(step))).sum::<usize>() / steps as usize;
        assert!(mean < 20, "{mean}");
        seen.sort_unstable();
        assert_eq!(seen, (0..103).collect::<Vec<_>>());
        let again = Order::new(lengths, 4, 7).at(steps + 3);
        assert_eq!(order.at(steps + 3), again, "whatever was asked for before");
    }
}
