//! A project's recipes, read and checked: `effai.kdl`, what it includes, every declaration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::check;
use super::decl::{Decl, Problems};
use super::expand;
use super::glob::{self, Listing};
use super::grammar::LOCK_WHEN;
use super::grammar::SETTINGS;
use super::mistake::{Mistake, Mistakes, nearest};
use super::node::{Node, Scalar, Span};
use super::on_change::{self, OnChange};
use super::policy::Policy;
use super::remote::{self, Remote};
use super::roots::plain;
use super::source::Sources;
use super::terms::{self, Terms};
use super::texts::{Disk, Texts};
use crate::fingerprint::evidence::Stat;
use crate::kind;
use crate::plan::{Label, resolve};
use crate::util::fs::FsError;

/// The file that makes a directory a project.
pub const PROJECT_FILE: &str = "effai.kdl";

/// More projects in one tree than anybody has, and fewer than the plan can number.
const PROJECTS_MAX: usize = 10_000;

/// Everything the recipes of one project say.
#[derive(Debug)]
pub struct Recipes {
    /// The directory of `effai.kdl`.
    pub root: PathBuf,
    /// Settings of the project itself.
    pub settings: Settings,
    /// Every declared target, in the order of the text.
    pub decls: Vec<Decl>,
    /// The texts, for messages.
    pub sources: Sources,
    /// Every recipe that was read, by its path from the root, and the directory of the project it was read for.
    pub files: Vec<(PathBuf, String)>,
    /// Every profile any declaration knows.
    pub profiles: Vec<String>,
    /// What was read.
    pub read: Read,
}

/// What a load read, and how it looked: while it looks so still, another load gives the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// Recipes, by their path from the root, and when each was read, ns since the epoch.
    files: Vec<(PathBuf, Stat, i64)>,
    /// Globs over recipes.
    listings: Vec<Listing>,
}

impl Read {
    /// Whether a load now would read the same.
    pub fn holds(&self, root: &Path) -> bool {
        let same = |(path, then, at_ns): &(PathBuf, Stat, i64)| {
            Stat::at(&root.join(path)).is_some_and(|now| now.proves(then, *at_ns))
        };
        self.files.iter().all(same) && self.listings.iter().all(|l| l.holds(root))
    }

    /// The directories that were walked to find recipes, from the root.
    pub fn walked(&self) -> impl Iterator<Item = &Path> {
        self.listings.iter().flat_map(|l| &l.walked).map(glob::Walked::path)
    }

    /// The recipes that were read.
    pub fn recipes(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|(path, ..)| path.as_path())
    }
}

/// What `effai.kdl` says besides targets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The project's name.
    pub name: String,
    /// Where the store is, if not at its usual place.
    pub cache_dir: Option<String>,
    /// How large the store may grow, as written.
    pub cache_size: Option<String>,
    /// Every build writes the lock.
    pub always_lock: bool,
    /// What builds may do with which store, where nobody says.
    pub cache_policy: Option<Policy>,
    /// Where artifacts lie besides.
    pub remotes: Vec<Remote>,
    /// What `effai build` makes when nothing is named, by the directory of the project one stands in.
    pub default: BTreeMap<String, Vec<String>>,
    /// What `effai watch` does besides building.
    pub on_change: Vec<OnChange>,
}

