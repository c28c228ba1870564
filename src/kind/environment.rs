//! `environment`: what a `uv.lock` pins, installed by uv beside an interpreter of this machine.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::{ActionCx, How, Kind, Needs, Pool, Run};
use crate::action::interpreter::{self, Interpreter, Seen, Wish};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::format::uv_lock;
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Default, Schema, Type, file_in};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Environment;

const PYPROJECT: &str = "pyproject.toml";
const LOCK: &str = "uv.lock";

static SCHEMA: Schema =
    Schema::new("environment", "A Python environment of what a project's uv.lock pins, made by uv.").children(&[
        Schema::new("project", "The directory that holds `pyproject.toml` and `uv.lock`, whose digests are facts.")
            .arg(
                "directory",
                Type::Holding(&[
                    (PYPROJECT, "`uv init` makes one; or name the project's directory with `project`"),
                    (LOCK, "`uv lock` in that directory writes it; or name the project's directory with `project`"),
                ]),
            )
            .default(Default::Text(".")),
        Schema::new(
            "python",
            "The version of Python, or its beginning: the first interpreter of the machine that is one, and that \
             `uv.lock` allows. What it is and where it lies is a fact.",
        )
        .arg("version", Type::Python("project"))
        .default(Default::Text("3")),
        Schema::new("groups", "Dependency groups to install; without this line those that uv installs by default.")
            .many_args("names", Type::Text),
        Schema::new("extras", "Optional dependencies to install.").many_args("names", Type::Text),
    ]);

/// Uv is never to bring an interpreter of its own: which one it is decides the key.
const NO_OTHER_PYTHON: [&str; 2] = ["--no-managed-python", "--no-python-downloads"];

/// Of what uv said of its failure, this much is repeated.
const WORDS_LINES: usize = 8;

#[derive(Deserialize)]
struct Fields {
    project: String,
    python: String,
    groups: Option<Vec<String>>,
    extras: Option<Vec<String>>,
}

impl Kind for Environment {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Network, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Environment {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let interpreter = interpreter(cx, &fields)?;
        let uv = Uv::find(cx, &interpreter)?;
        cx.log(interpreter.to_string());
        warn_of_local(cx, &uv)?;
        uv.make(&interpreter, cx.out())?;
        cx.progress("install packages", 0, None, "packages");
        uv.sync(&fields, &interpreter, cx.out())?;
        tidy(cx.out())?;
        compile(cx)?;
        make_libraries_plain(cx.out())
    }
}

/// The interpreter that is meant: the one that is a fact.
fn interpreter(cx: &ActionCx<'_>, fields: &Fields) -> Result<Interpreter, Failure> {
    let lock = file_in(&fields.project, LOCK);
    let path = cx.project_file(&lock);
    Seen::look(Wish { version: &fields.python, lock: &path }).found().cloned().ok_or_else(|| {
        let that = match interpreter::allowed(&path) {
            Some(allowed) => format!(" that {lock} allows ({allowed})"),
            None => String::new(),
        };
        Failure::environment(format!("this machine has no Python {}{that}", fields.python))
            .help("install one and put it on the PATH, or ask for another version with `python`")
    })
}

/// Takes away what is of no use elsewhere: a lock, marks for other programs, and activation scripts of shells for which
/// uv writes the place it worked in (0.9 did for two).
fn tidy(out: &Path) -> Result<(), Failure> {
    for name in [".lock", ".gitignore", "CACHEDIR.TAG"] {
        fs::remove_file(&out.join(name))?;
    }
    let place = out.to_string_lossy();
    let is_activation = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "activate");
    for script in fs::list(&out.join("bin"))?.into_iter().filter(is_activation) {
        if fs::read_text(&script)?.contains(&*place) {
            fs::remove_file(&script)?;
        }
    }
    Ok(())
}

/// Says what of the lock is not installed, lest somebody wonder at an import that fails.
fn warn_of_local(cx: &mut ActionCx<'_>, uv: &Uv) -> Result<(), Failure> {
    // What is wrong with a lock is uv's to say.
    let Ok(names) = uv_lock::local(&fs::read_text(&uv.project.join(LOCK))?) else { return Ok(()) };
    if !names.is_empty() {
        let text = format!("not installed, since it lies in files of this machine: {}", names.join(", "));
        let help = "give its files to what runs: `input \"lib/**/*.py\"`, and `env { PYTHONPATH \"lib\"; }`";
        cx.warning(text, Some(help.into()));
    }
    Ok(())
}

/// Uv, and the project it works for.
struct Uv {
    /// The program and its first arguments.
    argv: Vec<OsString>,
    project: PathBuf,
    /// As the recipe has it.
    name: String,
}

