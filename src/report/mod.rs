//! Measurements to numbers with intervals, tables, pictures and pages; never measures.
//!
//! [`numbers`] is what a report holds; [`retrieval`] makes its estimates; [`words`], [`tables`], [`figures`] and
//! [`page`] are four readings of it. Of builds, [`graph`] draws what there is, [`trace`] what took the time, and
//! [`why`] says what changed. [`mod@reference`] is what may stand in a recipe.

pub mod figures;
pub mod graph;
pub mod numbers;
pub mod page;
pub mod plot;
pub mod reference;
pub mod retrieval;
pub mod tables;
pub mod trace;
pub mod why;
pub mod words;
