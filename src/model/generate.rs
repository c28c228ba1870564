//! Texts from a language model, token by token.

use super::fit::Words;
use super::llama::{self, Cache};
use super::{Config, Model};
use crate::backend::rng::Rng;
use crate::backend::{Tensor, Texts};
use crate::failure::Failure;

/// How the next token is chosen, and when to stop.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens at most.
    pub max_tokens: usize,
    /// What logits are divided by; 0 takes the most likely token always.
    pub temperature: f32,
    /// The next token is one of the most likely that have this share of the probability together. Holtzman et al., 2019.
    pub top_p: f32,
    /// Of the choice.
    pub seed: u64,
    /// Texts that end it; they are not part of what is given.
    pub stop: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_tokens: 256, temperature: 0.0, top_p: 1.0, seed: 0, stop: Vec::new() }
    }
}

/// What was generated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// The text, without what ended it.
    pub text: String,
    /// The tokens, without the one that ended it.
    pub tokens: Vec<u32>,
}

/// Goes on from a prompt. `told` gets the text as it grows, whole characters at a time.
pub fn generate<T: Tensor>(
    model: &Model<T>,
    prompt: &[u32],
    options: &Options,
    told: &mut dyn FnMut(&str),
) -> Result<Generated, Failure> {
    let Config::Llama(config) = &model.config else {
        return Err(Failure::user("only a language model generates text"));
    };
    let mut cache = Cache::default();
    let next = |ids: &[u32]| -> Result<Vec<f32>, Failure> {
        let x = llama::encode(&model.weights, config, &Texts::new(&[ids.to_vec()]), &mut cache)?;
        let last = x.narrow(1, ids.len() - 1, 1)?.reshape(&[1, config.hidden_size])?;
        Ok(model.weights.linear(llama::head(config), &last)?.to_f32()?)
    };
    generate_by(config, model.tokenizer()?, prompt, options, next, told)
}

/// The same by whatever computes the model: `next` is given tokens, which come after those that it was given before, and gives
/// the logits that follow the last of them.
pub fn generate_by(
    config: &llama::Config,
    tokenizer: &Words,
    prompt: &[u32],
    options: &Options,
    mut next: impl FnMut(&[u32]) -> Result<Vec<f32>, Failure>,
    told: &mut dyn FnMut(&str),
) -> Result<Generated, Failure> {
    if prompt.is_empty() {
        return Err(Failure::user("the prompt is empty").help("give it at least one word"));
    }
    let most = config.max_position_embeddings;
    if prompt.len() >= most {
        let long = format!(
            "the prompt is {} tokens long, and the model reads {most} at most, its answer included",
            prompt.len()
        );
        return Err(Failure::user(long).help("shorten the prompt; a chat template adds tokens of its own"));
    }
    let ends = config.ends();
    let mut rng = Rng::new(options.seed, "generate");
    let mut made = Generated::default();
    let mut ids = prompt.to_vec();
    let room = most - prompt.len();
    while made.tokens.len() < options.max_tokens.min(room) {
        let token = choose(&next(&ids)?, options, &mut rng);
        if ends.contains(&token) {
            break;
        }
        made.tokens.push(token);
        // A character may take several tokens: only the whole text is decoded right.
        let text = tokenizer.text(&made.tokens)?;
        if let Some(at) = options.stop.iter().filter_map(|stop| text.find(stop)).min() {
            made.text = text[..at].to_owned();
            break;
        }
        if !text.ends_with('\u{fffd}') {
            told(&text);
        }
        made.text = text;
        ids = vec![token];
    }
    told(&made.text);
    Ok(made)
}

/// The most likely token (the first of equals), or one by its probability.
fn choose(logits: &[f32], options: &Options, rng: &mut Rng) -> u32 {
    let likelier = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if options.temperature <= 0.0 {
        return (0..logits.len()).min_by(likelier).unwrap_or(0) as u32;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_unstable_by(likelier);
    let top = logits[order[0]];
    let weight = |token: usize| ((logits[token] - top) / options.temperature).exp();
    let all: f32 = order.iter().map(|token| weight(*token)).sum();
    let mut kept = 0.0;
    let within = order.iter().position(|token| {
        kept += weight(*token);
        kept >= options.top_p * all
    });
    order.truncate(within.map_or(order.len(), |last| last + 1));
    let mut left = rng.uniform() * kept.min(all);
    for token in &order {
        left -= weight(*token);
        if left < 0.0 {
            return *token as u32;
        }
    }
    order[order.len() - 1] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_by_their_probability_and_none_beyond_the_share() {
        let logits = [1.0f32, 3.0, 2.0, -1.0].map(|p| p);
        let mut rng = Rng::new(1, "t");
        let greedy = Options::default();
        assert_eq!(choose(&logits, &greedy, &mut rng), 1);
        let hot = Options { temperature: 1.0, top_p: 0.8, ..Options::default() };
        let mut counts = [0usize; 4];
        for _ in 0..4000 {
            counts[choose(&logits, &hot, &mut rng) as usize] += 1;
        }
        // Of e^3, e^2: 0.731 and 0.269.
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert!((counts[1] as f64 / 4000.0 - 0.731).abs() < 0.03, "{counts:?}");
    }
}
