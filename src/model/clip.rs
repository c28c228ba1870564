//! CLIP: Radford et al., "Learning transferable visual models from natural language supervision", 2021. Names and
//! configuration are Hugging Face's `CLIPModel`.
//!
//! The picture tower runs in pieces, so that what comes before the first trained layer need not run at every step:
//! piece 0 is the embedding of the patches, piece i the layer i - 1.

use serde::{Deserialize, Serialize};

use super::fit::Weight;
use super::weights::Weights;
use crate::backend::texts::Mark;
use crate::backend::{BackendError, Result, Scope, Tensor, Texts, Window};
use crate::failure::Failure;

/// The fields of `config.json` that the forward pass needs. What a file leaves out is as in `CLIPConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The text tower.
    #[serde(default)]
    pub text_config: Text,
    /// The picture tower.
    #[serde(default)]
    pub vision_config: Vision,
    /// Width of the common space.
    #[serde(default = "default::<512>")]
    pub projection_dim: usize,
    /// What Hugging Face's library loads it as.
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
}

/// The text tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// Tokens known.
    #[serde(default = "default::<49_408>")]
    pub vocab_size: usize,
    /// Longest text.
    #[serde(default = "default::<77>")]
    pub max_position_embeddings: usize,
    /// The token whose row is the text's: the first of its kind. The published files say 2, which is not that token
    /// and means the one of the highest number.
    #[serde(default = "default::<49_407>")]
    pub eos_token_id: usize,
    /// Width.
    #[serde(default = "default::<512>")]
    pub hidden_size: usize,
    /// Inner width of the feed-forward blocks.
    #[serde(default = "default::<2048>")]
    pub intermediate_size: usize,
    /// Layers.
    #[serde(default = "default::<12>")]
    pub num_hidden_layers: usize,
    /// Heads.
    #[serde(default = "default::<8>")]
    pub num_attention_heads: usize,
    /// The unit between the feed-forward matrices: `quick_gelu` or `gelu`.
    #[serde(default = "quick_gelu")]
    pub hidden_act: String,
    /// Of the norms.
    #[serde(default = "eps")]
    pub layer_norm_eps: f32,
    /// Width of the common space, for who loads the tower alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection_dim: Option<usize>,
}

/// The picture tower: a vision transformer (Dosovitskiy et al., 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vision {
    /// Height and width of a picture.
    #[serde(default = "default::<224>")]
    pub image_size: usize,
    /// Height and width of a patch.
    #[serde(default = "default::<32>")]
    pub patch_size: usize,
    /// Colours.
    #[serde(default = "default::<3>")]
    pub num_channels: usize,
    /// Width.
    #[serde(default = "default::<768>")]
    pub hidden_size: usize,
    /// Inner width of the feed-forward blocks.
    #[serde(default = "default::<3072>")]
    pub intermediate_size: usize,
    /// Layers.
    #[serde(default = "default::<12>")]
    pub num_hidden_layers: usize,
    /// Heads.
    #[serde(default = "default::<12>")]
    pub num_attention_heads: usize,
    /// The unit between the feed-forward matrices: `quick_gelu` or `gelu`.
    #[serde(default = "quick_gelu")]
    pub hidden_act: String,
    /// Of the norms.
    #[serde(default = "eps")]
    pub layer_norm_eps: f32,
    /// Width of the common space, for who loads the tower alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection_dim: Option<usize>,
}

fn default<const N: usize>() -> usize {
    N
}

fn quick_gelu() -> String {
    "quick_gelu".into()
}

fn eps() -> f32 {
    1e-5
}

fn architectures() -> Vec<String> {
    vec!["CLIPModel".into()]
}

impl Default for Text {
    fn default() -> Self {
        serde_json::from_str("{}").expect("every field has a default")
    }
}

impl Default for Vision {
    fn default() -> Self {
        serde_json::from_str("{}").expect("every field has a default")
    }
}

/// The `eos_token_id` of the files that mean the token of the highest number.
const EOS_OF_OLD: usize = 2;
/// Each module of the picture tower begins with it.
const VISION: &str = "vision_model";

impl Config {
    /// Refuses what the forward pass would compute otherwise.
    pub fn check(&self) -> std::result::Result<(), Failure> {
        let (text, vision) = (&self.text_config, &self.vision_config);
        let refuse =
            |what: String| Err(Failure::target(what).help("effai computes CLIP models as published by OpenAI"));
        for act in [&text.hidden_act, &vision.hidden_act] {
            if act != "quick_gelu" && act != "gelu" {
                return refuse(format!("the model's unit is `{act}`, and only `quick_gelu` and `gelu` are supported"));
            }
        }
        for (width, heads) in
            [(text.hidden_size, text.num_attention_heads), (vision.hidden_size, vision.num_attention_heads)]
        {
            if heads == 0 || !width.is_multiple_of(heads) {
                return refuse(format!("the model's width {width} is not divided by its {heads} heads"));
            }
        }
        if vision.num_channels != 3 {
            return refuse(format!("the model sees {} colours, and only 3 are supported", vision.num_channels));
        }
        if vision.patch_size == 0 || vision.image_size < vision.patch_size {
            return refuse(format!("pictures of {} pixels hold no patch of {}", vision.image_size, vision.patch_size));
        }
        Ok(())
    }

