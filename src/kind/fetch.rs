//! `fetch`: one archive from a package manager, a URL or a path, held to its digest.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ActionCx, How, Kind, Needs, Pool, Run};
use crate::action::program::Program;
use crate::failure::{Class, Failure};
use crate::format::dataset::LEFT_OUT;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::util::fs;
use crate::util::sha256::Sha256;

/// The kind.
#[derive(Debug)]
pub struct Fetch;

/// The properties every source has; `dataset` and `model` take the same.
pub const SOURCE_PROPS: &[Prop] = &[
    Prop::new("npm", Type::Text, "a package of the npm registry, name@version"),
    Prop::new("pip", Type::Text, "a package of the Python index, name@version"),
    Prop::new("apt", Type::Text, "a package of the Debian archive, name@version"),
    Prop::new("url", Type::Text, "an address"),
    Prop::new("path", Type::File, "an archive of this project"),
    Prop::new("sha256", Type::Sha256, "the digest the file must have; without one, what came is taken"),
    Prop::new("license", Type::Text, "its licence, for the card"),
    Prop::new("optional", Type::Bool, "where it cannot be had, go on without it and say so")
        .default(Default::Bool(false)),
    Prop::new("tool", Type::Tool, "the program an optional source needs; whether it is there is a fact"),
];

static SCHEMA: Schema =
    Schema::new("fetch", "One file from a package manager or an address, held to its digest.").props(SOURCE_PROPS);

/// Where something comes from.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Source {
    /// npm package.
    pub npm: Option<String>,
    /// Python package.
    pub pip: Option<String>,
    /// Debian package.
    pub apt: Option<String>,
    /// Address.
    pub url: Option<String>,
    /// File of the project.
    pub path: Option<String>,
    /// The digest it must have.
    pub sha256: Option<String>,
    /// Its licence.
    pub license: Option<String>,
    /// Whether to go on without it.
    pub optional: bool,
    /// The program it needs, where it is optional.
    pub tool: Option<String>,
}

impl Source {
    /// Where from, in words: `npm emoji-datasource-google@16.0.0`.
    pub fn origin(&self) -> String {
        let named =
            [("npm", &self.npm), ("pip", &self.pip), ("apt", &self.apt), ("url", &self.url), ("path", &self.path)];
        named.iter().find_map(|(n, v)| v.as_ref().map(|v| format!("{n} {v}"))).unwrap_or_default()
    }

    /// Whether just one origin is given; otherwise what is wrong.
    pub fn complaint(&self) -> Option<&'static str> {
        let given = [&self.npm, &self.pip, &self.apt, &self.url, &self.path].iter().filter(|v| v.is_some()).count();
        match given {
            0 => Some("says nothing of where it comes from"),
            1 => None,
            _ => Some("comes from more than one place"),
        }
    }
}

/// Reports a source that comes from nowhere or from several places.
pub fn check_source(source: &Source, path: &str, problems: &mut Problems<'_>) {
    if let Some(complaint) = source.complaint() {
        problems.at(
            path,
            format!("the source {complaint}"),
            "this source",
            "give it one of npm, pip, apt, url or path",
        );
    }
    for spec in [&source.npm, &source.pip, &source.apt].into_iter().flatten() {
        if split_spec(spec).is_none() {
            problems.at(path, format!("`{spec}` has no version"), "this source", "write it as name@version");
        }
    }
}

/// `name@version`; a scope's own `@` is part of the name.
fn split_spec(spec: &str) -> Option<(&str, &str)> {
    let at = spec.rfind('@').filter(|at| *at > 0)?;
    Some((&spec[..at], &spec[at + 1..])).filter(|(_, version)| !version.is_empty())
}

