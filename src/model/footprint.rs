//! What a language model takes of a machine's memory, by how many bits its weights have and how long its texts are.
//!
//! Held against the peaks of `speed` with SmolLM2 in three forms of 4 and 8 bits, with prompts of 256 and 2,000 tokens: from 3 % below
//! to 10 % above what was measured.

use super::llama::{Config, weights};

/// Bits of a weight in the forms that effai makes, scales and least values of groups of 64 included.
pub const FORMS: [(&str, f64); 5] = [("f32", 32.0), ("bf16", 16.0), ("8 bits", 8.5), ("6 bits", 6.5), ("4 bits", 4.5)];

/// Of a program that holds no weights yet: code, tokenizer, threads.
const PROGRAM: u64 = 64_000_000;
/// Bytes of a number that is computed with.
const FLOAT: u64 = 4;

/// A model's parts that take memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// How many weights it has.
    pub weights: u64,
    /// Bytes of the keys and values of one token, in 32 bits.
    pub token_bytes: u64,
    /// Bytes that a token of a prompt needs besides, while all of it is read at once.
    pub prompt_bytes: u64,
    /// Tokens that it reads at most.
    pub longest: u64,
}

impl Footprint {
    /// Of a configuration.
    pub fn of(config: &Config) -> Self {
        let number = |n: usize| n as u64;
        let count = |shape: &Vec<usize>| shape.iter().map(|n| number(*n)).product::<u64>();
        let keys = number(config.kv_heads() * config.head_width());
        // At its widest a block holds what it was given, its norm, what attention made of it, and of the feed-forward part each
        // factor before and after its unit, and their product.
        let widest = 4 * number(config.hidden_size) + 5 * number(config.intermediate_size);
        Self {
            weights: weights(config).iter().map(|(_, shape)| count(shape)).sum(),
            token_bytes: 2 * number(config.num_hidden_layers) * keys * FLOAT,
            prompt_bytes: widest * FLOAT,
            longest: number(config.max_position_embeddings),
        }
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self, bits: f64) -> u64 {
        (self.weights as f64 * bits / 8.0) as u64
    }

    /// The most bytes that are held, of so many tokens: while weights are loaded their file is in memory beside them.
    pub fn bytes(&self, bits: f64, tokens: u64) -> u64 {
        PROGRAM + 2 * self.weight_bytes(bits) + tokens * (self.token_bytes + self.prompt_bytes)
    }

    /// How many tokens fit into so many bytes; none where not even the weights do.
    pub fn tokens_within(&self, bits: f64, bytes: u64) -> Option<u64> {
        let left = bytes.checked_sub(self.bytes(bits, 0))?;
        Some((left / (self.token_bytes + self.prompt_bytes).max(1)).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SmolLM2-135M, by its `config.json`.
    fn smollm2() -> Footprint {
        let config = serde_json::json!({
            "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": true,
        });
        Footprint::of(&serde_json::from_value(config).expect("a configuration"))
    }

    #[test]
    fn weights_are_those_of_its_card() {
        let footprint = smollm2();
        assert_eq!(footprint.weights, 134_515_008);
        assert_eq!(footprint.token_bytes, 2 * 30 * 3 * 64 * 4);
        assert_eq!(footprint.weight_bytes(16.0), 2 * 134_515_008);
    }

    #[test]
    fn what_fits_grows_with_the_memory_and_ends_at_the_longest() {
        let footprint = smollm2();
        assert_eq!(footprint.tokens_within(32.0, 1_000_000_000), None);
        let some = footprint.tokens_within(32.0, 1_300_000_000).expect("the weights fit");
        assert!(some > 100 && some < 8192, "{some}");
        assert!(footprint.bytes(32.0, some) <= 1_300_000_000 && footprint.bytes(32.0, some + 1) > 1_300_000_000);
        assert_eq!(footprint.tokens_within(4.5, 1_000_000_000), Some(8192));
    }
}
