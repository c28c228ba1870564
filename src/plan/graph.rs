//! Declarations to a checked graph: parts added, references resolved, cycles refused. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Label;
use crate::kind::{self, Kind, Needs};
use crate::recipe::check::fill_defaults;
use crate::recipe::decl::Decl;
use crate::recipe::glob;
use crate::recipe::mistake::{Mistake, Mistakes, nearest};
use crate::recipe::schema::Type;
use crate::recipe::source::Sources;
use crate::recipe::walk::walk;

/// A target's place in [`Plan::targets`].
pub type Index = usize;

/// Every target of a project, each after all that it stands on.
#[derive(Debug)]
pub struct Plan {
    /// In topological order; among equals in the order of the text.
    pub targets: Vec<Target>,
    by_label: BTreeMap<Label, Index>,
}

/// One target and what it stands on.
#[derive(Debug)]
pub struct Target {
    /// Its declaration.
    pub decl: Decl,
    /// What it stands on, without repetition.
    pub dependencies: Vec<Dependency>,
    /// What its action needs.
    pub needs: Needs,
}

/// One thing a target stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// The other target.
    pub index: Index,
    /// Why.
    pub role: Role,
}

/// Why a target stands on another.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// The declaration names it; the artifact's facts are stated by field.
    Named,
    /// A part of it; the part's name.
    Part(String),
    /// A named one is of no use without it.
    Alongside,
}

impl std::fmt::Debug for dyn Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.schema().name)
    }
}

impl Target {
    /// Its kind.
    pub fn kind(&self) -> &'static dyn Kind {
        kind_of(&self.decl)
    }
}

fn kind_of(decl: &Decl) -> &'static dyn Kind {
    kind::find(&decl.kind).expect("a checked declaration is of a known kind")
}

/// What was asked for and is not there.
#[derive(Debug, thiserror::Error)]
#[error("there is no target `{found}`")]
pub struct UnknownTarget {
    /// What was asked for.
    pub found: String,
    /// The nearest label.
    pub near: Option<String>,
}

impl Plan {
    /// Builds the graph. All mistakes are reported together.
    pub fn new(decls: Vec<Decl>, sources: &Sources) -> Result<Self, Mistakes> {
        Self::beside(decls, &BTreeSet::new(), sources)
    }

    /// The graph of some declarations, beside others that have mistakes of their own: a label of those is not unknown.
    pub fn beside(decls: Vec<Decl>, others: &BTreeSet<String>, sources: &Sources) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let decls = with_parts(decls);
        let by_label: BTreeMap<Label, Index> = decls.iter().enumerate().map(|(i, d)| (d.label.clone(), i)).collect();
        let mut edges: Vec<Vec<Dependency>> = Vec::with_capacity(decls.len());
        for decl in &decls {
            edges.push(dependencies(decl, &decls, &by_label, others, sources, &mut mistakes));
        }
        if !mistakes.is_empty() {
            return Err(Mistakes { mistakes });
        }
        let order = match topological(&edges) {
            Ok(order) => order,
            Err(cycle) => return Err(Mistakes { mistakes: vec![cycle_mistake(&cycle, &decls, sources)] }),
        };
        Ok(Self::in_order(decls, edges, &order))
    }

    fn in_order(decls: Vec<Decl>, edges: Vec<Vec<Dependency>>, order: &[Index]) -> Self {
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        let mut slots: Vec<Option<(Decl, Vec<Dependency>)>> = decls.into_iter().zip(edges).map(Some).collect();
        let targets: Vec<Target> = order
            .iter()
            .map(|old| {
                let (decl, mut dependencies) = slots[*old].take().expect("each place is taken once");
                dependencies.iter_mut().for_each(|d| d.index = place[d.index]);
                let needs = kind_of(&decl).needs(&decl);
                Target { decl, dependencies, needs }
            })
            .collect();
        let by_label = targets.iter().enumerate().map(|(i, t)| (t.decl.label.clone(), i)).collect();
        Self { targets, by_label }
    }

    /// The target of this label.
    pub fn find(&self, label: &str) -> Option<Index> {
        self.by_label.get(&Label::new(label)).copied()
    }

    /// The targets that words of the command line name: labels, globs over labels, or paths below `out/`.
    /// Without words, every declared target (not parts).
    pub fn select(&self, words: &[String]) -> Result<Vec<Index>, UnknownTarget> {
        if words.is_empty() {
            return Ok((0..self.targets.len()).filter(|i| !self.targets[*i].decl.label.is_part()).collect());
        }
        let mut chosen = Vec::new();
        for word in words {
            let found = self.matching(word);
            if found.is_empty() {
                let labels = self.by_label.keys().map(Label::as_str).filter(|l| !l.contains(':'));
                let near = nearest(word, labels).map(str::to_owned);
                return Err(UnknownTarget { found: word.clone(), near });
            }
            chosen.extend(found);
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }

    fn matching(&self, word: &str) -> Vec<Index> {
        let word = word.strip_prefix("./").unwrap_or(word).trim_end_matches('/');
        if let Some(index) = self.find(word) {
            return vec![index];
        }
        if let Some(path) = word.strip_prefix("out/") {
            // `out/models/x/config.json` means the target whose artifact holds that file.
            return std::path::Path::new(path).ancestors().find_map(|p| self.find(p.to_str()?)).into_iter().collect();
        }
        if !glob::is_glob(word) {
            return Vec::new();
        }
        let Ok(matcher) = glob::compile(word) else { return Vec::new() };
        self.by_label.iter().filter(|(l, _)| !l.is_part() && matcher.is_match(l.as_str())).map(|(_, i)| *i).collect()
    }

    /// The chosen targets and all they stand on, in topological order.
    pub fn closure(&self, chosen: &[Index]) -> Vec<Index> {
        let mut wanted = vec![false; self.targets.len()];
        chosen.iter().for_each(|i| wanted[*i] = true);
        for i in (0..self.targets.len()).rev() {
            if wanted[i] {
                self.targets[i].dependencies.iter().for_each(|d| wanted[d.index] = true);
            }
        }
        (0..wanted.len()).filter(|i| wanted[*i]).collect()
    }
}

