//! Keys that sign and keys that are believed: the only user of OpenSSH's and PEM's key files, and of their cryptography.
//!
//! | file | whose |
//! |---|---|
//! | `-----BEGIN OPENSSH PRIVATE KEY-----` | `ssh-keygen -t ed25519`, `-t ecdsa -b 256` or `-b 384` |
//! | `-----BEGIN PRIVATE KEY-----` | PKCS #8, of Ed25519, P-256 or P-384: `openssl genpkey` |
//! | `-----BEGIN EC PRIVATE KEY-----` | SEC 1, of P-256 or P-384: `openssl ecparam -genkey` |
//! | `ssh-ed25519 AAAA…` | the public half, whose private half the user's agent holds |
//!
//! A key with a passphrase is used through the agent, as git and ssh do: effai asks for no passphrases.
//!
//! Signatures are Ed25519's 64 bytes, or ECDSA over SHA-256 (P-256) or SHA-384 (P-384) in ASN.1 DER: what DSSE's other
//! implementations write and read.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use p256::ecdsa::signature::{Signer, Verifier};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData};
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, PrivateKey, Signature};

use crate::failure::Failure;
use crate::util::fs;

/// What a key must be, for people.
const FORMS: &str = "a private key of OpenSSH's, or a PEM file of PKCS #8 or SEC 1; Ed25519, P-256 or P-384";

/// Messages of the agent's protocol (draft-ietf-sshm-ssh-agent, section 5).
const AGENT_SIGN_REQUEST: u8 = 13;
const AGENT_SIGN_RESPONSE: u8 = 14;

/// An answer of the agent longer than this is none.
const AGENT_ANSWER_MAX: u32 = 1 << 16;

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    data: KeyData,
    /// Whose it is, where its file says so.
    pub owner: Option<String>,
}

/// A key that signs.
pub struct SigningKey {
    /// What others know it by.
    pub public: PublicKey,
    secret: Secret,
}

enum Secret {
    Here(KeypairData),
    /// The agent has it, and listens here.
    Agent(PathBuf),
}

impl PublicKey {
    /// A key as OpenSSH has it, with its comment for an owner.
    fn of(key: &ssh_key::PublicKey) -> Self {
        let owner = Some(key.comment().to_owned()).filter(|comment| !comment.is_empty());
        Self { data: key.key_data().clone(), owner }
    }

    /// Its name: OpenSSH's fingerprint, `SHA256:…`.
    pub fn id(&self) -> String {
        self.data.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Its name and owner, for people.
    pub fn named(&self) -> String {
        match &self.owner {
            Some(owner) => format!("{} ({owner})", self.id()),
            None => self.id(),
        }
    }

    /// Whether it is of an elliptic curve that Model Signing takes.
    pub fn is_ecdsa(&self) -> bool {
        matches!(self.data, KeyData::Ecdsa(_))
    }

    /// Whether this is a signature of its over a message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = match &self.data {
            KeyData::Ed25519(_) => Signature::new(Algorithm::Ed25519, signature),
            KeyData::Ecdsa(EcdsaPublicKey::NistP256(_)) => match p256::ecdsa::Signature::from_der(signature) {
                Ok(signature) => Signature::try_from(signature),
                Err(_) => return false,
            },
            KeyData::Ecdsa(EcdsaPublicKey::NistP384(_)) => match p384::ecdsa::Signature::from_der(signature) {
                Ok(signature) => Signature::try_from(signature),
                Err(_) => return false,
            },
            _ => return false,
        };
        signature.is_ok_and(|signature| self.data.verify(message, &signature).is_ok())
    }

    /// As a PEM file's SubjectPublicKeyInfo.
    pub fn pem(&self) -> Option<String> {
        match &self.data {
            KeyData::Ed25519(key) => {
                ed25519_dalek::VerifyingKey::try_from(key).ok()?.to_public_key_pem(LineEnding::LF).ok()
            }
            KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => {
                p256::PublicKey::from_sec1_bytes(point.as_bytes()).ok()?.to_public_key_pem(LineEnding::LF).ok()
            }
            KeyData::Ecdsa(EcdsaPublicKey::NistP384(point)) => {
                p384::PublicKey::from_sec1_bytes(point.as_bytes()).ok()?.to_public_key_pem(LineEnding::LF).ok()
            }
            _ => None,
        }
    }

    fn of_pem(text: &str) -> Option<KeyData> {
        if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_pem(text) {
            return Some(KeyData::Ed25519(Ed25519PublicKey::from(key)));
        }
        if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_pem(text) {
            return Some(KeyData::Ecdsa(EcdsaPublicKey::NistP256(key.to_encoded_point(false))));
        }
        let key = p384::ecdsa::VerifyingKey::from_public_key_pem(text).ok()?;
        Some(KeyData::Ecdsa(EcdsaPublicKey::NistP384(key.to_encoded_point(false))))
    }

    /// Whether this key could sign here.
    fn is_of_use(data: &KeyData) -> bool {
        use EcdsaPublicKey::{NistP256, NistP384};
        matches!(data, KeyData::Ed25519(_) | KeyData::Ecdsa(NistP256(_) | NistP384(_)))
    }
}

