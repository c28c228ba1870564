//! Signed provenance: what is signed, who is believed, and that whatever was tampered with is refused by name and place.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use p256::ecdsa::signature::Signer;
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{PrivateKey, PublicKey};

use super::{built, clone, contains, effai_at, git, repository};
use crate::support::Project;

fn ed25519(seed: u8) -> PrivateKey {
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    key.set_comment(format!("key{seed}@example.com"));
    key
}

/// A repository whose model lies in `out/`.
pub(crate) fn with_model() -> Project {
    let project = repository();
    assert_eq!(built(&project, &project.path("."), &["models/counts"]), super::NONE);
    project
}

/// Writes a key's two halves beside the project; the paths.
pub(crate) fn keys(project: &Project, name: &str, seed: u8) -> (String, String) {
    let key = ed25519(seed);
    let path = project.path("..").join(name);
    std::fs::write(&path, key.to_openssh(LineEnding::LF).expect("text")).expect("written");
    let public = path.with_extension("pub");
    std::fs::write(&public, key.public_key().to_openssh().expect("text")).expect("written");
    (path.display().to_string(), public.display().to_string())
}

#[test]
fn what_is_signed_here_is_verified_elsewhere() {
    let project = repository();
    let root = project.path(".");
    let (secret, public) = keys(&project, "id", 1);
    let run = project.effai(&["sign", "models/counts", "reports/top", "--key", &secret]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stdout, "signed  models/counts  ");
    contains(&run.stdout, "(key1@example.com), in the note of commit ");

    let verified = project.effai(&["verify-provenance", "models/counts", "--key", &public, "--json"]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let said: serde_json::Value = serde_json::from_str(&verified.stdout).expect("JSON");
    assert_eq!(said["owner"], "key1@example.com");
    assert_eq!(said["verified"]["commit"], git(&root, &["rev-parse", "HEAD"]));
    assert_eq!(said["verified"]["changed"], serde_json::json!([]));
    let claim = project.read("effai.lock");
    let claim: Vec<&str> =
        claim.lines().find(|line| line.starts_with("models/counts ")).expect("a line").split(' ').collect();
    assert_eq!((&said["verified"]["key"], &said["verified"]["artifact"]), (&claim[1].into(), &claim[2].into()));

    // What it is now is another, and unsigned; what it was then is still what was signed.
    git(&root, &["tag", "v1"]);
    project.write("words.txt", "one\ntwo\n");
    built(&project, &root, &["--lock"]);
    let now = project.effai(&["verify-provenance", "models/counts", "--key", &public]);
    assert_eq!(now.code, 1);
    contains(&now.stderr, "is not the one that was signed, ");
    let then = project.effai(&["verify-provenance", "models/counts@v1", "--key", &public]);
    assert_eq!(then.code, 0, "{}", then.stderr);
    git(&root, &["checkout", "--quiet", "--", "."]);

    // Notes go with git, and git's own file of signers says who is believed.
    let there = clone(&project, "there", &[]);
    assert_eq!(built(&project, &there, &["--frozen"]), super::NONE);
    let unknown = effai_at(&project, &there, &["verify-provenance", "reports/top", "--key", &public]);
    assert_eq!(unknown.code, 1);
    contains(&unknown.stderr, "reports/top: nobody has signed the artifact that effai.lock names, ");
    assert_eq!(effai_at(&project, &there, &["notes", "fetch"]).code, 0);
    let nobody = effai_at(&project, &there, &["verify-provenance", "reports/top"]);
    assert_eq!(nobody.code, 2);
    contains(&nobody.stderr, "nobody is believed yet");
    let signers = project.path("../signers");
    let line = std::fs::read_to_string(&public).expect("read");
    std::fs::write(&signers, format!("# people\njoe@example.com namespaces=\"git,effai\" {line}\n")).expect("written");
    git(&there, &["config", "gpg.ssh.allowedSignersFile", signers.to_str().expect("text")]);
    let run = effai_at(&project, &there, &["verify-provenance", "reports/top"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stdout, "(joe@example.com)");
    // Who may sign commits only may not sign this.
    std::fs::write(&signers, format!("joe@example.com namespaces=\"git\" {line}\n")).expect("written");
    let run = effai_at(&project, &there, &["verify-provenance", "reports/top"]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "there is no key in ");
    // Elsewhere it was not made, so elsewhere it cannot be signed.
    let run = effai_at(&project, &there, &["sign", "reports/top", "--key", &secret]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "reports/top was not made here, so there is no record of how");
}

#[test]
fn a_file_of_statements_needs_no_project() {
    let project = with_model();
    // git's own key signs where none is named; what was not committed is stated.
    let (secret, public) = keys(&project, "id", 2);
    project.write("notes.txt", "not committed");
    for (name, value) in [("gpg.format", "ssh"), ("user.signingKey", &secret)] {
        git(&project.path("."), &["config", name, value]);
    }
    let run = project.effai(&["sign", "models/counts", "--output", "counts.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stderr, "not as committed, and stated so: notes.txt");
    let away = project.path("../away");
    std::fs::create_dir(&away).expect("made");
    std::fs::rename(project.path("counts.jsonl"), away.join("counts.jsonl")).expect("moved");
    std::fs::rename(project.path("out/models/counts"), away.join("model")).expect("moved");
    let verify = |key: &str| {
        effai_at(&project, &away, &["verify-provenance", "--from", "counts.jsonl", "--dir", "model", "--key", key])
    };
    let run = verify(&public);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stdout, "verified  models/counts  ");
    contains(&run.stdout, " with 1 file changed");
    let (_, other) = keys(&project, "other", 3);
    let run = verify(&other);
    assert_eq!(run.code, 1);
    contains(&run.stderr, "counts.jsonl:1: it is signed by SHA256:");
    contains(&run.stderr, ", and not by a key that is believed");
    let text = std::fs::read_to_string(away.join("model/counts")).expect("read");
    std::fs::remove_file(away.join("model/counts")).expect("removed");
    std::fs::write(away.join("model/counts"), text.replace("node", "code")).expect("written");
    std::fs::write(away.join("model/more"), "").expect("written");
    let run = verify(&public);
    assert_eq!(run.code, 1);
    contains(
        &run.stderr,
        "models/counts is not what was signed:\n  model/counts: its bytes are not those that were signed",
    );
    contains(&run.stderr, "\n  model/more: it was not signed");
}

/// Changes a signed statement and leaves its signature as it was.
pub(crate) fn forged(line: &str, change: impl Fn(String) -> String) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut envelope: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let payload = base64.decode(envelope["payload"].as_str().expect("text")).expect("base64");
    let changed = change(String::from_utf8(payload).expect("text"));
    envelope["payload"] = base64.encode(changed).into();
    envelope.to_string()
}

#[test]
fn whatever_was_tampered_with_is_named() {
    let project = with_model();
    let root = project.path(".");
    let (secret, public) = keys(&project, "id", 4);
    assert_eq!(project.effai(&["sign", "models/counts", "--key", &secret]).code, 0);
    let head = git(&root, &["rev-parse", "HEAD"]);
    let place = format!("refs/notes/effai-signed, the note of commit {}, line 1: ", &head[..10]);
    let line = git(&root, &["notes", "--ref", "refs/notes/effai-signed", "show"]);
    let verify = || project.effai(&["verify-provenance", "models/counts", "--key", &public]);
    let with_note = |text: &str| {
        let args = ["notes", "--ref", "refs/notes/effai-signed", "add", "--force", "-m", text];
        git(&root, &args);
        let run = verify();
        git(&root, &["notes", "--ref", "refs/notes/effai-signed", "add", "--force", "-m", &line]);
        assert_eq!(verify().code, 0, "as it was, it is believed");
        run
    };
    let broken = "is not over these bytes: what it signs was changed, or the signature itself";

    // A fact of the statement, with the key that follows from it; which artifact; the commit.
    let said = project.effai(&["verify-provenance", "models/counts", "--key", &public, "--json"]).stdout;
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    for (was, now) in [
        (said["verified"]["artifact"].as_str().expect("text"), "0".repeat(64)),
        (head.as_str(), "0".repeat(40)),
        ("\"backend\":\"none\"", "\"backend\":\"mlx\"".into()),
    ] {
        let run = with_note(&forged(&line, |text| text.replace(was, &now)));
        assert_eq!(run.code, 1, "{}", run.stdout);
        contains(&run.stderr, &place);
        contains(&run.stderr, broken);
    }
    // The signature itself; the line cut off.
    let mut envelope: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let sig = envelope["signatures"][0]["sig"].as_str().expect("text");
    let other = if sig.starts_with('A') { "B" } else { "A" };
    envelope["signatures"][0]["sig"] = format!("{other}{}", &sig[1..]).into();
    let run = with_note(&envelope.to_string());
    assert_eq!(run.code, 1);
    contains(&run.stderr, &format!("models/counts: {place}the signature of SHA256:"));
    contains(&run.stderr, broken);
    let run = with_note(&line[..line.len() - 20]);
    assert_eq!(run.code, 1);
    contains(&run.stderr, &format!("{place}damaged or changed by hand: "));

    // The lock: another key, and another artifact.
    let lock = project.read("effai.lock");
    for (part, said) in [
        (1, "its line was changed"),
        (2, "the artifact that effai.lock names, 00000000, is not the one that was signed, "),
    ] {
        let claim = lock.lines().find(|line| line.starts_with("models/counts ")).expect("a line");
        project.write("effai.lock", &lock.replace(claim.split(' ').nth(part).expect("a digest"), &"0".repeat(64)));
        let run = verify();
        assert_eq!(run.code, 1);
        contains(&run.stderr, said);
    }
    project.write("effai.lock", &lock);

    // A note of a build.
    git(&root, &["notes", "--ref", "refs/notes/effai", "append", "-m", "{\"version\":1,\"at\":\"now\""]);
    let run = project.effai(&["notes", "show"]);
    assert_eq!(run.code, 1);
    contains(
        &run.stderr,
        &format!("refs/notes/effai, the note of commit {}, line 1: damaged or changed by hand: ", &head[..10]),
    );
    assert_eq!(project.effai(&["log", "models/counts"]).code, 1);

    // The artifact, in out/ and in the store.
    let file = project.path("out/models/counts/counts");
    let text = project.read("out/models/counts/counts");
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, text.replace("node", "code")).expect("written");
    let run = verify();
    assert_eq!(run.code, 1);
    contains(
        &run.stderr,
        "models/counts is not what was signed:\n  out/models/counts/counts: its bytes are not those that were signed",
    );
    std::fs::remove_dir_all(project.path("out/models")).expect("removed");
    assert_eq!(verify().code, 0, "the store has it");
    let blob = blob_of(&project, text.as_bytes());
    std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o644)).expect("writable");
    std::fs::write(&blob, text.replace("node", "code")).expect("written");
    let run = verify();
    assert_ne!(run.code, 0);
    contains(&run.stderr, blob.file_name().and_then(|name| name.to_str()).expect("text"));
}

