//! `model`: imported from a package, or a picture-text model trained on two frozen towers.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::features::{read_images, read_texts};
use super::fetch::{SOURCE_PROPS, Source, check_source, fetched};
use super::{ActionCx, BACKEND, How, Kind, Needs, Part, Pool, Run};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::gguf::Gguf;
use crate::backend::rng::Rng;
use crate::backend::{Params, Tensor, on_backend};
use crate::failure::Failure;
use crate::format::archive::read_members;
use crate::format::dataset::Dataset;
use crate::format::image::{Colours, Fit, Preprocessing};
use crate::format::pickle;
use crate::format::tensors;
use crate::model::weights::Weights;
use crate::model::{self, Checkpoint, Config, clip, efficientnet_lite, fit, gguf, head, llama};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::train::contrastive::{Concept, LOGIT_SCALE_MAX, TEMPERATURE, concepts, info_nce};
use crate::train::optim::{self, AdamW, Schedule, check_loss};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Model;

static SCHEMA: Schema = Schema::new("model", "A model in Hugging Face's layout: imported, or trained from two towers.")
    .children(&[
        Schema::new("source", "Import: the package that holds it.").props(SOURCE_PROPS).children(&[
            Schema::new(
                "weights",
                "The weights' path in it: safetensors, GGUF (kept as it is), or a torch checkpoint, which is never executed.",
            )
            .arg("path", Type::Text)
            .required(),
            Schema::new("config", "The path of its config.json.").arg("path", Type::Text),
            Schema::new("tokenizer", "The path of its tokenizer.json.").arg("path", Type::Text),
            Schema::new("tokenizer-config", "The path of its tokenizer_config.json, which has the chat template.")
                .arg("path", Type::Text),
            Schema::new(
                "preprocessor-config",
                "clip: the path of its preprocessor_config.json; without it pictures are prepared as OpenAI's are.",
            )
            .arg("path", Type::Text),
        ]),
        Schema::new("architecture", "Import: what the weights are.")
            .arg("name", Type::Choice(&["bert", "llama", "clip", "efficientnet-lite0"])),
        Schema::new(
            "image-size",
            "efficientnet-lite0: pictures are brought to this height and width; 160 where it is not said.",
        )
        .arg("pixels", Type::Int(32, 1024)),
        Schema::new("pooled-blocks", "Import: blocks of a picture tower whose averages are features beside its last.")
            .many_args("numbers", Type::Int(0, 15)),
        Schema::new("image-tower", "Train: the picture encoder.").arg("model", Type::Label).props(&[FROZEN]),
        Schema::new("text-tower", "Train: the text encoder.").arg("model", Type::Label).props(&[FROZEN]),
        Schema::new("projection", "Train: the heads into the common space.").props(&[
            Prop::new("dim", Type::Int(8, 4096), "width of the common space").default(Default::Int(512)),
            Prop::new("hidden", Type::Int(0, 8192), "inner width; 0 for one linear layer").default(Default::Int(1024)),
            Prop::new("dropout", Type::Float(0.0, 0.95), "share of inputs dropped in training")
                .default(Default::Float(0.5)),
        ]),
        Schema::new("train", "Train: the data and how.").arg("data", Type::Label).children(TRAIN_FIELDS),
        BACKEND,
    ]);

const FROZEN: Prop =
    Prop::new("frozen", Type::Bool, "its weights stay; only #true is supported, an `adapter` trains towers")
        .default(Default::Bool(true));

