//! Notebooks, run by what stands in for nbclient: cells are executed in the runner's own process. What the real one does is
//! looked at in `tests/reference/environment`.

use serde_json::{Value, json};

use super::{ENVIRONMENT, Snake, contains};

/// In place of nbformat: nodes whose entries are attributes.
const NBFORMAT: &str = "
import json, types
class NotebookNode(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__
class ValidationError(Exception):
    pass
def reads(text, as_version):
    notebook = json.loads(text, object_pairs_hook=NotebookNode)
    for cell in notebook.cells:
        cell.source = ''.join(cell.source)
    return notebook
def writes(notebook):
    return json.dumps(notebook, sort_keys=True, indent=1)
def new_code_cell(source, **fields):
    cell = NotebookNode(fields, cell_type='code', id='random', source=source, outputs=[], execution_count=None)
    return cell
v4 = types.SimpleNamespace(new_code_cell=new_code_cell)
";

/// In place of nbclient: what is called `show` in a cell makes an output.
const NBCLIENT: &str = "
import contextlib, io, linecache, traceback
import nbformat
from .exceptions import CellExecutionError
class NotebookClient:
    def __init__(self, nb, **options):
        self.nb, self.options = nb, options
    def process_message(self, msg, cell, cell_index):
        cell.outputs.append(nbformat.NotebookNode(msg['content'], output_type='stream'))
    async def async_execute(self, **options):
        assert self.options['km'].transport == 'ipc'
        names, count = {}, 0
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type != 'code' or not cell.source.strip():
                continue
            count += 1
            self.options['on_cell_execute'](cell=cell, cell_index=index)
            cell.execution_count = count
            def show(**data):
                data = nbformat.NotebookNode({form.replace('_', '/'): value for form, value in data.items()})
                cell.outputs.append(nbformat.NotebookNode(output_type='display_data', data=data, metadata={}))
            names.update(show=show)
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said):
                    exec(compile(cell.source, 'cell', 'exec'), names)
            except Exception as error:
                lines = ['\\x1b[31m---\\x1b[0m', 'Cell In[{}], line 1'.format(count), '----> 1 ' + cell.source]
                content = {'ename': type(error).__name__, 'evalue': str(error), 'traceback': lines}
                self.options['on_cell_error'](cell=cell, cell_index=index, execute_reply={'content': content})
                raise CellExecutionError()
            finally:
                # As they come: in pieces.
                for line in said.getvalue().splitlines(True):
                    content = {'name': 'stdout', 'text': line}
                    self.process_message({'msg_type': 'stream', 'content': content}, cell, index)
";

const OTHERS: &[(&str, &str)] = &[
    ("ipykernel.py", ""),
    ("nbclient/exceptions.py", "class CellExecutionError(Exception): pass\nclass DeadKernelError(Exception): pass\n"),
    ("jupyter_client/__init__.py", ""),
    ("jupyter_client/kernelspec.py", "class KernelSpec: pass\nclass KernelSpecManager: pass\n"),
    ("jupyter_client/manager.py", "import types\nclass AsyncKernelManager(types.SimpleNamespace): pass\n"),
    (
        "jupyter_client/provisioning.py",
        "class LocalProvisioner: pass\nclass KernelProvisionerFactory:\n    instance = classmethod(lambda cls: cls())\n",
    ),
];

/// Code cells, each with its tag.
fn notebook(cells: &[(&str, &str)]) -> Value {
    let cell = |(source, tag): &(&str, &str)| {
        let tags: Vec<&str> = [*tag].into_iter().filter(|tag| !tag.is_empty()).collect();
        let outputs = json!([{ "output_type": "stream", "name": "stdout", "text": "of an earlier run" }]);
        json!({ "cell_type": "code", "metadata": { "tags": tags, "execution": {} }, "source": source.split_inclusive('\n').collect::<Vec<_>>(),
            "outputs": outputs, "execution_count": 7 })
    };
    let mut cells: Vec<Value> = cells.iter().map(cell).collect();
    cells.insert(0, json!({ "cell_type": "markdown", "metadata": {}, "source": ["# Looks"] }));
    json!({ "cells": cells, "metadata": { "kernelspec": { "name": "mine", "language": "python" } }, "nbformat": 4, "nbformat_minor": 5 })
}

