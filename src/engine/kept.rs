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

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sight::Sight;
use crate::fingerprint::Digest;
use crate::fingerprint::evidence::Stat;
use crate::plan::Plan;
use crate::recipe::load::{Read, Settings};
use crate::store::Placed;
use crate::util::fs;

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
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct KeptState {
    /// The plan this is of.
    plan: Option<Digest>,
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

impl KeptState {
    pub(super) fn new(sight: Sight, known: Vec<Option<Known>>, outputs: Vec<Option<Output>>) -> Self {
        Self { plan: None, sight, known, outputs }
    }
}

/// Where one profile's files are.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    root: PathBuf,
    name: String,
}

impl Kept {
    pub(super) fn new(root: &Path, profile: Option<&str>) -> Self {
        Self { root: root.to_owned(), name: profile.map_or_else(|| "default".into(), file_name) }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.root.join(".effai/plan").join(format!("{}.{extension}", self.name))
    }

    /// The plan, if the recipes look as they did when it was made; and its digest.
    pub(super) fn plan(&self) -> Option<(KeptPlan, Digest)> {
        let (kept, digest): (KeptPlan, _) = read(&self.path("plan"))?;
        (kept.program == program() && kept.read.holds(&self.root)).then_some((kept, digest))
    }

    /// Keeps a new plan; gives it back with its digest. A disk that cannot take it only costs the next start time.
    pub(super) fn put_plan(&self, plan: Plan, read: Read, settings: Settings) -> (KeptPlan, Digest) {
        let decls = Digest::of(plan.decl_bytes());
        let kept = KeptPlan { program: program(), read, settings, plan, decls };
        let (bytes, digest) = sealed(&kept);
        self.drop_state();
        self.drop_outdated();
        let _ = fs::write_atomic(&self.path("decls"), kept.plan.decl_bytes())
            .and_then(|()| fs::write_atomic(&self.path("plan"), &bytes));
        (kept, digest)
    }

    /// Takes away what is kept of profiles whose recipes have changed since: it would be made anew before any use.
    fn drop_outdated(&self) {
        for path in fs::list(&self.root.join(".effai/plan")).unwrap_or_default() {
            let is_plan = path.extension().is_some_and(|e| e == "plan");
            if is_plan && !read(&path).is_some_and(|(kept, _): (KeptPlan, _)| kept.read.holds(&self.root)) {
                for extension in ["state", "decls", "plan"] {
                    let _ = fs::remove_file(&path.with_extension(extension));
                }
            }
        }
    }

    /// The bytes of the declarations; none if they are not the plan's.
    pub(super) fn decls(&self, plan: &KeptPlan) -> Option<Vec<u8>> {
        fs::read(&self.path("decls")).ok().filter(|bytes| plan.has_decls(bytes))
    }

    pub(super) fn drop_plan(&self) {
        let _ = fs::remove_file(&self.path("plan"));
    }

    /// The state, if it is of this plan.
    pub(super) fn state(&self, plan: &Digest) -> Option<KeptState> {
        let (state, _): (KeptState, _) = read(&self.path("state"))?;
        (state.plan == Some(*plan)).then_some(state)
    }

    /// Writes the state down and gives it back. Where the disk cannot take it there is none, which is safe.
    pub(super) fn put_state(&self, plan: &Digest, mut state: KeptState) -> KeptState {
        state.plan = Some(*plan);
        let _ = fs::write_atomic(&self.path("state"), &sealed(&state).0);
        state
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

/// The written form: a digest of what follows, and what follows.
fn sealed(value: &impl Serialize) -> (Vec<u8>, Digest) {
    let body = postcard::to_stdvec(value).expect("plain data");
    let digest = Digest::of(&body);
    let mut bytes = digest.bytes().to_vec();
    bytes.extend(body);
    (bytes, digest)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<(T, Digest)> {
    let bytes = fs::read(path).ok()?;
    let (seal, body) = bytes.split_first_chunk::<32>()?;
    let digest = Digest::from_bytes(*seal);
    if Digest::of(body) != digest {
        return None;
    }
    Some((postcard::from_bytes(body).ok()?, digest))
}