/// What a contrastive training is told.
const TRAIN_FIELDS: &[Schema] = &[
    Schema::new("loss", "The loss.").arg("name", Type::Choice(&["info-nce"])).default(Default::Text("info-nce")),
    Schema::new("epochs", "Passes over the concepts.").arg("count", Type::Int(1, 10_000)).default(Default::Int(60)),
    Schema::new("batch", "Concepts a step.").arg("count", Type::Int(2, 65_536)).default(Default::Int(128)),
    Schema::new("learning-rate", "Its peak; it falls as a half cosine.")
        .arg("rate", Type::FloatAbove(0.0, 1e30))
        .default(Default::Float(1e-3)),
    Schema::new("warmup", "Steps until the peak.").arg("steps", Type::Int(0, 1_000_000)).default(Default::Int(20)),
    Schema::new("weight-decay", "Of matrices.").arg("decay", Type::Float(0.0, 10.0)).default(Default::Float(0.01)),
    Schema::new("gradient-clip", "Largest norm of the gradient.")
        .arg("norm", Type::FloatAbove(0.0, f64::INFINITY))
        .default(Default::Float(1.0)),
    Schema::new("patience", "Epochs without a better validation loss before it stops; 0 never.")
        .arg("epochs", Type::Int(0, 10_000))
        .default(Default::Int(0)),
    Schema::new("views", "Views of each picture: 1 plain, 2 also flipped, more changed at random.")
        .arg("count", Type::Int(1, 64))
        .default(Default::Int(6)),
    Schema::new("seed", "Of everything random.").arg("seed", Type::Int(0, i64::MAX)).default(Default::Int(0)),
];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    source: Option<Import>,
    architecture: Option<String>,
    image_size: Option<usize>,
    pooled_blocks: Option<Vec<usize>>,
    image_tower: Option<Tower>,
    text_tower: Option<Tower>,
    projection: Option<Projection>,
    train: Option<Train>,
}

#[derive(Deserialize)]
struct Import {
    #[serde(flatten)]
    source: Source,
    weights: String,
    config: Option<String>,
    tokenizer: Option<String>,
    #[serde(rename = "tokenizer-config")]
    tokenizer_config: Option<String>,
    #[serde(rename = "preprocessor-config")]
    preprocessor_config: Option<String>,
}

#[derive(Deserialize)]
struct Tower {
    model: String,
    frozen: bool,
}

#[derive(Clone, Copy, Deserialize)]
struct Projection {
    dim: usize,
    hidden: usize,
    dropout: f32,
}

/// How to train.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Train {
    /// The dataset.
    pub data: String,
    /// Passes over the concepts.
    pub epochs: u64,
    /// Concepts a step.
    pub batch: usize,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// Steps until the peak.
    pub warmup: u64,
    /// Of matrices.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub gradient_clip: f64,
    /// Epochs without progress; 0 never stops.
    pub patience: u64,
    /// Views of each picture.
    pub views: usize,
    /// Of everything random.
    pub seed: u64,
}

/// Fields of a source that do not change what is fetched.
const OF_THE_IMPORT: &[&str] =
    &["weights", "config", "tokenizer", "tokenizer-config", "preprocessor-config", "license"];

impl Kind for Model {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: matrix products by our own kernels, whose last bits differ. 3: AdamW's steps in 32 bits.
    /// 4: a text tower's attention is one kernel. 5: positions of a Llama as transformers 5 says them.
    fn version(&self) -> u32 {
        5
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        if fields.image_size.is_some() && fields.architecture.as_deref() != Some("efficientnet-lite0") {
            problems.at("image-size", "the model's own files say what it sees", "this", "leave it out");
        }
        match (&fields.source, &fields.train) {
            (Some(import), None) => {
                check_source(&import.source, "source", problems);
                if fields.pooled_blocks.is_some() && fields.architecture.as_deref() != Some("efficientnet-lite0") {
                    problems.at("pooled-blocks", "a text model pools no blocks", "this", "leave it out");
                }
                if import.preprocessor_config.is_some() && fields.architecture.as_deref() != Some("clip") {
                    let what = "only a `clip` model is told how pictures are prepared";
                    problems.at("source.preprocessor-config", what, "this", "leave it out");
                }
                if import.weights.ends_with(".gguf") && fields.architecture.as_deref().is_some_and(|a| a != "llama") {
                    problems.at("architecture", "GGUF files are read of `llama` only", "this", "write \"llama\"");
                }
                if fields.architecture.is_none() {
                    problems.at(
                        "source",
                        "an imported model needs its `architecture`",
                        "imported here",
                        "add architecture \"bert\", \"llama\", \"clip\" or \"efficientnet-lite0\"",
                    );
                }
            }
            (None, Some(_)) => {
                for (name, tower) in [("image-tower", &fields.image_tower), ("text-tower", &fields.text_tower)] {
                    match tower {
                        None => problems.at(
                            "train",
                            format!("training needs `{name}`"),
                            "trained here",
                            format!("add {name} \"models/...\""),
                        ),
                        Some(tower) if !tower.frozen => problems.at(
                            &format!("{name}.frozen"),
                            "a tower that is not frozen is not supported here",
                            "this",
                            "train an `adapter` on the model to adapt its towers",
                        ),
                        Some(_) => {}
                    }
                }
            }
            (Some(_), Some(_)) => problems.at(
                "train",
                "a model is imported or trained, not both",
                "trained here",
                "train in a target of its own",
            ),
            (None, None) => {
                problems.at("", "a model needs a `source` or a `train`", "neither", "import it or train it")
            }
        }
        if fields.train.is_none() && decl.fields[BACKEND.name].is_string() {
            problems.at(BACKEND.name, "nothing is computed to import a model", "this", "leave it out");
        }
    }

