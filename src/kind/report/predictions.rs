//! A report of predictions: the tables that any targets keep of the same items, beside what was true.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::Fields;
use crate::failure::Failure;
use crate::format::table::{self, Form};
use crate::kind::ActionCx;
use crate::measure::estimate::{Difference, Estimate, resampled};
use crate::recipe::decl::Problems;
use crate::recipe::mistake::nearest;
use crate::report::numbers::{Numbers, Of, Subject, VERSION_OF_PREDICTIONS, short_names};
use crate::report::predictions::{ByClass, Calibration, Predicted, Row, Scored};
use crate::report::words::list;
use crate::score::probabilities::Sweep;
use crate::score::ranking::Ranked;
use crate::score::{Classes, Metric, Needs, Predictions, Text};
use crate::util::fs;

/// Stands for a class in the names of columns.
const CLASS: &str = "{class}";
/// How far the probabilities of an item may be from 1 in sum: files hold few digits.
const APART: f64 = 0.01;

/// The declared table of predictions.
#[derive(Deserialize)]
pub(super) struct Given {
    file: String,
    truth: String,
    id: Option<String>,
    predicted: Option<String>,
    probability: Option<String>,
    score: Option<String>,
    positive: Option<String>,
    ranked: Option<String>,
    text: Option<String>,
    metrics: Option<Vec<String>>,
}

/// What sort of things are predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Classes,
    Rankings,
    Texts,
}

impl Given {
    /// Each field that says what is predicted, if it is given.
    fn sorts(&self) -> [(&'static str, Sort, bool); 5] {
        [
            ("predicted", Sort::Classes, self.predicted.is_some()),
            ("probability", Sort::Classes, self.probability.is_some()),
            ("score", Sort::Classes, self.score.is_some()),
            ("ranked", Sort::Rankings, self.ranked.is_some()),
            ("text", Sort::Texts, self.text.is_some()),
        ]
    }

    fn sort(&self) -> Sort {
        self.sorts().into_iter().find(|(.., given)| *given).map_or(Sort::Classes, |(_, sort, _)| sort)
    }

    /// The field that a metric lacks, if it does not fit.
    fn lacks(&self, metric: Metric) -> Option<&'static str> {
        let (has, field) = match metric.needs() {
            Needs::Class => (self.predicted.is_some() || self.probability.is_some(), "predicted=\"COLUMN\""),
            Needs::Probabilities => (self.probability.is_some(), "probability=\"p_{class}\""),
            Needs::Scores => (
                self.probability.is_some() || self.score.is_some(),
                "probability=\"p_{class}\", or score=\"COLUMN\" positive=\"CLASS\"",
            ),
            Needs::Ranked => (self.ranked.is_some(), "ranked=\"COLUMN\""),
            Needs::Text => (self.text.is_some(), "text=\"COLUMN\""),
        };
        (!has).then_some(field)
    }

    /// What is asked for, or what people look at first.
    fn metrics(&self) -> Vec<Metric> {
        let usual = ["accuracy", "f1", "roc-auc", "log-loss", "calibration-error", "recall@10", "mrr", "ndcg@10"];
        let usual = usual.into_iter().chain(["exact-match", "bleu", "chrf"]).filter_map(Metric::parse);
        match &self.metrics {
            Some(asked) => asked.iter().filter_map(|name| Metric::parse(name)).collect(),
            None => usual.filter(|metric| self.lacks(*metric).is_none()).collect(),
        }
    }
}

