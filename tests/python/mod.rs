//! Python environments and scripts, with a stand-in for uv that makes environments of one module.

mod notebooks;
mod scripts;
mod testing;

use crate::support::{Project, Run};

/// Makes an environment as uv does, with what a line `# word` of the lock says in the module `pinned`.
const UV: &str = r#"
echo "$1" >> "$(dirname "$0")/calls"
for word; do
    case "$before" in --python) python=$word ;; esac
    before=$word
done
case "$1" in
venv)
    mkdir -p "$word/bin" "$word/lib/python3/site-packages"
    ln -s "$python" "$word/bin/python"
    printf 'home = %s\nrelocatable = true\n' "$(dirname "$python")" > "$word/pyvenv.cfg"
    touch "$word/.lock"
    ;;
sync)
    if grep -q outdated uv.lock; then
        echo 'error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.' >&2
        exit 1
    fi
    lib=$UV_PROJECT_ENVIRONMENT/lib/python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    mkdir -p "$lib/site-packages"
    sed -n 's/^# \(.*\)/WORD = "\1"/p' uv.lock > "$lib/site-packages/pinned.py"
    rmdir "$UV_PROJECT_ENVIRONMENT/lib/python3/site-packages" "$UV_PROJECT_ENVIRONMENT/lib/python3"
    ;;
esac
"#;

const ENVIRONMENT: &str = "environment \"env\" { project \"app\"; }\n";

struct Snake {
    project: Project,
    path: String,
}

impl Snake {
    fn new(recipe: &str) -> Self {
        let project = Project::new(recipe);
        let bin = project.program("uv", UV);
        project.write("app/pyproject.toml", "[project]\nname = \"app\"\nversion = \"1\"\n");
        project.write("app/uv.lock", "version = 1\n# one\n");
        let path = format!("{bin}:{}", std::env::var("PATH").expect("a search path"));
        Self { project, path }
    }

    fn effai(&self, args: &[&str]) -> Run {
        self.project.effai_in(args, &self.project.cache(), &self.path)
    }

