//! How far one thing is that takes longer than a second.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::style;
use crate::util::text::bytes;

/// It appears after this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Without a terminal a line is said this often.
const COUNTER_EVERY: Duration = Duration::from_secs(10);

/// One line of progress, in bytes: at the bottom of a terminal, else every so often.
pub struct Meter {
    is_shown: bool,
    since: Instant,
    counted: Instant,
    bar: Option<ProgressBar>,
}

impl Meter {
    /// One that has not begun to show anything; some never do.
    pub fn new(is_shown: bool) -> Self {
        Self { is_shown, since: Instant::now(), counted: Instant::now(), bar: None }
    }

    /// So much is done of what is known by now.
    pub fn show(&mut self, what: &str, done: u64, total: u64) {
        if !self.is_shown || self.since.elapsed() < PATIENCE {
            return;
        }
        let speed = bytes((done as f64 / self.since.elapsed().as_secs_f64()) as u64);
        let text = format!("{what} {} of {}, {speed}/s", bytes(done), bytes(total));
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
                let template = "{bar:16.green/dim} {wide_msg}";
                let bar_style = ProgressStyle::with_template(template).expect("a plain template");
                bar.with_style(bar_style.progress_chars("━━─"))
            });
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(style::dim(&text));
        } else if self.counted.elapsed() >= COUNTER_EVERY {
            self.counted = Instant::now();
            let _ = writeln!(anstream::stderr(), "{}", style::dim(&text));
        }
    }

    /// Says something else meanwhile.
    pub fn aside(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    /// It is done.
    pub fn end(self) {
        self.bar.into_iter().for_each(|bar| bar.finish_and_clear());
    }
}
