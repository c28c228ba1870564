//! One project under edit: checked again after each change, by parsing what changed and nothing else.
//!
//! The check is the one every command makes ([`load::examine`] and [`Plan`]), once for the recipes as they stand
//! and once for each profile, so a mistake inside of a profile shows as well.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::documents::{Documents, Recipe};
use super::index::Index;
use crate::plan::Plan;
use crate::recipe::glob::{self, GlobError, Listing};
use crate::recipe::load::{self, Examined, PROJECT_FILE};
use crate::recipe::mistake::Mistake;
use crate::recipe::node::{Node, Span};
use crate::recipe::parse;
use crate::recipe::source::Sources;
use crate::recipe::texts::{Text, Texts, place as move_spans};
use crate::util::fs::FsError;

/// How long a list of files is believed where nothing says that it changed.
const FILES_KNOWN: Duration = Duration::from_secs(2);

/// A project and what is remembered of it between two checks.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) root: PathBuf,
    /// Its recipes by path from the root, as of the last check.
    pub(super) recipes: BTreeMap<PathBuf, Rc<Recipe>>,
    /// Which projects of the tree each is read for, by their directories.
    bases: BTreeMap<PathBuf, Vec<String>>,
    pieces: Pieces,
    globs: HashMap<(PathBuf, String), (Instant, Listing)>,
}

/// A place in a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From the root.
    pub(super) path: PathBuf,
    pub(super) bytes: std::ops::Range<usize>,
}

/// A mistake as an editor shows it.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) code: &'static str,
    /// What is wrong, without the words under the mark and the help.
    summary: String,
    pub(super) message: String,
    /// At least one place, each with its words; the first is the mistake's own.
    pub(super) marks: Vec<(Place, String)>,
}

impl Project {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            recipes: BTreeMap::new(),
            bases: BTreeMap::new(),
            pieces: Pieces::default(),
            globs: HashMap::new(),
        }
    }

    /// Files may have come or gone.
    pub(super) fn forget_files(&mut self) {
        self.globs.clear();
    }

    /// Reads and checks all recipes; returns every mistake, once.
    pub(super) fn check(&mut self, documents: &mut Documents) -> Vec<Finding> {
        let mut findings = Vec::new();
        let profiles = self.pass(documents, None, &mut findings);
        for profile in &profiles {
            self.pass(documents, Some(profile), &mut findings);
        }
        self.pieces.drop_unused();
        findings
    }

    /// One check; returns the profiles there are.
    fn pass(&mut self, documents: &mut Documents, profile: Option<&str>, findings: &mut Vec<Finding>) -> Vec<String> {
        let root = self.root.clone();
        let mut overlay = Overlay { project: self, documents, read: BTreeMap::new(), unreadable: Vec::new() };
        let examined = load::examine(&root, profile, &mut overlay);
        let (read, unreadable) = (overlay.read, overlay.unreadable);
        let Ok(Examined { recipes, mut mistakes }) = examined else { return Vec::new() };
        // A line that names recipes and does not parse now should not make them unknown.
        let unfinished = mistakes.iter().any(|m| matches!(m.code, "recipe::syntax" | "recipe::bare_label"));
        let before = std::mem::replace(&mut self.recipes, read);
        if !unfinished {
            self.bases.clear();
        }
        for (path, base) in recipes.files {
            let bases = self.bases.entry(path).or_default();
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        if unfinished {
            before.into_iter().for_each(|(path, recipe)| {
                self.recipes.entry(path).or_insert(recipe);
            });
        }
        let sound: BTreeSet<&str> = recipes.decls.iter().map(|d| d.label.as_str()).collect();
        let others: BTreeSet<String> =
            self.index().labels().filter(|l| !sound.contains(l)).map(str::to_owned).collect();
        if let Err(more) = Plan::beside(recipes.decls, &others, &recipes.sources) {
            mistakes.extend(more.mistakes);
        }
        let under = profile.map(|p| format!(" (with the profile \"{p}\")")).unwrap_or_default();
        for found in mistakes.iter().map(|m| finding(m, &recipes.sources)).chain(unreadable) {
            // Each target of a matrix, and each profile, brings the same again.
            let same =
                |f: &Finding| f.code == found.code && f.marks[0].0 == found.marks[0].0 && f.summary == found.summary;
            if !findings.iter().any(same) {
                findings.push(Finding { message: format!("{}{under}", found.message), ..found });
            }
        }
        recipes.profiles
    }

    /// Every target and reference of the recipes.
    pub(super) fn index(&self) -> Index {
        Index::of(self.recipes.iter().flat_map(|(path, recipe)| {
            self.bases(path).iter().map(move |base| (path.as_path(), base.as_str(), &**recipe))
        }))
    }

    /// The directories of the projects a recipe is read for; the outermost's for one that nothing includes.
    pub(super) fn bases(&self, path: &Path) -> &[String] {
        const OUTERMOST: &[String] = &[String::new()];
        self.bases.get(path).map_or(OUTERMOST, Vec::as_slice)
    }
}

fn finding(mistake: &Mistake, sources: &Sources) -> Finding {
    let place = |span: Span| Place {
        path: sources.files().get(span.file as usize).map_or_else(|| PROJECT_FILE.into(), |f| f.path.clone()),
        bytes: span.start as usize..(span.start + span.len) as usize,
    };
    let mut marks: Vec<(Place, String)> =
        mistake.marks().map(|(span, words)| (place(span), words.to_owned())).collect();
    if marks.is_empty() {
        marks.push((place(Span::default()), String::new()));
    }
    let words = if marks[0].1.is_empty() { String::new() } else { format!(": {}", marks[0].1) };
    let help = mistake.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
    let message = format!("{}{words}{help}", mistake.message);
    Finding { code: mistake.code, summary: mistake.message.clone(), message, marks }
}

