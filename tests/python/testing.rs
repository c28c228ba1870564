//! Tests in an environment, and numbers that scripts tell as part of an artifact.

use super::{ENVIRONMENT, Snake, contains};

#[test]
fn a_test_has_its_environment_and_runs_again_when_that_changes() {
    let recipe = "test \"unit\" {\n    environment \"env\"\n    module \"unittest\"\n    args \"-q\" \"test_word\"\n    \
                  input \"test_word.py\"\n}\n";
    let snake = Snake::new(&format!("{ENVIRONMENT}{recipe}"));
    snake.project.write(
        "test_word.py",
        "import unittest, pinned\nclass Words(unittest.TestCase):\n    def test_word(self):\n        self.assertEqual(pinned.WORD, 'one')\n",
    );
    let tests = |code: i32, last: &str| {
        let run = snake.effai(&["test", "--junit", "all.xml"]);
        assert_eq!((run.code, run.stderr.lines().last()), (code, Some(last)), "{}", run.stderr);
        run.stderr
    };
    tests(0, "1 passed");
    contains(&snake.project.read("out/unit/junit.xml"), "<testcase name=\"python -m unittest -q test_word\"/>");
    contains(&snake.project.read("all.xml"), "<testcase name=\"unit\"/>");
    tests(0, "1 passed (cached)");
    snake.project.write("app/uv.lock", "version = 1\n# two\n");
    let said = tests(1, "0 passed, 1 failed");
    contains(&said, "`python unittest` failed (exit status: 1)");
    contains(&said, "FAILED (failures=1)");
    snake.project.remove("app/uv.lock");
    contains(&snake.effai(&["test"]).stderr, "there is no file `app/uv.lock`");
}

#[test]
fn numbers_of_a_script_and_of_mlflow_are_kept_with_the_artifact() {
    let script = "
import effai, os, pathlib
run = pathlib.Path(os.environ['MLFLOW_TRACKING_URI'][5:]) / '0' / 'abc'
(run / 'metrics').mkdir(parents=True)
(run / 'meta.yaml').write_text('run_name: quick-crab\\nstart_time: 1\\n')
(run / 'metrics' / 'loss').write_text('1 0.5 0\\n2 0.25 1\\n')
effai.metric('accuracy', 0.97)
";
    let snake = Snake::new(&format!(
        "{ENVIRONMENT}python \"m\" {{ environment \"env\"; script \"m.py\"; output \"m.py\"; metrics \"metrics.json\"; }}\n"
    ));
    snake.project.write("m.py", script);
    assert_eq!(snake.builds(), ["env", "m"]);
    let kept = snake.project.read("out/m/metrics.json");
    contains(&kept, "\"accuracy\": 0.97,\n    \"loss\": 0.25");
    contains(&kept, "\"loss\": [[0,0.5],[1,0.25]]");
}
