//! What may stand in a recipe besides the fields of kinds: settings of the project, and what every target takes.

use super::on_change;
use super::remote;
use super::schema::{Prop, Schema, Type};
use super::terms;

/// When the lock is written: [`super::load::Settings::always_lock`].
pub const LOCK_WHEN: &[&str] = &["asked", "always"];

/// Nodes at the top of a recipe that are no targets.
pub static SETTINGS: [Schema; 9] = [
    Schema::new("project", "The project's name.").arg("name", Type::Text),
    Schema::new("recipes", "Recipes to read besides this file, by path or glob from the project's root.")
        .many_args("recipes", Type::Glob)
        .many(),
    Schema::new(
        "include",
        "Recipes to read besides this file, by path or glob from this file's directory. Each is read once, \
         so recipes may include one another.",
    )
    .many_args("recipes", Type::Glob)
    .many(),
    Schema::new(
        "projects",
        "Directories below, by path or glob, that are projects with an effai.kdl of their own: their targets are \
         seen under the directory's path. Only in effai.kdl.",
    )
    .many_args("directories", Type::Glob)
    .many(),
    Schema::new("cache", "Where the store of artifacts is, how large it may grow, and where builds look.").props(&[
        Prop::new("size", Type::Text, "how large it may grow, such as \"20 GiB\""),
        Prop::new("dir", Type::Text, "where it is, from the project's root"),
        Prop::new("policy", Type::Text, "what `--cache` is where it is not said, such as \"local:rw,remote:rw\""),
    ]),
    Schema::new("lock", "When a build writes effai.lock: where it is asked to (`--lock`), or always.")
        .arg("when", Type::Choice(LOCK_WHEN)),
    remote::SCHEMA,
    Schema::new("default", "What `effai build` makes when nothing is named: labels, globs, tags.")
        .many_args("targets", Type::Label)
        .many(),
    on_change::SCHEMA,
];

/// `matrix` of a declaration.
pub static MATRIX: Schema = Schema::new(
    "matrix",
    "Makes one target for each combination of its values: {NAME} in the label and in any text is replaced.",
);

/// `profile` of a declaration.
pub static PROFILE: Schema =
    Schema::new("profile", "Fields laid over the declaration's when it is built with --profile NAME.")
        .arg("name", Type::Text)
        .many();

/// `tags` of a declaration.
pub static TAGS: Schema =
    Schema::new("tags", "Words to choose the target by, `effai build tag:WORD`; no facts, so they rebuild nothing.")
        .many_args("words", Type::Text);

/// What every declaration takes besides the fields of its kind.
pub static OF_EVERY_TARGET: [&Schema; 6] = [&MATRIX, &PROFILE, &TAGS, &terms::AT_MOST, &terms::RETRY, &terms::GUARD];