/// A target `n` that runs `a/looks.ipynb`.
fn looks(cells: &[(&str, &str)], fields: &str) -> Snake {
    let recipe = "notebook \"n\" {\n    environment \"env\"\n    notebook \"a/looks.ipynb\"\n";
    let stand_in = "    input \"fake/**/*.py\"; env { PYTHONPATH \"fake\"; }\n";
    let snake = Snake::new(&format!("{ENVIRONMENT}{recipe}{stand_in}    {fields}\n}}\n"));
    let own = [("nbformat.py", NBFORMAT), ("nbclient/__init__.py", NBCLIENT)];
    for (path, text) in own.iter().chain(OTHERS) {
        snake.project.write(&format!("fake/{path}"), text);
    }
    snake.project.write("a/looks.ipynb", &notebook(cells).to_string());
    snake
}

fn executed(snake: &Snake) -> Value {
    serde_json::from_str(&snake.project.read("out/n/looks.ipynb")).expect("JSON")
}

fn sources(notebook: &Value) -> Vec<&str> {
    let cells = notebook["cells"].as_array().expect("cells").iter();
    cells.map(|cell| cell["source"].as_str().expect("text")).collect()
}

#[test]
fn parameters_come_after_the_cell_with_their_defaults() {
    let snake = looks(
        &[("import pinned", ""), ("rate = 1\nnames: list = []", "parameters"), ("print(rate, names, ok)", "")],
        "params { rate 0.01; names \"a\" \"b'\"; ok #true; }",
    );
    let run = snake.effai(&["build", "n"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stderr, "the notebook has no parameter `ok`");
    assert!(!run.stderr.contains("no parameter `rate`"), "{}", run.stderr);
    let notebook = executed(&snake);
    let injected = "# Parameters\nnames = ['a', \"b'\"]\nok = True\nrate = 0.01";
    assert_eq!(sources(&notebook)[3], injected);
    assert_eq!(notebook["cells"][3]["metadata"]["tags"], json!(["injected-parameters"]));
    assert_eq!(notebook["cells"][4]["outputs"][0]["text"], "0.01 ['a', \"b'\"] True\n");
    let ids: Vec<&Value> = notebook["cells"].as_array().expect("cells").iter().map(|cell| &cell["id"]).collect();
    assert_eq!(ids, ["cell-1", "cell-2", "cell-3", "injected-parameters", "cell-4"]);
    assert_eq!(notebook["metadata"]["kernelspec"]["name"], "python3");
    assert_eq!(notebook["cells"][1]["metadata"], json!({ "tags": [] }), "nothing of an earlier run");
    assert!(snake.builds().is_empty());
    snake.project.edit("effai.kdl", "rate 0.01", "rate 1e-3");
    assert_eq!(snake.builds(), ["n"]);
    contains(&snake.effai(&["explain", "n"]).stdout, "notebook.params.rate: 0.01 -> 0.001");

    // As executed, it is a notebook that can be run again.
    snake.project.write("a/looks.ipynb", &executed(&snake).to_string());
    snake.project.edit("effai.kdl", "rate 1e-3", "rate 2");
    assert_eq!(snake.builds(), ["n"]);
    let notebook = executed(&snake);
    assert_eq!((sources(&notebook).len(), sources(&notebook)[3]), (5, &*injected.replace("0.01", "2")));

    let snake = looks(&[("print(rate)", "")], "params { rate 1; }");
    let run = snake.effai(&["build", "n"]);
    contains(&run.stderr, "no cell is tagged `parameters`");
    assert_eq!(sources(&executed(&snake))[0], "# Parameters\nrate = 1");
}

#[test]
fn what_cells_put_out_is_kept_with_its_figures_and_without_what_is_chance() {
    let snake = looks(
        &[
            ("import effai, os, pathlib\nprint('one')\nprint('two', os.getcwd())", ""),
            ("", ""),
            ("effai.metric('accuracy', 0.5)\nshow(image_png='aGk=\\n', text_plain='<Figure at 0x7f00>')", ""),
            (
                "show(text_plain='/tmp/ipykernel_12/34.py:1: x')\nshow(**{'image_svg+xml': '<svg/>'})\npathlib.Path('o').write_text('1')",
                "",
            ),
        ],
        "output \"o\"",
    );
    let run = snake.effai(&["build", "n"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let notebook = executed(&snake);
    let cells = &notebook["cells"];
    assert_eq!(cells[1]["outputs"].as_array().expect("a list").len(), 1, "a stream is one piece");
    assert_eq!(cells[1]["outputs"][0]["text"], "one\ntwo .\n");
    assert_eq!(cells[3]["outputs"][0]["data"]["text/plain"], "<Figure at 0x...>");
    assert_eq!(cells[4]["outputs"][0]["data"]["text/plain"], "ipykernel/34.py:1: x");
    assert_eq!(snake.project.read("out/n/figures/cell-02-1.png"), "hi");
    assert_eq!(snake.project.read("out/n/figures/cell-03-1.svg"), "<svg/>");
    assert_eq!(snake.project.read("out/n/o"), "1");
    contains(&snake.effai(&["log", "n", "--json"]).stdout, "\"accuracy\"");
    contains(&snake.effai(&["log", "n", "--output"]).stdout, "one\ntwo");
}

#[test]
fn a_cell_that_fails_is_named_with_its_first_line() {
    let cells = [("rate = 1", ""), ("\n# Reads.\nopen('data.txt')", "")];
    let snake = looks(&cells, "");
    snake.project.write("data.txt", "1");
    let said = "error: n: a/looks.ipynb: cell 2 failed: `# Reads.`\n  Cell In[2], line 1\n  ----> 1\n  FileNotFoundError: [Errno 2]";
    snake.fails(1, &[said, "input \"data.txt\""]);
    let scratch = std::fs::read_dir(snake.project.path(".effai/scratch")).expect("listed");
    let kept: Vec<_> = scratch.map(|entry| entry.expect("listed").path().join("out/looks.ipynb")).collect();
    assert!(kept.len() == 1 && kept[0].is_file(), "as far as it came: {kept:?}");
    snake.project.edit("effai.kdl", "    input", "    input \"data.txt\"; input");
    assert_eq!(snake.builds(), ["n"]);
}

#[test]
fn what_keeps_a_notebook_from_running_is_one_error() {
    let snake = looks(&[("1", "")], "");
    snake.project.edit("effai.kdl", "PYTHONPATH \"fake\"", "PYTHONPATH \"nowhere\"");
    snake.fails(
        2,
        &["env lacks what runs notebooks: nbclient, ipykernel", "`uv add --project DIRECTORY nbclient ipykernel`"],
    );
    snake.project.edit("effai.kdl", "PYTHONPATH \"nowhere\"", "PYTHONPATH \"fake\"");
    snake.project.edit("a/looks.ipynb", "\"python\"", "\"R\"");
    snake.fails(2, &["a/looks.ipynb is a notebook of R, and only those of Python are run"]);
    snake.project.write("a/looks.ipynb", "{}");
    snake.fails(2, &["a/looks.ipynb is no notebook: it lacks 'nbformat'"]);
    snake.project.write("a/looks.ipynb", "<html>");
    snake.fails(2, &["a/looks.ipynb is no notebook: Expecting value"]);
    for (field, message) in [
        ("params { learning-rate 1; }", "`learning-rate` cannot be a parameter"),
        ("params { lambda 1; }", "`lambda` cannot be a parameter"),
        ("output \"looks.ipynb\"", "`looks.ipynb` would lie where effai writes `looks.ipynb`"),
        ("output \"./figures/mine.png\"", "`./figures/mine.png` would lie where"),
    ] {
        let snake = looks(&[], field);
        snake.fails(2, &[message]);
    }
}
