//! How quick memory is: large arrays, read once and copied once by all threads.

use rayon::prelude::*;

/// Values that a thread takes at a time: far more than its caches' lines, far less than the whole.
const PART: usize = 1 << 16;
/// Sums that are kept at once, so that none waits for the one before it.
const LANES: usize = 64;

/// Reads every value; the sum is given so that no read can be left out.
pub fn read(values: &[f32]) -> f32 {
    let part = |values: &[f32]| {
        let mut lanes = [0f32; LANES];
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
        }
        lanes.iter().chain(rest).sum::<f32>()
    };
    values.par_chunks(PART).map(part).sum()
}

/// Copies every value.
///
/// # Panics
/// If the lengths differ.
pub fn copy(from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "as much room as there is to copy");
    from.par_chunks(PART).zip(to.par_chunks_mut(PART)).for_each(|(from, to)| to.copy_from_slice(from));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read_and_copied() {
        let values: Vec<f32> = (0..200_003).map(|i| (i % 5) as f32).collect();
        assert_eq!(read(&values), values.iter().sum::<f32>());
        let mut copied = vec![0.0; values.len()];
        copy(&values, &mut copied);
        assert_eq!(copied, values);
    }
}
