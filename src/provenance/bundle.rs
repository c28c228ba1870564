//! A model signed as the OpenSSF's [Model Signing](https://github.com/sigstore/model-transparency) has it: a Sigstore
//! bundle (media type `v0.3+json`) around a DSSE envelope around an in-toto statement that lists the model's files.
//!
//! The format was read from what `model-signing` 1.1.1 writes and accepts; its own command verifies these
//! (`tests/reference/git`). That command hashes with SHA-256 whatever a bundle says, so files are listed by that.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::dsse::Envelope;
use super::keys::{PublicKey, SigningKey};
use crate::failure::Failure;
use crate::store::{Form, Tree};
use crate::util::fs;
use crate::util::sha256::Sha256;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// What that project's command leaves out of a model unless it is told otherwise.
const IGNORED: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// A signature file's content.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Hint,
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Hint {
    hint: Option<String>,
}

/// The SHA-256 of a public key's PEM text, by which a verifier knows that it was given the right one.
fn hint(key: &PublicKey) -> Option<String> {
    Some(Sha256::of(key.pem()?.as_bytes()).to_string())
}

/// Signs the files of a directory as the model of that name.
pub fn sign(name: &str, dir: &Path, key: &SigningKey) -> Result<Bundle, Failure> {
    if !key.public.is_ecdsa() {
        let failure =
            Failure::user("Model Signing takes keys of an elliptic curve, P-256 or P-384, and this is Ed25519");
        return Err(failure.help("`openssl ecparam -name prime256v1 -genkey -noout -out signing.key` makes one"));
    }
    let payload = statement(name, dir, &Tree::of_dir(dir)?)?;
    let envelope = Envelope::sign(payload.to_string().as_bytes(), key, String::new())?;
    let material = Material { public_key: Hint { hint: hint(&key.public) }, tlog_entries: Vec::new() };
    Ok(Bundle { media_type: MEDIA_TYPE.into(), verification_material: material, dsse_envelope: envelope })
}

fn statement(name: &str, dir: &Path, tree: &Tree) -> Result<serde_json::Value, Failure> {
    let mut files: Vec<&Path> = Vec::new();
    for entry in tree.entries() {
        let shown = entry.path.display();
        if entry.form == Form::Link {
            let failure = Failure::user(format!("{name} holds a link, {shown}: Model Signing is of plain files"));
            return Err(failure.help("`effai sign` without --model signs where it comes from, links and all"));
        }
        if entry.path.to_str().is_none() {
            return Err(Failure::user(format!("{name} holds a file whose name is not UTF-8: {shown}")));
        }
        if !IGNORED.iter().any(|ignored| entry.path.starts_with(ignored)) {
            files.push(&entry.path);
        }
    }
    if files.is_empty() {
        return Err(Failure::user(format!("{name} holds no file that could be signed")));
    }
    files.sort();
    let (mut all, mut resources) = (Vec::new(), Vec::new());
    for path in files {
        let file = dir.join(path);
        let digest = fs::at("read", &file, Sha256::of_file(&file))?;
        all.extend(digest.bytes());
        resources.push(json!({"name": path, "algorithm": "sha256", "digest": digest.to_string()}));
    }
    Ok(json!({
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": Sha256::of(&all).to_string()}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files", "hash_type": "sha256", "allow_symlinks": false, "ignore_paths": IGNORED,
            },
            "resources": resources,
        },
    }))
}
