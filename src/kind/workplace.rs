//! Where a user's own program runs: a directory with what its target declares. What `command`, `python`, `notebook` and
//! `test` have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{ActionCx, Needs, Pool};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::recipe::decl::Problems;
use crate::recipe::schema::{Schema, Type};
use crate::util::fs;

/// A file it is given.
pub(super) const INPUT: Schema =
    Schema::new("input", "A file of the project, or a glob; it lies at the same path in the directory.")
        .arg("path", Type::Glob)
        .many();

/// A target it is given.
pub(super) const NEEDS: Schema = Schema::new("needs", "A target; its artifact lies in the directory under its label.")
    .arg("target", Type::NamedLabel)
    .many();

/// What is kept of what it makes.
pub(super) const OUTPUT: Schema =
    Schema::new("output", "A file or directory the program makes, from the directory it runs in.")
        .arg("path", Type::Text)
        .some();

/// What is kept of what it tells.
pub(super) const METRICS: Schema = Schema::new(
    "metrics",
    "A file of the artifact for the numbers that the program tells: the last value of each, and the curves. JSON.",
)
.arg("path", Type::Text);

/// Its own variables.
pub(super) const ENV: Schema = Schema::new("env", "Variables the program gets, and their values.").open(Type::Text);

/// Variables of effai's own environment.
pub(super) const PASS: Schema = Schema::new(
    "pass",
    "Variables handed through from effai's own environment; a digest of each value, or that it is not set, is a fact.",
)
.many_args("names", Type::Variable);

/// What it may use unwatched.
pub(super) const UNTRACKED: Schema = Schema::new(
    "untracked",
    "A path outside the project that the program may read and write; nobody looks whether it changes. For toolchains and caches.",
)
.arg("path", Type::Text)
.many();

/// What it may read besides.
pub(super) const READS: Schema = Schema::new(
    "reads",
    "A path outside the project that the program may read; nobody looks whether it changes. For data that never does.",
)
.arg("path", Type::Text)
.many();

/// What it keeps of its work.
pub const CHECKPOINT: Schema = Schema::new(
    "checkpoint",
    "Gives the program a directory, named by the variable EFFAI_CHECKPOINT, that is there again when it is run again after it \
     was killed or failed. What it makes must be the same either way. No fact.",
)
.no_fact();

/// Beside what it runs.
pub(super) const POOL: Schema = Schema::new(
    "pool",
    "Beside what it runs: `cpu`, as is usual, beside as many as there are jobs; `gpu` beside no other that uses the \
     GPU; `machine` beside nothing but downloads. No fact.",
)
.arg("name", Type::Choice(&["cpu", "gpu", "machine"]))
.no_fact();

/// Whether it may use the network.
pub(super) const NETWORK: Schema =
    Schema::new("network", "The program may use the network; it then gets all of the user's variables.");

/// Files of the project from this size on are linked and not copied, where the system holds the program to reading.
const LINKED_BYTES_MIN: u64 = 1 << 20;

/// What a program is given, and what is kept of what it makes: the fields above, as declared.
#[derive(Deserialize)]
pub(super) struct Given {
    input: Vec<String>,
    needs: Vec<String>,
    /// None of a kind that keeps nothing of what its programs make.
    #[serde(default)]
    output: Vec<String>,
    metrics: Option<String>,
    env: Option<Env>,
    pass: Option<Vec<String>>,
    untracked: Vec<String>,
    reads: Vec<String>,
    pool: Option<String>,
    network: Option<bool>,
}

#[derive(Deserialize)]
struct Env {
    columns: BTreeMap<String, String>,
}

