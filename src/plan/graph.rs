//! Declarations to a checked graph: parts added, references resolved, cycles refused. Pure.
//!
//! A plan is a handful of flat tables, so that one of a hundred thousand targets is read back in milliseconds
//! where the recipes have not changed. Declarations lie beside it as bytes; only what must be judged is decoded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::inputs::{SameName, input_names};
use super::table::{Lists, Texts};
use super::{Label, at_revision, is_implied, resolve, seen_from};
use crate::kind::{self, BACKEND, Kind, Needs, Pool};
use crate::recipe::check::fill_defaults;
use crate::recipe::decl::Decl;
use crate::recipe::mistake::{Mistake, Mistakes, nearest};
use crate::recipe::node::Span;
use crate::recipe::schema::{Type, file_in, lock_of};
use crate::recipe::source::Sources;
use crate::recipe::terms::Terms;
use crate::recipe::walk::walk;

/// A target's place in a [`Plan`].
pub type Index = usize;

/// Every target of a project, each after all that it stands on; among equals in the order of the text.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    labels: Texts,
    /// Targets in the order of their labels.
    pub(super) by_label: Vec<u32>,
    /// Places in [`kind::KINDS`].
    kinds: Vec<u8>,
    needs: Vec<u8>,
    places: Vec<Span>,
    dependencies: Lists,
    roles: Vec<Role>,
    /// What each target asks of files and machine: places in `questions`.
    reads: Lists,
    question_sorts: Vec<Sort>,
    question_texts: Texts,
    /// The directories of projects, and which one each target is of.
    bases: Texts,
    base_of: Vec<u16>,
    pub(super) tag_names: Texts,
    /// Each target's tags: places in `tag_names`.
    pub(super) tags: Lists,
    /// Where each declaration ends in `decls`.
    decl_ends: Vec<u64>,
    #[serde(skip)]
    decls: OnceLock<Vec<u8>>,
}

/// Why a target stands on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The declaration names it; the artifact's facts are stated by field.
    Named,
    /// A part of it.
    Part,
    /// A named one is of no use without it.
    Alongside,
}

/// One thing a target stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The other target.
    pub index: Index,
    /// Why.
    pub role: Role,
}

