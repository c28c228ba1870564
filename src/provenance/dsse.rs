//! Signed envelopes: [DSSE](https://github.com/secure-systems-lab/dsse) 1.0, and Sigstore's bundle around one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::keys::{PublicKey, SigningKey};
use crate::failure::Failure;

/// What in-toto statements are, inside an envelope.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A payload and who signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64 of the bytes that are signed.
    pub payload: String,
    /// What they are.
    pub payload_type: String,
    /// By each key, one.
    pub signatures: Vec<Signed>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Base64.
    pub sig: String,
    /// A hint at the key, not itself signed; effai writes OpenSSH's fingerprint.
    #[serde(default)]
    pub keyid: String,
}

/// Why an envelope is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No key that is believed has signed it.
    #[error("it is signed by {0}, and not by a key that is believed")]
    Stranger(String),
    /// A believed key is named, and the signature is not its own over these bytes.
    #[error("the signature of {0} is not over these bytes: what it signs was changed, or the signature itself")]
    Broken(String),
    /// It is not such an envelope.
    #[error("it is no signed statement: {0}")]
    Odd(String),
}

/// What is signed: the payload and its type, each with its length, so that none of it can be taken for the other
/// (DSSE's "pre-authentication encoding").
fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend(payload);
    bytes
}

impl Envelope {
    /// Signs an in-toto statement's bytes; `keyid` is the hint to write.
    pub fn sign(payload: &[u8], key: &SigningKey, keyid: String) -> Result<Self, Failure> {
        let sig = STANDARD.encode(key.sign(&signed_bytes(IN_TOTO, payload))?);
        let signatures = vec![Signed { sig, keyid }];
        Ok(Self { payload: STANDARD.encode(payload), payload_type: IN_TOTO.into(), signatures })
    }

    /// The payload, not verified.
    pub fn payload(&self) -> Result<Vec<u8>, Refused> {
        if self.payload_type != IN_TOTO {
            return Err(Refused::Odd(format!("its payload is `{}`, not `{IN_TOTO}`", self.payload_type)));
        }
        STANDARD.decode(&self.payload).map_err(|e| Refused::Odd(format!("its payload: {e}")))
    }

    /// The payload, and which of the believed keys signed it.
    pub fn verify<'a>(&self, believed: &'a [PublicKey]) -> Result<(Vec<u8>, &'a PublicKey), Refused> {
        let payload = self.payload()?;
        let bytes = signed_bytes(&self.payload_type, &payload);
        for signed in &self.signatures {
            let Ok(sig) = STANDARD.decode(&signed.sig) else { continue };
            if let Some(key) = believed.iter().find(|key| key.verifies(&bytes, &sig)) {
                return Ok((payload, key));
            }
        }
        let hints: Vec<&str> = self.signatures.iter().map(|signed| signed.keyid.as_str()).collect();
        let known = believed.iter().find(|key| hints.contains(&key.id().as_str()));
        Err(match known {
            Some(key) => Refused::Broken(key.named()),
            // Without a hint there is no knowing which of the two it is.
            None if hints.iter().all(|hint| hint.is_empty()) => {
                Refused::Broken(believed.iter().map(PublicKey::named).collect::<Vec<_>>().join(" or "))
            }
            None => Refused::Stranger(hints.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_part_of_what_is_signed() {
        // The example of DSSE's own protocol.md.
        assert_eq!(
            signed_bytes("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
