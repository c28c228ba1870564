//! One run of a target's program that is looked on, and what its declaration lacks by that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::scratch::Scratch;
use super::work::Work;
use super::{BuildOptions, build};
use crate::action::{Cancel, Ended, Opened, is_open};
use crate::engine::Engine;
use crate::event::Event;
use crate::failure::Failure;
use crate::kind::How;
use crate::plan::{Index, Label, seen_from};
use crate::recipe::glob;
use crate::recipe::schema::Type;
use crate::recipe::walk::walk;
use crate::util::fs;

/// So many files of one directory and extension are told as a glob, where they are all there are of it.
const GLOB_MIN: usize = 3;

/// What a run of a target's program opened, beside what the target declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Fields that would declare it: `input`, `needs` or `reads`, and the value.
    pub fields: Vec<(&'static str, String)>,
    /// Files that are declared and were not opened.
    pub unread: Vec<PathBuf>,
    /// How the program failed, if it did: it may have opened more otherwise.
    pub failure: Option<Failure>,
}

/// Runs a target's program once, where it may read everything; what it makes is not kept. None if what it stands on cannot
/// be built, which was told.
pub fn lacks(
    engine: &mut Engine,
    index: Index,
    options: &BuildOptions,
    cancel: &Cancel,
    tell: &mut dyn FnMut(&Event),
) -> Result<Option<Lacks>, Failure> {
    let kind = engine.plan().kind(index);
    if !matches!(kind.how(), How::Program(_)) {
        let message =
            format!("`{}` is of kind `{}`, which effai makes itself", engine.label(index), kind.schema().name);
        return Err(Failure::user(message).help("it reads what its fields name and nothing else"));
    }
    let below: Vec<Index> = engine.plan().dependencies(index).map(|d| d.index).collect();
    if !below.is_empty() {
        let summary = build(engine, &below, options, cancel, tell)?;
        if summary.failed + summary.skipped > 0 || cancel.is_asked() {
            return Ok(None);
        }
    }
    let judged = engine.judge_all(&engine.plan().closure(&[index]))?;
    let mut artifacts = vec![None; engine.plan().len()];
    judged.iter().for_each(|(index, judged)| artifacts[*index] = judged.artifact);
    let key = judged[&index].key.ok_or_else(|| Failure::user("what it stands on changed while it was built"))?;
    let _hold = engine.store.enter(&engine.root)?;
    let mut scratch = Scratch::open(engine)?;
    options.runner.begin(scratch.alive());
    let dir = scratch.take()?;
    let (trace, log) = (dir.join("opened"), dir.join("log"));
    fs::create_dir_all(&trace)?;
    let trace = trace.join("calls");
    let mut work = Work::new(engine, (index, &key), &artifacts, options.jobs, scratch.shared(), &dir, &log)?;
    work.job.watched = Some(trace.clone());
    work.job.checkpoint = None;
    work.lay_out().map_err(|problem| problem.failure(engine))?;
    let label = engine.label(index);
    let mut say = |what| tell(&Event::Said { label: label.clone(), what });
    let (ended, _) = options.runner.run(&work.job, work.pool, &log, cancel, &mut say);
    let failure = match ended {
        Ended::Done => None,
        Ended::Cancelled => return Ok(None),
        Ended::Failed(failure) | Ended::Undeclared { failure, .. } => Some(failure),
    };
    let opened = Opened::of(&trace, &work.job.scratch)?;
    if opened.read.is_empty() {
        return Err(failure.unwrap_or_else(|| Failure::environment("`strace` saw nothing of the program")));
    }
    Ok(Some(compare(engine, &work, &dir, &opened, failure)?))
}