/// What a target asks of the project's files and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question<'a> {
    /// A file's content.
    File(&'a str),
    /// The files a glob stands for, and their content: the project's directory, and the glob from there.
    Glob(&'a str, &'a str),
    /// The value of an environment variable.
    Variable(&'a str),
    /// Whether a program is there.
    Tool(&'a str),
    /// Who the machine is.
    Machine,
    /// Which Python interpreter is meant: a version, and the lock that says what is allowed.
    Python(&'a str, &'a str),
    /// What the lock of a revision says of a target: `LABEL@REV`.
    AtRevision(&'a str),
}

impl<'a> Question<'a> {
    /// The path, glob or program it asks about.
    pub fn text(self) -> &'a str {
        match self {
            Question::File(text) | Question::Glob(_, text) | Question::Tool(text) | Question::Variable(text) => text,
            Question::AtRevision(text) => text,
            Question::Machine => "the machine",
            Question::Python(..) => "the Python interpreter",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Sort {
    File,
    /// Its text is the project's directory, a NUL and the glob.
    Glob,
    Variable,
    Tool,
    Machine,
    /// Its text is the version, a NUL and the lock's path.
    Python,
    AtRevision,
}

impl std::fmt::Debug for dyn Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.schema().name)
    }
}

fn kind_of(decl: &Decl) -> &'static dyn Kind {
    kind::of(decl)
}

/// In [`Plan::kinds`]: what no recipe declares.
const AT_REVISION: u8 = u8::MAX;

/// What stands for a target as the lock of a revision has it; named at `span`.
fn decl_at_revision(name: &str, span: Span) -> Decl {
    Decl {
        kind: kind::AT_REVISION.schema().name.to_owned(),
        label: Label::new(name),
        base: String::new(),
        tags: Vec::new(),
        fields: serde_json::json!({ "of": name }),
        spans: BTreeMap::from([(String::new(), span)]),
    }
}

impl Plan {
    /// Builds the graph. All mistakes are reported together.
    pub fn new(decls: Vec<Decl>, sources: &Sources) -> Result<Self, Mistakes> {
        Self::beside(decls, &BTreeSet::new(), sources)
    }

    /// The graph of some declarations, beside others that have mistakes of their own: a label of those is not unknown.
    pub fn beside(decls: Vec<Decl>, others: &BTreeSet<String>, sources: &Sources) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let decls = with_revisions(with_parts(decls));
        let by_label: HashMap<&str, Index> = decls.iter().enumerate().map(|(i, d)| (d.label.as_str(), i)).collect();
        let mut edges: Vec<Vec<Dependency>> = Vec::with_capacity(decls.len());
        for decl in &decls {
            edges.push(dependencies(decl, &decls, &by_label, others, sources, &mut mistakes));
        }
        if !mistakes.is_empty() {
            return Err(Mistakes { mistakes });
        }
        match topological(&edges) {
            Ok(order) => Ok(Self::in_order(&decls, &edges, &order)),
            Err(cycle) => Err(Mistakes { mistakes: vec![cycle_mistake(&cycle, &decls, sources)] }),
        }
    }

    fn in_order(decls: &[Decl], edges: &[Vec<Dependency>], order: &[Index]) -> Self {
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        let mut plan = Self {
            labels: Texts::default(),
            by_label: Vec::new(),
            kinds: Vec::with_capacity(order.len()),
            needs: Vec::with_capacity(order.len()),
            places: Vec::with_capacity(order.len()),
            dependencies: Lists::default(),
            roles: Vec::new(),
            reads: Lists::default(),
            question_sorts: Vec::new(),
            question_texts: Texts::default(),
            bases: Texts::default(),
            base_of: Vec::with_capacity(order.len()),
            tag_names: Texts::default(),
            tags: Lists::default(),
            decl_ends: Vec::with_capacity(order.len()),
            decls: OnceLock::new(),
        };
        let mut questions = Questions::default();
        let (mut bases, mut tags) = (HashMap::new(), HashMap::new());
        let mut bytes = Vec::new();
        for old in order {
            let decl = &decls[*old];
            let kind = kind::KINDS.iter().position(|k| k.schema().name == decl.kind);
            let needs = kind_of(decl).needs(decl);
            plan.labels.push(decl.label.as_str());
            plan.kinds.push(kind.map_or(AT_REVISION, |kind| u8::try_from(kind).expect("fewer than 255 kinds")));
            plan.needs.push(pack(&needs));
            plan.places.push(decl.span(""));
            plan.dependencies.push(edges[*old].iter().map(|d| place[d.index] as u32));
            plan.roles.extend(edges[*old].iter().map(|d| d.role));
            let asked = questions.of(&mut plan, decl, &needs);
            plan.reads.push(asked);
            let base = number(&mut bases, &mut plan.bases, &decl.base);
            plan.base_of.push(u16::try_from(base).expect("recipes are refused with more projects"));
            let of_target: Vec<u32> = decl.tags.iter().map(|t| number(&mut tags, &mut plan.tag_names, t)).collect();
            plan.tags.push(of_target);
            serde_json::to_writer(&mut bytes, &decl.fields).expect("fields are plain");
            plan.decl_ends.push(bytes.len() as u64);
        }
        plan.by_label = (0..order.len() as u32).collect();
        let mut by_label = std::mem::take(&mut plan.by_label);
        by_label.sort_unstable_by(|a, b| plan.name(*a as usize).cmp(plan.name(*b as usize)));
        plan.by_label = by_label;
        plan.decls = OnceLock::from(bytes);
        plan
    }

    /// How many targets there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A target's label as text.
    pub fn name(&self, index: Index) -> &str {
        self.labels.get(index)
    }

    /// A target's label.
    pub fn label(&self, index: Index) -> Label {
        Label::new(self.name(index))
    }

    /// Whether no recipe declares a target: it is a part of another, or another as a revision has it.
    pub fn is_implied(&self, index: Index) -> bool {
        is_implied(self.name(index))
    }

    /// Whether it is a target as the lock of a revision has it.
    pub fn is_at_revision(&self, index: Index) -> bool {
        self.kinds[index] == AT_REVISION
    }

    /// A target's kind.
    pub fn kind(&self, index: Index) -> &'static dyn Kind {
        match self.kinds[index] {
            AT_REVISION => kind::AT_REVISION,
            kind => kind::KINDS[usize::from(kind)],
        }
    }

    /// What a target's action needs.
    pub fn needs(&self, index: Index) -> Needs {
        unpack(self.needs[index])
    }

    /// Where a target's label stands in a recipe.
    pub fn place(&self, index: Index) -> Span {
        self.places[index]
    }

    /// What a target stands on, without repetition.
    pub fn dependencies(&self, index: Index) -> impl ExactSizeIterator<Item = Dependency> + Clone {
        let range = self.dependencies.range(index);
        let others = self.dependencies.get(index).iter();
        others.zip(&self.roles[range]).map(|(index, role)| Dependency { index: *index as Index, role: *role })
    }

    /// What a target asks of files and machine: places among the plan's questions.
    pub fn reads(&self, index: Index) -> &[u32] {
        self.reads.get(index)
    }

    /// How many different questions the plan's targets ask.
    pub fn questions(&self) -> usize {
        self.question_sorts.len()
    }

    /// Asks about a glob on behalf of nobody among the targets; gives the question's place.
    pub fn ask_about(&mut self, glob: &str) -> u32 {
        let place = (0..self.questions()).find(|q| self.question(*q) == Question::Glob("", glob));
        place.unwrap_or_else(|| {
            self.question_sorts.push(Sort::Glob);
            self.question_texts.push(&format!("\0{glob}"));
            self.questions() - 1
        }) as u32
    }

    /// Adds a target as the lock of a revision has it, on behalf of nobody among the targets. It stands on nothing, so it may
    /// stand behind all.
    pub fn add_at_revision(&mut self, name: &str) -> Index {
        let index = self.len();
        let declared = at_revision(name).and_then(|(label, _)| self.find(label));
        let decl = decl_at_revision(name, declared.map_or_else(Span::default, |declared| self.place(declared)));
        self.labels.push(name);
        self.kinds.push(AT_REVISION);
        self.needs.push(pack(&kind_of(&decl).needs(&decl)));
        self.places.push(decl.span(""));
        self.dependencies.push([]);
        self.question_sorts.push(Sort::AtRevision);
        self.question_texts.push(name);
        self.reads.push([self.question_sorts.len() as u32 - 1]);
        let outermost = self.bases.iter().position(str::is_empty);
        let base = outermost.unwrap_or_else(|| {
            self.bases.push("");
            self.bases.len() - 1
        });
        self.base_of.push(u16::try_from(base).expect("recipes are refused with more projects"));
        self.tags.push([]);
        self.decl_ends.push(self.decl_ends.last().copied().unwrap_or_default());
        let at = self.by_label.partition_point(|i| self.name(*i as usize) < name);
        self.by_label.insert(at, index as u32);
        index
    }

    /// A question by its place.
    pub fn question(&self, place: usize) -> Question<'_> {
        let text = self.question_texts.get(place);
        match self.question_sorts[place] {
            Sort::File => Question::File(text),
            Sort::Glob => {
                let (base, glob) = text.split_once('\0').expect("written so");
                Question::Glob(base, glob)
            }
            Sort::Variable => Question::Variable(text),
            Sort::Tool => Question::Tool(text),
            Sort::Machine => Question::Machine,
            Sort::Python => {
                let (version, lock) = text.split_once('\0').expect("written so");
                Question::Python(version, lock)
            }
            Sort::AtRevision => Question::AtRevision(text),
        }
    }

    /// The bytes of all declarations, to be kept beside the plan.
    pub fn decl_bytes(&self) -> &[u8] {
        self.decls.get().map_or(&[], Vec::as_slice)
    }

    /// Where the bytes of a target's declaration lie among those of all.
    pub fn decl_range(&self, index: Index) -> Range<usize> {
        let start = if index == 0 { 0 } else { self.decl_ends[index - 1] };
        start as usize..self.decl_ends[index] as usize
    }

    /// Takes up the bytes of all declarations, where the plan was read back without them.
    pub fn set_decl_bytes(&self, bytes: Vec<u8>) {
        let _ = self.decls.set(bytes);
    }

    /// A target's declaration; `load` gives its bytes where the plan was read back without them.
    pub fn decl<E>(&self, index: Index, load: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Decl, E> {
        if self.is_at_revision(index) {
            return Ok(decl_at_revision(self.name(index), self.place(index)));
        }
        let text = match self.decls.get() {
            Some(bytes) => Cow::Borrowed(&bytes[self.decl_range(index)]),
            None => Cow::Owned(load()?),
        };
        Ok(Decl {
            kind: self.kind(index).schema().name.to_owned(),
            label: self.label(index),
            base: self.base(index).to_owned(),
            tags: self.tags(index).map(str::to_owned).collect(),
            fields: serde_json::from_slice(&text).expect("the plan wrote it"),
            spans: BTreeMap::from([(String::new(), self.place(index))]),
        })
    }

    /// The directory of a target's project below the outermost one; empty for the outermost.
    pub fn base(&self, index: Index) -> &str {
        self.bases.get(usize::from(self.base_of[index]))
    }

    /// The words a target can be chosen by.
    pub fn tags(&self, index: Index) -> impl Iterator<Item = &str> {
        self.tags.get(index).iter().map(|tag| self.tag_names.get(*tag as usize))
    }

    /// The target of this label.
    pub fn find(&self, label: &str) -> Option<Index> {
        let at = self.by_label.binary_search_by(|i| self.name(*i as usize).cmp(label)).ok()?;
        Some(self.by_label[at] as Index)
    }

    /// The chosen targets and all they stand on, in topological order.
    pub fn closure(&self, chosen: &[Index]) -> Vec<Index> {
        let mut wanted = vec![false; self.len()];
        chosen.iter().for_each(|i| wanted[*i] = true);
        for i in (0..self.len()).rev() {
            if wanted[i] {
                self.dependencies.get(i).iter().for_each(|d| wanted[*d as Index] = true);
            }
        }
        (0..wanted.len()).filter(|i| wanted[*i]).collect()
    }
}

