//! `effai verify-provenance`

use std::path::{Path, PathBuf};

use super::{Global, Output, directory, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::git::notes::Placed;
use crate::git::{Git, notes};
use crate::lock::{Claim, FILE, Lock};
use crate::plan::{Index, Label, at_revision};
use crate::provenance::dsse::{Envelope, Refused};
use crate::provenance::keys::{self, PublicKey};
use crate::provenance::{Said, Statement};
use crate::ui::style;
use crate::util::fs;
use crate::util::text::{count, json_error, local_time};

/// Verify who signed how targets were made, and that their bytes, and the lock, are as was signed
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, tag:WORD or LABEL@REV; without any, the project's `default` or all
    targets: Vec<String>,
    /// A file of public keys to believe: PEM, id.pub or allowed_signers; by default those that git believes
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Signed statements of this file, not those in notes
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The artifact lies in this directory: no project is needed
    #[arg(long, value_name = "DIR", requires = "from", conflicts_with = "targets")]
    dir: Option<PathBuf>,
}

/// A statement that a believed key signed.
struct Believed<'a> {
    statement: Statement,
    said: Said,
    by: &'a PublicKey,
    place: &'a str,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let here = directory(global)?;
    let from = args.from.as_ref().map(|path| lines_of(&here.join(path), path)).transpose()?;
    if let (Some(dir), Some(lines)) = (&args.dir, &from) {
        let believed = keys(&here, &args.key, None)?;
        return Ok(tell(of_dir(&here.join(dir), dir, lines, &believed), output));
    }
    let mut engine = open(global)?;
    let git = Git::of(&engine.root);
    let believed = keys(&here, &args.key, git.as_ref().ok())?;
    let lines = match from {
        Some(lines) => lines,
        None => notes::signed(&git.map_err(Failure::from)?).map_err(Failure::from)?,
    };
    let words = if args.targets.is_empty() { engine.default_words().to_vec() } else { args.targets.clone() };
    let chosen = engine.select_at(&words, &[])?;
    engine.look(&chosen)?;
    let lock = Lock::read(&engine.root)?.unwrap_or_default();
    let mut worst = 0;
    for index in chosen {
        worst = worst.max(tell(of_target(&mut engine, index, &lock, &lines, &believed), output));
    }
    Ok(worst)
}

/// Shows what was verified or why it was refused; the exit code.
fn tell(verified: Result<(Said, &PublicKey, &str), Failure>, output: &Output) -> u8 {
    match verified {
        Ok((said, by, place)) => {
            if output.json {
                output.object(&serde_json::json!({
                    "version": 1, "verified": said, "by": by.id(), "owner": by.owner, "in": place,
                }));
                return 0;
            }
            let of = match (&said.commit, said.changed.len()) {
                (Some(commit), 0) => format!(", of commit {}", &commit[..10.min(commit.len())]),
                (Some(commit), n) => {
                    format!(", of commit {} with {} changed", &commit[..10.min(commit.len())], count(n, "file"))
                }
                (None, _) => String::new(),
            };
            let (label, artifact) = (style::green(&said.label), said.artifact.short());
            output.line(&format!("verified  {label}  {artifact}  {}", count(said.files, "file")));
            output.line(&format!("    signed by {}", by.named()));
            output.line(&format!(
                "    made {} by effai {} on {}{of}",
                local_time(&said.finished),
                said.effai,
                said.backend
            ));
            0
        }
        Err(failure) => {
            output.error(&failure.message, failure.help.as_deref());
            failure.class.exit_code()
        }
    }
}

/// The keys to believe.
fn keys(here: &Path, named: &[PathBuf], git: Option<&Git>) -> Result<Vec<PublicKey>, Failure> {
    let of_git = || git.and_then(Git::allowed_signers);
    let files: Vec<PathBuf> = match named.is_empty() {
        true => of_git().into_iter().collect(),
        false => named.iter().map(|path| here.join(path)).collect(),
    };
    if files.is_empty() {
        let failure = Failure::user("nobody is believed yet");
        return Err(failure.help(
            "say whose signature counts: --key FILE, or `git config gpg.ssh.allowedSignersFile FILE`, which git uses too",
        ));
    }
    let mut all = Vec::new();
    for file in files {
        all.extend(keys::believed(&file)?);
    }
    Ok(all)
}

fn lines_of(path: &Path, shown: &Path) -> Result<Vec<Placed>, Failure> {
    let text = fs::read_text(path)?;
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    Ok(numbered.map(|(at, line)| (format!("{}:{}", shown.display(), at + 1), line.to_owned())).collect())
}

/// One signed line: what it claims to be about, and whether that is believed.
struct Line<'a> {
    claimed: Option<(String, Digest)>,
    believed: Result<Believed<'a>, Failure>,
}

fn look<'a>((place, text): &'a Placed, believed: &'a [PublicKey]) -> Line<'a> {
    let refused = |why: &str| Failure::target(format!("{place}: {why}"));
    let odd = |why: String| Line { claimed: None, believed: Err(refused(&why)) };
    let envelope: Envelope = match serde_json::from_str(text) {
        Ok(envelope) => envelope,
        Err(e) => return odd(format!("damaged or changed by hand: {}", json_error(&e))),
    };
    let claimed = envelope.payload().ok().and_then(|payload| Statement::from_bytes(&payload).ok());
    let claimed = claimed.map(|statement| statement.said()).map(|said| (said.label, said.artifact));
    let verified = match envelope.verify(believed) {
        Ok((payload, by)) => Statement::from_bytes(&payload).map(|statement| (statement, by)).map_err(|e| refused(&e)),
        Err(error) => {
            let failure = refused(&error.to_string());
            Err(match error {
                Refused::Stranger(_) => failure.help("--key FILE has the keys to believe"),
                Refused::Broken(_) | Refused::Odd(_) => {
                    failure.help("take it from where it was signed: `effai notes fetch`; or have it signed again")
                }
            })
        }
    };
    let believed =
        verified.map(|(statement, by)| Believed { said: statement.said(), statement, by, place: place.as_str() });
    Line { claimed, believed }
}