    /// The labels that ran.
    #[track_caller]
    fn builds(&self) -> Vec<String> {
        let run = self.effai(&["build", "-j", "1"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr.lines().filter_map(|l| l.strip_prefix("run ")).map(|l| l.trim().to_owned()).collect()
    }

    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        let run = self.effai(&["build"]);
        assert_eq!(run.code, code, "{}", run.stderr);
        parts.iter().for_each(|part| contains(&run.stderr, part));
    }

    fn calls(&self) -> usize {
        self.project.read("bin/calls").lines().count()
    }
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}

#[test]
fn an_environment_is_made_once_and_anew_when_its_lock_changes() {
    let snake = Snake::new(ENVIRONMENT);
    // What a user's own Python is told does not decide what lies in it.
    let elsewhere = snake.project.path("elsewhere");
    let told =
        [("PATH", &*snake.path), ("PYTHONOPTIMIZE", "1"), ("PYTHONPYCACHEPREFIX", elsewhere.to_str().expect("text"))];
    let run = snake.project.effai_told(&["build", "-j", "1"], &told);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(snake.builds().is_empty());
    assert_eq!(snake.calls(), 2);
    assert!(!elsewhere.exists());
    assert!(!snake.project.path("out/env/.lock").exists());
    let lib = snake.project.path("out/env/lib");
    let pinned = std::fs::read_dir(lib).expect("listed").next().expect("one").expect("listed").path();
    let compiled = std::fs::read_dir(pinned.join("site-packages/__pycache__")).expect("it is compiled");
    let compiled: Vec<String> =
        compiled.map(|e| e.expect("listed").file_name().to_string_lossy().into_owned()).collect();
    assert!(compiled.iter().all(|name| name.ends_with(".pyc") && !name.contains("opt")), "{compiled:?}");

    snake.project.remove("out");
    snake.project.remove(".effai");
    assert!(snake.builds().is_empty(), "the store has it");
    assert!(snake.project.path("out/env/bin/python").exists());
    assert_eq!(snake.calls(), 2);

    snake.project.write("app/uv.lock", "version = 1\n# two\n");
    contains(&snake.effai(&["explain", "env"]).stdout, "because app/uv.lock changed");
    assert_eq!(snake.builds(), ["env"]);
    contains(&snake.effai(&["explain", "env"]).stdout, "environment.interpreter");
}

#[test]
fn an_interpreter_is_asked_once_what_it_is() {
    let snake = Snake::new(ENVIRONMENT);
    // First on the search path, it leads to the one that is meant anyway.
    let python = std::env::var("PATH").expect("a search path");
    let count = "echo asked >> \"$(dirname \"$0\")/asked\"";
    snake.project.program("python3", &format!("{count}; PATH='{python}' exec python3 \"$@\""));
    let asked = || snake.project.read("bin/asked").lines().count();
    // A recipe that was written just now is read again, and all is asked anew.
    snake.project.outlast_the_grain("effai.kdl");
    assert_eq!(snake.builds(), ["env"]);
    let first = asked();
    assert!(snake.builds().is_empty());
    assert_eq!(asked(), first, "nothing is started where nothing changed");
    snake.project.outlast_the_grain("bin/python3");
    snake.project.program("python3", &format!("{count} # again\nPATH='{python}' exec python3 \"$@\""));
    assert!(snake.builds().is_empty(), "it is the same interpreter");
    assert_eq!(asked(), first + 1);
    assert!(snake.builds().is_empty());
    assert_eq!(asked(), first + 1, "what it said is kept");
}

#[test]
fn what_lies_in_files_of_the_machine_is_told() {
    let snake = Snake::new(ENVIRONMENT);
    let package = "[[package]]\nname = \"lib\"\nversion = \"1\"\nsource = { editable = \"../lib\" }\n";
    snake.project.write("app/uv.lock", &format!("version = 1\n# one\n{package}"));
    let run = snake.effai(&["build"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stderr, "not installed, since it lies in files of this machine: lib");
}

/// Two projects below, each with a lock that pins these.
fn two_locks(first: &[(&str, &str)], second: &[(&str, &str)]) -> Snake {
    let snake = Snake::new("projects \"*\"\n");
    for (name, pins) in [("vision", first), ("text", second)] {
        let mut lock = String::from("version = 1\n# one\n");
        for (package, version) in pins {
            lock.push_str(&format!("\n[[package]]\nname = \"{package}\"\nversion = \"{version}\"\n"));
        }
        snake.project.write(&format!("{name}/effai.kdl"), "environment \"env\"\n");
        snake.project.write(&format!("{name}/pyproject.toml"), &format!("[project]\nname = \"{name}\"\n"));
        snake.project.write(&format!("{name}/uv.lock"), &lock);
    }
    snake
}

#[test]
fn locks_that_pin_different_versions_are_found() {
    let snake = two_locks(&[("six", "1.16.0"), ("click", "8.1.0")], &[("click", "8.1.0"), ("six", "1.17.0")]);
    let run = snake.effai(&["env", "check"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(
        run.stdout,
        "six is pinned to different versions\n  1.17.0       text/uv.lock:10  (text/env)\n  1.16.0       vision/uv.lock:6  (vision/env)\n"
    );
    assert_eq!(run.stderr, "2 locks: 1 package pinned to different versions\n");
    let json: serde_json::Value =
        serde_json::from_str(&snake.effai(&["env", "check", "--json"]).stdout).expect("one object");
    assert_eq!((&json["package"], &json["pins"][1]["line"]), (&"six".into(), &6.into()));
    snake.project.edit("text/uv.lock", "1.17.0", "1.16.0");
    let run = snake.effai(&["env", "check"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", "2 locks: no two of them disagree\n"));
    snake.project.write("text/uv.lock", "version = \n");
    let run = snake.effai(&["env", "check"]);
    assert_eq!(run.code, 2);
    contains(&run.stderr, "text/uv.lock is no lock of uv: line 1: ");
    snake.project.remove("text/uv.lock");
    contains(&snake.effai(&["env", "check"]).stderr, "there is no file `text/uv.lock`");
}

#[test]
fn a_shell_has_the_environment_first_on_its_path() {
    let snake = two_locks(&[], &[]);
    let bin = snake.project.program("shell", "command -v python; python -c 'import pinned; print(pinned.WORD)'");
    let run = snake
        .project
        .effai_told(&["env", "shell", "text/env"], &[("SHELL", &format!("{bin}/shell")), ("PATH", &snake.path)]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let python = snake.project.path("out/text/env/bin/python").canonicalize().expect("there");
    assert!(python.is_file());
    contains(&run.stdout, "out/text/env/bin/python\none\n");
    let run = snake.effai(&["env", "shell", "nvironment"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
}

#[test]
fn a_program_is_timed_in_an_environment() {
    let recipe = |word: &str| {
        let own = format!("import pinned, sys; sys.exit(pinned.WORD != '{word}')");
        format!(
            "{ENVIRONMENT}benchmark \"b\" {{ subject \"own\" environment=\"env\" {{ run \"python\" \"-c\" \"{own}\"; }}; rounds min=3 max=3; }}\n"
        )
    };
    let snake = Snake::new(&recipe("one"));
    let run = snake.effai(&["build"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let kept: serde_json::Value = serde_json::from_str(&snake.project.read("out/b/benchmark.json")).expect("JSON");
    assert_eq!(
        (&kept["subjects"][0]["environment"], &kept["subjects"][0]["run"][0]),
        (&"env".into(), &"python".into())
    );
    snake.project.write("effai.kdl", &recipe("two"));
    snake.fails(1, &["subject `own`: `"]);
}

#[test]
fn what_keeps_an_environment_from_being_made_is_one_error() {
    let snake = Snake::new(ENVIRONMENT);
    snake.project.write("app/uv.lock", "version = 1\n# outdated\n");
    snake.fails(2, &["app/uv.lock does not fit app/pyproject.toml", "`uv lock --project app` brings it up to date"]);
    snake.project.write("app/uv.lock", "version = 1\nrequires-python = \">=3.99\"\n");
    snake.fails(3, &["this machine has no Python 3 that app/uv.lock allows (>=3.99)", "put it on the PATH"]);
    snake.project.edit("effai.kdl", "project \"app\"", "project \"app\"; python \"2.99\"");
    snake.project.write("app/uv.lock", "version = 1\n");
    snake.fails(3, &["this machine has no Python 2.99\n"]);
    snake.project.remove("app/uv.lock");
    snake.fails(2, &["there is no file `app/uv.lock`", "`uv lock` in that directory writes it"]);
    snake.project.edit("effai.kdl", "\"2.99\"", "3.10");
    snake.fails(2, &["`python` is a version of Python", "in quotes, such as \"3.11\""]);
}
