//! effai as a library: what a language model gives for each token of a text, before it is made probabilities of.
//!
//! ```text
//! cargo run --release --example logits -- MODEL_DIR TEXT OUT.safetensors [--base DIR]
//! ```
//!
//! `MODEL_DIR` is a directory in Hugging Face's layout, such as `out/models/smollm2`: safetensors in one file or several,
//! quantized in MLX's layout, or `model.gguf`. An adapter's directory needs its base's with `--base`. The text is read as it
//! is, without a chat template. `OUT.safetensors` gets `ids` [tokens] and `logits` [tokens, vocabulary]: row i is of the
//! token that comes after token i.

use std::error::Error;
use std::path::Path;

use effai::backend::arrays::{Array, Arrays, Values};
use effai::backend::{CandleTensor, Tensor};
use effai::failure::Failure;
use effai::format::tensors;
use effai::model::llama;
use effai::train::language::Language;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (dir, text, out, base) = match &args[..] {
        [dir, text, out] => (dir, text, out, None),
        [dir, text, out, flag, base] if flag == "--base" => (dir, text, out, Some(Path::new(base))),
        _ => return Err("logits MODEL_DIR TEXT OUT.safetensors [--base DIR]".into()),
    };
    let told = |failure: Failure| match failure.help {
        Some(help) => format!("{}; {help}", failure.message),
        None => failure.message,
    };
    Ok(write(Path::new(dir), base, text, Path::new(out)).map_err(told)?)
}

fn write(dir: &Path, base: Option<&Path>, text: &str, out: &Path) -> Result<(), Failure> {
    // The other one of the two is the weights as they lie on disk; only what runs is wanted here.
    let (language, _) = Language::<CandleTensor>::open(dir, base, &dir.to_string_lossy())?;
    let (config, weights) = (&language.config, &language.model.weights);
    let ids = language.ids(text)?;
    if ids.is_empty() {
        return Err(Failure::user("the text is empty"));
    }
    // One row of a batch; what is padded and what is kept of earlier tokens are no matter here.
    let x = llama::Stages::new(config, std::slice::from_ref(&ids), false)?.run(weights)?;
    let logits = weights.linear(llama::head(config), &x)?;
    let arrays = Arrays::from([
        ("ids".to_owned(), Array { shape: vec![ids.len()], values: Values::U32(ids) }),
        ("logits".to_owned(), Array::f32(&logits.shape(), logits.to_f32()?)),
    ]);
    tensors::write(out, &arrays, &[])
}
