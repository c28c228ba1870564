//! A report of language models: how well they foresee texts, and what they answer.

use serde::Deserialize;
use serde_json::json;

use super::{Fields, On, read_json};
use crate::failure::Failure;
use crate::format::dataset::{Dataset, Row};
use crate::kind::features::base_of;
use crate::kind::perplexity::LOSSES;
use crate::kind::{ActionCx, Part};
use crate::model::weight_bytes;
use crate::report::language::{Answer, Answers, Example, Loss, Texts, changed_most, row};
use crate::report::numbers::{Numbers, Of, Subject, VERSION, short_names};
use crate::report::words::{cut, one_line};

/// Records shown whose loss fell most, and as many at the other end.
const EXAMPLES: usize = 4;
/// Characters of a text that is shown.
const LENGTH: usize = 240;

fn part_name(model: usize, on: usize) -> String {
    format!("perplexity-{model}-{on}")
}

/// Each model's losses on each dataset; questions go with the first.
pub(super) fn parts(fields: &Fields) -> Vec<Part> {
    let mut parts = Vec::new();
    for (i, model) in fields.compare.iter().enumerate() {
        for (j, on) in fields.on.iter().enumerate() {
            let mut own =
                json!({ "of": model, "on": on.data, "split": on.split, "max-length": on.max_length, "ask": [] });
            if j == 0 {
                own["ask"] = json!(fields.ask);
                if let Some(count) = fields.max_tokens {
                    own["max-tokens"] = count.into();
                }
            }
            parts.push(Part { name: part_name(i, j), kind: "perplexity", fields: own });
        }
    }
    parts
}

/// Of `losses.json`.
#[derive(Deserialize)]
struct Found {
    losses: Vec<Loss>,
    cut: usize,
    answers: Vec<Answer>,
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
        let texts = texts(fields, on, &found, &data.rows(&on.split)?)?;
        for row in &texts.rows {
            cx.metric(&format!("{}.{}.{}.perplexity", on.data, on.split, row.subject), row.perplexity.value);
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
    Ok(Numbers {
        version: VERSION,
        of: Of::Language,
        label: cx.decl.label.to_string(),
        seed: fields.seed,
        subjects: subjects(cx, fields)?,
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
    let line = |i: usize| row(&fields.compare[i], &found[i].losses, (i > 0).then_some(&first.losses), fields.seed);
    let losses: Vec<Vec<f64>> = found.iter().map(|f| f.losses.iter().map(|(loss, _)| *loss).collect()).collect();
    let lines: Vec<_> = (0..found.len()).map(line).collect();
    // Of several models, the one that foresees best.
    let best = (1..found.len()).min_by(|a, b| lines[*a].loss.value.total_cmp(&lines[*b].loss.value));
    // Records without a token that counts have no loss: then it is not known whose each is.
    let examples = match best {
        Some(best) if rows.len() == records => changed_most(&losses[best], &losses[0], EXAMPLES)
            .into_iter()
            .filter_map(|r| {
                let (prompt, completion) = shown(&rows[r])?;
                let of = losses.iter().map(|l| l[r]).collect();
                Some(Example { prompt, completion, tokens: first.losses[r].1, losses: of })
            })
            .collect(),
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

/// The models, with their sizes.
fn subjects(cx: &ActionCx<'_>, fields: &Fields) -> Result<Vec<Subject>, Failure> {
    let mut all = Vec::new();
    for (label, name) in fields.compare.iter().zip(short_names(&fields.compare)) {
        let dir = cx.input(label);
        let own = weight_bytes(dir)?;
        let base = base_of(cx, dir)?;
        let under = base.as_deref().map(weight_bytes).transpose()?;
        all.push(Subject {
            label: label.clone(),
            name,
            bytes: own + under.unwrap_or(0),
            base: adapted(dir)?,
            own_bytes: under.map(|_| own),
            ..Subject::default()
        });
    }
    Ok(all)
}

/// The label of the model that an adapter is of.
fn adapted(dir: &std::path::Path) -> Result<Option<String>, Failure> {
    let path = dir.join("adapter_config.json");
    if !path.exists() {
        return Ok(None);
    }
    Ok(read_json::<serde_json::Value>(&path)?["base_model_name_or_path"].as_str().map(str::to_owned))
}
