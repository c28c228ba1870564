//! A language model that learns: its next-token loss, and the order in which examples are seen.

use std::path::Path;

use super::text::{Example, Examples, Reader};
use crate::backend::arrays::Arrays;
use crate::backend::rng::Rng;
use crate::backend::{self, Precision, Tensor, kernels};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::model::chat::Chat;
use crate::model::llama::{self, Stages};
use crate::model::weights::Weights;
use crate::model::{Checkpoint, Config, Model};

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
        Ok((Self::of(&checkpoint, base.unwrap_or(dir), label)?, checkpoint.arrays))
    }

    /// Of a checkpoint that is read already, whose chat template is in `dir`.
    pub fn of(checkpoint: &Checkpoint, dir: &Path, label: &str) -> Result<Self, Failure> {
        let config = config_of(checkpoint, label)?;
        Ok(Self { model: Model::new(checkpoint)?, config, chat: Chat::open(dir)? })
    }

    /// The same in a precision; the arrays are no more needed, and emptied on the way.
    pub fn take(checkpoint: &mut Checkpoint, dir: &Path, label: &str, precision: Precision) -> Result<Self, Failure> {
        let config = config_of(checkpoint, label)?;
        Ok(Self { model: Model::take(checkpoint, precision)?, config, chat: Chat::open(dir)? })
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
        let mut all = vec![(0.0, 0); examples.len()];
        let mut done = 0;
        for chunk in by_length(examples).chunks(EVALUATED) {
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

/// What a model foresees of an example, token by token that counts.
#[derive(Clone, Copy, Debug)]
pub struct Foreseen {
    /// How many tokens count.
    pub tokens: usize,
    /// Their mean loss, in nats.
    pub loss: f64,
    /// The share of them that were the most likely.
    pub accuracy: f64,
    /// How far the predictions are from another model's, where one was given.
    pub apart: Option<Apart>,
}

/// How far a model's predictions of an example are from another's.
#[derive(Clone, Copy, Debug)]
pub struct Apart {
    /// The mean Kullback-Leibler divergence from the other's, in nats.
    pub divergence: f64,
    /// The share of the tokens that count whose most likely token is the other's.
    pub same_top: f64,
}

/// What foresees tokens: a model of a backend, or a file that another program runs.
pub trait Foresees {
    /// How many tokens it knows.
    fn vocabulary(&self) -> usize;

    /// Examples that are read at once.
    fn at_once(&self) -> usize;

    /// Reads examples.
    fn read<'a>(&'a self, batch: &[&Example]) -> Result<Box<dyn Rows + 'a>, Failure>;
}

/// Examples that were read.
pub trait Rows {
    /// Their tokens that count, the examples' one after the other.
    fn targets(&self) -> &[u32];

    /// The logits that some of those are foreseen by: [count, vocabulary].
    fn logits(&self, begin: usize, count: usize) -> Result<Vec<f32>, Failure>;
}

/// What is foreseen of each example; and how far that is from the predictions of another of the same vocabulary.
pub fn foresees(
    own: &dyn Foresees,
    against: Option<&dyn Foresees>,
    examples: &[Example],
    told: &mut dyn FnMut(usize),
) -> Result<Vec<Foreseen>, Failure> {
    let width = own.vocabulary();
    if let Some(theirs) = against.map(Foresees::vocabulary).filter(|theirs| *theirs != width) {
        return Err(Failure::user(format!("the models know {width} and {theirs} tokens: they do not compare"))
            .help("hold a model against the one it was made of"));
    }
    let at_once = against.map_or(EVALUATED, Foresees::at_once).min(own.at_once());
    let mut all = vec![None; examples.len()];
    let mut done = 0;
    for chunk in by_length(examples).chunks(at_once) {
        let batch: Vec<&Example> = chunk.iter().map(|i| &examples[*i]).collect();
        let own = own.read(&batch)?;
        let theirs = against.map(|other| other.read(&batch)).transpose()?;
        let (mut found, mut apart) = (Vec::new(), Vec::new());
        for begin in (0..own.targets().len()).step_by(COMPARED) {
            let targets = &own.targets()[begin..(begin + COMPARED).min(own.targets().len())];
            let q = own.logits(begin, targets.len())?;
            let tokens = kernels::foreseen(&q, width, targets);
            if let Some(theirs) = &theirs {
                let p = theirs.logits(begin, targets.len())?;
                let others = kernels::foreseen(&p, width, targets);
                let same = tokens.iter().zip(others).map(|(own, other)| own.1 == other.1);
                apart.extend(kernels::divergences(&p, &q, width).into_iter().zip(same));
            }
            found
                .extend(tokens.into_iter().zip(targets).map(|((loss, top), target)| (f64::from(loss), top == *target)));
        }
        let (mut found, mut apart) = (found.as_slice(), apart.as_slice());
        for i in chunk {
            let tokens = examples[*i].targets();
            let (own, after) = found.split_at(tokens);
            found = after;
            let (loss, accuracy) = means(own);
            let apart = against.is_some().then(|| {
                let (own, after) = apart.split_at(tokens);
                apart = after;
                let (divergence, same_top) = means(own);
                Apart { divergence, same_top }
            });
            all[*i] = Some(Foreseen { tokens, loss, accuracy, apart });
        }
        done += chunk.len();
        told(done);
    }
    Ok(all.into_iter().flatten().collect())
}

impl<T: Tensor> Foresees for Language<T> {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn at_once(&self) -> usize {
        EVALUATED
    }

    fn read<'a>(&'a self, batch: &[&Example]) -> Result<Box<dyn Rows + 'a>, Failure> {
        let task = Task::new(&self.config, batch, false)?;
        let vectors = task.stages.run(&self.model.weights)?.take_rows(&task.places)?;
        Ok(Box::new(Vectors { language: self, vectors, head: task.head, targets: task.targets }))
    }
}