    /// Pieces of the picture tower.
    pub fn depth(&self) -> usize {
        self.vision_config.num_hidden_layers + 1
    }

    /// The piece of the picture tower that a module belongs to, if it does to one.
    pub fn piece(&self, module: &str) -> Option<usize> {
        let rest = module.strip_prefix(VISION)?;
        if let Some(layer) = rest.strip_prefix(".encoder.layers.") {
            return layer.split('.').next()?.parse::<usize>().ok().map(|layer| layer + 1);
        }
        // What follows the layers comes after all pieces.
        Some(if rest.starts_with(".post_layernorm") { self.depth() } else { 0 })
    }

    /// Whether a weight is a head's: what brings a tower's features into the common space, and the scale.
    pub fn is_head(name: &str) -> bool {
        ["text_projection.weight", "visual_projection.weight", "logit_scale"].contains(&name)
    }
}

impl Text {
    /// The token whose row is the text's.
    fn mark(&self) -> Mark {
        match self.eos_token_id {
            EOS_OF_OLD => Mark::Highest,
            id => Mark::First(id as u32),
        }
    }

    /// A token that ends a text.
    pub fn end(&self) -> u32 {
        match self.mark() {
            Mark::First(id) => id,
            Mark::Highest => self.vocab_size.saturating_sub(1) as u32,
        }
    }
}

/// Texts, each with its end -> features [texts, width], not projected.
pub fn text<T: Tensor>(weights: &Weights<T>, config: &Text, texts: &Texts) -> Result<T> {
    let length = texts.longest();
    if length > config.max_position_embeddings {
        let most = config.max_position_embeddings;
        return Err(BackendError::Library(format!("{length} tokens, and the model reads {most} at most")));
    }
    let name = |module: &str| format!("text_model.{module}");
    let positions = weights.get(&name("embeddings.position_embedding.weight"))?.narrow(0, 0, length)?;
    let mut x = weights.embed(&name("embeddings.token_embedding"), texts)?.add(&positions)?;
    let scope = Scope { lengths: texts.lengths(), causal: true };
    let tower = Layers {
        prefix: "text_model",
        heads: config.num_attention_heads,
        quick: config.hidden_act == "quick_gelu",
        eps: config.layer_norm_eps,
    };
    for layer in 0..config.num_hidden_layers {
        x = tower.layer(weights, layer, &x, &scope)?;
    }
    tower.norm(weights, "final_layer_norm", &x.take_tokens(texts, config.mark())?)
}

/// Pictures [n, size, size, 3] -> their patches, [n, patches, colours of a patch]; no gradient passes.
pub fn patches<T: Tensor>(config: &Vision, pictures: &T) -> Result<T> {
    let (size, n) = (config.patch_size, pictures.shape()[0]);
    let side = config.image_size / size;
    let window = Window { size, stride: size, before: 0, out_h: side, out_w: side };
    pictures.patches(window)?.reshape(&[n, side * side, size * size * 3])
}

/// The pieces from..until of the picture tower: patches go in at piece 0, and come out at each as [n, tokens, width].
pub fn pieces<T: Tensor>(weights: &Weights<T>, config: &Vision, x: &T, from: usize, until: usize) -> Result<T> {
    let tower = Layers {
        prefix: VISION,
        heads: config.num_attention_heads,
        quick: config.hidden_act == "quick_gelu",
        eps: config.layer_norm_eps,
    };
    let scope = |x: &T| Scope { lengths: vec![x.shape()[1]; x.shape()[0]].into(), causal: false };
    let mut x = x.clone();
    for piece in from..until {
        x = match piece {
            0 => embed(weights, config, &tower, &x)?,
            piece => tower.layer(weights, piece - 1, &x, &scope(&x))?,
        };
    }
    Ok(x)
}

/// What the last piece gave [n, tokens, width] -> features [n, width], not projected.
pub fn pool<T: Tensor>(weights: &Weights<T>, config: &Vision, x: &T) -> Result<T> {
    let (n, width) = (x.shape()[0], config.hidden_size);
    let class = x.narrow(1, 0, 1)?.reshape(&[n, width])?;
    let [weight, bias] = ["weight", "bias"].map(|part| weights.get(&format!("{VISION}.post_layernorm.{part}")));
    class.layer_norm(weight?, bias?, config.layer_norm_eps)
}

