//! Architectures, one file each, written once against the tensor interface; and loading them.
//!
//! A model is a directory in Hugging Face's layout. [`Checkpoint::open`] reads any of the three forms effai
//! makes (a model, an adapter with its base, a quantized model) into plain named arrays; [`Model`] runs them.

pub mod bert;
pub mod chat;
pub mod clip;
pub mod efficientnet_lite;
pub mod encoder;
pub mod fit;
pub mod footprint;
pub mod generate;
pub mod gguf;
pub mod head;
pub mod llama;
pub mod quantized;
pub mod tower;
pub mod weights;
pub mod zero_shot;

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use crate::backend::arrays::Arrays;
use crate::backend::gguf::Gguf;
use crate::backend::{BackendError, Precision, Tensor, Texts};
use crate::failure::Failure;
use crate::format::image::Preprocessing;
use crate::format::tensors;
use crate::util::fs;

use fit::Words;
use head::Dropout;
use quantized::Keep;
use tower::Tower;
use weights::Weights;

/// The file of a model that is kept as it came from llama.cpp.
pub const GGUF: &str = "model.gguf";
/// How a model's pictures are prepared, where Hugging Face's library looks for it.
pub const PREPROCESSOR: &str = "preprocessor_config.json";
/// Copies what a model has beside its weights and its configuration.
pub fn copy_companions(from: &Path, to: &Path) -> Result<(), Failure> {
    for name in COMPANIONS.iter().filter(|name| from.join(name).exists()) {
        fs::copy(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

/// The files of a model beside its weights and its configuration.
pub const COMPANIONS: &[&str] = &["tokenizer.json", "tokenizer_config.json", PREPROCESSOR];
/// Tokens that a sentence encoder's text is cut to.
const TOKENS_MAX: usize = 64;

/// `config.json`: which architecture, and its shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "kebab-case")]
pub enum Config {
    /// A sentence encoder.
    Bert(bert::Config),
    /// A language model.
    Llama(llama::Config),
    /// A picture encoder.
    EfficientnetLite {
        /// Its shape.
        #[serde(flatten)]
        network: efficientnet_lite::Config,
        /// How pictures are prepared.
        preprocessing: Preprocessing,
    },
    /// A picture-text model.
    Clip(clip::Config),
    /// A picture-text model of two towers that were trained apart, with heads into one space.
    DualEncoder {
        /// The text tower; its weights begin with `text.`.
        text: bert::Config,
        /// The picture tower; its weights begin with `vision.`.
        vision: efficientnet_lite::Config,
        /// How pictures are prepared.
        preprocessing: Preprocessing,
        /// The heads, `text_projection.` and `vision_projection.`.
        projection: head::Config,
    },
}

/// A model's files, read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The architecture.
    pub config: Config,
    /// The weights, unpacked and with adapters merged.
    pub arrays: Arrays,
    /// The tokenizer, where the model reads text.
    pub tokenizer: Option<Words>,
    /// How pictures are prepared, where the model sees.
    pub preprocessing: Option<Preprocessing>,
    /// Bytes of the weight files as they are on disk.
    pub weight_bytes: u64,
}

impl Checkpoint {
    /// Opens a model directory, a quantized one, or an adapter's with its base's.
    pub fn open(dir: &Path, base: Option<&Path>) -> Result<Self, Failure> {
        Self::open_form(dir, base, Keep::Nothing)
    }

    /// The same for computing with it: a language model's quantized matrices stay so, where they can, and matrices of bytes
    /// do in every model.
    pub fn open_as_codes(dir: &Path, base: Option<&Path>) -> Result<Self, Failure> {
        Self::open_form(dir, base, Keep::Bytes)
    }

    /// The same with every matrix that can stay quantized as it is stored, of any model.
    pub fn open_as_stored(dir: &Path, base: Option<&Path>) -> Result<Self, Failure> {
        Self::open_form(dir, base, Keep::All)
    }

    fn open_form(dir: &Path, base: Option<&Path>, keep: Keep) -> Result<Self, Failure> {
        if dir.join("adapter_config.json").exists() {
            let base = base.ok_or_else(|| {
                Failure::target(format!("{} is an adapter and its base is not at hand", dir.display()))
            })?;
            let mut checkpoint = Self::open_form(base, None, keep)?;
            let adapter = crate::train::peft::read(dir)?;
            weights::merge(&mut checkpoint.arrays, &adapter.arrays, adapter.scale)?;
            checkpoint.weight_bytes += size_of(&dir.join(crate::train::peft::WEIGHTS));
            return Ok(checkpoint);
        }
        let (config, text) = read_config(dir)?;
        let (arrays, weight_bytes) = match &config {
            Config::Llama(config) => {
                config.check()?;
                language_weights(dir, config, &text, keep != Keep::Nothing)?
            }
            Config::Clip(config) => {
                config.check()?;
                sharded(dir, &text, keep)?
            }
            _ => sharded(dir, &text, keep)?,
        };
        fit::check(&config, "config.json", &|name| arrays.get(name).map(|array| array.shape.clone()))
            .map_err(|f| f.within(dir.display()))?;
        let (tokenizer, preprocessing) = (tokenizer_of(dir, &config, None)?, preprocessing_of(dir, &config)?);
        Ok(Self { config, arrays, tokenizer, preprocessing, weight_bytes })
    }
}

/// The tokenizer beside a model that reads texts, which are cut to so many tokens, or as the model has it.
pub fn tokenizer_of(dir: &Path, config: &Config, at_most: Option<usize>) -> Result<Option<Words>, Failure> {
    let path = dir.join("tokenizer.json");
    let Some(text) = config.text().filter(|_| path.exists()) else { return Ok(None) };
    let at_most = text.at_most.map(|own| own.min(at_most.unwrap_or(own)));
    Ok(Some(Words::new(read_tokenizer(&path, at_most)?, &path, text.known)))
}

/// How pictures are prepared for a model that sees them.
pub fn preprocessing_of(dir: &Path, config: &Config) -> Result<Option<Preprocessing>, Failure> {
    Ok(match config {
        Config::Bert(_) | Config::Llama(_) => None,
        Config::EfficientnetLite { preprocessing, .. } | Config::DualEncoder { preprocessing, .. } => {
            Some(*preprocessing)
        }
        Config::Clip(config) => Some(read_preprocessing(dir, config.vision_config.image_size)?),
    })
}

/// How a model of Hugging Face's layout sees pictures of `size` pixels: as its file says, or as CLIP does.
pub fn read_preprocessing(dir: &Path, size: usize) -> Result<Preprocessing, Failure> {
    let path = dir.join(PREPROCESSOR);
    if !path.exists() {
        return Ok(Preprocessing::clip(size));
    }
    let read = Preprocessing::from_hub(&fs::read_text(&path)?).map_err(|f| f.within(path.display()))?;
    if read.size != size {
        let what = format!("{} makes pictures of {} pixels, and the model sees {size}", path.display(), read.size);
        return Err(Failure::target(what).help("take the file that came with the model"));
    }
    Ok(read)
}

/// The weights of one safetensors file, or of several with an index, and their size on disk.
fn sharded(dir: &Path, config: &str, keep: Keep) -> Result<(Arrays, u64), Failure> {
    let shards = tensors::shards(dir)?;
    let mut arrays = Arrays::new();
    for shard in &shards {
        arrays.extend(tensors::read(shard)?);
    }
    quantized::unpack(&mut arrays, config, keep)?;
    Ok((arrays, shards.iter().map(|shard| size_of(shard)).sum()))
}

/// What a model reads of a text.
struct Text {
    /// Tokens it knows.
    known: usize,
    /// A sentence is cut to so many; what a language model learns from or goes on from is whole.
    at_most: Option<usize>,
}

impl Config {
    fn text(&self) -> Option<Text> {
        match self {
            Config::Bert(text) | Config::DualEncoder { text, .. } => {
                Some(Text { known: text.vocab_size, at_most: Some(TOKENS_MAX.min(text.max_position_embeddings)) })
            }
            Config::Clip(config) => {
                let text = &config.text_config;
                Some(Text { known: text.vocab_size, at_most: Some(text.max_position_embeddings) })
            }
            Config::Llama(config) => Some(Text { known: config.vocab_size, at_most: None }),
            Config::EfficientnetLite { .. } => None,
        }
    }

    /// Tokens that a model knows of which it reads, and how many of them it reads at most; none of one that only sees.
    pub fn tokens(&self) -> Option<(usize, usize)> {
        match self {
            Config::Bert(text) | Config::DualEncoder { text, .. } => {
                Some((text.vocab_size, text.max_position_embeddings))
            }
            Config::Clip(config) => Some((config.text_config.vocab_size, config.text_config.max_position_embeddings)),
            Config::Llama(config) => Some((config.vocab_size, config.max_position_embeddings)),
            Config::EfficientnetLite { .. } => None,
        }
    }

    /// Of a model's directory.
    pub fn read(dir: &Path) -> Result<Self, Failure> {
        Ok(read_config(dir)?.0)
    }
}

fn read_config(dir: &Path) -> Result<(Config, String), Failure> {
    let path = dir.join("config.json");
    let text = fs::read_text(&path)?;
    let read = |text: &str| -> serde_json::Result<Config> {
        let mut config = serde_json::from_str(text)?;
        llama::settle(&mut config);
        serde_json::from_value(config)
    };
    let config = read(&text).map_err(|e| {
        Failure::target(format!("{} is not of an architecture effai knows: {e}", path.display()))
            .help("it knows bert, llama, clip, efficientnet-lite and dual-encoder")
    })?;
    Ok((config, text))
}

/// The weights of a language model, and their size on disk: one GGUF file, one safetensors file or several with an index.
fn language_weights(
    dir: &Path,
    config: &llama::Config,
    text: &str,
    keep_codes: bool,
) -> Result<(Arrays, u64), Failure> {
    let file = dir.join(GGUF);
    if file.exists() {
        return Ok((gguf::arrays(&Gguf::open(&file)?, config, keep_codes)?, size_of(&file)));
    }
    sharded(dir, text, if keep_codes { Keep::All } else { Keep::Nothing })
}

/// Bytes of a directory's own weight files: a model's, or an adapter's without its base.
pub fn weight_bytes(dir: &Path) -> Result<u64, Failure> {
    let adapter = dir.join(crate::train::peft::WEIGHTS);
    for file in [adapter, dir.join(GGUF)] {
        if file.exists() {
            return Ok(size_of(&file));
        }
    }
    Ok(tensors::shards(dir)?.iter().map(|shard| size_of(shard)).sum())
}

fn size_of(path: &Path) -> u64 {
    path.metadata().map_or(0, |m| m.len())
}

fn read_tokenizer(path: &Path, at_most: Option<usize>) -> Result<Tokenizer, Failure> {
    let mut tokenizer = Tokenizer::from_file(path)
        .map_err(|e| Failure::target(format!("the tokenizer {} cannot be read: {e}", path.display())))?;
    // Batches are padded here, to their own longest row; files often ask for a fixed length.
    tokenizer.with_padding(None);
    let cut = |max_length| tokenizers::TruncationParams { max_length, ..Default::default() };
    let _ = tokenizer.with_truncation(at_most.map(cut));
    Ok(tokenizer)
}

/// A model that runs.
pub struct Model<T: Tensor> {
    /// Its weights.
    pub weights: Weights<T>,
    /// Its architecture.
    pub config: Config,
    tower: Option<Tower<T>>,
    preprocessing: Option<Preprocessing>,
    tokenizer: Option<Words>,
}

impl<T: Tensor> Model<T> {
    /// Prepares a checkpoint to run.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, Failure> {
        Self::of(Weights::new(&checkpoint.arrays)?, checkpoint)
    }

    /// The same in a precision; the arrays are no more needed, and emptied on the way.
    pub fn take(checkpoint: &mut Checkpoint, precision: Precision) -> Result<Self, Failure> {
        Self::of(Weights::take(&mut checkpoint.arrays, precision)?, checkpoint)
    }

    fn of(weights: Weights<T>, checkpoint: &Checkpoint) -> Result<Self, Failure> {
        let tower = Tower::new(&weights, &checkpoint.config)?;
        let Checkpoint { config, tokenizer, preprocessing, .. } = checkpoint;
        Ok(Self { weights, config: config.clone(), tower, preprocessing: *preprocessing, tokenizer: tokenizer.clone() })
    }

    /// The picture tower.
    pub fn tower(&self) -> Result<&Tower<T>, Failure> {
        self.tower.as_ref().ok_or_else(|| Failure::target("a text model sees no pictures"))
    }

    /// How pictures are prepared, where the model sees.
    pub fn preprocessing(&self) -> Option<Preprocessing> {
        self.preprocessing
    }

    /// Whether the model reads text.
    pub fn reads(&self) -> bool {
        !matches!(self.config, Config::EfficientnetLite { .. })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> Result<&Words, Failure> {
        self.tokenizer.as_ref().ok_or_else(|| Failure::target("the model reads text but has no tokenizer.json"))
    }

    /// Token ids of texts.
    pub fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, Failure> {
        self.tokenizer()?.all(texts)
    }

    /// One batch of texts -> [texts, d]: pooled, or projected and of length 1 of a picture-text model, where `dropout`
    /// is on the heads' inputs.
    pub fn text_batch(&self, texts: &Texts, dropout: Option<&Dropout>) -> crate::backend::Result<T> {
        let none = |why: &str| Err(BackendError::Library(why.to_owned()));
        match &self.config {
            Config::Bert(config) => bert::encode(&self.weights, config, "", texts),
            Config::Clip(config) => {
                let pooled = clip::text(&self.weights, &config.text_config, texts)?;
                head::linear(&self.weights, "text_projection", &pooled, dropout)
            }
            Config::DualEncoder { text, .. } => {
                head::text(&self.weights, &bert::encode(&self.weights, text, "text.", texts)?, dropout)
            }
            Config::EfficientnetLite { .. } => none("a picture model reads no text"),
            Config::Llama(_) => none("a language model gives no vector of a text"),
        }
    }

    /// One batch of prepared pictures [n, size, size, 3] -> [n, d].
    pub fn picture_batch(&self, pictures: &T) -> Result<T, Failure> {
        let pooled = self.tower()?.tail(&self.weights, self.tower()?.prefix(&self.weights, pictures, 0)?, 0)?;
        Ok(self.project_pictures(pooled, None)?)
    }

    /// A tower's features of pictures [n, width] -> [n, d], as [`Self::text_batch`] does with texts'.
    pub fn project_pictures(&self, pooled: T, dropout: Option<&Dropout>) -> crate::backend::Result<T> {
        match self.config {
            Config::DualEncoder { .. } => head::vision(&self.weights, &pooled, dropout),
            Config::Clip(_) => head::linear(&self.weights, "visual_projection", &pooled, dropout),
            _ => Ok(pooled),
        }
    }
}