/// Finds what contradicts itself in a report of predictions.
pub(super) fn check(given: &Given, problems: &mut Problems<'_>) {
    let there: Vec<_> = given.sorts().into_iter().filter(|(.., given)| *given).collect();
    let Some((first, sort, _)) = there.first() else {
        let help = "name a column: predicted=\"class\", probability=\"p_{class}\", score=\"p\" positive=\"yes\", \
                    ranked=\"answers\" or text=\"output\"";
        problems.at("predictions", "which column is the prediction is not said", "these predictions", help);
        return;
    };
    if let Some((other, ..)) = there.iter().find(|(_, of, _)| of != sort) {
        let message = format!("`{first}` and `{other}` are of different sorts of predictions");
        problems.at(&format!("predictions.{other}"), message, "given here", "make two reports of it");
    }
    match (&given.score, &given.positive) {
        (Some(_), None) => {
            let help = "add positive=\"CLASS\", the class that a high score speaks for";
            problems.at("predictions.score", "`score` needs `positive`", "given here", help);
        }
        (None, Some(_)) => {
            let help = "leave it out: each class is held against the others";
            problems.at("predictions.positive", "`positive` needs `score`", "given here", help);
        }
        _ => {}
    }
    if given.probability.as_ref().is_some_and(|columns| columns.matches(CLASS).count() != 1) {
        let message = "`probability` names no column for each class";
        let help = "write {class} where the class stands: \"p_{class}\" is the columns p_cat and p_dog";
        problems.at("predictions.probability", message, "this", help);
    }
    for (i, name) in given.metrics.iter().flatten().enumerate() {
        let path = format!("predictions.metrics.{i}");
        let Some(metric) = Metric::parse(name) else {
            let names = Metric::names();
            let help = match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("there are {}; any number may stand after @", list(&names)),
            };
            problems.at(&path, format!("there is no metric `{name}`"), "this", help);
            continue;
        };
        if let Some(field) = given.lacks(metric) {
            let message = format!("the metric `{name}` does not fit these predictions");
            problems.at(&path, message, "this", format!("it needs {field}"));
        }
        if given.metrics.iter().flatten().take(i).any(|other| other == name) {
            problems.at(&path, format!("the metric `{name}` is there twice"), "again here", "leave one out");
        }
    }
}

