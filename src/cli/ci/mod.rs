//! `effai ci`

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Global, Output, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::git::Git;
use crate::lock::{FILE, Lock, history};
use crate::plan::is_implied;
use crate::recipe::terms::Terms;
use crate::report::guards::{Compared, Guards};
use crate::util::fs;

const GITHUB: &str = include_str!("github.yml");

/// Where a workflow lies, from the repository's root.
const WORKFLOW: &str = ".github/workflows/effai.yml";

/// Continuous integration: a workflow to begin with, and what a change does to metrics
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write a workflow that builds what effai.lock says
    Init {
        /// For which service
        #[arg(value_parser = ["github"])]
        service: String,
        /// Write over one that is there
        #[arg(long)]
        force: bool,
    },
    /// Compare effai.lock with a base's; end with 1 where a metric crosses a `guard` of its target
    Report {
        /// The revision to compare with
        #[arg(long, value_name = "REV", default_value = "HEAD")]
        base: String,
        /// Write Markdown there; without any file it is printed
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
        /// Write JUnit's XML there, a case for each limit
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// Write SARIF 2.1.0 there, a result for each limit that was crossed
        #[arg(long, value_name = "FILE")]
        sarif: Option<PathBuf>,
    },
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    match &args.what {
        What::Init { force, .. } => init(&engine, *force, output),
        What::Report { base, markdown, junit, sarif } => {
            let compared = compare(&engine, base)?;
            let guards = Guards::new(&compared, base);
            let here = super::directory(global)?;
            let forms: [(&Option<PathBuf>, &dyn Fn() -> String); 3] =
                [(markdown, &|| guards.markdown()), (junit, &|| guards.junit()), (sarif, &|| guards.sarif())];
            for (path, text) in forms {
                if let Some(path) = path {
                    fs::write_atomic(&here.join(path), text().as_bytes())?;
                }
            }
            let crossed = guards.crossed();
            if output.json {
                let crossed: Vec<_> =
                    crossed.iter().map(|(label, why)| serde_json::json!({"label": label, "why": why})).collect();
                output.object(&serde_json::json!({"version": 1, "base": base, "crossed": crossed}));
            } else if [markdown, junit, sarif].iter().all(|path| path.is_none()) {
                output.line(&guards.markdown());
            }
            for (label, why) in &crossed {
                output.error(&format!("{label}: {why}"), None);
            }
            Ok(u8::from(!crossed.is_empty()))
        }
    }
}

fn init(engine: &Engine, force: bool, output: &Output) -> Result<u8, EngineError> {
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let path = git.tree().join(WORKFLOW);
    if path.exists() && !force {
        let failure = Failure::user(format!("{WORKFLOW} is there already"));
        return Err(failure.help("`--force` writes over it").into());
    }
    let below = git.below();
    let text = if below.as_os_str().is_empty() {
        GITHUB.to_owned()
    } else {
        // Steps run where the project is.
        let steps = format!("    defaults:\n      run:\n        working-directory: {}\n    steps:\n", below.display());
        GITHUB.replacen("    steps:\n", &steps, 1).replace("'effai.lock'", &format!("'{}/{FILE}'", below.display()))
    };
    fs::write_atomic(&path, text.as_bytes())?;
    output.note(&format!("wrote {WORKFLOW}"));
    if Lock::read(&engine.root)?.is_none() {
        output.note("it builds what effai.lock says: `effai build --lock` writes that, then commit both");
    }
    Ok(0)
}

/// Both locks, target by target, with the guards of the recipes; parts are left out.
fn compare(engine: &Engine, base: &str) -> Result<Vec<Compared>, EngineError> {
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let was = history::at(&git, base)?;
    let none = || Failure::user(format!("there is no {FILE}")).help("`effai build --lock` writes it");
    let now = Lock::read(&engine.root)?.ok_or_else(none)?;
    let guarded: Vec<String> = (0..engine.plan().len()).map(|index| engine.label(index).to_string()).collect();
    let labels: BTreeSet<&String> = was.claims.keys().chain(now.claims.keys()).chain(&guarded).collect();
    let mut all = Vec::new();
    for label in labels.into_iter().filter(|label| !is_implied(label)) {
        let mut guards = Vec::new();
        if let Some(index) = engine.plan().find(label) {
            let place = engine.place(index);
            let (path, line) = place.rsplit_once(':').unwrap_or((&place, "1"));
            let path = git.below().join(path).display().to_string();
            for guard in Terms::of(&engine.decl(index)?.fields).guard {
                guards.push((guard, path.clone(), line.parse().unwrap_or(1)));
            }
        }
        let claim = |lock: &Lock| lock.claims.get(label).cloned();
        let compared = Compared { label: label.clone(), was: claim(&was), now: claim(&now), guards };
        if compared.was.is_some() || compared.now.is_some() || !compared.guards.is_empty() {
            all.push(compared);
        }
    }
    Ok(all)
}
