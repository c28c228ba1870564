//! A picture's values: red, green and blue after one another, row by row.

/// Bytes with an alpha channel, laid over white.
pub fn over_white(rgba: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for [red, green, blue, alpha] in rgba.as_chunks::<4>().0 {
        let alpha = u32::from(*alpha);
        let over = |v: u8| ((u32::from(v) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        rgb.extend([over(*red), over(*green), over(*blue)]);
    }
    rgb
}

/// Bytes as floats of 0 to 255.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|v| f32::from(*v)).collect()
}

/// `(value - mean) / std`, by colour.
pub fn normalise(values: &[f32], mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let pixels = values.as_chunks::<3>().0.iter();
    pixels.flat_map(|pixel| [0, 1, 2].map(|c| (pixel[c] - mean[c]) / std[c])).collect()
}

/// Right to left, of rows of `width` pixels.
pub fn flip(values: &mut [f32], width: usize) {
    for row in values.chunks_exact_mut(width * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

/// Values of 0 to 255 with another saturation, and each colour's distance from white by a gain.
pub fn recolour(values: &mut [f32], saturation: f32, gains: [f32; 3]) {
    for pixel in values.as_chunks_mut::<3>().0 {
        let grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
        for (value, gain) in pixel.iter_mut().zip(gains) {
            let saturated = grey + (*value - grey) * saturation;
            *value = (255.0 - (255.0 - saturated) * gain).clamp(0.0, 255.0);
        }
    }
}

/// Square pictures: one of `size` pixels a side, laid on white of `side`, `left` and `top` pixels from its corner.
pub fn on_white(values: &[f32], size: usize, side: usize, [left, top]: [usize; 2]) -> Vec<f32> {
    let mut canvas = vec![255.0; side * side * 3];
    for (y, row) in values.chunks_exact(size * 3).enumerate() {
        canvas[((y + top) * side + left) * 3..][..row.len()].copy_from_slice(row);
    }
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_clear_is_white() {
        assert_eq!(
            over_white(&[10, 20, 30, 0, 10, 20, 30, 255, 0, 0, 0, 51]),
            [255, 255, 255, 10, 20, 30, 204, 204, 204]
        );
    }

    #[test]
    fn colours_are_kept_apart() {
        assert_eq!(normalise(&[3.0, 6.0, 9.0], [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), [1.0; 3]);
        let mut values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        flip(&mut values, 2);
        assert_eq!(values, [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
        let mut grey = [100.0, 50.0, 200.0];
        recolour(&mut grey, 0.0, [1.0; 3]);
        assert!(grey.iter().all(|v| (v - grey[0]).abs() < 1e-3), "{grey:?}");
        assert_eq!(on_white(&[7.0, 8.0, 9.0], 1, 2, [1, 0])[3..6], [7.0, 8.0, 9.0]);
    }
}
