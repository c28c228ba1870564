//! What a script told MLflow, from the files of its tracking store: numbers for the record, parameters for the log.
//!
//! ```text
//! EXPERIMENT/RUN/meta.yaml      the run's name and begin
//! EXPERIMENT/RUN/metrics/NAME   one line a value: TIME VALUE STEP; a name may hold slashes
//! EXPERIMENT/RUN/params/NAME    the value
//! ```

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::kind::ActionCx;
use crate::util::fs;

/// A directory for what MLflow keeps while an action lives.
pub(super) fn place(cx: &ActionCx<'_>) -> PathBuf {
    cx.scratch().with_file_name("mlflow")
}

/// Where its runs are. MLflow makes that directory itself: one that is there lacks its first experiment.
fn runs_in(place: &Path) -> PathBuf {
    place.join("runs")
}

/// As MLflow is told.
pub(super) fn address(place: &Path) -> String {
    format!("file:{}", runs_in(place).display())
}

/// Tells what a script that ended has logged.
pub(super) fn tell(cx: &mut ActionCx<'_>) -> Result<(), Failure> {
    let runs = runs(&runs_in(&place(cx)))?;
    let several = runs.len() > 1;
    for (i, run) in runs.iter().enumerate() {
        let prefix = if several { format!("run-{}.", i + 1) } else { String::new() };
        if several {
            cx.log(format!("run-{} is MLflow's {}", i + 1, run.name));
        }
        for (name, path) in files(&run.dir.join("params"))? {
            cx.log(format!("{prefix}{name} = {}", fs::read_text(&path)?.trim_end()));
        }
        for (name, path) in files(&run.dir.join("metrics"))? {
            let name = format!("{prefix}{name}");
            let mut dropped = 0;
            for (value, step) in values(&fs::read_text(&path)?) {
                match step {
                    _ if !value.is_finite() => dropped += 1,
                    Some(step) => cx.metric_at(&name, step, value),
                    None => cx.metric(&name, value),
                }
            }
            if dropped > 0 {
                cx.warning(
                    format!("{name} is not a finite number at {dropped} of its steps: those are not kept"),
                    None,
                );
            }
        }
    }
    Ok(())
}

struct Run {
    dir: PathBuf,
    name: String,
    begin: i64,
}

/// All runs, in the order they began.
fn runs(place: &Path) -> Result<Vec<Run>, Failure> {
    let mut runs = Vec::new();
    for experiment in fs::list(place)?.into_iter().filter(|path| path.is_dir()) {
        for dir in fs::list(&experiment)?.into_iter().filter(|path| path.is_dir()) {
            let Ok(meta) = fs::read_text(&dir.join("meta.yaml")) else { continue };
            let of = |name: &str| {
                let value = meta.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                Some(value.trim().trim_matches(['\'', '"']).to_owned())
            };
            let begin = of("start_time").and_then(|text| text.parse().ok()).unwrap_or(0);
            runs.push(Run { name: of("run_name").unwrap_or_default(), begin, dir });
        }
    }
    runs.sort_by(|a, b| (a.begin, &a.dir).cmp(&(b.begin, &b.dir)));
    Ok(runs)
}

/// Files below a directory, by name: the path from there.
fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    for path in fs::list(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|(below, path)| (format!("{name}/{below}"), path)));
        } else {
            found.push((name, path));
        }
    }
    Ok(found)
}

/// The values of a metric, each with its step: a number that was logged once has none.
fn values(text: &str) -> Vec<(f64, Option<u64>)> {
    let value = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?.parse().ok()?, words.next().and_then(|step| step.parse::<u64>().ok())))
    };
    let mut values: Vec<(f64, Option<u64>)> = text.lines().filter_map(value).collect();
    if let [(_, step @ Some(0))] = values.as_mut_slice() {
        *step = None;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_steps_where_there_are_several() {
        assert_eq!(values("1700000000000 0.5 0\n1700000000001 0.25 1\n"), [(0.5, Some(0)), (0.25, Some(1))]);
        assert_eq!(values("1700000000000 0.9 0\n"), [(0.9, None)]);
        assert_eq!(values("1700000000000 0.9 7\n"), [(0.9, Some(7))]);
        assert_eq!(values("1700000000000 0.9\n\nno number\n"), [(0.9, None)]);
        assert!(values("1 nan 0\n2 inf 1\n").iter().all(|(value, _)| !value.is_finite()));
    }

    #[test]
    fn runs_are_read_in_the_order_they_began() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| fs::write(&dir.path().join(path), text.as_bytes()).expect("written");
        write("0/meta.yaml", "experiment_id: '0'\n");
        write("0/bb/meta.yaml", "run_name: first\nstart_time: 1\n");
        write("0/aa/meta.yaml", "run_name: 'second'\nstart_time: 2\n");
        write("0/aa/metrics/train/loss", "1 0.5 0\n");
        write("0/aa/metrics/accuracy", "1 0.5 0\n");
        write("models/x/y.txt", "");
        let runs = runs(dir.path()).expect("read");
        assert_eq!(runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        let files = files(&runs[1].dir.join("metrics")).expect("read");
        assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["accuracy", "train/loss"]);
    }
}
