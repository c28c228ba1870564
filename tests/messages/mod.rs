//! Every message a user can meet around the engine, in one file to be read through: `messages.txt`.
//!
//! `EFFAI_TEST_UPDATE=1 cargo test --test all messages` writes it anew.

mod exports;
mod models;
mod served;
mod signed;
mod timed;

use std::fmt::Write;

use crate::support::{Project, Run, redacted};

const SHELF: &str = "tests/messages/messages.txt";

fn shelf() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SHELF)
}

#[derive(Default)]
struct Book {
    text: String,
}

impl Book {
    fn chapter(&mut self, title: &str) {
        writeln!(self.text, "# {title}\n").expect("written");
    }

    /// Runs the program and writes down what it says.
    fn say(&mut self, about: &str, project: &Project, args: &[&str]) {
        let run = project.effai(args);
        self.write(about, project, args, &run);
    }

    fn write(&mut self, about: &str, project: &Project, args: &[&str], run: &Run) {
        writeln!(self.text, "## {about}\n\n    $ effai {}", args.join(" ").trim_end()).expect("written");
        let said = format!("{}{}", run.stdout, run.stderr);
        let root = project.path("").display().to_string();
        let said = said.replace(&root, "PROJECT/").replace(root.trim_end_matches('/'), "PROJECT");
        let said = said.replace(&project.cache().display().to_string(), "CACHE");
        let said = said.replace(&effai::util::machine::identity(), "MACHINE");
        for line in said.lines() {
            // The lines of a recipe, and what points into them, stay in line.
            let is_shown = line.contains(['│', '·', '╭', '╰']);
            let line = if is_shown { line.trim_end().to_owned() } else { digests(&redacted(line)) };
            writeln!(self.text, "    {line}").expect("written");
        }
        writeln!(self.text, "    exit code {}\n", run.code).expect("written");
    }

    /// Takes over what was written down before, where this system cannot show it.
    fn keep(&mut self, about: &str) {
        let shelf = std::fs::read_to_string(shelf()).expect("read");
        let (_, rest) = shelf.split_once(&format!("## {about}\n")).expect("it is written down");
        let end = rest.find("\n#").map_or(rest.len(), |end| end + 1);
        write!(self.text, "## {about}\n{}", &rest[..end]).expect("written");
    }

    /// Writes down what is shown where there is no command.
    fn shown(&mut self, about: &str, text: &str) {
        writeln!(self.text, "## {about}\n").expect("written");
        text.lines().for_each(|line| writeln!(self.text, "    {line}").expect("written"));
        self.text.push('\n');
    }

    /// A project of this recipe, built.
    fn recipe(&mut self, about: &str, recipe: &str) {
        self.say(about, &Project::new(recipe), &["build"]);
    }
}

/// Two files that share most of their bytes.
fn packed(book: &mut Book) {
    let project = Project::new(
        r#"
        command "old" { run "sh" "-c" "seq 200000 > m"; output "m"; }
        command "new" { run "sh" "-c" "seq 180000 > m; seq 50000 >> m"; output "m"; }
        command "use-old" { run "touch" "o"; needs "old"; output "o"; }
        command "use-new" { run "touch" "o"; needs "new"; output "o"; }
        "#,
    );
    project.effai(&["build", "use-old"]);
    project.effai(&["build", "use-new"]);
    book.say("what a prune to a size would do", &project, &["cache", "prune", "--to", "2M", "--dry-run"]);
    book.say("a prune to a size", &project, &["cache", "prune", "--to", "2M"]);
    book.say("a store with packs", &project, &["cache", "size"]);
    for dir in std::fs::read_dir(project.cache().join("v1/packs")).expect("listed").map(|e| e.expect("an entry").path())
    {
        for pack in std::fs::read_dir(dir).expect("listed").map(|e| e.expect("an entry").path()) {
            std::fs::remove_file(&pack).expect("removed");
            std::fs::write(&pack, "effai pack 1\n").expect("written");
        }
    }
    book.say("a pack that was changed", &project, &["cache", "verify"]);
    book.say("a pack that was changed and is needed", &project, &["build", "old"]);
}

