//! The next-token loss, and the order in which examples are seen.

use super::text::Example;
use crate::backend::rng::Rng;
use crate::backend::{Result, Tensor};
use crate::model::llama;
use crate::model::weights::Weights;

/// Batches whose examples are sorted by length together: rows of a batch are then about as long as each other, and what
/// is seen when stays random.
const BUCKET: usize = 16;

/// The loss of each token that counts, in nats: `[targets]`, the examples' one after the other.
pub fn token_losses<T: Tensor>(weights: &Weights<T>, config: &llama::Config, batch: &[&Example]) -> Result<T> {
    // Nothing is predicted from the last token.
    let ids: Vec<Vec<u32>> = batch.iter().map(|e| e.ids[..e.ids.len() - 1].to_vec()).collect();
    let length = ids.iter().map(Vec::len).max().unwrap_or(0);
    let x = llama::encode(weights, config, &ids, None)?.reshape(&[ids.len() * length, config.hidden_size])?;
    let (mut places, mut targets) = (Vec::new(), Vec::new());
    for (row, example) in batch.iter().enumerate() {
        for (i, id) in example.ids.iter().enumerate().skip(1).filter(|(i, _)| example.counts[*i]) {
            places.push((row * length + i - 1) as u32);
            targets.push(*id);
        }
    }
    x.take_rows(&places)?.cross_entropy(llama::head(weights, config)?, &targets)
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
