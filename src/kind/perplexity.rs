//! `perplexity`: how well a language model foresees the texts of a dataset, record by record, and what it answers.

use serde::Deserialize;
use serde_json::{Value, json};

use super::exported::exported;
use super::features::base_of;
use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::{Tensor, on_backend};
use crate::export::opened::{Exported, Read};
use crate::failure::Failure;
use crate::format::dataset::{Dataset, LEFT_OUT};
use crate::measure::estimate::Estimate;
use crate::model::chat::{Chat, Message};
use crate::model::encoder::Encoder;
use crate::model::generate::{Generated, Options, generate, generate_by};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Default, Schema, Type};
use crate::report::language::{Loss, by_tokens};
use crate::train::language::{Foreseen, Foresees, Language, Rows, foresees};
use crate::train::text::{Example, Examples, Reader};
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
    Schema::new("of", "The model, adapter, quantized model, or `onnx` or `tflite` export.").arg("model", Type::NamedLabel).required(),
    Schema::new("on", "The dataset.").arg("data", Type::Label).required(),
    Schema::new("split", "Its split.").arg("name", Type::Text).default(Default::Text("test")),
    Schema::new("rows", "Its first records, as many; all where it is not said.").arg("count", Type::Int(2, 1 << 30)),
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
        "The model it was made of: how far its predictions are from that one's, by Kullback-Leibler divergence, and how \
         often the most likely token is the same.",
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
    rows: Option<usize>,
    max_length: usize,
    ask: Vec<String>,
    max_tokens: usize,
    against: Option<String>,
}

impl Kind for Perplexity {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: whether an answer was cut. 3: accuracy, and with `against` how often the most likely token is the same.
    fn version(&self) -> u32 {
        3
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
        let fields: Fields = cx.decl.read();
        let data = Dataset::open(cx.input(&fields.on))?;
        if let Some(reason) = data.left_out() {
            cx.left_out(reason);
            let text = json!({ "reason": reason }).to_string();
            return Ok(fs::write(&cx.out().join(LEFT_OUT), text.as_bytes())?);
        }
        let other = fields.against.as_ref().map(|label| open(cx, label)).transpose()?;
        // What computes this one is what the record names.
        let language = open(cx, &fields.of)?;
        measure(cx, &fields, &data, &*language, other.as_deref())
    }
}

/// A language model that foresees texts and goes on from them, whatever computes it.
trait Subject: Foresees {
    /// The records of a split as examples.
    fn examples(&self, data: &Dataset, fields: &Fields) -> Result<Examples, Failure>;

    /// Goes on from a text; in a chat, answers it.
    fn answer(&self, prompt: &str, options: &Options) -> Result<Generated, Failure>;
}

impl<T: Tensor> Subject for Language<T> {
    fn examples(&self, data: &Dataset, fields: &Fields) -> Result<Examples, Failure> {
        Language::examples(self, data, &fields.split, fields.max_length)
    }

    fn answer(&self, prompt: &str, options: &Options) -> Result<Generated, Failure> {
        generate(&self.model, &self.ids(&asked(self.chat.as_ref(), prompt)?)?, options, &mut |_| {})
    }
}

/// An export, and the chat template beside it.
struct File {
    exported: Exported,
    chat: Option<Chat>,
}

impl Foresees for File {
    fn vocabulary(&self) -> usize {
        self.exported.vocabulary()
    }

    fn at_once(&self) -> usize {
        self.exported.at_once()
    }

    fn read<'a>(&'a self, batch: &[&Example]) -> Result<Box<dyn Rows + 'a>, Failure> {
        self.exported.read(batch)
    }
}

impl Subject for File {
    fn examples(&self, data: &Dataset, fields: &Fields) -> Result<Examples, Failure> {
        let config = self.exported.language()?;
        let length_max = fields.max_length.min(config.max_position_embeddings);
        let (tokenizer, chat) = (self.exported.tokenizer()?, self.chat.as_ref());
        Reader { tokenizer, chat, config, length_max }.examples(&data.rows(&fields.split)?, &fields.split)
    }

