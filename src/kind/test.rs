//! `test`: a program whose success is kept. It runs again when anything changed that it was given, and only then.

use serde::Deserialize;

use super::command::{self, RUN};
use super::python::surroundings::{self, ENVIRONMENT};
use super::python::{ARGS, MODULE_NAME, PARAMS, SCRIPT, Script};
use super::workplace::{
    CHECKPOINT, ENV, Given, INPUT, METRICS, NEEDS, NETWORK, OUTPUT, PASS, POOL, READS, UNTRACKED, not_made,
};
use super::{ActionCx, How, Kind, Launch, Needs};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::format::junit::{self, TestCase, TestCaseStatus, TestSuite};
use crate::format::metrics::Metrics;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Schema, Type};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Test;

/// Its name, by which `effai test` finds its targets.
pub const NAME: &str = "test";

/// The file of its artifact that says which cases there were.
pub const JUNIT: &str = "junit.xml";

static SCHEMA: Schema = Schema::new(
    NAME,
    "Runs a program that checks something: a command, or a Python script or module in an environment. Exit code 0 is \
     success, and that is kept; anything else fails.",
)
.children(&[
    RUN,
    ENVIRONMENT,
    SCRIPT,
    MODULE_NAME,
    ARGS,
    PARAMS,
    Schema::new(
        "junit",
        "A file of JUnit's XML that the program writes, from the directory it runs in: its cases are kept, without times.",
    )
    .arg("path", Type::Text),
    INPUT,
    NEEDS,
    OUTPUT.many(),
    METRICS,
    CHECKPOINT,
    ENV,
    PASS,
    READS,
    UNTRACKED,
    POOL,
    NETWORK,
]);

#[derive(Deserialize)]
struct Fields {
    run: Option<Vec<String>>,
    environment: Option<String>,
    junit: Option<String>,
}

/// Fields that say what Python runs: of use with `environment` alone.
const OF_PYTHON: &[&str] = &["script", "module", "args", "params"];

impl Kind for Test {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        match (&fields.run, &fields.environment) {
            (None, None) => {
                let help = "give it a program to `run`, or an `environment` with a `script` or a `module`";
                problems.at("", "it says nothing of what to run", "this", help);
            }
            (Some(_), Some(_)) => {
                let help = "take one of the two out";
                problems.at("environment", "it runs a program and Python", "and `run` is given", help);
            }
            (Some(_), None) => {
                for field in OF_PYTHON.iter().filter(|field| !decl.fields[**field].is_null()) {
                    let message = format!("`{field}` is of Python, and `run` of any program");
                    problems.at(field, message, "given here", "write the program's arguments after `run`");
                }
            }
            (None, Some(_)) => decl.read::<Script>().check(problems),
        }
        let given: Given = decl.read();
        given.check(problems);
        given.check_own("", JUNIT, problems);
    }

    fn needs(&self, decl: &Decl) -> Needs {
        decl.read::<Given>().needs()
    }

    fn how(&self) -> How<'_> {
        How::Program(self)
    }
}

impl Launch for Test {
    fn prepare(&self, cx: &mut ActionCx<'_>) -> Result<Program, Failure> {
        match cx.decl.read::<Fields>().run {
            Some(run) => cx.decl.read::<Given>().lay_out(cx, command::program(&run), None),
            None => cx.decl.read::<Script>().lay_out(cx),
        }
    }

    fn ended(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        match cx.decl.read::<Fields>().run {
            Some(_) => Ok(()),
            None => surroundings::ended(cx),
        }
    }

    fn conclude(&self, cx: &mut ActionCx<'_>, told: &Metrics) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        // Read before outputs are moved, of which it may be one.
        let suites = match &fields.junit {
            Some(path) => own_cases(cx, path)?,
            None => vec![one_case(&what_runs(cx.decl, &fields))],
        };
        cx.decl.read::<Given>().take_in(cx, told, "test")?;
        let report = junit::report(&suites.first().map_or_else(String::new, |suite| suite.name.to_string()), suites);
        Ok(fs::write(&cx.out().join(JUNIT), junit::write(&report).as_bytes())?)
    }
}

/// The cases of the file that the program wrote.
fn own_cases(cx: &ActionCx<'_>, path: &str) -> Result<Vec<TestSuite>, Failure> {
    let mut text = fs::read_text(&cx.scratch().join(path)).map_err(|error| match error.is_missing() {
        true => not_made("junit", path, "test"),
        false => Failure::from(error),
    })?;
    // It runs in another place each time, and pytest says where a skipped case is.
    let dirs = [Some(cx.scratch().to_owned()), cx.scratch().canonicalize().ok()];
    for dir in dirs.into_iter().flatten() {
        text = text.replace(&format!("{}/", dir.display()), "");
    }
    junit::read(&text).map_err(|why| {
        Failure::target(format!("the test ended well but its `{path}` cannot be read: {why}"))
            .help("`junit` takes the file that pytest writes with `--junitxml=PATH`, and others likewise")
    })
}

/// What is kept of a program that says nothing of cases. Not by the target's label: the same test under another label
/// shares the artifact.
fn one_case(name: &str) -> TestSuite {
    let mut suite = TestSuite::new(name);
    suite.add_test_case(TestCase::new(name, TestCaseStatus::success()));
    suite
}

/// The command line.
fn what_runs(decl: &Decl, fields: &Fields) -> String {
    match &fields.run {
        Some(run) => run.join(" "),
        None => {
            ["python".to_owned()].into_iter().chain(decl.read::<Script>().arguments()).collect::<Vec<_>>().join(" ")
        }
    }
}
