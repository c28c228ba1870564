//! What of the file system matters: the files, globs and directories that the plan's questions stand for, and recipes.
//!
//! ```text
//! a file's name     questions that read it
//! a directory       globs that were looked for in it: a name that appears or goes may be theirs
//! a way             a directory or link on the way to any of them: with another one there everything is in doubt
//! ```
//!
//! All paths here are absolute and without links in their directories, as events tell them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::EventKind;
use notify::event::{Event, ModifyKind};

use super::news::News;
use crate::engine::{Doubt, Engine};
use crate::plan::{Question, file_below};
use crate::recipe::glob;
use crate::recipe::load::Read;

#[derive(Default)]
pub(super) struct Interests {
    root: PathBuf,
    files: HashMap<PathBuf, Vec<u32>>,
    listed: HashMap<PathBuf, Vec<(u32, String)>>,
    ways: HashSet<PathBuf>,
    recipes: HashSet<PathBuf>,
    recipe_dirs: HashSet<PathBuf>,
    /// Directories to be watched.
    dirs: BTreeSet<PathBuf>,
    /// Where directories of the project lie, links followed.
    places: HashMap<PathBuf, PathBuf>,
    /// Directories of the project that lie behind a link.
    linked: HashSet<PathBuf>,
    /// Questions that stand for something that can change without an event: behind a link whose own way is not watched,
    /// by another name, in what is our own.
    hidden: BTreeSet<u32>,
    /// Our own: what happens in there is never news.
    own: Vec<PathBuf>,
}

impl Interests {
    /// What recipes alone are read from; all there is while they have mistakes.
    pub(super) fn recipes(root: &Path, read: &Read) -> Self {
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let mut interests =
            Self { own: vec![root.join(".effai"), root.join("out"), root.join(".git")], ..Self::default() };
        interests.dirs.insert(root.clone());
        interests.recipes.insert(root.join(crate::recipe::load::PROJECT_FILE));
        interests.root = root;
        for path in read.recipes() {
            let names = interests.names(path);
            interests.recipes.extend(names);
        }
        for dir in read.walked() {
            let place = interests.place(dir);
            interests.dirs.insert(place.clone());
            interests.recipe_dirs.insert(place);
        }
        interests
    }

    /// What an engine's plan is read from, as far as these questions ask.
    pub(super) fn of(engine: &Engine, questions: &BTreeSet<u32>) -> Self {
        let mut interests = Self::recipes(&engine.root, engine.read());
        interests.own.push(engine.store.root().to_owned());
        questions.iter().for_each(|q| interests.add(engine, *q));
        interests
    }

    /// What a question stands for now.
    pub(super) fn add(&mut self, engine: &Engine, question: u32) {
        let glob = match engine.plan().question(question as usize) {
            Question::Glob(base, glob) => file_below(base, glob.trim_start_matches("./")),
            Question::File(path) => path.to_owned(),
            Question::Tool(_)
            | Question::Variable(_)
            | Question::Machine
            | Question::Python(..)
            | Question::AtRevision(_) => return,
        };
        let glob = glob.trim_end_matches('/');
        if self.hides(engine, question) {
            self.hidden.insert(question);
        }
        let (files, walked) = engine.stands_for(question);
        let (files, walked): (Vec<&Path>, Vec<&Path>) = (files.collect(), walked.collect());
        for file in &files {
            for name in self.names(file) {
                self.reads(name, question);
            }
        }
        let Some(first) = walked.first().filter(|first| !files.contains(*first)) else {
            // Not looked for yet, or one file and no directory.
            let names = self.names(Path::new(glob));
            names.into_iter().for_each(|name| self.reads(name, question));
            return;
        };
        for name in self.names(first) {
            self.reads(name, question);
        }
        // Links are not walked into, so what lies below the first directory lies below its place.
        let place = self.place(first);
        for dir in &walked {
            let dir = match dir.strip_prefix(first) {
                Ok(below) if below.as_os_str().is_empty() => place.clone(),
                Ok(below) => place.join(below),
                Err(_) => continue,
            };
            if self.own.iter().any(|own| dir.starts_with(own)) {
                self.hidden.insert(question);
                continue;
            }
            self.dirs.insert(dir.clone());
            let looked_for = self.listed.entry(dir).or_default();
            if looked_for.iter().all(|(q, _)| *q != question) {
                looked_for.push((question, glob.to_owned()));
            }
        }
    }

    fn reads(&mut self, name: PathBuf, question: u32) {
        let readers = self.files.entry(name).or_default();
        if !readers.contains(&question) {
            readers.push(question);
        }
    }

