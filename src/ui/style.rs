//! Colours, as STYLE asks: green success, red error, yellow warning, cyan paths and hints. Written through
//! `anstream`, which takes them out for pipes, `NO_COLOR` and dumb terminals.

use anstyle::{AnsiColor, Style};

fn paint(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

/// Success.
pub fn green(text: &str) -> String {
    paint(text, AnsiColor::Green.on_default())
}

/// An error.
pub fn red(text: &str) -> String {
    paint(text, AnsiColor::Red.on_default().bold())
}

/// A warning, or work to do.
pub fn yellow(text: &str) -> String {
    paint(text, AnsiColor::Yellow.on_default())
}

/// A path or a hint.
pub fn cyan(text: &str) -> String {
    paint(text, AnsiColor::Cyan.on_default())
}

/// Of less weight.
pub fn dim(text: &str) -> String {
    paint(text, Style::new().dimmed())
}
