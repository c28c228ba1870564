//! effai: `make` for machine-learning files.
//!
//! The modules stand in the order a build passes through them; `docs/architecture.md` is the long form.
//!
//! ```text
//! recipe -> plan -> fingerprint -> schedule -> action -> store -> record -> report
//! ```
//!
//! [`engine`] walks that path, [`cli`] calls [`engine`] and is the only user of the terminal besides [`ui`].
//! [`kind`] holds what effai can make, one file a kind; those stand on [`train`], [`quantize`], [`model`], [`backend`]
//! and `format`, which know nothing of builds.

#[doc(inline)]
pub use effai_backend as backend;

pub mod fingerprint;
pub mod plan;
pub mod recipe;

pub mod cli;
pub mod export;
pub mod format;
pub mod git;
pub mod kind;
pub mod lock;
pub mod lsp;
pub mod measure;
pub mod model;
pub mod provenance;
pub mod quantize;
pub mod report;
pub mod score;
pub mod train;
pub mod ui;

pub mod action;
pub mod engine;
pub mod record;
pub mod remote;
pub mod schedule;
pub mod store;
pub mod watch;

pub mod env;
pub mod event;
pub mod failure;
pub mod util;
