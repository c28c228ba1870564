//! `features`: what a model makes of a dataset, computed once and kept.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use super::exported::exported;
use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::arrays::Values;
use crate::backend::arrays::{Array, Arrays};
use crate::backend::{Tensor, on_backend};
use crate::failure::Failure;
use crate::format::dataset::{Dataset, LEFT_OUT, Row};
use crate::format::image;
use crate::format::tensors;
use crate::model::encoder::Encoder;
use crate::model::{Checkpoint, Model, zero_shot};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::train::contrastive::texts_of;
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Features;

/// What was encoded: of which sorts, how wide, how often.
pub const FEATURES: &str = "features.json";

static SCHEMA: Schema = Schema::new(
    "features",
    "A model's vectors for the pictures and texts of a dataset, for training on a frozen tower and for reports.",
)
.children(&[
    Schema::new("of", "The model, adapter, quantized model, or `onnx` or `tflite` export.")
        .arg("model", Type::Label)
        .required(),
    Schema::new("on", "The dataset.").arg("data", Type::Label).required(),
    Schema::new("splits", "Which splits; without it, all.").many_args("names", Type::Text),
    Schema::new("rows", "Of each split its first rows, as many; all where it is not said.")
        .arg("count", Type::Int(1, 1 << 30)),
    Schema::new("views", "Views of each picture: 1 plain, 2 also flipped, more are changed at random by the seed.")
        .arg("count", Type::Int(1, 64))
        .default(Default::Int(1)),
    Schema::new("texts", "Which texts: the captions, or all that a row can be trained with.")
        .arg("which", Type::Choice(&["captions", "all"]))
        .default(Default::Text("captions")),
    Schema::new("prompt", "A text for each value of a column, such as \"an emoji of {}\".")
        .arg("template", Type::Text)
        .props(&[Prop::new("column", Type::Text, "the column").required()])
        .many(),
    Schema::new("seed", "Of the random views.").arg("seed", Type::Int(0, i64::MAX)).default(Default::Int(0)),
    BACKEND,
]);

#[derive(Deserialize)]
struct Fields {
    of: String,
    on: String,
    splits: Option<Vec<String>>,
    rows: Option<usize>,
    views: usize,
    texts: String,
    prompt: Vec<Prompt>,
    seed: u64,
}

#[derive(Deserialize)]
struct Prompt {
    template: String,
    column: String,
}