/// Recipes that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No project here or above.
    #[error("no `{PROJECT_FILE}` in {} or any directory above it", .0.display())]
    NoProject(PathBuf),
    /// A recipe could not be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The recipes have mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// No declaration knows the profile.
    #[error("no target has a profile `{found}`")]
    UnknownProfile {
        /// What was asked for.
        found: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// Reads and checks all recipes of the project at `root`. All mistakes are reported together.
pub fn load(root: &Path, profile: Option<&str>) -> Result<Recipes, LoadError> {
    let Examined { recipes, mistakes } = examine(root, profile, &mut Disk::new(root))?;
    if !mistakes.is_empty() {
        return Err(Mistakes { mistakes }.into());
    }
    match profile {
        Some(found) if !recipes.profiles.iter().any(|p| p == found) => {
            Err(LoadError::UnknownProfile { found: found.to_owned(), known: recipes.profiles })
        }
        _ => Ok(recipes),
    }
}

/// What a load would read, also where the recipes have mistakes.
pub fn reads(root: &Path) -> Read {
    examine(root, None, &mut Disk::new(root)).map(|examined| examined.recipes.read).unwrap_or_default()
}

/// What recipes say, as far as they can be understood, and every mistake in them.
#[derive(Debug)]
pub struct Examined {
    /// Without the declarations that have mistakes.
    pub recipes: Recipes,
    /// In the order of the text.
    pub mistakes: Vec<Mistake>,
}

/// The recipes of the project at `root`, by their paths from there, whatever mistakes are in them.
pub fn recipes_of(root: &Path) -> Result<Vec<PathBuf>, FsError> {
    let examined = examine(root, None, &mut Disk::new(root))?;
    let mut paths: Vec<PathBuf> = examined.recipes.files.into_iter().map(|(path, _)| path).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Reads and checks all recipes that `texts` gives, and does not stop at mistakes. A profile nobody knows changes
/// nothing.
pub fn examine(root: &Path, profile: Option<&str>, texts: &mut dyn Texts) -> Result<Examined, FsError> {
    let mut loader = Loader {
        root,
        profile,
        texts,
        sources: Sources::default(),
        mistakes: Vec::new(),
        settings: Settings::default(),
        targets: Vec::new(),
        files: Vec::new(),
        projects: BTreeSet::new(),
        on_change: Vec::new(),
        profiles: Vec::new(),
        read: Read::default(),
    };
    let mut queue = vec![Recipe { base: String::new(), path: PROJECT_FILE.into() }];
    let mut seen = BTreeSet::new();
    while let Some(recipe) = queue.pop() {
        if !seen.insert(recipe.clone()) {
            continue;
        }
        let mut included = loader.file(&recipe)?;
        included.reverse();
        queue.extend(included);
    }
    Ok(loader.finish())
}

/// A recipe to be read for a project. One that two projects include declares targets in each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Recipe {
    /// The project's directory below the outermost one.
    base: String,
    /// From the outermost root.
    path: PathBuf,
}

struct Loader<'a> {
    root: &'a Path,
    profile: Option<&'a str>,
    sources: Sources,
    mistakes: Vec<Mistake>,
    settings: Settings,
    /// With the directories of their projects.
    targets: Vec<(String, Node)>,
    files: Vec<(PathBuf, String)>,
    /// Directories of the projects below.
    projects: BTreeSet<String>,
    on_change: Vec<on_change::Placed>,
    profiles: Vec<String>,
    read: Read,
    texts: &'a mut dyn Texts,
}

