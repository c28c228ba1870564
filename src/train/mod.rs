//! What training kinds share: optimizers, schedules, losses, formats of adapters.

pub mod contrastive;
pub mod divergence;
pub mod language;
pub mod method;
pub mod mlx_lm;
pub mod optim;
pub mod peft;
pub mod step;
pub mod text;
