//! A report of language models: how well they foresee texts, how far they are from the first, how quick they are, and what
//! they answer.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fields, On, read_json, speed_name};
use crate::failure::Failure;
use crate::format::dataset::{Dataset, Row};
use crate::kind::exported::weight_bytes;
use crate::kind::features::base_of;
use crate::kind::perplexity::LOSSES;
use crate::kind::{ActionCx, Part, speed};
use crate::measure::estimate::Estimate;
use crate::measure::hardware;
use crate::model::{Config, llama};
use crate::recipe::decl::Problems;
use crate::report::language::{self, Answer, Answers, Example, Loss, Texts, by_tokens, changed_most};
use crate::report::numbers::{ACCURACY, KL, Numbers, Of, PERPLEXITY, SPEED, Subject, VERSION, short_names};
use crate::report::quantization::Quantization;
use crate::report::words::{cut, one_line};

/// Records shown whose loss fell most, and as many at the other end.
const EXAMPLES: usize = 4;
/// Tokens of a record where it is not said.
const MAX_LENGTH: u64 = 512;
/// Characters of a text that is shown.
const LENGTH: usize = 240;

/// Finds what contradicts itself in a report of language models.
pub(super) fn check(fields: &Fields, problems: &mut Problems<'_>) {
    let reads_texts = [PERPLEXITY, KL, ACCURACY].into_iter().any(|metric| fields.has(metric));
    let needs_on = [
        ("metrics", "metrics", reads_texts),
        ("limit", "limit.0", !fields.limit.is_empty()),
        ("ask", "ask.0", !fields.ask.is_empty()),
        ("max-tokens", "max-tokens", fields.max_tokens.is_some()),
    ];
    let needs_on = needs_on.into_iter().find(|(.., given)| *given);
    if let (true, Some((field, path, _))) = (fields.on.is_empty(), needs_on) {
        let help = "name a dataset: on \"data/...\" split=\"test\"";
        problems.at(path, format!("`{field}` needs `on`"), "given here", help);
    } else if fields.metrics.is_none() {
        let path = if fields.ask.is_empty() { "on.0" } else { "ask.0" };
        let field = if fields.ask.is_empty() { "on" } else { "ask" };
        let help = "add `metrics \"perplexity\"`";
        problems.at(path, format!("`{field}` needs `metrics`"), "given here", help);
    } else if !fields.on.is_empty() && !reads_texts && fields.ask.is_empty() {
        let help = "leave it out, or add a metric of texts: \"perplexity\", \"kl\" or \"accuracy\"";
        problems.at("on.0", "`on` means nothing to the metric `speed`", "given here", help);
    }
    if fields.max_tokens.is_some() && fields.ask.is_empty() {
        problems.at("max-tokens", "`max-tokens` needs `ask`", "given here", "add a question, or leave it out");
    }
    fields.check_on(problems);
    if fields.has(KL) && fields.compare.len() < 2 {
        let what = "the metric `kl` holds models against the first, and there is no other";
        problems.at("compare", what, "one model", "name the models that were made of it too");
    }
    for (i, limit) in fields.limit.iter().enumerate() {
        let path = format!("limit.{i}");
        if !fields.on.is_empty() && !fields.has(KL) {
            let help = "add it: metrics \"kl\"; what is near to the original is known by it";
            problems.at(&path, "`limit` needs the metric `kl`", "given here", help);
        }
        if limit.cosine.is_some() {
            let help = "leave it out, or measure the metric `cosine` of encoders";
            problems.at(&format!("{path}.cosine"), "language models have no cosine", "this", help);
        }
    }
    fields.check_limits("kl=0.01", problems);
}

fn part_name(model: usize, on: usize) -> String {
    format!("perplexity-{model}-{on}")
}

/// The part, and its kind, of what the machine can do.
const HARDWARE: &str = "hardware";

