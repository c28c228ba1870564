//! KDL text to typed declarations, each with its place.
//!
//! Start reading at [`schema`]: what may stand in a recipe is data, and everything else follows from it.

pub mod check;
pub mod decl;
pub mod expand;
pub mod format;
pub mod glob;
pub mod grammar;
pub mod load;
pub mod mistake;
pub mod node;
pub mod on_change;
pub mod outline;
pub mod parse;
pub mod policy;
pub mod remote;
pub mod roots;
pub mod schema;
pub mod source;
pub mod terms;
pub mod texts;
pub mod tokens;
pub mod walk;
