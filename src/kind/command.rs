//! `command`: any program, with declared inputs and outputs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ActionCx, How, Kind, Launch, Needs, Pool};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Schema, Type};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Command;

static SCHEMA: Schema = Schema::new(
    "command",
    "Runs a program in a directory that holds its declared inputs, and keeps its declared outputs.",
)
.children(&[
    Schema::new("run", "The program and its arguments. No shell, unless it is the program.")
        .many_args("argv", Type::Text)
        .required(),
    Schema::new("input", "A file of the project, or a glob; it lies at the same path in the directory.")
        .arg("path", Type::Glob)
        .many(),
    Schema::new("needs", "A target; its artifact lies in the directory under its label.")
        .arg("target", Type::NamedLabel)
        .many(),
    Schema::new("output", "A file or directory the program makes, from the directory it runs in.")
        .arg("path", Type::Text)
        .some(),
    Schema::new("env", "Variables the program gets, and their values.").open(Type::Text),
    Schema::new(
        "pass",
        "Variables handed through from effai's own environment; a digest of each value, or that it is not set, is a \
         fact.",
    )
    .many_args("names", Type::Variable),
    Schema::new(
        "untracked",
        "A path outside the project that the program may read and write; nobody looks whether it changes. For toolchains and caches.",
    )
    .arg("path", Type::Text)
    .many(),
    Schema::new(
        "pool",
        "Beside what it runs: `cpu`, as is usual, beside as many as there are jobs; `gpu` beside no other that uses the \
         GPU; `machine` beside nothing but downloads. No fact.",
    )
    .arg("name", Type::Choice(&["cpu", "gpu", "machine"]))
    .no_fact(),
    Schema::new("network", "The program may use the network; it then gets all of the user's variables."),
]);

/// Files of the project from this size on are linked and not copied, where the system holds the program to reading.
const LINKED_BYTES_MIN: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    run: Vec<String>,
    input: Vec<String>,
    needs: Vec<String>,
    output: Vec<String>,
    env: Option<Env>,
    pass: Option<Vec<String>>,
    untracked: Vec<String>,
    pool: Option<String>,
    network: Option<bool>,
}

#[derive(Deserialize)]
struct Env {
    columns: std::collections::BTreeMap<String, String>,
}

impl Kind for Command {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: an output that is a link to an input is what lies there.
    fn version(&self) -> u32 {
        2
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        let own: Vec<&String> = fields.env.iter().flat_map(|env| env.columns.keys()).collect();
        for (i, name) in fields.pass.iter().flatten().enumerate().filter(|(_, name)| own.contains(name)) {
            let message = format!("`{name}` is given a value and handed through");
            problems.at(&format!("pass.{i}"), message, "and `env` gives it one", "take it out of one of the two");
        }
        if fields.network.is_some() && fields.pool.is_some() {
            let message = "what uses the network waits in a pool of its own";
            problems.at("pool", message, "and `network` is declared", "take one of the two out");
        }
        let mut places = BTreeSet::new();
        for (i, label) in fields.needs.iter().enumerate() {
            if !places.insert(place(label)) && fields.needs.iter().filter(|l| *l == label).count() == 1 {
                let message = format!("two artifacts would lie at `{}`", place(label));
                problems.at(&format!("needs.{i}"), message, "the second", "give one of the targets another label");
            }
        }
    }

    fn needs(&self, decl: &Decl) -> Needs {
        let fields: Fields = decl.read();
        let pool = match fields.pool.as_deref() {
            _ if fields.network == Some(true) => Pool::Network,
            Some("gpu") => Pool::Gpu,
            Some("machine") => Pool::Machine,
            _ => Pool::Cpu,
        };
        Needs { pool, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Program(self)
    }
}

impl Launch for Command {
    fn prepare(&self, cx: &mut ActionCx<'_>) -> Result<Program, Failure> {
        let fields: Fields = cx.decl.read();
        let dir = cx.scratch().to_owned();
        let (program, args) = fields.run.split_first().expect("the schema asks for one");
        let mut program = Program::new(program).args(args);
        for glob in &fields.input {
            for path in cx.project_files(glob)? {
                let from = cx.project_file(&path);
                if give(&from, &dir.join(&path), cx.is_held())? {
                    program = program.reads(from);
                }
            }
        }
        for label in &fields.needs {
            link(cx.input(label), &dir.join(place(label)))?;
        }
        for path in &fields.untracked {
            program = program.uses(cx.project_file(crate::env::expand_home(path)));
        }
        let vars = fields.env.into_iter().flat_map(|e| e.columns);
        Ok(vars.fold(program, |program, (name, value)| program.var(name, value)))
    }

    fn conclude(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        for path in &fields.output {
            let from = cx.scratch().join(path);
            for link in links(&from) {
                // It leads out of where the command ran: nobody else has what lies there.
                let Ok(real) = link.canonicalize() else { continue };
                if !real.starts_with(cx.scratch()) && is_input(cx, &fields, &real)? {
                    fs::remove_file(&link)?;
                    copy_all(&real, &link)?;
                }
            }
            keep(cx.scratch(), path, cx.out())?;
        }
        Ok(())
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

/// Whether this is what the command was given: a file, or something of an artifact. Large files and artifacts are laid
/// out as links to save the copy, and `cp -r` copies a link as one.
fn is_input(cx: &ActionCx<'_>, fields: &Fields, real: &Path) -> Result<bool, Failure> {
    let is_of = |label: &String| cx.input(label).canonicalize().is_ok_and(|artifact| real.starts_with(artifact));
    if fields.needs.iter().any(is_of) {
        return Ok(true);
    }
    for glob in &fields.input {
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

fn keep(dir: &Path, path: &str, out: &Path) -> Result<(), Failure> {
    let from = dir.join(path);
    // Not followed: a link is an output itself, also when what it leads to has been moved before it.
    if from.symlink_metadata().is_err() {
        return Err(Failure::target(format!("the command ended well but did not make `{path}`"))
            .help("check the path after `output`, it is taken from the directory the command runs in"));
    }
    let to = out.join(path.trim_end_matches('/'));
    fs::create_dir_all(to.parent().unwrap_or(out))?;
    Ok(fs::rename(&from, &to)?)
}
