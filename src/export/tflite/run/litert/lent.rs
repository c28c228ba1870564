//! Memory that is lent to LiteRT, and what it holds.

use std::ffi::{c_int, c_void};

use super::api;
use crate::export::source::Values;
use crate::export::written::Array;

/// A tensor in memory that is lent to LiteRT while it runs.
pub(in crate::export) struct Lent {
    pub(super) element: c_int,
    pub(super) shape: Vec<usize>,
    pub(super) memory: Memory,
}

impl Lent {
    pub(super) fn new(shape: Vec<usize>, values: Values) -> Result<Self, String> {
        let (element, count) = match &values {
            Values::Floats(values) => (api::FLOAT32, values.len()),
            Values::Integers(values) => (api::INT32, values.len()),
            Values::Bytes(values) => (api::UINT8, values.len()),
        };
        if product(shape.iter().copied()) != Some(count) {
            return Err(format!("{count} values are none of the shape {shape:?}"));
        }
        let words: Vec<u32> = match values {
            Values::Floats(values) => values.into_iter().map(f32::to_bits).collect(),
            Values::Integers(values) => values.into_iter().map(i32::cast_unsigned).collect(),
            Values::Bytes(values) => {
                let word = |bytes: &[u8]| {
                    let mut word = [0; 4];
                    word[..bytes.len()].copy_from_slice(bytes);
                    u32::from_ne_bytes(word)
                };
                values.chunks(4).map(word).collect()
            }
        };
        let mut memory = Memory::new(words.len());
        memory.words_mut().copy_from_slice(&words);
        Ok(Self { element, shape, memory })
    }

    /// Room for so many floats.
    pub(super) fn room(count: usize) -> Self {
        Self { element: api::FLOAT32, shape: vec![count], memory: Memory::new(count) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.element == api::UINT8 { 1 } else { 4 }
    }

    /// The length of each axis, and the last `count` values, all where that is 0; none of what is no tensor of floats.
    pub(in crate::export) fn floats(&self, count: usize) -> Option<Array> {
        if self.element != api::FLOAT32 {
            return None;
        }
        let words = &self.memory.words()[..self.shape.iter().product()];
        let begin = if count == 0 { 0 } else { words.len().saturating_sub(count) };
        Some((self.shape.clone(), words[begin..].iter().map(|word| f32::from_bits(*word)).collect()))
    }
}

/// Words that lie as LiteRT wants memory to that it does not make itself.
pub(super) struct Memory {
    words: Vec<u32>,
    begin: usize,
    count: usize,
}

impl Memory {
    /// Kernels read so many words past the end, and do nothing with them (`XNN_EXTRA_BYTES` of xnnpack.h).
    const EXTRA: usize = 32;

    fn new(count: usize) -> Self {
        let words = vec![0; count + api::ALIGNMENT / size_of::<u32>() + Self::EXTRA];
        let begin = words.as_ptr().align_offset(api::ALIGNMENT);
        Self { words, begin, count }
    }

    fn words(&self) -> &[u32] {
        &self.words[self.begin..][..self.count]
    }

    fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words[self.begin..][..self.count]
    }

    /// How many values of 32 bits it has room for.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// For LiteRT, which may read what comes after the words too.
    pub(super) fn pointer(&mut self) -> *mut c_void {
        self.words[self.begin..].as_mut_ptr().cast()
    }
}

/// How many values a shape has; none of what is no number of a machine.
pub(super) fn product(mut lengths: impl Iterator<Item = usize>) -> Option<usize> {
    lengths.try_fold(1usize, usize::checked_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lies_as_it_has_to_and_holds_what_is_given() {
        let lent = Lent::new(vec![2, 3], Values::Floats(vec![0.5, -1.0, 2.0, 3.0, 4.0, -0.0])).unwrap();
        assert_eq!(lent.memory.words().as_ptr().align_offset(api::ALIGNMENT), 0);
        assert_eq!(lent.floats(0), Some((vec![2, 3], vec![0.5, -1.0, 2.0, 3.0, 4.0, -0.0])));
        assert_eq!(lent.floats(2).map(|(_, values)| values), Some(vec![4.0, -0.0]));
        let bytes = Lent::new(vec![5], Values::Bytes(vec![1, 2, 3, 4, 5])).unwrap();
        assert_eq!((bytes.bytes(), bytes.memory.words().len(), bytes.floats(0)), (5, 2, None));
        assert_eq!(bytes.memory.words()[0].to_ne_bytes(), [1, 2, 3, 4]);
        assert!(Lent::new(vec![2, 2], Values::Integers(vec![1, 2, 3])).is_err());
    }
}
