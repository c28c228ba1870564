"""The rows of the table, in its order."""

from . import files, graphs, sandbox, switch

ALL = [*graphs.ROWS, *files.ROWS, *switch.ROWS, *sandbox.ROWS]
