//! What an action calls the artifacts it stands on: labels as its own project's recipe has them.

use std::collections::BTreeMap;

use super::graph::{Dependency, Index, Plan, Role};
use super::seen_from;

impl Plan {
    /// What a target's action calls each artifact it stands on: the labels as its recipe has them, and for what lies
    /// alongside also as the recipe has it that named it, since such a name is written into that artifact.
    pub fn input_names(&self, index: Index) -> BTreeMap<String, Index> {
        let dependencies = self.dependencies(index).map(|d| (d, self.name(d.index), self.base(d.index)));
        input_names(self.base(index), &dependencies.collect::<Vec<_>>()).unwrap_or_else(|names| names.names)
    }
}

/// Two artifacts that an action would call by one name.
pub(super) struct SameName {
    pub(super) name: String,
    names: BTreeMap<String, Index>,
}

/// See [`Plan::input_names`]; dependencies with their labels and the directories of their projects.
pub(super) fn input_names(
    base: &str,
    dependencies: &[(Dependency, &str, &str)],
) -> Result<BTreeMap<String, Index>, SameName> {
    let mut names = BTreeMap::new();
    let mut twice = None;
    let mut add = |name: String, index: Index| {
        if *names.entry(name.clone()).or_insert(index) != index {
            twice.get_or_insert(name);
        }
    };
    for (dependency, label, _) in dependencies {
        add(seen_from(base, label), dependency.index);
    }
    let alongside = || dependencies.iter().filter(|(d, ..)| d.role == Role::Alongside);
    for (_, _, other) in dependencies.iter().filter(|(d, _, other)| d.role == Role::Named && *other != base) {
        alongside().for_each(|(dependency, label, _)| add(seen_from(other, label), dependency.index));
    }
    match twice {
        None => Ok(names),
        Some(name) => Err(SameName { name, names }),
    }
}