/// The plan's questions while they are gathered: each is asked once, however many targets ask it.
#[derive(Default)]
struct Questions {
    places: HashMap<(Sort, String), u32>,
}

impl Questions {
    fn of(&mut self, plan: &mut Plan, decl: &Decl, needs: &Needs) -> Vec<u32> {
        let mut asked = Vec::new();
        let mut ask = |sort, text: Cow<'_, str>| {
            let place = *self.places.entry((sort, text.into_owned())).or_insert_with_key(|(sort, text)| {
                plan.question_sorts.push(*sort);
                plan.question_texts.push(text);
                plan.question_sorts.len() as u32 - 1
            });
            if !asked.contains(&place) {
                asked.push(place);
            }
        };
        walk(kind_of(decl).schema(), &decl.fields, &mut |visit| {
            let text = visit.value.as_str().unwrap_or_default();
            match visit.ty {
                Type::File => ask(Sort::File, Cow::Owned(file_below(&decl.base, text))),
                Type::Glob => ask(Sort::Glob, Cow::Owned(format!("{}\0{text}", decl.base))),
                Type::Variable => ask(Sort::Variable, Cow::Borrowed(text)),
                Type::Tool => ask(Sort::Tool, Cow::Borrowed(text)),
                Type::Holding(files) => {
                    for (name, _) in files {
                        ask(Sort::File, Cow::Owned(file_below(&decl.base, &file_in(text, name))));
                    }
                }
                Type::Python(project) => {
                    let lock = file_below(&decl.base, &lock_of(&decl.fields, project));
                    ask(Sort::Python, Cow::Owned(format!("{text}\0{lock}")));
                }
                Type::AtRevision => ask(Sort::AtRevision, Cow::Borrowed(text)),
                _ => {}
            }
        });
        if needs.measures {
            ask(Sort::Machine, Cow::Borrowed(""));
        }
        asked
    }
}

