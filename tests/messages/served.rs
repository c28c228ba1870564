//! What `watch` says on a terminal, and what `lsp` says through an editor.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Book, shell};
use crate::lsp::client::Client;
use crate::support::{Project, Run};

/// A watch whose words are read as they come.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    said: String,
}

impl Watch {
    fn start(project: &Project) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_effai"))
            .args(["watch", "-j", "1"])
            .current_dir(project.path("."))
            .env("EFFAI_CACHE_DIR", project.cache())
            .env("HOME", project.path(".."))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, lines, said: String::new() }
    }

    /// Reads up to a line that holds these words.
    fn until(&mut self, words: &str) {
        loop {
            let line = self.lines.next().expect("the watch goes on").expect("text");
            writeln!(self.said, "{line}").expect("written");
            if line.contains(words) {
                return;
            }
        }
    }

    fn end(mut self) -> Run {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it still runs");
        let rest: Vec<String> = self.lines.by_ref().map(|line| line.expect("text")).collect();
        let code = self.child.wait().expect("it ends").code().unwrap_or(-1);
        Run { code, stdout: String::new(), stderr: format!("{}{}", self.said, rest.join("\n")) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn watch(book: &mut Book) {
    book.chapter("Watching");
    let project = Project::new(
        "command \"a\" { run \"sh\" \"-c\" \"cat a.txt > o\"; input \"a.txt\"; output \"o\"; }\n\
         command \"b\" { run \"sh\" \"-c\" \"grep -v x a/o > o\"; needs \"a\"; output \"o\"; }\n\
         on-change \"tell\" { targets \"b\"; run \"sh\" \"-c\" \"test $(cat out/b/o) = 1\"; }\n",
    );
    project.write("a.txt", "1");
    let mut watch = Watch::start(&project);
    watch.until("change");
    project.write("a.txt", "2");
    watch.until("ended with code 1");
    project.write("a.txt", "x");
    watch.until(" in ");
    project.remove("a.txt");
    watch.until(" in ");
    project.edit("effai.kdl", "needs \"a\"", "needs \"c\"");
    watch.until("waiting for the next edit");
    project.write("a.txt", "3");
    project.edit("effai.kdl", "needs \"c\"", "needs \"a\"");
    watch.until("ended with code 1");
    let run = watch.end();
    book.write("edits, a failure, a file that goes, a mistake, and all mended", &project, &["watch", "-j", "1"], &run);
    book.say("targets that are none", &project, &["watch", "c"]);
    project.remove("effai.kdl");
    book.say("no project to watch", &project, &["watch"]);
}

pub(super) fn time(book: &mut Book) {
    book.chapter("Until a time");
    let project = Project::new(&shell("echo 1 > o"));
    book.say("a time that is none", &project, &["build", "--until", "soon"]);
    project.effai(&["build"]);
    let db = rusqlite::Connection::open(project.path(".effai/effai.db")).expect("opened");
    db.execute("UPDATE actions SET wall_ms = 108000000", []).expect("written");
    project.edit("effai.kdl", "echo 1", "echo 2");
    book.say("what would end later", &project, &["build", "--until", "1m"]);
}

/// What an editor shows that has no line of a recipe to go with it, or not the one of `effai check`.
pub(super) fn editor(book: &mut Book) {
    book.chapter("In an editor");
    let matrix = "command \"m-{n}\" { matrix { n 1 2; }; run \"true\"; output \"o\"; }\n";
    let two =
        "command \"a\" { run \"true\"; output \"o\"; needs \"b\"; }\ncommand \"b\" { run \"true\"; output \"o\"; }\n";
    let text = format!("{two}{matrix}");
    let project = Project::new(&text);
    let mut client = Client::new(&project);
    client.open("alone.kdl", "command \"x\" { run \"true\"; output \"o\"; }\n");
    let alone = client.diagnostics("alone.kdl", 1);
    book.shown("a recipe that nobody includes", alone[0]["message"].as_str().expect("text"));
    let mut hover = |about: &str, from: &str, to: &str| {
        let answer = client.ask("textDocument/hover", "effai.kdl", &text.replacen(from, to, 1));
        book.shown(about, answer["contents"]["value"].as_str().expect("text"));
    };
    hover("the cursor on a kind", "command", "co|mmand");
    hover("on a field", "output", "out|put");
    hover("on a label", "needs \"b", "needs \"|b");
    let mut refused = |about: &str, from: &str, to: &str, name: &str| {
        let marked = text.replacen(from, to, 1);
        let answer = client.try_ask("textDocument/rename", "effai.kdl", &marked, json!({ "newName": name }));
        book.shown(about, &answer.expect_err("refused").1);
    };
    refused("a rename to what is no label", "needs \"b", "needs \"|b", "x y");
    refused("to what there is", "needs \"b", "needs \"|b", "a");
    refused("to what lies in another", "needs \"b", "needs \"|b", "a/c");
    refused("of a matrix", "\"m-", "\"|m-", "z");
    refused("of what is no label", "run", "r|un", "z");
    assert_eq!(client.leave(), 0);
    book.say("no editor that speaks", &project, &["lsp", "--socket"]);
}
