//! The command line: argv, exit codes, one file a command. The only user of the terminal besides [`crate::ui`].

mod bisect;
mod blame;
mod build;
mod cache;
mod changes;
mod check;
mod ci;
mod compare;
mod diff;
mod doctor;
mod env;
mod explain;
mod fit;
mod fmt;
mod found;
mod graph;
mod hook;
mod hooks;
mod init;
mod log;
mod lsp;
mod merge_lock;
mod notes;
mod output;
mod provenance;
mod pull;
mod push;
mod record;
mod restore;
mod revision;
mod revisions;
mod run;
mod schema;
mod sign;
mod status;
mod test;
mod trace;
mod trace_inputs;
mod upkeep;
mod verify_provenance;
mod watch;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use miette::Diagnostic;

use crate::backend::{self, Backend};
use crate::engine::{Engine, EngineError, Options};
use crate::failure::{Class, Failure};
use crate::recipe::load::LoadError;

pub use output::Output;

/// make for machine-learning files: declared in KDL, rebuilt by content
#[derive(Debug, Parser)]
#[command(name = "effai", version, infer_subcommands = false, propagate_version = true)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
struct Global {
    /// Run as if started in DIR
    #[arg(short = 'C', value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Lay a profile over the recipes
    #[arg(long, value_name = "NAME", global = true)]
    profile: Option<String>,
    /// What computes, where a recipe does not say: candle or mlx; by default the best that is there
    #[arg(long, value_name = "NAME", global = true, value_parser = backend)]
    backend: Option<Backend>,
    /// Whether programs are held to what their targets declare; what ran without is marked in the record
    #[arg(long, value_name = "on|off", global = true, default_value = "on", hide_default_value = true,
          value_parser = ["on", "off"])]
    sandbox: String,
    /// One JSON object a line on stdout instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more: the logs of actions, and what is fresh
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::Args),
    Test(test::Args),
    Watch(watch::Args),
    Status(status::Args),
    Explain(explain::Args),
    Fit(fit::Args),
    Blame(blame::Args),
    Bisect(bisect::Args),
    Restore(restore::Args),
    Notes(notes::Args),
    Provenance(provenance::Args),
    Sign(sign::Args),
    VerifyProvenance(verify_provenance::Args),
    Ci(ci::Args),
    Hooks(hooks::Args),
    Diff(diff::Args),
    Compare(compare::Args),
    Graph(graph::Args),
    Log(log::Args),
    Trace(trace::Args),
    TraceInputs(trace_inputs::Args),
    Run(run::Args),
    Check(check::Args),
    Fmt(fmt::Args),
    Schema(schema::Args),
    Push(push::Args),
    Pull(pull::Args),
    Cache(cache::Args),
    Doctor(doctor::Args),
    Env(env::Args),
    Init(init::Args),
    Lsp(lsp::Args),
    Completions(Completions),
    #[command(hide = true)]
    Hook(hook::Args),
    #[command(hide = true)]
    MergeLock(merge_lock::Args),
}

/// Print a completion script
#[derive(Debug, clap::Args)]
struct Completions {
    /// For which shell
    shell: clap_complete::Shell,
}

