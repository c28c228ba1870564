//! `effai fit`

use std::path::{Path, PathBuf};

use super::found::Found;
use super::{Global, Output, build};
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::model::Config;
use crate::model::footprint::{FORMS, Footprint};
use crate::ui::style;
use crate::util::machine::{Machine, free_memory_bytes};
use crate::util::text::{bytes, parse_bytes};

/// Say whether a language model fits into this machine's memory: in which precision, with how long a text
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A target, which is built where it is not, or a directory with a config.json
    model: String,
    /// Of a text of so many tokens; otherwise of the longest that the model reads
    #[arg(long, value_name = "TOKENS")]
    context: Option<u64>,
    /// As if so much were free, such as "16 GiB"
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
}

/// What Metal gives one process of a Mac's memory where nobody says otherwise: two thirds, from 36 GiB on three quarters
/// (`recommendedMaxWorkingSetSize`, as llama.cpp's users report it).
fn working_set(memory: u64) -> u64 {
    if memory <= 36 << 30 { memory / 3 * 2 } else { memory / 4 * 3 }
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let free = match &args.memory {
        Some(text) => Some(parse_bytes(text).map_err(|e| {
            Failure::user(format!("`--memory {text}`: {e}")).help("a number and a unit, such as \"16 GiB\"")
        })?),
        None => free(),
    };
    let Some(free) = free else {
        let failure = Failure::environment("this system does not say how much memory is free");
        return Err(failure.help("say it: --memory \"16 GiB\"").into());
    };
    let dir = match Path::new(&args.model).join("config.json").is_file() {
        true => PathBuf::from(&args.model),
        false => match built(global, &args.model, output)? {
            Ok(dir) => dir,
            Err(code) => return Ok(code),
        },
    };
    let Config::Llama(config) = Config::read(&dir)? else {
        let failure = Failure::user(format!("{} is no language model: it has no context to fit", args.model));
        return Err(failure.help("what an encoder takes is in its report, with `metrics \"speed\"`").into());
    };
    let footprint = Footprint::of(&config);
    let asked = args.context.unwrap_or(footprint.longest);
    if asked > footprint.longest {
        let message = format!("{} reads {} tokens at most", args.model, footprint.longest);
        return Err(Failure::user(message).help("ask for a shorter --context").into());
    }
    let rows =
        FORMS.map(|(form, bits)| (form, bits, footprint.bytes(bits, asked), footprint.tokens_within(bits, free)));
    let fits = rows.iter().find(|row| row.2 <= free);
    if output.json {
        let row = |(form, bits, bytes, tokens): &(&str, f64, u64, Option<u64>)| {
            serde_json::json!({
                "precision": form, "bits": bits, "weight-bytes": footprint.weight_bytes(*bits), "bytes": bytes,
                "fits": *bytes <= free, "tokens-that-fit": tokens,
            })
        };
        output.object(&serde_json::json!({
            "version": 1, "model": args.model, "weights": footprint.weights, "longest": footprint.longest,
            "context": asked, "free-bytes": free, "precisions": rows.iter().map(row).collect::<Vec<_>>(),
        }));
        return Ok(u8::from(fits.is_none()));
    }
    let millions = footprint.weights as f64 / 1e6;
    output.line(&format!("{}: {millions:.0} million weights, {} tokens at most", args.model, footprint.longest));
    output.line(&format!("{} free; with a text of {asked} tokens:", bytes(free)));
    output.line(&style::dim(&format!("{:<8} {:>11} {:>11}   fits   longest text", "", "weights", "in all")));
    for (form, bits, all, tokens) in &rows {
        let mark = if *all <= free { style::green("yes ") } else { style::red("no  ") };
        let longest = match tokens {
            None => "the weights alone do not fit".to_owned(),
            Some(tokens) if *tokens == footprint.longest => format!("{tokens} tokens, all it reads"),
            Some(tokens) => format!("{tokens} tokens"),
        };
        let weights = bytes(footprint.weight_bytes(*bits));
        output.line(&format!("{form:<8} {weights:>11} {:>11}   {mark}   {longest}", bytes(*all)));
    }
    match fits {
        Some((form, ..)) => output.line(&format!("take {form}: it is the most precise that fits")),
        None => output.line("none fits: ask for a shorter --context, or take a smaller model"),
    }
    Ok(u8::from(fits.is_none()))
}

/// What a model may take: on a Mac what the GPU may, elsewhere what no program has.
fn free() -> Option<u64> {
    let machine = Machine::look();
    match machine.is_unified {
        true => machine.memory_bytes.map(working_set),
        false => free_memory_bytes(),
    }
}

/// A target's artifact; the exit code where it could not be built.
fn built(global: &Global, model: &str, output: &Output) -> Result<Result<PathBuf, u8>, EngineError> {
    let found = Found::of(global, model)?;
    // An adapter is as large as its base, but for a hundredth.
    let label = found.base.as_ref().unwrap_or(&found.label);
    let code = build::quietly(global, std::slice::from_ref(label), output)?;
    Ok(if code == 0 { Ok(found.place(label)) } else { Err(code) })
}