impl Uv {
    /// On the search path, as a module of Python, or fetched for this once by the package manager that is there.
    fn find(cx: &mut ActionCx<'_>, interpreter: &Interpreter) -> Result<Self, Failure> {
        let fields: Fields = cx.decl.read();
        let project = cx.project_file(file_in(&fields.project, LOCK));
        let project = project.parent().unwrap_or(cx.scratch()).to_owned();
        let with = |argv: Vec<OsString>| Self { argv, project, name: fields.project };
        if crate::env::find_program("uv").is_some() {
            return Ok(with(vec!["uv".into()]));
        }
        for python in [OsString::from("python3"), interpreter.path.clone().into()] {
            let argv: Vec<OsString> = vec![python, "-m".into(), "uv".into()];
            if Program::new(&argv[0]).args(&argv[1..]).args(["--version"]).ask().is_some() {
                return Ok(with(argv));
            }
        }
        cx.progress("fetch uv", 0, None, "bytes");
        let to = cx.scratch().join("uv");
        // A wheel only: no code of a package is run to install it.
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--target"];
        let pip = Program::new(&interpreter.path).args(pip).args([to.as_os_str()]).args(["uv"]);
        pip.run_or(|_, said| {
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            Failure::environment(format!("`uv` is not installed, and pip cannot fetch it: {}", last.trim()))
                .help("install uv, by `pip install uv`, `pipx install uv`, `brew install uv` or `conda install uv`")
        })?;
        Ok(with(vec![to.join("bin/uv").into()]))
    }

    /// An environment without any package.
    fn make(&self, interpreter: &Interpreter, out: &Path) -> Result<(), Failure> {
        let args = ["venv", "--quiet", "--relocatable", "--no-project", "--allow-existing", "--prompt", "environment"];
        let program = self.program(&args, interpreter).args([out]);
        program.run_or(|_, said| told(&self.name, said)).map(drop)
    }

    /// Installs what the lock pins. The project itself, and what else lies in files of this machine, is not: it would be
    /// found by a path of this machine, and nobody would know when it changed.
    fn sync(&self, fields: &Fields, interpreter: &Interpreter, out: &Path) -> Result<(), Failure> {
        let args = ["sync", "--locked", "--no-install-project", "--no-install-workspace", "--no-install-local"];
        // The store makes its files read-only, and those of uv's cache are not its own.
        let copied = ["--link-mode", "copy", "--no-compile-bytecode"];
        let mut program = self.program(&args, interpreter).args(copied).var("UV_PROJECT_ENVIRONMENT", out);
        if let Some(groups) = &fields.groups {
            program = program.args(["--no-default-groups"]);
            program = groups.iter().fold(program, |program, group| program.args(["--group", group]));
        }
        for extra in fields.extras.iter().flatten() {
            program = program.args(["--extra", extra]);
        }
        program.run_or(|_, said| told(&self.name, said))?;
        // Uv makes an environment anew that it takes for another's.
        let made = fs::read_text(&out.join("pyvenv.cfg"))?;
        if made.lines().any(|line| line.replace(' ', "") == "relocatable=true") {
            return Ok(());
        }
        Err(Failure::environment("this `uv` does not keep an environment relocatable").help("install a newer uv"))
    }

    fn program(&self, args: &[&str], interpreter: &Interpreter) -> Program {
        let program = Program::new(&self.argv[0]).args(&self.argv[1..]).args(args.iter().copied());
        let program = program.args(NO_OTHER_PYTHON).args(["--python".as_ref(), interpreter.path.as_os_str()]);
        program.dir(&self.project).var("UV_NO_PROGRESS", "1")
    }
}

/// How uv failed, in its own words where they matter, with the next step.
fn told(project: &str, said: &str) -> Failure {
    let words = words(said);
    let lock = file_in(project, LOCK);
    if said.contains("needs to be updated") {
        let pyproject = file_in(project, PYPROJECT);
        let option = if project == "." { String::new() } else { format!(" --project {project}") };
        return Failure::user(format!("{lock} does not fit {pyproject}"))
            .help(format!("`uv lock{option}` brings it up to date"));
    }
    if said.contains("Hash mismatch") {
        return Failure::target(format!("a package is not the file that {lock} means: {words}")).help(
            "if the index has the right file now, `uv lock --upgrade-package NAME` writes its digest into the lock",
        );
    }
    if said.contains("unexpected argument") {
        return Failure::environment(format!("this `uv` is too old: {words}")).help("install a newer uv");
    }
    if said.contains("is not defined in the") {
        return Failure::user(words).help("`groups` and `extras` take names of the project's pyproject.toml");
    }
    if said.contains("Failed to parse") {
        return Failure::user(words).help(format!("`uv lock` writes {lock} anew"));
    }
    if ["Failed to fetch", "Network connectivity", "error sending request"].iter().any(|sign| said.contains(sign)) {
        return Failure::environment(format!("uv cannot fetch a package: {words}"))
            .help("check the network and the index; what uv fetched once it keeps, and needs neither");
    }
    Failure::target(format!("`uv` failed: {words}"))
}

