//! `effai schema`

use super::Output;
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::kind::KINDS;
use crate::recipe::grammar::{OF_EVERY_TARGET, SETTINGS};
use crate::recipe::mistake::nearest;
use crate::report::reference::{find, names, table, table_of, to_json};

/// Say what may stand in a recipe: every kind and field, as Markdown, or with --json for programs
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A kind, or another node such as `recipes`; without one, all
    kind: Option<String>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<u8, EngineError> {
    let name = args.kind.as_deref();
    if let Some(name) = name.filter(|name| find(name).is_none()) {
        let help = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Err(Failure::user(format!("there is no kind `{name}`")).help(help).into());
    }
    if output.json {
        output.object(&to_json(name));
        return Ok(0);
    }
    match name.and_then(find) {
        Some(schema) if KINDS.iter().any(|k| k.schema().name == schema.name) => {
            output.line(&format!("# {}\n\n{}\n\n{}", schema.name, schema.doc, table(schema)));
        }
        Some(schema) => output.line(&table_of(&[schema])),
        None => {
            for schema in KINDS.iter().map(|k| k.schema()) {
                output.line(&format!("# {}\n\n{}\n\n{}\n", schema.name, schema.doc, table(schema)));
            }
            output.line(&format!("# In every target\n\n{}\n", table_of(&OF_EVERY_TARGET)));
            output.line(&format!("# Settings\n\n{}", table_of(&SETTINGS.iter().collect::<Vec<_>>())));
        }
    }
    Ok(0)
}
