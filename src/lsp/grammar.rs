//! What may stand where in a recipe: the kinds' schemas, and what is no kind's.

use crate::kind::{self, KINDS};
use crate::recipe::on_change;
use crate::recipe::outline::{Item, Word};
use crate::recipe::schema::{Args, Prop, Schema, Type};

/// What a node is, by its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meaning {
    /// What may stand in it.
    pub(super) schema: &'static Schema,
    /// What sort of node it is.
    pub(super) sort: Sort,
}

/// A sort of node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sort {
    /// Of the project: `recipes`, `default`.
    Setting,
    /// A declaration. Its first argument is its label.
    Target,
    /// A field of a declaration, at any depth.
    Field,
    /// A field whose name is the user's own, and the type of its value.
    Column(Type),
    /// `matrix` of a declaration.
    Matrix,
    /// One line of a matrix.
    Axis,
    /// `profile` of a declaration of this kind.
    Profile(&'static Schema),
}

static SETTINGS: [&Schema; 5] = [&PROJECT[0], &PROJECT[1], &PROJECT[2], &PROJECT[3], &on_change::SCHEMA];

static PROJECT: [Schema; 4] = [
    Schema::new("project", "The project's name.").arg("name", Type::Text),
    Schema::new("recipes", "Recipes to read besides this file, by path or glob from the project's root.")
        .many_args("recipes", Type::Glob),
    Schema::new("cache", "Where the store of artifacts is, and how large it may grow.").props(&[
        Prop::new("size", Type::Text, "how large it may grow, such as \"20 GiB\""),
        Prop::new("dir", Type::Text, "where it is, from the project's root"),
    ]),
    Schema::new("default", "What `effai build` makes when nothing is named.").many_args("targets", Type::Label),
];

static MATRIX: Schema = Schema::new(
    "matrix",
    "Makes one target for each combination of its values: {NAME} in the label and in any text is replaced.",
);

static PROFILE: Schema =
    Schema::new("profile", "Fields laid over the declaration's when it is built with --profile NAME.")
        .arg("name", Type::Text);

static FREE: Schema = Schema::new("", "");

/// The names that may stand at the top of a recipe.
pub(super) fn tops() -> Vec<&'static str> {
    SETTINGS.iter().copied().chain(KINDS.iter().map(|k| k.schema())).map(|s| s.name).collect()
}

/// The meaning of a node at the top.
pub(super) fn top(name: &str) -> Option<Meaning> {
    if let Some(kind) = kind::find(name) {
        return Some(Meaning { schema: kind.schema(), sort: Sort::Target });
    }
    SETTINGS.iter().copied().find(|s| s.name == name).map(|schema| Meaning { schema, sort: Sort::Setting })
}

/// The meaning of the last of these nodes, each of which lies in the one before.
pub(super) fn meaning(path: &[&Item]) -> Option<Meaning> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(top(&first.name.text)?, |above, item| above.child(&item.name.text))
}

/// What may stand among the children of a node, or at the top.
pub(super) fn children(of: Option<Meaning>) -> Vec<Meaning> {
    match of {
        None => tops().into_iter().filter_map(top).collect(),
        Some(above) => above.children(),
    }
}

impl Meaning {
    /// The meaning of a child of this name.
    pub(super) fn child(self, name: &str) -> Option<Meaning> {
        if let Some(found) = self.children().into_iter().find(|m| m.schema.name == name) {
            return Some(found);
        }
        match self.sort {
            Sort::Matrix => Some(Meaning { schema: &FREE, sort: Sort::Axis }),
            _ => self.schema.open.map(|ty| Meaning { schema: &FREE, sort: Sort::Column(ty) }),
        }
    }

    fn children(self) -> Vec<Meaning> {
        let schema = match self.sort {
            Sort::Profile(kind) => kind,
            _ => self.schema,
        };
        let mut all: Vec<Meaning> =
            schema.children.iter().map(|schema| Meaning { schema, sort: Sort::Field }).collect();
        if let Sort::Target = self.sort {
            all.push(Meaning { schema: &MATRIX, sort: Sort::Matrix });
            all.push(Meaning { schema: &PROFILE, sort: Sort::Profile(self.schema) });
        }
        all
    }

    /// The type of an argument, counted from 0. A declaration's label has none.
    pub(super) fn argument(self, number: usize) -> Option<Type> {
        let number = match self.sort {
            Sort::Column(ty) => return (number == 0).then_some(ty),
            Sort::Target => number.checked_sub(1)?,
            _ => number,
        };
        match self.schema.args {
            Args::One(_, ty) | Args::Optional(_, ty) => (number == 0).then_some(ty),
            Args::Many(_, ty) => Some(ty),
            Args::None => None,
        }
    }

    /// The property of this name.
    pub(super) fn property(self, name: &str) -> Option<&'static Prop> {
        self.schema.props.iter().find(|p| p.name == name)
    }

    /// The type of a word of the node; `number` counts arguments.
    pub(super) fn word(self, word: &Word, number: usize) -> Option<Type> {
        match &word.key {
            Some((name, _)) => self.property(name).map(|p| p.ty),
            None => self.argument(number),
        }
    }
}