    fn answer(&self, prompt: &str, options: &Options) -> Result<Generated, Failure> {
        let (config, tokenizer) = (self.exported.language()?, self.exported.tokenizer()?);
        let ids = tokenizer.ids(&asked(self.chat.as_ref(), prompt)?, false)?;
        let mut read = Read::default();
        let next = |ids: &[u32]| self.exported.go_on(ids, &mut read);
        generate_by(config, tokenizer, &ids, options, next, &mut |_| {})
    }
}

/// A question as the model is asked it.
fn asked(chat: Option<&Chat>, prompt: &str) -> Result<String, Failure> {
    chat.map_or_else(|| Ok(prompt.to_owned()), |chat| chat.text(&[Message::user(prompt)], true))
}

fn open(cx: &mut ActionCx<'_>, label: &str) -> Result<Box<dyn Subject>, Failure> {
    if let Some(exported) = exported(cx, label)? {
        exported.language().map_err(|failure| failure.within(label))?;
        let chat = Chat::open(cx.input(label))?;
        return Ok(Box::new(File { exported, chat }));
    }
    on_backend!(cx.backend()?, open_model(cx, label))
}

fn open_model<T: Tensor>(cx: &ActionCx<'_>, label: &str) -> Result<Box<dyn Subject>, Failure> {
    let dir = cx.input(label);
    let base = base_of(cx, dir)?;
    Ok(Box::new(Language::<T>::open(dir, base.as_deref(), label)?.0))
}

fn measure(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    data: &Dataset,
    language: &dyn Subject,
    other: Option<&dyn Subject>,
) -> Result<(), Failure> {
    let mut examples = language.examples(data, fields)?;
    examples.examples.truncate(fields.rows.unwrap_or(usize::MAX));
    if let Some((text, help)) = examples.warning(fields.max_length) {
        cx.warning(text, Some(help));
    }
    let total = examples.examples.len() as u64;
    let told = &mut |done| cx.progress("losses", done as u64, total, "records");
    let against = other.map(|other| other as &dyn Foresees);
    let found = foresees(language, against, &examples.examples, told)?;
    let by_record =
        |pick: &dyn Fn(&Foreseen) -> f64| -> Vec<Loss> { found.iter().map(|f| (pick(f), f.tokens)).collect() };
    let losses = by_record(&|f| f.loss);
    let interval = by_tokens(&losses, 0);
    cx.metric("perplexity", interval.value.exp());
    cx.metric("loss", interval.value);
    let mut result = json!({
        "version": 2, "perplexity": interval.value.exp(), "interval": [interval.low.exp(), interval.high.exp()],
        "loss": interval.value, "records": losses.len(), "cut": examples.cut,
        "tokens": found.iter().map(|f| f.tokens).sum::<usize>(), "losses": losses, "answers": answers(language, fields)?,
    });
    let mut add = |metric: &str, key: &str, records: Vec<Loss>| {
        let Estimate { value, low, high } = by_tokens(&records, 0);
        cx.metric(metric, value);
        result[key] = json!({"mean": value, "interval": [low, high], "records": records});
    };
    add("accuracy", "accuracy", by_record(&|f| f.accuracy));
    if other.is_some() {
        let apart = |f: &Foreseen| f.apart.expect("another model was given");
        add("kl", "divergence", by_record(&|f| apart(f).divergence));
        add("same-top", "same_top", by_record(&|f| apart(f).same_top));
    }
    Ok(fs::write(&cx.out().join(LOSSES), result.to_string().as_bytes())?)
}

fn answers(language: &dyn Subject, fields: &Fields) -> Result<Vec<Value>, Failure> {
    let mut answers = Vec::new();
    for prompt in &fields.ask {
        let options = Options { max_tokens: fields.max_tokens, ..Options::default() };
        let made = language.answer(prompt, &options)?;
        let cut = made.tokens.len() >= fields.max_tokens;
        answers.push(json!({"prompt": prompt, "answer": made.text, "cut": cut}));
    }
    Ok(answers)
}