impl Given {
    /// The value of a variable of its own.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.env.as_ref()?.columns.get(name).map(String::as_str)
    }

    /// Finds fields that contradict one another.
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        let own: Vec<&String> = self.env.iter().flat_map(|env| env.columns.keys()).collect();
        for (i, name) in self.pass.iter().flatten().enumerate().filter(|(_, name)| own.contains(name)) {
            let message = format!("`{name}` is given a value and handed through");
            problems.at(&format!("pass.{i}"), message, "and `env` gives it one", "take it out of one of the two");
        }
        if self.network.is_some() && self.pool.is_some() {
            let message = "what uses the network waits in a pool of its own";
            problems.at("pool", message, "and `network` is declared", "take one of the two out");
        }
        if let Some(path) = &self.metrics {
            self.check_own("metrics", path, problems);
        }
        let mut places = BTreeSet::new();
        for (i, label) in self.needs.iter().enumerate() {
            if !places.insert(place(label)) && self.needs.iter().filter(|l| *l == label).count() == 1 {
                let message = format!("two artifacts would lie at `{}`", place(label));
                problems.at(&format!("needs.{i}"), message, "the second", "give one of the targets another label");
            }
        }
    }

    /// Finds a file that effai writes into the artifact, as a field says, where an output lies or no file can.
    pub(super) fn check_own(&self, field: &str, path: &str, problems: &mut Problems<'_>) {
        let parts = |path: &str| -> Vec<String> {
            let parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
            parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
        };
        let own = parts(path);
        if own.is_empty() || path.ends_with('/') || own.iter().any(|part| part == ".." || part == "/") {
            let message = format!("`{path}` is no file of an artifact");
            problems.at(field, message, "this path", "write a file's path within it, such as \"metrics.json\"");
        }
        let others = self.output.iter().enumerate().map(|(i, output)| (format!("output.{i}"), output));
        let metrics = self.metrics.iter().filter(|_| field != "metrics").map(|metrics| ("metrics".to_owned(), metrics));
        for (place, other) in others.chain(metrics) {
            let theirs = parts(other);
            if own.starts_with(&theirs) || theirs.starts_with(&own) {
                let message = format!("`{other}` would lie where effai writes `{path}`");
                problems.at(&place, message, "this path", "give one of the two another path");
            }
        }
    }

    /// What its action needs.
    pub(super) fn needs(&self) -> Needs {
        let pool = match self.pool.as_deref() {
            _ if self.network == Some(true) => Pool::Network,
            Some("gpu") => Pool::Gpu,
            Some("machine") => Pool::Machine,
            _ => Pool::Cpu,
        };
        Needs { pool, ..Needs::default() }
    }

    /// Lays out all that the program is given, and a file of its own, where it will run.
    pub(super) fn lay_out(
        &self,
        cx: &ActionCx<'_>,
        mut program: Program,
        own: Option<&str>,
    ) -> Result<Program, Failure> {
        let dir = cx.scratch();
        // Several globs may mean one file.
        let mut files: BTreeSet<PathBuf> = own.map(|path| path.trim_start_matches("./").into()).into_iter().collect();
        for glob in &self.input {
            files.extend(cx.project_files(glob)?);
        }
        for path in files {
            let from = cx.project_file(&path);
            if give(&from, &dir.join(&path), cx.is_held())? {
                program = program.reads(from);
            }
        }
        for label in &self.needs {
            link(cx.input(label), &dir.join(place(label)))?;
        }
        for path in &self.untracked {
            program = program.uses(cx.project_file(crate::env::expand_home(path)));
        }
        for path in &self.reads {
            program = program.reads(cx.project_file(crate::env::expand_home(path)));
        }
        let vars = self.env.iter().flat_map(|env| &env.columns);
        Ok(vars.fold(program, |program, (name, value)| program.var(name, value)))
    }

    /// Takes what the program made and told into the artifact; `what` it is called.
    pub(super) fn take_in(&self, cx: &mut ActionCx<'_>, told: &Metrics, what: &str) -> Result<(), Failure> {
        for path in &self.output {
            let from = cx.scratch().join(path);
            for link in links(&from) {
                // It leads out of where the program ran: nobody else has what lies there.
                let Ok(real) = link.canonicalize() else { continue };
                if !real.starts_with(cx.scratch()) && is_input(cx, self, &real)? {
                    fs::remove_file(&link)?;
                    copy_all(&real, &link)?;
                }
            }
            keep(cx.scratch(), path, cx.out(), what)?;
        }
        let Some(path) = &self.metrics else { return Ok(()) };
        if told.is_empty() {
            let help =
                "a script tells them by `import effai`, any program on the descriptor in EFFAI_EVENTS".to_owned();
            cx.warning(format!("the {what} told no numbers: {path} has none"), Some(help));
        }
        Ok(fs::write(&cx.out().join(path), told.to_json().as_bytes())?)
    }
}

