//! The picture tower of a model, whichever architecture it is of.
//!
//! It runs in two parts, before and after the first piece that is trained: what the first gives is the same at every
//! step, and computed once.

use super::efficientnet_lite::{self, Network};
use super::weights::Weights;
use super::{Config, clip};
use crate::backend::{Result, Tensor};

/// A picture tower that is ready to run.
pub struct Tower<T: Tensor>(Form<T>);

enum Form<T: Tensor> {
    EfficientnetLite(Box<Network<T>>, &'static str),
    Clip(Box<clip::Config>),
}

/// Pictures on their way through a tower.
#[derive(Clone, Debug)]
pub struct Midway<T> {
    /// Activations, a row for each picture.
    pub x: T,
    /// Averages of the pooled blocks passed so far, [n, their channels]; of an EfficientNet that pools any.
    pub averages: Option<T>,
}

impl<T: Tensor> Tower<T> {
    /// Of a model; none of one that only reads.
    pub fn new(weights: &Weights<T>, config: &Config) -> Result<Option<Self>> {
        let network = |config: &efficientnet_lite::Config, prefix| {
            Ok(Some(Self(Form::EfficientnetLite(Box::new(Network::new(weights, config, prefix)?), prefix))))
        };
        match config {
            Config::Bert(_) | Config::Llama(_) => Ok(None),
            Config::EfficientnetLite { network: config, .. } => network(config, ""),
            Config::DualEncoder { vision, .. } => network(vision, "vision."),
            Config::Clip(config) => Ok(Some(Self(Form::Clip(Box::new(config.clone()))))),
        }
    }

    /// How many pieces there are.
    pub fn depth(&self) -> usize {
        match &self.0 {
            Form::EfficientnetLite(network, _) => network.depth(),
            Form::Clip(config) => config.depth(),
        }
    }

    /// The piece that a module belongs to; none of another tower's, nor of what follows the last piece.
    pub fn piece(&self, module: &str) -> Option<usize> {
        match &self.0 {
            Form::EfficientnetLite(_, prefix) => {
                module.strip_prefix(prefix)?.strip_prefix("_blocks.")?.split('.').next()?.parse().ok()
            }
            Form::Clip(config) => config.piece(module),
        }
    }

    /// Pictures [n, size, size, 3] through the pieces before `until`.
    pub fn prefix(&self, weights: &Weights<T>, pictures: &T, until: usize) -> Result<Midway<T>> {
        match &self.0 {
            Form::EfficientnetLite(network, _) => network.prefix(weights, pictures, until),
            Form::Clip(config) => {
                let vision = &config.vision_config;
                let x = clip::pieces(weights, vision, &clip::patches(vision, pictures)?, 0, until)?;
                Ok(Midway { x, averages: None })
            }
        }
    }

    /// The pieces from `from` to the end: -> features [n, width].
    pub fn tail(&self, weights: &Weights<T>, midway: Midway<T>, from: usize) -> Result<T> {
        match &self.0 {
            Form::EfficientnetLite(network, _) => network.tail(weights, midway, from),
            Form::Clip(config) => {
                let vision = &config.vision_config;
                clip::pool(weights, vision, &clip::pieces(weights, vision, &midway.x, from, config.depth())?)
            }
        }
    }
}