/// Runs the program; returns its exit code.
///
/// 0: done. 1: a target failed or was not begun in time (`--until`), `status --check` found something stale, or `push` or
/// `pull` found something that is nowhere. 2: usage or recipe.
/// 3: disk, network, device. 4: `effai test` found no test. 130: interrupted.
pub fn run() -> u8 {
    if let Some(code) = crate::action::run_hidden(std::env::args_os().skip(1)) {
        return code;
    }
    #[cfg(debug_assertions)]
    if let Some(step) = crate::env::crash_at() {
        crate::util::fault::arm(step);
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return u8::from(error.use_stderr()) * 2;
        }
    };
    start_log();
    let output = Output::new(&args.global);
    let result = match args.command {
        Command::Build(command) => build::run(&args.global, &command, &output),
        Command::Test(command) => test::run(&args.global, &command, &output),
        Command::Watch(command) => watch::run(&args.global, &command, &output),
        Command::Status(command) => status::run(&args.global, &command, &output),
        Command::Explain(command) => explain::run(&args.global, &command, &output),
        Command::Fit(command) => fit::run(&args.global, &command, &output),
        Command::Bisect(command) => bisect::run(&args.global, &command, &output),
        Command::Blame(command) => blame::run(&args.global, &command, &output),
        Command::Restore(command) => restore::run(&args.global, &command, &output),
        Command::Ci(command) => ci::run(&args.global, &command, &output),
        Command::Notes(command) => notes::run(&args.global, &command, &output),
        Command::Provenance(command) => provenance::run(&args.global, &command, &output),
        Command::Sign(command) => sign::run(&args.global, &command, &output),
        Command::VerifyProvenance(command) => verify_provenance::run(&args.global, &command, &output),
        Command::Hooks(command) => hooks::run(&args.global, &command, &output),
        Command::Hook(command) => hook::run(&args.global, &command, &output),
        Command::MergeLock(command) => merge_lock::run(&command, &output),
        Command::Diff(command) => diff::run(&args.global, &command, &output),
        Command::Compare(command) => compare::run(&args.global, &command, &output),
        Command::Graph(command) => graph::run(&args.global, &command, &output),
        Command::Log(command) => log::run(&args.global, &command, &output),
        Command::Trace(command) => trace::run(&args.global, &command, &output),
        Command::TraceInputs(command) => trace_inputs::run(&args.global, &command, &output),
        Command::Run(command) => run::run(&args.global, &command, &output),
        Command::Check(command) => check::run(&args.global, &command, &output),
        Command::Fmt(command) => fmt::run(&args.global, &command, &output),
        Command::Schema(command) => schema::run(&command, &output),
        Command::Doctor(command) => doctor::run(&args.global, &command, &output),
        Command::Env(command) => env::run(&args.global, &command, &output),
        Command::Push(command) => push::run(&args.global, &command, &output),
        Command::Pull(command) => pull::run(&args.global, &command, &output),
        Command::Cache(command) => cache::run(&args.global, &command, &output),
        Command::Init(command) => init::run(&args.global, &command, &output),
        Command::Lsp(command) => lsp::run(&args.global, &command, &output),
        Command::Completions(command) => {
            let mut script = Vec::new();
            clap_complete::generate(
                command.shell,
                &mut <Args as clap::CommandFactory>::command(),
                "effai",
                &mut script,
            );
            output.line(&String::from_utf8_lossy(&script));
            Ok(0)
        }
    };
    result.unwrap_or_else(|error| {
        report(&error, &output);
        class(&error).exit_code()
    })
}

/// How its project is opened.
fn options(global: &Global) -> Options {
    Options {
        profile: global.profile.clone(),
        backend: global.backend,
        without_sandbox: global.sandbox == "off",
        ..Options::default()
    }
}

/// Reads `--backend`: one that this build lacks is no choice.
fn backend(name: &str) -> Result<Backend, String> {
    let backend = Backend::by_name(name).ok_or_else(|| format!("it is one of {}", backend::NAMES.join(", ")))?;
    if backend.is_built_in() {
        Ok(backend)
    } else {
        Err(format!("this effai was built without it: {}", backend::HOW_TO_BUILD_MLX))
    }
}

/// Opens the project the command is about.
fn open(global: &Global) -> Result<Engine, EngineError> {
    let dir = directory(global)?;
    Engine::open(&dir, &options(global))
}

fn directory(global: &Global) -> Result<PathBuf, EngineError> {
    let here = std::env::current_dir()
        .map_err(|e| Failure::environment(format!("the current directory cannot be found: {e}")))?;
    let dir = global.directory.as_ref().map_or(here.clone(), |dir| here.join(dir));
    if !dir.is_dir() {
        return Err(Failure::user(format!("{} is not a directory", dir.display())).into());
    }
    Ok(dir)
}

fn class(error: &EngineError) -> Class {
    match error {
        EngineError::Failure(failure) => failure.class,
        EngineError::Db(_) | EngineError::Load(LoadError::Fs(_)) => Class::Environment,
        EngineError::Load(_) | EngineError::UnknownTarget(_) => Class::User,
    }
}

/// Shows an error: recipe mistakes with their lines, anything else as one line and the next step.
fn report(error: &EngineError, output: &Output) {
    match error {
        EngineError::Load(LoadError::Mistakes(mistakes)) => {
            for mistake in &mistakes.mistakes {
                output.diagnostic(mistake as &dyn Diagnostic);
            }
        }
        EngineError::Load(e @ LoadError::NoProject(_)) => {
            output.error(&e.to_string(), Some("`effai init` makes one here"));
        }
        EngineError::Load(e @ LoadError::UnknownProfile { known, .. }) => {
            let help = if known.is_empty() {
                "no target has any profile".to_owned()
            } else {
                format!("profiles are: {}", known.join(", "))
            };
            output.error(&e.to_string(), Some(&help));
        }
        EngineError::UnknownTarget(e) => {
            let help = match &e.near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`effai graph` shows the targets there are".into(),
            };
            output.error(&e.to_string(), Some(&help));
        }
        EngineError::Failure(failure) => output.error(&failure.message, failure.help.as_deref()),
        EngineError::Db(e) => {
            let failure = e.failure();
            output.error(&failure.message, failure.help.as_deref());
        }
        other => output.error(&crate::failure::chain(other), None),
    }
}

fn start_log() {
    if let Some(filter) = crate::env::log_filter() {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(std::io::stderr)
            .try_init();
    }
}
