//! The git repository that a project lies in: the only user of libgit2.
//!
//! Read here: revisions, files as a revision has them, the history of one file, what differs from the last commit. Written:
//! notes ([`notes`]) and, where the user asks for them, hooks and a merge driver ([`hooks`]). What goes over the network is
//! `git`'s own to do, which knows the user's keys and helpers.

pub mod hooks;
pub mod notes;

use std::path::{Path, PathBuf};

use git2::{Commit, ErrorCode, Oid, Repository, Sort, Status, StatusOptions};

use crate::failure::Failure;

/// A repository and where the project lies in it.
pub struct Git {
    repository: Repository,
    /// The project's root below the working tree's; empty where they are one.
    below: PathBuf,
}

/// One commit, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// Its name, 40 hexadecimal digits.
    pub commit: String,
    /// When it was committed, seconds since 1970.
    pub time: i64,
    /// First line of its message.
    pub title: String,
    /// Who wrote it.
    pub author: String,
}

impl Version {
    /// The first digits of its name, as git shows them.
    pub fn short(&self) -> &str {
        &self.commit[..10.min(self.commit.len())]
    }

    /// Its day and time, here.
    pub fn date(&self) -> String {
        let time = jiff::Timestamp::from_second(self.time).unwrap_or_default();
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
    }
}

/// A commit that changed a file, and the file's bytes there; none where it took the file away.
pub type FileVersion = (Version, Option<Vec<u8>>);

/// What git would not do.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The project lies in none.
    #[error("{} lies in no git repository", .0.display())]
    None(PathBuf),
    /// No such revision.
    #[error("there is no revision `{0}`")]
    NoRevision(String),
    /// A line of a note that effai did not write so.
    #[error("{place}: damaged or changed by hand: {why}")]
    Note {
        /// Where it stands.
        place: String,
        /// Whose note it is.
        commit: String,
        /// What is wrong with it.
        why: String,
    },
    /// libgit2's complaint.
    #[error("git cannot {what}: {}", source.message())]
    Library {
        /// What was tried.
        what: String,
        /// Why not.
        source: git2::Error,
    },
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        let text = error.to_string();
        match error {
            GitError::None(_) => Failure::user(text).help("`git init` makes one"),
            GitError::NoRevision(_) => {
                Failure::user(text).help("`git log` has commits, `git tag` tags; a shallow clone lacks older ones")
            }
            GitError::Note { commit, .. } => {
                let edit = format!("git notes --ref {} edit {commit}", notes::REFERENCE);
                Failure::target(text)
                    .help(format!("`{edit}` takes the line out; `effai notes fetch` brings what others have"))
            }
            GitError::Library { .. } => Failure::environment(text),
        }
    }
}

fn tried<T>(what: &str, result: Result<T, git2::Error>) -> Result<T, GitError> {
    result.map_err(|source| GitError::Library { what: what.to_owned(), source })
}

impl Git {
    /// The repository that a project's root lies in.
    pub fn of(root: &Path) -> Result<Self, GitError> {
        let none = || GitError::None(root.to_owned());
        let repository = match Repository::discover(root) {
            Ok(repository) => repository,
            Err(e) if e.code() == ErrorCode::NotFound => return Err(none()),
            Err(source) => return Err(GitError::Library { what: "open the repository".into(), source }),
        };
        let tree = repository.workdir().ok_or_else(none)?.canonicalize().map_err(|_| none())?;
        let root = root.canonicalize().map_err(|_| none())?;
        let below = root.strip_prefix(&tree).map_err(|_| none())?.to_owned();
        Ok(Self { repository, below })
    }

    /// The working tree's root.
    pub fn tree(&self) -> &Path {
        self.repository.workdir().expect("a repository without one is refused")
    }

    /// Where the project's root lies below it.
    pub fn below(&self) -> &Path {
        &self.below
    }