/// The numbers.
pub(super) fn gather(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<Numbers, Failure> {
    let given = fields.predictions.as_ref().expect("what makes it such a report");
    let tables = fields.compare.iter().map(|label| Table::read(cx, label, given)).collect::<Result<Vec<_>, _>>()?;
    let tables = in_order(tables)?;
    let (classes, predictions) = match given.sort() {
        Sort::Classes => classified(given, &tables)?,
        Sort::Rankings => (Vec::new(), tables.iter().map(|t| ranked(given, t)).collect::<Result<_, _>>()?),
        Sort::Texts => (Vec::new(), tables.iter().map(|t| texts(given, t)).collect::<Result<_, _>>()?),
    };
    let names = short_names(&fields.compare);
    let mut left_out = Vec::new();
    let metrics: Vec<Scored> = given.metrics().into_iter().map(|metric| scored(fields, &predictions, metric)).collect();
    for scored in &metrics {
        let without = scored.rows.iter().zip(&names).filter(|(row, _)| row.estimate.is_none());
        let without: Vec<String> = without.map(|(_, name)| name.clone()).collect();
        if !without.is_empty() {
            left_out.push(format!("{} of {}: it has no value on these items.", scored.metric, list(&without)));
        }
        for row in &scored.rows {
            if let Some(estimate) = row.estimate {
                cx.metric(&format!("{}.{}", row.subject, scored.metric), estimate.value);
            }
        }
    }
    let items = predictions.first().map_or(0, Predictions::len);
    let all: Vec<usize> = (0..items).collect();
    let of_classes = || {
        fields.compare.iter().zip(&predictions).filter_map(|(label, of)| match of {
            Predictions::Classes(of) => Some((label, of)),
            _ => None,
        })
    };
    let by_class = |(label, of): (&String, &Classes)| {
        let confusion = of.confusion(&all)?;
        let row = |truth| (0..classes.len()).map(|predicted| confusion.count(truth, predicted)).collect();
        Some(ByClass {
            subject: label.clone(),
            confusion: (0..classes.len()).map(row).collect(),
            f1: (0..classes.len()).map(|class| confusion.of_class(class).f1).collect(),
        })
    };
    let calibration = |(label, of): (&String, &Classes)| {
        let bins = of.bins()?.into_iter().filter(|bin| bin.items > 0.0);
        let bins = bins.map(|bin| (bin.held / bin.items, bin.right / bin.items, bin.items as u64)).collect();
        Some(Calibration { subject: label.clone(), bins })
    };
    Ok(Numbers {
        version: VERSION_OF_PREDICTIONS,
        of: Of::Predictions,
        label: cx.decl.label.to_string(),
        seed: fields.seed,
        subjects: names
            .into_iter()
            .zip(&fields.compare)
            .map(|(name, label)| Subject { label: label.clone(), name, ..Subject::default() })
            .collect(),
        predicted: Some(Predicted {
            file: given.file.clone(),
            items,
            by_class: of_classes().filter_map(by_class).collect(),
            calibration: of_classes().filter_map(calibration).collect(),
            classes,
            metrics,
        }),
        left_out,
        ..Numbers::default()
    })
}

/// A metric of each target with its interval, and its difference from the first one's on the same resamples.
fn scored(fields: &Fields, predictions: &[Predictions], metric: Metric) -> Scored {
    let items: Vec<usize> = (0..predictions.first().map_or(0, Predictions::len)).collect();
    let values = |of: &Predictions| {
        let value = |picks: &[usize]| of.value(metric, picks).unwrap_or(f64::NAN);
        (value(&items), resampled(items.len(), fields.seed, &value))
    };
    let all: Vec<(f64, Vec<f64>)> = predictions.par_iter().map(values).collect();
    let estimate = |value: f64, resamples| (!value.is_nan()).then(|| Estimate::of(value, resamples));
    let row = |(i, label): (usize, &String)| {
        let ((value, resamples), (first, of_first)) = (&all[i], &all[0]);
        let apart = || resamples.iter().zip(of_first).map(|(a, b)| a - b).collect();
        let difference = if i > 0 { estimate(value - first, apart()) } else { None };
        Row {
            subject: label.clone(),
            estimate: estimate(*value, resamples.clone()),
            difference: difference.map(Difference::of),
        }
    };
    Scored {
        metric: metric.name(),
        is_error: metric.is_error(),
        is_share: metric.is_share(),
        rows: fields.compare.iter().enumerate().map(row).collect(),
    }
}

/// What one target predicted.
struct Table {
    label: String,
    file: String,
    rows: Vec<Value>,
    /// Of each row which item it is of: its `id`, or its number.
    ids: Vec<String>,
    /// Of each row.
    truth: Vec<Value>,
}

impl Table {
    fn read(cx: &ActionCx<'_>, label: &str, given: &Given) -> Result<Self, Failure> {
        let path = cx.input(label).join(&given.file);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => {
                return Err(Failure::user(format!("{label} has no {}: it keeps no predictions there", given.file))
                    .help(format!("have its program write the table, or name another file than \"{}\"", given.file)));
            }
            Err(error) => return Err(error.into()),
        };
        let file = given.file.clone();
        let rows = table::records(&bytes, &file, Form::Whole)
            .map_err(|e| Failure::target(format!("{file} of {label}: {e}")))?;
        let mut table = Self { label: label.to_owned(), file, rows, ids: Vec::new(), truth: Vec::new() };
        if table.rows.is_empty() {
            return Err(Failure::target(format!("{} of {label} has no rows", table.file))
                .help("of no items nothing can be said: look at what its program was given"));
        }
        let ids = (0..table.rows.len()).map(|row| match &given.id {
            Some(column) => table.text(row, column),
            None => Ok((row + 1).to_string()),
        });
        table.ids = ids.collect::<Result<_, _>>()?;
        table.truth =
            (0..table.rows.len()).map(|row| table.get(row, &given.truth).cloned()).collect::<Result<_, _>>()?;
        Ok(table)
    }

    /// What is wrong in a row.
    fn wrong(&self, row: usize, what: &str) -> Failure {
        Failure::target(format!("{} of {}, row {}: {what}", self.file, self.label, row + 1))
    }

    fn get(&self, row: usize, column: &str) -> Result<&Value, Failure> {
        self.rows[row].get(column).ok_or_else(|| {
            let names: Vec<String> = self.columns().into_iter().map(|name| format!("`{name}`")).collect();
            let failure = self.wrong(row, &format!("there is no column `{column}`"));
            failure.help(format!("it has {}", list(&names)))
        })
    }

    /// Of the first row.
    fn columns(&self) -> Vec<&str> {
        self.rows.first().and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str()).collect()
    }

    /// A class or a name: 3, 3.0 and "3" are the same one.
    fn text(&self, row: usize, column: &str) -> Result<String, Failure> {
        let value = self.get(row, column)?;
        name_of(value).ok_or_else(|| self.wrong(row, &format!("`{column}` is {}, no name or number", sort_of(value))))
    }

    fn number(&self, row: usize, column: &str) -> Result<f64, Failure> {
        let value = self.get(row, column)?;
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        match number {
            Some(number) if f64::is_finite(number) => Ok(number),
            // Parquet's own NaN comes as null.
            Some(_) => Err(self.wrong(row, &format!("`{column}` is no finite number"))),
            None => Err(self.wrong(row, &format!("`{column}` is {}, no number", sort_of(value)))),
        }
    }

    /// An array, or a text that holds one, as CSV has it.
    fn nested(&self, row: usize, column: &str) -> Result<Value, Failure> {
        let value = self.get(row, column)?;
        let parsed = match value {
            Value::String(text) => serde_json::from_str(text).ok(),
            other => Some(other.clone()),
        };
        parsed.filter(|value| value.is_array() || value.is_object()).ok_or_else(|| {
            let what =
                format!("`{column}` is {}, no array of names and no object of names and numbers", sort_of(value));
            self.wrong(row, &what)
        })
    }

    /// Names and numbers of an array, each 1, or of an object.
    fn named(&self, row: usize, column: &str) -> Result<(Vec<(String, f64)>, bool), Failure> {
        let wrong = |what: &str| self.wrong(row, &format!("`{column}` holds {what}"));
        match self.nested(row, column)? {
            Value::Object(of) => {
                let one = |(name, value): (String, Value)| {
                    let number = value.as_f64().ok_or_else(|| wrong("what is no number"))?;
                    Ok((name, number))
                };
                Ok((of.into_iter().map(one).collect::<Result<_, Failure>>()?, true))
            }
            array => {
                let names = array.as_array().into_iter().flatten();
                let one = |value: &Value| Ok((name_of(value).ok_or_else(|| wrong("what is no name"))?, 1.0));
                let all: Vec<(String, f64)> = names.map(one).collect::<Result<_, Failure>>()?;
                let mut seen = BTreeSet::new();
                match all.iter().find(|(name, _)| !seen.insert(name)) {
                    Some((twice, _)) => Err(wrong(&format!("`{twice}` twice"))),
                    None => Ok((all, false)),
                }
            }
        }
    }
}

