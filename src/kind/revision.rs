//! A target as the lock of a git revision has it: `LABEL@REV`, wherever a label stands.
//!
//! No recipe declares one: it is implied by whoever names it, as parts are. Its one fact is the artifact that the lock names,
//! so a branch that moves makes it another one, and nothing else does. Nothing runs for it: the store has the artifact, or a
//! remote, or it is not to be had.

use super::{ActionCx, How, Kind, Needs, Run};
use crate::failure::Failure;
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Schema, Type};

/// The kind.
#[derive(Debug)]
pub(super) struct AtRevision;

static SCHEMA: Schema = Schema::new("at-revision", "A target as the lock of a git revision has it.")
    .children(&[Schema::new("of", "Which, and when.").arg("name", Type::AtRevision).required()]);

impl Kind for AtRevision {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn version(&self) -> u32 {
        1
    }

    /// There is no second run to compare with.
    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { repeatable: false, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for AtRevision {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        Err(Failure::target(format!("a bug in effai: nothing runs for {}", cx.decl.label)))
    }
}