impl Loader<'_> {
    /// Reads one recipe; returns the recipes it includes.
    fn file(&mut self, recipe: &Recipe) -> Result<Vec<Recipe>, FsError> {
        let Recipe { base, path } = recipe;
        let at_ns = jiff::Timestamp::now().as_nanosecond() as i64;
        let stat = Stat::at(&self.root.join(path)).unwrap_or_default();
        let text = self.texts.text(path)?;
        self.read.files.push((path.clone(), stat, at_ns));
        self.files.push((path.clone(), base.clone()));
        let file = self.sources.add(path.clone(), text.text.clone());
        if let Some(mistake) = text.complaint(file, &self.sources) {
            self.mistakes.push(mistake);
            return Ok(Vec::new());
        }
        let (nodes, mistakes) = self.texts.nodes(&text.text, file, &self.sources);
        self.mistakes.extend(mistakes);
        let is_project_file = *path == Path::new(base).join(PROJECT_FILE);
        let mut included = Vec::new();
        for node in nodes {
            match node.name.as_str() {
                "project" => {
                    let name = self.setting(&node).unwrap_or_default();
                    if base.is_empty() {
                        self.settings.name = name;
                    }
                }
                "recipes" => self.include(base, Path::new(base), &node, &mut included),
                "include" => self.include(base, path.parent().unwrap_or(Path::new("")), &node, &mut included),
                "projects" if is_project_file => self.members(base, &node, &mut included),
                "projects" => self.misplaced(&node, "`projects` stands in a project's effai.kdl alone"),
                "cache" if base.is_empty() => self.cache(&node),
                "cache" => self
                    .misplaced(&node, "the store is one for the whole tree: `cache` stands in the outermost effai.kdl"),
                "lock" if base.is_empty() => self.lock(&node),
                "lock" => self
                    .misplaced(&node, "the lock is one for the whole tree: `lock` stands in the outermost effai.kdl"),
                remote::NAME if base.is_empty() && is_project_file => {
                    let others = &self.settings.remotes;
                    let remote = Remote::read(&node, others, &self.sources, &mut self.mistakes);
                    self.settings.remotes.extend(remote);
                }
                remote::NAME => self.misplaced(&node, "`remote` stands in the outermost effai.kdl"),
                "default" => {
                    let words: Vec<String> = self.words(&node).into_iter().map(|(text, _)| text).collect();
                    self.settings.default.entry(base.clone()).or_default().extend(words);
                }
                on_change::NAME if base.is_empty() => {
                    self.on_change.extend(on_change::Placed::read(&node, &self.sources, &mut self.mistakes));
                }
                on_change::NAME => {
                    self.misplaced(&node, "`on-change` stands in recipes of the outermost project alone")
                }
                _ => self.targets.push((base.clone(), node)),
            }
        }
        let paths: Vec<PathBuf> = included.iter().map(|r: &Recipe| r.path.clone()).collect();
        self.texts.ahead(&paths);
        Ok(included)
    }

    /// The recipes a node names from a directory.
    fn include(&mut self, base: &str, from: &Path, node: &Node, included: &mut Vec<Recipe>) {
        for (pattern, span) in self.words(node) {
            let found = self.listed(from, &pattern, span);
            if found.is_empty() && !glob::is_glob(&pattern) {
                self.not_found(format!("there is no recipe `{pattern}`"), span);
            }
            included.extend(found.into_iter().map(|path| Recipe { base: base.to_owned(), path: plain(&path) }));
        }
    }

    /// The projects a node names from the directory of its own.
    fn members(&mut self, base: &str, node: &Node, included: &mut Vec<Recipe>) {
        for (pattern, span) in self.words(node) {
            let dir = pattern.trim_end_matches('/');
            let found = self.listed(Path::new(base), &format!("{dir}/{PROJECT_FILE}"), span);
            if found.is_empty() && !glob::is_glob(&pattern) {
                self.not_found(format!("there is no `{PROJECT_FILE}` in `{pattern}`"), span);
            }
            for path in found.iter().map(|path| plain(path)) {
                let dir = path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
                let outside = matches!(path.components().next(), Some(Component::ParentDir));
                if dir == base || outside {
                    let message = format!("`{pattern}` is not a directory below this project");
                    self.not_found(message, span);
                } else if let Some(complaint) = Label::complaint(&dir) {
                    let message = format!("`{dir}` cannot stand before the labels of its targets");
                    let mistake = Mistake::new("recipe::label", message).mark(&self.sources, span, complaint);
                    self.mistakes.push(mistake);
                } else if self.projects.len() >= PROJECTS_MAX {
                    let message = format!("there are more than {PROJECTS_MAX} projects");
                    return self.not_found(message, span);
                } else {
                    self.projects.insert(dir.clone());
                    included.push(Recipe { base: dir, path });
                }
            }
        }
    }

    /// The texts of a node's arguments; others are mistakes.
    fn words(&mut self, node: &Node) -> Vec<(String, Span)> {
        let mut words = Vec::new();
        for entry in node.args() {
            match &entry.value {
                Scalar::Text(text) => words.push((text.clone(), entry.span)),
                other => {
                    let message = format!("`{}` takes text, not {}", node.name, other.describe());
                    let mistake = Mistake::new("recipe::wrong_value", message).mark(&self.sources, entry.span, "here");
                    self.mistakes.push(mistake);
                }
            }
        }
        words
    }

    fn listed(&mut self, from: &Path, pattern: &str, span: Span) -> Vec<PathBuf> {
        match self.texts.files(from, pattern) {
            Ok(listing) => {
                self.read.listings.push(listing.clone());
                listing.files
            }
            Err(error) => {
                let mistake =
                    Mistake::new("recipe::include", error.to_string()).mark(&self.sources, span, "this pattern");
                self.mistakes.push(mistake);
                Vec::new()
            }
        }
    }

    fn not_found(&mut self, message: String, span: Span) {
        self.mistakes.push(Mistake::new("recipe::include", message).mark(&self.sources, span, "not found"));
    }

    fn misplaced(&mut self, node: &Node, message: &str) {
        self.mistakes.push(Mistake::new("recipe::misplaced", message).mark(&self.sources, node.name_span, "not here"));
    }

    fn setting(&mut self, node: &Node) -> Option<String> {
        if node.text().is_none() {
            let mistake = Mistake::new("recipe::missing_value", format!("`{}` needs text", node.name)).mark(
                &self.sources,
                node.name_span,
                "a value belongs here",
            );
            self.mistakes.push(mistake);
        }
        node.text().map(str::to_owned)
    }

    fn lock(&mut self, node: &Node) {
        let Some(when) = self.setting(node) else { return };
        if !LOCK_WHEN.contains(&when.as_str()) {
            let mistake = Mistake::new("recipe::value", format!("`{when}` is not when a lock is written"))
                .mark(&self.sources, node.name_span, "one of its words belongs here")
                .help(format!("there are: {}", LOCK_WHEN.join(", ")));
            self.mistakes.push(mistake);
        }
        self.settings.always_lock = when == "always";
    }

    fn cache(&mut self, node: &Node) {
        for (name, entry) in node.props() {
            let Scalar::Text(text) = &entry.value else { continue };
            match name {
                "size" if crate::util::text::parse_bytes(text).is_ok() => {
                    self.settings.cache_size = Some(text.clone());
                }
                "size" => {
                    let mistake = Mistake::new("recipe::size", format!("`{text}` is not a size"))
                        .mark(&self.sources, entry.span, "a number and a unit belong here")
                        .help("such as \"20 GiB\" or \"500 MB\"");
                    self.mistakes.push(mistake);
                }
                "dir" => self.settings.cache_dir = Some(text.clone()),
                "policy" => match text.parse::<Policy>() {
                    Ok(policy) => self.settings.cache_policy = Some(policy),
                    Err(complaint) => {
                        let mistake = Mistake::new("recipe::policy", format!("`{text}` is not a policy: {complaint}"))
                            .mark(&self.sources, entry.span, "here")
                            .help("such as \"local:rw,remote:r\"");
                        self.mistakes.push(mistake);
                    }
                },
                _ => {
                    let mistake = Mistake::new("recipe::unknown_field", format!("`cache` has no property `{name}`"))
                        .mark(&self.sources, entry.span, "no such property")
                        .help("there are: size, dir, policy");
                    self.mistakes.push(mistake);
                }
            }
        }
    }

    fn finish(mut self) -> Examined {
        let mut decls = Vec::new();
        let mut first_of: BTreeMap<Label, Span> = BTreeMap::new();
        for (base, mut node) in std::mem::take(&mut self.targets) {
            let Some(kind) = kind::find(&node.name) else {
                self.unknown_kind(&node);
                continue;
            };
            self.profiles.extend(expand::profiles(&node).map(str::to_owned));
            expand::lay_profile(&mut node, self.profile);
            for mut node in expand::multiply(node, &self.sources, &mut self.mistakes) {
                let before = self.mistakes.len();
                let tags = self.tags(&mut node);
                let terms = self.terms(&base, &mut node);
                if let Some(decl) = self.decl(kind, &base, (tags, terms), &node) {
                    let sound = self.mistakes.len() == before;
                    let span = decl.span("");
                    match first_of.get(&decl.label) {
                        Some(first) => {
                            let message = format!("there are two targets `{}`", decl.label);
                            let mistake = Mistake::new("recipe::duplicate_label", message)
                                .mark(&self.sources, span, "again here")
                                .mark(&self.sources, *first, "first here")
                                .help("give one of them another label");
                            self.mistakes.push(mistake);
                        }
                        None => drop(first_of.insert(decl.label.clone(), span)),
                    }
                    // One that contradicts itself is of no use to the plan, which asks kinds for its parts.
                    if sound {
                        decls.push(decl);
                    }
                }
            }
        }
        self.nested_labels(&first_of);
        self.check_on_change(&first_of);
        self.profiles.sort();
        self.profiles.dedup();
        let recipes = Recipes {
            root: self.root.to_owned(),
            settings: self.settings,
            decls,
            sources: self.sources,
            profiles: self.profiles,
            files: self.files,
            read: self.read,
        };
        Examined { recipes, mistakes: self.mistakes }
    }

    /// Labels in `on-change` are held against those there are; where others have mistakes, not all are known.
    fn check_on_change(&mut self, labels: &BTreeMap<Label, Span>) {
        let all = std::mem::take(&mut self.on_change);
        if self.mistakes.is_empty() {
            let known = labels.keys().map(Label::as_str).collect();
            for (i, one) in all.iter().enumerate() {
                one.check(&known, &all[..i], &self.sources, &mut self.mistakes);
            }
        }
        self.settings.on_change = all.into_iter().map(|one| one.on_change).collect();
    }

    /// A label that is a directory of another's: their outputs would lie in one another.
    fn nested_labels(&mut self, spans: &BTreeMap<Label, Span>) {
        for (inner, span) in spans {
            let above = inner.as_str().match_indices('/').map(|(at, _)| Label::new(&inner.as_str()[..at]));
            for outer in above.filter(|outer| spans.contains_key(outer)) {
                let message = format!("`{inner}` would lie inside the output of `{outer}`");
                let mistake = Mistake::new("recipe::nested_label", message)
                    .mark(&self.sources, *span, "inside")
                    .mark(&self.sources, spans[&outer], "of this one")
                    .help(format!("outputs are out/LABEL/: give one another label, such as \"{outer}-{}\"", {
                        &inner.as_str()[outer.as_str().len() + 1..]
                    }));
                self.mistakes.push(mistake);
            }
        }
    }

    /// Takes the tags from a declaration, so that kinds know nothing of them.
    fn tags(&mut self, node: &mut Node) -> Vec<String> {
        let mut tags = Vec::new();
        for node in node.children.extract_if(.., |c| c.name == "tags").collect::<Vec<_>>() {
            for (tag, span) in self.words(&node) {
                match Label::complaint(&tag).or_else(|| tag.contains('/').then(|| "a tag has no slash".into())) {
                    Some(complaint) => {
                        let mistake = Mistake::new("recipe::tag", format!("`{tag}` cannot be a tag"));
                        self.mistakes.push(mistake.mark(&self.sources, span, complaint.replace("label", "tag")));
                    }
                    None if tags.contains(&tag) => {}
                    None => tags.push(tag),
                }
            }
            let odd: Vec<(Span, &str)> = node
                .entries
                .iter()
                .filter(|e| e.name.is_some())
                .map(|e| (e.span, "no property"))
                .chain(node.children.iter().map(|c| (c.name_span, "no field")))
                .collect();
            for (span, what) in odd {
                let mistake = Mistake::new("recipe::unknown_field", format!("`tags` takes {what}"));
                self.mistakes.push(mistake.mark(&self.sources, span, "not here"));
            }
        }
        tags
    }

    /// Takes the terms on which it runs from a declaration, likewise.
    fn terms(&mut self, base: &str, node: &mut Node) -> check::Checked {
        let is_of_terms = |c: &mut Node| terms::SCHEMA.children.iter().any(|schema| schema.name == c.name);
        let children: Vec<Node> = node.children.extract_if(.., is_of_terms).collect();
        if children.is_empty() {
            return check::Checked::default();
        }
        let (name, name_span) = (node.name.clone(), node.name_span);
        let node = Node { name, name_span, entries: Vec::new(), children };
        let before = self.mistakes.len();
        let checked = check::check(&terms::SCHEMA, &node, base, &self.sources, &mut self.mistakes);
        let fields = checked.fields.as_object().expect("the schema has fields");
        if self.mistakes.len() == before && Terms::retries_nothing(fields) {
            let mistake = Mistake::new("recipe::retry", "`retry` does not say after which failures")
                .mark(&self.sources, checked.spans[terms::RETRY.name], "this")
                .help("retry 3 { on \"network\"; }, or `code` with exit codes, or `says` with words of its log");
            self.mistakes.push(mistake);
        }
        for (at, name) in Terms::guards_nothing(fields) {
            let mistake =
                Mistake::new("recipe::guard", format!("`guard \"{name}\"` does not say what must not be crossed"))
                    .mark(&self.sources, checked.spans[&format!("{}.{at}", terms::GUARD.name)], "this")
                    .help("give it min=, max=, or against the base branch drop= or rise=");
            self.mistakes.push(mistake);
        }
        checked
    }

    fn decl(
        &mut self,
        kind: &'static dyn kind::Kind,
        base: &str,
        (tags, terms): (Vec<String>, check::Checked),
        node: &Node,
    ) -> Option<Decl> {
        let label_entry = node.args().next();
        let Some((text, span)) = label_entry.and_then(|e| match &e.value {
            Scalar::Text(text) => Some((text, e.span)),
            _ => None,
        }) else {
            let mistake = Mistake::new("recipe::no_label", format!("`{}` needs a label", node.name))
                .mark(&self.sources, label_entry.map_or(node.name_span, |e| e.span), "a label in quotes belongs here")
                .help(format!("{} \"{}s/a-name\" {{ ... }}", node.name, node.name));
            self.mistakes.push(mistake);
            return None;
        };
        if let Some(complaint) = Label::complaint(text) {
            let mistake = Mistake::new("recipe::label", format!("`{text}` cannot be a label")).mark(
                &self.sources,
                span,
                complaint,
            );
            self.mistakes.push(mistake);
            return None;
        }
        let before = self.mistakes.len();
        let mut checked = check::check(kind.schema(), node, base, &self.sources, &mut self.mistakes);
        if self.mistakes.len() > before {
            return None;
        }
        Terms::put(&terms.fields, &mut checked.fields);
        checked.spans.extend(terms.spans.into_iter().filter(|(path, _)| !path.is_empty()));
        let decl = Decl {
            kind: kind.schema().name.to_owned(),
            label: Label::new(resolve(base, text)),
            base: base.to_owned(),
            tags,
            fields: checked.fields,
            spans: checked.spans,
        };
        kind.check(&decl, &mut Problems { decl: &decl, sources: &self.sources, mistakes: &mut self.mistakes });
        Some(decl)
    }

    fn unknown_kind(&mut self, node: &Node) {
        let known: Vec<&str> = kind::KINDS.iter().map(|k| k.schema().name).collect();
        let others = SETTINGS.iter().map(|s| s.name);
        let help = match nearest(&node.name, known.iter().copied().chain(others)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("kinds are: {}", known.join(", ")),
        };
        let mistake = Mistake::new("recipe::unknown_kind", format!("there is no kind `{}`", node.name))
            .mark(&self.sources, node.name_span, "not a kind")
            .help(help);
        self.mistakes.push(mistake);
    }
}
