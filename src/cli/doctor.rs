//! `effai doctor`

use serde_json::json;

use super::{Global, Output, open};
use crate::action::is_held;
use crate::backend::{self, Backend, on_backend};
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::measure::hardware::{Hardware, What, measure};
use crate::recipe::remote::Remote;
use crate::remote::Remotes;
use crate::ui::style;
use crate::util::fs;
use crate::util::machine::{Machine, free_bytes};
use crate::util::text::bytes;

/// Say what this machine has, what would compute and why, and what to install for more
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Measure what this machine can do at most: memory, products of matrices, disk. Takes some ten seconds
    #[arg(long)]
    bench: bool,
}

/// A backend, tried.
struct Found {
    backend: Backend,
    /// What it is, or why it is none.
    what: String,
    next: Option<String>,
    works: bool,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let machine = Machine::look();
    let found: Vec<Found> = backend::NAMES.iter().filter_map(|name| Backend::by_name(name)).map(look).collect();
    let chosen = global.backend.unwrap_or_else(Backend::best);
    let why = why(global, chosen);
    let store = crate::env::cache_dir();
    let free = store.as_deref().and_then(free_bytes);
    let remotes = remotes(global);
    let works = found.iter().any(|f| f.backend == chosen && f.works);
    let code = if works { 0 } else { 3 };
    let hardware = match args.bench && works {
        true => Some(bench(chosen, output)?),
        false => None,
    };
    if output.json {
        let backend = |f: &Found| json!({"name": f.backend, "works": f.works, "what": f.what, "next": f.next});
        output.object(&json!({
            "version": 1, "machine": machine, "backends": found.iter().map(backend).collect::<Vec<_>>(),
            "chosen": chosen, "why": why, "store": store, "free_bytes": free, "held": is_held(), "hardware": hardware,
            "remotes": remotes.iter().map(|(remote, why)| json!({
                "name": remote.name, "url": remote.url, "access": remote.access, "answers": why.is_none(), "why": why,
            })).collect::<Vec<_>>(),
        }));
        return Ok(code);
    }
    let line = |name: &str, text: &str| output.line(&format!("{name:<10} {text}"));
    line("effai", env!("CARGO_PKG_VERSION"));
    line("machine", machine.processor.as_deref().unwrap_or("unknown processor"));
    line("", &cores(&machine));
    if let Some(memory) = machine.memory_bytes {
        let shared = if machine.is_unified { ", shared with the GPU" } else { "" };
        line("", &format!("{} of memory{shared}", bytes(memory)));
    }
    for f in &found {
        let mark = if f.works { style::green("works") } else { style::yellow("does not work") };
        line(f.backend.name(), &format!("{mark}: {}", f.what));
        f.next.iter().for_each(|next| line("", next));
    }
    line("chosen", &format!("{}: {why}", chosen.name()));
    if let (Some(store), Some(free)) = (&store, free) {
        line("store", &format!("{}, {} free on its disk", store.display(), bytes(free)));
    }
    for (remote, why) in &remotes {
        let answer = match why {
            None => format!("{}: {}", style::green("answers"), remote.url),
            Some(why) => format!("{}: {why}", style::yellow("does not answer")),
        };
        line("remote", &format!("{}: {answer}", remote.name));
    }
    let held = "are held to what they declare (Landlock)";
    let free = "are not held to what they declare: that needs Linux 5.13 with Landlock";
    line("commands", if is_held() { held } else { free });
    for rate in hardware.iter().flat_map(|hardware| &hardware.rates) {
        let (best, median) = (rate.best / 1e9, rate.median / 1e9);
        output.line(&format!("{:<24} {best:>9.2}   median {median:.2} of {} rounds", rate.of.name(), rate.rounds));
    }
    Ok(code)
}

/// Measures on the disk of the store. Each thing is said before it begins.
fn bench(backend: Backend, output: &Output) -> Result<Hardware, EngineError> {
    let store = crate::env::cache_dir().unwrap_or_else(std::env::temp_dir);
    fs::create_dir_all(&store)?;
    let dir = tempfile::tempdir_in(&store).map_err(|e| Failure::environment(format!("{}: {e}", store.display())))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut told = |of: What| output.note(&format!("measuring: {}", of.name()));
    Ok(on_backend!(backend, measure(backend, threads, dir.path(), &mut told))?)
}

/// The remotes of the project one stands in, if in any, each with why it cannot be used.
fn remotes(global: &Global) -> Vec<(Remote, Option<String>)> {
    let Ok(engine) = open(global) else { return Vec::new() };
    let all = engine.settings().remotes.clone();
    if all.is_empty() {
        return Vec::new();
    }
    let tried = Remotes::new(&all, &engine.root, &engine.store).map(|remotes| remotes.try_all()).unwrap_or_default();
    let why = |remote: &Remote| tried.iter().find(|(name, _)| *name == remote.name).and_then(|(_, why)| why.clone());
    all.iter().map(|remote| (remote.clone(), why(remote))).collect()
}

fn look(backend: Backend) -> Found {
    match backend.probe() {
        Ok(()) => Found { backend, what: backend.describe(), next: None, works: true },
        Err(error) => Found { backend, what: error.to_string(), next: Some(error.help().into()), works: false },
    }
}

fn why(global: &Global, chosen: Backend) -> &'static str {
    match (global.backend, chosen) {
        (Some(_), _) => "`--backend` says so",
        (None, Backend::Mlx) => "the GPU of Apple Silicon is the fastest there is here",
        (None, Backend::Candle) if cfg!(all(target_os = "macos", target_arch = "aarch64")) => {
            "this effai was built without MLX"
        }
        (None, Backend::Candle) => "MLX is for Apple Silicon; elsewhere it has no GPU",
    }
}

fn cores(machine: &Machine) -> String {
    let mut text = format!("{} cores", machine.cores);
    if let Some((performance, efficiency)) = machine.core_kinds {
        text += &format!(", {performance} for performance and {efficiency} for efficiency");
    }
    if let Some(gpu) = machine.gpu_cores {
        text += &format!("; {gpu} of the GPU");
    }
    if !machine.vectors.is_empty() {
        text += &format!("; {}", machine.vectors.join(", "));
    }
    text
}