/// Where an artifact lies in the directory; one of an outer project, `/data/x`, as if it were the project's own.
fn place(label: &str) -> &str {
    label.trim_start_matches('/')
}

/// Lays a file out for the program; says whether it is a link, to where the program must then be let.
///
/// A link to a file is followed; a link that leads to no file stays one. What is copied may be read and written at will.
fn give(from: &Path, to: &Path, is_held: bool) -> Result<bool, Failure> {
    let Some(metadata) = from.metadata().ok().filter(std::fs::Metadata::is_file) else {
        let target = fs::at("read the link", from, from.read_link())?;
        return link(&target, to).map(|()| false);
    };
    if is_held && metadata.len() >= LINKED_BYTES_MIN {
        let real = fs::at("follow", from, from.canonicalize())?;
        return link(&real, to).map(|()| true);
    }
    fs::copy(from, to)?;
    Ok(false)
}

fn link(target: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    Ok(fs::at("link", to, std::os::unix::fs::symlink(target, to))?)
}

/// The links among the outputs at a path.
fn links(path: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(path).into_iter().flatten();
    entries.filter(|entry| entry.path_is_symlink()).map(walkdir::DirEntry::into_path).collect()
}

/// Whether this is what the program was given: a file, or something of an artifact. Large files and artifacts are laid
/// out as links to save the copy, and `cp -r` copies a link as one.
fn is_input(cx: &ActionCx<'_>, given: &Given, real: &Path) -> Result<bool, Failure> {
    let is_of = |label: &String| cx.input(label).canonicalize().is_ok_and(|artifact| real.starts_with(artifact));
    if given.needs.iter().any(is_of) {
        return Ok(true);
    }
    for glob in &given.input {
        let is_it = |path: &PathBuf| cx.project_file(path).canonicalize().is_ok_and(|file| file == real);
        if cx.project_files(glob)?.iter().any(is_it) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies a file, or a directory with all that is in it; links in there stay links.
fn copy_all(from: &Path, to: &Path) -> Result<(), Failure> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.map_err(|e| Failure::environment(format!("cannot copy {}: {e}", from.display())))?;
        let to = match entry.path().strip_prefix(from).expect("walked from there") {
            below if below.as_os_str().is_empty() => to.to_owned(),
            below => to.join(below),
        };
        match entry.file_type() {
            kind if kind.is_dir() => fs::create_dir_all(&to)?,
            kind if kind.is_symlink() => {
                let target = fs::at("read the link", entry.path(), entry.path().read_link())?;
                link(&target, &to)?;
            }
            _ => drop(fs::copy(entry.path(), &to)?),
        }
    }
    Ok(())
}

fn keep(dir: &Path, path: &str, out: &Path, what: &str) -> Result<(), Failure> {
    let from = dir.join(path);
    // Not followed: a link is an output itself, also when what it leads to has been moved before it.
    if from.symlink_metadata().is_err() {
        return Err(not_made("output", path, what));
    }
    let to = out.join(path.trim_end_matches('/'));
    fs::create_dir_all(to.parent().unwrap_or(out))?;
    Ok(fs::rename(&from, &to)?)
}

/// How a program fails that ended well without a file that its declaration has in this field.
pub(super) fn not_made(field: &str, path: &str, what: &str) -> Failure {
    Failure::target(format!("the {what} ended well but did not make `{path}`"))
        .help(format!("check the path after `{field}`, it is taken from the directory the {what} runs in"))
}