    /// Whether what a question stands for can change without an event.
    fn hides(&mut self, engine: &Engine, question: u32) -> bool {
        let (files, walked) = engine.stands_for(question);
        let names: Vec<&Path> = files.chain(walked).collect();
        names.into_iter().any(|name| {
            self.place(name.parent().unwrap_or(Path::new("")));
            let is_shared = |m: std::fs::Metadata| m.is_symlink() || m.is_file() && m.nlink() > 1;
            name.parent().is_some_and(|dir| self.linked.contains(dir))
                || self.root.join(name).symlink_metadata().is_ok_and(is_shared)
        })
    }

    /// Questions that stand for something that can change without an event.
    pub(super) fn hidden(&self) -> &BTreeSet<u32> {
        &self.hidden
    }

    pub(super) fn dirs(&self) -> &BTreeSet<PathBuf> {
        &self.dirs
    }

    /// Files that are read, without directories.
    pub(super) fn files(&self) -> usize {
        self.files.keys().filter(|name| !self.listed.contains_key(*name)).count()
    }

    /// What an event is to the plan.
    pub(super) fn heed(&self, event: &Event, news: &mut News) {
        let named = match event.kind {
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => true,
            EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => false,
            EventKind::Modify(_) | EventKind::Any | EventKind::Other => true,
        };
        event.paths.iter().for_each(|path| self.heed_name(path, named, news));
    }

    fn heed_name(&self, path: &Path, named: bool, news: &mut News) {
        if self.recipes.contains(path) {
            news.recipes = true;
            news.name(path.strip_prefix(&self.root).unwrap_or(path), &[]);
        }
        if let Some(readers) = self.files.get(path) {
            news.doubt.add(readers.iter().copied());
            news.name(path.strip_prefix(&self.root).unwrap_or(path), readers);
        }
        if !named {
            return;
        }
        if self.ways.contains(path) {
            news.doubt = Doubt::Everything;
            news.moved.insert(path.to_owned());
            return;
        }
        let Some(parent) = path.parent() else { return };
        if self.recipe_dirs.contains(parent) && path.extension().is_some_and(|e| e == "kdl")
            || self.recipe_dirs.contains(path)
        {
            news.recipes = true;
            news.name(path.strip_prefix(&self.root).unwrap_or(path), &[]);
        }
        if self.own.iter().any(|own| path.starts_with(own)) {
            return;
        }
        let Some(looked_for) = self.listed.get(parent) else { return };
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let is_dir = self.listed.contains_key(path) || path.is_dir();
        if is_dir {
            news.moved.insert(path.to_owned());
        }
        // A name that no glob means is of no interest, but a directory may hold some, and a tag makes it a cache.
        let any = is_dir || path.file_name().is_some_and(|name| name == "CACHEDIR.TAG");
        let theirs = |glob: &str| {
            any || !glob::is_glob(glob)
                || glob::compile(glob).is_ok_and(|m| m.is_match(relative))
                // Below a link the glob's path is not the event's.
                || !relative.starts_with(fixed(glob))
        };
        let readers: Vec<u32> = looked_for.iter().filter(|(_, glob)| theirs(glob)).map(|(q, _)| *q).collect();
        if !readers.is_empty() {
            news.doubt.add(readers.iter().copied());
            news.name(relative, &readers);
        }
    }

    /// The names that decide what a path of the project is: its own, and, of a link, where that leads.
    fn names(&mut self, path: &Path) -> Vec<PathBuf> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return vec![self.root.clone()] };
        let dir = self.place(parent);
        let full = dir.join(name);
        self.dirs.insert(dir.clone());
        let Ok(target) = full.read_link() else { return vec![full] };
        let target = full.canonicalize().unwrap_or_else(|_| dir.join(target));
        self.dirs.extend(target.parent().map(Path::to_owned));
        vec![full, target]
    }

    /// Where a directory of the project lies. Every name on the way there is one to look out for.
    fn place(&mut self, dir: &Path) -> PathBuf {
        if dir.as_os_str().is_empty() {
            return self.root.clone();
        }
        if let Some(place) = self.places.get(dir) {
            return place.clone();
        }
        let above = self.place(dir.parent().unwrap_or(Path::new("")));
        let full = above.join(dir.file_name().unwrap_or_default());
        self.dirs.insert(above);
        self.ways.insert(full.clone());
        let is_link = full.is_symlink();
        if is_link || dir.parent().is_some_and(|above| self.linked.contains(above)) {
            self.linked.insert(dir.to_owned());
        }
        let place = match is_link {
            true => full.canonicalize().unwrap_or(full),
            false => full,
        };
        self.places.insert(dir.to_owned(), place.clone());
        place
    }
}

/// A glob's path up to its first part with glob characters.
fn fixed(glob: &str) -> PathBuf {
    Path::new(glob).components().take_while(|c| !glob::is_glob(&c.as_os_str().to_string_lossy())).collect()
}

/// Names of changed files, each with the questions that read it.
pub(super) type Names = BTreeMap<PathBuf, BTreeSet<u32>>;
