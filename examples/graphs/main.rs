//! effai as a library: small graphs of random operations as files of every format, for who runs such files.
//!
//! ```text
//! cargo run --example graphs -- DIR --seed S --count N [--format onnx|coreml|tflite|all]
//! ```
//!
//! Each graph is that of its seed alone: S, S + 1, and so on; from 1,000,000 on they see pictures alone, and TensorFlow Lite and ONNX
//! have them in integers. `DIR/SEED/` gets a file of each format, in 32 bits and now and then
//! in fewer, and `run-0.safetensors` and so on: what goes in (`in.NAME`) and what comes out (`out.NAME`) for some sizes, computed
//! by candle. Prints one object of JSON a line: a file, or why there is none, or what failed. Of one graph alone, its text too.

mod case;
mod program;

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use effai::backend::arrays::{Array, Arrays};
use effai::backend::rng::Rng;
use effai::export::coreml::Target;
use effai::export::format::{Format, Precision, write};
use effai::export::onnx;
use effai::export::source::Values;
use effai::failure::Failure;
use effai::format::tensors;
use effai::util::fs;
use serde_json::{Value as Json, json};

use case::{Case, Drawn};

struct Asked {
    dir: PathBuf,
    seed: u64,
    count: u64,
    formats: Vec<String>,
}

const HOW: &str = "graphs DIR --seed S --count N [--format onnx|coreml|tflite|all]";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]
fn main() -> Result<(), Box<dyn Error>> {
    let asked = asked()?;
    // What panics is told with its seed; of one graph, with its place.
    let is_one = asked.count == 1;
    std::panic::set_hook(Box::new(move |panic| {
        if is_one {
            eprintln!("{panic}");
        }
    }));
    for seed in asked.seed..asked.seed + asked.count {
        let lines = match catch_unwind(|| all_of(&asked, seed)) {
            Ok(lines) => lines.map_err(|failure| failure.message)?,
            Err(panic) => vec![json!({ "seed": seed, "failed": format!("the program panics: {}", told(&*panic)) })],
        };
        lines.iter().for_each(|line| println!("{line}"));
        if asked.count == 1
            && let Ok(Drawn::Case(case)) = case::draw(seed)
        {
            eprintln!("{}", case.graph);
        }
    }
    Ok(())
}

fn asked() -> Result<Asked, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or(HOW)?.into();
    let mut asked = Asked { dir, seed: 0, count: 1, formats: Vec::new() };
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(HOW)?;
        match &flag[..] {
            "--seed" => asked.seed = value.parse()?,
            "--count" => asked.count = value.parse()?,
            "--format" if value != "all" => asked.formats.push(value),
            "--format" => {}
            _ => return Err(HOW.into()),
        }
    }
    Ok(asked)
}

fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

/// A line for each file of a seed.
fn all_of(asked: &Asked, seed: u64) -> Result<Vec<Json>, Failure> {
    let case = match case::draw(seed) {
        Ok(Drawn::Case(case)) => case,
        Ok(Drawn::Refused(why)) => return Ok(vec![json!({ "seed": seed, "refused": why })]),
        Ok(Drawn::Sensitive) => return Ok(vec![json!({ "seed": seed, "sensitive": true })]),
        Err(failure) => return Ok(vec![json!({ "seed": seed, "failed": failure.message })]),
    };
    let dir = asked.dir.join(seed.to_string());
    fs::create_dir_all(&dir)?;
    let runs = runs(&case, &dir)?;
    let rng = &mut Rng::new(seed, "formats");
    let opset = onnx::OLDEST + rng.below((onnx::NEWEST - onnx::OLDEST + 1) as usize) as u32;
    let target = Target::NAMES[rng.below(Target::NAMES.len())];
    let mut lines = Vec::new();
    for format in [
        Format::Onnx { opset },
        Format::CoreMl { target: Target::by_name(target).expect("a name of one") },
        Format::TfLite,
    ] {
        let of_fewer = rng.below(3 * (format.precisions().len() - 1));
        if !asked.formats.is_empty() && !asked.formats.iter().any(|own| own == format.name()) {
            continue;
        }
        let fewer = match format {
            Format::Onnx { .. } | Format::TfLite if case.plan.is_network() => Some(&Precision::Int8Calibrated),
            _ => format.precisions()[1..].get(of_fewer).filter(|own| **own != Precision::Stored),
        };
        for precision in [Precision::F32].iter().chain(fewer) {
            let made = catch_unwind(AssertUnwindSafe(|| one(&case, format, *precision, &dir)));
            let mut line = match made {
                Ok(Ok(line)) => line,
                Ok(Err(failure)) => json!({ "refused": failure.message }),
                Err(panic) => json!({ "failed": format!("the writer panics: {}", told(&*panic)) }),
            };
            let own = case.precision(*precision);
            line["seed"] = seed.into();
            line["format"] = format.name().into();
            line["title"] = format.title().into();
            line["precision"] = own.name().into();
            let of_it = case.runs.iter().zip(&runs).filter(|(run, _)| case.has_run(run, format));
            line["runs"] = of_it.map(|(_, path)| path.as_str()).collect::<Vec<_>>().into();
            lines.push(line);
            if own != *precision {
                break;
            }
        }
    }
    Ok(lines)
}

/// One file.
fn one(case: &Case, format: Format, precision: Precision, dir: &Path) -> Result<Json, Failure> {
    let mut options = case.options(format, precision)?;
    if let Format::CoreMl { target } = &mut options.format
        && let Some(least) = Target::least(options.precision)
    {
        // As the kind refuses it.
        *target = least.max(*target);
    }
    let written = write(&case.graph, &options)?;
    let own = format!("{}-{}", format.name(), options.precision.name());
    written.save(&dir.join(&own))?;
    let first = &written.files[0].0;
    let name = first.split('/').next().unwrap_or(first);
    let mut line = json!({ "file": dir.join(own).join(name), "allowed": case.allowed(options.precision)? });
    // rten has no floats of 16 bits: others hold those.
    let is_half = matches!(options.precision, Precision::F16 | Precision::F16Weights);
    let has_program = !(is_half && matches!(options.format, Format::Onnx { .. }));
    if has_program {
        let is_whole = case.plan.seed.is_multiple_of(2);
        match catch_unwind(AssertUnwindSafe(|| case.held(&written, options.format, is_whole))) {
            Ok(Ok(far)) => line["own"] = far.into(),
            Ok(Err(failure)) => line["own_failed"] = failure.message.into(),
            Err(panic) => line["own_failed"] = format!("it panics: {}", told(&*panic)).into(),
        }
    }
    Ok(line)
}

/// Writes what goes in and comes out; the files' paths.
fn runs(case: &Case, dir: &Path) -> Result<Vec<String>, Failure> {
    let mut paths = Vec::new();
    for (at, run) in case.runs.iter().enumerate() {
        let mut arrays = Arrays::new();
        for input in &run.inputs {
            let values = match &input.values {
                Values::Floats(values) => values.clone(),
                // They are small.
                Values::Integers(values) => values.iter().map(|value| *value as f32).collect(),
                Values::Bytes(values) => values.iter().map(|value| f32::from(*value)).collect(),
            };
            arrays.insert(format!("in.{}", input.name), Array::f32(&input.shape, values));
        }
        for output in &run.outputs {
            arrays.insert(format!("out.{}", output.name), Array::f32(&output.shape, output.values.clone()));
        }
        let path = dir.join(format!("run-{at}.safetensors"));
        tensors::write(&path, &arrays, &[])?;
        paths.push(path.to_string_lossy().into_owned());
    }
    Ok(paths)
}