type Verified<'a> = Result<(Said, &'a PublicKey, &'a str), Failure>;

/// What lies in a directory, wherever it came from.
fn of_dir<'a>(dir: &Path, shown: &Path, lines: &'a [Placed], believed: &'a [PublicKey]) -> Verified<'a> {
    let mut first = None;
    for line in lines {
        match look(line, believed).believed.and_then(|believed| as_signed(&believed, dir, shown)) {
            Ok(verified) => return Ok(verified),
            Err(failure) => drop(first.get_or_insert(failure)),
        }
    }
    Err(first.unwrap_or_else(|| Failure::target("the file has no signed statement")))
}

/// Holds the bytes in a directory against what a believed key signed.
fn as_signed<'a>(believed: &Believed<'a>, dir: &Path, shown: &Path) -> Verified<'a> {
    let wrong = believed.statement.holds_of(dir)?;
    if wrong.is_empty() {
        return Ok((believed.said.clone(), believed.by, believed.place));
    }
    let wrong: Vec<String> = wrong.iter().map(|what| format!("\n  {}/{what}", shown.display())).collect();
    Err(Failure::target(format!("{} is not what was signed:{}", believed.said.label, wrong.concat())))
}

/// A target of the project: what its lock names, else what was made last.
fn of_target<'a>(
    engine: &mut Engine,
    index: Index,
    lock: &Lock,
    lines: &'a [Placed],
    believed: &'a [PublicKey],
) -> Verified<'a> {
    let name = engine.label(index);
    let (label, of_rev) = match at_revision(name.as_str()) {
        Some((label, rev)) => (Label::new(label), format!(" of {rev}")),
        None => (name, String::new()),
    };
    let claim = match engine.at_revision(index) {
        Some(claim) => Some(claim?),
        None => lock.claims.get(label.as_str()).cloned(),
    };
    let state = engine.record.target(&label).map_err(|e| e.failure())?;
    let Some(artifact) = claim.as_ref().map(|claim| claim.artifact).or(state.map(|state| state.artifact)) else {
        let failure = Failure::target(format!("{label} is neither in {FILE} nor built here"));
        return Err(failure.help(format!("`effai build {label}` builds it")));
    };
    let mut others = Vec::new();
    let mut refused = None;
    for line in lines {
        let looked = look(line, believed);
        match looked.claimed {
            Some((of, made)) if of == label.as_str() && made == artifact => match looked.believed {
                Ok(believed) => return settle(engine, index, &believed, claim.as_ref(), &artifact),
                Err(failure) => drop(refused.get_or_insert(failure)),
            },
            Some((of, made)) if of == label.as_str() => match looked.believed {
                Ok(believed) => others.push((made, believed.place)),
                // Somebody changed which artifact it is of, perhaps.
                Err(failure) => drop(refused.get_or_insert(failure)),
            },
            Some(_) => {}
            None => drop(refused.get_or_insert_with(|| looked.believed.err().expect("what claims nothing is refused"))),
        }
    }
    if let Some(refused) = refused {
        return Err(refused.within(&label));
    }
    let short = artifact.short();
    let whose = if claim.is_some() {
        format!("the artifact that {FILE}{of_rev} names, {short},")
    } else {
        format!("its artifact, {short},")
    };
    let text = match others.first() {
        Some((made, place)) => {
            format!("{label}: {whose} is not the one that was signed, {} ({place})", made.short())
        }
        None => format!("{label}: nobody has signed {whose} as far as is known here"),
    };
    Err(Failure::target(text)
        .help(format!("`effai notes fetch` brings what others signed; `effai sign {label}` signs what was made here")))
}

/// Holds a believed statement against the lock and the bytes.
fn settle<'a>(
    engine: &Engine,
    index: Index,
    believed: &Believed<'a>,
    claim: Option<&Claim>,
    artifact: &Digest,
) -> Verified<'a> {
    let name = engine.label(index);
    let label = believed.said.label.as_str();
    if let Some(claim) = claim.filter(|claim| claim.key != believed.said.key) {
        let text = format!(
            "{label}: {FILE} has the key {}, and what was signed is of the key {} ({}): its line was changed",
            claim.key.short(),
            believed.said.key.short(),
            believed.place
        );
        return Err(Failure::target(text).help("take the file as it was committed: `git checkout HEAD -- effai.lock`"));
    }
    let out = engine.output_dir(&name);
    if out.is_dir() {
        let again = match at_revision(name.as_str()) {
            Some(_) => format!("`rm -r out/{name}` and `effai build {name}` put the artifact there again"),
            None => format!("`rm -r out/{name}` and `effai restore --only {name}` put the artifact there again"),
        };
        return as_signed(believed, &out, &Path::new("out").join(name.as_str())).map_err(|failure| failure.help(again));
    }
    as_signed(believed, engine.aside(artifact)?.path(), Path::new("in the store"))
}
