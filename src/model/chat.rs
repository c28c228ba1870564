//! Conversations as a model was trained to read them: the chat template of its `tokenizer_config.json`, which is Jinja as
//! Hugging Face's library renders it.

use std::path::Path;

use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::util::fs;

/// What somebody says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The words.
    pub content: String,
}

impl Message {
    /// Of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// Of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }
}

/// A model's way of reading conversations.
#[derive(Debug)]
pub struct Chat {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Chat {
    /// Of a model directory; none if it has no template.
    pub fn open(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join("tokenizer_config.json");
        if !path.exists() {
            return Ok(None);
        }
        let bad = |e: &dyn std::fmt::Display| Failure::target(format!("{}: {e}", path.display()));
        let config: Value = serde_json::from_str(&fs::read_text(&path)?).map_err(|e| bad(&e))?;
        let Some(template) = config["chat_template"].as_str() else { return Ok(None) };
        // A token is a text, or an object that holds it.
        let token = |name: &str| {
            let value = &config[name];
            value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_owned()
        };
        Self::new(template, token("bos_token"), token("eos_token")).map(Some).map_err(|f| f.within(path.display()))
    }

    /// From a template.
    pub fn new(template: &str, bos: String, eos: String) -> Result<Self, Failure> {
        let mut environment = Environment::new();
        // As `transformers` sets it up.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment
            .add_template_owned("chat", template.to_owned())
            .map_err(|e| Failure::target(format!("the chat template cannot be read: {e}")))?;
        Ok(Self { environment, bos, eos })
    }

    /// The text of a conversation; with `open`, up to where the model is to go on.
    pub fn text(&self, messages: &[Message], open: bool) -> Result<String, Failure> {
        let template = self.environment.get_template("chat").expect("added");
        let names = context! {
            messages, add_generation_prompt => open, bos_token => self.bos, eos_token => self.eos,
        };
        template.render(names).map_err(|e| {
            let why = e.detail().map_or_else(|| e.to_string(), str::to_owned);
            Failure::target(format!("the chat template does not take this conversation: {why}"))
                .help("look at the roles and their order")
        })
    }

    /// A conversation cut where the model begins and ends to speak: what it reads, and what it says, in turn.
    pub fn pieces(&self, messages: &[Message]) -> Result<Vec<Piece>, Failure> {
        let mut pieces = Vec::new();
        let mut done = String::new();
        for (i, message) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let (before, after) = (self.text(&messages[..i], true)?, self.text(&messages[..=i], false)?);
            let (Some(read), Some(said)) = (before.strip_prefix(&done), after.strip_prefix(&before)) else {
                return Err(Failure::target(format!(
                    "the chat template writes what came before \"{}\" in another way once it is there",
                    message.content.chars().take(40).collect::<String>()
                ))
                .help("train on conversations of one answer each"));
            };
            pieces.push(Piece { read: read.to_owned(), said: said.to_owned() });
            done = after;
        }
        Ok(pieces)
    }
}

/// A part of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// What the model reads.
    pub read: String,
    /// What it says to that.
    pub said: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn a_conversation_is_cut_where_the_model_speaks() {
        let chat = Chat::new(TEMPLATE, String::new(), "<|im_end|>".into()).expect("reads");
        let messages = [Message::user(" a "), Message::assistant("b"), Message::user("c"), Message::assistant("d")];
        let pieces = chat.pieces(&messages).expect("fits");
        assert_eq!(pieces[0].read, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(pieces[1].said, "d<|im_end|>\n");
        let all: String = pieces.iter().flat_map(|p| [p.read.as_str(), p.said.as_str()]).collect();
        assert_eq!(all, chat.text(&messages, false).expect("fits"));
    }

    #[test]
    fn a_template_may_refuse() {
        let chat = Chat::new("{{ raise_exception('roles must alternate') }}", String::new(), String::new());
        let error = chat.expect("reads").text(&[Message::user("a")], true).expect_err("refused");
        assert!(error.to_string().contains("roles must alternate"), "{error}");
    }
}
