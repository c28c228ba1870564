//! What a script is given, what it says, and what becomes of it.

use super::{ENVIRONMENT, Snake, contains};

/// A target `m` that runs `train.py`.
fn script(text: &str, fields: &str) -> Snake {
    let snake = Snake::new(&format!(
        "{ENVIRONMENT}python \"m\" {{\n    environment \"env\"\n    script \"train.py\"\n    output \"o\"\n    {fields}\n}}\n"
    ));
    snake.project.write("train.py", text);
    snake
}

const COPIES: &str = "
import sys, pathlib, pinned
pathlib.Path('o').write_text(' '.join([pinned.WORD, *sys.argv[1:]]))
";

#[test]
fn a_script_has_its_environment_and_its_parameters() {
    let snake =
        script(COPIES, "params { rate 0.01; epochs 3; name \"a b\"; layers 64 32; augment #true; quiet #false; }");
    assert_eq!(snake.builds(), ["env", "m"]);
    assert_eq!(
        snake.project.read("out/m/o"),
        "one --augment --epochs 3 --layers 64 --layers 32 --name a b --rate 0.01"
    );
    assert!(snake.builds().is_empty());
    snake.project.edit("effai.kdl", "epochs 3", "epochs 4");
    assert_eq!(snake.builds(), ["m"]);
    contains(&snake.effai(&["explain", "m"]).stdout, "python.params.epochs: 3 -> 4");
    snake.project.edit("train.py", "'o'", "'o' ");
    assert_eq!(snake.builds(), ["m"]);
    contains(&snake.effai(&["explain", "m"]).stdout, "because train.py changed");
    snake.project.write("app/uv.lock", "version = 1\n# two\n");
    assert_eq!(snake.builds(), ["env", "m"]);
    contains(&snake.project.read("out/m/o"), "two --augment");
    snake.project.write("app/pyproject.toml", "[project]\nname = \"app\"\nversion = \"2\"\n");
    assert_eq!(snake.builds(), ["env"], "the same environment");
}

#[test]
fn a_module_runs_from_its_files() {
    let snake = script("", "input \"src/**/*.py\"; env { PYTHONPATH \"src\"; }; pass \"EXTRA\"");
    snake.project.edit("effai.kdl", "script \"train.py\"", "module \"train.main\"");
    snake.project.write("src/train/__init__.py", "");
    snake.project.write("src/train/main.py", COPIES);
    assert_eq!(snake.builds(), ["env", "m"]);
    assert_eq!(snake.project.read("out/m/o"), "one");
    snake.project.edit("effai.kdl", "module", "script \"train.py\"; module");
    snake.fails(2, &["it runs a script and a module"]);
}

#[test]
fn what_a_script_tells_is_kept() {
    let snake = script(
        "
import effai, pathlib, subprocess
for step in range(3):
    effai.progress(step + 1, 3, 'train', 'steps')
    effai.metric('train.loss', 1 / (step + 1), step)
effai.metric('broken', float('nan'))
effai.warning('few records', 'give it more')
effai.log('done')
# A process of its own speaks to nobody by accident.
subprocess.run(['python', '-c', 'import pinned, effai; effai.metric(\"stray\", 1)'], check=True)
pathlib.Path('o').write_text('1')
",
        "",
    );
    let run = snake.effai(&["build", "m", "-v"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stderr, "few records");
    contains(&run.stderr, "broken is nan, which is not kept");
    assert!(!run.stderr.contains("not an event"), "{}", run.stderr);
    let log = snake.effai(&["log", "m", "--json"]).stdout;
    contains(&log, "train.loss");
    assert!(!log.contains("stray"), "{log}");
}

#[test]
fn what_mlflow_wrote_is_kept_also_of_a_script_that_fails() {
    let snake = script(
        "
import os, pathlib, sys
place = os.environ['MLFLOW_TRACKING_URI']
assert place.startswith('file:')
place = pathlib.Path(place[5:])
assert not place.exists() and place.parent.is_dir()
run = place / '0' / 'abc'
(run / 'metrics').mkdir(parents=True)
(run / 'params').mkdir()
(run / 'meta.yaml').write_text('run_name: quick-crab\\nstart_time: 1\\n')
(run / 'metrics' / 'accuracy').write_text('1 0.5 0\\n2 0.75 1\\n')
(run / 'params' / 'rate').write_text('0.01')
sys.exit('far too few records')
",
        "",
    );
    let run = snake.effai(&["build", "m", "-v"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, "rate = 0.01");
    contains(&run.stderr, "`python train.py` failed (exit status: 1):\n  far too few records");
    let db = rusqlite::Connection::open(snake.project.path(".effai/effai.db")).expect("opened");
    let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let kept = db.query_row("SELECT count(*) FROM metrics WHERE name = 'accuracy'", [], count).expect("on record");
    assert_eq!(kept, 2);
}

#[test]
fn a_traceback_names_what_was_not_declared() {
    let snake = script("import pathlib\npathlib.Path('o').write_text(pathlib.Path('data.txt').read_text())\n", "");
    snake.project.write("data.txt", "1");
    snake.fails(1, &["FileNotFoundError", "input \"data.txt\"", "`python train.py` failed"]);
    snake.project.edit("effai.kdl", "output", "input \"data.txt\"; output");
    assert_eq!(snake.builds(), ["m"]);
    snake.project.edit("effai.kdl", "output", "params { \"a b\" 1; }; output");
    snake.fails(2, &["`a b` cannot be a parameter"]);
}

#[test]
fn the_module_does_nothing_without_effai() {
    let module = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kind/python");
    let code = "import effai; effai.metric('a', 1); effai.progress(1); effai.log('x'); effai.warning('y')";
    let run = std::process::Command::new("python3")
        .args(["-c", code])
        .env("PYTHONPATH", module)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("EFFAI_EVENTS")
        .output()
        .expect("started");
    assert!(run.status.success() && run.stdout.is_empty() && run.stderr.is_empty(), "{run:?}");
}