fn blob_of(project: &Project, bytes: &[u8]) -> PathBuf {
    let name = blake3::hash(bytes).to_hex().to_string();
    project.cache().join("v1/blobs").join(&name[..2]).join(&name[2..])
}

#[test]
fn what_a_statement_says_can_be_read_unsigned() {
    let project = with_model();
    let run = project.effai(&["provenance", "models/counts"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let statement: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(statement["subject"][1]["name"], "models/counts/counts");
    let bytes = project.read_bytes("out/models/counts/counts");
    assert_eq!(statement["subject"][1]["digest"]["blake3"], blake3::hash(&bytes).to_hex().as_str());
    let on = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    let names: Vec<&str> = on.as_array().expect("a list").iter().filter_map(|on| on["name"].as_str()).collect();
    assert_eq!(names, ["git", "data/words"]);
    let stale = project.path("words.txt");
    std::fs::write(stale, "other\n").expect("written");
    let run = project.effai(&["provenance", "models/counts"]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "models/counts is not built as it is declared now");
}

#[test]
fn keys_of_each_form_sign_and_others_are_refused() {
    let project = repository();
    let place = |name: &str, text: &str| {
        let path = project.path("..").join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let ed = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let p256 = p256::SecretKey::from_slice(&[5; 32]).expect("a key");
    let p384 = p384::SecretKey::from_slice(&[5; 48]).expect("a key");
    let pem = LineEnding::LF;
    for (secret, public) in [
        (ed.to_pkcs8_pem(pem).expect("text"), ed.verifying_key().to_public_key_pem(pem).expect("text")),
        (p256.to_pkcs8_pem(pem).expect("text"), p256.public_key().to_public_key_pem(pem).expect("text")),
        (p256.to_sec1_pem(pem).expect("text"), p256.public_key().to_public_key_pem(pem).expect("text")),
        (p384.to_sec1_pem(pem).expect("text"), p384.public_key().to_public_key_pem(pem).expect("text")),
    ] {
        let (secret, public) = (place("secret", &secret), place("public", &public));
        let run = project.effai(&["sign", "models/counts", "--key", &secret, "-o", "signed"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let run = project.effai(&["verify-provenance", "models/counts", "--from", "signed", "--key", &public]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        // A public key given for a private one, and the other way about.
        let run = project.effai(&["sign", "models/counts", "--key", &public]);
        assert_eq!(run.code, 2);
        contains(&run.stderr, "is no key to sign with: it is the public half");
        let run = project.effai(&["verify-provenance", "models/counts", "--from", "signed", "--key", &secret]);
        assert_eq!(run.code, 2);
        contains(&run.stderr, "it is a private key: give its public half");
    }
    let other = place("other", "ssh-rsa AAAA");
    let run = project.effai(&["sign", "models/counts", "--key", &other]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "is no key to sign with: it is of another form");
    let run = project.effai(&[
        "sign",
        "models/counts",
        "--key",
        &place("ed", &ed.to_pkcs8_pem(pem).expect("text")),
        "--model",
    ]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "Model Signing takes keys of an elliptic curve");

    // A model in the OpenSSF's form; that project's own command verifies one in `tests/reference/git`.
    let run = project.effai(&[
        "sign",
        "models/counts",
        "--key",
        &place("ec", &p256.to_sec1_pem(pem).expect("text")),
        "--model",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let bundle: serde_json::Value = serde_json::from_str(&project.read("counts.sig")).expect("JSON");
    assert_eq!(bundle["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
}

#[test]
fn the_agent_signs_with_a_key_that_is_not_here() {
    let project = repository();
    let (_, public) = keys(&project, "id", 6);
    let run = project.effai_told(&["sign", "models/counts", "--key", &public], &[("SSH_AUTH_SOCK", "")]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "the private half of ");
    contains(&run.stderr, "`ssh-add KEY`");

    let socket = project.path("../agent");
    let agent = UnixListener::bind(&socket).expect("bound");
    let answers = std::thread::spawn(move || {
        // It has one key, and is asked for that one and then for another.
        for _ in 0..2 {
            let (mut asking, _) = agent.accept().expect("asked");
            let string = |stream: &mut dyn Read| {
                let mut length = [0; 4];
                stream.read_exact(&mut length).expect("a length");
                let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut bytes).expect("bytes");
                bytes
            };
            let request = string(&mut asking);
            assert_eq!(request[0], 13);
            let mut rest = &request[1..];
            let (key, message) = (string(&mut rest), string(&mut rest));
            let mut answer = vec![5];
            if PublicKey::from_bytes(&key).expect("a key").key_data() == ed25519(6).public_key().key_data() {
                let signature = ed25519(6).try_sign(&message).expect("signed");
                let signature = Vec::<u8>::try_from(signature).expect("bytes");
                answer = [[14].as_slice(), &(signature.len() as u32).to_be_bytes(), &signature].concat();
            }
            asking.write_all(&(answer.len() as u32).to_be_bytes()).expect("answered");
            asking.write_all(&answer).expect("answered");
        }
    });
    let agent = [("SSH_AUTH_SOCK", socket.to_str().expect("text"))];
    let run = project.effai_told(&["sign", "models/counts", "--key", &public], &agent);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let (_, other) = keys(&project, "another", 7);
    let run = project.effai_told(&["sign", "models/counts", "--key", &other], &agent);
    assert_eq!(run.code, 3);
    contains(&run.stderr, "the SSH agent does not sign: it has no key SHA256:");
    answers.join().expect("both were asked");
    let run = project.effai(&["verify-provenance", "models/counts", "--key", &public]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}
