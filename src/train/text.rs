//! Records of a dataset as what a language model learns from: token ids, and which of them count in the loss.
//!
//! | columns | what is learnt |
//! |---|---|
//! | `messages` | what the assistant says: a JSON list of `{"role", "content"}` |
//! | `prompt`, `completion` | the completion; as a conversation where the model has a chat template |
//! | `text` | all of it |

use crate::failure::Failure;
use crate::format::dataset::Row;
use crate::model::chat::{Chat, Message};
use crate::model::fit::Words;
use crate::model::llama;

/// One record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Which of them count in the loss; the first never does.
    pub counts: Vec<bool>,
}

impl Example {
    fn add(&mut self, ids: &[u32], counts: bool) {
        self.ids.extend(ids);
        self.counts.extend(std::iter::repeat_n(counts, ids.len()));
    }

    /// How many tokens count.
    pub fn targets(&self) -> usize {
        self.counts.iter().skip(1).filter(|c| **c).count()
    }
}

/// What turns records into examples.
pub struct Reader<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Words,
    /// Its chat template, where it has one.
    pub chat: Option<&'a Chat>,
    /// Its configuration.
    pub config: &'a llama::Config,
    /// Tokens of an example at most.
    pub length_max: usize,
}

/// Examples, and how many records had to be cut.
#[derive(Debug, Default)]
pub struct Examples {
    /// In the order of the records.
    pub examples: Vec<Example>,
    /// Records longer than the limit: their ends are left out.
    pub cut: usize,
    /// The limit: what was asked for, or what the model reads.
    pub length_max: usize,
}

impl Examples {
    /// What is to be told of records that were cut where so many tokens were asked for, and what can be done.
    pub fn warning(&self, asked: usize) -> Option<(String, String)> {
        let (cut, most) = (self.cut, self.length_max);
        let (whose, help) = if most < asked {
            ("what the model reads", "split them; `max_position_embeddings` in its config.json says how much that is")
        } else {
            ("`max-length`", "raise `max-length`, or leave it so")
        };
        let records = if cut == 1 { "1 record is" } else { &format!("{cut} records are") };
        let text = format!("{records} longer than {whose}, {most} tokens: what comes after is left out");
        (cut > 0).then(|| (text, help.to_owned()))
    }
}

impl Reader<'_> {
    /// The records of a split, those that have something to learn.
    pub fn examples(&self, rows: &[Row], split: &str) -> Result<Examples, Failure> {
        let mut all = Examples { length_max: self.length_max, ..Examples::default() };
        for row in rows {
            let mut example = self.example(row)?;
            if example.ids.len() > self.length_max {
                all.cut += 1;
                example.ids.truncate(self.length_max);
                example.counts.truncate(self.length_max);
            }
            if example.targets() > 0 {
                all.examples.push(example);
            }
        }
        if all.examples.is_empty() {
            let why = match rows.is_empty() {
                true => format!("the split `{split}` is empty"),
                false => format!("no record of the split `{split}` has a token to learn"),
            };
            return Err(
                Failure::target(why).help("look at `split` and the columns of the dataset, and at `max-length`")
            );
        }
        Ok(all)
    }

    fn example(&self, row: &Row) -> Result<Example, Failure> {
        let column = |name: &str| row.columns.get(name).filter(|text| !text.is_empty());
        if let Some(messages) = column("messages") {
            let messages: Vec<Message> = serde_json::from_str(messages)
                .map_err(|e| Failure::target(format!("record {}: `messages` is no conversation: {e}", row.id)))?;
            let chat = self.chat.ok_or_else(|| {
                Failure::target("the records are conversations, and the model has no chat template")
                    .help("give the model a tokenizer_config.json with one, or the records `prompt` and `completion`")
            })?;
            return self.conversation(chat, &messages);
        }
        match (column("prompt"), column("completion"), column("text")) {
            (Some(prompt), Some(completion), _) => match self.chat {
                Some(chat) => self.conversation(chat, &[Message::user(prompt), Message::assistant(completion)]),
                None => {
                    let mut example = self.begun();
                    example.add(&self.ids(prompt)?, false);
                    example.add(&self.ids(completion)?, true);
                    example.add(&self.end(), true);
                    Ok(example)
                }
            },
            (_, _, Some(text)) => {
                let mut example = self.begun();
                example.add(&self.ids(text)?, true);
                example.add(&self.end(), true);
                Ok(example)
            }
            _ => Err(Failure::target(format!("record {} has no text to learn", row.id))
                .help("give the dataset a `column` called text, messages, or prompt and completion")),
        }
    }

    fn conversation(&self, chat: &Chat, messages: &[Message]) -> Result<Example, Failure> {
        let mut example = Example::default();
        for piece in chat.pieces(messages)? {
            example.add(&self.ids(&piece.read)?, false);
            example.add(&self.ids(&piece.said)?, true);
        }
        Ok(example)
    }

    fn begun(&self) -> Example {
        let mut example = Example::default();
        example.add(self.config.bos_token_id.as_slice(), false);
        example
    }

    fn end(&self) -> Vec<u32> {
        self.config.ends().into_iter().take(1).collect()
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, Failure> {
        self.tokenizer.ids(text, false)
    }
}
