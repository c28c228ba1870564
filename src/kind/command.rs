//! `command`: any program, with declared inputs and outputs.

use serde::Deserialize;

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
pub struct Command;

/// What it runs.
pub(super) const RUN: Schema = Schema::new("run", "The program and its arguments. No shell, unless it is the program.")
    .many_args("argv", Type::Text);

static SCHEMA: Schema = Schema::new(
    "command",
    "Runs a program in a directory that holds its declared inputs, and keeps its declared outputs.",
)
.children(&[
    RUN.required(),
    Schema::new("stdin", "A file of the project that the program has for its standard input.").arg("path", Type::File),
    Schema::new(
        "dir",
        "Where below its directory the program runs; `input`, `needs` and `output` are still from the top.",
    )
    .arg("path", Type::Text),
    INPUT,
    NEEDS,
    OUTPUT,
    METRICS,
    CHECKPOINT,
    Schema::new(
        "private-tmp",
        "Gives the program a `/tmp` of its own, on Linux, where it lets users do so; `$TMPDIR` is one in any case. Takes a few \
         milliseconds.",
    ),
    ENV,
    PASS,
    READS,
    UNTRACKED,
    POOL,
    NETWORK,
]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    run: Vec<String>,
    stdin: Option<String>,
    private_tmp: Option<bool>,
    dir: Option<String>,
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
        if let Some(dir) =
            fields.dir.filter(|dir| dir.starts_with(['/', '~']) || dir.split('/').any(|part| part == ".."))
        {
            let help = "a path such as \"src\", from where the project's files lie";
            problems.at("dir", format!("`{dir}` leads out of the program's directory"), "this", help);
        }
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
        let mut program = program(&fields.run);
        if fields.private_tmp == Some(true) {
            program = program.private_tmp();
        }
        if let Some(path) = &fields.stdin {
            program = program.stdin(cx.project_file(path));
        }
        if let Some(dir) = fields.dir {
            let dir = cx.scratch().join(dir);
            fs::create_dir_all(&dir)?;
            program = program.dir(&dir);
        }
        cx.decl.read::<Given>().lay_out(cx, program, None)
    }

    fn conclude(&self, cx: &mut ActionCx<'_>, told: &Metrics) -> Result<(), Failure> {
        cx.decl.read::<Given>().take_in(cx, told, "command")
    }
}

/// A program by what stands after `run`.
pub(super) fn program(run: &[String]) -> Program {
    let (program, args) = run.split_first().expect("the schema asks for one");
    Program::new(program).args(args)
}
