//! What a quantized language model may be off by.

use std::path::Path;

use super::{Fields, Limit};
use crate::backend::{Tensor, on_backend};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::kind::ActionCx;
use crate::report::language::{Loss, by_tokens};
use crate::train::language::{Foreseen, Language, foresees};
use crate::util::fs;

/// The file that says why a limit was crossed, in the directory that is kept of the action.
const WHY: &str = "limit.json";
/// Records named where a limit is crossed.
const WORST: usize = 5;

/// Measures the divergence of what was written; where it crosses the limit, leaves a file that says by how much and on which
/// records, and fails.
pub(super) fn hold(cx: &mut ActionCx<'_>, fields: &Fields, limit: &Limit, base: &Path) -> Result<(), Failure> {
    on_backend!(cx.backend()?, hold_on(cx, fields, limit, base))
}

fn hold_on<T: Tensor>(cx: &mut ActionCx<'_>, fields: &Fields, limit: &Limit, base: &Path) -> Result<(), Failure> {
    let original = match &fields.from.adapter {
        Some(adapter) => Language::<T>::open(cx.input(adapter), Some(base), adapter)?.0,
        None => Language::<T>::open(base, None, &fields.from.model)?.0,
    };
    let made = Language::<T>::open(cx.out(), None, &cx.decl.label.to_string())?.0;
    let data = Dataset::open(cx.input(&limit.on))?;
    let read = original.examples(&data, &limit.split, limit.max_length)?;
    let total = read.examples.len() as u64;
    let told = &mut |done| cx.progress("divergence", done as u64, total, "records");
    let found = foresees(&made, Some(&original), &read.examples, told)?;
    let apart = |f: &Foreseen| (f.apart.expect("the original was given").divergence, f.tokens);
    let found: Vec<Loss> = found.iter().map(apart).collect();
    let interval = by_tokens(&found, 0);
    let mean = interval.value;
    cx.metric("kl", mean);
    if mean <= limit.kl {
        return Ok(());
    }
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by(|a, b| found[*b].0.total_cmp(&found[*a].0).then(a.cmp(b)));
    let worst: Vec<_> = order
        .iter()
        .take(WORST)
        .map(|i| serde_json::json!({"record": i, "kl": found[*i].0, "tokens": found[*i].1}))
        .collect();
    let why = serde_json::json!({
        "version": 1, "limit": limit.kl, "kl": mean, "interval": [interval.low, interval.high], "on": limit.on,
        "split": limit.split, "records": found.len(), "worst": worst, "divergences": found,
    });
    let path = cx.scratch().join(WHY);
    fs::write(&path, serde_json::to_string_pretty(&why).expect("plain data").as_bytes())?;
    Err(Failure::target(format!(
        "the divergence from `{}` is {mean:.5} nats a token (95 % interval {:.5} to {:.5}, {} records), and {} is the limit",
        fields.from.model, interval.low, interval.high, found.len(), limit.kl
    ))
    .help(format!(
        "more bits or a smaller group bring it nearer; {} has every record, and `effai log` what each matrix is off by",
        path.display()
    )))
}
