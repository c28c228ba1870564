//! `--json`: each event as one object a line on stdout, with the schema's version.

use std::io::Write;

use super::Watcher;
use crate::event::Event;

/// Raised when a field changes its meaning or goes; new fields may come without.
const VERSION: u32 = 1;

/// Writes events as they come.
#[derive(Debug)]
pub struct Json;

#[derive(serde::Serialize)]
struct Versioned<'a> {
    version: u32,
    #[serde(flatten)]
    event: &'a Event,
}

impl Watcher for Json {
    fn see(&mut self, event: &Event) {
        let mut out = std::io::stdout().lock();
        let _ = serde_json::to_writer(&mut out, &Versioned { version: VERSION, event });
        let _ = writeln!(out);
    }

    fn end(&mut self) {
        let _ = std::io::stdout().flush();
    }
}
