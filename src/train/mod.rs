//! What training kinds share: optimizers, schedules, losses.
