"""Runs a notebook from top to bottom: parameters in, the executed notebook and its figures out.

Effai starts it in the notebook's environment, with one argument: a file that says what is to be done. It holds the
notebook to nothing that effai does not hold a script to. What it writes has the same bytes each time if what the cells
compute has: no times, no random names, no paths of the machine.
"""

import ast
import asyncio
import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings

import effai

PACKAGES = ["nbclient", "ipykernel"]

# A machine may have much to do; nobody waits for less.
PATIENCE_SECONDS = 600

# Of an exception, so much is shown: where in the cell and below it, and what it says.
PLACES_MAX = 3
EXCEPTION_LINES_MAX = 2

FIGURES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}

# Names a widget that lives as long as the kernel, by a random word.
WIDGET = "application/vnd.jupyter.widget-view+json"


def main(job):
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        fail(
            "{} lacks what runs notebooks: {}".format(job["environment"], ", ".join(missing)),
            "`uv add --project DIRECTORY {}`, with the directory that is the `project` of {}".format(
                " ".join(missing), job["environment"]
            ),
        )
    warnings.filterwarnings("ignore", module="nbformat|zmq|traitlets|jupyter_client")
    import nbformat

    notebook = read(job["notebook"])
    clear(notebook)
    if job["params"]:
        for warning in inject(notebook, job["params"]):
            effai.warning(warning)
    if importlib.util.find_spec("matplotlib"):
        # It looks through the machine's fonts once, and complains in some cell's output if that takes long.
        import matplotlib.font_manager  # noqa: F401
    failure = asyncio.run(execute(notebook, job))
    # Programs know directories by either path, where links lead to them.
    tidy(notebook, {path: name for dir, name in job["places"].items() for path in [dir, os.path.realpath(dir)]})
    put(os.path.join(job["out"], os.path.basename(job["notebook"])), (nbformat.writes(notebook) + "\n").encode())
    for name, content in figures(notebook):
        put(os.path.join(job["out"], "figures", name), content)
    if failure:
        failure.tell(job["notebook"])


def fail(message, help=None, whose="user"):
    """Ends this program, and tells effai why."""
    effai._say({"event": "failed", "class": whose, "message": message, "help": help})
    sys.exit(message)