/// Each model's losses on each dataset, against the first model where that is asked; questions go with the first dataset. And
/// each one's speed, with what the machine can do.
pub(super) fn parts(fields: &Fields) -> Vec<Part> {
    let mut parts = Vec::new();
    for (i, model) in fields.compare.iter().enumerate() {
        for (j, on) in fields.on.iter().enumerate() {
            let mut own = json!({ "of": model, "on": on.data, "split": on.split, "max-length": on.max_length.unwrap_or(MAX_LENGTH), "ask": [] });
            if let Some(rows) = on.rows {
                own["rows"] = rows.into();
            }
            if j == 0 {
                own["ask"] = json!(fields.ask);
                if let Some(count) = fields.max_tokens {
                    own["max-tokens"] = count.into();
                }
            }
            if i > 0 && fields.has(KL) {
                own["against"] = json!(fields.compare[0]);
            }
            parts.push(Part { name: part_name(i, j), kind: "perplexity", fields: own });
        }
        if fields.has(SPEED) {
            parts.push(fields.speed(i));
        }
    }
    if fields.has(SPEED) {
        parts.push(Part { name: HARDWARE.into(), kind: HARDWARE, fields: json!({}) });
    }
    parts
}

/// Of `losses.json`.
#[derive(Deserialize)]
struct Found {
    losses: Vec<Loss>,
    cut: usize,
    answers: Vec<Answer>,
    accuracy: Measured,
    divergence: Option<Measured>,
    same_top: Option<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    records: Vec<Loss>,
}

