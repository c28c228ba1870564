//! `report`: models side by side on what they did not see, picture-text models by retrieval and language models by
//! perplexity, or by their divergence from the one they were made of; encoders by how near their vectors stay to it; and any
//! targets by the numbers that their programs told, or by their predictions of the same items.

mod encoders;
mod language;
mod predictions;
mod retrieval;
mod told;

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ActionCx, BACKEND, How, Kind, Part, Run};
use crate::failure::Failure;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::report::figures::{self, Figure, Training};
use crate::report::numbers::{ACCURACY, COSINE, KL, Numbers, Of, PERPLEXITY, SPEED};
use crate::report::over::{Over, OverError};
use crate::report::quantization;
use crate::report::retrieval::page::Examples;
use crate::report::told::Better;
use crate::report::{files, words};
use crate::util::fs;
use crate::util::text::parse_bytes;

/// The kind.
#[derive(Debug)]
pub struct Report;

static SCHEMA: Schema = Schema::new(
    "report",
    "Models side by side: picture-text models by retrieval, zero-shot, size and speed; language models by perplexity, \
     divergence, accuracy, answers, size and speed; encoders by their vectors, size and speed; any targets by the numbers \
     that their programs told, or by their predictions beside what was true.",
)
.children(&[
    Schema::new("compare", "The models; with `number` or `predictions`, any targets.").many_args("models", Type::NamedLabel).required(),
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
    Schema::new("on", "A dataset: language models foresee its texts, encoders encode its captions and pictures.")
        .arg("data", Type::NamedLabel)
        .props(&[
            Prop::new("split", Type::Text, "its split").default(Default::Text("test")),
            Prop::new("rows", Type::Int(2, 1 << 30), "its first records, as many; all where it is not said"),
            Prop::new(
                "max-length",
                Type::Int(2, 1 << 20),
                "language models: tokens of a record at most; 512 where it is not said",
            ),
        ])
        .many(),
    Schema::new(
        "metrics",
        "Language models and encoders: what is measured. `kl`: how far each language model is from the first, by \
         Kullback-Leibler divergence. `accuracy`: how often the right token is the most likely. `cosine`: how near each \
         encoder's vectors are to the first one's; beside `speed` alone. `speed` of language models needs no `on`.",
    )
    .many_args("names", Type::Choice(&[PERPLEXITY, KL, ACCURACY, COSINE, SPEED])),
    Schema::new("limit", "With the metric `kl` or `cosine`: one of the models is recommended within it.")
        .props(&[
            Prop::new("size", Type::Text, "of the weights at most, such as \"70 MB\": the nearest to the first is taken"),
            Prop::new(
                "kl",
                Type::FloatAbove(0.0, 1e6),
                "what the divergence is surely below, in nats: the smallest is taken, or with `size` the nearest",
            ),
            Prop::new(
                "cosine",
                Type::Float(-1.0, 1.0),
                "what the mean cosine is surely above: the smallest is taken, or with `size` the nearest",
            ),
        ])
        .many(),
    Schema::new("ask", "Language models: a question; answers stand side by side, the most likely token each time.")
        .arg("prompt", Type::Text)
        .many(),
    Schema::new("max-tokens", "Language models: tokens of an answer at most; 64 where it is not said.")
        .arg("count", Type::Int(1, 1 << 20)),
    Schema::new("rounds", "Rounds that each model's speed is measured in; where it is not said, as many as `speed` has.")
        .arg("count", Type::Int(5, 10_000)),
    Schema::new("number", "Any targets: a number that each one's program told, its last value and its curve.")
        .arg("name", Type::Text)
        .props(&[
            Prop::new("better", Type::Choice(&["higher", "lower"]), "which value is the better, where one is"),
            Prop::new("in", Type::Text, "the file of their artifacts that their field `metrics` names")
                .default(Default::Text("metrics.json")),
        ])
        .many(),
    Schema::new("front", "With `number`: two of them against each other, each the better the lower; a line joins the targets that no other beats in both.")
        .arg("name", Type::Text)
        .props(&[Prop::new("against", Type::Text, "the other number, upwards").required()])
        .many(),
    Schema::new(
        "predictions",
        "Any targets: the table in which each one keeps what it predicted of the same items; .json, .jsonl, .yml, .csv, .tsv or \
         .parquet.",
    )
    .arg("file", Type::Text)
    .props(&[
        Prop::new(
            "truth",
            Type::Text,
            "the column of what was true: the class, the text wanted, or what is relevant (an array of names, or an object of \
             names and gains)",
        )
        .required(),
        Prop::new("id", Type::Text, "the column of the item's name; where it is not said, rows are the same items in order"),
        Prop::new("predicted", Type::Text, "the column of the predicted class"),
        Prop::new("probability", Type::Text, "the columns of each class's probability, such as \"p_{class}\""),
        Prop::new("score", Type::Text, "with two classes, the column of the score of the one that is `positive`"),
        Prop::new("positive", Type::Text, "the class that a high `score` speaks for"),
        Prop::new(
            "ranked",
            Type::Text,
            "the column of the answers: an array of names, the best first, or an object of names and scores",
        ),
        Prop::new("text", Type::Text, "the column of the text that was written"),
    ])
    .children(&[Schema::new(
        "metrics",
        "Which numbers, as docs/metrics.md has them; where it is not said, the usual ones of such predictions.",
    )
    .many_args("names", Type::Text)]),
    Schema::new(
        "over",
        "How the labels of targets that a `matrix` made are written, such as \"runs/lr{lr}-{batch}\": every number is drawn over its \
         axes, the first across, of the second a line for each value, and a panel for each of all further ones.",
    )
    .arg("label", Type::Text)
    .many(),
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
    rounds: Option<usize>,
    number: Vec<Number>,
    front: Vec<Front>,
    predictions: Option<predictions::Given>,
    over: Vec<String>,
    seed: u64,
}

#[derive(Deserialize)]
struct Number {
    name: String,
    better: Option<Better>,
    r#in: String,
}

#[derive(Deserialize)]
struct Front {
    name: String,
    against: String,
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
    rows: Option<usize>,
    max_length: Option<u64>,
}

#[derive(Deserialize)]
struct Limit {
    size: Option<String>,
    kl: Option<f64>,
    cosine: Option<f64>,
}

impl Fields {
    /// Which sort of models it compares.
    fn of(&self) -> Of {
        match () {
            () if self.predictions.is_some() => Of::Predictions,
            () if !self.number.is_empty() => Of::Told,
            () if self.has(COSINE) => Of::Encoders,
            () if !self.on.is_empty() || self.metrics.is_some() => Of::Language,
            () => Of::Pictures,
        }
    }

    /// Where each target is on the axes of its matrix, if that is asked.
    fn over(&self) -> Result<Option<Over>, (usize, OverError)> {
        (!self.over.is_empty()).then(|| Over::of(&self.over, &self.compare)).transpose()
    }

    /// The limits, whose sizes have been checked.
    fn limits(&self) -> Vec<quantization::Limit> {
        let limit = |limit: &Limit| quantization::Limit {
            bytes: limit.size.as_deref().and_then(|s| parse_bytes(s).ok()),
            kl: limit.kl,
            cosine: limit.cosine,
        };
        self.limit.iter().map(limit).collect()
    }

    /// Finds limits that limit nothing or have no size.
    fn check_limits(&self, example: &str, problems: &mut Problems<'_>) {
        for (i, limit) in self.limit.iter().enumerate() {
            let path = format!("limit.{i}");
            if limit.size.is_none() && limit.kl.is_none() && limit.cosine.is_none() {
                let help = format!("add size=\"70 MB\" or {example}, or both");
                problems.at(&path, "this `limit` limits nothing", "here", help);
            }
            if let Some(Err(message)) = limit.size.as_deref().map(parse_bytes) {
                let help = "such as \"70 MB\" (of 1,000,000 bytes) or \"70 MiB\" (of 1,048,576)";
                problems.at(&format!("{path}.size"), message, "a number and a unit belong here", help);
            }
        }
    }

    /// Finds a dataset's split that is there twice.
    fn check_on(&self, problems: &mut Problems<'_>) {
        for (i, on) in self.on.iter().enumerate() {
            if self.on[..i].iter().any(|other| (&other.data, &other.split) == (&on.data, &on.split)) {
                let message = format!("the split `{}` of `{}` is there twice", on.split, on.data);
                problems.at(&format!("on.{i}"), message, "again here", "leave one out");
            }
        }
    }

    /// The action that measures a model's speed.
    fn speed(&self, at: usize) -> Part {
        let mut own = json!({ "of": self.compare[at] });
        if let Some(rounds) = self.rounds {
            own["rounds"] = rounds.into();
        }
        Part { name: speed_name(at), kind: "speed", fields: own }
    }

    /// Whether a metric of language models or encoders was asked for.
    fn has(&self, metric: &str) -> bool {
        self.metrics.iter().flatten().any(|m| m == metric)
    }
}

/// What the action is called that measures a model's speed.
fn speed_name(model: usize) -> String {
    format!("speed-{model}")
}

impl Kind for Report {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: paired differences, accuracy by class, what quantization costs, and another page. 3: language models,
    /// and learning rates among the curves. 4: divergence, accuracy and speed of language models, and limits. 5: encoders.
    /// 6: speeds of language models beside what the machine can do.
    /// 7: `card.md`, a page that sorts and finds, plots of very many models and of what is taken for what.
    /// 8: rooflines whose names lie apart, fronts from 0 on, numbers in `card.md` as YAML 1.1 reads them.
    fn version(&self) -> u32 {
        8
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        if let Err((i, error)) = fields.over() {
            problems.at(&format!("over.{i}"), error.to_string(), "here", error.help());
        }
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
        let is_of_pictures = pictures.iter().any(|(.., given)| *given);
        if fields.rounds.is_some() && !fields.has(SPEED) && !is_of_pictures {
            let help = "leave it out, or add the metric `speed`";
            problems.at("rounds", "`rounds` is of speed, which this report has not", "given here", help);
        }
        if fields.number.is_empty() && !fields.front.is_empty() {
            let help = "add `number` for the two that it names, or leave it out";
            problems.at(
                "front.0",
                "`front` is of numbers that targets told, and there is no `number`",
                "given here",
                help,
            );
        }
        if let Some(predictions) = &fields.predictions {
            let number = ("number", "number.0", !fields.number.is_empty());
            for (field, path, _) in given.iter().chain(pictures.iter().chain([&number]).filter(|(.., given)| *given)) {
                let message = format!("`{field}` and `predictions` are of different sorts of reports");
                problems.at(path, message, "given here", "make two reports of it");
            }
            predictions::check(predictions, problems);
            return;
        }
        if !fields.number.is_empty() {
            for (field, path, _) in given.iter().chain(pictures.iter().filter(|(.., given)| *given)) {
                let message = format!("`{field}` is of models that are measured, and `number` of what programs told");
                problems.at(path, message, "given here", "make two reports of it");
            }
            told::check(&fields, problems);
            return;
        }
        if let Some((name, ..)) = pictures.into_iter().find(|(.., given)| *given) {
            for (field, path, _) in &given {
                let message =
                    format!("`{field}` is of language models and encoders, and `{name}` of picture-text models");
                problems.at(path, message, "given here", "make two reports of it");
            }
            if fields.test.is_empty() && given.is_empty() {
                problems.at("zero-shot.0", "`zero-shot` needs a `test`", "given here", "add a `test`");
            }
            return;
        }
        if given.is_empty() {
            let help = "`test` is for picture-text models; `on` with `metrics \"perplexity\"` for language models, with \
                        `metrics \"cosine\"` for encoders; `number` for what programs told; `predictions` for what they predicted";
            problems.at(
                "",
                "nothing is measured: `test`, `on`, `number` or `predictions` is missing",
                "this report",
                help,
            );
            return;
        }
        match fields.of() {
            Of::Encoders => encoders::check(&fields, problems),
            _ => language::check(&fields, problems),
        }
    }

    fn parts(&self, decl: &Decl) -> Vec<Part> {
        let fields: Fields = decl.read();
        match fields.of() {
            Of::Pictures => retrieval::parts(&fields),
            Of::Language => language::parts(&fields),
            Of::Encoders => encoders::parts(&fields),
            Of::Told | Of::Predictions | Of::Timing => Vec::new(),
        }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Report {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let (mut numbers, more, examples) = match fields.of() {
            Of::Predictions => (predictions::gather(cx, &fields)?, None, Examples::default()),
            Of::Pictures => retrieval::measure(cx, &fields)?,
            Of::Language => (language::measure(cx, &fields)?, None, Examples::default()),
            Of::Encoders => (encoders::measure(cx, &fields)?, None, Examples::default()),
            Of::Told => (told::gather(cx, &fields)?, None, Examples::default()),
            Of::Timing => unreachable!("of programs, which `benchmark` runs"),
        };
        numbers.over = fields.over().map_err(|(_, error)| Failure::user(error.to_string()).help(error.help()))?;
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

/// Writes a report of these numbers in every form it has.
pub(super) fn write(
    cx: &ActionCx<'_>,
    numbers: &Numbers,
    plots: &[Figure],
    examples: &Examples,
) -> Result<(), Failure> {
    for (name, bytes) in files::all(numbers, plots, examples)? {
        fs::write(&cx.out().join(name), &bytes)?;
    }
    Ok(())
}
