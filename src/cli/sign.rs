//! `effai sign`

use std::path::{Path, PathBuf};

use super::{Global, Output, directory, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::git::{Git, notes};
use crate::plan::Index;
use crate::provenance::bundle;
use crate::provenance::dsse::Envelope;
use crate::provenance::keys::SigningKey;
use crate::ui::style;
use crate::util::fs;

/// Sign how targets were made, in a note at the commit that is checked out; or a model, for others' tools
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, or tag:WORD
    #[arg(required = true)]
    targets: Vec<String>,
    /// The private key, or the public half of one that the SSH agent has; by default the one that git signs with
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write signed statements into a file, one a line, and no note
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sign the files of one model as the OpenSSF's Model Signing has it; by default into NAME.sig
    #[arg(long)]
    model: bool,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let here = directory(global)?;
    let key = key(&engine, args.key.as_ref().map(|path| here.join(path)))?;
    let chosen = engine.select(&args.targets, &[])?;
    if args.model {
        let [index] = chosen[..] else {
            return Err(Failure::user("a signature file is of one model").help("name one target").into());
        };
        model(&mut engine, index, &key, args.output.as_ref().map(|path| here.join(path)), &here, output)?;
        return Ok(0);
    }
    let mut lines = Vec::new();
    for index in chosen {
        let statement = engine.statement(index)?;
        let envelope = Envelope::sign(&statement.to_bytes(), &key, key.public.id())?;
        lines.push((statement.said(), serde_json::to_string(&envelope).expect("an envelope is plain")));
    }
    let place = match &args.output {
        Some(path) => {
            let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
            fs::write_atomic(&here.join(path), text.as_bytes())?;
            path.display().to_string()
        }
        None => {
            let git = Git::of(&engine.root).map_err(Failure::from)?;
            let mut place = String::new();
            for (_, line) in &lines {
                place = format!("the note of commit {}", notes::add_signed(&git, line)?.short());
            }
            place
        }
    };
    for (said, _) in &lines {
        if output.json {
            output.object(&serde_json::json!({"version": 1, "signed": said, "by": key.public.id(), "in": place}));
        } else {
            let (label, artifact) = (style::green(&said.label), said.artifact.short());
            output.line(&format!("signed  {label}  {artifact}  by {}, in {place}", key.public.named()));
        }
        if !said.changed.is_empty() {
            output.note(&format!("not as committed, and stated so: {}", said.changed.join(", ")));
        }
    }
    if args.output.is_none() {
        output.note("`effai notes push` takes it to others");
    }
    Ok(0)
}

/// The key that was named, else git's.
fn key(engine: &Engine, named: Option<PathBuf>) -> Result<SigningKey, Failure> {
    let of_git = || Git::of(&engine.root).ok()?.signing_key();
    let path = named.or_else(of_git).ok_or_else(|| {
        Failure::user("there is no key to sign with").help(
            "name one: --key FILE; or have git sign with one of SSH's: `git config gpg.format ssh`, `git config \
             user.signingKey FILE`",
        )
    })?;
    SigningKey::read(&path, crate::env::ssh_agent())
}

fn model(
    engine: &mut Engine,
    index: Index,
    key: &SigningKey,
    to: Option<PathBuf>,
    here: &Path,
    output: &Output,
) -> Result<(), EngineError> {
    let label = engine.label(index);
    let (_, artifact) = engine.built(index)?;
    let files = engine.aside(&artifact)?;
    let name = label.as_str().rsplit('/').next().unwrap_or(label.as_str());
    let bundle = bundle::sign(name, files.path(), key)?;
    let path = to.unwrap_or_else(|| here.join(format!("{name}.sig")));
    fs::write_atomic(&path, serde_json::to_string(&bundle).expect("a bundle is plain").as_bytes())?;
    if output.json {
        output.object(&serde_json::json!({
            "version": 1, "label": label, "artifact": artifact, "by": key.public.id(), "in": path,
        }));
        return Ok(());
    }
    let shown = path.strip_prefix(here).unwrap_or(&path).display();
    output.line(&format!(
        "signed  {}  {}  by {}, in {shown}",
        style::green(label.as_str()),
        artifact.short(),
        key.public.named()
    ));
    output
        .note(&format!("others verify it: model_signing verify key out/{label} --signature {shown} --public_key KEY"));
    Ok(())
}