    fn parts(&self, decl: &Decl) -> Vec<Part> {
        let fields: Fields = decl.read();
        if fields.source.is_some() {
            let mut source = decl.fields["source"].clone();
            if let Some(map) = source.as_object_mut() {
                map.retain(|k, _| !OF_THE_IMPORT.contains(&k.as_str()));
            }
            return vec![Part { name: "source".into(), kind: "fetch", fields: source }];
        }
        let (Some(train), Some(image), Some(text)) = (&fields.train, &fields.image_tower, &fields.text_tower) else {
            return Vec::new();
        };
        let part = |name: &str, of: &str, views: usize| Part {
            name: name.into(),
            kind: "features",
            fields: json!({
                "of": of, "on": train.data, "splits": ["train", "validation"], "views": views, "texts": "all", "prompt": [],
            }),
        };
        vec![part("image-features", &image.model, train.views), part("text-features", &text.model, 1)]
    }

    fn needs(&self, decl: &Decl) -> Needs {
        let pool = if decl.fields["train"].is_null() { Pool::Cpu } else { Pool::Machine };
        Needs { pool, ..Needs::default() }
    }

    fn weighs(&self, decl: &Decl) -> &'static [&'static str] {
        if self.needs(decl).pool == Pool::Machine { &["batch"] } else { &[] }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Model {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        match (&fields.source, &fields.train) {
            (Some(import), _) => run_import(cx, &fields, import),
            (None, Some(train)) => on_backend!(cx.backend()?, run_train(cx, &fields, train)),
            (None, None) => unreachable!("checked"),
        }
    }
}

