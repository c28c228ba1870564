//! An export held against the model that it is of.

use super::{Fields, Verify};
use crate::backend::Backend;
use crate::export::format::Precision;
use crate::export::graph::Graph;
use crate::export::source::{BATCH, Given, Part, Source};
use crate::export::verify::{self, Allowed, Difference, Programs};
use crate::export::written::Written;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::kind::ActionCx;
use crate::model::fit::Words;
use crate::util::fs;

/// Inputs that are drawn where nothing is said.
pub(super) const ROUNDS: usize = 6;

/// What a check found, and by which program.
pub(super) struct Held {
    pub(super) found: Difference,
    pub(super) allowed: Allowed,
    pub(super) program: String,
    pub(super) rounds: usize,
    pub(super) seed: u64,
}

impl Held {
    /// By two programs on the same inputs, what holds for both.
    pub(super) fn also(self, other: Self) -> Self {
        let program = format!("{} and {}", self.program, other.program);
        Self { found: self.found.worst(&other.found), program, ..self }
    }

    /// Of two parts of a model, what holds for both.
    pub(super) fn worst(self, other: Self) -> Self {
        Self { found: self.found.worst(&other.found), rounds: self.rounds + other.rounds, ..self }
    }
}

/// What a check stands on.
pub(super) struct Checked<'a> {
    pub(super) source: &'a Source,
    pub(super) graph: &'a Graph,
    pub(super) tokenizer: Option<&'a Words>,
    pub(super) precision: Precision,
    /// What it is held against the model by, where that is not drawn.
    pub(super) pictures: Option<&'a [Given]>,
}

impl Checked<'_> {
    /// Holds a file, or what is run `instead` of it, against the model.
    pub(super) fn run(
        &self,
        cx: &mut ActionCx<'_>,
        fields: &Fields,
        (file, programs): (&Written, Programs<'_>),
        instead: Option<&str>,
    ) -> Result<Held, Failure> {
        cx.tell_backend(Backend::Candle);
        let asked = fields.verify.as_ref();
        let (rounds, seed) = asked.map_or((ROUNDS, 0), |asked| (asked.rounds, asked.seed));
        let mut allowed = Allowed::of(self.precision);
        if self.source.has_state() {
            allowed = allowed.with_state();
        }
        if let Some(scale) = self.source.scale_of_labels() {
            allowed = allowed.with_labels(scale);
        }
        if let Some(Verify { tolerance, cosine, .. }) = asked {
            allowed.relative = tolerance.unwrap_or(allowed.relative);
            allowed.cosine = cosine.unwrap_or(allowed.cosine);
        }
        let mut given = match self.pictures {
            Some(pictures) => pictures.to_vec(),
            None => verify::drawn(self.source, rounds, seed),
        };
        given.extend(self.declared(fields)?);
        let count = given.len() as u64;
        let mut told = |round: usize| cx.progress("verify", round as u64, count, "rounds");
        let found = verify::check(self.source, self.graph, (file, programs), &given, allowed, &mut told)?;
        let program = programs(false)?.name();
        let program = instead.map_or(program.clone(), |how| format!("{program}, {how}"));
        Ok(Held { found, allowed, program, rounds: given.len(), seed })
    }

    /// The texts that the recipe names.
    fn declared(&self, fields: &Fields) -> Result<Vec<Given>, Failure> {
        if fields.text.is_empty() {
            return Ok(Vec::new());
        }
        if self.source.part() == Part::Picture {
            if fields.format.format().is_of_weights() {
                return Ok(Vec::new());
            }
            return Err(Failure::user("`text` is for what reads, and this part sees pictures").help("leave it out"));
        }
        let tokenizer =
            self.tokenizer.ok_or_else(|| Failure::target("the model reads text but has no tokenizer.json"))?;
        let texts: Vec<&str> = fields.text.iter().map(String::as_str).collect();
        let rows = tokenizer.all(&texts)?;
        let batch = self.source.size(BATCH);
        // As often as it takes.
        let several = |rows: &[Vec<u32>]| rows.iter().cycle().take(batch.unwrap_or(rows.len())).cloned().collect();
        if self.source.has_state() {
            return Ok(rows.iter().flat_map(|row| verify::steps(row)).collect());
        }
        Ok(match (self.source.part(), batch) {
            // Of one length each.
            (Part::Language, _) => rows.chunks(1).map(|row| Given::Texts(several(row), 0)).collect(),
            (_, Some(batch)) => rows.chunks(batch).map(|rows| Given::Texts(several(rows), 0)).collect(),
            (_, None) => vec![Given::Texts(rows, 0)],
        })
    }
}

/// What the check found, as metrics and beside the file; for reports, as what `number` names.
pub(super) fn report(cx: &mut ActionCx<'_>, held: &Option<Held>, written: &Written) -> Result<(), Failure> {
    let mut told = Metrics::default();
    told.add("size, MB", None, written.bytes() as f64 / 1e6);
    for (name, value) in held.iter().flat_map(|held| held.found.told()) {
        told.add(name, None, value);
    }
    fs::write(&cx.out().join("metrics.json"), told.to_json().as_bytes())?;
    let Some(held) = held else { return Ok(()) };
    for (name, value) in held.found.metrics() {
        cx.metric(name, value);
    }
    verify::save(&verify::report(&held.found, &held.program, held.allowed, held.rounds, held.seed), cx.out())
}
