//! A target's manifest: what of its declaration, its inputs and its machine decides its bytes.

use std::path::{Path, PathBuf};

use super::{Digest, Fact, Manifest};
use crate::failure::Failure;
use crate::plan::{Index, Plan, Role, resolve, seen_from};
use crate::recipe::decl::Decl;
use crate::recipe::glob;
use crate::recipe::schema::{Type, file_in, lock_of};
use crate::recipe::walk::walk;
use crate::util::text::escape;

/// What the manifest must know from outside; the engine answers, so that this module stays pure.
pub trait Outside {
    /// What a project file is, by its path from the root: [`Fact::File`], [`Fact::Executable`], [`Fact::Link`] or
    /// [`Fact::Missing`].
    fn file(&mut self, path: &Path) -> Result<Fact, Failure>;
    /// The project's files a glob stands for, and what each is.
    fn files(&mut self, glob: &str) -> Result<Vec<(PathBuf, Fact)>, Failure>;
    /// A digest of the value of a variable; none where it is not set.
    fn variable(&mut self, name: &str) -> Option<Digest>;
    /// Whether a program is on this machine.
    fn has_tool(&mut self, name: &str) -> bool;
    /// The Python interpreter of this machine that is meant, if there is one: what it is, and where. By a version and
    /// the path of the lock that says what is allowed.
    fn python(&mut self, version: &str, lock: &str) -> Option<String>;
    /// The artifact of a target as the lock of a git revision has it: `LABEL@REV`.
    fn at_revision(&mut self, name: &str) -> Result<Digest, Failure>;
    /// Who this machine is, for kinds that measure it.
    fn machine(&mut self) -> String;
}

/// States all facts of a target whose dependencies have artifacts.
///
/// In it: the kind and its version, every field after defaults, the artifact of each target it stands on,
/// the content of each file it reads, the presence of optional programs, and the machine where the kind
/// measures. Not in it: times, host or user names, the number of threads, effai's release; and absolute paths, but for that
/// of a Python interpreter, which an environment holds.
pub fn manifest(
    plan: &Plan,
    index: Index,
    decl: &Decl,
    artifact: &dyn Fn(Index) -> Digest,
    outside: &mut dyn Outside,
) -> Result<Manifest, Failure> {
    let mut manifest = Manifest::default();
    let kind = plan.kind(index);
    let name = |fact: &str| format!("{}.{fact}", decl.kind);
    manifest.state("kind", Fact::Text(decl.kind.clone()));
    manifest.state("kind.version", Fact::Int(kind.version().into()));
    let mut failure = None;
    walk(kind.schema(), &decl.fields, &mut |visit| {
        let text = || visit.value.as_str().unwrap_or_default().to_owned();
        match visit.ty {
            Type::Label | Type::NamedLabel | Type::Of(_) => {
                let index =
                    plan.find(&resolve(&decl.base, &text())).expect("a planned target's references are planned");
                manifest.state(name(&visit.fact), Fact::Artifact(artifact(index)));
                if visit.ty == Type::NamedLabel {
                    manifest.state(name(&format!("{}.label", visit.fact)), Fact::Text(text()));
                }
            }
            Type::File | Type::Glob => {
                manifest.state(name(&visit.fact), Fact::Text(text()));
                if let Err(e) = state_files(&mut manifest, &text(), visit.ty, outside) {
                    failure.get_or_insert(e);
                }
            }
            Type::Variable => {
                manifest.state(name(&visit.fact), Fact::Text(text()));
                let fact = format!("variable.{}", text());
                if !manifest.has(&fact) {
                    manifest.state(fact, outside.variable(&text()).map_or(Fact::Missing, Fact::Variable));
                }
            }
            Type::Tool => {
                let there = if outside.has_tool(&text()) { "there" } else { "absent" };
                manifest.state(name(&visit.fact), Fact::Text(format!("{} {there}", text())));
            }
            Type::Holding(files) => {
                manifest.state(name(&visit.fact), Fact::Text(text()));
                for (file, help) in files {
                    if let Err(e) = state_files(&mut manifest, &file_in(&text(), file), Type::File, outside) {
                        failure.get_or_insert(e.help(*help));
                    }
                }
            }
            Type::Python(project) => {
                manifest.state(name(&visit.fact), Fact::Text(text()));
                let found = outside.python(&text(), &lock_of(&decl.fields, project));
                manifest.state(name("interpreter"), found.map_or(Fact::Missing, Fact::Text));
            }
            Type::AtRevision => match outside.at_revision(&text()) {
                Ok(artifact) => manifest.state(name(&visit.fact), Fact::Artifact(artifact)),
                Err(e) => drop(failure.get_or_insert(e)),
            },
            _ => manifest.state(name(&visit.fact), scalar(visit.value)),
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    for dependency in plan.dependencies(index) {
        let label = plan.name(dependency.index);
        match dependency.role {
            Role::Named => {}
            Role::Part => {
                let part = label.strip_prefix(decl.label.as_str()).unwrap_or(label).trim_start_matches(':');
                manifest.state(name(&format!("part.{part}")), Fact::Artifact(artifact(dependency.index)));
            }
            Role::Alongside => {
                let label = seen_from(&decl.base, label);
                manifest.state(format!("alongside.{label}"), Fact::Artifact(artifact(dependency.index)));
            }
        }
    }
    if plan.needs(index).measures {
        manifest.state("machine", Fact::Text(outside.machine()));
    }
    Ok(manifest)
}

fn state_files(manifest: &mut Manifest, text: &str, ty: Type, outside: &mut dyn Outside) -> Result<(), Failure> {
    let files = match ty {
        Type::Glob => outside.files(text)?,
        _ => vec![(PathBuf::from(text), outside.file(Path::new(text))?)],
    };
    if files.is_empty() && !glob::is_glob(text) {
        return Err(Failure::user(format!("there is no file `{text}`")).help("check the path in the recipe"));
    }
    for (path, fact) in files {
        let name = format!("file.{}", escape(&path));
        if manifest.has(&name) {
            continue;
        }
        if fact == Fact::Missing && ty == Type::File {
            return Err(
                Failure::user(format!("there is no file `{}`", path.display())).help("check the path in the recipe")
            );
        }
        manifest.state(name, fact);
    }
    Ok(())
}

fn scalar(value: &serde_json::Value) -> Fact {
    match value {
        serde_json::Value::Bool(b) => Fact::Bool(*b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(n) => Fact::Int(n),
            None => Fact::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Fact::Text(text.clone()),
        other => Fact::Text(other.to_string()),
    }
}
