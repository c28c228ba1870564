//! What makes vectors of texts and of pictures, whatever computes them.

use rayon::prelude::*;

use super::fit::Words;
use super::{Config, Model};
use crate::backend::{Tensor, Texts};
use crate::failure::Failure;
use crate::format::image::Preprocessing;

/// Rows encoded at once. Measured: larger ones leave the cache.
const TEXT_BATCH: usize = 64;
/// Pictures encoded at once.
const PICTURE_BATCH: usize = 16;

/// A model of a backend, or a file that another program runs.
pub trait Encoder {
    /// How pictures are prepared, where it sees.
    fn preprocessing(&self) -> Option<Preprocessing>;

    /// The tokenizer, where it reads.
    fn tokenizer(&self) -> Result<&Words, Failure>;

    /// Whether it reads texts and makes a vector of each.
    fn reads(&self) -> bool;

    /// One batch of texts, as token ids -> [texts, d].
    fn texts(&self, rows: &[Vec<u32>]) -> Result<Vec<f32>, Failure>;

    /// One batch of prepared pictures [count, size, size, 3] -> [count, d].
    fn pictures(&self, values: &[f32], count: usize) -> Result<Vec<f32>, Failure>;

    /// All texts, in order -> rows of d values. Rows of like length run together, so that little is padding.
    fn encode_texts(&self, texts: &[&str], told: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>, Failure> {
        let ids = self.tokenizer()?.all(texts)?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| (ids[*i].len(), *i));
        let mut rows = vec![Vec::new(); ids.len()];
        for (done, chunk) in order.chunks(TEXT_BATCH).enumerate() {
            let batch: Vec<Vec<u32>> = chunk.iter().map(|i| ids[*i].clone()).collect();
            let values = self.texts(&batch)?;
            let width = values.len() / chunk.len();
            for (place, row) in chunk.iter().zip(values.chunks(width)) {
                rows[*place] = row.to_vec();
            }
            told((done * TEXT_BATCH + chunk.len()).min(ids.len()));
        }
        Ok(rows)
    }

    /// All prepared pictures, in order -> rows of d values.
    fn encode_pictures(
        &self,
        count: usize,
        picture: &(dyn Fn(usize) -> Result<Vec<f32>, Failure> + Sync),
        told: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f32>>, Failure> {
        let mut rows = Vec::with_capacity(count);
        for start in (0..count).step_by(PICTURE_BATCH) {
            let n = PICTURE_BATCH.min(count - start);
            let batch: Vec<Vec<f32>> = (start..start + n).into_par_iter().map(picture).collect::<Result<_, _>>()?;
            let values = self.pictures(&batch.concat(), n)?;
            rows.extend(values.chunks(values.len() / n).map(<[f32]>::to_vec));
            told(rows.len());
        }
        Ok(rows)
    }
}

impl<T: Tensor> Encoder for Model<T> {
    fn preprocessing(&self) -> Option<Preprocessing> {
        Model::preprocessing(self)
    }

    fn tokenizer(&self) -> Result<&Words, Failure> {
        Model::tokenizer(self)
    }

    fn reads(&self) -> bool {
        Model::reads(self)
    }

    fn texts(&self, rows: &[Vec<u32>]) -> Result<Vec<f32>, Failure> {
        if let Config::Llama(_) = self.config {
            let help = "name a `bert` or a picture-text model";
            return Err(Failure::user("a language model gives no vector of a text").help(help));
        }
        Ok(self.text_batch(&Texts::new(rows), None)?.to_f32()?)
    }

    fn pictures(&self, values: &[f32], count: usize) -> Result<Vec<f32>, Failure> {
        let size = self.preprocessing().ok_or_else(|| Failure::target("a text model sees no pictures"))?.size;
        Ok(self.picture_batch(&T::from_f32(values, &[count, size, size, 3])?)?.to_f32()?)
    }
}
