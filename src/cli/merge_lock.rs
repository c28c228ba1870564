//! `effai merge-lock`: what git calls to merge effai.lock

use std::path::{Path, PathBuf};

use super::Output;
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::lock::{FILE, Lock, merge};
use crate::util::fs;

/// Merge three versions of effai.lock: git's merge driver, `effai merge-lock %O %A %B`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What both began from
    base: PathBuf,
    /// This side; the result is written there
    ours: PathBuf,
    /// The other side
    theirs: PathBuf,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<u8, EngineError> {
    let read = |path: &PathBuf| -> Result<Lock, Failure> { Ok(Lock::parse(&fs::read_text(path)?, Path::new(FILE))?) };
    let merged = merge::merge(&read(&args.base)?, &read(&args.ours)?, &read(&args.theirs)?);
    fs::write(&args.ours, merged.text.as_bytes())?;
    if merged.disputed.is_empty() {
        return Ok(0);
    }
    let text = format!("both sides have another line of {FILE} for {}", merged.disputed.join(", "));
    output.error(&text, Some("merge the recipes and files, then `effai build --lock`: it takes the line that fits"));
    Ok(1)
}