fn embed<T: Tensor>(weights: &Weights<T>, config: &Vision, tower: &Layers, patches: &T) -> Result<T> {
    let (n, width, area) = (patches.shape()[0], config.hidden_size, config.patch_size * config.patch_size);
    let get = |name: &str| weights.get(&format!("{VISION}.embeddings.{name}"));
    // [width, 3, size, size] -> [width, size * size * 3], as patches are laid out.
    let kernel = get("patch_embedding.weight")?.reshape(&[width, 3, area])?.swap_axes(1, 2)?;
    let x = patches.linear(&kernel.reshape(&[width, area * 3])?, None)?;
    let class = get("class_embedding")?.reshape(&[1, 1, width])?.repeat(n)?;
    let x = T::concat(&[class, x], 1)?.add(get("position_embedding.weight")?)?;
    // So it is spelled in the files.
    tower.norm(weights, "pre_layrnorm", &x)
}

/// The layers of either tower.
struct Layers {
    prefix: &'static str,
    heads: usize,
    quick: bool,
    eps: f32,
}

impl Layers {
    fn norm<T: Tensor>(&self, weights: &Weights<T>, module: &str, x: &T) -> Result<T> {
        let get = |part: &str| weights.get(&format!("{}.{module}.{part}", self.prefix));
        x.layer_norm(get("weight")?, get("bias")?, self.eps)
    }

    /// [n, tokens, width] -> the same.
    fn layer<T: Tensor>(&self, weights: &Weights<T>, layer: usize, x: &T, scope: &Scope) -> Result<T> {
        let [n, tokens, width] = x.shape().try_into().expect("rows of tokens");
        let head = width / self.heads;
        let module = |part: &str| format!("encoder.layers.{layer}.{part}");
        let linear = |part: &str, x: &T| weights.linear(&format!("{}.{}", self.prefix, module(part)), x);
        let y = self.norm(weights, &module("layer_norm1"), x)?;
        let split = |part: &str| linear(part, &y)?.reshape(&[n, tokens, self.heads, head])?.swap_axes(1, 2);
        let (q, k, v) = (split("self_attn.q_proj")?, split("self_attn.k_proj")?, split("self_attn.v_proj")?);
        let mixed = T::attention(&q, &k, &v, scope, 1.0 / (head as f32).sqrt())?;
        let mixed = mixed.swap_axes(1, 2)?.reshape(&[n, tokens, width])?;
        let x = x.add(&linear("self_attn.out_proj", &mixed)?)?;
        let inner = linear("mlp.fc1", &self.norm(weights, &module("layer_norm2"), &x)?)?;
        let inner = if self.quick { inner.quick_gelu()? } else { inner.gelu()? };
        x.add(&linear("mlp.fc2", &inner)?)
    }
}

/// Every weight that the forward pass takes, and its shape.
pub fn weights(config: &Config) -> Vec<Weight> {
    let (text, vision) = (&config.text_config, &config.vision_config);
    let (side, patch) = (vision.image_size / vision.patch_size, vision.patch_size);
    let (read, seen) = (text.hidden_size, vision.hidden_size);
    let own = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let mut all = vec![
        own("text_model.embeddings.token_embedding.weight", &[text.vocab_size, read]),
        own("text_model.embeddings.position_embedding.weight", &[text.max_position_embeddings, read]),
        own("vision_model.embeddings.class_embedding", &[seen]),
        own("vision_model.embeddings.patch_embedding.weight", &[seen, vision.num_channels, patch, patch]),
        own("vision_model.embeddings.position_embedding.weight", &[side * side + 1, seen]),
        own("text_projection.weight", &[config.projection_dim, read]),
        own("visual_projection.weight", &[config.projection_dim, seen]),
    ];
    let both = |module: String, shape: &[usize]| {
        [(format!("{module}.weight"), shape.to_vec()), (format!("{module}.bias"), vec![shape[0]])]
    };
    for norm in ["text_model.final_layer_norm", "vision_model.pre_layrnorm", "vision_model.post_layernorm"] {
        all.extend(both(norm.to_owned(), &[if norm.starts_with(VISION) { seen } else { read }]));
    }
    for (tower, width, inner, layers) in [
        ("text_model", read, text.intermediate_size, text.num_hidden_layers),
        (VISION, seen, vision.intermediate_size, vision.num_hidden_layers),
    ] {
        for layer in 0..layers {
            for (part, shape) in [
                ("layer_norm1", &[width][..]),
                ("self_attn.q_proj", &[width, width]),
                ("self_attn.k_proj", &[width, width]),
                ("self_attn.v_proj", &[width, width]),
                ("self_attn.out_proj", &[width, width]),
                ("layer_norm2", &[width]),
                ("mlp.fc1", &[inner, width]),
                ("mlp.fc2", &[width, inner]),
            ] {
                all.extend(both(format!("{tower}.encoder.layers.{layer}.{part}"), shape));
            }
        }
    }
    all
}
