//! `command`: any program, with declared inputs and outputs.

use serde::Deserialize;

use super::workplace::{ENV, Given, INPUT, METRICS, NEEDS, NETWORK, OUTPUT, PASS, POOL, UNTRACKED};
use super::{ActionCx, How, Kind, Launch, Needs};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Schema, Type};

/// The kind.
#[derive(Debug)]
pub struct Command;

/// What it runs.
pub(super) const RUN: Schema = Schema::new("run", "The program and its arguments. No shell, unless it is the program.")
    .many_args("argv", Type::Text);

static SCHEMA: Schema = Schema::new(
    "command",
    "Runs a program in a directory that holds its declared inputs, and keeps its declared outputs.",
)
.children(&[RUN.required(), INPUT, NEEDS, OUTPUT, METRICS, ENV, PASS, UNTRACKED, POOL, NETWORK]);

#[derive(Deserialize)]
struct Fields {
    run: Vec<String>,
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
        decl.read::<Given>().check(problems);
    }

    fn needs(&self, decl: &Decl) -> Needs {
        decl.read::<Given>().needs()
    }

    fn how(&self) -> How<'_> {
        How::Program(self)
    }
}

impl Launch for Command {
    fn prepare(&self, cx: &mut ActionCx<'_>) -> Result<Program, Failure> {
        let fields: Fields = cx.decl.read();
        lay_out(cx, &fields.run)
    }

    fn conclude(&self, cx: &mut ActionCx<'_>, told: &Metrics) -> Result<(), Failure> {
        cx.decl.read::<Given>().take_in(cx, told, "command")
    }
}

/// Lays out all that a program is given where it will run; and says what to start.
pub(super) fn lay_out(cx: &ActionCx<'_>, run: &[String]) -> Result<Program, Failure> {
    let (program, args) = run.split_first().expect("the schema asks for one");
    cx.decl.read::<Given>().lay_out(cx, Program::new(program).args(args), None)
}
