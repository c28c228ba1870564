//! Consumers of events. Each reads the same stream; what they say is their only difference.

mod json;
mod lines;
mod meter;
pub mod style;

pub use json::Json;
pub use lines::{Lines, Progress, Settings, Shown};
pub use meter::Meter;

use crate::event::Event;
use crate::failure::Class;

/// Watches a build.
pub trait Watcher {
    /// Something happened.
    fn see(&mut self, event: &Event);
    /// The build is over; nothing more is said.
    fn end(&mut self);
    /// The class of the failures seen, for the exit code: a target's own before the machine's.
    fn worst(&self) -> Option<Class> {
        None
    }
}
