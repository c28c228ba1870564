//! `perplexity`: how well a language model foresees the texts of a dataset, record by record, and what it answers.

use serde::Deserialize;
use serde_json::json;

use super::features::base_of;
use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::{Tensor, on_backend};
use crate::failure::Failure;
use crate::format::dataset::{Dataset, LEFT_OUT};
use crate::model::chat::Message;
use crate::model::generate::{Options, generate};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Default, Schema, Type};
use crate::report::estimate::bootstrap;
use crate::report::language::mean_loss;
use crate::train::language::Language;
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Perplexity;

/// The file of the losses.
pub const LOSSES: &str = "losses.json";

static SCHEMA: Schema = Schema::new(
    "perplexity",
    "How well a language model foresees the texts of a dataset: e to the mean loss of the tokens that count, in nats.",
)
.children(&[
    Schema::new("of", "The model or adapter.").arg("model", Type::NamedLabel).required(),
    Schema::new("on", "The dataset.").arg("data", Type::Label).required(),
    Schema::new("split", "Its split.").arg("name", Type::Text).default(Default::Text("test")),
    Schema::new("max-length", "Tokens of a record at most.")
        .arg("tokens", Type::Int(2, 1 << 20))
        .default(Default::Int(512)),
    Schema::new("ask", "A question whose answer is kept, the most likely token each time.")
        .arg("prompt", Type::Text)
        .many(),
    Schema::new("max-tokens", "Tokens of an answer at most.")
        .arg("count", Type::Int(1, 1 << 20))
        .default(Default::Int(64)),
    Schema::new(
        "against",
        "The model it was made of: how far its predictions are from that one's, by Kullback-Leibler divergence.",
    )
    .arg("model", Type::NamedLabel),
    BACKEND,
]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    of: String,
    on: String,
    split: String,
    max_length: usize,
    ask: Vec<String>,
    max_tokens: usize,
    against: Option<String>,
}

impl Kind for Perplexity {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: whether an answer was cut.
    fn version(&self) -> u32 {
        2
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn weighs(&self, _decl: &Decl) -> &'static [&'static str] {
        &["max-length"]
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Perplexity {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        on_backend!(cx.backend()?, measure(cx))
    }
}

fn measure<T: Tensor>(cx: &mut ActionCx<'_>) -> Result<(), Failure> {
    let fields: Fields = cx.decl.read();
    let data = Dataset::open(cx.input(&fields.on))?;
    if let Some(reason) = data.left_out() {
        cx.left_out(reason);
        let text = json!({ "reason": reason }).to_string();
        return Ok(fs::write(&cx.out().join(LEFT_OUT), text.as_bytes())?);
    }
    let dir = cx.input(&fields.of).to_owned();
    let base = base_of(cx, &dir)?;
    let (language, _) = Language::<T>::open(&dir, base.as_deref(), &fields.of)?;
    let examples = language.examples(&data, &fields.split, fields.max_length)?;
    if let Some((text, help)) = examples.warning(fields.max_length) {
        cx.warning(text, Some(help));
    }
    let total = examples.examples.len() as u64;
    let losses =
        language.losses(&examples.examples, &mut |done| cx.progress("losses", done as u64, total, "records"))?;
    let mean = mean_loss(&losses);
    let interval = bootstrap(&losses, 0, &|losses| mean_loss(losses).exp());
    cx.metric("perplexity", mean.exp());
    cx.metric("loss", mean);
    let mut answers = Vec::new();
    for prompt in &fields.ask {
        let text = match &language.chat {
            Some(chat) => chat.text(&[Message::user(prompt)], true)?,
            None => prompt.clone(),
        };
        let options = Options { max_tokens: fields.max_tokens, ..Options::default() };
        let made = generate(&language.model, &language.ids(&text)?, &options, &mut |_| {})?;
        let cut = made.tokens.len() >= fields.max_tokens;
        answers.push(json!({"prompt": prompt, "answer": made.text, "cut": cut}));
    }
    let mut result = json!({
        "version": 1, "perplexity": mean.exp(), "interval": [interval.low, interval.high], "loss": mean, "records": losses.len(), "cut": examples.cut,
        "tokens": losses.iter().map(|(_, n)| n).sum::<usize>(), "losses": losses, "answers": answers,
    });
    if let Some(other) = &fields.against {
        let dir = cx.input(other).to_owned();
        let base = base_of(cx, &dir)?;
        let (other, _) = Language::<T>::open(&dir, base.as_deref(), other)?;
        let told = &mut |done| cx.progress("divergence", done as u64, total, "records");
        let found = language.divergences(&other, &examples.examples, told)?;
        let (mean, interval) = (mean_loss(&found), bootstrap(&found, 0, &|found| mean_loss(found)));
        cx.metric("kl", mean);
        result["divergence"] = json!({"mean": mean, "interval": [interval.low, interval.high], "records": found});
    }
    Ok(fs::write(&cx.out().join(LOSSES), result.to_string().as_bytes())?)
}
