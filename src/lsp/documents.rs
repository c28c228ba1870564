//! Texts: those an editor holds open, and those on the disk. An open one hides the file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::SystemTime;

use lsp_types::{TextDocumentContentChangeEvent, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::grammar;
use super::position::{Encoding, Lines};
use crate::recipe::outline::Outline;
use crate::util::fs::{self, FsError};

/// One text, read as far as it can be.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) text: String,
    pub(super) lines: Lines,
    pub(super) outline: Outline,
}

impl Recipe {
    pub(super) fn new(text: String) -> Self {
        Self { lines: Lines::of(&text), outline: Outline::read(&text, &grammar::tops()), text }
    }

    /// The text with an editor's changes made to it, one after the other.
    fn changed(&self, changes: Vec<TextDocumentContentChangeEvent>, encoding: Encoding) -> Self {
        let mut text = self.text.clone();
        for change in changes {
            let Some(range) = change.range else {
                text = change.text;
                continue;
            };
            let lines = Lines::of(&text);
            let start = lines.offset(&text, range.start, encoding);
            let end = lines.offset(&text, range.end, encoding).max(start);
            text.replace_range(start..end, &change.text);
        }
        Self::new(text)
    }
}

/// A text the editor holds open.
#[derive(Debug)]
pub(super) struct Document {
    /// Its address as the editor spells it.
    pub(super) uri: Uri,
    pub(super) version: i32,
    pub(super) recipe: Rc<Recipe>,
}

/// Every text that was looked at.
#[derive(Debug, Default)]
pub(super) struct Documents {
    open: BTreeMap<PathBuf, Document>,
    saved: HashMap<PathBuf, (Stamp, Rc<Recipe>)>,
}

/// By which a file is taken to be as it was.
type Stamp = (Option<SystemTime>, u64);

impl Documents {
    pub(super) fn open(&mut self, path: PathBuf, uri: Uri, version: i32, text: String) {
        self.open.insert(path, Document { uri, version, recipe: Rc::new(Recipe::new(text)) });
    }

    pub(super) fn change(
        &mut self,
        path: &Path,
        version: i32,
        changes: Vec<TextDocumentContentChangeEvent>,
        encoding: Encoding,
    ) {
        if let Some(document) = self.open.get_mut(path) {
            document.version = version;
            document.recipe = Rc::new(document.recipe.changed(changes, encoding));
        }
    }

    pub(super) fn close(&mut self, path: &Path) {
        self.open.remove(path);
    }

    /// The document an editor holds open under this path.
    pub(super) fn document(&self, path: &Path) -> Option<&Document> {
        self.open.get(path)
    }

    /// The paths of all open documents.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.open.keys().map(PathBuf::as_path)
    }

    /// A text as the editor has it, else as it is saved.
    pub(super) fn recipe(&mut self, path: &Path) -> Result<Rc<Recipe>, FsError> {
        if let Some(document) = self.open.get(path) {
            return Ok(document.recipe.clone());
        }
        let metadata = fs::at("read", path, path.metadata())?;
        let stamp = (metadata.modified().ok(), metadata.len());
        if let Some((old, recipe)) = self.saved.get(path)
            && *old == stamp
        {
            return Ok(recipe.clone());
        }
        let recipe = Rc::new(Recipe::new(fs::read_text(path)?));
        self.saved.insert(path.to_owned(), (stamp, recipe.clone()));
        Ok(recipe)
    }

    /// The address of a file, as the editor spells it if it is open.
    pub(super) fn uri(&self, path: &Path) -> Option<Uri> {
        match self.open.get(path) {
            Some(document) => Some(document.uri.clone()),
            None => uri_of(path),
        }
    }
}

/// What stands unchanged in an address: unreserved characters and slashes.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn uri_of(path: &Path) -> Option<Uri> {
    Uri::from_str(&format!("file://{}", utf8_percent_encode(path.to_str()?, KEPT))).ok()
}

/// The file an address means; none for what is no file, such as a text that was never saved.
pub(super) fn path_of(uri: &Uri) -> Option<PathBuf> {
    let rest = uri.as_str().strip_prefix("file://")?;
    let path = &rest[rest.find('/')?..];
    let path = percent_decode_str(path).decode_utf8().ok()?;
    Some(PathBuf::from(path.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths() {
        let path = Path::new("/home/é b/effai.kdl");
        let uri = uri_of(path).expect("an address");
        assert_eq!(uri.as_str(), "file:///home/%C3%A9%20b/effai.kdl");
        assert_eq!(path_of(&uri).as_deref(), Some(path));
        let other = Uri::from_str("untitled:Untitled-1").expect("an address");
        assert_eq!(path_of(&other), None);
    }
}
