//! Texts as rows of token ids, and how much of each row is text.
//!
//! Model code does not look at them: it hands them to the operations that read them, [`super::Tensor::embed`],
//! [`super::Tensor::attention`], [`super::Tensor::mean_tokens`], [`super::Tensor::take_tokens`]. So a model can be traced
//! ([`super::trace`]) with texts that are not known yet: those have a shape, and the names of the inputs that they will be.

use std::ops::Deref;
use std::sync::Arc;

use super::{BackendError, Result};

/// Some texts, a row of token ids each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    rows: Vec<Vec<u32>>,
    input: Option<Arc<Named>>,
    are_known: bool,
}

/// The inputs of a graph that texts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Token ids, [texts, longest].
    pub ids: String,
    /// 1 for a token, 0 for padding: [texts, tokens seen].
    pub mask: String,
}

/// The token of a text that one looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The first of this id.
    First(u32),
    /// The first of the highest id.
    Highest,
}

impl Texts {
    /// Of token ids.
    pub fn new(rows: &[Vec<u32>]) -> Self {
        Self { rows: rows.to_vec(), input: None, are_known: true }
    }

    /// Texts that a graph will be given as its inputs. While it is traced there are so many, of so many tokens each.
    pub fn unknown(texts: usize, tokens: usize, named: Named) -> Self {
        Self { rows: vec![vec![0; tokens]; texts], input: Some(Arc::new(named)), are_known: false }
    }

    /// The same where a graph's values are computed while it is traced, with these token ids.
    pub fn given(rows: &[Vec<u32>], named: Named) -> Self {
        Self { rows: rows.to_vec(), input: Some(Arc::new(named)), are_known: true }
    }

    /// The inputs that they are; none where they are no graph's.
    pub fn named(&self) -> Option<&Named> {
        self.input.as_deref()
    }

    /// Whether the token ids are known.
    pub fn are_known(&self) -> bool {
        self.are_known
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Tokens of the longest; 1 where there is none.
    pub fn longest(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// Tokens of each.
    pub fn lengths(&self) -> Lengths {
        self.lengths_after(0)
    }

    /// The same where each goes on from so many tokens.
    pub fn lengths_after(&self, before: usize) -> Lengths {
        let each = self.rows.iter().map(|row| before + row.len()).collect();
        Lengths { each, mask: self.input.as_ref().map(|named| Arc::from(&named.mask[..])) }
    }

    /// All token ids, rows padded with 0 at their ends to the longest.
    pub fn padded(&self) -> Vec<u32> {
        let length = self.longest();
        let mut flat = vec![0u32; self.rows.len() * length];
        for (row, ids) in self.rows.iter().enumerate() {
            flat[row * length..][..ids.len()].copy_from_slice(ids);
        }
        flat
    }

    /// Where the marked token of each is, among those of [`Self::padded`].
    pub fn places(&self, mark: Mark) -> Result<Vec<u32>> {
        let length = self.longest();
        let place = |(row, ids): (usize, &Vec<u32>)| {
            let wanted = match mark {
                Mark::Highest => ids.iter().max().copied().unwrap_or(0),
                Mark::First(id) => id,
            };
            let at = ids.iter().position(|id| *id == wanted).ok_or_else(|| {
                let told = "the tokenizer ends no text with the token";
                BackendError::Library(format!("{told} {wanted}, where the model looks"))
            })?;
            Ok((row * length + at) as u32)
        };
        self.rows.iter().enumerate().map(place).collect()
    }
}

/// How many tokens of each row are no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lengths {
    each: Vec<usize>,
    mask: Option<Arc<str>>,
}

impl Lengths {
    /// The input of a graph that says it; none where it is no graph's.
    pub fn mask(&self) -> Option<&str> {
        self.mask.as_deref()
    }
}

impl From<Vec<usize>> for Lengths {
    fn from(each: Vec<usize>) -> Self {
        Self { each, mask: None }
    }
}

impl Deref for Lengths {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.each
    }
}
