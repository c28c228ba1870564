//! SmoothQuant: Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large language models", 2022.
//! Where inputs are rounded as well, what is hard about theirs (a few large ones) is moved into the weights, half of it by
//! default.

/// Smallest magnitude taken for one.
const SMALLEST: f32 = 1e-5;

/// What each input is divided by: its largest magnitude to the `strength`, over the largest of its weights, in all matrices
/// [out, inner] that read it, to the rest of it.
pub fn scales(readers: &[&[f32]], largest: &[f32], strength: f32) -> Vec<f32> {
    let mut weights = vec![0.0f32; largest.len()];
    for row in readers.iter().flat_map(|values| values.chunks_exact(largest.len())) {
        weights.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
    }
    let of = |(input, weight): (&f32, &f32)| {
        (input.max(SMALLEST).powf(strength) / weight.max(SMALLEST).powf(1.0 - strength)).max(SMALLEST)
    };
    largest.iter().zip(&weights).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_makes_inputs_and_weights_alike() {
        let (inputs, weights) = ([16.0, 1.0, 0.0], [1.0, -4.0, 1.0, 0.5, 0.0, 1.0]);
        let scales = scales(&[&weights[..3], &weights[3..]], &inputs, 0.5);
        assert_eq!(scales[0], 4.0);
        assert_eq!((16.0 / scales[0], 1.0 * scales[0]), (4.0, 4.0));
        assert_eq!(scales[1], 0.5);
        assert!(scales[2] > 0.0 && scales[2] < 0.01, "an input that is never there: {scales:?}");
    }

    #[test]
    fn strength_moves_all_or_nothing() {
        let weights = [2.0, 8.0];
        assert_eq!(scales(&[&weights], &[5.0, 3.0], 1.0), [5.0, 3.0]);
        assert_eq!(scales(&[&weights], &[5.0, 3.0], 0.0), [0.5, 0.125]);
    }
}
