//! What could be in std.

pub mod fs;
pub mod machine;
pub mod sqlite;
pub mod text;