/// The one file of a fetched artifact; none if it was left out, with the reason.
pub fn fetched(dir: &Path) -> Result<Result<PathBuf, String>, Failure> {
    if let Ok(text) = fs::read_text(&dir.join(LEFT_OUT)) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        return Ok(Err(value["reason"].as_str().unwrap_or("not said").to_owned()));
    }
    let first = fs::at("list", dir, std::fs::read_dir(dir))?.filter_map(Result::ok).map(|e| e.path()).next();
    first.map(Ok).ok_or_else(|| Failure::target("the fetched artifact is empty"))
}

impl Kind for Fetch {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        check_source(&decl.read::<Source>(), "", problems);
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Network, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Fetch {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let source: Source = cx.decl.read();
        match fetch(cx, &source) {
            Ok(()) => Ok(()),
            // A file with another digest is not a missing one: that is never a reason to go on.
            Err(failure) if source.optional && failure.class == Class::Environment => {
                let reason = failure.message.lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
                cx.left_out(format!("{}: {reason}", source.origin()));
                let text = serde_json::json!({"reason": format!("{}: {reason}", source.origin())}).to_string();
                for entry in fs::at("list", cx.out(), std::fs::read_dir(cx.out()))?.filter_map(Result::ok) {
                    fs::remove_file(&entry.path())?;
                }
                Ok(fs::write(&cx.out().join(LEFT_OUT), text.as_bytes())?)
            }
            Err(failure) => Err(failure),
        }
    }
}

fn fetch(cx: &mut ActionCx<'_>, source: &Source) -> Result<(), Failure> {
    cx.progress(&source.origin(), 0, None, "bytes");
    let dir = cx.scratch().join("download");
    fs::create_dir_all(&dir)?;
    let spec = |s: &Option<String>| s.as_deref().and_then(split_spec).map(|(n, v)| (n.to_owned(), v.to_owned()));
    if let Some((name, version)) = spec(&source.npm) {
        let program = Program::new("npm").args(["pack", "--silent", &format!("{name}@{version}")]).dir(&dir);
        offline(program.install("install Node.js, which brings npm: https://nodejs.org").run(), &source.origin())?;
    } else if let Some((name, version)) = spec(&source.pip) {
        // Wheels only: to learn the name and version of a source package, pip runs its `setup.py`.
        let only = "--only-binary=:all:";
        let args =
            ["-m", "pip", "download", "--quiet", "--no-deps", only, "--disable-pip-version-check", "--dest", "."];
        let program = Program::new("python3").args(args).args([format!("{name}=={version}")]).dir(&dir);
        offline(program.install("install Python 3 with pip: https://www.python.org").run(), &source.origin())?;
    } else if let Some((name, version)) = spec(&source.apt) {
        let program = Program::new("apt-get").args(["download", &format!("{name}={version}")]).dir(&dir);
        offline(program.install("apt-get belongs to Debian and its kin").run(), &source.origin())?;
    } else if let Some(url) = &source.url {
        download(cx, url, &dir)?;
    } else if let Some(path) = &source.path {
        let from = cx.project_file(path);
        fs::copy(&from, &dir.join(from.file_name().unwrap_or_default()))?;
    }
    let file = fs::at("list", &dir, std::fs::read_dir(&dir))?.filter_map(Result::ok).map(|e| e.path()).next();
    let file = file.ok_or_else(|| Failure::target(format!("{} gave no file", source.origin())))?;
    verify(&file, source)?;
    let name = file.file_name().unwrap_or_default();
    Ok(fs::rename(&file, &cx.out().join(name))?)
}

/// A package client's failure, with the next step.
fn offline<T>(result: Result<T, Failure>, origin: &str) -> Result<T, Failure> {
    result.map_err(|failure| match failure.help {
        Some(_) => failure,
        None => Failure::environment(format!("{origin} could not be fetched: {}", failure.message))
            .help("check the network and the version; what was fetched once is kept and needs neither"),
    })
}

