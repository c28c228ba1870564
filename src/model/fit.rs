//! Whether what lies in a model's directory belongs together: the weights and `config.json`, the tokenizer and both.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use super::{Config, bert, clip, llama};
use crate::failure::Failure;

/// A weight's name and the length of each of its axes.
pub type Weight = (String, Vec<usize>);

/// Refuses weights that the configuration, which `whose` said, does not mean; `shape_of` says what there is.
pub fn check(config: &Config, whose: &str, shape_of: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<(), Failure> {
    let wanted = match config {
        Config::Llama(config) => llama::weights(config),
        Config::Bert(config) => bert::weights(config, ""),
        Config::Clip(config) => clip::weights(config),
        Config::DualEncoder { text, .. } => bert::weights(text, "text."),
        // Its network asks for each of its weights before anything is computed.
        Config::EfficientnetLite { .. } => Vec::new(),
    };
    let wrong: Vec<(&Weight, Option<Vec<usize>>)> = wanted
        .iter()
        .map(|weight| (weight, shape_of(&weight.0)))
        .filter(|((_, shape), found)| found.as_ref() != Some(shape))
        .collect();
    let Some(((name, shape), found)) = wrong.first() else { return Ok(()) };
    let found = match found {
        None => "the weights have none of that name".to_owned(),
        Some(found) => format!("the weights' own is {}", product(found)),
    };
    let more = match wrong.len() - 1 {
        0 => String::new(),
        1 => "; another does not fit either".to_owned(),
        more => format!("; {more} others do not fit either"),
    };
    Err(Failure::target(format!("by {whose}, `{name}` is {}, and {found}{more}", product(shape)))
        .help(format!("take {whose} and the weights from one and the same model")))
}

/// `32 x 16`, `16 numbers`.
fn product(shape: &[usize]) -> String {
    match shape {
        [] => "one number".to_owned(),
        [length] => format!("{length} numbers"),
        lengths => lengths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x "),
    }
}

/// A tokenizer that gives no token which its model does not know.
#[derive(Clone, Debug)]
pub struct Words {
    tokenizer: Tokenizer,
    path: PathBuf,
    known: usize,
}

impl Words {
    /// Of this file, for a model that knows so many tokens.
    pub fn new(tokenizer: Tokenizer, path: &Path, known: usize) -> Self {
        Self { tokenizer, path: path.to_owned(), known }
    }

    /// The tokens of a text; with what the tokenizer puts around every text, if that is asked for.
    pub fn ids(&self, text: &str, around: bool) -> Result<Vec<u32>, Failure> {
        let encoded = self.tokenizer.encode(text, around).map_err(|e| not_cut(&*e))?;
        self.known(encoded.get_ids())
    }

    /// The tokens of each text, with what the tokenizer puts around it.
    pub fn all(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, Failure> {
        let encoded = self.tokenizer.encode_batch(texts.to_vec(), true).map_err(|e| not_cut(&*e))?;
        encoded.iter().map(|e| self.known(e.get_ids())).collect()
    }

    /// The text of tokens, without those that are no text.
    pub fn text(&self, ids: &[u32]) -> Result<String, Failure> {
        let text = self.tokenizer.decode(ids, true);
        text.map_err(|e| Failure::target(format!("the tokenizer cannot decode what was generated: {e}")))
    }

    fn known(&self, ids: &[u32]) -> Result<Vec<u32>, Failure> {
        match ids.iter().find(|id| **id as usize >= self.known) {
            None => Ok(ids.to_vec()),
            Some(id) => Err(Failure::target(format!(
                "the tokenizer {} does not fit the model: it gives the token {id}, and the model knows {} (0 to {})",
                self.path.display(),
                self.known,
                self.known.saturating_sub(1)
            ))
            .help("use the tokenizer.json that came with the model")),
        }
    }
}

fn not_cut(error: &dyn std::fmt::Display) -> Failure {
    Failure::target(format!("a text cannot be tokenized: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_weight_that_is_missing_or_misshapen_is_noticed() {
        let llama = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 9, "max_position_embeddings": 16,
            "rms_norm_eps": 1e-5,
        });
        let bert = json!({
            "model_type": "bert", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 9, "max_position_embeddings": 16, "layer_norm_eps": 1e-12,
        });
        let tower =
            json!({"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2});
        let clip = json!({"model_type": "clip", "text_config": tower, "vision_config": tower});
        for config in [llama, bert, clip] {
            let config: Config = serde_json::from_value(config).expect("fits");
            let all = match &config {
                Config::Llama(config) => llama::weights(config),
                Config::Bert(config) => bert::weights(config, ""),
                Config::Clip(config) => clip::weights(config),
                other => panic!("{other:?}"),
            };
            let find = |name: &str| all.iter().find(|(own, _)| own == name).map(|(_, shape)| shape.clone());
            assert!(all.len() > 20 && check(&config, "config.json", &find).is_ok());
            for (name, shape) in &all {
                let fails = |found: Option<Vec<usize>>| {
                    let find = |own: &str| if own == name { found.clone() } else { find(own) };
                    check(&config, "config.json", &find).expect_err("it does not fit").message
                };
                assert!(fails(None).contains(&format!("`{name}` is {}, and the weights have none", product(shape))));
                let other = shape.iter().map(|n| n + 1).collect();
                assert!(fails(Some(other)).contains(", and the weights' own is "), "{name}");
            }
        }
    }
}
