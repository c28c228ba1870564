//! A report of the numbers that targets' programs told, from the files that their field `metrics` names.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Fields, Number};
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::kind::ActionCx;
use crate::recipe::decl::Problems;
use crate::report::numbers::{Numbers, Of, Subject, VERSION_OF_TOLD, short_names};
use crate::report::told::{Row, Told};
use crate::report::words::list;

/// Finds what contradicts itself in a report of told numbers.
pub(super) fn check(fields: &Fields, problems: &mut Problems<'_>) {
    for (i, number) in fields.number.iter().enumerate() {
        if fields.number[..i].iter().any(|other| other.name == number.name) {
            let message = format!("the number `{}` is there twice", number.name);
            problems.at(&format!("number.{i}"), message, "again here", "leave one out");
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
    let names = short_names(&fields.compare).into_iter().zip(&fields.compare);
    Ok(Numbers {
        version: VERSION_OF_TOLD,
        of: Of::Told,
        label: cx.decl.label.to_string(),
        seed: fields.seed,
        subjects: names.map(|(name, label)| Subject { label: label.clone(), name, ..Subject::default() }).collect(),
        told,
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
