"""The graph that every peer builds: layers of small commands.

A target reads one small file of its own and the outputs of two neighbours in the layer before. Its command takes the
first 32 bytes of each, so an edit reaches what stands directly on it and bytes do not grow from layer to layer.
"""

from dataclasses import dataclass, field

LAYERS = 10


@dataclass
class Target:
    """One target: `l3/00421`, and the targets it stands on."""

    name: str
    needs: list = field(default_factory=list)

    @property
    def flat(self):
        """The name for tools whose names hold no slash."""
        return self.name.replace("/", "-")


def layered(count):
    """So many targets, each after all that it stands on."""
    width = -(-count // LAYERS)
    targets = []
    for i in range(count):
        layer, column = divmod(i, width)
        needs = []
        if layer:
            needs = sorted({f"l{layer - 1}/{c:05}" for c in (column, (column + 1) % width)})
        targets.append(Target(f"l{layer}/{column:05}", needs))
    return targets


def edited(targets):
    """A target whose source is edited in the rows about one edit: of the last layer but one, so three commands run."""
    width = -(-len(targets) // LAYERS)
    return targets[-(-len(targets) // width) * width - 2 * width + width // 2]


def source_text(target, version=0):
    """What a target's own file says."""
    return f"{version:08} {target.name}: what this target reads\n"
