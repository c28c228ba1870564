//! `report`: models side by side on what they did not see, picture-text models by retrieval and language models by
//! perplexity, or by their divergence from the one they were made of.

mod language;
mod retrieval;

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ActionCx, BACKEND, How, Kind, Part, Run};
use crate::failure::Failure;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::report::figures::{self, Figure, Training};
use crate::report::numbers::{ACCURACY, KL, Numbers, PERPLEXITY, SPEED};
use crate::report::retrieval::page::Examples;
use crate::report::{page, plot, tables, words};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Report;

static SCHEMA: Schema = Schema::new(
    "report",
    "Models side by side: picture-text models by retrieval, zero-shot, size and speed; language models by perplexity, \
     divergence, accuracy, answers, size and speed.",
)
.children(&[
    Schema::new("compare", "The models.").many_args("models", Type::NamedLabel).required(),
    Schema::new("test", "Picture-text models: a gallery, one picture for each caption.")
        .arg("name", Type::Text)
        .props(&[
            Prop::new("on", Type::Label, "the dataset").required(),
            Prop::new("split", Type::Text, "its split").required(),
            Prop::new("where", Type::Text, "only rows of this, COLUMN=VALUE"),
            Prop::new("sample", Type::Int(2, 1_000_000), "at most so many, chosen by the seed"),
        ])
        .many(),
    Schema::new("zero-shot", "Picture-text models: classification by the names of a column.")
        .arg("column", Type::Text)
        .props(&[
            Prop::new("on", Type::Label, "the dataset").required(),
            Prop::new("split", Type::Text, "its split").required(),
            Prop::new("where", Type::Text, "only rows of this, COLUMN=VALUE"),
        ])
        .children(&[Schema::new("prompt", "A text with {} for the name; several are averaged.")
            .arg("template", Type::Text)
            .some()])
        .many(),
    Schema::new("on", "Language models: a dataset whose texts they foresee.")
        .arg("data", Type::NamedLabel)
        .props(&[
            Prop::new("split", Type::Text, "its split").default(Default::Text("test")),
            Prop::new("max-length", Type::Int(2, 1 << 20), "tokens of a record at most").default(Default::Int(512)),
        ])
        .many(),
    Schema::new(
        "metrics",
        "Language models: what is measured. `kl`: how far each is from the first, by Kullback-Leibler divergence. `accuracy`: \
         how often the right token is the most likely. `speed` needs no `on`.",
    )
    .many_args("names", Type::Choice(&[PERPLEXITY, KL, ACCURACY, SPEED])),
    Schema::new("limit", "Language models with the metric `kl`: one of them is recommended within it.")
        .props(&[
            Prop::new("size", Type::Text, "of the weights at most, such as \"70 MB\": the nearest to the first is taken"),
            Prop::new(
                "kl",
                Type::FloatAbove(0.0, 1e6),
                "what the divergence is surely below, in nats: the smallest is taken, or with `size` the nearest",
            ),
        ])
        .many(),
    Schema::new("ask", "Language models: a question; answers stand side by side, the most likely token each time.")
        .arg("prompt", Type::Text)
        .many(),
    Schema::new("max-tokens", "Language models: tokens of an answer at most; 64 where it is not said.")
        .arg("count", Type::Int(1, 1 << 20)),
    Schema::new("seed", "Of samples and intervals.").arg("seed", Type::Int(0, i64::MAX)).default(Default::Int(0)),
    BACKEND,
]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    compare: Vec<String>,
    test: Vec<Test>,
    zero_shot: Vec<ByNames>,
    on: Vec<On>,
    metrics: Option<Vec<String>>,
    limit: Vec<Limit>,
    ask: Vec<String>,
    max_tokens: Option<u64>,
    seed: u64,
}

#[derive(Deserialize)]
struct Test {
    name: String,
    on: String,
    split: String,
    r#where: Option<String>,
    sample: Option<usize>,
}

#[derive(Deserialize)]
struct ByNames {
    column: String,
    on: String,
    split: String,
    r#where: Option<String>,
    prompt: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct On {
    data: String,
    split: String,
    max_length: u64,
}

#[derive(Deserialize)]
struct Limit {
    size: Option<String>,
    kl: Option<f64>,
}

impl Fields {
    fn is_of_language(&self) -> bool {
        !self.on.is_empty() || self.metrics.is_some()
    }

