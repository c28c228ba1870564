//! A report of the numbers that targets' programs told, from the files that their field `metrics` names.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Fields, Number};
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::kind::ActionCx;
use crate::recipe::decl::Problems;
use crate::report::numbers::{Numbers, Of, Subject, VERSION_OF_TOLD, short_names};
use crate::report::told::{Better, Front, Row, Told};
use crate::report::words::list;

/// Finds what contradicts itself in a report of told numbers.
pub(super) fn check(fields: &Fields, problems: &mut Problems<'_>) {
    for (i, number) in fields.number.iter().enumerate() {
        if fields.number[..i].iter().any(|other| other.name == number.name) {
            let message = format!("the number `{}` is there twice", number.name);
            problems.at(&format!("number.{i}"), message, "again here", "leave one out");
        }
    }
    for (i, front) in fields.front.iter().enumerate() {
        let (path, against) = (format!("front.{i}"), format!("front.{i}.against"));
        for (path, name) in [(&path, &front.name), (&against, &front.against)] {
            let Some(number) = fields.number.iter().find(|number| number.name == *name) else {
                let message = format!("no `number` of this report is `{name}`");
                problems.at(path, message, "named here", format!("add: number \"{name}\" better=\"lower\""));
                continue;
            };
            if number.better != Some(Better::Lower) {
                let message = format!("of `{name}` it is not said that it is the better the lower");
                let help = "a front is of costs and errors: write better=\"lower\" beside that number, or name another";
                problems.at(path, message, "named here", help);
            }
        }
    }
}

/// The numbers.
pub(super) fn gather(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<Numbers, Failure> {
    let mut files: BTreeMap<&str, Vec<Metrics>> = BTreeMap::new();
    let mut told = Vec::new();
    for number in &fields.number {
        let of_each = match files.entry(&number.r#in) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let all = fields.compare.iter().map(|label| read(cx, label, &number.r#in));
                new.insert(all.collect::<Result<_, _>>()?)
            }
        };
        told.push(one(fields, number, of_each)?);
    }
    for number in &told {
        for row in &number.rows {
            if let Some(value) = row.value {
                cx.metric(&format!("{}.{}", row.subject, number.name), value);
            }
        }
    }
    for name in fields.front.iter().flat_map(|front| [&front.name, &front.against]) {
        let below = told.iter().filter(|told| told.name == *name).flat_map(|told| &told.rows);
        if let Some((label, value)) = below.filter_map(|row| Some((&row.subject, row.value?))).find(|(_, v)| *v < 0.0) {
            return Err(Failure::user(format!("`{name}` of `{label}` is {value}, and a front has none below 0"))
                .help("leave that `front` out, or have the program tell a cost or an error"));
        }
    }
    let number = |name: &String| told.iter().find(|told| told.name == *name).expect("it was checked");
    let fronts = fields.front.iter().map(|front| Front::of(number(&front.name), number(&front.against))).collect();
    let names = short_names(&fields.compare).into_iter().zip(&fields.compare);
    Ok(Numbers {
        version: VERSION_OF_TOLD,
        of: Of::Told,
        label: cx.decl.label.to_string(),
        seed: fields.seed,
        subjects: names.map(|(name, label)| Subject { label: label.clone(), name, ..Subject::default() }).collect(),
        told,
        fronts,
        ..Numbers::default()
    })
}

fn read(cx: &ActionCx<'_>, label: &str, file: &str) -> Result<Metrics, Failure> {
    Metrics::of_file(cx.input(label), file)?.ok_or_else(|| {
        Failure::user(format!("{label} has no {file}: it keeps no numbers there"))
            .help(format!("add to `{label}`: metrics \"{file}\""))
    })
}

/// One number, of all that each target told.
fn one(fields: &Fields, number: &Number, of_each: &[Metrics]) -> Result<Told, Failure> {
    let row = |(label, told): (&String, &Metrics)| Row {
        subject: label.clone(),
        value: told.values().get(number.name.as_str()).copied(),
        curve: told.curve(&number.name),
    };
    let rows: Vec<Row> = fields.compare.iter().zip(of_each).map(row).collect();
    if rows.iter().any(|row| row.value.is_some()) {
        return Ok(Told { name: number.name.clone(), better: number.better, rows });
    }
    // More likely misspelt than missing.
    let known: BTreeSet<&str> = of_each.iter().flat_map(|told| told.values().into_keys()).collect();
    let known: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
    let help = match known.as_slice() {
        [] => "they told no numbers at all".to_owned(),
        some => format!("they told {}", list(some)),
    };
    Err(Failure::user(format!("none of the targets told a number `{}`", number.name)).help(help))
}
