//! `command`: any program, with declared inputs and outputs.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::{ActionCx, Kind};
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
]);

#[derive(Deserialize)]
struct Fields {
    run: Vec<String>,
    input: Vec<String>,
    needs: Vec<String>,
    output: Vec<String>,
    env: Option<Env>,
    pass: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Env {
    columns: std::collections::BTreeMap<String, String>,
}

impl Kind for Command {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        let own: Vec<&String> = fields.env.iter().flat_map(|env| env.columns.keys()).collect();
        for (i, name) in fields.pass.iter().flatten().enumerate().filter(|(_, name)| own.contains(name)) {
            let message = format!("`{name}` is given a value and handed through");
            problems.at(&format!("pass.{i}"), message, "and `env` gives it one", "take it out of one of the two");
        }
        let mut places = BTreeSet::new();
        for (i, label) in fields.needs.iter().enumerate() {
            if !places.insert(place(label)) && fields.needs.iter().filter(|l| *l == label).count() == 1 {
                let message = format!("two artifacts would lie at `{}`", place(label));
                problems.at(&format!("needs.{i}"), message, "the second", "give one of the targets another label");
            }
        }
    }

    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let dir = cx.scratch().join("work");
        fs::create_dir_all(&dir)?;
        for glob in &fields.input {
            for path in cx.project_files(glob)? {
                copy_input(&cx.project_file(&path), &dir.join(&path))?;
            }
        }
        for label in &fields.needs {
            let to = dir.join(place(label));
            fs::create_dir_all(to.parent().unwrap_or(&dir))?;
            fs::at("link", &to, std::os::unix::fs::symlink(cx.input(label), &to))?;
        }
        let (program, args) = fields.run.split_first().expect("the schema asks for one");
        let mut program = Program::new(program).args(args).dir(&dir);
        for (name, value) in fields.env.into_iter().flat_map(|e| e.columns) {
            program = program.var(name, value);
        }
        let output = program.run()?;
        for line in output.stdout.lines() {
            cx.log(line);
        }
        for path in &fields.output {
            keep(&dir, path, cx.out())?;
        }
        Ok(())
    }
}

/// Where an artifact lies in the directory; one of an outer project, `/data/x`, as if it were the project's own.
fn place(label: &str) -> &str {
    label.trim_start_matches('/')
}

/// A file, followed through links; a link that leads to no file stays one.
fn copy_input(from: &Path, to: &Path) -> Result<(), Failure> {
    if from.is_file() {
        fs::copy(from, to)?;
        return Ok(());
    }
    let target = fs::at("read the link", from, from.read_link())?;
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    Ok(fs::at("link", to, std::os::unix::fs::symlink(target, to))?)
}

fn keep(dir: &Path, path: &str, out: &Path) -> Result<(), Failure> {
    let from = dir.join(path);
    if !from.exists() {
        return Err(Failure::target(format!("the command ended well but did not make `{path}`"))
            .help("check the path after `output`, it is taken from the directory the command runs in"));
    }
    let to = out.join(path.trim_end_matches('/'));
    fs::create_dir_all(to.parent().unwrap_or(out))?;
    Ok(fs::rename(&from, &to)?)
}
