//! What the engine sees of files and machine: each question of the plan, its answer, and what proves it.
//!
//! All questions of a build are answered at once, on all threads: a `statx` for each file, and a read only for those
//! whose evidence does not hold. An answer that is what it was lets every target that asked keep its key unjudged.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::revision;
use super::sealed::{Reader, Writer};
use crate::action::interpreter::{Seen, Wish};
use crate::backend::Backend;
use crate::failure::Failure;
use crate::fingerprint::evidence::{Form, Place, SeenFile, Stat};
use crate::fingerprint::facts::Outside;
use crate::fingerprint::{Digest, Fact};
use crate::plan::{Index, Plan, Question, file_below};
use crate::recipe::glob::{self, Listing};
use crate::util::text::escape;
use crate::util::{fs, machine};

/// Files looked at by one thread at a time: enough to outweigh handing them over.
const LOOKS_AT_ONCE: usize = 256;

/// Files read by one thread at a time.
const READS_AT_ONCE: usize = 16;

/// Bytes that are read again by each build rather than that all evidence is written anew: a tenth of a millisecond's
/// hashing.
const READ_BYTES_MAX: i64 = 256 << 10;

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Answer {
    #[default]
    None,
    File(u32),
    /// A glob without a wildcard that names a plain file: the file's own evidence is the listing's.
    Path(u32),
    Files(Box<Files>),
    Text(Box<str>),
    Python(Box<Seen>),
}

/// What a glob stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Files {
    files: Vec<u32>,
    walked: Vec<glob::Walked>,
    at_ns: i64,
}

impl Answer {
    fn files(&self) -> &[u32] {
        match self {
            Answer::File(file) | Answer::Path(file) => std::slice::from_ref(file),
            Answer::Files(listed) => &listed.files,
            Answer::None | Answer::Text(_) | Answer::Python(_) => &[],
        }
    }
}

/// Which questions may have another answer than they had when they were last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Doubt {
    /// None.
    #[default]
    Nothing,
    /// These, by their places in the plan.
    Of(BTreeSet<u32>),
    /// Any.
    Everything,
}

impl Doubt {
    /// Adds questions.
    pub fn add(&mut self, questions: impl IntoIterator<Item = u32>) {
        match self {
            Doubt::Nothing => *self = Doubt::Of(questions.into_iter().collect()),
            Doubt::Of(all) => all.extend(questions),
            Doubt::Everything => {}
        }
    }

    /// Adds another doubt.
    pub fn join(&mut self, other: Doubt) {
        match other {
            Doubt::Nothing => {}
            Doubt::Of(questions) => self.add(questions),
            Doubt::Everything => *self = Doubt::Everything,
        }
    }

    /// Whether there is none.
    pub fn is_nothing(&self) -> bool {
        match self {
            Doubt::Nothing => true,
            Doubt::Of(questions) => questions.is_empty(),
            Doubt::Everything => false,
        }
    }
}

/// What a look found out about questions that were answered before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// They have another answer.
    pub changed: Vec<u32>,
    /// They have another answer, or the same from a file that was written to since: who read it in between may have
    /// read something else.
    pub stirred: Vec<u32>,
}

/// Everything seen, by question.
#[derive(Debug, Default)]
pub(super) struct Sight {
    files: Vec<SeenFile>,
    answers: Vec<Answer>,
    /// Of this process: which questions were asked, and which have another answer than before.
    asked: Vec<bool>,
    changed: Vec<bool>,
    /// Files that were read anew, to be remembered.
    renewed: Vec<u32>,
    /// An interpreter was asked anew what it is.
    has_asked: bool,
    by_path: HashMap<PathBuf, u32>,
    /// What computes, where a recipe does not say.
    backend: Option<Backend>,
}

