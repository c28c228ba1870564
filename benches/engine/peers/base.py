"""What the rows ask of a tool."""

from common.measure import Command

from ..graph import source_text


class Peer:
    """A build tool: how it is had, how it is told of a graph, how it is run."""

    name = ""
    # The largest graph it is given; past that a row would take an hour.
    most = 10**9

    def install(self):
        """Makes it usable, or raises `NotHere`."""

    def version(self):
        """What it says of its version."""

    def source(self, root, target):
        """Where a target's own file is."""
        return root / "src" / target.name

    def output(self, root, target):
        """Where a target's output is."""
        return root / "o" / target.name

    def write(self, targets, root):
        """Writes the project's files, but for the sources."""
        raise NotImplementedError

    def argv(self, root):
        """The command line that builds everything with two jobs."""
        raise NotImplementedError

    def env(self, root):
        """Variables of its own."""
        return {}

    def daemons(self, root):
        """Processes that work for it and go on afterwards."""
        return []

    def settle(self, root):
        """Ends what it started for this project."""

    def build(self, root):
        """The whole command."""
        return Command(self.argv(root), root, self.env(root), self.daemons(root))

    def lay(self, targets, root):
        """The whole project: sources and files."""
        for directory in {self.source(root, t).parent for t in targets}:
            directory.mkdir(parents=True, exist_ok=True)
        for target in targets:
            self.source(root, target).write_text(source_text(target))
        self.write(targets, root)

    def ran(self, text, before, after):
        """How many commands a build ran: outputs that were written anew, unless the tool itself says."""
        return sum(1 for name, stamp in after.items() if before.get(name) != stamp)

    def stamps(self, targets, root):
        """How all outputs look."""
        return {t.name: stamp(self.output(root, t)) for t in targets}


def stamp(path):
    """How a file looks; none where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def make_directories(peer, targets, root):
    """For tools that leave directories of outputs to their users."""
    for directory in {peer.output(root, t).parent for t in targets}:
        directory.mkdir(parents=True, exist_ok=True)