/// A file's path from the outermost root.
pub fn file_below(base: &str, path: &str) -> String {
    if base.is_empty() { path.to_owned() } else { format!("{base}/{path}") }
}

/// The place of a text in a table, where it is put if it is new.
fn number(known: &mut HashMap<String, u32>, table: &mut Texts, text: &str) -> u32 {
    if let Some(number) = known.get(text) {
        return *number;
    }
    let number = table.len() as u32;
    table.push(text);
    known.insert(text.to_owned(), number);
    number
}

fn pack(needs: &Needs) -> u8 {
    let pool = match needs.pool {
        Pool::Cpu => 0,
        Pool::Machine => 1,
        Pool::Network => 2,
        Pool::Gpu => 3,
    };
    pool | u8::from(needs.repeatable) << 4 | u8::from(needs.measures) << 5
}

fn unpack(packed: u8) -> Needs {
    let pool = match packed & 15 {
        1 => Pool::Machine,
        2 => Pool::Network,
        3 => Pool::Gpu,
        _ => Pool::Cpu,
    };
    Needs { pool, repeatable: packed & 16 != 0, measures: packed & 32 != 0 }
}

/// The declarations, each preceded by its parts, and theirs.
fn with_parts(decls: Vec<Decl>) -> Vec<Decl> {
    fn add(decl: Decl, all: &mut Vec<Decl>) {
        for part in kind_of(&decl).parts(&decl) {
            let part_kind = kind::find(part.kind).expect("a part is of a known kind");
            let mut fields = part.fields;
            fill_defaults(part_kind.schema(), &mut fields);
            // What a target is made with, its parts are.
            if let Some(backend) = decl.fields["backend"].as_str()
                && part_kind.schema().children.iter().any(|child| child.name == BACKEND.name)
            {
                fields[BACKEND.name] = backend.into();
            }
            Terms::hand_on(&decl.fields, &mut fields);
            let spans = BTreeMap::from([(String::new(), decl.span(""))]);
            let (kind, label, base) = (part.kind.to_owned(), decl.label.part(&part.name), decl.base.clone());
            add(Decl { kind, label, base, tags: Vec::new(), fields, spans }, all);
        }
        all.push(decl);
    }
    let mut all = Vec::with_capacity(decls.len());
    decls.into_iter().for_each(|decl| add(decl, &mut all));
    all
}

