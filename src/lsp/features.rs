//! Which message asks for what: the list of what the server can do, and the way from a method to its file.

use std::cell::OnceCell;
use std::io::Write;

use lsp_types::{
    CompletionOptions, CompletionParams, DidChangeTextDocumentParams, DidCloseTextDocumentParams,
    DidOpenTextDocumentParams, DocumentFormattingParams, DocumentSymbolParams, GotoDefinitionParams, HoverParams,
    HoverProviderCapability, OneOf, PositionEncodingKind, ReferenceParams, RenameOptions, RenameParams,
    ServerCapabilities, TextDocumentPositionParams, TextDocumentSyncCapability, TextDocumentSyncKind,
    TextDocumentSyncOptions, TextEdit, Uri, WorkDoneProgressOptions,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::definition::{Declarations, definition, references};
use super::documents::path_of;
use super::position::Encoding;
use super::project::Project;
use super::transport::Refusal;
use super::view::View;
use super::{Server, completion, hover, read, rename, symbols};
use crate::recipe::format::formatted;
use crate::recipe::source::Sources;

/// What the server can do, in the words of `initialize`.
pub(super) fn capabilities(encoding: Encoding) -> Value {
    let capabilities = ServerCapabilities {
        position_encoding: Some(match encoding {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
        }),
        text_document_sync: Some(TextDocumentSyncCapability::Options(TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::INCREMENTAL),
            save: Some(true.into()),
            ..TextDocumentSyncOptions::default()
        })),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some(["\"", "/", "=", "{", "#"].map(str::to_owned).into()),
            ..CompletionOptions::default()
        }),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        definition_provider: Some(OneOf::Left(true)),
        references_provider: Some(OneOf::Left(true)),
        document_symbol_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        rename_provider: Some(OneOf::Right(RenameOptions {
            prepare_provider: Some(true),
            work_done_progress_options: WorkDoneProgressOptions::default(),
        })),
        ..ServerCapabilities::default()
    };
    json!({
        "capabilities": capabilities,
        "serverInfo": { "name": "effai", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// Asks the editor to tell when a recipe changes on the disk.
pub(super) fn watch_request() -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": "watch-recipes",
        "method": "client/registerCapability",
        "params": { "registrations": [{
            "id": "watch-recipes",
            "method": "workspace/didChangeWatchedFiles",
            "registerOptions": { "watchers": [{ "globPattern": "**/*.kdl" }] },
        }]},
    })
}

/// The whole text laid out as `effai fmt` does; nothing where it is that already or is not KDL yet.
fn formatting(view: &View<'_>) -> Vec<TextEdit> {
    let mut sources = Sources::default();
    let file = sources.add(view.path.clone(), view.text().to_owned());
    match formatted(view.text(), file, &sources) {
        Ok(new) if new != view.text() => vec![TextEdit::new(view.range(&(0..view.text().len())), new)],
        _ => Vec::new(),
    }
}

impl<W: Write> Server<W> {
    /// Answers a request about a text.
    pub(super) fn feature(&mut self, method: &str, params: Value) -> Result<Value, Refusal> {
        match method {
            "textDocument/completion" => {
                let at = read::<CompletionParams>(params)?.text_document_position;
                self.at(&at, |view, offset| Ok(completion::completion(view, offset)))
            }
            "textDocument/hover" => {
                let at = read::<HoverParams>(params)?.text_document_position_params;
                self.at(&at, |view, offset| Ok(hover::hover(view, offset)))
            }
            "textDocument/definition" => {
                let at = read::<GotoDefinitionParams>(params)?.text_document_position_params;
                self.at(&at, |view, offset| Ok(definition(view, offset)))
            }
            "textDocument/references" => {
                let ReferenceParams { text_document_position: at, context, .. } = read(params)?;
                let declarations = if context.include_declaration { Declarations::Told } else { Declarations::LeftOut };
                self.at(&at, |view, offset| Ok(references(view, offset, declarations)))
            }
            "textDocument/prepareRename" => self.at(&read(params)?, rename::prepare),
            "textDocument/rename" => {
                let RenameParams { text_document_position: at, new_name, .. } = read(params)?;
                self.at(&at, |view, offset| rename::rename(view, offset, &new_name))
            }
            "textDocument/documentSymbol" => {
                let uri = read::<DocumentSymbolParams>(params)?.text_document.uri;
                self.view(&uri, |view| Ok(symbols::symbols(view)))
            }
            "textDocument/formatting" => {
                let uri = read::<DocumentFormattingParams>(params)?.text_document.uri;
                self.view(&uri, |view| Ok(formatting(view)))
            }
            _ => Err(Refusal::new(Refusal::METHOD_NOT_FOUND, format!("there is no `{method}` here"))),
        }
    }

    /// Takes the news of a text.
    pub(super) fn text_changed(&mut self, method: &str, params: Value) -> Result<(), Refusal> {
        match method {
            "textDocument/didOpen" => {
                let document = read::<DidOpenTextDocumentParams>(params)?.text_document;
                let Some(path) = path_of(&document.uri) else { return Ok(()) };
                self.documents.open(path, document.uri, document.version, document.text);
            }
            "textDocument/didChange" => {
                let DidChangeTextDocumentParams { text_document, content_changes } = read(params)?;
                let Some(path) = path_of(&text_document.uri) else { return Ok(()) };
                self.documents.change(&path, text_document.version, content_changes, self.encoding);
                self.unchecked = true;
                return Ok(());
            }
            "textDocument/didClose" => {
                let uri = read::<DidCloseTextDocumentParams>(params)?.text_document.uri;
                let Some(path) = path_of(&uri) else { return Ok(()) };
                self.documents.close(&path);
            }
            "textDocument/didSave" | "workspace/didChangeWatchedFiles" => {}
            _ => return Ok(()),
        }
        self.projects.values_mut().for_each(Project::forget_files);
        self.unchecked = true;
        Ok(())
    }

    fn at<T: Serialize>(
        &mut self,
        at: &TextDocumentPositionParams,
        answer: impl FnOnce(&View<'_>, usize) -> Result<T, Refusal>,
    ) -> Result<Value, Refusal> {
        self.view(&at.text_document.uri, |view| answer(view, view.offset(at.position)))
    }

    /// Answers about one text; with nothing about a text that is not a file or not open.
    fn view<T: Serialize>(
        &mut self,
        uri: &Uri,
        answer: impl FnOnce(&View<'_>) -> Result<T, Refusal>,
    ) -> Result<Value, Refusal> {
        let Some(path) = path_of(uri) else { return Ok(Value::Null) };
        let Some(recipe) = self.documents.document(&path).map(|d| d.recipe.clone()) else { return Ok(Value::Null) };
        // Without a project there are still the kinds and what is in the text itself.
        let root = self.root(&path).or_else(|| path.parent().map(Into::into)).unwrap_or_default();
        if !self.projects.contains_key(&root) {
            let mut project = Project::new(root.clone());
            project.check(&mut self.documents);
            self.projects.insert(root.clone(), project);
        }
        let view = View {
            project: &self.projects[&root],
            documents: &self.documents,
            encoding: self.encoding,
            snippets: self.snippets,
            path: path.strip_prefix(&root).unwrap_or(&path).to_owned(),
            recipe,
            index: OnceCell::new(),
        };
        let answer = answer(&view)?;
        serde_json::to_value(answer).map_err(|e| Refusal::new(Refusal::INTERNAL_ERROR, e.to_string()))
    }
}