fn run_import(cx: &mut ActionCx<'_>, fields: &Fields, import: &Import) -> Result<(), Failure> {
    let archive = fetched(cx.part("source"))?.map_err(Failure::target)?;
    let optional = [&import.config, &import.tokenizer, &import.tokenizer_config, &import.preprocessor_config];
    let wanted = |path: &str| import.weights == path || optional.iter().any(|w| w.as_deref() == Some(path));
    let members = read_members(&archive, &wanted)?;
    let member = |path: &str| {
        members.get(path).ok_or_else(|| {
            Failure::target(format!("{} holds no `{path}`", import.source.origin()))
                .help("check the path in the recipe")
        })
    };
    let weights = member(&import.weights)?;
    let out = cx.out().to_owned();
    for (path, name) in optional[1..].iter().zip(model::COMPANIONS) {
        if let Some(path) = path {
            fs::write(&out.join(name), member(path)?)?;
        }
    }
    let count = if import.weights.ends_with(".gguf") {
        import_gguf(&out, weights, &import.weights)?
    } else {
        let arrays = if import.weights.ends_with(".safetensors") {
            let path = cx.scratch().join("weights.safetensors");
            fs::write(&path, weights)?;
            tensors::read(&path).map_err(|f| f.within(import.source.origin()))?
        } else {
            from_pickle(weights).map_err(|f| f.within(&import.weights))?
        };
        let config = match fields.architecture.as_deref() {
            Some(architecture @ ("bert" | "llama" | "clip")) => {
                let path = import
                    .config
                    .as_deref()
                    .ok_or_else(|| Failure::user(format!("a {architecture} model needs `config` in its source")))?;
                let bad = |e: serde_json::Error| {
                    let whose = format!("take the config.json of a {architecture} model that came with the weights");
                    Failure::target(format!("{path}: {e}")).help(whose)
                };
                let mut config: Value = serde_json::from_slice(member(path)?).map_err(bad)?;
                llama::settle(&mut config);
                match architecture {
                    "bert" => Config::Bert(serde_json::from_value(config).map_err(bad)?),
                    "clip" => Config::Clip(serde_json::from_value(config).map_err(bad)?),
                    _ => Config::Llama(serde_json::from_value(config).map_err(bad)?),
                }
            }
            _ => Config::EfficientnetLite {
                network: efficientnet_lite::Config {
                    pooled_blocks: BTreeSet::from_iter(fields.pooled_blocks.clone().unwrap_or_default())
                        .into_iter()
                        .collect(),
                    ..efficientnet_lite::Config::lite0()
                },
                preprocessing: Preprocessing {
                    size: fields.image_size.unwrap_or(160),
                    mean: Colours::All(127.0),
                    std: Colours::All(128.0),
                    fit: Fit::Pad,
                },
            },
        };
        match &config {
            Config::Llama(config) => config.check()?,
            Config::Clip(config) => {
                config.check()?;
                see_as_clip(&out, config)?;
            }
            _ => {}
        }
        fit::check(&config, import.config.as_deref().unwrap_or("config.json"), &|name| {
            arrays.get(name).map(|array| array.shape.clone())
        })
        .map_err(|f| f.within(&import.weights))?;
        write_model(&out, &config, &arrays)?;
        arrays.values().map(|a| a.floats().len()).sum()
    };
    cx.metric("parameters", count as f64);
    let card = format!(
        "---\nlicense: {licence}\n---\n\n# {label}\n\n{count} parameters, imported from {origin} (`{path}`), sha256 `{sha}` of the package.\n",
        licence = import.source.license.as_deref().unwrap_or("unknown").to_lowercase(),
        label = cx.decl.label,
        origin = import.source.origin(),
        path = import.weights,
        sha = import.source.sha256.as_deref().unwrap_or("not pinned"),
    );
    Ok(fs::write(&out.join("README.md"), card.as_bytes())?)
}

/// Writes how a CLIP model's pictures are prepared where its source does not say it, and reads it where it does.
fn see_as_clip(out: &Path, config: &clip::Config) -> Result<(), Failure> {
    let size = config.vision_config.image_size;
    let text = serde_json::to_string_pretty(&model::read_preprocessing(out, size)?.to_hub()).expect("plain data");
    Ok(fs::write(&out.join(model::PREPROCESSOR), text.as_bytes())?)
}

/// Keeps a GGUF file as it is, beside the configuration and tokenizer that are in it; the number of its parameters.
fn import_gguf(out: &Path, bytes: &[u8], name: &str) -> Result<usize, Failure> {
    let path = out.join(model::GGUF);
    fs::write(&path, bytes)?;
    // It has another name where it came from.
    let file = Gguf::open(&path).map_err(|error| {
        let mut failure = Failure::from(error);
        failure.message = failure.message.replace(&*path.to_string_lossy(), name);
        failure
    })?;
    let config = gguf::config(&file).map_err(|f| f.within(name))?;
    gguf::check(&file, &config).map_err(|f| f.within(name))?;
    let text = serde_json::to_string_pretty(&config).expect("plain data");
    fs::write(&out.join("config.json"), text.as_bytes())?;
    if !out.join("tokenizer.json").exists() {
        let (tokenizer, config) = gguf::tokenizer(&file).map_err(|f| f.within(name))?;
        fs::write(&out.join("tokenizer.json"), tokenizer.to_string().as_bytes())?;
        let text = serde_json::to_string_pretty(&config).expect("plain data");
        fs::write(&out.join("tokenizer_config.json"), text.as_bytes())?;
    }
    Ok(file.parameters())
}