/// The declarations, and behind them each declared target that one of them names as a revision has it.
fn with_revisions(mut decls: Vec<Decl>) -> Vec<Decl> {
    let mut named: BTreeMap<String, Span> = BTreeMap::new();
    for decl in &decls {
        walk(kind_of(decl).schema(), &decl.fields, &mut |visit| {
            let text = visit.value.as_str().filter(|text| visit.ty.is_label() && text.contains('@'));
            if let Some(text) = text {
                named.entry(resolve(&decl.base, text)).or_insert_with(|| decl.span(&visit.path));
            }
        });
    }
    if !named.is_empty() {
        let declared: HashSet<&str> = decls.iter().map(|decl| decl.label.as_str()).collect();
        named.retain(|name, _| at_revision(name).is_some_and(|(label, _)| declared.contains(label)));
        decls.extend(named.into_iter().map(|(name, span)| decl_at_revision(&name, span)));
    }
    decls
}

fn dependencies(
    decl: &Decl,
    decls: &[Decl],
    by_label: &HashMap<&str, Index>,
    others: &BTreeSet<String>,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |index: Index, role: Role| {
        if seen.insert(index) {
            found.push(Dependency { index, role });
        }
    };
    for part in kind_of(decl).parts(decl) {
        add(by_label[decl.label.part(&part.name).as_str()], Role::Part);
    }
    let mut named = Vec::new();
    walk(kind_of(decl).schema(), &decl.fields, &mut |visit| {
        if !visit.ty.is_label() {
            return;
        }
        let text = visit.value.as_str().unwrap_or_default();
        let whole = resolve(&decl.base, text);
        match by_label.get(whole.as_str()) {
            Some(index) => {
                // At a revision it is of the kind that it is now: the lock says none.
                let is_at_revision = decls[*index].kind == kind::AT_REVISION.schema().name;
                let rev = at_revision(&whole).filter(|_| is_at_revision);
                let declared = rev.map_or(*index, |(label, _)| by_label[label]);
                if let Some((_, rev)) = rev
                    && let Some(base) = kind_of(&decls[declared]).alongside(&decls[declared]).first()
                {
                    let message = format!("`{text}` is of no use without `{base}` of that revision");
                    let mistake = Mistake::new("recipe::at_revision", message)
                        .mark(sources, decl.span(&visit.path), format!("`{}` stands on it", decl.label))
                        .mark(sources, decls[declared].span(""), format!("stands on `{base}`"));
                    let help = format!(
                        "name a target at {rev} that stands by itself: a `merge` of it, or a `quantized` model from it"
                    );
                    mistakes.push(mistake.help(help));
                }
                let kind = &decls[declared].kind;
                if let Type::Of(wanted) = visit.ty
                    && wanted != kind
                {
                    let message = format!("`{text}` is of kind `{kind}`, and `{wanted}` is wanted");
                    let mistake = Mistake::new("recipe::wrong_kind", message)
                        .mark(sources, decl.span(&visit.path), format!("`{}` stands on it", decl.label))
                        .mark(sources, decls[declared].span(""), "this");
                    mistakes.push(mistake.help(format!("name a target of kind `{wanted}`")));
                }
                named.push(*index);
            }
            None if decl.label.is_part()
                || others.contains(at_revision(&whole).map_or(&*whole, |(label, _)| label)) =>
            {
                // The target this is a part of names the same label and reports it; or it is reported as unfinished.
            }
            None => {
                let labels = decls.iter().map(|d| d.label.as_str()).filter(|l| !is_implied(l));
                let (label, rev) = match at_revision(&whole) {
                    Some((label, rev)) => (label, format!("@{rev}")),
                    None => (&*whole, String::new()),
                };
                let help = match nearest(label, labels) {
                    Some(near) => format!("did you mean \"{}{rev}\"?", seen_from(&decl.base, near)),
                    None => "`effai graph` shows the targets there are".into(),
                };
                let text = text.strip_suffix(&rev).unwrap_or(text);
                mistakes.push(
                    Mistake::new("recipe::unknown_target", format!("there is no target `{text}`"))
                        .mark(sources, decl.span(&visit.path), format!("`{}` stands on it", decl.label))
                        .help(help),
                );
            }
        }
    });
    for index in &named {
        add(*index, Role::Named);
    }
    for index in named {
        let other = &decls[index];
        for label in kind_of(other).alongside(other) {
            if let Some(beside) = by_label.get(resolve(&other.base, &label).as_str()) {
                add(*beside, Role::Alongside);
            }
        }
    }
    let of = |d: &Dependency| (*d, decls[d.index].label.as_str(), decls[d.index].base.as_str());
    if let Err(SameName { name, .. }) = input_names(&decl.base, &found.iter().map(of).collect::<Vec<_>>()) {
        let message = format!("`{name}` would be two different targets to `{}`", decl.label);
        mistakes.push(
            Mistake::new("recipe::same_name", message)
                .mark(sources, decl.span(""), "stands on both, of different projects")
                .help("give one of them another label"),
        );
    }
    found
}

