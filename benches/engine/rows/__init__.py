"""The rows of the table, in its order."""

from . import files, graphs, hooks, remotes, sandbox, switch

ALL = [*graphs.ROWS, *files.ROWS, *switch.ROWS, *sandbox.ROWS, *hooks.ROWS, *remotes.ROWS]
