//! What the engine sees of files and machine: each question of the plan, its answer, and what proves it.
//!
//! All questions of a build are answered at once, on all threads: a `statx` for each file, and a read only for those
//! whose evidence does not hold. An answer that is what it was lets every target that asked keep its key unjudged.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::fingerprint::evidence::{SeenFile, Stat};
use crate::fingerprint::facts::Outside;
use crate::fingerprint::{Digest, Fact};
use crate::plan::{Index, Plan, Question, file_below};
use crate::recipe::glob::{self, Listing};
use crate::util::text::escape;
use crate::util::{fs, machine};

/// Files looked at by one thread at a time: enough to outweigh handing them over.
const LOOKS_AT_ONCE: usize = 256;

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Answer {
    #[default]
    None,
    File(u32),
    Files {
        files: Vec<u32>,
        walked: Vec<glob::Walked>,
        at_ns: i64,
    },
    Text(String),
}

/// Everything seen, by question.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Sight {
    files: Vec<SeenFile>,
    answers: Vec<Answer>,
    /// Of this process: which questions were asked, and which have another answer than before.
    #[serde(skip)]
    asked: Vec<bool>,
    #[serde(skip)]
    changed: Vec<bool>,
    /// Files that were read anew, to be remembered.
    #[serde(skip)]
    renewed: Vec<u32>,
    #[serde(skip)]
    by_path: HashMap<PathBuf, u32>,
}

impl Sight {
    /// Nothing seen yet, but for files that are remembered.
    pub(super) fn new(plan: &Plan, files: Vec<SeenFile>) -> Self {
        Self { files, answers: vec![Answer::None; plan.questions()], ..Self::default() }
    }

    /// Answers these questions, each once a process.
    pub(super) fn look(&mut self, root: &Path, plan: &Plan, questions: &[u32]) -> Result<(), Failure> {
        self.asked.resize(plan.questions(), false);
        self.changed.resize(plan.questions(), false);
        let mut new: Vec<usize> = questions.iter().map(|q| *q as usize).filter(|q| !self.asked[*q]).collect();
        new.sort_unstable();
        new.dedup();
        let listings = self.list(root, plan, &new)?;
        for (q, listing) in listings {
            let files: Vec<u32> = listing.files.into_iter().map(|path| self.number(path)).collect();
            let same = matches!(&self.answers[q], Answer::Files { files: before, .. } if *before == files);
            self.changed[q] |= !same;
            self.answers[q] = Answer::Files { files, walked: listing.walked, at_ns: listing.at_ns };
        }
        for &q in &new {
            match plan.question(q) {
                Question::File(path) if self.answers[q] == Answer::None => {
                    self.answers[q] = Answer::File(self.number(PathBuf::from(path)));
                    self.changed[q] = true;
                }
                Question::Variable(name) => {
                    let digest = crate::env::passed(name).map(|v| Digest::of(v.as_encoded_bytes()).to_string());
                    self.text(q, digest.as_deref().unwrap_or_default());
                }
                Question::Tool(name) => {
                    let there = crate::env::find_program(name).is_some();
                    self.text(q, if there { "there" } else { "absent" });
                }
                Question::Machine => self.text(q, &machine::identity()),
                Question::File(_) | Question::Glob(..) => {}
            }
        }
        self.look_at_files(root, &new)?;
        new.iter().for_each(|q| self.asked[*q] = true);
        Ok(())
    }

    /// Whether every one of these questions has the answer it had before.
    pub(super) fn unchanged(&self, questions: &[u32]) -> bool {
        questions.iter().all(|q| self.asked[*q as usize] && !self.changed[*q as usize])
    }

    /// Whether one of these questions was asked and has another answer than before.
    pub(super) fn has_changed(&self, questions: &[u32]) -> bool {
        questions.iter().any(|q| self.changed.get(*q as usize) == Some(&true))
    }

    /// Begins anew: what is answered now is what later looks are compared with.
    pub(super) fn settle(&mut self) {
        self.asked.clear();
        self.changed.clear();
    }

    /// Files whose evidence is new since it was last taken.
    pub(super) fn renewed(&mut self) -> Vec<SeenFile> {
        std::mem::take(&mut self.renewed).into_iter().map(|i| self.files[i as usize].clone()).collect()
    }

    /// Whether there is new evidence to keep.
    pub(super) fn is_renewed(&self) -> bool {
        !self.renewed.is_empty()
    }

    /// The answers, as manifests ask for them.
    pub(super) fn outside<'a>(&'a self, plan: &'a Plan, index: Index) -> impl Outside + 'a {
        Asked { sight: self, plan, questions: plan.reads(index), base: plan.base(index) }
    }

    /// The globs among the questions whose listings do not hold, listed again.
    fn list(&self, root: &Path, plan: &Plan, new: &[usize]) -> Result<Vec<(usize, Listing)>, Failure> {
        let stale = new.par_iter().filter_map(|q| {
            let Question::Glob(base, pattern) = plan.question(*q) else { return None };
            if let Answer::Files { walked, at_ns, .. } = &self.answers[*q]
                && glob::holds(walked, *at_ns, root)
            {
                return None;
            }
            Some((*q, base, pattern))
        });
        let listed = stale
            .map(|(q, base, pattern)| glob::list_below(root, Path::new(base), pattern).map(|listing| (q, listing)));
        listed.collect::<Result<_, _>>().map_err(|e| Failure::environment(e.to_string()))
    }