def put(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def read(path):
    """The notebook, in today's form and with names of cells that are not random."""
    import nbformat

    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
        is_old = raw["nbformat"] < 4
        if not is_old:
            name_cells(raw["cells"], raw.get("nbformat_minor", 0))
        notebook = nbformat.reads(json.dumps(raw), as_version=4)
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        why = "it lacks {}".format(error) if isinstance(error, KeyError) else str(error).partition("\n")[0]
        fail("{} is no notebook: {}".format(path, why), "open it in Jupyter and save it")
    if is_old:
        for cell in notebook.cells:
            cell.pop("id", None)
        name_cells(notebook.cells, notebook.nbformat_minor)
    language = language_of(notebook.metadata)
    if not re.match("i?python", language, re.IGNORECASE):
        fail(
            "{} is a notebook of {}, and only those of Python are run".format(path, language),
            "run it by a `command`",
        )
    return notebook


def language_of(metadata):
    kernel, language = metadata.get("kernelspec", {}), metadata.get("language_info", {})
    return kernel.get("language") or language.get("name") or "python"


def name_cells(cells, minor):
    """Gives each cell a name that has none of its own. Since 4.5 they have one, before they may not."""
    if minor < 5:
        return
    names = set()
    for number, cell in enumerate(cells, 1):
        if cell.get("id") in names or not cell.get("id"):
            cell["id"] = free("cell-{}".format(number), names | {other.get("id") for other in cells})
        names.add(cell["id"])


def free(name, names):
    while name in names:
        name += "-"
    return name


def clear(notebook):
    """Takes out what an earlier run left, and which kernel somebody had."""
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for left in ["papermill", "widgets"]:
        notebook.metadata.pop(left, None)
    for cell in notebook.cells:
        for left in ["execution", "papermill"]:
            cell.metadata.pop(left, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def inject(notebook, params):
    """Puts a cell with the parameters where papermill does; gives what is to be warned of."""
    import nbformat

    source = "# Parameters\n" + "\n".join("{} = {!r}".format(name, value) for name, value in params.items())
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    cell.pop("id", None)
    if notebook.nbformat_minor >= 5:
        cell["id"] = free("injected-parameters", {other.get("id") for other in notebook.cells})
    defaults, earlier = tagged(notebook, "parameters"), tagged(notebook, "injected-parameters")
    if earlier is not None:
        notebook.cells[earlier] = cell
    else:
        notebook.cells.insert(0 if defaults is None else defaults + 1, cell)
    if defaults is None:
        return ["no cell is tagged `parameters`: those given come first, and a cell below may set them again"]
    known = assigned(notebook.cells[defaults].source)
    return ["the notebook has no parameter `{}`".format(name) for name in params if known and name not in known]


def tagged(notebook, tag):
    cells = enumerate(notebook.cells)
    return next((at for at, cell in cells if cell.cell_type == "code" and tag in cell.metadata.get("tags", [])), None)


def assigned(source):
    """The names that a cell assigns; none if it is not plain Python."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    try:
        statements = ast.parse("\n".join(lines)).body
    except SyntaxError:
        return set()
    names = [name for statement in statements for name in ast.walk(statement) if isinstance(name, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


class Failure:
    """How a cell failed, or the kernel under it: by an exception, with a code, or on a signal, whose code is negative."""

    def __init__(self, number, cell, lines, code=1):
        first = next((line for line in cell.source.splitlines() if line.strip()), "")
        self.head, self.lines, self.code = "cell {} failed: `{}`".format(number, first.strip()), lines, code

    def tell(self, notebook):
        """Ends this program, with what is to be its last word."""
        if self.code < 0:
            # As its kernel did: what became of that is then told of this.
            print(": ".join([self.head, *self.lines]), file=sys.stderr, flush=True)
            os.kill(os.getpid(), -self.code)
        fail("\n  ".join(["{}: {}".format(notebook, self.head), *self.lines]), whose="target")


async def execute(notebook, job):
    """Runs all cells; gives how one failed."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    at = {"number": 0, "cell": None, "kernel": None, "error": None}

    class Kernels(KernelSpecManager):
        """This very interpreter, whatever kernel the notebook was last run by."""

        def get_kernel_spec(self, kernel_name):
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    class Here(LocalProvisioner):
        """Starts the kernel in this process's group, which ends with the action, and with the descriptor by which cells
        tell effai of themselves."""

        async def launch_kernel(self, cmd, **kwargs):
            variables = dict(kwargs["env"], JPY_PARENT_PID=str(os.getpid()), PYDEVD_DISABLE_FILE_VALIDATION="1")
            # As beside a script: what lies by the notebook can be imported.
            beside = os.path.dirname(os.path.abspath(job["notebook"]))
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, [variables.get("PYTHONPATH"), beside]))
            kept = [] if effai._descriptor is None else [effai._descriptor]
            self.process = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, env=variables, pass_fds=kept)
            self.pid = self.process.pid
            at["kernel"] = self.process
            return self.connection_info

    class Provisioners(KernelProvisionerFactory):
        def create_provisioner_instance(self, kernel_id, kernel_spec, parent):
            return Here(kernel_id=kernel_id, kernel_spec=kernel_spec, parent=parent)

    class Client(NotebookClient):
        """Shows what cells print while they run."""

        def process_message(self, msg, cell, cell_index):
            if msg["msg_type"] == "stream":
                print(plain(msg["content"]["text"]), end="", flush=True)
            return super().process_message(msg, cell, cell_index)

    total = sum(1 for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip())

    def begin(cell, cell_index):
        at.update(number=at["number"] + 1, cell=cell)
        progress("cell {}".format(at["number"]), at["number"] - 1, total)

    def raised(cell, cell_index, execute_reply):
        at["error"] = execute_reply["content"]

    Provisioners.instance()
    # No TCP where actions have no network. The name of a socket is short, by whatever path this directory is had.
    place = os.path.relpath(os.path.realpath(job["home"])) + "/kernel"
    manager = AsyncKernelManager(
        kernel_spec_manager=Kernels(), transport="ipc", ip=place, connection_file=place + ".json"
    )
    client = Client(
        notebook,
        km=manager,
        timeout=None,
        startup_timeout=PATIENCE_SECONDS,
        iopub_timeout=PATIENCE_SECONDS,
        raise_on_iopub_timeout=True,
        record_timing=False,
        extra_arguments=["--HistoryManager.enabled=False"],
        store_widget_state=False,
        on_cell_execute=begin,
        on_cell_error=raised,
    )
    try:
        await client.async_execute(cleanup_kc=True)
    except CellExecutionError:
        traceback = [plain(line) for line in "\n".join(at["error"].get("traceback", [])).splitlines()]
        print("\n".join(traceback), file=sys.stderr, flush=True)
        return Failure(at["number"], at["cell"], words(traceback, at["error"]["ename"], at["error"]["evalue"]))
    except DeadKernelError:
        code = at["kernel"].wait()
        how = "on signal {}".format(-code) if code < 0 else "with code {}".format(code)
        return Failure(at["number"], at["cell"], ["the kernel ended {}".format(how)], code)
    progress("", total, total)
    return None


