//! What lies in `out/`, for those who ask whether a build would have anything to do. A look at a hundred thousand outputs
//! takes longer than they would wait; so a target's directories are watched once it was asked for, and it is looked at
//! again after an event there. What an event would not tell of is looked at each time.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::Event;

use super::eyes::Eyes;
use crate::engine::Engine;
use crate::plan::Index;

/// Names that are kept; past that everything is looked at again.
const TOUCHED_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Outputs {
    /// `out/`, as events tell it.
    dir: PathBuf,
    /// Names in there that had events since anybody asked.
    touched: BTreeSet<PathBuf>,
    /// By target: watched before it was looked at, and no event since.
    lying: Vec<bool>,
    /// Of these, those with files that have a second name, by which they can be written to.
    shared: HashSet<Index>,
    /// There are more directories than the system will watch.
    is_refused: bool,
}

impl Outputs {
    pub(super) fn new(root: &Path) -> Self {
        Self { dir: root.join("out"), ..Self::default() }
    }

    pub(super) fn heed(&mut self, event: &Event) {
        let ours = event.paths.iter().filter(|path| path.starts_with(&self.dir));
        self.touched.extend(ours.cloned());
        if self.touched.len() > TOUCHED_MAX {
            self.touched = BTreeSet::from([self.dir.clone()]);
        }
    }

    /// Events were lost: nobody knows which directory is still the one that was watched.
    pub(super) fn forget(&mut self) {
        self.touched = BTreeSet::from([self.dir.clone()]);
    }

    /// The targets are numbered anew, or have new artifacts that no event told of.
    pub(super) fn doubt(&mut self) {
        self.lying.clear();
        self.shared.clear();
        self.is_refused = false;
    }

    /// Whether the known artifacts of these targets lie in `out/`.
    pub(super) fn lie(&mut self, engine: &Engine, eyes: &mut Eyes, chosen: &[Index]) -> bool {
        self.lying.resize(engine.plan().len(), false);
        for path in std::mem::take(&mut self.touched) {
            let below = path.strip_prefix(&self.dir).expect("only those are kept");
            match engine.whose(below) {
                Some(index) => {
                    self.lying[index] = false;
                    eyes.forget(&self.place(engine, index));
                }
                None => {
                    self.lying.fill(false);
                    eyes.forget(&path);
                }
            }
        }
        let open: Vec<Index> = chosen.iter().copied().filter(|i| !self.lying[*i]).collect();
        if !open.is_empty() {
            // A link leads to where nobody looks out.
            let mut dirs = BTreeSet::new();
            open.iter().for_each(|i| self.dirs(engine, *i, &mut dirs));
            let are_plain = dirs.iter().all(|dir| dir.symlink_metadata().is_ok_and(|m| m.is_dir()));
            if !are_plain || self.is_refused {
                return false;
            }
            if eyes.watch(&dirs).is_err() {
                // What the targets read is to be watched with what there is.
                eyes.forget(&self.dir);
                self.lying.fill(false);
                self.is_refused = true;
                return false;
            }
            for index in engine.lying(&open) {
                self.lying[index] = true;
                let place = self.place(engine, index);
                let is_shared = |path: &Path| place.join(path).symlink_metadata().is_ok_and(|m| m.nlink() > 1);
                match engine.placed(index).any(is_shared) {
                    true => self.shared.insert(index),
                    false => self.shared.remove(&index),
                };
            }
        }
        let shared: Vec<Index> = chosen.iter().copied().filter(|i| self.shared.contains(i)).collect();
        let lies = |i: &Index| self.lying[*i] && engine.is_delivered(*i);
        chosen.iter().all(lies) && engine.lying(&shared).len() == shared.len()
    }

    fn place(&self, engine: &Engine, index: Index) -> PathBuf {
        self.dir.join(engine.plan().name(index))
    }

    /// The directories that a target's output lies in, from `out/` on.
    fn dirs(&self, engine: &Engine, index: Index, dirs: &mut BTreeSet<PathBuf>) {
        let place = self.place(engine, index);
        let parents = engine.placed(index).filter_map(|path| Some(place.join(path.parent()?)));
        for dir in parents.chain([place.clone()]) {
            for dir in dir.ancestors().take_while(|dir| dir.starts_with(&self.dir)) {
                if !dirs.insert(dir.to_owned()) {
                    break;
                }
            }
        }
    }
}
