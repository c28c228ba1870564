//! What a project keeps from one build to the next so that the next begins where it ended.
//!
//! ```text
//! .effai/plan/PROFILE.plan    the graph; holds while every recipe it was read from looks the same
//! .effai/plan/PROFILE.decls   the declarations of that graph, read when one must be judged
//! .effai/plan/PROFILE.state   answers to the graph's questions, keys and artifacts, what lies in out/
//! ```
//!
//! Nothing here decides alone: a plan is used only if its recipes look as they did, a key only if the evidence of
//! every file under it holds, an output only if it looks as it was placed. What is missing, cut or of another program
//! is made anew from recipes and records. The state is taken away before the record changes and written after, so a
//! killed build leaves none rather than an old one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::sealed;
use super::sight::Sight;
use crate::fingerprint::Digest;
use crate::fingerprint::evidence::Stat;
use crate::plan::{Index, Plan};
use crate::recipe::load::{Read, Settings};
use crate::store::Placed;
use crate::util::fs;

/// What proves a declaration: chance passes one damage in 2^64.
const CHECK_BYTES: usize = 8;

/// The graph and what it came from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptPlan {
    /// How the program looked that wrote this: another one may read recipes otherwise.
    program: Option<Stat>,
    pub(super) read: Read,
    pub(super) settings: Settings,
    pub(super) plan: Plan,
    decls: Digest,
}

/// What was known at the end of the last build.
#[derive(Debug)]
pub(super) struct KeptState {
    pub(super) sight: Sight,
    /// By target.
    pub(super) known: Vec<Option<Known>>,
    pub(super) outputs: Vec<Option<Output>>,
}

/// A target's key and artifact, and whether a source was left out of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) key: Digest,
    pub(super) artifact: Digest,
    pub(super) left_out: bool,
}

impl KeptPlan {
    /// Whether these are the declarations it was made from.
    pub(super) fn has_decls(&self, bytes: &[u8]) -> bool {
        Digest::of(bytes) == self.decls
    }
}

/// What lies in `out/` for a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Output {
    pub(super) artifact: Digest,
    pub(super) placed: Vec<Placed>,
}

/// Where one profile's files are.
#[derive(Debug)]
pub(super) struct Kept {
    root: PathBuf,
    name: String,
    /// The declarations' file, once one was asked for; none where it is of another plan.
    decls: OnceLock<Option<File>>,
}

impl Kept {
    pub(super) fn new(root: &Path, profile: Option<&str>) -> Self {
        let name = profile.map_or_else(|| "default".into(), file_name);
        Self { root: root.to_owned(), name, decls: OnceLock::new() }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.root.join(".effai/plan").join(format!("{}.{extension}", self.name))
    }

    /// The plan, if the recipes look as they did when it was made; and its digest.
    pub(super) fn plan(&self) -> Option<(KeptPlan, Digest)> {
        let (kept, digest) = read_plan(&self.path("plan"))?;
        (kept.program == program() && kept.read.holds(&self.root)).then_some((kept, digest))
    }

    /// Keeps a new plan; gives it back with its digest. A disk that cannot take it only costs the next start time.
    pub(super) fn put_plan(&self, plan: Plan, read: Read, settings: Settings) -> (KeptPlan, Digest) {
        let decls = Digest::of(plan.decl_bytes());
        let kept = KeptPlan { program: program(), read, settings, plan, decls };
        self.drop_state();
        self.drop_outdated();
        let written = fs::write_atomic(&self.path("decls"), &checked_decls(&kept))
            .and_then(|()| sealed::write(&self.path("plan"), |writer| writer.value(&kept)));
        // Of a plan that was not written there is no state, whatever it is called.
        let digest = written.unwrap_or(decls);
        (kept, digest)
    }

    /// Takes away what is kept of profiles whose recipes have changed since: it would be made anew before any use.
    fn drop_outdated(&self) {
        for path in fs::list(&self.root.join(".effai/plan")).unwrap_or_default() {
            let is_plan = path.extension().is_some_and(|e| e == "plan");
            if is_plan && !read_plan(&path).is_some_and(|(kept, _)| kept.read.holds(&self.root)) {
                for extension in ["state", "decls", "plan"] {
                    let _ = fs::remove_file(&path.with_extension(extension));
                }
            }
        }
    }

    /// The bytes of one declaration; none if they are not the plan's, or not as they were written.
    pub(super) fn decl(&self, plan: &KeptPlan, index: Index) -> Option<Vec<u8>> {
        let open = || {
            let file = fs::open(&self.path("decls")).ok()?;
            let mut of = [0; 32];
            file.read_exact_at(&mut of, 0).ok()?;
            (Digest::from_bytes(of) == plan.decls).then_some(file)
        };
        let file = self.decls.get_or_init(open).as_ref()?;
        let range = plan.plan.decl_range(index);
        let mut bytes = vec![0; CHECK_BYTES + range.len()];
        file.read_exact_at(&mut bytes, (32 + range.start + index * CHECK_BYTES) as u64).ok()?;
        let text = bytes.split_off(CHECK_BYTES);
        (Digest::of(&text).bytes()[..CHECK_BYTES] == bytes).then_some(text)
    }

    pub(super) fn drop_plan(&self) {
        let _ = fs::remove_file(&self.path("plan"));
    }

    /// The state, if it is of this plan.
    pub(super) fn state(&self, plan: &Digest) -> Option<KeptState> {
        let mut reader = sealed::Reader::open(&self.path("state"))?;
        if reader.value::<Digest>()? != *plan {
            return None;
        }
        let sight = Sight::unsealed(&mut reader)?;
        let state = KeptState { sight, known: reader.list()?, outputs: reader.list()? };
        reader.end().map(|_| state)
    }

    /// Writes the state down. Where the disk cannot take it there is none, which is safe.
    pub(super) fn put_state(&self, plan: &Digest, sight: &Sight, known: &[Option<Known>], outputs: &[Option<Output>]) {
        let _ = sealed::write(&self.path("state"), |writer| {
            writer.value(plan)?;
            sight.seal(writer)?;
            writer.list(known)?;
            writer.list(outputs)
        });
    }

    /// How the file of the state looks, which tells one that another process wrote.
    pub(super) fn look_of_state(&self) -> Option<Stat> {
        Stat::at(&self.path("state"))
    }

    pub(super) fn drop_state(&self) {
        let _ = fs::remove_file(&self.path("state"));
    }
}

/// `@` cannot stand in a profile's name by accident of spelling: it keeps profiles and the default apart.
fn file_name(profile: &str) -> String {
    format!("@{}", profile.replace('/', "~"))
}

/// How this program looks: another one may read recipes otherwise.
pub fn program() -> Option<Stat> {
    Stat::at(&std::env::current_exe().ok()?)
}

/// The bytes of all declarations as they are kept: whose they are, then each after the begin of its digest. One can be
/// read, and believed, without the rest.
fn checked_decls(kept: &KeptPlan) -> Vec<u8> {
    let all = kept.plan.decl_bytes();
    let mut bytes = kept.decls.bytes().to_vec();
    bytes.reserve(all.len() + kept.plan.len() * CHECK_BYTES);
    for index in 0..kept.plan.len() {
        let text = &all[kept.plan.decl_range(index)];
        bytes.extend(&Digest::of(text).bytes()[..CHECK_BYTES]);
        bytes.extend(text);
    }
    bytes
}

fn read_plan(path: &Path) -> Option<(KeptPlan, Digest)> {
    let mut reader = sealed::Reader::open(path)?;
    let kept = reader.value()?;
    Some((kept, reader.end()?))
}