fn download(cx: &mut ActionCx<'_>, url: &str, dir: &Path) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| {
        Failure::environment(format!("{url} could not be fetched: {e}")).help("check the network and the address")
    };
    let mut response = ureq::get(url).call().map_err(|e| failed(&e))?;
    let total = response.body().content_length();
    let name = url.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("file");
    let path = dir.join(name);
    let mut file = fs::create(&path)?;
    let mut reader = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        let n = reader.read(&mut buffer).map_err(|e| failed(&e))?;
        if n == 0 {
            return Ok(());
        }
        fs::at("write", &path, file.write_all(&buffer[..n]))?;
        done += n as u64;
        cx.progress(name, done, total, "bytes");
    }
}

fn verify(file: &Path, source: &Source) -> Result<(), Failure> {
    let Some(expected) = &source.sha256 else { return Ok(()) };
    let found = fs::at("read", file, Sha256::of_file(file))?.to_string();
    if found == *expected {
        return Ok(());
    }
    Err(Failure::target(format!(
        "{} is not the file the recipe means\n  sha256 in the recipe  {expected}\n  sha256 of the file    {found}\n  the file is set aside in {}",
        source.origin(),
        file.display()
    ))
    .help("if the new file is the right one, write its digest into the recipe"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Choice;
    use crate::event::ActionEvent;
    use crate::plan::Label;

    const OF_HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn run(root: &Path, sha256: &str, optional: bool) -> (Result<(), Failure>, Vec<ActionEvent>) {
        for dir in ["out", "scratch"] {
            fs::create_dir_all(&root.join(dir)).expect("a directory");
        }
        let fields = serde_json::json!({"path": "a.tgz", "sha256": sha256, "optional": optional});
        let decl = Decl {
            kind: "fetch".into(),
            label: Label::new("f"),
            base: String::new(),
            tags: Vec::new(),
            fields,
            spans: std::collections::BTreeMap::new(),
        };
        let mut events = Vec::new();
        let mut take = |event| events.push(event);
        let mut cx = ActionCx {
            decl: &decl,
            threads: 1,
            project: root.to_owned(),
            inputs: std::collections::BTreeMap::new(),
            out: root.join("out"),
            scratch: root.join("scratch"),
            is_held: false,
            backend: Choice::of(None, crate::backend::Backend::Candle),
            events: &mut take,
        };
        let result = Fetch.run(&mut cx);
        (result, events)
    }

    #[test]
    fn a_file_with_another_digest_is_never_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(&dir.path().join("a.tgz"), b"hello").expect("writes");
        let declared = "0".repeat(64);
        for optional in [false, true] {
            let (result, events) = run(dir.path(), &declared, optional);
            let failure = result.expect_err("another file");
            assert_eq!(failure.class, Class::Target);
            assert!(failure.message.contains(&declared) && failure.message.contains(OF_HELLO), "{failure}");
            let aside = dir.path().join("scratch/download/a.tgz");
            assert!(failure.message.contains(aside.to_str().expect("text")) && aside.is_file(), "{failure}");
            assert!(!events.iter().any(|e| matches!(e, ActionEvent::LeftOut { .. })));
        }
        assert!(run(dir.path(), OF_HELLO, true).0.is_ok());
        assert_eq!(fs::read(&dir.path().join("out/a.tgz")).expect("there"), b"hello");
    }

    #[test]
    fn a_missing_program_is_a_reason_to_leave_out() {
        let missing = Program::new("effai-has-no-such-program").install("get it").run().expect_err("missing");
        assert_eq!((missing.class, missing.help.as_deref()), (Class::Environment, Some("get it")));
        assert_eq!(
            offline::<()>(Err(Failure::target("`npm` failed")), "npm a@1").expect_err("fails").class,
            Class::Environment
        );
    }

    #[test]
    fn a_package_has_a_name_and_a_version() {
        assert_eq!(split_spec("@a/b@1.0.0"), Some(("@a/b", "1.0.0")));
        assert_eq!(split_spec("a@1:2-3"), Some(("a", "1:2-3")));
        assert_eq!((split_spec("@a/b"), split_spec("a"), split_spec("a@")), (None, None, None));
    }
}
