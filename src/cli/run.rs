//! `effai run`: a language model, tried by hand.

use std::path::Path;

use super::found::Found;
use super::{Global, Output, build};
use crate::backend::{Tensor, on_backend};
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::model::chat::Message;
use crate::model::generate::{Options, generate};
use crate::train::language::Language;

/// Ask a language model, or an adapter's, that was built
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The target
    target: String,
    /// What to ask, or to go on from with --raw
    prompt: String,
    /// What the model is told before
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Go on from the prompt as it is, without the model's chat template
    #[arg(long)]
    raw: bool,
    /// Tokens at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// 0 takes the most likely token always; higher, more surprising ones
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Choose among the most likely tokens that have this share of the probability together
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Of the choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let found = Found::of(global, &args.target)?;
    found.backend.probe().map_err(Failure::from)?;
    // An adapter is put on its base, so that must lie in out/ too.
    let labels: Vec<String> = [&found.label].into_iter().chain(&found.base).cloned().collect();
    let code = build::quietly(global, &labels, output)?;
    if code != 0 {
        return Ok(code);
    }
    let (dir, base) = (found.place(&found.label), found.base.as_ref().map(|base| found.place(base)));
    on_backend!(found.backend, answer(args, output, &found.label, &dir, base.as_deref()))
}

fn answer<T: Tensor>(
    args: &Args,
    output: &Output,
    label: &str,
    dir: &Path,
    base: Option<&Path>,
) -> Result<u8, EngineError> {
    let (language, _) = Language::<T>::open(dir, base, label)?;
    let text = match &language.chat {
        Some(chat) if !args.raw => {
            let system = args.system.iter().map(|text| Message { role: "system".into(), content: text.clone() });
            let messages: Vec<Message> = system.chain([Message::user(&args.prompt)]).collect();
            chat.text(&messages, true)?
        }
        _ if args.system.is_some() => {
            return Err(Failure::user("`--system` needs a chat template").help("leave it out, or `--raw`").into());
        }
        _ => args.prompt.clone(),
    };
    let prompt = language.ids(&text)?;
    let options = Options {
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_p: args.top_p,
        seed: args.seed,
        stop: args.stop.clone(),
    };
    let mut shown = 0;
    let made = generate(&language.model, &prompt, &options, &mut |text| {
        if !output.json && text.len() > shown && text.is_char_boundary(shown) {
            output.raw(&text.as_bytes()[shown..]);
            shown = text.len();
        }
    })?;
    if output.json {
        let tokens = serde_json::json!({"prompt": prompt.len(), "generated": made.tokens.len()});
        output.object(&serde_json::json!({"version": 1, "text": made.text, "tokens": tokens}));
    } else {
        output.raw(b"\n");
    }
    Ok(0)
}