impl Sight {
    /// The same, by a process that computes with this.
    pub(super) fn computing_with(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// This machine, and what computes on it.
    fn machine(&self) -> String {
        format!("{}, {}", machine::identity(), self.backend.unwrap_or_else(Backend::best).name())
    }

    /// Nothing seen yet, but for files that are remembered.
    pub(super) fn new(plan: &Plan, files: Vec<SeenFile>) -> Self {
        Self { files, answers: vec![Answer::None; plan.questions()], ..Self::default() }
    }

    /// Writes down what the next process may go on from.
    pub(super) fn seal(&self, writer: &mut Writer<'_>) -> io::Result<()> {
        writer.list(&self.files)?;
        writer.list(&self.answers)
    }

    /// What [`Sight::seal`] wrote.
    pub(super) fn unsealed(reader: &mut Reader) -> Option<Self> {
        Some(Self { files: reader.list()?, answers: reader.list()?, ..Self::default() })
    }

    /// Answers these questions, but for those that were asked already and not doubted since.
    pub(super) fn look(&mut self, root: &Path, plan: &Plan, questions: &[u32]) -> Result<Found, Failure> {
        self.asked.resize(plan.questions(), false);
        self.changed.resize(plan.questions(), false);
        if self.answers.len() < plan.questions() {
            // Of a target that was named on the command line.
            self.answers.resize(plan.questions(), Answer::None);
        }
        let mut new: Vec<usize> = questions.iter().map(|q| *q as usize).filter(|q| !self.asked[*q]).collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return Ok(Found::default());
        }
        let mut other = BTreeSet::new();
        let place = Place::open(root);
        let listings = self.list(root, &place, plan, &new)?;
        let mut relisted = vec![false; plan.questions()];
        for (q, listing) in listings {
            relisted[q] = true;
            let plain = listing.is_plain_file();
            let files: Vec<u32> = listing.files.into_iter().map(|path| self.number(path)).collect();
            let listed = matches!(self.answers[q], Answer::Files(_) | Answer::Path(_));
            if !listed || self.answers[q].files() != files {
                other.insert(q);
            }
            self.answers[q] = match plain {
                true => Answer::Path(files[0]),
                false => Answer::Files(Box::new(Files { files, walked: listing.walked, at_ns: listing.at_ns })),
            };
        }
        for &q in &new {
            match plan.question(q) {
                Question::File(path) if self.answers[q] == Answer::None => {
                    self.answers[q] = Answer::File(self.number(PathBuf::from(path)));
                    other.insert(q);
                }
                Question::Variable(name) => {
                    self.text(q, &variable(name), &mut other);
                }
                Question::Tool(name) => {
                    self.text(q, &tool(name), &mut other);
                }
                Question::AtRevision(name) => {
                    self.text(q, &revision::ask(root, name), &mut other);
                }
                Question::Machine => self.text(q, &self.machine(), &mut other),
                Question::Python(version, lock) => {
                    let before = match &self.answers[q] {
                        Answer::Python(seen) if seen.holds() => continue,
                        Answer::Python(seen) => Some(seen.found().cloned()),
                        _ => None,
                    };
                    let seen = Seen::look(Wish { version, lock: &root.join(lock) });
                    if before.is_none_or(|before| before.as_ref() != seen.found()) {
                        other.insert(q);
                    }
                    self.answers[q] = Answer::Python(Box::new(seen));
                    self.has_asked = true;
                }
                Question::File(_) | Question::Glob(..) => {}
            }
        }
        // A plain file that was not listed again was looked at just now.
        let open = |q: &usize| relisted[*q] || !matches!(self.answers[*q], Answer::Path(_));
        let still_open: Vec<usize> = new.iter().copied().filter(open).collect();
        let mut stirred = other.clone();
        self.look_at_files(root, &place, &still_open, &mut other, &mut stirred)?;
        new.iter().for_each(|q| self.asked[*q] = true);
        other.iter().for_each(|q| self.changed[*q] = true);
        stirred.extend(&other);
        let places = |questions: BTreeSet<usize>| questions.into_iter().map(|q| q as u32).collect();
        Ok(Found { changed: places(other), stirred: places(stirred) })
    }

    /// Lets the next look ask these questions again.
    pub(super) fn doubt(&mut self, doubt: &Doubt) {
        match doubt {
            Doubt::Nothing => {}
            Doubt::Of(questions) => questions.iter().for_each(|q| {
                if let Some(asked) = self.asked.get_mut(*q as usize) {
                    *asked = false;
                }
            }),
            Doubt::Everything => self.asked.fill(false),
        }
    }

    /// The files a question stands for, and the directories that were walked to find them.
    pub(super) fn stands_for(&self, question: u32) -> (impl Iterator<Item = &Path>, impl Iterator<Item = &Path>) {
        let answer = &self.answers[question as usize];
        let walked: &[glob::Walked] = match answer {
            Answer::Files(listed) => &listed.walked,
            _ => &[],
        };
        let files = answer.files();
        (files.iter().map(|f| self.files[*f as usize].path.as_path()), walked.iter().map(glob::Walked::path))
    }

    /// What a question was answered that no file answers; empty before.
    pub(super) fn text_of(&self, question: u32) -> &str {
        match &self.answers[question as usize] {
            Answer::Text(text) => text,
            _ => "",
        }
    }