    /// The commit that is checked out; none before the first.
    pub fn head(&self) -> Result<Option<Version>, GitError> {
        match self.repository.head() {
            Ok(head) => tried("find the commit", head.peel_to_commit()).map(|commit| Some(version(&commit))),
            Err(e) if matches!(e.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => Ok(None),
            Err(source) => Err(GitError::Library { what: "read HEAD".into(), source }),
        }
    }

    /// The commit that a word means, as `git rev-parse` has it.
    pub fn version(&self, word: &str) -> Result<Version, GitError> {
        Ok(version(&self.commit(word)?))
    }

    fn commit(&self, word: &str) -> Result<Commit<'_>, GitError> {
        let object = self.repository.revparse_single(word).and_then(|object| object.peel_to_commit());
        object.map_err(|_| GitError::NoRevision(word.to_owned()))
    }

    /// The project's own file of this name, as a revision has it.
    pub fn file_at(&self, word: &str, name: &str) -> Result<Option<Vec<u8>>, GitError> {
        self.file_in(&self.commit(word)?, name)
    }

    /// The project's own file of this name, as it will be in the next commit.
    pub fn staged(&self, name: &str) -> Result<Option<Vec<u8>>, GitError> {
        let index = tried("read what is staged", self.repository.index())?;
        let Some(entry) = index.get_path(&self.below.join(name), 0) else { return Ok(None) };
        let blob = tried("read what is staged", self.repository.find_blob(entry.id))?;
        Ok(Some(blob.content().to_vec()))
    }

    fn file_in(&self, commit: &Commit<'_>, name: &str) -> Result<Option<Vec<u8>>, GitError> {
        let Some(blob) = self.blob_in(commit, name)? else { return Ok(None) };
        let blob = tried("read a file of a commit", self.repository.find_blob(blob))?;
        Ok(Some(blob.content().to_vec()))
    }

    fn blob_in(&self, commit: &Commit<'_>, name: &str) -> Result<Option<Oid>, GitError> {
        let tree = tried("read a commit's tree", commit.tree())?;
        match tree.get_path(&self.below.join(name)) {
            Ok(entry) => Ok(Some(entry.id())),
            Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
            Err(source) => Err(GitError::Library { what: "read a commit's tree".into(), source }),
        }
    }

    /// A file of the project as each branch, tag and worktree's HEAD has it, the remotes' among them: every version once.
    pub fn at_tips(&self, name: &str) -> Result<Vec<Vec<u8>>, GitError> {
        let references = tried("list branches and tags", self.repository.references())?;
        let mut blobs = std::collections::BTreeSet::new();
        let heads =
            tried("list branches and tags", self.repository.head().or_else(|_| self.repository.find_reference("HEAD")));
        let references = references.flatten().chain(heads);
        for commit in references.filter_map(|reference| reference.peel_to_commit().ok()) {
            blobs.extend(self.blob_in(&commit, name)?);
        }
        let read =
            |id: Oid| tried("read a file of a commit", self.repository.find_blob(id)).map(|b| b.content().to_vec());
        blobs.into_iter().map(read).collect()
    }

