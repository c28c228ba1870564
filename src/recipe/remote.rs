//! `remote`: where artifacts lie besides the store of this machine.

use serde::{Deserialize, Serialize};

use super::check;
use super::mistake::{Mistake, nearest};
use super::node::{Node, Span};
use super::schema::{Default, Schema, Type};
use super::source::Sources;

/// The node's name.
pub const NAME: &str = "remote";

/// What it may say besides its own name.
pub const SCHEMA: Schema = Schema::new(
    NAME,
    "Another place where artifacts lie. A build asks it, in the order of the recipe, for what the store of this machine \
     has not; `effai push` and `effai pull` take artifacts there and bring them. Only in the outermost effai.kdl.",
)
.children(&[
    Schema::new(
        "url",
        "A directory, by its path from the project's root, or `s3://`, `gs://`, `az://`, `http://` or `https://` with the \
         path below which effai writes.",
    )
    .arg("url", Type::Text)
    .required(),
    Schema::new("access", "Whether artifacts may be taken there.")
        .arg("access", Type::Choice(&["read", "read-write"]))
        .default(Default::Text("read")),
    Schema::new("endpoint", "The server's address, where it is not that of the service itself: `http://localhost:9000`.")
        .arg("url", Type::Text),
    Schema::new("region", "The region, of an `s3://` remote.").arg("name", Type::Text),
    Schema::new(
        "timeout",
        "How long it may say nothing before it is left out, 10 s where it is not said; what is sent may take six times as \
         long.",
    )
    .arg("span", Type::Span),
])
.many();

/// Seconds of `timeout` where it is not said.
const TIMEOUT_S: f64 = 10.0;

/// Schemes of urls, each with whether it takes an `endpoint`.
const SCHEMES: [(&str, bool); 12] = [
    ("s3", true),
    ("s3a", true),
    ("gs", true),
    ("az", true),
    ("adl", true),
    ("azure", true),
    ("abfs", true),
    ("abfss", true),
    ("http", false),
    ("https", false),
    ("file", false),
    ("", false),
];

/// One `remote`, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remote {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// Where it is: a path, or a url with one of the known schemes.
    pub url: String,
    /// Whether artifacts may be taken there.
    #[serde(default)]
    pub access: Access,
    /// The server's address.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region, of S3.
    #[serde(default)]
    pub region: Option<String>,
    /// Seconds it may say nothing.
    #[serde(default = "timeout")]
    pub timeout: f64,
}

/// What may be done with a remote.
#[derive(Clone, Copy, Debug, std::default::Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Artifacts are brought from there.
    #[default]
    Read,
    /// They are taken there, too.
    ReadWrite,
}

fn timeout() -> f64 {
    TIMEOUT_S
}

impl Remote {
    /// Reads and checks a node; `others` are those before it.
    pub(super) fn read(node: &Node, others: &[Remote], sources: &Sources, mistakes: &mut Vec<Mistake>) -> Option<Self> {
        let Some(name) = node.text() else {
            let mistake = Mistake::new("recipe::missing_value", format!("`{NAME}` needs a name"))
                .mark(sources, node.name_span, "a name in quotes belongs here")
                .help(format!("{NAME} \"team\" {{ url \"s3://bucket/effai\"; }}"));
            mistakes.push(mistake);
            return None;
        };
        let before = mistakes.len();
        let checked = check::check(&SCHEMA, node, "", sources, mistakes);
        if mistakes.len() > before {
            return None;
        }
        let span = |field: &str| checked.spans.get(field).copied().unwrap_or(node.name_span);
        let read: Self = serde_json::from_value(checked.fields.clone()).expect("as the schema says");
        let remote = Self { name: name.to_owned(), ..read };
        if others.iter().any(|other| other.name == remote.name) {
            let at = node.args().next().map_or(node.name_span, |e| e.span);
            let message = format!("there are two `{NAME} \"{name}\"`");
            mistakes.push(Mistake::new("recipe::twice", message).mark(sources, at, "again here"));
        }
        remote.check(&span, sources, mistakes);
        (mistakes.len() == before).then_some(remote)
    }

    /// The scheme of its url; empty for a path.
    pub fn scheme(&self) -> &str {
        self.url.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    fn check(&self, span: &dyn Fn(&str) -> Span, sources: &Sources, mistakes: &mut Vec<Mistake>) {
        let Some((_, takes_endpoint)) = SCHEMES.iter().find(|(scheme, _)| *scheme == self.scheme()) else {
            let known = SCHEMES.iter().map(|(scheme, _)| *scheme);
            let help = match nearest(self.scheme(), known) {
                Some(near) if !near.is_empty() => format!("did you mean `{near}://`?"),
                _ => "it is a directory's path, or a url of s3://, gs://, az://, http:// or https://".into(),
            };
            let mistake = Mistake::new("recipe::remote", format!("no remote is `{}://`", self.scheme()))
                .mark(sources, span("url"), "this scheme")
                .help(help);
            return mistakes.push(mistake);
        };
        let mut odd = |field: &str, message: &str| {
            mistakes.push(Mistake::new("recipe::remote", message).mark(sources, span(field), "this"));
        };
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        if rest.is_empty() {
            odd("url", "the url names no place");
        }
        if self.endpoint.is_some() && !takes_endpoint {
            odd("endpoint", "`endpoint` is for `s3://`, `gs://` and `az://`: here the url is the address");
        }
        if self.endpoint.as_ref().is_some_and(|e| !e.starts_with("http://") && !e.starts_with("https://")) {
            odd("endpoint", "an `endpoint` begins with http:// or https://");
        }
        if self.region.is_some() && !self.scheme().starts_with("s3") {
            odd("region", "`region` is for `s3://`");
        }
        if self.timeout <= 0.0 {
            odd("timeout", "a `timeout` is longer than nothing");
        }
    }
}