/// Digests within words, as in `a-1f2e3d4c`, and what a clock gave.
fn digests(line: &str) -> String {
    let is_clock = |part: &str, out: &str| {
        part.chars().all(|c| c.is_ascii_digit()) && (part.len() == 10 || part.len() == 6 && out.ends_with("KEY-"))
    };
    let is_digest = |part: &str| [8, 62, 64].contains(&part.len()) && part.chars().all(|c| c.is_ascii_hexdigit());
    let mut out = String::new();
    let mut word = String::new();
    for c in line.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let shown = if is_clock(&word, &out) {
            "CLOCK"
        } else if is_digest(&word) {
            "KEY"
        } else {
            &word
        };
        out.push_str(shown);
        word.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

/// A target that runs this in a shell.
fn shell(script: &str) -> String {
    format!("command \"a\" {{\n    run \"sh\" \"-c\" #\"{script}\"#\n    output \"o\"\n}}\n")
}

fn recipes(book: &mut Book) {
    book.chapter("Recipes");
    let target = |label: &str, rest: &str| format!("command \"{label}\" {{ run \"true\"; output \"o\"; {rest}}}\n");
    book.recipe("not KDL", "command \"a\" {\n    run \"true\n");
    book.recipe("a bare label", "command data/x { run \"true\"; output \"o\"; }\n");
    book.recipe("no label", "command { run \"true\"; output \"o\"; }\n");
    book.recipe("a kind that is none", "comand \"a\" { run \"true\"; output \"o\"; }\n");
    book.recipe("a field that is none", &target("a", "outptu \"x\"; "));
    book.recipe("a field that is missing", "command \"a\" { run \"true\"; }\n");
    book.recipe("several mistakes", &[target("a", "needs \"b\"; "), target("a", "x 1; ")].concat());
    book.recipe("a target that is none", &[target("models/x", ""), target("b", "needs \"models/y\"; ")].concat());
    book.recipe("a cycle", &[target("a", "needs \"b\"; "), target("b", "needs \"a\"; ")].concat());
    book.recipe("a label inside another", &[target("a", ""), target("a/b", "")].concat());
    book.recipe("a matrix without its name in the label", &target("a", "matrix { n 1 2; }; "));
    book.recipe("a matrix too large", &target("a-{x}-{y}-{z}", &wide_matrix()));
    book.recipe("an included recipe that is not there", "include \"nowhere.kdl\"\n");
    book.recipe("`on-change` that waits for nothing", "on-change \"x\" { run \"true\"; }\n");
    book.recipe("a size that is none", "cache size=\"plenty\"\n");
    book.recipe("a file that is not there", &target("a", "input \"data/x.csv\"; "));
    book.recipe("a pool beside the network's", &target("a", "network; pool \"gpu\"; "));
    book.recipe("braces too deep", &"a {".repeat(100));
}

fn wide_matrix() -> String {
    let values: String = (0..47).map(|n| format!(" {n}")).collect();
    format!("matrix {{\n x{values}\n y{values}\n z{values}\n }}; ")
}

fn words(book: &mut Book) {
    book.chapter("Words of the command line");
    let recipe = "command \"data/a\" { run \"true\"; output \"o\"; tags \"slow\"; }\n";
    let project = Project::new(recipe);
    book.say("a target that is none", &project, &["build", "data/b"]);
    book.say("a glob that finds none", &project, &["build", "models/*"]);
    book.say("a tag that is none", &project, &["build", "tag:fast"]);
    book.say("all excluded", &project, &["build", "--exclude", "*/*"]);
    book.say("a profile that is none", &project, &["build", "--profile", "ci"]);
    book.say("a flag that is none", &project, &["build", "--jbos", "2"]);
    book.say("a command that is none", &project, &["biuld"]);
    book.say("a directory that is none", &project, &["-C", "nowhere", "build"]);
    book.say("no runs yet", &project, &["log", "data/a"]);
    book.say("no build to trace", &project, &["trace"]);
    book.say("a run that is none", &project, &["diff", "data/a", "data/a~1"]);
    book.say("a kind that is none", &project, &["schema", "modle"]);
    book.say("a size that is none", &project, &["cache", "prune", "--to", "lots"]);
    project.remove("effai.kdl");
    book.say("no project", &project, &["build"]);
}

fn actions(book: &mut Book) {
    book.chapter("Actions");
    book.recipe("a program that fails", &shell("echo first; echo 'it went wrong' >&2; exit 3"));
    book.recipe("a program that is not there", "command \"a\" { run \"no-such-program\"; output \"o\"; }\n");
    book.recipe("an output that was not made", &shell("true"));
    book.recipe("a signal", &shell("kill -SEGV $$"));
    let project = Project::new(&shell("cat data/x.csv > o"));
    project.write("data/x.csv", "1");
    book.say("a file that was not declared", &project, &["build"]);
    let failing = "command \"a\" { run \"false\"; output \"o\"; }\n\
                   command \"b\" { run \"true\"; needs \"a\"; output \"o\"; }\n";
    book.recipe("something stands on what fails", failing);
    let clock = Project::new(&shell("date +1%N > o"));
    book.say("--check of what cannot be repeated", &clock, &["build", "--check"]);
}

fn tests(book: &mut Book) {
    book.chapter("Tests");
    let recipe = "test \"unit\" { run \"grep\" \"-q\" \"good\" \"in.txt\"; input \"in.txt\"; }\n\
                  test \"model\" { run \"true\"; needs \"m\"; }\n\
                  test \"lint\" { run \"sh\" \"-c\" \"echo 'in.txt:7: too long'; exit 1\"; }\n\
                  command \"m\" { run \"false\"; output \"o\"; }\n";
    let project = Project::new(recipe);
    project.write("in.txt", "good");
    project.effai(&["test", "unit"]);
    book.say("one that fails, one that is skipped, one that passed before", &project, &["test", "-j", "1"]);
    book.say("all passed before", &project, &["test", "unit"]);
    book.say("a target that is no test", &project, &["test", "m"]);
    book.say("all excluded", &project, &["test", "--exclude", "*"]);
    book.say("a project without tests", &Project::new("project \"p\"\n"), &["test"]);
    book.recipe("a test that runs nothing", "test \"a\" { input \"x\"; }\n");
    book.recipe("a test that runs two things", "test \"a\" { run \"true\"; script \"a.py\"; }\n");
    let cases = "test \"a\" { run \"sh\" \"-c\" \"echo '<html/>' > r.xml\"; junit \"r.xml\"; }\n";
    book.recipe("a file of cases that is none", cases);
    let numbers = "command \"m\" { run \"touch\" \"o\"; output \"o\"; metrics \"metrics.json\"; }\n\
                   report \"r\" { compare \"m\"; number \"accuracy\"; }\n";
    let project = Project::new(numbers);
    project.effai(&["build", "m"]);
    book.say("a number that no target told", &project, &["build", "r"]);
    let predictions = |metric: &str| {
        let m = "command \"m\" { run \"cp\" \"y.csv\" \"p.csv\"; input \"y.csv\"; output \"p.csv\"; }";
        let line = format!("predictions \"p.csv\" truth=\"y\" predicted=\"c\" {{ metrics \"{metric}\"; }}");
        format!("{m}\nreport \"r\" {{ compare \"m\"; {line}; }}\n")
    };
    book.recipe("a metric that does not fit", &predictions("bleu"));
    book.recipe("a metric that there is not", &predictions("auc"));
    let over = |over: &str| {
        let command = "command \"r/{a}\" { matrix { a 1 2; }; run \"true\"; output \"o\"; metrics \"metrics.json\"; }";
        format!("{command}\nreport \"s\" {{ compare \"r/1\" \"r/2\"; number \"n\"; over {over}; }}\n")
    };
    let front = |front: &str| {
        let command = "command \"m\" { run \"true\"; output \"o\"; metrics \"metrics.json\"; }";
        format!(
            "{command}\nreport \"r\" {{ compare \"m\"; number \"MB\" better=\"lower\"; number \"n\"; front {front}; }}\n"
        )
    };
    book.recipe("a front of what is no number of the report", &front("\"MB\" against=\"error\""));
    book.recipe("a front of what has no better end", &front("\"n\" against=\"MB\""));
    book.recipe("a matrix that nothing was made by", &over("\"runs/{a}\""));
    book.recipe("a matrix without an axis", &over("\"r/1\""));
}

fn outputs(book: &mut Book) {
    book.chapter("Outputs and the store");
    let project = Project::new(&shell("echo 1 > o"));
    project.effai(&["build"]);
    project.write("out/a/o", "mine, and longer");
    book.say("an output that was edited", &project, &["build"]);
    project.edit("effai.kdl", "echo 1", "echo 2");
    book.say("an edited output that another takes the place of", &project, &["build"]);
    book.say("what was used", &project, &["cache", "size"]);
    packed(book);
    book.say("a store that is whole", &project, &["cache", "verify"]);
    let blobs = project.cache().join("v1/blobs");
    for dir in std::fs::read_dir(&blobs).expect("listed").map(|e| e.expect("an entry").path()) {
        for blob in std::fs::read_dir(dir).expect("listed").map(|e| e.expect("an entry").path()) {
            if std::fs::read(&blob).expect("read") == b"2\n" {
                std::fs::remove_file(&blob).expect("removed");
                std::fs::write(&blob, "3\n").expect("written");
            }
        }
    }
    book.say("a blob that was changed", &project, &["cache", "verify"]);
    project.remove("out");
    book.say("a blob that was changed, met by a build", &project, &["build"]);
    std::fs::write(project.cache().join("v1/index.db"), "no database").expect("written");
    project.edit("effai.kdl", "echo 2", "echo 4");
    book.say("an index that is damaged", &project, &["build"]);
}

fn remotes(book: &mut Book) {
    book.chapter("Remotes");
    let target = "command \"a\" { run \"sh\" \"-c\" \"seq 20000 > o\"; output \"o\"; }\n\
                  command \"b\" { run \"touch\" \"o\"; needs \"a\"; output \"o\"; }\n";
    let remote = |fields: &str| format!("remote \"team\" {{ {fields}; }}\n{target}");
    book.recipe("a remote of no place", &remote("access \"read\""));
    book.recipe("a scheme that is none", &remote("url \"s4://bucket/effai\""));
    book.recipe("an address where none belongs", &remote("url \"/mnt/effai\"; endpoint \"http://localhost:9000\""));
    book.recipe("a policy that is none", &format!("cache policy=\"local:r\"\n{target}"));
    book.say("no remotes", &Project::new(target), &["push"]);
    let project = Project::new(&remote("url \"../remote\""));
    book.say("a remote that is not there", &project, &["build"]);
    book.say("a remote that is only read from", &project, &["push"]);
    project.edit("effai.kdl", "\"../remote\"", "\"../remote\"; access \"read-write\"");
    book.say("a remote that has another name", &project, &["push", "--remote", "teem"]);
    book.say("a push", &project, &["push", "a"]);
    book.say("a push of what is there", &project, &["push", "a"]);
    let blobs = project.path("../remote/v1/blobs");
    for dir in std::fs::read_dir(&blobs).expect("listed").map(|e| e.expect("an entry").path()) {
        for blob in std::fs::read_dir(dir).expect("listed").map(|e| e.expect("an entry").path()) {
            let mut bytes = std::fs::read(&blob).expect("read");
            bytes.reverse();
            std::fs::write(&blob, bytes).expect("written");
        }
    }
    std::fs::remove_dir_all(project.cache()).expect("removed");
    book.say("wrong bytes on a remote", &project, &["pull"]);
    project.remove(".effai");
    project.remove("out");
    book.say("wrong bytes on a remote, met by a build", &project, &["build", "b"]);
    project.edit("effai.kdl", "seq 20000", "seq 20001");
    book.say("a push of what is not built", &project, &["push", "a"]);
}

#[test]
fn every_message_reads_as_it_did() {
    let mut book = Book::default();
    recipes(&mut book);
    words(&mut book);
    actions(&mut book);
    tests(&mut book);
    timed::benchmarks(&mut book);
    exports::exports(&mut book);
    outputs(&mut book);
    remotes(&mut book);
    signed::signatures(&mut book);
    models::files(&mut book);
    models::training(&mut book);
    models::asking(&mut book);
    models::memory(&mut book);
    served::time(&mut book);
    served::watch(&mut book);
    served::editor(&mut book);
    let path = shelf();
    if std::env::var_os("EFFAI_TEST_UPDATE").is_some() {
        std::fs::write(&path, &book.text).expect("written");
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    for (n, (old, new)) in before.lines().zip(book.text.lines()).enumerate() {
        assert_eq!(new, old, "{SHELF}:{}", n + 1);
    }
    assert_eq!(before.lines().count(), book.text.lines().count(), "{SHELF} has other messages");
}