    /// Commits from a revision back, newest first, by time and never before a child of theirs; those of `without` and
    /// older ones are left out.
    pub fn commits(&self, from: &str, without: Option<&str>) -> Result<Vec<Version>, GitError> {
        let mut walk = tried("walk the history", self.repository.revwalk())?;
        tried("walk the history", walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME))?;
        tried("walk the history", walk.push(self.commit(from)?.id()))?;
        if let Some(without) = without {
            tried("walk the history", walk.hide(self.commit(without)?.id()))?;
        }
        let mut all = Vec::new();
        for id in walk {
            let commit = tried("walk the history", id.and_then(|id| self.repository.find_commit(id)))?;
            all.push(version(&commit));
        }
        Ok(all)
    }

    /// Commits from a revision back in which a file of the project differs from what each parent has, newest first, and
    /// its bytes there.
    pub fn history(&self, from: &str, name: &str) -> Result<Vec<FileVersion>, GitError> {
        let mut all = Vec::new();
        for version in self.commits(from, None)? {
            let commit = self.commit(&version.commit)?;
            let here = self.blob_in(&commit, name)?;
            let mut changed = here.is_some() || commit.parent_count() > 0;
            for parent in commit.parents() {
                changed &= self.blob_in(&parent, name)? != here;
            }
            if changed {
                all.push((version, self.file_in(&commit, name)?));
            }
        }
        Ok(all)
    }

    /// The commits from one to a later one, both among them, oldest first: along first parents where that leads from the
    /// one to the other, else all that the later has and the older has not.
    pub fn line(&self, from: &str, to: &str) -> Result<Vec<Version>, GitError> {
        let (from, to) = (self.commit(from)?, self.commit(to)?);
        let mut line = vec![version(&to)];
        let mut at = to.clone();
        while at.id() != from.id() {
            let Ok(parent) = at.parent(0) else {
                let mut all = self.commits(&to.id().to_string(), Some(&from.id().to_string()))?;
                all.push(version(&from));
                all.reverse();
                return Ok(all);
            };
            line.push(version(&parent));
            at = parent;
        }
        line.reverse();
        Ok(line)
    }

    /// Writes a commit's files into an empty directory; where the project's root is there.
    pub fn lay_out(&self, word: &str, dir: &Path) -> Result<PathBuf, GitError> {
        let commit = self.commit(word)?;
        let mut checkout = git2::build::CheckoutBuilder::new();
        checkout.target_dir(dir).force().update_index(false).recreate_missing(true);
        tried("lay out a commit", self.repository.checkout_tree(commit.as_object(), Some(&mut checkout)))?;
        Ok(dir.join(&self.below))
    }

    /// Files of the project that differ from the last commit, or are new and not ignored: sorted paths from the
    /// project's root.
    pub fn changed(&self) -> Result<Vec<String>, GitError> {
        let mut options = StatusOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true).exclude_submodules(true);
        if !self.below.as_os_str().is_empty() {
            options.pathspec(&self.below);
        }
        let statuses = tried("compare with the last commit", self.repository.statuses(Some(&mut options)))?;
        let is_change = |status: Status| status != Status::CURRENT && !status.contains(Status::IGNORED);
        let mut paths: Vec<String> = statuses
            .iter()
            .filter(|entry| is_change(entry.status()))
            .filter_map(|entry| {
                let path = Path::new(entry.path().ok()?).strip_prefix(&self.below).ok()?.to_owned();
                path.into_os_string().into_string().ok()
            })
            .collect();
        paths.sort();
        Ok(paths)
    }

    /// Where hooks find the project, as `hooks install` said: from the working tree's root.
    pub fn project_of_hooks(dir: &Path) -> Option<PathBuf> {
        let repository = Repository::discover(dir).ok()?;
        let below = repository.config().ok()?.get_path("effai.project").ok()?;
        Some(repository.workdir()?.join(below))
    }

    /// Where `origin` is, without a user's name and password.
    pub fn origin(&self) -> Option<String> {
        let remote = self.repository.find_remote("origin").ok()?;
        let url = remote.url().ok()?;
        let Some((scheme, rest)) = url.split_once("://") else { return Some(url.to_owned()) };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        Some(format!("{scheme}://{host}/{path}"))
    }

    /// The key that git signs with, where that is one of SSH's (`gpg.format ssh`, `user.signingKey`).
    pub fn signing_key(&self) -> Option<PathBuf> {
        let config = self.repository.config().ok()?.snapshot().ok()?;
        let is_ssh = config.get_str("gpg.format").is_ok_and(|format| format == "ssh");
        is_ssh.then(|| config.get_path("user.signingKey").ok())?
    }

    /// The file of keys that git believes (`gpg.ssh.allowedSignersFile`).
    pub fn allowed_signers(&self) -> Option<PathBuf> {
        self.repository.config().ok()?.get_path("gpg.ssh.allowedSignersFile").ok()
    }

    /// What git's configuration has under this name.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.repository.config().ok()?.get_string(name).ok()
    }

    /// The branch that is checked out; none where HEAD is detached.
    pub fn branch(&self) -> Option<String> {
        let head = self.repository.head().ok()?;
        head.is_branch().then(|| head.shorthand().ok().map(str::to_owned))?
    }
}

fn version(commit: &Commit<'_>) -> Version {
    Version {
        commit: commit.id().to_string(),
        time: commit.time().seconds(),
        title: commit.summary().ok().flatten().unwrap_or_default().to_owned(),
        author: commit.author().name().unwrap_or_default().to_owned(),
    }
}
