//! What a user's Python runs in: an environment's interpreter, its variables, the module `effai`, a place for MLflow. What
//! `python` and `notebook` have in common.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::mlflow;
use crate::action::program::Program;
use crate::failure::Failure;
use crate::kind::workplace::Given;
use crate::kind::{ActionCx, command};
use crate::recipe::schema::{Schema, Type};
use crate::util::fs;

/// What Python imports to speak to effai.
const MODULE: &str = include_str!("effai.py");

/// Whose Python it is.
pub(in crate::kind) const ENVIRONMENT: Schema =
    Schema::new("environment", "The `environment` whose Python and packages it has.")
        .arg("target", Type::Of("environment"));

/// Parameters, as declared.
#[derive(Deserialize)]
pub(in crate::kind) struct Params {
    pub(in crate::kind) columns: Map<String, Value>,
}

/// The environment's interpreter, with the variables it has unless the recipe says otherwise.
pub(in crate::kind) fn program(cx: &ActionCx<'_>, environment: &str) -> Result<Program, Failure> {
    let python = python(cx, environment)?;
    let module = module(cx);
    fs::write(&module.join("effai.py"), MODULE.as_bytes())?;
    let runs = mlflow::place(cx);
    fs::create_dir_all(&runs)?;
    let program = Program::new(&python).reads_beside(&python, cx.project_root()).reads(&module).uses(&runs);
    let program = program.private_tmp();
    let vars = variables(cx.input(environment), &runs)?;
    Ok(vars.into_iter().fold(program, |program, (name, value)| program.var(name, value)))
}

/// A program and its arguments as in an activated environment: of its own programs, or else of those of the search path.
pub(in crate::kind) fn activated(cx: &ActionCx<'_>, environment: &str, run: &[String]) -> Result<Program, Failure> {
    let (python, dir) = (python(cx, environment)?, cx.input(environment));
    let own = run.first().map(|name| dir.join("bin").join(name)).filter(|path| path.exists());
    let program = match own {
        Some(path) => Program::new(path).args(&run[1..]),
        None => command::program(run),
    };
    let program = program.reads_beside(&python, cx.project_root());
    Ok(of_every_program(dir)?.into_iter().fold(program, |program, (name, value)| program.var(name, value)))
}

/// Lays out all that the program is given, and a file of its own.
pub(in crate::kind) fn lay_out(cx: &ActionCx<'_>, program: Program, own: Option<&str>) -> Result<Program, Failure> {
    let given: Given = cx.decl.read();
    let program = given.lay_out(cx, program, own)?;
    // Besides the directories that the recipe has Python look in.
    let places = [Some(module(cx).into_os_string()), given.var("PYTHONPATH").map(OsString::from)];
    let places = places.into_iter().flatten().collect::<Vec<_>>().join(":".as_ref());
    Ok(program.var("PYTHONPATH", places))
}

/// Tells what the program logged by MLflow.
pub(in crate::kind) fn ended(cx: &mut ActionCx<'_>) -> Result<(), Failure> {
    mlflow::tell(cx)
}

/// The directory that holds what it imports of effai's.
fn module(cx: &ActionCx<'_>) -> PathBuf {
    cx.scratch().with_file_name("module")
}

fn variables(environment: &Path, runs: &Path) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let mut all = of_every_program(environment)?;
    all.extend([
        // What is printed is in the log also when it is killed.
        ("PYTHONUNBUFFERED", "1".into()),
        ("MLFLOW_TRACKING_URI", mlflow::address(runs).into()),
        // Recent releases of MLflow write plain files only for those who insist (3.17.2 was tried).
        ("MLFLOW_ALLOW_FILE_STORE", "true".into()),
    ]);
    Ok(all)
}

fn of_every_program(environment: &Path) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let search_path = crate::env::path();
    let places = [environment.join("bin")].into_iter().chain(std::env::split_paths(&search_path));
    let search_path = std::env::join_paths(places)
        .map_err(|e| Failure::environment(format!("cannot put {} on the search path: {e}", environment.display())))?;
    Ok(vec![
        // As in an activated environment: what is started by name is of the same one.
        ("PATH", search_path),
        ("VIRTUAL_ENV", environment.into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("PYTHONHASHSEED", "0".into()),
    ])
}

/// The environment's interpreter.
fn python(cx: &ActionCx<'_>, label: &str) -> Result<PathBuf, Failure> {
    let python = cx.input(label).join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    Err(match python.read_link() {
        Ok(gone) => Failure::environment(format!("the interpreter of {label} is gone: {}", gone.display()))
            .help(format!("`effai build -f {label}` makes it with one that is there")),
        Err(_) => Failure::user(format!("{label} has no bin/python")).help("`environment` takes a target of that kind"),
    })
}
