//! `effai cache`

use clap::Subcommand;

use super::{Global, Output, open, upkeep};
use crate::engine::EngineError;
use crate::util::text::{bytes, count};

/// Look at the store, clear it, check it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the store's directory
    Dir,
    /// Say how much the store holds
    Size,
    Prune(upkeep::Prune),
    Verify(upkeep::Verify),
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    match &args.command {
        Command::Dir => output.line(&engine.store.root().display().to_string()),
        Command::Prune(args) => return upkeep::prune(&engine, args, output),
        Command::Verify(args) => return upkeep::verify(&engine, args, output),
        Command::Size => {
            let (size, blobs) = engine.store.blobs.usage();
            let usage = engine.store.index.usage()?;
            if output.json {
                output.object(&serde_json::json!({
                    "version": 1, "bytes": size, "blobs": blobs, "artifacts": usage.artifacts, "keys": usage.keys,
                }));
            } else {
                output.line(&format!(
                    "{} in {}, {} under {}",
                    bytes(size),
                    count(blobs, "blob"),
                    count(usage.artifacts, "artifact"),
                    count(usage.keys, "key")
                ));
            }
        }
    }
    Ok(0)
}
