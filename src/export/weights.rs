//! Weights alone, in the layouts that other programs bring their own model code to: llama.cpp's GGUF, MLX's safetensors,
//! and Hugging Face's.
//!
//! Nothing is traced: such a file has tensors under names, and no operations. What it is worth is seen by opening it again as
//! a model (`Reopened`), by effai's own reader, and running that beside the one it came from; mlx-lm and transformers read the
//! files in CI.

use std::path::Path;

use serde_json::Value;

use super::format::{Format, Precision};
use super::source::{Part, Source, Tensors};
use super::written::{Array as Values, Program, Written};
use crate::backend::affine::{Float, Form};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::blocks::Blocks;
use crate::backend::floats;
use crate::backend::gguf::{self as file, Stored, StoredValues};
use crate::failure::Failure;
use crate::format::tensors;
use crate::model::quantized::{self, Grids};
use crate::model::{COMPANIONS, Checkpoint, Config, GGUF, gguf};
use crate::util::fs;

/// The file of a model's weights in safetensors.
const SAFETENSORS: &str = "model.safetensors";
/// A model's configuration.
const CONFIG: &str = "config.json";
/// Weights that share a scale, the most that the rows allow.
const GROUPS: [usize; 2] = [64, 32];

/// A model whose weights are written.
pub struct Model<'a> {
    /// Its weights, as floats.
    pub checkpoint: &'a Checkpoint,
    /// Where it lies: its configuration and its tokenizer.
    pub dir: &'a Path,
    /// The name that the file gives itself.
    pub name: &'a str,
}

impl Model<'_> {
    /// Writes the weights.
    ///
    /// # Errors
    /// If the format holds no such model, or numbers of the precision do not hold a weight.
    pub fn write(&self, format: Format, precision: Precision) -> Result<Written, Failure> {
        let mut config = self.config()?;
        let (name, bytes) = match (format, precision) {
            (Format::Gguf, _) => (GGUF, self.gguf(precision)?),
            (_, Precision::Int8Weights) => (SAFETENSORS, self.packed(8, &mut config)?),
            (_, Precision::Int4Weights) => (SAFETENSORS, self.packed(4, &mut config)?),
            (_, precision) => {
                let float = match precision {
                    Precision::F16 => Float::F16,
                    Precision::Bf16 => Float::Bf16,
                    _ => Float::F32,
                };
                (SAFETENSORS, tensors::to_bytes(&self.checkpoint.arrays, &metadata(format), float)?)
            }
        };
        let config = serde_json::to_string_pretty(&config).expect("plain").into_bytes();
        Ok(Written { files: vec![(name.to_owned(), bytes), (CONFIG.to_owned(), config)], places: Vec::new() })
    }

    /// The configuration of a model of floats.
    fn config(&self) -> Result<Value, Failure> {
        let path = self.dir.join(CONFIG);
        let mut config: Value = serde_json::from_str(&fs::read_text(&path)?)
            .map_err(|e| Failure::target(format!("{}: {e}", path.display())))?;
        if let Some(config) = config.as_object_mut() {
            config.retain(|name, _| name != "quantization" && name != "quantization_config");
        }
        Ok(config)
    }

    fn gguf(&self, precision: Precision) -> Result<Vec<u8>, Failure> {
        let Config::Llama(config) = &self.checkpoint.config else {
            return Err(Failure::user("GGUF holds language models of the architecture `llama`, and this is none")
                .help("export it as `onnx`, `coreml`, `tflite`, `mlx` or `safetensors`"));
        };
        let blocks = match precision {
            Precision::Int8Weights => Some(Blocks::Q8_0),
            Precision::Int4Weights => Some(Blocks::Q4K),
            _ => None,
        };
        let mut stored = Vec::new();
        for (name, array) in &self.checkpoint.arrays {
            let Some((theirs, array)) = gguf::outward(name, array, config) else { continue };
            let module = name.strip_suffix(".weight").unwrap_or_default();
            let values = array.floats();
            let &[_, inner] = &array.shape[..] else {
                stored.push(Stored {
                    name: theirs,
                    shape: array.shape.clone(),
                    values: StoredValues::F32(values.into()),
                });
                continue;
            };
            let form = blocks.and_then(|form| gguf::form_of(module, inner, form, config).1);
            let values = match form {
                Some(form) => StoredValues::Blocks(form, form.round(values, inner)),
                // As its converter has it: vectors stay, matrices become halves, and so do those whose rows are no whole blocks.
                None if precision != Precision::F32 => {
                    if let Some(value) = floats::too_large(values, Float::F16) {
                        return Err(too_large(name, value));
                    }
                    StoredValues::F16(values.to_vec())
                }
                None => StoredValues::F32(values.to_vec()),
            };
            stored.push(Stored { name: theirs, shape: array.shape.clone(), values });
        }
        Ok(file::write(&gguf::facts_of(self.dir, config, self.name)?, &stored)?)
    }

    /// Matrices in MLX's codes, to the nearest.
    fn packed(&self, bits: usize, config: &mut Value) -> Result<Vec<u8>, Failure> {
        let matrices = |array: &Array| match &array.shape[..] {
            &[_, inner] => Some(inner),
            _ => None,
        };
        let fits = |group: &usize| self.checkpoint.arrays.values().filter_map(matrices).any(|inner| inner % group == 0);
        let group = GROUPS.into_iter().find(fits).ok_or_else(|| {
            Failure::user("no matrix of the model has rows of whole groups of 32 weights")
                .help("take another precision")
        })?;
        let form = Form::new(bits, group);
        let mut arrays = Arrays::new();
        for (name, array) in &self.checkpoint.arrays {
            let module = name.strip_suffix(".weight").unwrap_or_default();
            // Tables of positions are not multiplied by anything, and others load them as they are.
            let stays = module.is_empty() || module.contains("position_embedding") || module.contains("token_type");
            match matrices(array).filter(|inner| inner % group == 0 && !stays) {
                Some(inner) => quantized::pack(array.floats(), inner, &form).insert(module, &mut arrays),
                None => _ = arrays.insert(name.clone(), array.clone()),
            }
        }
        Grids { all: (bits, group), own: std::collections::BTreeMap::new() }.write(config);
        tensors::to_bytes(&arrays, &metadata(Format::Mlx), Float::F32)
    }
}

