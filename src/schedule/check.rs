//! Builds targets a second time and compares with what is recorded, file by file.
//!
//! Each action runs again from the same inputs in a scratch directory of its own; neither the store nor the record
//! learns of it. One at a time: whoever checks wants to know, not to be quick. What a kind says it cannot repeat is not
//! run. The second result of a target that differs is kept under `.effai/check/LABEL/`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scratch::{Scratch, Shared};
use super::work::Work;
use super::{BuildOptions, checkpoints};
use crate::action::{Cancel, Ended};
use crate::engine::Engine;
use crate::event::{Event, Outcome, Repeat};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::format::compare::first_difference;
use crate::kind::Pool;
use crate::plan::{Index, Label};
use crate::store::{Entry, Form, Tree};
use crate::util::fs;

/// Runs the chosen targets again and tells how each compares. To be called after a build in which nothing failed.
/// Says whether all are as they were.
pub fn check(
    engine: &mut Engine,
    chosen: &[Index],
    options: &BuildOptions,
    cancel: &Cancel,
    tell: &mut dyn FnMut(&Event),
) -> Result<bool, Failure> {
    let closure = engine.plan().closure(chosen);
    let judged = engine.judge_all(&closure)?;
    let mut artifacts = vec![None; engine.plan().len()];
    judged.iter().for_each(|(index, judged)| artifacts[*index] = judged.artifact);
    let keys: HashMap<Index, Digest> =
        judged.iter().filter_map(|(index, judged)| Some((*index, judged.key?))).collect();
    let _hold = engine.store.enter(&engine.root)?;
    let mut scratch = Scratch::open(engine)?;
    options.runner.begin(scratch.alive());
    let (mut same, mut differ, mut failed, mut passed_over) = (0, 0, 0, 0);
    for &index in chosen {
        if cancel.is_asked() {
            break;
        }
        let label = engine.label(index);
        if !engine.plan().needs(index).repeatable {
            passed_over += 1;
            tell(&Event::Checked { label, found: Repeat::NotRepeatable });
            continue;
        }
        let (Some(artifact), Some(key)) = (artifacts[index], keys.get(&index)) else {
            return Err(Failure::user(format!("what `{label}` stands on was changed since it was built"))
                .help("build and check again"));
        };
        tell(&Event::Checking { label: label.clone() });
        let dir = scratch.take()?;
        let again = Again { engine, index, label: &label, artifact, artifacts: &artifacts, key, dir: &dir };
        match again.run(scratch.shared(), options, cancel, tell) {
            Ok(Some(found)) => {
                *(if found == Repeat::Same { &mut same } else { &mut differ }) += 1;
                tell(&Event::Checked { label, found });
            }
            Ok(None) => tell(&Event::Finished { label, outcome: Outcome::Cancelled }),
            Err(failure) => {
                failed += 1;
                let shown = |path: PathBuf| Some(path.strip_prefix(&engine.root).ok()?.display().to_string());
                let kept = scratch.keep(&dir, &format!("check-{}", again.file_name()), &engine.store)?;
                let outcome = Outcome::Failed { failure, log: shown(kept.join("log")), scratch: shown(kept) };
                tell(&Event::Finished { label, outcome });
                if !options.keep_going {
                    break;
                }
            }
        }
    }
    tell(&Event::AllChecked { same, differ, failed, passed_over });
    Ok(differ + failed == 0)
}

/// One target that is made again.
struct Again<'a> {
    engine: &'a Engine,
    index: Index,
    label: &'a Label,
    artifact: Digest,
    artifacts: &'a [Option<Digest>],
    key: &'a Digest,
    /// Where it runs.
    dir: &'a Path,
}

impl Again<'_> {
    fn file_name(&self) -> String {
        self.label.as_str().replace('/', "~")
    }

    /// Makes it again and compares; none if it was cancelled.
    fn run(
        &self,
        shared: Arc<Shared>,
        options: &BuildOptions,
        cancel: &Cancel,
        tell: &mut dyn FnMut(&Event),
    ) -> Result<Option<Repeat>, Failure> {
        let log = self.dir.join("log");
        let threads = if self.engine.plan().needs(self.index).pool == Pool::Machine { options.jobs } else { 1 };
        // From the begin, whatever a run of it has left.
        checkpoints::forget(&self.engine.root, [self.key])?;
        let mut work = Work::new(self.engine, (self.index, self.key), self.artifacts, threads, shared, self.dir, &log)?;
        work.lay_out().map_err(|problem| problem.failure(self.engine))?;
        let mut say = |what| tell(&Event::Said { label: self.label.clone(), what });
        let (ended, _) = options.runner.run(&work.job, work.pool, &log, cancel, &mut say);
        checkpoints::forget(&self.engine.root, [self.key])?;
        match ended {
            Ended::Done => {}
            Ended::Cancelled => return Ok(None),
            Ended::Failed(failure) | Ended::Undeclared { failure, .. } => return Err(failure.within("the second time")),
        }
        let before = self.engine.store.blobs.tree(&self.artifact)?;
        let after = Tree::of_dir(&work.job.out)?;
        let found = match first_that_differs(&before, &after) {
            None => Repeat::Same,
            Some((one, other)) => {
                let kept = self.engine.root.join(".effai/check").join(self.label.as_str());
                fs::remove_dir_all(&kept)?;
                fs::create_dir_all(kept.parent().expect("below the project"))?;
                fs::rename(&work.job.out, &kept)?;
                let difference = match (one, other) {
                    (Some(one), Some(other)) if one.form == other.form && one.form != Form::Link => {
                        let before = self.engine.store.blobs.whole(&one.digest)?;
                        first_difference(&before, &kept.join(&other.path))?
                    }
                    _ => None,
                };
                let form = |entry: Option<&Entry>| entry.map_or("not there", |e| e.form.name()).to_owned();
                let path = one.or(other).map(|e| e.path.display().to_string()).expect("one of the two is there");
                let (place, before, after) = match difference {
                    Some(d) => (Some(d.place), d.before, d.after),
                    None => (None, form(one), form(other)),
                };
                let kept = kept.strip_prefix(&self.engine.root).expect("below the project").display().to_string();
                Repeat::Differs { path, place, before, after, kept }
            }
        };
        // One a check, so not used again.
        fs::remove_dir_all(self.dir)?;
        Ok(Some(found))
    }
}

/// The first path at which two trees are not alike, and what each has there.
fn first_that_differs<'a>(before: &'a Tree, after: &'a Tree) -> Option<(Option<&'a Entry>, Option<&'a Entry>)> {
    let (mut ones, mut others) = (before.entries().iter().peekable(), after.entries().iter().peekable());
    loop {
        match (ones.peek(), others.peek()) {
            (None, None) => return None,
            (Some(one), Some(other)) if one == other => {
                ones.next();
                others.next();
            }
            (Some(one), Some(other)) if one.path == other.path => return Some((Some(one), Some(other))),
            (Some(one), Some(other)) if one.path.as_os_str() > other.path.as_os_str() => {
                return Some((None, Some(other)));
            }
            (Some(one), _) => return Some((Some(one), None)),
            (None, Some(other)) => return Some((None, Some(other))),
        }
    }
}