    /// Which interpreter was found for a question that asks for one.
    pub(super) fn python_of(&self, question: u32) -> Option<&Seen> {
        match &self.answers[question as usize] {
            Answer::Python(seen) => Some(seen),
            _ => None,
        }
    }

    /// Whether the evidence of all that a question stands for holds.
    pub(super) fn holds(&self, place: &Place<'_>, question: u32) -> bool {
        let answer = &self.answers[question as usize];
        let seen = |i: &u32| &self.files[*i as usize];
        let is_listed = match answer {
            Answer::Files(listed) => glob::holds(&listed.walked, listed.at_ns, place),
            _ => true,
        };
        is_listed && answer.files().iter().all(|i| seen(i).holds(place.look(&seen(i).path)))
    }

    /// Whether every one of these questions has the answer it had before.
    pub(super) fn unchanged(&self, questions: &[u32]) -> bool {
        questions.iter().all(|q| self.asked[*q as usize] && !self.changed[*q as usize])
    }

    /// Whether one of these questions was asked and has another answer than before.
    pub(super) fn has_changed(&self, questions: &[u32]) -> bool {
        questions.iter().any(|q| self.changed.get(*q as usize) == Some(&true))
    }

    /// Whether any question has another answer than before.
    pub(super) fn is_changed(&self) -> bool {
        self.changed.contains(&true)
    }

    /// Begins anew: what is answered now is what later looks are compared with.
    pub(super) fn settle(&mut self) {
        self.changed.clear();
        self.changed.resize(self.answers.len(), false);
        self.has_asked = false;
    }

    /// Files whose evidence is new since it was last taken.
    pub(super) fn renewed(&mut self) -> Vec<SeenFile> {
        std::mem::take(&mut self.renewed).into_iter().map(|i| self.files[i as usize].clone()).collect()
    }

    /// Whether there is new evidence, of more than what is soon read again.
    pub(super) fn is_worth_keeping(&self) -> bool {
        let bytes = |i: &u32| self.files[*i as usize].stat.map_or(0, |stat| stat.size);
        self.has_asked
            || self.renewed.len() > READS_AT_ONCE
            || self.renewed.iter().map(bytes).sum::<i64>() > READ_BYTES_MAX
    }

    /// The answers, as manifests ask for them.
    pub(super) fn outside<'a>(&'a self, plan: &'a Plan, index: Index) -> impl Outside + 'a {
        Asked { sight: self, plan, questions: plan.reads(index), base: plan.base(index) }
    }

    /// The globs among the questions whose listings do not hold, listed again.
    fn list(
        &self,
        root: &Path,
        place: &Place<'_>,
        plan: &Plan,
        new: &[usize],
    ) -> Result<Vec<(usize, Listing)>, Failure> {
        let is_stale = |q: usize| match (plan.question(q), &self.answers[q]) {
            (Question::Glob(..), Answer::Path(file)) => {
                // It may have become a directory after it was listed and before it was looked at.
                let seen = &self.files[*file as usize];
                let was_read = matches!(seen.fact, Fact::File(_) | Fact::Executable(_));
                !(was_read && seen.holds(place.look(&seen.path)))
            }
            (Question::Glob(..), Answer::Files(listed)) => !glob::holds(&listed.walked, listed.at_ns, place),
            (Question::Glob(..), _) => true,
            _ => false,
        };
        let stale = sift(new, is_stale);
        if stale.is_empty() {
            return Ok(Vec::new());
        }
        let list = |q: &usize| match plan.question(*q) {
            Question::Glob(base, pattern) => {
                glob::list_below(root, Path::new(base), pattern).map(|listing| (*q, listing))
            }
            _ => unreachable!("only globs are listed"),
        };
        let listed = stale.par_iter().map(list).collect::<Result<_, _>>();
        listed.map_err(|e| Failure::environment(e.to_string()))
    }

