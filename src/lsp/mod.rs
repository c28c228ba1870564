//! The language server: what an editor asks about recipes while they are typed.
//!
//! One thread reads messages, this one answers them in order; nothing is asynchronous. Texts that the editor holds
//! open are laid over the files. A request is answered at once from the outlines of the texts as they are now
//! ([`crate::recipe::outline`]), which need no correct text; the check of the whole project, which costs more,
//! waits until no message does, and after a slow check until the typing pauses.
//!
//! `project` checks, `index` knows labels, `grammar` and `place` say what stands at a cursor; each feature is a file.
//! The server outlives whatever it is sent, and writes nothing but messages to its output.

mod completion;
mod definition;
mod diagnostics;
mod documents;
mod features;
mod grammar;
mod hover;
mod index;
mod place;
mod position;
mod project;
mod rename;
mod symbols;
mod transport;
mod view;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use lsp_types::{Diagnostic, InitializeParams, PositionEncodingKind, PublishDiagnosticsParams, Uri};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::recipe::load::PROJECT_FILE;
use crate::recipe::roots;
use documents::Documents;
use position::Encoding;
use project::Project;
use transport::{Incoming, Message, Refusal};

/// A check that takes longer is put off until the typing pauses.
const CHECK_QUICK: Duration = Duration::from_millis(30);
/// How long a pause is.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves one editor until it says goodbye; returns the process's exit code.
pub fn serve<R, W>(input: R, output: W) -> io::Result<u8>
where
    R: BufRead + Send + 'static,
    W: Write,
{
    let (sender, messages) = mpsc::channel();
    // Ends with the input or with the process; nobody waits for it.
    std::thread::spawn(move || {
        let mut input = input;
        while let Ok(Some(incoming)) = transport::read(&mut input) {
            if sender.send(incoming).is_err() {
                return;
            }
        }
    });
    let mut server = Server::new(output);
    loop {
        let next = match server.patience() {
            Some(patience) => messages.recv_timeout(patience),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(incoming) => {
                server.hear(incoming)?;
                if let Phase::Ended(code) = server.phase {
                    return Ok(code);
                }
            }
            Err(RecvTimeoutError::Timeout) => server.check()?,
            // An editor that is gone without goodbye.
            Err(RecvTimeoutError::Disconnected) => return Ok(u8::from(server.phase != Phase::ShutDown)),
        }
    }
}

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    ShutDown,
    Ended(u8),
}

struct Server<W> {
    output: W,
    phase: Phase,
    encoding: Encoding,
    /// The editor takes completions with places to fill in.
    snippets: bool,
    /// The editor tells of changed files if it is asked to.
    tells_files: bool,
    documents: Documents,
    projects: BTreeMap<PathBuf, Project>,
    /// Something changed since the last check.
    unchecked: bool,
    last_check: Duration,
    /// What was told of each file, to tell only news.
    told: BTreeMap<PathBuf, (Uri, Vec<Diagnostic>)>,
}

impl<W: Write> Server<W> {
    fn new(output: W) -> Self {
        Self {
            output,
            phase: Phase::New,
            encoding: Encoding::default(),
            snippets: false,
            tells_files: false,
            documents: Documents::default(),
            projects: BTreeMap::new(),
            unchecked: false,
            last_check: Duration::ZERO,
            told: BTreeMap::new(),
        }
    }

    /// How long to wait for a message before the next check; none if there is nothing to check.
    fn patience(&self) -> Option<Duration> {
        let pause = if self.last_check > CHECK_QUICK { PAUSE } else { Duration::ZERO };
        self.unchecked.then_some(pause)
    }

    fn hear(&mut self, incoming: Incoming) -> io::Result<()> {
        match incoming {
            Incoming::Malformed(code, message) => self.refuse(&Value::Null, Refusal::new(code, message)),
            Incoming::Message(Message { id: Some(id), method: Some(method), params }) => {
                match self.request(&method, params) {
                    Ok(result) => self.send(json!({"jsonrpc": "2.0", "id": id, "result": result})),
                    Err(refusal) => self.refuse(&id, refusal),
                }
            }
            Incoming::Message(Message { id: None, method: Some(method), params }) => self.notification(&method, params),
            // The answer to a request of ours: none of them has one that matters.
            Incoming::Message(Message { method: None, .. }) => Ok(()),
        }
    }

    fn request(&mut self, method: &str, params: Value) -> Result<Value, Refusal> {
        match (self.phase, method) {
            (Phase::New, "initialize") => self.initialize(read(params)?),
            (Phase::New, _) => {
                let code = lsp_types::error_codes::SERVER_NOT_INITIALIZED;
                Err(Refusal::new(code, "`initialize` comes first"))
            }
            (Phase::Running, "initialize") => Err(Refusal::new(Refusal::INVALID_REQUEST, "initialized already")),
            (Phase::Running, "shutdown") => {
                self.phase = Phase::ShutDown;
                Ok(Value::Null)
            }
            (Phase::Running, _) => {
                // A bug in one answer should not take the editor's unsaved work from the others.
                catch_unwind(AssertUnwindSafe(|| self.feature(method, params))).unwrap_or_else(|_| {
                    Err(Refusal::new(
                        Refusal::INTERNAL_ERROR,
                        format!("`{method}` failed: a bug in effai, told on stderr"),
                    ))
                })
            }
            (Phase::ShutDown | Phase::Ended(_), _) => Err(Refusal::new(Refusal::INVALID_REQUEST, "shut down already")),
        }
    }

