//! Where recipes' texts come from, and how they are parsed: the disk here, an editor's unsaved texts in `lsp`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::glob::{self, Listing};
use super::mistake::Mistake;
use super::node::{Node, Span};
use super::outline::Outline;
use super::parse;
use super::source::Sources;
use crate::fingerprint::Digest;
use crate::util::fs::{self, FsError};

/// Raised when [`Node`] or the parser changes, so that older parses are not read.
const PARSE_FORMAT: u32 = 1;

/// From here on, bytes, a text is cut into declarations that are parsed on all threads.
const CUT_FROM: usize = 16 * 1024;

/// A recipe's text.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// What can be read of it.
    pub text: String,
    /// Where it is not UTF-8, if it is not.
    pub broken: Option<usize>,
}

impl Text {
    /// From a file's bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { text, broken: None },
            Err(error) => Self {
                broken: Some(error.utf8_error().valid_up_to()),
                text: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            },
        }
    }

    /// What is wrong with it before it is parsed. `file` is its number in `sources`.
    pub fn complaint(&self, file: u32, sources: &Sources) -> Option<Mistake> {
        let span = Span { file, start: self.broken? as u32, len: char::REPLACEMENT_CHARACTER.len_utf8() as u32 };
        let mistake = Mistake::new("recipe::utf8", "the recipe is not UTF-8");
        Some(mistake.mark(sources, span, "this is not").help("save it as UTF-8"))
    }
}

/// Texts, their parse, and what globs over them stand for.
pub trait Texts {
    /// These are asked for next.
    fn ahead(&mut self, _paths: &[PathBuf]) {}

    /// A recipe's text, by its path from the root.
    fn text(&mut self, path: &Path) -> Result<Text, FsError>;

    /// The nodes of a text, which has this number in `sources`, and what in it is not KDL.
    fn nodes(&mut self, text: &str, file: u32, sources: &Sources) -> (Vec<Node>, Vec<Mistake>);

    /// The files that a glob from a directory stands for, both relative to the root.
    fn files(&mut self, base: &Path, glob: &str) -> Result<Listing, glob::GlobError>;
}

/// Recipes as they are saved. Parses are kept from one start to the next.
pub struct Disk<'a> {
    root: &'a Path,
    ahead: HashMap<Digest, Vec<Node>>,
}

impl<'a> Disk<'a> {
    /// Those of the project at `root`.
    pub fn new(root: &'a Path) -> Self {
        Self { root, ahead: HashMap::new() }
    }

    /// An earlier parse of the same bytes.
    fn parsed(&self, digest: &Digest) -> Option<Vec<Node>> {
        let bytes = fs::read(&self.parsed_path(digest)).ok()?;
        let (seal, body) = bytes.split_first_chunk::<32>()?;
        if Digest::of(body).bytes() != seal {
            return None;
        }
        postcard::from_bytes(body).ok()
    }

    /// Keeping a parse is a favour to the next start; where it fails, that one parses again. Written is a digest of
    /// what follows, and what follows: a damaged one is parsed again too.
    fn keep_parsed(&self, digest: &Digest, nodes: &[Node]) {
        if let Ok(body) = postcard::to_stdvec(nodes) {
            let bytes = [Digest::of(&body).bytes().as_slice(), &body].concat();
            let _ = fs::write_atomic(&self.parsed_path(digest), &bytes);
        }
    }

    fn parsed_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(".effai/parsed").join(format!("{digest}.v{PARSE_FORMAT}"))
    }
}

impl Texts for Disk<'_> {
    /// Several at once are read and parsed on all threads; one with a mistake is left for [`Texts::nodes`] to tell.
    fn ahead(&mut self, paths: &[PathBuf]) {
        if paths.len() < 2 {
            return;
        }
        let parse = |path: &PathBuf| {
            let text = String::from_utf8(fs::read(&self.root.join(path)).ok()?).ok()?;
            let digest = Digest::of(text.as_bytes());
            if let Some(nodes) = self.parsed(&digest) {
                return Some((digest, nodes));
            }
            let nodes = parse_on_all_threads(&text, 0, &Sources::default()).ok()?;
            self.keep_parsed(&digest, &nodes);
            Some((digest, nodes))
        };
        let parsed: Vec<_> = paths.par_iter().filter_map(parse).collect();
        self.ahead.extend(parsed);
    }

    fn text(&mut self, path: &Path) -> Result<Text, FsError> {
        fs::read(&self.root.join(path)).map(Text::of)
    }

    fn nodes(&mut self, text: &str, file: u32, sources: &Sources) -> (Vec<Node>, Vec<Mistake>) {
        let digest = Digest::of(text.as_bytes());
        if let Some(mut nodes) = self.ahead.get(&digest).cloned().or_else(|| self.parsed(&digest)) {
            nodes.iter_mut().for_each(|node| place(node, file, 0));
            return (nodes, Vec::new());
        }
        match parse_on_all_threads(text, file, sources) {
            Ok(nodes) => {
                self.keep_parsed(&digest, &nodes);
                (nodes, Vec::new())
            }
            Err(mistakes) => (Vec::new(), mistakes),
        }
    }

    fn files(&mut self, base: &Path, glob: &str) -> Result<Listing, glob::GlobError> {
        glob::list_below(self.root, base, glob)
    }
}

fn parse_on_all_threads(text: &str, file: u32, sources: &Sources) -> Result<Vec<Node>, Vec<Mistake>> {
    match (text.len() >= CUT_FROM).then(|| parse_in_pieces(text, file)).flatten() {
        Some(nodes) => Ok(nodes),
        // Mistakes are those of the whole, in the order of the text.
        None => parse::parse(text, file, sources),
    }
}

/// A text declaration by declaration, on all threads: the parser is slow and has nothing to remember between two.
/// None if there is any mistake.
pub fn parse_in_pieces(text: &str, file: u32) -> Option<Vec<Node>> {
    let outline = Outline::read(text, &[]);
    if !outline.strays.is_empty() || outline.too_deep.is_some() {
        return None;
    }
    let parse = |piece: &std::ops::Range<usize>| {
        let mut nodes = parse::parse(&text[piece.clone()], 0, &Sources::default()).ok()?;
        nodes.iter_mut().for_each(|node| place(node, file, piece.start as u32));
        Some(nodes)
    };
    let parsed: Option<Vec<Vec<Node>>> = outline.pieces().par_iter().with_min_len(16).map(parse).collect();
    Some(parsed?.into_iter().flatten().collect())
}

/// Moves a node's places into a file, so many bytes later.
pub fn place(node: &mut Node, file: u32, bytes: u32) {
    let shift = |span: &mut Span| *span = Span { file, start: span.start + bytes, len: span.len };
    shift(&mut node.name_span);
    node.entries.iter_mut().for_each(|e| shift(&mut e.span));
    node.children.iter_mut().for_each(|child| place(child, file, bytes));
}
