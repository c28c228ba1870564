//! What a model does in one round.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// A workload of a recipe, all of its sizes known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Its name in the recipe.
    pub name: String,
    /// What is done.
    #[serde(flatten)]
    pub work: Work,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Work {
    /// A language model reads a prompt, which gives the first token, and generates more after it.
    Tokens {
        /// Tokens that are read at once.
        prompt: usize,
        /// Tokens that are generated, one after the other, each of them read with what is kept of those before.
        generate: usize,
    },
    /// Texts are encoded at once.
    Texts {
        /// How many.
        texts: usize,
        /// Tokens of each.
        length: usize,
    },
    /// Pictures are encoded at once.
    Pictures {
        /// How many.
        pictures: usize,
        /// Pixels a side.
        size: usize,
    },
    /// The model is opened, in a new process.
    Load {
        /// From where.
        load: Load,
    },
}

/// Where a model's files lie when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// On the disk alone: the system has forgotten what it held of them in memory.
    Cold,
    /// In memory: they were read lately.
    Warm,
}

impl Load {
    /// Every word for it.
    pub const NAMES: &[&str] = &["cold", "warm"];
}

/// As in a recipe: `prompt=256 generate=64`.
impl Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Tokens { prompt, generate: 0 } => write!(f, "prompt={prompt}"),
            Work::Tokens { prompt, generate } => write!(f, "prompt={prompt} generate={generate}"),
            Work::Texts { texts, length } => write!(f, "texts={texts} length={length}"),
            Work::Pictures { pictures, size } => write!(f, "pictures={pictures} size={size}"),
            Work::Load { load: Load::Cold } => write!(f, "load=\"cold\""),
            Work::Load { load: Load::Warm } => write!(f, "load=\"warm\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_written_and_read_back_as_the_recipe_has_it() {
        let check = |work: Work, json: &str, text: &str| {
            let workload = Workload { name: "x".into(), work };
            assert_eq!(serde_json::to_string(&workload).unwrap(), format!("{{\"name\":\"x\",{json}}}"));
            assert_eq!(serde_json::from_str::<Workload>(&format!("{{\"name\":\"x\",{json}}}")).unwrap(), workload);
            assert_eq!(work.to_string(), text);
        };
        check(Work::Tokens { prompt: 256, generate: 64 }, "\"prompt\":256,\"generate\":64", "prompt=256 generate=64");
        check(Work::Tokens { prompt: 8, generate: 0 }, "\"prompt\":8,\"generate\":0", "prompt=8");
        check(Work::Texts { texts: 2, length: 3 }, "\"texts\":2,\"length\":3", "texts=2 length=3");
        check(Work::Pictures { pictures: 2, size: 3 }, "\"pictures\":2,\"size\":3", "pictures=2 size=3");
        check(Work::Load { load: Load::Cold }, "\"load\":\"cold\"", "load=\"cold\"");
    }
}
