//! What two versions of an artifact differ in, in the words of what it is: rows of a dataset, tensors of a model, files of
//! anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::dataset::{Dataset, Row};
use super::tensors;
use crate::backend::arrays::Array;
use crate::failure::Failure;

/// How two directories differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "of", rename_all = "kebab-case")]
pub enum Difference {
    /// Of datasets: by split, rows that only one has.
    Rows {
        /// Name of the split, and its rows.
        splits: BTreeMap<String, Rows>,
    },
    /// Of safetensors files.
    Tensors {
        /// Tensors with other values, the most changed first.
        changed: Vec<Changed>,
        /// Those that only the later has.
        added: Vec<String>,
        /// Those that only the earlier has.
        removed: Vec<String>,
        /// How many are the same.
        same: usize,
    },
    /// Of other files.
    Files {
        /// Only in the later.
        added: Vec<PathBuf>,
        /// Only in the earlier.
        removed: Vec<PathBuf>,
        /// In both, with other bytes.
        changed: Vec<PathBuf>,
    },
}

/// Rows of one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rows {
    /// Ids that only the later has, and those whose row is another.
    pub added: Vec<String>,
    /// Ids that only the earlier has.
    pub removed: Vec<String>,
    /// Ids of both, with other content.
    pub changed: Vec<String>,
    /// How many rows the later has.
    pub now: usize,
}

/// A tensor with other values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Norm of the difference by the norm of what was; none where the shape is another.
    pub relative: Option<f64>,
}

/// Compares two artifacts as they lie in directories.
pub fn of(before: &Path, after: &Path) -> Result<Difference, Failure> {
    if let (Ok(was), Ok(now)) = (Dataset::open(before), Dataset::open(after)) {
        return rows(&was, &now);
    }
    let weights = |dir: &Path| -> Result<Vec<PathBuf>, Failure> {
        if dir.join("adapter_model.safetensors").exists() {
            return Ok(vec![dir.join("adapter_model.safetensors")]);
        }
        Ok(tensors::shards(dir)?.into_iter().filter(|path| path.exists()).collect())
    };
    let (was, now) = (weights(before)?, weights(after)?);
    if !was.is_empty() && !now.is_empty() {
        return of_tensors(&was, &now);
    }
    let (was, now) = (files(before)?, files(after)?);
    let only = |a: &BTreeSet<PathBuf>, b: &BTreeSet<PathBuf>| a.difference(b).cloned().collect();
    let mut changed = Vec::new();
    for path in was.intersection(&now) {
        if super::compare::first_difference(&before.join(path), &after.join(path))?.is_some() {
            changed.push(path.clone());
        }
    }
    Ok(Difference::Files { added: only(&now, &was), removed: only(&was, &now), changed })
}

fn rows(was: &Dataset, now: &Dataset) -> Result<Difference, Failure> {
    let names: BTreeSet<&String> = was.splits().iter().chain(now.splits()).collect();
    let mut splits = BTreeMap::new();
    for name in names {
        let of = |dataset: &Dataset| -> Result<BTreeMap<String, Row>, Failure> {
            if !dataset.splits().contains(name) {
                return Ok(BTreeMap::new());
            }
            Ok(dataset.rows(name)?.into_iter().map(|row| (row.id.clone(), row)).collect())
        };
        let (was, now) = (of(was)?, of(now)?);
        let only = |a: &BTreeMap<String, Row>, b: &BTreeMap<String, Row>| -> Vec<String> {
            a.keys().filter(|id| !b.contains_key(*id)).cloned().collect()
        };
        let changed = now.iter().filter(|(id, row)| was.get(*id).is_some_and(|other| other != *row));
        let changed = changed.map(|(id, _)| id.clone()).collect();
        splits
            .insert(name.clone(), Rows { added: only(&now, &was), removed: only(&was, &now), changed, now: now.len() });
    }
    Ok(Difference::Rows { splits })
}

