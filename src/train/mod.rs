//! What training kinds share: optimizers, schedules, losses, formats of adapters.

pub mod contrastive;
pub mod optim;
pub mod peft;
