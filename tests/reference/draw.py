"""Draws the pictures of `data/drawn`: as large as the tower's input, so that no resizing stands between it and PyTorch.

    python tests/reference/draw.py DIR
"""

import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = 160
CAPTIONS = [
    "a red circle on white",
    "two",
    "overlapping ellipses, lines & a \u201cquoted\u201d word",
    "na\u00efve caf\u00e9 \u2615 \u732b",
    "a much longer caption, which goes on about its colours, its shapes, the light, the angle, and nothing in particular",
    "noise",
]


def draw(seed):
    rng = random.Random(seed)
    picture = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        box = sorted(rng.randrange(SIZE) for _ in range(2)), sorted(rng.randrange(SIZE) for _ in range(2))
        (left, right), (top, bottom) = box
        colour = tuple(rng.randrange(256) for _ in range(3))
        shape = rng.choice([pen.ellipse, pen.rectangle, pen.line])
        shape([left, top, right, bottom], fill=colour)
    return picture


def main(directory):
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, caption in enumerate(CAPTIONS):
        name = f"{number}.png"
        draw(number).save(directory / name)
        lines.append(json.dumps({"file": name, "caption": caption}))
    (directory / "captions.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