/// What a safetensors file says of who loads it.
fn metadata(format: Format) -> [(&'static str, &'static str); 1] {
    [("format", if format == Format::Mlx { "mlx" } else { "pt" })]
}

fn too_large(name: &str, value: f32) -> Failure {
    Failure::target(format!("`{name}` holds {value}, which is too large for 16 bits")).help("write precision \"f32\"")
}

/// What was written, opened again as a model.
pub struct Reopened {
    source: Source,
}

impl Reopened {
    /// Of files that are laid out in a directory of their own for it, with what the model has beside its weights.
    pub fn new(written: &Written, beside: &Path, part: Part, format: Format) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::target(format!("no room for a second model: {e}"));
        let dir = tempfile::tempdir().map_err(failed)?;
        written.save(dir.path())?;
        for name in COMPANIONS.iter().filter(|name| beside.join(name).exists()) {
            fs::copy(&beside.join(name), &dir.path().join(name))?;
        }
        let mut checkpoint = Checkpoint::open(dir.path(), None)?;
        Ok(Self { source: Source::new(&mut checkpoint, part, format.layout())? })
    }
}

impl Program for Reopened {
    fn name(&self) -> String {
        "effai's own reader of it, and candle".to_owned()
    }

    /// A model that is read again has no tensors of the graph.
    fn has(&self, _tensor: &str) -> bool {
        false
    }

    fn run(&self, inputs: &[Tensors], tensors: &[(&str, usize)]) -> Result<Vec<Values>, Failure> {
        let names = self.source.outputs();
        let outputs = self.source.run_of(inputs)?;
        let value = |(name, _): &(&str, usize)| {
            let at = names.iter().position(|own| own == name).expect("both are of one part");
            Ok((outputs[at].node().shape.clone(), outputs[at].values().expect("it was given")?))
        };
        tensors.iter().map(value).collect()
    }
}