/// The keys that a file says are to be believed: a public key in PEM, or lines as OpenSSH writes them in `id.pub`,
/// `authorized_keys` and `allowed_signers`.
///
/// Of `allowed_signers`, a line with a validity, an authority, or namespaces without `effai` is passed over: what it
/// would allow is less than what is asked here.
pub fn believed(path: &Path) -> Result<Vec<PublicKey>, Failure> {
    let text = fs::read_text(path)?;
    if text.contains("-----BEGIN ") {
        let data = PublicKey::of_pem(&text).ok_or_else(|| {
            let secret = text.contains("PRIVATE KEY-----");
            let failure = Failure::user(format!("{} is no public key of Ed25519, P-256 or P-384", path.display()));
            failure.help(match secret {
                true => "it is a private key: give its public half (`ssh-keygen -y`, `openssl pkey -pubout`)",
                false => "`openssl pkey -pubin -text` says what it is",
            })
        })?;
        return Ok(vec![PublicKey { data, owner: None }]);
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<PublicKey> = lines.filter_map(line).collect();
    if keys.is_empty() {
        let failure = Failure::user(format!("there is no key in {} that effai can go by", path.display()));
        return Err(failure.help(
            "it takes lines as in id_ed25519.pub or allowed_signers, of Ed25519, P-256 or P-384, without validity or authority",
        ));
    }
    Ok(keys)
}

/// One line: `[PRINCIPALS] [OPTIONS] TYPE BASE64 [COMMENT]`.
fn line(line: &str) -> Option<PublicKey> {
    let begin = ["ssh-ed25519 ", "ecdsa-sha2-nistp256 ", "ecdsa-sha2-nistp384 "];
    let at = begin.iter().filter_map(|word| line.find(word)).min()?;
    let before: Vec<&str> = line[..at].split_whitespace().collect();
    let options = before.iter().skip(1).copied().collect::<Vec<_>>().join(" ");
    let namespaces = options.strip_prefix("namespaces=").map(|list| list.trim_matches('"'));
    let is_ours = namespaces.is_some_and(|list| list.split(',').any(|name| ["effai", "*"].contains(&name)));
    if !options.is_empty() && !is_ours {
        return None;
    }
    let key = ssh_key::PublicKey::from_openssh(&line[at..]).ok()?;
    let public = PublicKey::of(&key);
    let owner = before.first().map(|who| (*who).to_owned());
    Some(PublicKey { owner: owner.or(public.owner), ..public })
}

impl SigningKey {
    /// Reads a key; `agent` is where the user's agent listens, for keys that are not here in the open.
    pub fn read(path: &Path, agent: Option<PathBuf>) -> Result<Self, Failure> {
        let text = fs::read_text(path)?;
        let not = |why: &str| Failure::user(format!("{} is no key to sign with: {why}", path.display()));
        if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            let key =
                PrivateKey::from_openssh(&text).map_err(|e| not(&e.to_string()).help(format!("it takes {FORMS}")))?;
            let public = PublicKey::of(key.public_key());
            if !PublicKey::is_of_use(&public.data) {
                return Err(
                    not(&format!("effai does not sign with {}", key.algorithm())).help(format!("it takes {FORMS}"))
                );
            }
            return match key.is_encrypted() {
                false => Ok(Self { public, secret: Secret::Here(key.key_data().clone()) }),
                true => Self::in_agent(public, agent, path),
            };
        }
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
            let help =
                "`openssl pkey -in KEY -out OPEN` writes it without; keys of OpenSSH's may have one, in the agent";
            return Err(not("it has a passphrase").help(help));
        }
        if text.contains("-----BEGIN ") {
            let secret = of_pem(&text).ok_or_else(|| {
                let is_public = text.contains("-----BEGIN PUBLIC KEY-----");
                let why = if is_public { "it is the public half" } else { "it is of another form" };
                not(why).help(format!("it takes {FORMS}"))
            })?;
            let data = KeyData::try_from(&secret).map_err(|e| not(&e.to_string()))?;
            return Ok(Self { public: PublicKey { data, owner: None }, secret: Secret::Here(secret) });
        }
        match ssh_key::PublicKey::from_openssh(text.trim()) {
            Ok(key) if PublicKey::is_of_use(key.key_data()) => Self::in_agent(PublicKey::of(&key), agent, path),
            _ => Err(not("it is of another form").help(format!("it takes {FORMS}"))),
        }
    }

    fn in_agent(public: PublicKey, agent: Option<PathBuf>, path: &Path) -> Result<Self, Failure> {
        let Some(socket) = agent else {
            let failure = Failure::user(format!("the private half of {} is not open to read", path.display()));
            return Err(failure.help("give it to an agent: `eval $(ssh-agent)`, then `ssh-add KEY`"));
        };
        Ok(Self { public, secret: Secret::Agent(socket) })
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let signature = match &self.secret {
            Secret::Here(key) => {
                key.try_sign(message).map_err(|e| Failure::environment(format!("the key does not sign: {e}")))?
            }
            Secret::Agent(socket) => self.ask(socket, message)?,
        };
        let bytes = match &self.public.data {
            KeyData::Ecdsa(EcdsaPublicKey::NistP256(_)) => {
                p256::ecdsa::Signature::try_from(&signature).map(|s| s.to_der().as_bytes().to_vec())
            }
            KeyData::Ecdsa(EcdsaPublicKey::NistP384(_)) => {
                p384::ecdsa::Signature::try_from(&signature).map(|s| s.to_der().as_bytes().to_vec())
            }
            _ => Ok(signature.as_bytes().to_vec()),
        };
        let bytes = bytes.map_err(|e| Failure::environment(format!("the key's signature cannot be read: {e}")))?;
        // A wrong answer of the agent's, or a fault in here, must not be found out by those who verify.
        if !self.public.verifies(message, &bytes) {
            return Err(Failure::environment("the signature is not of the key that was asked for"));
        }
        Ok(bytes)
    }

    /// Has the agent sign. Two messages of its protocol are all there is to it; the crate that speaks it brings RSA and
    /// half a dozen more.
    fn ask(&self, socket: &Path, message: &[u8]) -> Result<Signature, Failure> {
        let cannot = |why: String| {
            Failure::environment(format!("the SSH agent does not sign: {why}"))
                .help("`ssh-add -l` lists the keys it has; `ssh-add KEY` gives it one")
        };
        let blob = self.public_blob();
        let mut request = vec![AGENT_SIGN_REQUEST];
        for part in [blob.as_slice(), message] {
            request.extend((part.len() as u32).to_be_bytes());
            request.extend(part);
        }
        request.extend([0; 4]);
        let answer = || -> std::io::Result<Vec<u8>> {
            let mut agent = UnixStream::connect(socket)?;
            agent.write_all(&(request.len() as u32).to_be_bytes())?;
            agent.write_all(&request)?;
            let mut length = [0; 4];
            agent.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length);
            if length > AGENT_ANSWER_MAX {
                return Err(std::io::Error::other("its answer is no answer"));
            }
            let mut answer = vec![0; length as usize];
            agent.read_exact(&mut answer)?;
            Ok(answer)
        };
        let answer = answer().map_err(|e| cannot(e.to_string()))?;
        match answer.split_first() {
            // A string: its length, then the signature.
            Some((&AGENT_SIGN_RESPONSE, rest)) if rest.len() > 4 => {
                Signature::try_from(&rest[4..]).map_err(|e| cannot(e.to_string()))
            }
            _ => Err(cannot(format!("it has no key {}", self.public.named()))),
        }
    }

    fn public_blob(&self) -> Vec<u8> {
        ssh_key::PublicKey::from(self.public.data.clone()).to_bytes().expect("a key that was read can be written")
    }
}

/// A private key of a PEM file.
fn of_pem(text: &str) -> Option<KeypairData> {
    if let Ok(key) = ed25519_dalek::SigningKey::from_pkcs8_pem(text) {
        return Some(Ed25519Keypair::from(key).into());
    }
    if let Ok(key) = p256::SecretKey::from_sec1_pem(text).or_else(|_| p256::SecretKey::from_pkcs8_pem(text)) {
        let public = p256::ecdsa::VerifyingKey::from(key.public_key()).to_encoded_point(false);
        return Some(EcdsaKeypair::NistP256 { public, private: key.into() }.into());
    }
    let key = p384::SecretKey::from_sec1_pem(text).or_else(|_| p384::SecretKey::from_pkcs8_pem(text)).ok()?;
    let public = p384::ecdsa::VerifyingKey::from(key.public_key()).to_encoded_point(false);
    Some(EcdsaKeypair::NistP384 { public, private: key.into() }.into())
}
