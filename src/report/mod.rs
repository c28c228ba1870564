//! Measurements to numbers with intervals, tables, pictures and pages; never measures.
//!
//! [`numbers`] is what a report holds, with intervals by [`crate::measure::estimate`]; [`words`], [`tables`], [`figures`] and
//! [`page`] are four readings of it that [`files`] writes with a [`card`] of a model, and [`shown`] is whom they have room for, in the
//! order of its [`measures`]; [`mod@over`] is where each is in the matrix that made it.
//! What is of picture-text models alone is in [`retrieval`], what is of language models in [`language`], of encoders in
//! [`encoders`], of numbers that programs told in [`told`], of their predictions in [`predictions`], of their times in
//! [`timing`], each with its part of the four; what is of roundings of a model, of either sort, in [`quantization`]. Artifacts
//! stand [`beside`] each other with what reports say of them. Of builds, [`graph`] draws what there is, [`trace`] what took the
//! time, [`why`] says what changed, [`tested`] how tests ended, and [`guards`] what numbers crossed. [`mod@reference`] is what
//! may stand in a recipe.

pub mod beside;
pub mod card;
pub mod encoders;
pub mod figures;
pub mod files;
pub mod graph;
pub mod guards;
pub mod language;
pub mod measures;
pub mod numbers;
pub mod over;
pub mod page;
pub mod plot;
pub mod predictions;
pub mod quantization;
pub mod reference;
pub mod retrieval;
pub mod shown;
pub mod tables;
pub mod tested;
pub mod timing;
pub mod told;
pub mod trace;
pub mod why;
pub mod words;
