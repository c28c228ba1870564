//! An action that failed for want of memory, told as that.

use super::Ran;
use crate::failure::Failure;
use crate::util::text::bytes;

/// What the standard library, C++, libc, MLX, Python and the kernel say where memory runs out.
const SAID: &[&str] = &[
    "memory allocation of ",
    "bad_alloc",
    "Cannot allocate memory",
    "Unable to allocate ",
    "Memory allocation still failed",
    "failed to spawn thread",
    "cannot start threads",
    "MemoryError",
];

/// The failure, if what ran most likely ended because memory ran out. `words` are its own last ones, `fields` those of
/// its declaration that need less when they are smaller.
pub(super) fn ran_out(ran: &Ran, words: &str, fields: &[&str]) -> Option<Failure> {
    use std::os::unix::process::ExitStatusExt;
    let own = ran.told.as_ref().map_or(words, |failure| &failure.message);
    let words = own.lines().rev().find(|line| SAID.iter().any(|said| line.contains(said)));
    // Nobody here sent it: whoever cancels is told that.
    let killed = ran.status.signal() == Some(9);
    if words.is_none() && !killed {
        return None;
    }
    let what = if killed { "it was killed (signal 9), most likely because memory ran out" } else { "memory ran out" };
    let peak = match ran.peak_bytes {
        0 => String::new(),
        peak => format!("; it had {} at its peak", bytes(peak)),
    };
    let words = words.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    let smaller = match fields {
        [] => "free memory".to_owned(),
        fields => format!("write a smaller {}", named(fields)),
    };
    let help = format!("{smaller}, or run fewer at once with -j");
    Some(Failure::environment(format!("{what}{peak}{words}")).help(help))
}

/// `` `a` or `b` ``
fn named(fields: &[&str]) -> String {
    fields.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}