fn compare(
    engine: &Engine,
    work: &Work,
    own: &Path,
    opened: &Opened,
    failure: Option<Failure>,
) -> Result<Lacks, Failure> {
    let job = &work.job;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (project, own, place) = (real(&job.project), real(own), real(&job.scratch));
    let declared = declared(&job.project, &job.decl)?;
    let open =
        ["reads", "untracked"].into_iter().flat_map(|name| job.decl.fields[name].as_array().into_iter().flatten());
    let open: Vec<PathBuf> = open.filter_map(|path| Some(real(&crate::env::expand_home(path.as_str()?)))).collect();
    let artifacts: Vec<PathBuf> = job.inputs.values().map(|dir| real(dir)).collect();
    let (mut inputs, mut needs, mut reads, mut read) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for path in &opened.read {
        if let Ok(given) = path.strip_prefix(&place) {
            read.insert(given.to_owned());
        } else if path.starts_with(&own) || artifacts.iter().any(|dir| path.starts_with(dir)) {
        } else if let Ok(inside) = path.strip_prefix(&project) {
            match inside.strip_prefix("out") {
                Ok(output) => needs.extend(target(engine, &job.decl.base, output)),
                Err(_) if inside.starts_with(".effai") || inside.starts_with(".git") => {}
                Err(_) if declared.contains(inside) => drop(read.insert(inside.to_owned())),
                Err(_) => drop(inputs.insert(inside.to_owned())),
            }
        } else if !is_open(path) && !open.iter().any(|open| path.starts_with(open)) {
            reads.insert(path.clone());
        }
    }
    let mut fields: Vec<_> = short(&job.project, &inputs)?.into_iter().map(|text| ("input", text)).collect();
    fields.extend(needs.into_iter().map(|label| ("needs", label)));
    fields.extend(short(Path::new("/"), &reads)?.into_iter().map(|text| ("reads", text)));
    Ok(Lacks { fields, unread: declared.difference(&read).cloned().collect(), failure })
}

/// The files of the project that a declaration names.
fn declared(project: &Path, decl: &crate::recipe::decl::Decl) -> Result<BTreeSet<PathBuf>, Failure> {
    let schema = crate::kind::of(decl).schema();
    let mut globs = Vec::new();
    walk(schema, &decl.fields, &mut |visit| {
        if matches!(visit.ty, Type::File | Type::Glob) {
            globs.extend(visit.value.as_str());
        }
    });
    let mut files = BTreeSet::new();
    for glob in globs {
        files.extend(glob::expand(project, glob).map_err(|e| Failure::environment(e.to_string()))?);
    }
    Ok(files)
}

/// The target whose output a path below `out/` lies in, as its project says it.
fn target(engine: &Engine, base: &str, path: &Path) -> Option<String> {
    let above = path.ancestors().filter_map(Path::to_str);
    let label = above.into_iter().find(|label| engine.find(label).is_some())?;
    Some(seen_from(base, Label::new(label).as_str()).to_owned())
}

/// Files as one would write them: several of one sort in a directory as a glob, if there are no others of it.
fn short(root: &Path, files: &BTreeSet<PathBuf>) -> Result<Vec<String>, Failure> {
    let sort = |path: &Path| (path.parent().map(Path::to_owned), path.extension().map(std::ffi::OsStr::to_owned));
    let mut texts = Vec::new();
    let mut done = BTreeSet::new();
    for file in files {
        let sort_of_file = sort(file);
        if !done.insert(sort_of_file.clone()) {
            continue;
        }
        let alike: Vec<&PathBuf> = files.iter().filter(|other| sort(other) == sort_of_file).collect();
        let dir = root.join(file.parent().unwrap_or(Path::new("")));
        let there =
            fs::list(&dir)?.into_iter().filter(|path| path.is_file() && path.extension() == file.extension()).count();
        match file.extension() {
            Some(extension) if alike.len() >= GLOB_MIN && alike.len() == there && root != Path::new("/") => {
                let name = format!("*.{}", extension.to_string_lossy());
                texts.push(file.with_file_name(name).display().to_string());
            }
            _ if alike.len() >= GLOB_MIN && root == Path::new("/") => texts.push(dir.display().to_string()),
            _ => texts.extend(alike.into_iter().map(|path| path.display().to_string())),
        }
    }
    Ok(texts)
}