/// Pieces of texts and what the parser said of them.
#[derive(Debug, Default)]
struct Pieces {
    known: HashMap<String, Rc<Parsed>>,
    used: HashMap<String, Rc<Parsed>>,
}

/// Its places are counted from the piece's beginning.
type Parsed = Result<Vec<Node>, Vec<Mistake>>;

impl Pieces {
    fn parse(&mut self, piece: &str, file: u32, sources: &Sources) -> Rc<Parsed> {
        if let Some(parsed) = self.used.get(piece) {
            return parsed.clone();
        }
        let parsed = match self.known.remove(piece) {
            Some(parsed) => parsed,
            None => Rc::new(parse::parse(piece, file, sources)),
        };
        self.used.insert(piece.to_owned(), parsed.clone());
        parsed
    }

    fn drop_unused(&mut self) {
        self.known = std::mem::take(&mut self.used);
    }
}

/// The editor's texts over those on the disk.
struct Overlay<'a> {
    project: &'a mut Project,
    documents: &'a mut Documents,
    read: BTreeMap<PathBuf, Rc<Recipe>>,
    unreadable: Vec<Finding>,
}

impl Texts for Overlay<'_> {
    fn text(&mut self, path: &Path) -> Result<Text, FsError> {
        let recipe = match self.documents.recipe(&self.project.root.join(path)) {
            Ok(recipe) => recipe,
            Err(error) => {
                // One that cannot be read should not hide the mistakes of the others.
                let place = Place { path: path.to_owned(), bytes: 0..0 };
                self.unreadable.push(Finding {
                    code: "recipe::unreadable",
                    summary: error.to_string(),
                    message: error.to_string(),
                    marks: vec![(place, String::new())],
                });
                Rc::new(Recipe::new(String::new()))
            }
        };
        let text = recipe.text.clone();
        self.read.insert(path.to_owned(), recipe);
        Ok(Text { text, broken: None })
    }

    fn nodes(&mut self, text: &str, file: u32, sources: &Sources) -> (Vec<Node>, Vec<Mistake>) {
        let recipe = self.read[&sources.files()[file as usize].path].clone();
        let span = |start: usize, len: u32| Span { file, start: start as u32, len };
        let mut nodes = Vec::new();
        let mut mistakes: Vec<Mistake> = (recipe.outline.strays.iter())
            .map(|at| {
                let message = "something is not expected here";
                Mistake::new("recipe::syntax", message).mark(sources, span(*at, 1), "there is nothing it could end")
            })
            .collect();
        for piece in recipe.outline.pieces() {
            if let Some(at) = recipe.outline.too_deep.filter(|at| piece.contains(at)) {
                let mistake = Mistake::new("recipe::syntax", "braces lie too deep in one another");
                mistakes.push(mistake.mark(sources, span(at, 1), "here"));
                continue;
            }
            let start = piece.start as u32;
            match &*self.project.pieces.parse(&text[piece], file, sources) {
                Ok(parsed) => nodes.extend(parsed.iter().cloned().map(|mut node| {
                    move_spans(&mut node, file, start);
                    node
                })),
                Err(parsed) => mistakes.extend(parsed.iter().cloned().map(|m| m.moved(file, start))),
            }
        }
        (nodes, mistakes)
    }

    fn files(&mut self, base: &Path, glob: &str) -> Result<Listing, GlobError> {
        let key = (base.to_owned(), glob.to_owned());
        if let Some((when, files)) = self.project.globs.get(&key)
            && when.elapsed() < FILES_KNOWN
        {
            return Ok(files.clone());
        }
        let files = glob::list_below(&self.project.root, base, glob)?;
        self.project.globs.insert(key, (Instant::now(), files.clone()));
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every node by name and place.
    fn flat(nodes: &[Node], all: &mut Vec<(String, Span, usize)>) {
        for node in nodes {
            all.push((node.name.clone(), node.name_span, node.entries.len()));
            flat(&node.children, all);
        }
    }

    #[test]
    fn pieces_say_what_the_whole_says() {
        let texts = [
            include_str!("../../recipes/clip.kdl"),
            include_str!("../../effai.kdl"),
            "/- kdl-version 2\na 1; b { c \"}\"; } // d {\n/* } */ e #\"\"{\"# f=2 \\\n  3\n/-\nx { y; }\n\"q r\" \"\"\"\n  {\n  \"\"\"\n",
            "a { b; } /* c\n */\n(t)d (u8)1 k=(v)\"w\" /- 2 /-{ z; } { y; }; e\r\nf 1.5e3 #inf -2\u{2028}g\n",
        ];
        for text in texts {
            let mut sources = Sources::default();
            let file = sources.add("effai.kdl".into(), text.into());
            let recipe = Recipe::new(text.into());
            let (mut whole, mut pieces) = (Vec::new(), Vec::new());
            flat(&parse::parse(text, file, &sources).expect("parses"), &mut whole);
            for piece in recipe.outline.pieces() {
                let mut nodes = parse::parse(&text[piece.clone()], file, &sources).expect("a piece parses");
                nodes.iter_mut().for_each(|node| move_spans(node, file, piece.start as u32));
                flat(&nodes, &mut pieces);
            }
            assert_eq!(whole, pieces, "{text}");
            assert!(recipe.outline.strays.is_empty());
        }
    }
}