    fn look_at_files(&mut self, root: &Path, new: &[usize]) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        for &q in new {
            match &self.answers[q] {
                Answer::File(file) => wanted.push(*file),
                Answer::Files { files, .. } => wanted.extend(files),
                Answer::None | Answer::Text(_) => {}
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let files = &self.files;
        let looked: Vec<(u32, SeenFile)> = wanted
            .par_chunks(LOOKS_AT_ONCE)
            .flat_map_iter(|chunk| chunk.iter().filter_map(|i| look(root, *i, &files[*i as usize]).transpose()))
            .collect::<Result<_, _>>()?;
        if looked.is_empty() {
            return Ok(());
        }
        let mut other = vec![false; self.files.len()];
        for (i, seen) in looked {
            other[i as usize] = self.files[i as usize].fact != seen.fact;
            self.files[i as usize] = seen;
            self.renewed.push(i);
        }
        for &q in new {
            self.changed[q] |= match &self.answers[q] {
                Answer::File(file) => other[*file as usize],
                Answer::Files { files, .. } => files.iter().any(|f| other[*f as usize]),
                Answer::None | Answer::Text(_) => false,
            };
        }
        Ok(())
    }

    fn text(&mut self, q: usize, text: &str) {
        let same = matches!(&self.answers[q], Answer::Text(before) if before == text);
        self.changed[q] |= !same;
        self.answers[q] = Answer::Text(text.to_owned());
    }

    fn number(&mut self, path: PathBuf) -> u32 {
        if self.by_path.is_empty() {
            self.by_path = self.files.iter().enumerate().map(|(i, f)| (f.path.clone(), i as u32)).collect();
        }
        if let Some(number) = self.by_path.get(&path) {
            return *number;
        }
        let number = self.files.len() as u32;
        self.by_path.insert(path.clone(), number);
        // Written to long before it is read: never believed.
        self.files.push(SeenFile { path, stat: Some(Stat::default()), at_ns: 0, fact: Fact::Missing });
        number
    }
}

/// Looks at a file; what it is now, if its evidence does not hold.
fn look(root: &Path, number: u32, before: &SeenFile) -> Result<Option<(u32, SeenFile)>, Failure> {
    let path = root.join(&before.path);
    let at_ns = now_ns();
    let stat = Stat::at(&path);
    if before.holds(stat) {
        return Ok(None);
    }
    let seen = |stat, fact| Some((number, SeenFile { path: before.path.clone(), stat, at_ns, fact }));
    let metadata = match path.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        _ => {
            // A link to a directory or to nothing is itself what counts.
            let fact = match path.read_link() {
                Ok(target) => Fact::Link(escape(&target)),
                Err(_) => Fact::Missing,
            };
            return Ok(seen(stat, fact));
        }
    };
    let (digest, _) = fs::at("read", &path, Digest::of_file(&path))?;
    let executable = metadata.permissions().mode() & 0o111 != 0;
    Ok(seen(stat, if executable { Fact::Executable(digest) } else { Fact::File(digest) }))
}

struct Asked<'a> {
    sight: &'a Sight,
    plan: &'a Plan,
    questions: &'a [u32],
    /// The project's directory, from which its recipes count paths.
    base: &'a str,
}

impl Asked<'_> {
    fn answer(&self, question: Question<'_>) -> &Answer {
        let place = self.questions.iter().find(|q| self.plan.question(**q as usize) == question);
        &self.sight.answers[*place.expect("a target's manifest asks what its plan says") as usize]
    }

    fn seen(&self, number: u32) -> &SeenFile {
        &self.sight.files[number as usize]
    }
}

impl Outside for Asked<'_> {
    fn file(&mut self, path: &Path) -> Result<Fact, Failure> {
        let path = file_below(self.base, path.to_str().expect("a recipe's text"));
        let Answer::File(number) = self.answer(Question::File(&path)) else { return Ok(Fact::Missing) };
        Ok(self.seen(*number).fact.clone())
    }

    fn files(&mut self, pattern: &str) -> Result<Vec<(PathBuf, Fact)>, Failure> {
        let Answer::Files { files, .. } = self.answer(Question::Glob(self.base, pattern)) else {
            return Ok(Vec::new());
        };
        let seen = files.iter().map(|i| self.seen(*i));
        let own = |f: &SeenFile| f.path.strip_prefix(self.base).unwrap_or(&f.path).to_owned();
        Ok(seen.map(|f| (own(f), f.fact.clone())).collect())
    }

    fn variable(&mut self, name: &str) -> Option<Digest> {
        match self.answer(Question::Variable(name)) {
            Answer::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn has_tool(&mut self, name: &str) -> bool {
        matches!(self.answer(Question::Tool(name)), Answer::Text(text) if text == "there")
    }

    fn machine(&mut self) -> String {
        match self.answer(Question::Machine) {
            Answer::Text(text) => text.clone(),
            _ => machine::identity(),
        }
    }
}

fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}
