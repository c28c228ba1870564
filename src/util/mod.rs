//! What could be in std.

mod apple;
pub mod dir;
pub mod fault;
pub mod fs;
pub mod machine;
pub mod pages;
pub mod paths;
pub mod sha256;
pub mod sqlite;
pub mod text;