/// The declarations, each preceded by its parts, and theirs.
fn with_parts(decls: Vec<Decl>) -> Vec<Decl> {
    fn add(decl: Decl, all: &mut Vec<Decl>) {
        for part in kind_of(&decl).parts(&decl) {
            let part_kind = kind::find(part.kind).expect("a part is of a known kind");
            let mut fields = part.fields;
            fill_defaults(part_kind.schema(), &mut fields);
            let spans = BTreeMap::from([(String::new(), decl.span(""))]);
            add(Decl { kind: part.kind.to_owned(), label: decl.label.part(&part.name), fields, spans }, all);
        }
        all.push(decl);
    }
    let mut all = Vec::with_capacity(decls.len());
    decls.into_iter().for_each(|decl| add(decl, &mut all));
    all
}

fn dependencies(
    decl: &Decl,
    decls: &[Decl],
    by_label: &BTreeMap<Label, Index>,
    others: &BTreeSet<String>,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    let mut add = |index: Index, role: Role| {
        if !found.iter().any(|d| d.index == index) {
            found.push(Dependency { index, role });
        }
    };
    for part in kind_of(decl).parts(decl) {
        add(by_label[&decl.label.part(&part.name)], Role::Part(part.name));
    }
    let mut named = Vec::new();
    walk(kind_of(decl).schema(), &decl.fields, &mut |visit| {
        if !matches!(visit.ty, Type::Label | Type::NamedLabel) {
            return;
        }
        let text = visit.value.as_str().unwrap_or_default();
        match by_label.get(&Label::new(text)) {
            Some(index) => named.push(*index),
            None if decl.label.is_part() || others.contains(text) => {
                // The target this is a part of names the same label and reports it; or it is reported as unfinished.
            }
            None => {
                let help = match nearest(text, by_label.keys().map(Label::as_str).filter(|l| !l.contains(':'))) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "`effai graph` shows the targets there are".into(),
                };
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
            if let Some(beside) = by_label.get(&Label::new(&label)) {
                add(*beside, Role::Alongside);
            }
        }
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
            if matches!(visit.ty, Type::Label | Type::NamedLabel) && visit.value.as_str() == Some(next) {
                span = decl.span(&visit.path);
            }
        });
        mistake = mistake.mark(sources, span, format!("{} stands on {next}", decl.label));
    }
    mistake.help("take one of these references away")
}
