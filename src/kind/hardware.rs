//! `hardware`: what this machine can do at most: memory, products of matrices, disk.

use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::on_backend;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::measure::hardware::{FILE, What, measure};
use crate::recipe::decl::Decl;
use crate::recipe::schema::Schema;
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Hardware;

static SCHEMA: Schema = Schema::new(
    "hardware",
    "What this machine can do at most: its memory's bandwidth, its rates of products of matrices, its disk.",
)
.children(&[BACKEND]);

impl Kind for Hardware {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, repeatable: false, measures: true }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Hardware {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let backend = cx.backend()?;
        let (threads, dir) = (cx.threads, cx.scratch().to_owned());
        let mut done = 0;
        let mut told = |of: What| {
            cx.progress(of.name(), done, What::ALL.len() as u64, "rates");
            done += 1;
        };
        let found = on_backend!(backend, measure(backend, threads, &dir, &mut told))?;
        let mut metrics = Metrics::default();
        for rate in &found.rates {
            cx.metric(rate.of.name(), rate.best / 1e9);
            metrics.add(rate.of.name(), None, rate.best / 1e9);
        }
        let text = serde_json::to_string_pretty(&found).expect("plain data");
        fs::write(&cx.out().join(FILE), text.as_bytes())?;
        Ok(fs::write(&cx.out().join("metrics.json"), metrics.to_json().as_bytes())?)
    }
}
