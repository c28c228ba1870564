//! An editor: starts the program, speaks the protocol, waits for what it expects.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Project;

/// Far more than any answer takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client<'a> {
    pub(crate) project: &'a Project,
    child: Child,
    input: Option<ChildStdin>,
    messages: Receiver<Value>,
    last_id: u64,
    /// Heard and not asked for yet.
    heard: Vec<Value>,
}

impl<'a> Client<'a> {
    /// Starts the program and greets it.
    pub(crate) fn new(project: &'a Project) -> Self {
        Self::greeting(project, json!({})).0
    }

    pub(crate) fn greeting(project: &'a Project, capabilities: Value) -> (Self, Value) {
        let mut client = Self::silent(project);
        let hello =
            client.request("initialize", json!({ "processId": null, "rootUri": null, "capabilities": capabilities }));
        client.notify("initialized", json!({}));
        (client, hello.expect("initialized"))
    }

    /// Starts the program and says nothing yet.
    pub(crate) fn silent(project: &'a Project) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_effai"))
            .arg("lsp")
            .current_dir(project.path("."))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("piped");
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            while let Some(message) = read(&mut output) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { project, child, input, messages, last_id: 0, heard: Vec::new() }
    }

    pub(crate) fn raw(&mut self, bytes: &str) {
        let input = self.input.as_mut().expect("open");
        input.write_all(bytes.as_bytes()).expect("written");
        input.flush().expect("written");
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string();
        self.raw(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    }

    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// The result, or the error's code and message.
    pub(crate) fn request(&mut self, method: &str, params: Value) -> Result<Value, (i64, String)> {
        self.last_id += 1;
        let id = json!(self.last_id);
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let answer = self.wait(|m| m["id"] == id && m["method"].is_null());
        match answer.get("error") {
            None => Ok(answer["result"].clone()),
            Some(error) => {
                Err((error["code"].as_i64().expect("a code"), error["message"].as_str().expect("a message").to_owned()))
            }
        }
    }

    /// The first message that is so.
    pub(crate) fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.heard.iter().position(&wanted) {
            return self.heard.remove(at);
        }
        loop {
            let message = self.messages.recv_timeout(PATIENCE).expect("the expected message");
            if wanted(&message) {
                return message;
            }
            self.heard.push(message);
        }
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        format!("file://{}", self.project.path(name).to_str().expect("text"))
    }

    /// Opens a text, which need not be what the file holds.
    pub(crate) fn open(&mut self, name: &str, text: &str) {
        let uri = self.uri(name);
        let document = json!({ "uri": uri, "languageId": "kdl", "version": 1, "text": text });
        self.notify("textDocument/didOpen", json!({ "textDocument": document }));
    }

    /// Replaces an open text, or with a range a part of it.
    pub(crate) fn change(&mut self, name: &str, version: u32, change: Value) {
        let document = json!({ "uri": self.uri(name), "version": version });
        self.notify("textDocument/didChange", json!({ "textDocument": document, "contentChanges": [change] }));
    }

    /// What is said of this version of an open text.
    pub(crate) fn diagnostics(&mut self, name: &str, version: u32) -> Vec<Value> {
        let uri = self.uri(name);
        let said = self.wait(|m| {
            m["method"] == "textDocument/publishDiagnostics"
                && m["params"]["uri"] == uri.as_str()
                && m["params"]["version"] == version
        });
        said["params"]["diagnostics"].as_array().expect("a list").clone()
    }

    /// What is said of a file that is not open.
    pub(crate) fn diagnostics_of_file(&mut self, name: &str) -> Vec<Value> {
        let uri = self.uri(name);
        let said =
            self.wait(|m| m["method"] == "textDocument/publishDiagnostics" && m["params"]["uri"] == uri.as_str());
        said["params"]["diagnostics"].as_array().expect("a list").clone()
    }

    /// Asks about the place of `|` in a text, which is opened so, without the mark and without saving.
    pub(crate) fn ask(&mut self, method: &str, name: &str, marked: &str) -> Value {
        self.try_ask(method, name, marked, json!({})).expect("an answer")
    }

    pub(crate) fn try_ask(
        &mut self,
        method: &str,
        name: &str,
        marked: &str,
        more: Value,
    ) -> Result<Value, (i64, String)> {
        let offset = marked.find('|').expect("a cursor");
        self.open(name, &marked.replacen('|', "", 1));
        let before = &marked[..offset];
        let line = before.matches('\n').count();
        let column = before[before.rfind('\n').map_or(0, |i| i + 1)..].encode_utf16().count();
        let mut params = json!({
            "textDocument": { "uri": self.uri(name) },
            "position": { "line": line, "character": column },
        });
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.request(method, params)
    }

    /// Says goodbye properly; returns the exit code.
    pub(crate) fn leave(mut self) -> i32 {
        assert_eq!(self.request("shutdown", Value::Null), Ok(Value::Null));
        self.notify("exit", Value::Null);
        self.end()
    }

    /// Closes the pipe and waits for the program's end.
    pub(crate) fn end(mut self) -> i32 {
        self.input = None;
        self.child.wait().expect("it ends").code().expect("a code")
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One message; panics on anything else, since nothing else may be on the program's output.
fn read(output: &mut impl BufRead) -> Option<Value> {
    let mut header = String::new();
    if output.read_line(&mut header).ok()? == 0 {
        return None;
    }
    let length: usize = header.strip_prefix("Content-Length: ").expect("a header").trim().parse().expect("a length");
    let mut empty = String::new();
    output.read_line(&mut empty).expect("a line");
    assert_eq!(empty, "\r\n");
    let mut body = vec![0; length];
    output.read_exact(&mut body).expect("a body");
    Some(serde_json::from_slice(&body).expect("JSON"))
}
