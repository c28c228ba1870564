//! A project's recipes, read and checked: `effai.kdl`, what it includes, every declaration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::check;
use super::decl::{Decl, Problems};
use super::expand;
use super::glob::{self, Listing};
use super::mistake::{Mistake, Mistakes, nearest};
use super::node::{Node, Scalar, Span};
use super::on_change::{self, OnChange};
use super::parse;
use super::source::Sources;
use crate::fingerprint::Digest;
use crate::fingerprint::evidence::Stat;
use crate::kind;
use crate::plan::Label;
use crate::util::fs::{self, FsError};

/// The file that makes a directory a project.
pub const PROJECT_FILE: &str = "effai.kdl";

/// Raised when [`Node`] or the parser changes, so that older parses are not read.
const PARSE_FORMAT: u32 = 1;

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
    /// What `effai build` makes when nothing is named.
    pub default: Vec<String>,
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

/// The nearest directory with an `effai.kdl`, from `start` upwards.
pub fn find_root(start: &Path) -> Result<PathBuf, LoadError> {
    start
        .ancestors()
        .find(|dir| dir.join(PROJECT_FILE).is_file())
        .map(Path::to_owned)
        .ok_or_else(|| LoadError::NoProject(start.to_owned()))
}

/// Reads and checks all recipes of the project at `root`. All mistakes are reported together.
pub fn load(root: &Path, profile: Option<&str>) -> Result<Recipes, LoadError> {
    let mut disk = Disk { root, parsed_dir: root.join(".effai/parsed") };
    let Examined { recipes, mistakes } = examine(root, profile, &mut disk)?;
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
    let mut disk = Disk { root, parsed_dir: root.join(".effai/parsed") };
    examine(root, None, &mut disk).map(|examined| examined.recipes.read).unwrap_or_default()
}

/// What recipes say, as far as they can be understood, and every mistake in them.
#[derive(Debug)]
pub struct Examined {
    /// Without the declarations that have mistakes.
    pub recipes: Recipes,
    /// In the order of the text.
    pub mistakes: Vec<Mistake>,
}

/// Where recipes' texts come from, and how they are parsed: the disk, or an editor's unsaved text.
pub trait Texts {
    /// A recipe's text, by its path from the root.
    fn text(&mut self, path: &Path) -> Result<String, FsError>;

    /// The nodes of a text, which has this number in `sources`, and what in it is not KDL.
    fn nodes(&mut self, text: &str, file: u32, sources: &Sources) -> (Vec<Node>, Vec<Mistake>);

    /// The files a glob stands for, relative to the root.
    fn files(&mut self, glob: &str) -> Result<Listing, glob::GlobError>;
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
        on_change: Vec::new(),
        profiles: Vec::new(),
        read: Read::default(),
    };
    let mut queue = vec![PathBuf::from(PROJECT_FILE)];
    let mut seen = Vec::new();
    while let Some(path) = queue.pop() {
        if seen.contains(&path) {
            continue;
        }
        let mut included = loader.file(&path)?;
        seen.push(path);
        included.reverse();
        queue.extend(included);
    }
    Ok(loader.finish())
}

/// Recipes as they are saved. Parses are kept from one start to the next.
struct Disk<'a> {
    root: &'a Path,
    parsed_dir: PathBuf,
}

impl Texts for Disk<'_> {
    fn text(&mut self, path: &Path) -> Result<String, FsError> {
        fs::read_text(&self.root.join(path))
    }

    fn nodes(&mut self, text: &str, file: u32, sources: &Sources) -> (Vec<Node>, Vec<Mistake>) {
        let digest = Digest::of(text.as_bytes());
        if let Some(nodes) = self.parsed(&digest, file) {
            return (nodes, Vec::new());
        }
        match parse::parse(text, file, sources) {
            Ok(nodes) => {
                self.keep_parsed(&digest, &nodes);
                (nodes, Vec::new())
            }
            Err(mistakes) => (Vec::new(), mistakes),
        }
    }

    fn files(&mut self, glob: &str) -> Result<Listing, glob::GlobError> {
        glob::list(self.root, glob)
    }
}

impl Disk<'_> {
    /// An earlier parse of the same bytes.
    fn parsed(&self, digest: &Digest, file: u32) -> Option<Vec<Node>> {
        let bytes = fs::read(&self.parsed_path(digest)).ok()?;
        let mut nodes: Vec<Node> = postcard::from_bytes(&bytes).ok()?;
        nodes.iter_mut().for_each(|node| number_spans(node, file));
        Some(nodes)
    }

    /// Keeping a parse is a favour to the next start; where it fails, that one parses again.
    fn keep_parsed(&self, digest: &Digest, nodes: &[Node]) {
        if let Ok(bytes) = postcard::to_stdvec(nodes) {
            let _ = fs::write_atomic(&self.parsed_path(digest), &bytes);
        }
    }

    fn parsed_path(&self, digest: &Digest) -> PathBuf {
        self.parsed_dir.join(format!("{digest}.v{PARSE_FORMAT}"))
    }
}

