"""What a row is: for each tool a case that is prepared once and measured in rounds."""

import shutil
import time
from dataclasses import dataclass, field

from common.measure import Wrong

# What was written this recently may be believed by nobody who looks at times: rounds wait for it, unmeasured.
GRAIN_S = 0.06


@dataclass
class Row:
    """One row. `cases` gives its tools; `goals` are (tool, how many times its cost at most)."""

    name: str
    title: str
    cases: callable
    rounds: int
    goal: str = ""
    goals: list = field(default_factory=list)
    # Whether wall time counts against a goal; CPU time always does.
    wall_s_max: float = 0


@dataclass
class Case:
    """One tool in one row."""

    name: str
    command: callable
    prepare: callable = lambda: None
    # Before and after each round, unmeasured; `after` checks what was done and says a remark.
    before: callable = lambda number: None
    after: callable = lambda number, cost: ""
    finish: callable = lambda: None
    rounds_max: int = 10**9


def absent(name, why):
    """A tool that cannot take part, and why."""

    def prepare():
        raise Wrong(why)

    return Case(name, command=None, prepare=prepare)


def grain():
    """Lets what was just written grow old enough to be believed."""
    time.sleep(GRAIN_S)


def clean(path):
    """Takes away a directory or file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def expect(what, got, wanted):
    """A check that says what is wrong."""
    if got != wanted:
        raise Wrong(f"{what}: {got}, not {wanted}")
