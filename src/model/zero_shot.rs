//! Classes that a picture-text model tells pictures apart by, each by texts alone: zero-shot classification (Radford et al., 2021).

/// A class's text: a prompt with its name, in lower case, in place of each `{}`.
pub fn filled(prompt: &str, class: &str) -> String {
    prompt.replace("{}", &class.to_lowercase())
}

/// A class's vector: the mean of those of its texts, of length 1.
pub fn mean<'a>(vectors: impl IntoIterator<Item = &'a [f32]>, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0f32; width];
    for vector in vectors {
        sum.iter_mut().zip(vector).for_each(|(s, v)| *s += v);
    }
    let norm = sum.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    sum.iter().map(|v| v / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_mean_of_what_its_prompts_say() {
        assert_eq!(filled("an emoji of {}, {}", "Food & Drink"), "an emoji of food & drink, food & drink");
        assert_eq!(filled("plain", "Food"), "plain");
        assert_eq!(mean([&[3.0, 0.0][..], &[0.0, 4.0]], 2), [0.6, 0.8]);
        assert_eq!(mean([&[0.0, 0.0][..]], 2), [0.0, 0.0]);
    }
}
