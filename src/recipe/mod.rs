//! KDL text to typed declarations, each with its place.
//!
//! Start reading at [`schema`]: what may stand in a recipe is data, and everything else follows from it.

pub mod decl;
pub mod glob;
pub mod mistake;
pub mod node;
pub mod schema;
pub mod source;