struct Loader<'a> {
    root: &'a Path,
    profile: Option<&'a str>,
    sources: Sources,
    mistakes: Vec<Mistake>,
    settings: Settings,
    targets: Vec<Node>,
    on_change: Vec<on_change::Placed>,
    profiles: Vec<String>,
    read: Read,
    texts: &'a mut dyn Texts,
}

impl Loader<'_> {
    /// Reads one recipe; returns the recipes it includes.
    fn file(&mut self, path: &Path) -> Result<Vec<PathBuf>, FsError> {
        let at_ns = jiff::Timestamp::now().as_nanosecond() as i64;
        let stat = Stat::at(&self.root.join(path)).unwrap_or_default();
        let text = self.texts.text(path)?;
        self.read.files.push((path.to_owned(), stat, at_ns));
        let file = self.sources.add(path.to_owned(), text.clone());
        let (nodes, mistakes) = self.texts.nodes(&text, file, &self.sources);
        self.mistakes.extend(mistakes);
        let mut included = Vec::new();
        for node in nodes {
            match node.name.as_str() {
                "project" => self.settings.name = self.setting(&node).unwrap_or_default(),
                "recipes" => {
                    for entry in node.args() {
                        if let Scalar::Text(pattern) = &entry.value {
                            included.extend(self.included(pattern, entry.span));
                        }
                    }
                }
                "cache" => self.cache(&node),
                "default" => self.settings.default.extend(node.args().filter_map(|e| match &e.value {
                    Scalar::Text(text) => Some(text.clone()),
                    _ => None,
                })),
                on_change::NAME => {
                    self.on_change.extend(on_change::Placed::read(&node, &self.sources, &mut self.mistakes));
                }
                _ => self.targets.push(node),
            }
        }
        Ok(included)
    }

    fn included(&mut self, pattern: &str, span: Span) -> Vec<PathBuf> {
        let listed = self.texts.files(pattern).map(|listing| {
            self.read.listings.push(listing.clone());
            listing.files
        });
        match listed {
            Ok(found) if found.is_empty() && !glob::is_glob(pattern) => {
                let mistake = Mistake::new("recipe::include", format!("there is no recipe `{pattern}`")).mark(
                    &self.sources,
                    span,
                    "not found",
                );
                self.mistakes.push(mistake);
                found
            }
            Ok(found) => found,
            Err(error) => {
                let mistake =
                    Mistake::new("recipe::include", error.to_string()).mark(&self.sources, span, "this pattern");
                self.mistakes.push(mistake);
                Vec::new()
            }
        }
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
                _ => {
                    let mistake = Mistake::new("recipe::unknown_field", format!("`cache` has no property `{name}`"))
                        .mark(&self.sources, entry.span, "no such property")
                        .help("there are: size, dir");
                    self.mistakes.push(mistake);
                }
            }
        }
    }

    fn finish(mut self) -> Examined {
        let mut decls = Vec::new();
        let mut first_of: BTreeMap<Label, Span> = BTreeMap::new();
        for mut node in std::mem::take(&mut self.targets) {
            let Some(kind) = kind::find(&node.name) else {
                self.unknown_kind(&node);
                continue;
            };
            self.profiles.extend(expand::profiles(&node).map(str::to_owned));
            expand::lay_profile(&mut node, self.profile);
            for node in expand::multiply(node, &self.sources, &mut self.mistakes) {
                let before = self.mistakes.len();
                if let Some(decl) = self.decl(kind, &node) {
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

    fn decl(&mut self, kind: &'static dyn kind::Kind, node: &Node) -> Option<Decl> {
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
        let checked = check::check(kind.schema(), node, &self.sources, &mut self.mistakes);
        if self.mistakes.len() > before {
            return None;
        }
        let decl = Decl {
            kind: kind.schema().name.to_owned(),
            label: Label::new(text),
            fields: checked.fields,
            spans: checked.spans,
        };
        kind.check(&decl, &mut Problems { decl: &decl, sources: &self.sources, mistakes: &mut self.mistakes });
        Some(decl)
    }

    fn unknown_kind(&mut self, node: &Node) {
        let known: Vec<&str> = kind::KINDS.iter().map(|k| k.schema().name).collect();
        let others = ["project", "recipes", "cache", "default", on_change::NAME];
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

fn number_spans(node: &mut Node, file: u32) {
    node.name_span.file = file;
    node.entries.iter_mut().for_each(|e| e.span.file = file);
    node.children.iter_mut().for_each(|child| number_spans(child, file));
}
