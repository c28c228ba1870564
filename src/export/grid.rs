//! What the bytes of a tensor stand for, in formats that compute in bytes.

/// The largest code of a weight in 8 bits.
pub(super) const LAST: f32 = 127.0;
/// A sum that is added to has so many bits at most: room is left for what is added to it.
const BIAS_MAX: f32 = (1u32 << 30) as f32;

/// What the bytes of a tensor stand for: `(byte - zero) * scale`.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) scale: f32,
    pub(super) zero: i64,
}

impl Grid {
    /// Of all values from the least to the largest, 0 among them.
    pub(super) fn of([low, high]: [f32; 2]) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
        Self { scale, zero: ((-128.0 - low / scale).round() as i64).clamp(-128, 127) }
    }
}

/// Weights in bytes with a scale for each entry of an axis, and what is added in 32 bits, in steps of that scale and of what the
/// weights multiply.
pub(super) struct Codes {
    pub(super) codes: Vec<i8>,
    pub(super) scales: Vec<f32>,
    pub(super) sums: Option<Vec<i32>>,
}

/// Weights of these lengths; `given` is the scale of what they multiply, and `last` the largest code. `kernels` are the lengths of kernels
/// [.., height, width, planes] among them; of other lengths there are none.
pub(super) fn codes(
    values: &[f32],
    (lengths, axis): (&[usize], usize),
    kernels: &[usize],
    added: Option<&[f32]>,
    (given, last): (f32, f32),
) -> Codes {
    let (channels, inner) = (lengths[axis], lengths[axis + 1..].iter().product::<usize>());
    let channel = |i: usize| i / inner % channels;
    let mut largest = vec![0.0f32; channels];
    for (i, value) in values.iter().enumerate() {
        largest[channel(i)] = largest[channel(i)].max(value.abs());
    }
    // As large as what is added needs it.
    let least = |channel: usize| added.map_or(0.0, |all| all[channel].abs() / (given * BIAS_MAX));
    let scales: Vec<f32> = largest.iter().enumerate().map(|(c, top)| (top / last).max(least(c))).collect();
    let scales: Vec<f32> = scales.into_iter().map(|scale| if scale == 0.0 { 1.0 } else { scale }).collect();
    let steps: Vec<f32> = values.iter().enumerate().map(|(i, value)| value / scales[channel(i)]).collect();
    let sum =
        |(value, scale): (&f32, &f32)| (f64::from(*value) / (f64::from(given) * f64::from(*scale))).round() as i32;
    let sums = added.map(|all| all.iter().zip(&scales).map(sum).collect());
    Codes { codes: rounded(&steps, kernels, last), scales, sums }
}

/// The nearest codes, but that the taps of a kernel [.., k, k, ..] over one plane add up to what they did, to half a step:
/// neighbours in a picture are nearly equal, and what a sum is off by is off everywhere. It takes the place of correcting
/// what is added by the inputs' mean (Nagel et al., "Data-Free Quantization", <https://arxiv.org/abs/1906.04721>). Of
/// EfficientNet-Lite0 it is the difference between a cosine of .984 and .997.
fn rounded(steps: &[f32], lengths: &[usize], last: f32) -> Vec<i8> {
    let mut codes: Vec<f32> = steps.iter().map(|step| step.round().clamp(-last, last)).collect();
    if let [_, height, width, planes] = *lengths {
        let size = height * width;
        for kernel in 0..steps.len() / size {
            let first = kernel / planes * size * planes + kernel % planes;
            let mut taps: Vec<usize> = (0..size).map(|tap| first + tap * planes).collect();
            let off: f32 = taps.iter().map(|tap| steps[*tap] - codes[*tap]).sum::<f32>().round();
            // Those first that were nearest to being rounded the other way.
            let way = off.signum();
            taps.sort_by(|a, b| (way * (steps[*b] - codes[*b])).total_cmp(&(way * (steps[*a] - codes[*a]))));
            let can = taps.into_iter().filter(|tap| (codes[*tap] + way).abs() <= last);
            for tap in can.take(off.abs() as usize).collect::<Vec<_>>() {
                codes[tap] += way;
            }
        }
    }
    codes.into_iter().map(|code| code as i8).collect()
}

#[cfg(test)]
mod tests {
    use super::{LAST, rounded};

    #[test]
    fn taps_over_one_plane_add_up_to_what_they_did() {
        // Two kernels of 2 by 2, beside each other: one's taps are 1.6 together, the other's 507.
        let steps = [0.4, 126.6, 0.4, 126.9, 0.4, 126.8, 0.4, 126.7];
        assert_eq!(rounded(&steps, &[1, 2, 2, 2], LAST), [1, 126, 1, 127, 0, 127, 0, 127]);
        // A kernel of one tap, and rows of a matrix, are the nearest.
        assert_eq!(rounded(&steps[..2], &[1, 1, 1, 2], LAST), [0, 127]);
        assert_eq!(rounded(&[0.4, -0.4, 200.0, -1.5], &[2, 2], LAST), [0, 0, 127, -2]);
    }
}