/// The numbers.
pub(super) fn measure(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<Numbers, Failure> {
    let (mut all, mut answers, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for (j, on) in fields.on.iter().enumerate() {
        let data = Dataset::open(cx.input(&on.data))?;
        if let Some(reason) = data.left_out() {
            let asked = if j == 0 && !fields.ask.is_empty() { ", and the questions" } else { "" };
            left_out.push(format!("{}, {}{asked} ({reason})", on.data, on.split));
            continue;
        }
        let mut found = Vec::new();
        for i in 0..fields.compare.len() {
            found.push(read_json::<Found>(&cx.part(&part_name(i, j)).join(LOSSES))?);
        }
        let mut rows = data.rows(&on.split)?;
        rows.truncate(on.rows.unwrap_or(usize::MAX));
        let texts = texts(fields, on, &found, &rows)?;
        for row in &texts.rows {
            let name = format!("{}.{}.{}", on.data, on.split, row.subject);
            cx.metric(&format!("{name}.perplexity"), row.perplexity.value);
            for (metric, found) in [(KL, row.divergence), (ACCURACY, row.accuracy)] {
                if let Some(found) = found {
                    cx.metric(&format!("{name}.{metric}"), found.value);
                }
            }
        }
        all.push(texts);
        if j == 0 {
            answers = (0..fields.ask.len())
                .map(|q| Answers {
                    prompt: fields.ask[q].clone(),
                    answers: found.iter().map(|f| f.answers[q].clone()).collect(),
                })
                .collect();
        }
    }
    let subjects = subjects(cx, fields)?;
    Ok(Numbers {
        version: VERSION,
        of: Of::Language,
        label: cx.decl.label.to_string(),
        metrics: fields.metrics.clone().unwrap_or_default(),
        machine: subjects[0].speed["machine"].as_str().unwrap_or("").to_owned(),
        hardware: match fields.has(SPEED) {
            true => Some(read_json(&cx.part(HARDWARE).join(hardware::FILE))?),
            false => None,
        },
        seed: fields.seed,
        quantization: all.first().and_then(|texts| {
            Quantization::of(&subjects, texts.rows.iter().map(|row| row.divergence), &fields.limits())
        }),
        subjects,
        texts: all,
        answers,
        left_out,
        ..Numbers::default()
    })
}

fn texts(fields: &Fields, on: &On, found: &[Found], rows: &[Row]) -> Result<Texts, Failure> {
    let first = &found[0];
    let counts = |found: &Found| found.losses.iter().map(|(_, n)| *n).collect::<Vec<_>>();
    if let Some(i) = found.iter().position(|f| counts(f) != counts(first)) {
        let message = format!(
            "{} and {} cut the texts of {} into other tokens: their perplexities do not compare",
            fields.compare[0], fields.compare[i], on.data
        );
        return Err(Failure::user(message).help("compare models with one tokenizer and one length"));
    }
    let records = first.losses.len();
    if records < 2 {
        return Err(Failure::target(format!("the split `{}` of {} has one record: no interval", on.split, on.data))
            .help("name a split with more"));
    }
    let of = |measured: &Measured| by_tokens(&measured.records, fields.seed);
    // The first is held against itself.
    let against = |measured: &Option<Measured>, own: f64| {
        let same = Estimate { value: own, low: own, high: own };
        fields.has(KL).then(|| measured.as_ref().map_or(same, of))
    };
    let line = |i: usize| language::Row {
        accuracy: fields.has(ACCURACY).then(|| of(&found[i].accuracy)),
        divergence: against(&found[i].divergence, 0.0),
        same_top: against(&found[i].same_top, 1.0),
        ..language::row(&fields.compare[i], &found[i].losses, (i > 0).then_some(&first.losses), fields.seed)
    };
    let losses: Vec<Vec<f64>> = found.iter().map(|f| f.losses.iter().map(|(loss, _)| *loss).collect()).collect();
    let lines: Vec<_> = (0..found.len()).map(line).collect();
    // Of several models, the one that foresees best.
    let best = (1..found.len()).min_by(|a, b| lines[*a].loss.value.total_cmp(&lines[*b].loss.value));
    // Records without a token that counts have no loss: then it is not known whose each is. And of models that differ by
    // rounding alone, what changed most is chance.
    let examples = match best {
        Some(best) if rows.len() == records && fields.has(PERPLEXITY) && !fields.has(KL) => {
            changed_most(&losses[best], &losses[0], EXAMPLES)
                .into_iter()
                .filter_map(|r| {
                    let (prompt, completion) = shown(&rows[r])?;
                    let of = losses.iter().map(|l| l[r]).collect();
                    Some(Example { prompt, completion, tokens: first.losses[r].1, losses: of })
                })
                .collect()
        }
        _ => Vec::new(),
    };
    Ok(Texts {
        on: on.data.clone(),
        split: on.split.clone(),
        records,
        tokens: counts(first).iter().sum(),
        cut: first.cut,
        rows: lines,
        examples,
        losses,
    })
}

/// What a record gives, and what is to be foreseen; a conversation is not shown.
fn shown(row: &Row) -> Option<(String, String)> {
    let column = |name: &str| row.columns.get(name).filter(|t| !t.is_empty()).map(|t| cut(&one_line(t), LENGTH));
    match (column("messages"), column("prompt"), column("completion"), column("text")) {
        (Some(_), ..) => None,
        (None, Some(prompt), Some(completion), _) => Some((prompt, completion)),
        (.., text) => Some((String::new(), text?)),
    }
}

/// The models, with their sizes and speeds.
fn subjects(cx: &ActionCx<'_>, fields: &Fields) -> Result<Vec<Subject>, Failure> {
    let mut all = Vec::new();
    let mut parameters = None;
    for (i, (label, name)) in fields.compare.iter().zip(short_names(&fields.compare)).enumerate() {
        let dir = cx.input(label);
        let own = weight_bytes(dir)?;
        let base = base_of(cx, dir)?;
        let under = base.as_deref().map(weight_bytes).transpose()?;
        let bytes = own + under.unwrap_or(0);
        if i == 0 && fields.has(KL) {
            parameters = parameters_of(base.as_deref().unwrap_or(dir))?;
        }
        let speed = match fields.has(SPEED) {
            true => read_json(&cx.part(&speed_name(i)).join(speed::SPEED))?,
            false => Value::Null,
        };
        all.push(Subject {
            label: label.clone(),
            name,
            bytes,
            bits_per_weight: parameters.map(|count| 8.0 * bytes as f64 / count as f64),
            base: adapted(dir)?,
            own_bytes: under.map(|_| own),
            speed,
            ..Subject::default()
        });
    }
    Ok(all)
}

/// How many weights a language model has.
fn parameters_of(dir: &std::path::Path) -> Result<Option<usize>, Failure> {
    let Config::Llama(config) = Config::read(dir)? else { return Ok(None) };
    Ok(Some(llama::weights(&config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()))
}

/// The label of the model that an adapter is of.
fn adapted(dir: &std::path::Path) -> Result<Option<String>, Failure> {
    let path = dir.join("adapter_config.json");
    if !path.exists() {
        return Ok(None);
    }
    Ok(read_json::<serde_json::Value>(&path)?["base_model_name_or_path"].as_str().map(str::to_owned))
}