    /// Whether a metric of language models was asked for.
    fn has(&self, metric: &str) -> bool {
        self.metrics.iter().flatten().any(|m| m == metric)
    }
}

impl Kind for Report {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: paired differences, accuracy by class, what quantization costs, and another page. 3: language models,
    /// and learning rates among the curves. 4: divergence, accuracy and speed of language models, and limits.
    fn version(&self) -> u32 {
        4
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        let language = [
            ("on", "on.0", !fields.on.is_empty()),
            ("metrics", "metrics", fields.metrics.is_some()),
            ("limit", "limit.0", !fields.limit.is_empty()),
            ("ask", "ask.0", !fields.ask.is_empty()),
            ("max-tokens", "max-tokens", fields.max_tokens.is_some()),
        ];
        let given: Vec<_> = language.into_iter().filter(|(.., given)| *given).collect();
        let pictures =
            [("test", "test.0", !fields.test.is_empty()), ("zero-shot", "zero-shot.0", !fields.zero_shot.is_empty())];
        if let Some((name, ..)) = pictures.into_iter().find(|(.., given)| *given) {
            for (field, path, _) in &given {
                let message = format!("`{field}` is of language models, and `{name}` of picture-text models");
                problems.at(path, message, "given here", "make two reports of it");
            }
            if fields.test.is_empty() && given.is_empty() {
                problems.at("zero-shot.0", "`zero-shot` needs a `test`", "given here", "add a `test`");
            }
            return;
        }
        if given.is_empty() {
            let help = "`test` is for picture-text models; `on` with `metrics \"perplexity\"` for language models";
            problems.at("", "nothing is measured: `test` or `on` is missing", "this report", help);
            return;
        }
        language::check(&fields, problems);
    }

    fn parts(&self, decl: &Decl) -> Vec<Part> {
        let fields: Fields = decl.read();
        if fields.is_of_language() { language::parts(&fields) } else { retrieval::parts(&fields) }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Report {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let (mut numbers, more, examples) = if fields.is_of_language() {
            (language::measure(cx, &fields)?, None, Examples::default())
        } else {
            retrieval::measure(cx, &fields)?
        };
        numbers.headline = words::headline(&numbers);
        let mut plots = figures::all(&numbers, &training(cx, &fields));
        plots.extend(more);
        write(cx, &numbers, &plots, &examples)
    }
}

/// What a file of JSON says.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_str(&fs::read_text(path)?).map_err(|e| Failure::target(format!("{}: {e}", path.display())))
}

/// The losses of the models that were trained.
fn training(cx: &ActionCx<'_>, fields: &Fields) -> Vec<Training> {
    let mut all = Vec::new();
    for (subject, label) in fields.compare.iter().enumerate() {
        let Ok(text) = fs::read_text(&cx.input(label).join("training.json")) else { continue };
        let curves: Value = serde_json::from_str(&text).unwrap_or_default();
        let points = |name: &str| -> Vec<(f64, f64)> {
            let points = curves[name].as_array().into_iter().flatten();
            points.filter_map(|p| Some((p[0].as_f64()?, p[1].as_f64()?))).collect()
        };
        let (train, validation, rate) = (points("train"), points("validation"), points("learning_rate"));
        if !train.is_empty() || !validation.is_empty() {
            all.push(Training { subject, train, validation, rate });
        }
    }
    all
}

fn write(cx: &ActionCx<'_>, numbers: &Numbers, plots: &[Figure], examples: &Examples) -> Result<(), Failure> {
    let out = cx.out();
    fs::write(&out.join("report.json"), serde_json::to_string_pretty(numbers).expect("plain data").as_bytes())?;
    fs::write(&out.join("report.csv"), tables::csv(numbers).as_bytes())?;
    fs::write(&out.join("report.md"), tables::markdown(numbers).as_bytes())?;
    fs::write(&out.join("report.html"), page::html(numbers, plots, examples)?.as_bytes())?;
    for (name, svg) in plots {
        fs::write(&out.join(format!("plots/{name}.svg")), svg.as_bytes())?;
        fs::write(&out.join(format!("plots/{name}.png")), &plot::png(svg)?)?;
    }
    Ok(())
}
