//! `effai cache`

use clap::Subcommand;

use super::{Global, Output, open, upkeep};
use crate::engine::EngineError;
use crate::failure::Failure;
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
            let held = engine.store.blobs.held().map_err(Failure::from)?;
            let usage = engine.store.index.usage()?;
            if output.json {
                output.object(&serde_json::json!({
                    "version": 1, "bytes": held.bytes, "blobs": held.blobs, "packed": held.packed,
                    "bytes-saved": held.bytes_saved, "artifacts": usage.artifacts, "keys": usage.keys,
                }));
            } else {
                let packed = match held.packed {
                    0 => String::new(),
                    n => format!("; {n} packed, which saves {}", bytes(held.bytes_saved)),
                };
                output.line(&format!(
                    "{} in {}, {} under {}{packed}",
                    bytes(held.bytes),
                    count(held.blobs, "blob"),
                    count(usage.artifacts, "artifact"),
                    count(usage.keys, "key")
                ));
            }
        }
    }
    Ok(0)
}
