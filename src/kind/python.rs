//! `python`: a script or module with parameters, in an environment.

mod mlflow;
pub(super) mod surroundings;

use serde::Deserialize;
use serde_json::{Map, Value};

use surroundings::{ENVIRONMENT, Params};

use super::workplace::{CHECKPOINT, ENV, Given, INPUT, METRICS, NEEDS, NETWORK, OUTPUT, PASS, POOL, READS, UNTRACKED};
use super::{ActionCx, How, Kind, Launch, Needs};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Schema, Type};

/// The kind.
#[derive(Debug)]
pub struct Python;

/// A file to run.
pub(super) const SCRIPT: Schema =
    Schema::new("script", "A file of the project to run; it lies at the same path in the directory.")
        .arg("path", Type::File);

/// A module to run.
pub(super) const MODULE_NAME: Schema =
    Schema::new("module", "A module to run, as by `python -m`; its files are among `input`.").arg("name", Type::Text);

/// Arguments as they are.
pub(super) const ARGS: Schema =
    Schema::new("args", "Arguments as they stand, before those of `params`.").many_args("argv", Type::Text);

/// Arguments by name.
pub(super) const PARAMS: Schema = Schema::new(
    "params",
    "Arguments: `--NAME VALUE` each, in the order of their names. One that is #true is `--NAME`, one that is #false \
     is left out, one of several values is given for each.",
)
.open(Type::Value);

static SCHEMA: Schema = Schema::new(
    "python",
    "Runs a Python script or module with parameters, in an environment, and keeps its declared outputs.",
)
.children(&[
    ENVIRONMENT.required(),
    SCRIPT,
    MODULE_NAME,
    ARGS,
    PARAMS,
    INPUT,
    NEEDS,
    OUTPUT,
    METRICS,
    CHECKPOINT,
    ENV,
    PASS,
    READS,
    UNTRACKED,
    POOL,
    NETWORK,
]);

/// What runs, and with what: the fields above, as declared.
#[derive(Deserialize)]
pub(super) struct Script {
    environment: String,
    script: Option<String>,
    module: Option<String>,
    args: Option<Vec<String>>,
    params: Option<Params>,
}

impl Kind for Python {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        decl.read::<Script>().check(problems);
        decl.read::<Given>().check(problems);
    }

    fn needs(&self, decl: &Decl) -> Needs {
        decl.read::<Given>().needs()
    }

    fn how(&self) -> How<'_> {
        How::Program(self)
    }
}

impl Launch for Python {
    fn prepare(&self, cx: &mut ActionCx<'_>) -> Result<Program, Failure> {
        cx.decl.read::<Script>().lay_out(cx)
    }

    fn ended(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        surroundings::ended(cx)
    }

    fn conclude(&self, cx: &mut ActionCx<'_>, told: &Metrics) -> Result<(), Failure> {
        cx.decl.read::<Given>().take_in(cx, told, "script")
    }
}

impl Script {
    /// Finds fields that contradict one another.
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        match (&self.script, &self.module) {
            (None, None) => {
                problems.at("", "it says nothing of what to run", "this", "give it a `script` or a `module`")
            }
            (Some(_), Some(_)) => {
                problems.at(
                    "module",
                    "it runs a script and a module",
                    "and `script` is given",
                    "take one of the two out",
                );
            }
            _ => {}
        }
        for name in self.params.iter().flat_map(|params| params.columns.keys()).filter(|name| !is_flag(name)) {
            let help = "a parameter's name has letters, digits, `-`, `_` and `.`, as an option of a program has";
            problems.at(&format!("params.columns.{name}"), format!("`{name}` cannot be a parameter"), "this", help);
        }
    }

    /// Its arguments, the script or module first.
    pub(super) fn arguments(&self) -> Vec<String> {
        let first = match (&self.script, &self.module) {
            (Some(script), _) => vec![script.clone()],
            (None, module) => vec!["-m".to_owned(), module.clone().expect("one of the two was checked for")],
        };
        let params = self.params.as_ref().map(|params| arguments(&params.columns)).unwrap_or_default();
        [first, self.args.clone().unwrap_or_default(), params].concat()
    }

    /// Lays out all that it is given where it will run; and says what to start.
    pub(super) fn lay_out(&self, cx: &ActionCx<'_>) -> Result<Program, Failure> {
        let name = self.script.as_ref().or(self.module.as_ref()).expect("one of the two was checked for");
        let program = surroundings::program(cx, &self.environment)?.called(format!("python {name}"));
        surroundings::lay_out(cx, program.args(self.arguments()), self.script.as_deref())
    }
}

fn is_flag(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

/// Parameters as a program's arguments.
fn arguments(params: &Map<String, Value>) -> Vec<String> {
    let mut arguments = Vec::new();
    for (name, value) in params {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            match value {
                Value::Bool(false) | Value::Null => {}
                Value::Bool(true) => arguments.push(format!("--{name}")),
                // Apart, it would be taken for an option.
                Value::String(text) if text.starts_with('-') => arguments.push(format!("--{name}={text}")),
                Value::String(text) => arguments.extend([format!("--{name}"), text.clone()]),
                number => arguments.extend([format!("--{name}"), number.to_string()]),
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_become_options() {
        let check = |params: Value, expected: &str| {
            let Value::Object(params) = params else { panic!("an object") };
            assert_eq!(arguments(&params).join(" "), expected);
        };
        check(json!({}), "");
        check(json!({ "rate": 0.01, "epochs": 3, "name": "a b" }), "--epochs 3 --name a b --rate 0.01");
        check(json!({ "augment": true, "quiet": false }), "--augment");
        check(json!({ "layers": [64, 32], "tiny": 1e-7 }), "--layers 64 --layers 32 --tiny 1e-7");
        check(json!({ "text": "-x", "offset": -3 }), "--offset -3 --text=-x");
        assert!(["learning-rate", "a_b", "model.layers", "x2"].into_iter().all(is_flag));
        assert!(!["", "-x", "a b", "a=b"].into_iter().any(is_flag));
    }
}
