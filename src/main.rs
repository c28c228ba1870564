//! The `effai` command: everything is in the library.
fn main(){}
