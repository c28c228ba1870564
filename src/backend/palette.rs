//! A palette of weights: so many values that each is near one of them, by k-means in one dimension.

/// Passes at most: what moves after so many moves little.
const PASSES: usize = 50;

/// `count` values, from low to high, and for each weight the nearest of them. Lloyd's passes over the sorted weights, where
/// what is nearest to a value lies together: they begin at equal shares of the weights, so nothing is drawn.
///
/// # Panics
/// If there are more than 256 values, which no byte numbers.
pub fn of(weights: &[f32], count: usize) -> (Vec<f32>, Vec<u8>) {
    assert!((1..=256).contains(&count), "a palette of {count}");
    let mut sorted = weights.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let mut sums = Vec::with_capacity(sorted.len() + 1);
    sums.push(0.0);
    for weight in &sorted {
        sums.push(sums[sums.len() - 1] + f64::from(*weight));
    }
    let (low, high) = (sorted.first().copied().unwrap_or(0.0), sorted.last().copied().unwrap_or(0.0));
    // Between equal shares of the weights and equal steps: most weights are small, and the large ones count.
    let start = |i: usize| {
        let share = (2 * i + 1) as f32 / (2 * count) as f32;
        let at = (share * sorted.len() as f32) as usize;
        f32::midpoint(sorted.get(at).copied().unwrap_or(high), low + share * (high - low))
    };
    let mut palette: Vec<f32> = (0..count).map(start).collect();
    for _ in 0..PASSES {
        let ends = ends(&sorted, &palette);
        let mut moved = false;
        let mut from = 0;
        for (value, until) in palette.iter_mut().zip(ends) {
            if until > from {
                let mean = ((sums[until] - sums[from]) / (until - from) as f64) as f32;
                moved |= mean != *value;
                *value = mean;
            }
            from = until;
        }
        palette.sort_by(f32::total_cmp);
        if !moved {
            break;
        }
    }
    let middles: Vec<f32> = palette.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect();
    let codes = weights.iter().map(|weight| middles.partition_point(|middle| middle < weight) as u8).collect();
    (palette, codes)
}

/// For each value, how many of the sorted weights are nearest to it or to one before it.
fn ends(sorted: &[f32], palette: &[f32]) -> Vec<usize> {
    let middle = |i: usize| f32::midpoint(palette[i], palette[i + 1]);
    let end = |i: usize| match i + 1 < palette.len() {
        true => sorted.partition_point(|weight| *weight <= middle(i)),
        false => sorted.len(),
    };
    (0..palette.len()).map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn few_values_are_found_and_many_are_near() {
        let few = [3.0, -1.0, 3.0, 0.5, -1.0, 0.5, 3.0, 7.0];
        let (palette, codes) = of(&few, 16);
        assert!(few.iter().zip(&codes).all(|(weight, code)| palette[usize::from(*code)] == *weight), "{palette:?}");
        let mut rng = Rng::new(3, "palette");
        let many: Vec<f32> = (0..4000).map(|_| rng.between(-1.0, 1.0) * rng.between(0.0, 1.0)).collect();
        let error = |count: usize| {
            let (palette, codes) = of(&many, count);
            assert!(codes.iter().all(|code| usize::from(*code) < count));
            let each = many.iter().zip(&codes).map(|(weight, code)| (weight - palette[usize::from(*code)]).powi(2));
            each.sum::<f32>() / many.len() as f32
        };
        let (four, six) = (error(16), error(64));
        // Equal steps over the range leave a twelfth of their square.
        assert!(four < 2.0f32.powi(2) / 16.0f32.powi(2) / 12.0, "{four}");
        assert!(six < four / 8.0, "{six} {four}");
    }
}
