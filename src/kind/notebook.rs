//! `notebook`: a Jupyter notebook run from top to bottom with parameters, in an environment.
//!
//! The work is `run.py`'s, which needs nbclient and ipykernel of that environment: it puts the parameters in, runs the
//! cells, and writes what becomes the artifact. Here is what it is told, and what surrounds it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::python::surroundings::{self, Params};
use super::workplace::{CHECKPOINT, ENV, Given, INPUT, METRICS, NEEDS, NETWORK, OUTPUT, PASS, POOL, READS, UNTRACKED};
use super::{ActionCx, How, Kind, Launch, Needs};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Schema, Type};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Notebook;

const RUN: &str = include_str!("notebook/run.py");

/// What the artifact has of its figures.
const FIGURES: &str = "figures";

/// Names within an SVG file are made of this, and not of chance.
const MATPLOTLIB: &str = "svg.hashsalt: effai\n";

/// What is written now was written then: the first time that every format of a file can hold.
const EPOCH: &str = "315532800";

static SCHEMA: Schema = Schema::new(
    "notebook",
    "Runs a Jupyter notebook from top to bottom with parameters, in an environment, and keeps it as executed, with its \
     figures.",
)
.children(&[
    surroundings::ENVIRONMENT.required(),
    Schema::new("notebook", "A file of the project to run; it lies at the same path in the directory.")
        .arg("path", Type::File)
        .required(),
    Schema::new(
        "params",
        "Variables that the notebook gets in place of those of its cell tagged `parameters`. One of several values is a \
         list.",
    )
    .open(Type::Value),
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
    environment: String,
    notebook: String,
    params: Option<Params>,
}

/// What the runner is told.
#[derive(Serialize)]
struct Job<'a> {
    notebook: &'a str,
    params: Map<String, Value>,
    /// The environment's label.
    environment: &'a str,
    /// The directory to fill.
    out: &'a Path,
    home: &'a Path,
    /// Directories of this action alone -> what is written in their place.
    places: BTreeMap<&'a Path, &'a str>,
}

impl Kind for Notebook {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        for name in fields.params.iter().flat_map(|params| params.columns.keys()).filter(|name| !is_variable(name)) {
            let help = "a parameter is a variable of Python: letters, digits and `_`, and no word of the language";
            problems.at(&format!("params.columns.{name}"), format!("`{name}` cannot be a parameter"), "this", help);
        }
        let given: Given = decl.read();
        given.check(problems);
        let own = Path::new(&fields.notebook).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        for path in [own, FIGURES] {
            given.check_own("notebook", path, problems);
        }
    }

    fn needs(&self, decl: &Decl) -> Needs {
        decl.read::<Given>().needs()
    }

    fn how(&self) -> How<'_> {
        How::Program(self)
    }
}

impl Launch for Notebook {
    fn prepare(&self, cx: &mut ActionCx<'_>) -> Result<Program, Failure> {
        let fields: Fields = cx.decl.read();
        // Not where modules are looked for: it is nobody's to import.
        let (driver, home) = (cx.scratch().with_file_name("driver"), cx.scratch().with_file_name("home"));
        let (run, job) = (driver.join("run.py"), driver.join("job.json"));
        let inputs = cx.inputs.iter().map(|(label, dir)| (dir.as_path(), label.as_str()));
        let told = Job {
            notebook: fields.notebook.trim_start_matches("./"),
            params: fields.params.map(|params| params.columns).unwrap_or_default(),
            environment: &fields.environment,
            out: cx.out(),
            home: &home,
            places: inputs.chain([(cx.scratch(), "."), (home.as_path(), "~")]).collect(),
        };
        fs::write(&run, RUN.as_bytes())?;
        fs::write(&job, &serde_json::to_vec(&told).expect("plain data"))?;
        fs::write(&home.join("matplotlib/matplotlibrc"), MATPLOTLIB.as_bytes())?;
        let program = surroundings::program(cx, &fields.environment)?.called(format!("notebook {}", fields.notebook));
        let program = program.args([run, job]).reads(driver).uses(cx.out());
        let program = variables(&home).into_iter().fold(program, |program, (name, value)| program.var(name, value));
        surroundings::lay_out(cx, program, Some(&fields.notebook))
    }

    fn ended(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        surroundings::ended(cx)
    }

    fn conclude(&self, cx: &mut ActionCx<'_>, told: &Metrics) -> Result<(), Failure> {
        cx.decl.read::<Given>().take_in(cx, told, "notebook")
    }
}

/// What keeps Jupyter, IPython and Matplotlib to this action's home, also where it has the user's.
fn variables(home: &Path) -> [(&'static str, OsString); 6] {
    [
        ("JUPYTER_RUNTIME_DIR", home.join("jupyter/runtime").into()),
        ("JUPYTER_CONFIG_DIR", home.join("jupyter/config").into()),
        ("JUPYTER_DATA_DIR", home.join("jupyter/data").into()),
        ("IPYTHONDIR", home.join("ipython").into()),
        ("MPLCONFIGDIR", home.join("matplotlib").into()),
        ("SOURCE_DATE_EPOCH", EPOCH.into()),
    ]
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&name)
}

/// Words of Python that no variable can be called.
const KEYWORDS: &[&str] = &[
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_variables() {
        assert!(["rate", "learning_rate", "_x", "x2", "größe"].into_iter().all(is_variable));
        assert!(!["", "learning-rate", "2x", "a b", "a.b", "lambda", "None"].into_iter().any(is_variable));
    }
}