/// The means of numbers and of what holds.
fn means(tokens: &[(f64, bool)]) -> (f64, f64) {
    let n = tokens.len() as f64;
    (tokens.iter().map(|t| t.0).sum::<f64>() / n, tokens.iter().filter(|t| t.1).count() as f64 / n)
}

/// The vectors from which a model foresees the tokens of examples that count.
struct Vectors<'a, T: Tensor> {
    language: &'a Language<T>,
    /// [targets, width]
    vectors: T,
    head: &'static str,
    targets: Vec<u32>,
}

impl<T: Tensor> Rows for Vectors<'_, T> {
    fn targets(&self) -> &[u32] {
        &self.targets
    }

    fn logits(&self, begin: usize, count: usize) -> Result<Vec<f32>, Failure> {
        Ok(self.language.model.weights.linear(self.head, &self.vectors.narrow(0, begin, count)?)?.to_f32()?)
    }
}

/// The examples' numbers, by their lengths.
fn by_length(examples: &[Example]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|i| (examples[*i].ids.len(), *i));
    order
}

/// Tokens whose logits are held at once: two of each for every token known.
const COMPARED: usize = 64;

/// Examples whose losses are computed at once.
const EVALUATED: usize = 8;

/// A checkpoint's shape; `label` is for the error where it is of something else.
pub fn config_of(checkpoint: &Checkpoint, label: &str) -> Result<llama::Config, Failure> {
    match &checkpoint.config {
        Config::Llama(config) => Ok(config.clone()),
        _ => {
            Err(Failure::user(format!("{label} is not a language model"))
                .help("name a model of architecture \"llama\""))
        }
    }
}

/// The loss of each token that counts, in nats: `[targets]`, the examples' one after the other. Packed, nothing is padded.
pub fn token_losses<T: Tensor>(
    weights: &Weights<T>,
    config: &llama::Config,
    batch: &[&Example],
    packed: bool,
) -> backend::Result<T> {
    let task = Task::new(config, batch, packed)?;
    task.losses(weights, &task.stages.run(weights)?)
}

/// What a model does with some examples: it reads their tokens, and is to foresee those that count.
pub struct Task<'a> {
    /// The pass over what it reads.
    pub stages: Stages<'a>,
    head: &'static str,
    /// Rows of [`Stages::end`] from which a token that counts is foreseen, and those tokens.
    places: Vec<u32>,
    targets: Vec<u32>,
}

impl<'a> Task<'a> {
    /// Of these examples.
    pub fn new(config: &'a llama::Config, batch: &[&Example], packed: bool) -> backend::Result<Self> {
        // Nothing is predicted from the last token.
        let ids: Vec<Vec<u32>> = batch.iter().map(|e| e.ids[..e.ids.len() - 1].to_vec()).collect();
        let stages = Stages::new(config, &ids, packed)?;
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (begin, example) in stages.begins().iter().zip(batch) {
            for (i, id) in example.ids.iter().enumerate().skip(1).filter(|(i, _)| example.counts[*i]) {
                places.push((begin + i - 1) as u32);
                targets.push(*id);
            }
        }
        Ok(Self { stages, head: llama::head(config), places, targets })
    }

    /// The loss of each token that counts, of what [`Stages::end`] gave.
    pub fn losses<T: Tensor>(&self, weights: &Weights<T>, x: &T) -> backend::Result<T> {
        weights.cross_entropy(self.head, &x.take_rows(&self.places)?, &self.targets)
    }

    /// The logits that each token that counts is foreseen by, of what [`Stages::end`] gave: `[targets, vocabulary]`.
    pub fn logits<T: Tensor>(&self, weights: &Weights<T>, x: &T) -> backend::Result<T> {
        weights.linear(self.head, &x.take_rows(&self.places)?)
    }

    /// The module of the last matrix.
    pub fn head(&self) -> &'static str {
        self.head
    }
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