fn from_pickle(bytes: &[u8]) -> Result<Arrays, Failure> {
    let mut arrays = Arrays::new();
    for tensor in pickle::read(bytes)? {
        // Counters of batches seen (Long) are of no use to a frozen network.
        if tensor.storage == "Float" {
            let values = tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            arrays.insert(tensor.name, Array::f32(&tensor.shape, values));
        }
    }
    Ok(arrays)
}

/// Writes config and weights.
pub fn write_model(out: &Path, config: &Config, arrays: &Arrays) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(config).expect("plain data");
    fs::write(&out.join("config.json"), text.as_bytes())?;
    tensors::write(&out.join("model.safetensors"), arrays, &[("format", "pt")])
}

fn run_train<T: Tensor>(cx: &mut ActionCx<'_>, fields: &Fields, train: &Train) -> Result<(), Failure> {
    let (image, text) = (fields.image_tower.as_ref().expect("checked"), fields.text_tower.as_ref().expect("checked"));
    let projection = fields.projection.unwrap_or(Projection { dim: 512, hidden: 1024, dropout: 0.5 });
    let data = Dataset::open(cx.input(&train.data))?;
    let sets = ["train", "validation"].map(|split| data.rows(split).map(|rows| concepts(&rows)));
    let [learn, validate] = sets;
    let (learn, validate) = (learn?, validate?);
    if learn.is_empty() {
        return Err(
            Failure::target("the split `train` has no pictures").help("look at `split` and `image` of the dataset")
        );
    }
    let (text_vectors, text_index) = read_texts(cx.part("text-features"))?;
    let mut heads = Heads { weights: Weights::new(&Arrays::new())?, dropout: projection.dropout };
    let (train_images, views) = read_images(cx.part("image-features"), "train")?;
    let (validation_images, _) = read_images(cx.part("image-features"), "validation")?;
    let mut arrays = Arrays::new();
    let texts_of = |c: &Concept| text_index[&c.texts[0]];
    let image_rows: Vec<&[f32]> =
        (0..train_images.values.len() / train_images.width).map(|i| train_images.row(i)).collect();
    let unit: Vec<Vec<f32>> = learn.iter().map(|c| unit(text_vectors.row(texts_of(c)))).collect();
    statistics(&mut arrays, "vision_projection", &image_rows);
    statistics(&mut arrays, "text_projection", &unit.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for (name, array) in &arrays {
        heads.weights.set(name, T::from_f32(array.floats(), &array.shape)?);
    }
    let mut params = Params::new();
    for (name, width) in [("text_projection", text_vectors.width), ("vision_projection", train_images.width)] {
        let first = if projection.hidden == 0 { projection.dim } else { projection.hidden };
        init(&mut params, &format!("{name}.0"), first, width, train.seed)?;
        if projection.hidden > 0 {
            init(&mut params, &format!("{name}.2"), projection.dim, projection.hidden, train.seed)?;
        }
    }
    params.insert("logit_scale".into(), T::from_f32(&[-TEMPERATURE.ln()], &[1])?);
    let gather = |rows: &mut dyn Iterator<Item = &[f32]>, width: usize| {
        let values: Vec<f32> = rows.flatten().copied().collect();
        T::from_f32(&values, &[values.len() / width, width])
    };
    let mut trainer = Trainer::new(train, learn.len());
    let mut rng = Rng::new(train.seed, "batches");
    while !trainer.done() {
        let order = rng.permutation(learn.len());
        for chunk in order.chunks(train.batch) {
            let (mut images, mut image_of, mut texts, mut text_of) = (vec![], vec![], vec![], vec![]);
            for (n, concept) in chunk.iter().map(|i| &learn[*i]).enumerate() {
                for row in &concept.rows {
                    images.push(row * views + rng.below(views));
                    image_of.push(n);
                }
                // The label always, and another of its names.
                for text in [0, rng.below(concept.texts.len())] {
                    texts.push(text_index[&concept.texts[text]]);
                    text_of.push(n);
                }
            }
            let x = gather(&mut images.iter().map(|i| train_images.row(*i)), train_images.width)?;
            let t = gather(&mut texts.iter().map(|i| text_vectors.row(*i)), text_vectors.width)?;
            let noise = (heads.dropout, RefCell::new(Rng::new(train.seed, &format!("dropout {}", trainer.step))));
            let weights = &mut heads.weights;
            trainer.step(cx, &mut params, &mut |p| {
                p.iter().for_each(|(name, tensor)| weights.set(name, tensor.clone()));
                let (x, t) = (head::vision(weights, &x, Some(&noise))?, head::text(weights, &t, Some(&noise))?);
                info_nce(&x, &t, &image_of, &text_of, &p["logit_scale"])
            })?;
        }
        params.iter().for_each(|(name, tensor)| heads.weights.set(name, tensor.clone()));
        let loss = if validate.is_empty() {
            None
        } else {
            let of: Vec<usize> = (0..validate.len()).collect();
            let x = gather(&mut validate.iter().map(|c| validation_images.row(c.rows[0] * views)), train_images.width)?;
            let t = gather(&mut validate.iter().map(|c| text_vectors.row(texts_of(c))), text_vectors.width)?;
            let (x, t) = (head::vision(&heads.weights, &x, None)?, head::text(&heads.weights, &t, None)?);
            Some(info_nce(&x, &t, &of, &of, &params["logit_scale"])?.scalar()?)
        };
        trainer.end_epoch(cx, &params, loss)?;
    }
    let params = trainer.best(params);
    for (prefix, tower) in [("text.", &text.model), ("vision.", &image.model)] {
        for (name, array) in Checkpoint::open(cx.input(tower), None)?.arrays {
            arrays.insert(format!("{prefix}{name}"), array);
        }
    }
    for (name, tensor) in &params {
        arrays.insert(name.clone(), Array::f32(&tensor.shape(), tensor.to_f32()?));
    }
    let (text_config, vision_config) =
        (Checkpoint::open(cx.input(&text.model), None)?.config, Checkpoint::open(cx.input(&image.model), None)?.config);
    let (Config::Bert(text_config), Config::EfficientnetLite { network, preprocessing }) = (text_config, vision_config)
    else {
        return Err(Failure::user("the text tower is to be a bert and the image tower an efficientnet-lite"));
    };
    let head = head::Config { dim: projection.dim, hidden: projection.hidden };
    let config = Config::DualEncoder { text: text_config, vision: network, preprocessing, projection: head };
    let out = cx.out().to_owned();
    write_model(&out, &config, &arrays)?;
    fs::copy(&cx.input(&text.model).join("tokenizer.json"), &out.join("tokenizer.json"))?;
    trainer.write_curves(&out)?;
    let card = format!(
        "---\nlibrary_name: effai\n---\n\n# {}\n\nA picture-text model: `{}` and `{}`, frozen, with heads trained on `{}`.\nWeights are in `model.safetensors` under `text.`, `vision.`, `text_projection.` and `vision_projection.`; `config.json` has the shapes.\nThe licences are those of the two towers.\n",
        cx.decl.label, image.model, text.model, train.data
    );
    Ok(fs::write(&out.join("README.md"), card.as_bytes())?)
}

struct Heads<T: Tensor> {
    weights: Weights<T>,
    dropout: f32,
}

fn unit(row: &[f32]) -> Vec<f32> {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    row.iter().map(|v| v / norm).collect()
}

/// Mean and deviation of each column, as the scale and shift that undo them.
fn statistics(arrays: &mut Arrays, name: &str, rows: &[&[f32]]) {
    let (n, width) = (rows.len().max(1) as f64, rows.first().map_or(0, |r| r.len()));
    let mut scale = vec![0.0; width];
    let mut shift = vec![0.0; width];
    for i in 0..width {
        let mean = rows.iter().map(|r| f64::from(r[i])).sum::<f64>() / n;
        let variance = rows.iter().map(|r| (f64::from(r[i]) - mean).powi(2)).sum::<f64>() / n;
        let s = 1.0 / (variance.sqrt() + 1e-3);
        (scale[i], shift[i]) = (s as f32, (-mean * s) as f32);
    }
    arrays.insert(format!("{name}.input_scale"), Array::f32(&[width], scale));
    arrays.insert(format!("{name}.input_shift"), Array::f32(&[width], shift));
}

/// A linear layer as torch begins it: uniform in +-1/sqrt(in).
fn init<T: Tensor>(params: &mut Params<T>, name: &str, out: usize, inner: usize, seed: u64) -> Result<(), Failure> {
    let mut rng = Rng::new(seed, name);
    let bound = 1.0 / (inner as f32).sqrt();
    let mut draw = |n: usize| (0..n).map(|_| rng.between(-bound, bound)).collect::<Vec<f32>>();
    params.insert(format!("{name}.weight"), T::from_f32(&draw(out * inner), &[out, inner])?);
    params.insert(format!("{name}.bias"), T::from_f32(&draw(out), &[out])?);
    Ok(())
}

/// The loop around steps: schedule, clipping, curves, early stopping.
pub struct Trainer<T> {
    train: Train,
    steps: u64,
    /// Steps done.
    pub step: u64,
    epoch: u64,
    adam: AdamW,
    losses: Vec<(u64, f32)>,
    validation: Vec<(u64, f32)>,
    best: Option<(f32, u64, Params<T>)>,
}

impl<T: Tensor> Trainer<T> {
    /// For so many concepts.
    pub fn new(train: &Train, concepts: usize) -> Self {
        let adam = AdamW::new(0.9, 0.98, train.weight_decay);
        let steps = train.epochs * concepts.div_ceil(train.batch) as u64;
        Self { train: train.clone(), steps, step: 0, epoch: 0, adam, losses: vec![], validation: vec![], best: None }
    }

    /// Whether training is over.
    pub fn done(&self) -> bool {
        let patience = self.train.patience;
        let stuck = patience > 0 && self.best.as_ref().is_some_and(|(_, at, _)| self.epoch - at >= patience);
        self.epoch >= self.train.epochs || stuck
    }

    /// One step of the optimizer.
    pub fn step(
        &mut self,
        cx: &mut ActionCx<'_>,
        params: &mut Params<T>,
        loss: &mut dyn FnMut(&Params<T>) -> crate::backend::Result<T>,
    ) -> Result<(), Failure> {
        let rate = Schedule::Cosine.rate(self.train.learning_rate, self.step, self.train.warmup, self.steps);
        let (loss, mut grads) = T::value_and_grad(params, loss)?;
        let norm = optim::clip(&mut grads, self.train.gradient_clip)?;
        check_loss(loss, self.step, rate, norm)?;
        self.adam.step(params, &grads, rate)?;
        if let Some(scale) = params.get_mut("logit_scale") {
            let value = scale.scalar()?.clamp(0.0, LOGIT_SCALE_MAX);
            *scale = T::from_f32(&[value], &scale.shape())?;
        }
        self.step += 1;
        self.losses.push((self.step, loss));
        cx.metric_at("train.loss", self.step, f64::from(loss));
        cx.progress(&format!("epoch {} loss {loss:.3}", self.epoch + 1), self.step, self.steps, "steps");
        Ok(())
    }

    /// Ends an epoch with its validation loss, if there are rows for one.
    pub fn end_epoch(&mut self, cx: &mut ActionCx<'_>, params: &Params<T>, loss: Option<f32>) -> Result<(), Failure> {
        self.epoch += 1;
        if let Some(loss) = loss {
            self.validation.push((self.step, loss));
            cx.metric_at("validation.loss", self.step, f64::from(loss));
            if self.train.patience > 0 && self.best.as_ref().is_none_or(|(best, ..)| loss < *best) {
                self.best = Some((loss, self.epoch, params.clone()));
            }
        }
        Ok(())
    }

    /// The weights to keep: the best by validation where early stopping is on, else the last.
    pub fn best(&mut self, last: Params<T>) -> Params<T> {
        self.best.take().map_or(last, |(_, _, params)| params)
    }

    /// Writes `training.json`.
    pub fn write_curves(&self, out: &Path) -> Result<(), Failure> {
        let text = json!({"version": 1, "train": self.losses, "validation": self.validation}).to_string();
        Ok(fs::write(&out.join("training.json"), text.as_bytes())?)
    }
}