fn of_tensors(was: &[PathBuf], now: &[PathBuf]) -> Result<Difference, Failure> {
    let read = |paths: &[PathBuf]| -> Result<BTreeMap<String, Array>, Failure> {
        let mut all = BTreeMap::new();
        for path in paths {
            all.extend(tensors::read(path)?);
        }
        Ok(all)
    };
    let (was, now) = (read(was)?, read(now)?);
    let only = |a: &BTreeMap<String, Array>, b: &BTreeMap<String, Array>| -> Vec<String> {
        a.keys().filter(|name| !b.contains_key(*name)).cloned().collect()
    };
    let (mut changed, mut same) = (Vec::new(), 0);
    for (name, array) in &now {
        match was.get(name) {
            Some(other) if other == array => same += 1,
            Some(other) => changed.push(Changed { name: name.clone(), relative: relative(other, array) }),
            None => {}
        }
    }
    changed.sort_by(|a, b| b.relative.unwrap_or(f64::INFINITY).total_cmp(&a.relative.unwrap_or(f64::INFINITY)));
    Ok(Difference::Tensors { changed, added: only(&now, &was), removed: only(&was, &now), same })
}

/// How far values moved, by how large they were.
fn relative(was: &Array, now: &Array) -> Option<f64> {
    let (a, b) = (was.floats(), now.floats());
    if was.shape != now.shape || a.len() != b.len() || a.is_empty() {
        return None;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let moved = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(b - a)));
    Some(moved / norm(&mut a.iter().map(|x| f64::from(*x))).max(f64::MIN_POSITIVE))
}

fn files(dir: &Path) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut all = BTreeSet::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.map_err(|e| Failure::environment(format!("cannot look through {}: {e}", dir.display())))?;
        if !entry.file_type().is_dir() {
            all.insert(entry.path().strip_prefix(dir).expect("walked from there").to_owned());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::fs;

    #[test]
    fn tensors_that_moved_are_told_the_most_moved_first() {
        let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
        let write = |dir: &Path, all: &[(&str, &[f32])]| {
            let arrays = all.iter().map(|(n, v)| ((*n).to_owned(), Array::f32(&[v.len()], v.to_vec()))).collect();
            tensors::write(&dir.join("model.safetensors"), &arrays, &[]).expect("written");
        };
        write(dirs[0].path(), &[("a", &[3.0, 4.0]), ("b", &[1.0]), ("c", &[1.0]), ("gone", &[0.0]), ("shape", &[1.0])]);
        write(
            dirs[1].path(),
            &[("a", &[3.0, 4.5]), ("b", &[2.0]), ("c", &[1.0]), ("new", &[0.0]), ("shape", &[1.0, 1.0])],
        );
        let found = of(dirs[0].path(), dirs[1].path()).expect("compared");
        let Difference::Tensors { changed, added, removed, same } = found else { panic!("{found:?}") };
        let names: Vec<&str> = changed.iter().map(|c| c.name.as_str()).collect();
        assert_eq!((names, same), (vec!["shape", "b", "a"], 1));
        assert_eq!((added, removed), (vec!["new".to_owned()], vec!["gone".to_owned()]));
        assert!((changed[2].relative.expect("of one shape") - 0.1).abs() < 1e-6);
    }

    #[test]
    fn other_files_are_told_by_name() {
        let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
        for (dir, files) in [(&dirs[0], [("a", "1"), ("b", "1")]), (&dirs[1], [("b", "2"), ("c", "1")])] {
            files.iter().for_each(|(name, text)| fs::write(&dir.path().join(name), text.as_bytes()).expect("written"));
        }
        let found = of(dirs[0].path(), dirs[1].path()).expect("compared");
        let (added, removed, changed) = (vec!["c".into()], vec!["a".into()], vec!["b".into()]);
        assert_eq!(found, Difference::Files { added, removed, changed });
    }
}