    fn initialize(&mut self, params: InitializeParams) -> Result<Value, Refusal> {
        let capabilities = params.capabilities;
        let encodings = capabilities.general.and_then(|g| g.position_encodings).unwrap_or_default();
        if encodings.contains(&PositionEncodingKind::UTF8) {
            self.encoding = Encoding::Utf8;
        }
        let completion = capabilities.text_document.and_then(|t| t.completion).and_then(|c| c.completion_item);
        self.snippets = completion.and_then(|c| c.snippet_support).unwrap_or(false);
        let files = capabilities.workspace.and_then(|w| w.did_change_watched_files);
        self.tells_files = files.and_then(|f| f.dynamic_registration).unwrap_or(false);
        self.phase = Phase::Running;
        Ok(features::capabilities(self.encoding))
    }

    fn notification(&mut self, method: &str, params: Value) -> io::Result<()> {
        if method == "exit" {
            self.phase = Phase::Ended(u8::from(self.phase != Phase::ShutDown));
        }
        if self.phase != Phase::Running {
            return Ok(());
        }
        if method == "initialized" && self.tells_files {
            return self.send(features::watch_request());
        }
        // A notification has no answer, so one that makes no sense is passed over.
        let _ = catch_unwind(AssertUnwindSafe(|| self.text_changed(method, params)));
        Ok(())
    }

    /// The project a file belongs to, by its root.
    fn root(&self, path: &Path) -> Option<PathBuf> {
        let open = path.ancestors().skip(1).find(|dir| self.documents.document(&dir.join(PROJECT_FILE)).is_some());
        // The outermost project: its check is that of all in it.
        let saved = roots::find(path.parent()?).ok().map(|stand| stand.root);
        let open = open.filter(|open| saved.as_ref().is_none_or(|saved| !roots::claims(saved, open)));
        // The nearer of the two.
        open.map(Path::to_owned).into_iter().chain(saved).max_by_key(|root| root.as_os_str().len())
    }

    /// Checks every project that has a text open, and tells what is new.
    fn check(&mut self) -> io::Result<()> {
        self.unchecked = false;
        let start = Instant::now();
        let news = catch_unwind(AssertUnwindSafe(|| self.findings())).unwrap_or_default();
        self.last_check = start.elapsed();
        let mut before = std::mem::take(&mut self.told);
        for (path, diagnostics) in news {
            let Some(uri) = self.documents.uri(&path) else { continue };
            let version = self.documents.document(&path).map(|d| d.version);
            let old = before.remove(&path);
            let same = old.as_ref().map_or(diagnostics.is_empty(), |(_, old)| *old == diagnostics);
            // Of a text that is open, also that nothing changed is told: it says that the version was looked at.
            if version.is_some() || !same {
                self.publish(uri.clone(), diagnostics.clone(), version)?;
            }
            self.told.insert(path, (uri, diagnostics));
        }
        for (uri, diagnostics) in before.into_values() {
            if !diagnostics.is_empty() {
                self.publish(uri, Vec::new(), None)?;
            }
        }
        Ok(())
    }

    /// What there is to say of every file.
    fn findings(&mut self) -> BTreeMap<PathBuf, Vec<Diagnostic>> {
        let paths: Vec<PathBuf> = self.documents.paths().map(Path::to_owned).collect();
        let roots: BTreeMap<&PathBuf, Option<PathBuf>> = paths.iter().map(|path| (path, self.root(path))).collect();
        self.projects.retain(|root, _| roots.values().flatten().any(|r| r == root));
        let mut all = BTreeMap::new();
        for root in roots.values().flatten() {
            let project = self.projects.entry(root.clone()).or_insert_with(|| Project::new(root.clone()));
            let findings = project.check(&mut self.documents);
            all.extend(diagnostics::diagnostics(project, &findings, &self.documents, self.encoding));
        }
        for path in &paths {
            all.entry(path.clone()).or_insert_with(|| vec![diagnostics::not_included()]);
        }
        all
    }

    fn publish(&mut self, uri: Uri, diagnostics: Vec<Diagnostic>, version: Option<i32>) -> io::Result<()> {
        let params = PublishDiagnosticsParams { uri, diagnostics, version };
        self.send(json!({"jsonrpc": "2.0", "method": "textDocument/publishDiagnostics", "params": params}))
    }

    fn refuse(&mut self, id: &Value, refusal: Refusal) -> io::Result<()> {
        self.send(json!({"jsonrpc": "2.0", "id": id, "error": refusal}))
    }

    fn send(&mut self, message: Value) -> io::Result<()> {
        transport::write(&mut self.output, &message)
    }
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, Refusal> {
    serde_json::from_value(params).map_err(|e| Refusal::new(Refusal::INVALID_PARAMS, e.to_string()))
}