/// From its error on, without blank lines and hints.
fn words(said: &str) -> String {
    let from = said.find("error: ").map_or(0, |at| at + "error: ".len());
    let lines = said[from..].lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("hint:") && !line.starts_with("Usage:")).collect();
    lines[..lines.len().min(WORDS_LINES)].join("\n  ")
}

/// Compiles all modules, so that who reads the environment need not, and cannot. The same bytes wherever it is done:
/// paths are those from the environment's root, and each package has a process of its own, since what a compiler writes
/// depends on what it compiled before.
fn compile(cx: &mut ActionCx<'_>) -> Result<(), Failure> {
    let lib = cx.out().join("lib");
    let places: Vec<PathBuf> = fs::list(&lib)?.iter().map(|dir| dir.join("site-packages")).collect();
    let mut parts: Vec<Vec<PathBuf>> = Vec::new();
    for place in places.iter().filter(|place| place.is_dir()) {
        let (dirs, files): (Vec<PathBuf>, Vec<PathBuf>) = fs::list(place)?.into_iter().partition(|path| path.is_dir());
        parts.push(files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "py")).collect());
        parts.extend(dirs.into_iter().filter(|dir| dir.extension().is_none()).map(|dir| vec![dir]));
    }
    parts.retain(|part| !part.is_empty());
    cx.progress("compile modules", 0, parts.len() as u64, "packages");
    let out = cx.out();
    let compiled: Vec<Option<String>> = parts
        .par_iter()
        .map(|part| {
            let part = part.iter().map(|path| path.strip_prefix(out).unwrap_or(path));
            let args = ["-s", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"];
            let program = Program::new(out.join("bin/python")).args(args).args(part);
            let program = program.dir(out).var("PYTHONHASHSEED", "0");
            // Of the user's settings, which uv needs, none says what is written and where: empty is as if not set.
            let unset = ["PYTHONOPTIMIZE", "PYTHONPATH", "PYTHONPYCACHEPREFIX"];
            let program = unset.iter().fold(program, |program, name| program.var(name, ""));
            // Packages bring files that are no Python of this version; those are compiled by nobody.
            program.run_or(|_, said| Failure::target(said.trim())).err().map(|failure| failure.message)
        })
        .collect();
    compiled.into_iter().flatten().for_each(|said| cx.log(said));
    Ok(())
}

/// The store links plain files and copies programs. Shared libraries, which are most of a large environment, are
/// programs to the file system where their wheel says so, and need not be.
fn make_libraries_plain(out: &Path) -> Result<(), Failure> {
    for entry in walkdir::WalkDir::new(out.join("lib")) {
        let entry = entry.map_err(|e| Failure::environment(format!("cannot look through the environment: {e}")))?;
        let name = entry.file_name().to_string_lossy();
        let is_library = name.ends_with(".so") || name.contains(".so.") || name.ends_with(".dylib");
        let is_program = |m: std::fs::Metadata| m.permissions().mode() & 0o111 != 0;
        if is_library && entry.file_type().is_file() && entry.metadata().is_ok_and(is_program) {
            fs::make_plain(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    #[test]
    fn uv_is_told_in_few_words_with_the_next_step() {
        let check = |said: &str, class: Class, message: &str, help: &str| {
            let failure = told("training", said);
            assert_eq!((failure.class, failure.message.as_str()), (class, message));
            assert!(failure.help.clone().unwrap_or_default().contains(help), "{failure:?}");
        };
        check(
            "Resolved 5 packages in 1ms\nerror: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.\n\nhint: To update the lockfile, run `uv lock`.\n",
            Class::User,
            "training/uv.lock does not fit training/pyproject.toml",
            "`uv lock --project training`",
        );
        check(
            "error: Failed to download `six==1.16.0`\n  cause: Hash mismatch for `six==1.16.0`\n\n         Expected:\n           sha256:8a\n\n         Computed:\n           sha256:9b\n\nhint: `six` (v1.16.0) was included because\n",
            Class::Target,
            "a package is not the file that training/uv.lock means: Failed to download `six==1.16.0`\n  cause: Hash mismatch for `six==1.16.0`\n  Expected:\n  sha256:8a\n  Computed:\n  sha256:9b",
            "--upgrade-package",
        );
        check(
            "error: Group `nope` is not defined in the project's `dependency-groups` table\n",
            Class::User,
            "Group `nope` is not defined in the project's `dependency-groups` table",
            "`groups` and `extras`",
        );
        check(
            "error: unexpected argument '--relocatable' found\n\nUsage: uv venv\n",
            Class::Environment,
            "this `uv` is too old: unexpected argument '--relocatable' found",
            "newer",
        );
        assert_eq!(told(".", "error: something else\n").message, "`uv` failed: something else");
    }
}