/// A topological order that keeps to the given one where it can, or the members of a cycle.
fn topological(edges: &[Vec<Dependency>]) -> Result<Vec<Index>, Vec<Index>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    for start in 0..edges.len() {
        if marks[start] == Mark::Done {
            continue;
        }
        marks[start] = Mark::Open;
        // An explicit stack: a chain of a hundred thousand targets must not end the process's own.
        let mut stack: Vec<(Index, usize)> = vec![(start, 0)];
        while let Some((node, next)) = stack.last_mut() {
            let node = *node;
            match edges[node].get(*next) {
                Some(dependency) => {
                    *next += 1;
                    let other = dependency.index;
                    match marks[other] {
                        Mark::Done => {}
                        Mark::New => {
                            marks[other] = Mark::Open;
                            stack.push((other, 0));
                        }
                        Mark::Open => {
                            let from = stack.iter().position(|(n, _)| *n == other).unwrap_or(0);
                            return Err(stack[from..].iter().map(|(n, _)| *n).collect());
                        }
                    }
                }
                None => {
                    marks[node] = Mark::Done;
                    order.push(node);
                    stack.pop();
                }
            }
        }
    }
    Ok(order)
}

fn cycle_mistake(cycle: &[Index], decls: &[Decl], sources: &Sources) -> Mistake {
    let mut names: Vec<&str> = cycle.iter().map(|i| decls[*i].label.as_str()).collect();
    names.push(names[0]);
    let mut mistake = Mistake::new("recipe::cycle", format!("targets stand on one another: {}", names.join(" -> ")));
    for (i, index) in cycle.iter().enumerate() {
        let decl = &decls[*index];
        let next = names[i + 1];
        let mut span = decl.span("");
        walk(kind_of(decl).schema(), &decl.fields, &mut |visit| {
            let label = visit.ty.is_label();
            if label && visit.value.as_str().is_some_and(|text| resolve(&decl.base, text) == next) {
                span = decl.span(&visit.path);
            }
        });
        mistake = mistake.mark(sources, span, format!("{} stands on {next}", decl.label));
    }
    mistake.help("take one of these references away")
}
