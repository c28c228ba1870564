//! `speed`: how quick one model is on this machine, in a process of its own.

use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use super::features::base_of;
use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::rng::Rng;
use crate::backend::{Backend, Tensor, on_backend};
use crate::failure::Failure;
use crate::model::{Checkpoint, Model};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Default, Schema, Type};
use crate::util::{fs, machine};

/// The kind.
#[derive(Debug)]
pub struct Speed;

static SCHEMA: Schema =
    Schema::new("speed", "Load time, latency and throughput of a picture-text model on this machine.").children(&[
        Schema::new("of", "The model, adapter or quantized model.").arg("model", Type::Label).required(),
        Schema::new("rounds", "Measured rounds, after a fifth as many to warm up.")
            .arg("count", Type::Int(5, 10_000))
            .default(Default::Int(30)),
        Schema::new("batch", "Pictures in a batch.").arg("count", Type::Int(1, 1024)).default(Default::Int(16)),
        BACKEND,
    ]);

#[derive(Deserialize)]
struct Fields {
    of: String,
    rounds: usize,
    batch: usize,
}

impl Kind for Speed {
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

    fn weighs(&self, _decl: &Decl) -> &'static [&'static str] {
        &["batch"]
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Speed {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let backend = cx.backend()?;
        on_backend!(backend, measure(cx, backend))
    }
}

fn measure<T: Tensor>(cx: &mut ActionCx<'_>, backend: Backend) -> Result<(), Failure> {
    let fields: Fields = cx.decl.read();
    let dir = cx.input(&fields.of).to_owned();
    let begin = Instant::now();
    let checkpoint = Checkpoint::open(&dir, base_of(cx, &dir)?.as_deref())?;
    let model = Model::<T>::new(&checkpoint)?;
    let bytes = checkpoint.weight_bytes;
    drop(checkpoint);
    let load_ms = begin.elapsed().as_secs_f64() * 1e3;
    let size = model.preprocessing().map_or(0, |p| p.size);
    let pictures = |n: usize| {
        let mut rng = Rng::new(1, "speed");
        let values: Vec<f32> = (0..n * size * size * 3).map(|_| rng.between(-1.0, 1.0)).collect();
        T::from_f32(&values, &[n, size, size, 3])
    };
    let (one, many) = (pictures(1)?, pictures(fields.batch)?);
    let ids = model.tokenize(&["a red heart with an arrow"])?;
    let mut told = 0;
    let mut timed = |what: &str, run: &dyn Fn() -> Result<(), Failure>| -> Result<Vec<f64>, Failure> {
        for _ in 0..fields.rounds / 5 {
            run()?;
        }
        let mut times = Vec::with_capacity(fields.rounds);
        for _ in 0..fields.rounds {
            let begin = Instant::now();
            run()?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            told += 1;
            cx.progress(what, told, 3 * fields.rounds as u64, "rounds");
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    };
    let run = |x: &T| force(&model.picture_batch(x)?);
    let single = timed("one picture", &|| run(&one))?;
    let batch = timed("a batch", &|| run(&many))?;
    let text = timed("one text", &|| force(&model.text_batch(&ids, None)?))?;
    let at = |times: &[f64], share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let result = json!({
        "version": 1, "machine": machine::identity(), "backend": backend, "threads": cx.threads, "bytes": bytes, "load_ms": load_ms,
        "picture_p50_ms": at(&single, 0.5), "picture_p95_ms": at(&single, 0.95),
        "pictures_per_s": fields.batch as f64 * 1e3 / at(&batch, 0.5), "batch": fields.batch,
        "text_p50_ms": at(&text, 0.5), "text_p95_ms": at(&text, 0.95), "peak_bytes": peak_bytes(),
    });
    let text = serde_json::to_string_pretty(&result).expect("plain data");
    Ok(fs::write(&cx.out().join("speed.json"), text.as_bytes())?)
}

/// Waits for a result: backends may compute when a value is asked for.
fn force(tensor: &impl Tensor) -> Result<(), Failure> {
    tensor.to_f32()?;
    Ok(())
}

/// The most memory this process ever held. 0 where the system does not say.
fn peak_bytes() -> u64 {
    let status = fs::read_text("/proc/self/status".as_ref()).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
