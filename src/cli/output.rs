//! The two streams. Stdout carries results that a program may read; everything else goes to stderr.

use std::io::{IsTerminal, Write};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use super::Global;
use crate::ui::style;

/// Where commands write.
#[derive(Clone, Debug)]
pub struct Output {
    /// Results as JSON lines.
    pub json: bool,
    /// Only what went wrong.
    pub quiet: bool,
    /// More.
    pub verbose: bool,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet, verbose: global.verbose }
    }

    /// A line of the result. A closed pipe is not an error.
    pub fn line(&self, text: &str) {
        let _ = writeln!(anstream::stdout(), "{}", text.trim_end_matches('\n'));
    }

    /// Bytes of the result, as they are.
    pub fn raw(&self, bytes: &[u8]) {
        let _ = std::io::stdout().lock().write_all(bytes);
    }

    /// A JSON object of the result.
    pub fn object(&self, value: &impl serde::Serialize) {
        let mut out = std::io::stdout().lock();
        let _ = serde_json::to_writer(&mut out, value);
        let _ = writeln!(out);
    }

    /// A line for people.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }

    /// What went wrong, and the next step.
    pub fn error(&self, message: &str, help: Option<&str>) {
        let mut err = anstream::stderr();
        let _ = writeln!(err, "{}{}", style::red("error: "), message);
        if let Some(help) = help {
            let _ = writeln!(err, "{}{}", style::cyan("help: "), help.replace('\n', "\n      "));
        }
    }

    /// A mistake with its place in the recipe.
    pub fn diagnostic(&self, diagnostic: &dyn Diagnostic) {
        let terminal = std::io::stderr().is_terminal();
        let theme = match anstream::AutoStream::choice(&std::io::stderr()) {
            anstream::ColorChoice::Never => GraphicalTheme::unicode_nocolor(),
            _ if terminal => GraphicalTheme::unicode(),
            _ => GraphicalTheme::unicode_nocolor(),
        };
        let mut text = String::new();
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(100);
        if handler.render_report(&mut text, diagnostic).is_ok() {
            let _ = write!(anstream::stderr(), "{text}");
        }
    }
}