impl Kind for Features {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: kernels of our own, whose sums differ in the last bits. 3: attention likewise.
    fn version(&self) -> u32 {
        3
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Features {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let dataset = Dataset::open(cx.input(&fields.on))?;
        if let Some(reason) = dataset.left_out() {
            let text = json!({ "reason": reason }).to_string();
            return Ok(fs::write(&cx.out().join(LEFT_OUT), text.as_bytes())?);
        }
        match exported(cx, &fields.of)? {
            Some(exported) => encode(cx, &fields, &dataset, &exported, None),
            None => on_backend!(cx.backend()?, encode_by_model(cx, &fields, &dataset)),
        }
    }
}

fn encode_by_model<T: Tensor>(cx: &mut ActionCx<'_>, fields: &Fields, dataset: &Dataset) -> Result<(), Failure> {
    let dir = cx.input(&fields.of);
    let checkpoint = Checkpoint::open_as_codes(dir, base_of(cx, dir)?.as_deref())?;
    let model = Model::<T>::new(&checkpoint)?;
    let temperature = checkpoint.arrays.get("logit_scale").and_then(|a| a.floats().first().copied());
    encode(cx, fields, dataset, &model, temperature)
}

fn encode(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    dataset: &Dataset,
    model: &dyn Encoder,
    temperature: Option<f32>,
) -> Result<(), Failure> {
    let splits = fields.splits.clone().unwrap_or_else(|| dataset.splits().to_vec());
    let mut all_rows = Vec::new();
    for split in &splits {
        let mut rows = dataset.rows(split)?;
        rows.truncate(fields.rows.unwrap_or(usize::MAX));
        all_rows.push((split.clone(), rows));
    }
    let mut dims = serde_json::Map::new();
    if model.preprocessing().is_some() {
        for (split, rows) in &all_rows {
            let width = pictures(cx, model, fields, split, rows)?;
            dims.insert("image".into(), json!(width));
        }
    }
    if model.reads() {
        let texts = texts(fields, &all_rows);
        let width = encode_texts(cx, model, &texts)?;
        dims.insert("text".into(), json!(width));
    }
    let facts = json!({
        "version": 1, "dims": dims, "views": fields.views, "splits": splits,
        "logit-scale": temperature, "preprocessing": model.preprocessing(),
    });
    let text = serde_json::to_string_pretty(&facts).expect("plain data");
    Ok(fs::write(&cx.out().join(FEATURES), text.as_bytes())?)
}

/// The directory of an adapter's base, which is an input alongside it.
pub fn base_of(cx: &ActionCx<'_>, dir: &std::path::Path) -> Result<Option<std::path::PathBuf>, Failure> {
    let path = dir.join("adapter_config.json");
    if !path.exists() {
        return Ok(None);
    }
    let config: serde_json::Value = serde_json::from_str(&fs::read_text(&path)?)
        .map_err(|e| Failure::target(format!("{} is not JSON: {e}", path.display())))?;
    let base = config["base_model_name_or_path"].as_str().unwrap_or_default();
    Ok(Some(cx.input(base).to_owned()))
}

fn pictures(
    cx: &mut ActionCx<'_>,
    model: &dyn Encoder,
    fields: &Fields,
    split: &str,
    rows: &[Row],
) -> Result<usize, Failure> {
    let prep = model.preprocessing().expect("the model sees");
    let views = fields.views;
    let total = (rows.len() * views) as u64;
    // A picture is decoded once for all its views.
    let decoded = decode_all(rows)?;
    let picture = |i: usize| {
        let (row, number) = (i / views, i % views);
        image::view(&decoded[row], number, &prep, fields.seed, &rows[row].id)
    };
    let what = format!("encode {split}");
    let vectors = model.encode_pictures(rows.len() * views, &picture, &mut |done| {
        cx.progress(&what, done as u64, total, "pictures");
    })?;
    let width = vectors.first().map_or(0, Vec::len);
    let array = Array { shape: vec![rows.len(), views, width], values: Values::F32(vectors.concat()) };
    let path = cx.out().join(format!("images-{split}.safetensors"));
    tensors::write(&path, &Arrays::from([("image".to_owned(), array)]), &[])?;
    Ok(width)
}

/// Decodes every row's picture, on all threads.
pub fn decode_all(rows: &[Row]) -> Result<Vec<::image::RgbaImage>, Failure> {
    use rayon::prelude::*;
    rows.par_iter()
        .map(|row| {
            let bytes =
                row.image.as_ref().ok_or_else(|| Failure::target(format!("the row `{}` has no picture", row.id)))?;
            image::decode(bytes, &row.id)
        })
        .collect()
}

/// The distinct texts, in the order they first appear.
fn texts(fields: &Fields, splits: &[(String, Vec<Row>)]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut texts = Vec::new();
    let mut add = |text: String| {
        if seen.insert(text.clone()) {
            texts.push(text);
        }
    };
    for row in splits.iter().flat_map(|(_, rows)| rows) {
        if fields.texts == "all" {
            texts_of(row).into_iter().for_each(&mut add);
        } else {
            add(row.caption.clone());
        }
    }
    for prompt in &fields.prompt {
        let values: BTreeSet<&str> = splits
            .iter()
            .flat_map(|(_, rows)| rows)
            .filter_map(|r| r.columns.get(&prompt.column))
            .map(String::as_str)
            .collect();
        for value in values {
            add(zero_shot::filled(&prompt.template, value));
        }
    }
    texts
}

fn encode_texts(cx: &mut ActionCx<'_>, model: &dyn Encoder, texts: &[String]) -> Result<usize, Failure> {
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let total = texts.len() as u64;
    let vectors = model.encode_texts(&refs, &mut |done| cx.progress("encode texts", done as u64, total, "texts"))?;
    let width = vectors.first().map_or(0, Vec::len);
    let array = Array::f32(&[texts.len(), width], vectors.concat());
    tensors::write(&cx.out().join("texts.safetensors"), &Arrays::from([("text".to_owned(), array)]), &[])?;
    let list = serde_json::to_string(texts).expect("text");
    fs::write(&cx.out().join("texts.json"), list.as_bytes())?;
    Ok(width)
}

/// Vectors read back from a `features` artifact.
#[derive(Debug)]
pub struct Vectors {
    /// Width of each.
    pub width: usize,
    /// One after another.
    pub values: Vec<f32>,
}

impl Vectors {
    /// One vector.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..][..self.width]
    }
}

/// The pictures' vectors of a split: row r's view v is vector `r * views + v`; the second number is `views`.
pub fn read_images(dir: &std::path::Path, split: &str) -> Result<(Vectors, usize), Failure> {
    let path = dir.join(format!("images-{split}.safetensors"));
    let array = tensors::read(&path)?
        .remove("image")
        .ok_or_else(|| Failure::target(format!("{} has no `image`", path.display())))?;
    let [_, views, width] = array.shape[..] else {
        return Err(Failure::target(format!("{} is misshapen", path.display())));
    };
    Ok((Vectors { width, values: array.floats().to_vec() }, views))
}

/// The texts' vectors, and the number of each text.
pub fn read_texts(dir: &std::path::Path) -> Result<(Vectors, std::collections::BTreeMap<String, usize>), Failure> {
    let path = dir.join("texts.safetensors");
    let array = tensors::read(&path)?
        .remove("text")
        .ok_or_else(|| Failure::target(format!("{} has no `text`", path.display())))?;
    let names: Vec<String> = serde_json::from_str(&fs::read_text(&dir.join("texts.json"))?)
        .map_err(|e| Failure::target(format!("texts.json: {e}")))?;
    let width = array.shape.get(1).copied().unwrap_or(1);
    let index = names.into_iter().enumerate().map(|(i, n)| (n, i)).collect();
    Ok((Vectors { width, values: array.floats().to_vec() }, index))
}