fn name_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => Some(format!("{whole:.0}")),
            _ => Some(number.to_string()),
        },
        _ => None,
    }
}

fn sort_of(value: &Value) -> String {
    match value {
        Value::Null => "empty".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.is_empty() => "empty".into(),
        other => format!("`{}`", other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
    }
}

/// The rows of each table in the order of the first one's items, which have to be the same ones.
fn in_order(tables: Vec<Table>) -> Result<Vec<Table>, Failure> {
    for table in &tables {
        let mut seen = BTreeSet::new();
        if let Some(row) = table.ids.iter().position(|id| !seen.insert(id)) {
            return Err(table.wrong(row, &format!("the item `{}` is there twice", table.ids[row])));
        }
    }
    let Some((first, others)) = tables.split_first() else { return Ok(tables) };
    let mut orders = vec![(0..first.ids.len()).collect::<Vec<_>>()];
    for table in others {
        let help = "targets are compared on the same items: have their programs predict the same ones";
        let places: HashMap<&str, usize> = table.ids.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
        if table.ids.len() != first.ids.len() {
            let (theirs, ours) = (table.ids.len(), first.ids.len());
            let message = format!("{} predicts {theirs} items and {} {ours}", table.label, first.label);
            return Err(Failure::target(message).help(help));
        }
        let place = |id: &String| {
            let missing = || Failure::target(format!("{} does not predict the item `{id}`", table.label)).help(help);
            places.get(id.as_str()).copied().ok_or_else(missing)
        };
        let order = first.ids.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        for (row, at) in order.iter().enumerate() {
            let (own, other) = (&table.truth[*at], &first.truth[row]);
            // Numbers and texts of one value are one.
            if own != other && (name_of(own).is_none() || name_of(own) != name_of(other)) {
                let what = format!("its truth is {}, and that of {} is {}", sort_of(own), first.label, sort_of(other));
                return Err(table.wrong(*at, &what).help(format!("{help}; a column `id` says which is which")));
            }
        }
        orders.push(order);
    }
    let sorted = tables.into_iter().zip(orders).map(|(table, order)| {
        let pick = |all: &[Value]| order.iter().map(|row| all[*row].clone()).collect();
        Table { rows: pick(&table.rows), truth: pick(&table.truth), ..table }
    });
    Ok(sorted.collect())
}

/// All classes, and each table's in their numbers.
fn classified(given: &Given, tables: &[Table]) -> Result<(Vec<String>, Vec<Predictions>), Failure> {
    let mut names = BTreeSet::new();
    for table in tables {
        for row in 0..table.rows.len() {
            names.insert(table.text(row, &given.truth)?);
            if let Some(column) = &given.predicted {
                names.insert(table.text(row, column)?);
            }
        }
        // A class that no item here is of has its probability all the same.
        if let Some((before, after)) = given.probability.as_ref().and_then(|columns| columns.split_once(CLASS)) {
            let class = |name: &&str| Some(name.strip_prefix(before)?.strip_suffix(after)?.to_owned());
            let is_other = |name: &&str| {
                [Some(&given.truth), given.id.as_ref(), given.predicted.as_ref()].contains(&Some(&(*name).to_owned()))
            };
            names.extend(table.columns().iter().filter(|name| !is_other(name)).filter_map(class));
        }
    }
    if let Some(positive) = given.positive.as_ref().filter(|positive| !names.contains(*positive)) {
        let known: Vec<String> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
        return Err(
            Failure::user(format!("no item is of the class `{positive}`")).help(format!("there are {}", list(&known)))
        );
    }
    let mut classes: Vec<String> = names.into_iter().collect();
    // As numbers where all are numbers.
    let number = |name: &String| name.parse::<f64>().unwrap_or(f64::NAN);
    if !classes.iter().map(number).any(f64::is_nan) {
        classes.sort_by(|a, b| number(a).total_cmp(&number(b)));
    }
    let places: BTreeMap<&str, usize> = classes.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let of = |table: &Table| -> Result<Predictions, Failure> {
        let rows = 0..table.rows.len();
        let column = |column: &str| -> Result<Vec<usize>, Failure> {
            rows.clone().map(|row| Ok(places[table.text(row, column)?.as_str()])).collect()
        };
        let mut probabilities = Vec::new();
        if let Some(columns) = &given.probability {
            let columns: Vec<String> = classes.iter().map(|class| columns.replace(CLASS, class)).collect();
            for row in rows.clone() {
                let begin = probabilities.len();
                for column in &columns {
                    let p = table.number(row, column)?;
                    if !(-APART..=1.0 + APART).contains(&p) {
                        return Err(table.wrong(row, &format!("`{column}` is {p}, no probability")));
                    }
                    probabilities.push(p.clamp(0.0, 1.0));
                }
                let sum: f64 = probabilities[begin..].iter().sum();
                if (sum - 1.0).abs() > APART {
                    let help =
                        "give every class a column, and what softmax gives; of scores use `score` and `positive`";
                    return Err(table.wrong(row, &format!("its probabilities are {sum:.3} in sum")).help(help));
                }
            }
        }
        let predicted = match &given.predicted {
            Some(name) => column(name)?,
            None => probabilities
                .chunks_exact(classes.len())
                .map(|row| (1..row.len()).fold(0, |top, class| if row[class] > row[top] { class } else { top }))
                .collect(),
        };
        let truth = column(&given.truth)?;
        let sweep =
            |class: usize, scores: &[f64]| Sweep::new(truth.iter().map(|truth| *truth == class).collect(), scores);
        let sweeps = match (&given.score, &given.positive) {
            (Some(score), Some(positive)) => {
                let scores = rows.clone().map(|row| table.number(row, score)).collect::<Result<Vec<f64>, _>>()?;
                vec![sweep(places[positive.as_str()], &scores)]
            }
            _ if probabilities.is_empty() => Vec::new(),
            _ => {
                let of = |class| probabilities.iter().skip(class).step_by(classes.len()).copied().collect::<Vec<f64>>();
                (0..classes.len()).map(|class| sweep(class, &of(class))).collect()
            }
        };
        Ok(Predictions::Classes(Classes { classes: classes.len(), truth, predicted, probabilities, sweeps }))
    };
    let predictions = tables.iter().map(of).collect::<Result<_, _>>()?;
    Ok((classes.clone(), predictions))
}

fn ranked(given: &Given, table: &Table) -> Result<Predictions, Failure> {
    let column = given.ranked.as_deref().unwrap_or_default();
    let one = |row| {
        let relevant: BTreeMap<String, f64> = table.named(row, &given.truth)?.0.into_iter().collect();
        let (answers, are_scored) = table.named(row, column)?;
        Ok(match are_scored {
            true => Ranked::scored(&answers, &relevant),
            false => Ranked::in_order(answers.iter().map(|(name, _)| name.as_str()), &relevant),
        })
    };
    Ok(Predictions::Ranked((0..table.rows.len()).map(one).collect::<Result<_, Failure>>()?))
}

fn texts(given: &Given, table: &Table) -> Result<Predictions, Failure> {
    let column = given.text.as_deref().unwrap_or_default();
    let one = |row| Ok(Text::of(&table.text(row, column)?, &table.text(row, &given.truth)?));
    Ok(Predictions::Texts((0..table.rows.len()).map(one).collect::<Result<_, Failure>>()?))
}
