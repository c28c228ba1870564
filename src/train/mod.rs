//! What training kinds share: optimizers, schedules, losses, formats of adapters.

pub mod optim;
pub mod peft;
pub mod contrastive;
