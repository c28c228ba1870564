//! Measurements to numbers with intervals, tables, pictures and pages; never measures.

pub mod page;
pub mod plot;
pub mod retrieval;