def progress(what, done, total):
    # Not by `effai.progress`, which passes over what comes too soon: a cell may take an hour.
    effai._say({"event": "progress", "what": what, "done": done, "total": total, "unit": "cells"})


def plain(text):
    """Without the codes that colour a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def words(traceback, name, said):
    """Where a cell failed and how, in few lines."""
    places = [line.rstrip() for line in traceback if re.match(r"\s*(-+> ?\d|Cell In|Input In|File )", line)]
    said = [line for line in "{}: {}".format(name, said).splitlines() if line.strip()]
    return places[-PLACES_MAX:] + said[:EXCEPTION_LINES_MAX]


def tidy(notebook, places):
    """Makes outputs the same however quickly they came, wherever this runs and whichever process it is."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = in_order(cell.outputs)
            for output in cell.outputs:
                tidy_output(output, places)


def in_order(outputs):
    """Streams between two other outputs, each in one piece: which of the two was first is chance."""
    ordered, streams = [], {}
    for output in outputs:
        if output.output_type != "stream":
            ordered += [streams.pop(name) for name in sorted(streams, reverse=True)] + [output]
        elif output.name in streams:
            streams[output.name].text += output.text
        else:
            streams[output.name] = output
    return ordered + [streams[name] for name in sorted(streams, reverse=True)]


def tidy_output(output, places):
    if output.output_type == "stream":
        output.text = tidy_text(output.text, places)
    elif output.output_type == "error":
        output.evalue = tidy_text(output.evalue, places)
        output.traceback = [tidy_text(line, places) for line in output.traceback]
    else:
        if len(output.data) > 1:
            output.data.pop(WIDGET, None)
        for form, value in output.data.items():
            if isinstance(value, str) and FIGURES.get(form, "svg") == "svg":
                output.data[form] = tidy_text(value, places)


def tidy_text(text, places):
    # The longest first: one may lie in another.
    for path in sorted(places, key=len, reverse=True):
        text = text.replace(path, places[path])
    # What ipykernel calls the file of a cell, by its process.
    text = re.sub(r"[^\s'\"<>(]*\bipykernel_\d+/", "ipykernel/", text)
    # Where something lay in memory: `<Line2D at 0x7f03c2b41f50>`.
    return re.sub(r"\bat 0x[0-9a-fA-F]+(?=>|,|&gt;)", "at 0x...", text)


def figures(notebook):
    """The pictures among the outputs, as files: `cell-03-1.png` is the first of cell [3]."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        pictures = [output.data for output in cell.outputs if FIGURES.keys() & output.get("data", {}).keys()]
        for number, data in enumerate(pictures, 1):
            for form in sorted(FIGURES.keys() & data.keys()):
                content = data[form].encode() if form.endswith("xml") else base64.b64decode(data[form])
                yield "cell-{:02}-{}.{}".format(cell.execution_count, number, FIGURES[form]), content


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        main(json.load(file))
