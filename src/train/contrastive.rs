//! The contrastive loss, and the bookkeeping of pictures and captions of one concept.

use std::collections::BTreeMap;

use crate::backend::{Result, Tensor};
use crate::format::dataset::Row;

/// Initial temperature .07 and a floor of .01, as in CLIP (Radford et al., 2021).
pub const TEMPERATURE: f32 = 0.07;
/// The largest logit scale: 1 / .01.
pub const LOGIT_SCALE_MAX: f32 = 4.605_17;

/// InfoNCE in both directions (van den Oord et al., 2018), with every picture and caption of a concept as a
/// positive (Khosla et al., 2020): the mean log-probability of the positives.
///
/// pictures [n, d] and texts [m, d] of length 1, their concepts' numbers, scale `[1]` (logarithm).
pub fn info_nce<T: Tensor>(
    pictures: &T,
    texts: &T,
    picture_of: &[usize],
    text_of: &[usize],
    logit_scale: &T,
) -> Result<T> {
    let logits = pictures.matmul(&texts.swap_axes(0, 1)?)?.mul(&logit_scale.exp()?)?;
    let one_way = |logits: &T, rows: &[usize], columns: &[usize]| -> Result<T> {
        let mut wanted = Vec::with_capacity(rows.len() * columns.len());
        for row in rows {
            let share = 1.0 / columns.iter().filter(|c| *c == row).count().max(1) as f32;
            wanted.extend(columns.iter().map(|c| if c == row { share } else { 0.0 }));
        }
        let wanted = T::from_f32(&wanted, &[rows.len(), columns.len()])?;
        logits.log_softmax()?.mul(&wanted)?.sum_all()?.affine(-1.0 / rows.len() as f64, 0.0)
    };
    let a = one_way(&logits, picture_of, text_of)?;
    let b = one_way(&logits.swap_axes(0, 1)?, text_of, picture_of)?;
    a.add(&b)?.affine(0.5, 0.0)
}

/// One thing with its pictures and captions.
#[derive(Clone, Debug, PartialEq)]
pub struct Concept {
    /// Numbers of the rows that show it.
    pub rows: Vec<usize>,
    /// What it can be trained with: the caption first, then its other names, then the caption with all its tags.
    pub texts: Vec<String>,
    /// How many of the texts are names.
    pub names: usize,
    /// Its tags, one by one.
    pub tags: Vec<String>,
}

/// The concepts of some rows: rows with the same caption show the same thing. In the order of the captions.
pub fn concepts(rows: &[Row]) -> Vec<Concept> {
    let mut by_caption: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate().filter(|(_, r)| r.image.is_some()) {
        by_caption.entry(&row.caption).or_default().push(i);
    }
    let concept = |of: Vec<usize>| {
        let row = &rows[of[0]];
        Concept { texts: texts_of(row), names: 1 + row.captions.len(), tags: row.tags.clone(), rows: of }
    };
    by_caption.into_values().map(concept).collect()
}

/// Every text a row can be trained with: its caption, the others, and the caption with its tags.
pub fn texts_of(row: &Row) -> Vec<String> {
    let mut texts = vec![row.caption.clone()];
    texts.extend(row.captions.iter().cloned());
    if !row.tags.is_empty() {
        texts.push(format!("{}: {}", row.caption, row.tags.join(", ")));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CandleTensor;

    #[test]
    fn the_loss_is_torchs_cross_entropy_where_each_has_one_positive() {
        // torch: x = [[1, 0], [.6, .8]], y = [[.8, .6], [0, 1]], 5 * x @ y.T,
        // (cross_entropy(l, [0, 1]) + cross_entropy(l.T, [0, 1])) / 2
        let t = |v: &[f32]| CandleTensor::from_f32(v, &[2, 2]).expect("fits");
        let scale = CandleTensor::from_f32(&[5f32.ln()], &[1]).expect("fits");
        let loss = info_nce(&t(&[1.0, 0.0, 0.6, 0.8]), &t(&[0.8, 0.6, 0.0, 1.0]), &[0, 1], &[0, 1], &scale);
        let loss = loss.expect("computes").scalar().expect("a scalar");
        assert!((loss - TORCH).abs() < 1e-5, "{loss}");
    }

    const TORCH: f32 = 0.594625;
}
