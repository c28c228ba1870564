//! Measurements to numbers with intervals, tables, pictures and pages; never measures.
//!
//! [`numbers`] is what a report holds, with intervals by [`estimate`]; [`words`], [`tables`], [`figures`] and [`page`] are
//! four readings of it. What is of picture-text models alone is in [`retrieval`], what is of language models in
//! [`language`], of encoders in [`encoders`], of numbers that programs told in [`told`], each with its part of the four; what
//! is of roundings of a model, of either sort, in [`quantization`]. Of builds, [`graph`] draws what there is, [`trace`] what
//! took the time, [`why`] says what changed, [`tested`] how tests ended, and [`guards`] what numbers crossed. [`mod@reference`] is what may stand in a recipe.

pub mod encoders;
pub mod estimate;
pub mod figures;
pub mod graph;
pub mod guards;
pub mod language;
pub mod numbers;
pub mod page;
pub mod plot;
pub mod quantization;
pub mod reference;
pub mod retrieval;
pub mod tables;
pub mod tested;
pub mod timing;
pub mod told;
pub mod trace;
pub mod why;
pub mod words;