    /// Looks at the files of some of the new questions; all questions that such a file answers learn of a change.
    fn look_at_files(
        &mut self,
        root: &Path,
        place: &Place<'_>,
        open: &[usize],
        changed: &mut BTreeSet<usize>,
        stirred: &mut BTreeSet<usize>,
    ) -> Result<(), Failure> {
        let mut wanted: Vec<u32> = open.iter().flat_map(|q| self.answers[*q].files()).copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let files = &self.files;
        let holds = |i: u32| files[i as usize].holds(place.look(&files[i as usize].path));
        let stale = sift(&wanted, |i| !holds(i));
        if stale.is_empty() {
            return Ok(());
        }
        let looked: Vec<(u32, SeenFile)> = stale
            .par_chunks(READS_AT_ONCE)
            .flat_map_iter(|chunk| chunk.iter().filter_map(|i| look(root, place, *i, &files[*i as usize]).transpose()))
            .collect::<Result<_, _>>()?;
        let mut sorts = vec![Sort::Same; self.files.len()];
        for (i, seen) in looked {
            let before = &self.files[i as usize];
            sorts[i as usize] = match () {
                () if before.fact != seen.fact => Sort::Other,
                () if before.stat != seen.stat => Sort::Rewritten,
                () => Sort::Same,
            };
            self.files[i as usize] = seen;
            self.renewed.push(i);
        }
        if sorts.iter().all(|sort| *sort == Sort::Same) {
            return Ok(());
        }
        // Questions share files: one that nobody asked this time has another answer too.
        for q in 0..self.answers.len() {
            match self.answers[q].files().iter().map(|f| sorts[*f as usize]).max() {
                Some(Sort::Other) => drop(changed.insert(q)),
                Some(Sort::Rewritten) => drop(stirred.insert(q)),
                Some(Sort::Same) | None => {}
            }
        }
        Ok(())
    }

    fn text(&mut self, q: usize, text: &str, other: &mut BTreeSet<usize>) {
        if !matches!(&self.answers[q], Answer::Text(before) if **before == *text) {
            other.insert(q);
        }
        self.answers[q] = Answer::Text(text.into());
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

/// A digest of a variable's value; empty where it is not set.
pub(super) fn variable(name: &str) -> String {
    crate::env::passed(name).map(|v| Digest::of(v.as_encoded_bytes()).to_string()).unwrap_or_default()
}

/// Whether a program is on the search path.
pub(super) fn tool(name: &str) -> String {
    if crate::env::find_program(name).is_some() { "there" } else { "absent" }.into()
}

/// The things of which something is true that only the file system knows: few are asked about right here, since
/// threads cost more to start than that; many on all threads.
pub(super) fn sift<T: Copy + Send + Sync>(things: &[T], is_true: impl Fn(T) -> bool + Sync) -> Vec<T> {
    let sifted = |chunk: &[T]| chunk.iter().copied().filter(|thing| is_true(*thing)).collect::<Vec<T>>();
    match things.len() <= LOOKS_AT_ONCE {
        true => sifted(things),
        false => things.par_chunks(LOOKS_AT_ONCE).flat_map_iter(sifted).collect(),
    }
}

/// What a second look at a file found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Same,
    /// The same content, written to since.
    Rewritten,
    Other,
}

/// Looks at a file; what it is now, if its evidence does not hold.
fn look(root: &Path, place: &Place<'_>, number: u32, before: &SeenFile) -> Result<Option<(u32, SeenFile)>, Failure> {
    let at_ns = now_ns();
    let metadata = place.look_whole(&before.path);
    let stat = metadata.map(|(stat, _)| stat);
    if before.holds(stat) {
        return Ok(None);
    }
    let path = root.join(&before.path);
    let seen = |stat, fact| Some((number, SeenFile { path: before.path.clone(), stat, at_ns, fact }));
    let Some((_, Form::File { executable })) = metadata else {
        // A link to a directory or to nothing is itself what counts.
        let fact = match path.read_link() {
            Ok(target) => Fact::Link(escape(&target)),
            Err(_) => Fact::Missing,
        };
        return Ok(seen(stat, fact));
    };
    let digest = match fs::at("read", &path, Digest::of_file(&path)) {
        Ok((digest, _)) => digest,
        // It went between the two looks.
        Err(error) if error.is_missing() => return Ok(seen(None, Fact::Missing)),
        Err(error) => return Err(error.into()),
    };
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
        let files = self.answer(Question::Glob(self.base, pattern)).files();
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
        matches!(self.answer(Question::Tool(name)), Answer::Text(text) if &**text == "there")
    }

    fn python(&mut self, version: &str, lock: &str) -> Option<String> {
        match self.answer(Question::Python(version, &file_below(self.base, lock))) {
            Answer::Python(seen) => seen.found().map(ToString::to_string),
            _ => None,
        }
    }

    fn at_revision(&mut self, name: &str) -> Result<Digest, Failure> {
        match self.answer(Question::AtRevision(name)) {
            Answer::Text(text) => revision::read(text).map(|claim| claim.artifact),
            _ => unreachable!("it was looked at before"),
        }
    }

    fn machine(&mut self) -> String {
        match self.answer(Question::Machine) {
            Answer::Text(text) => text.to_string(),
            _ => self.sight.machine(),
        }
    }
}

fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}
