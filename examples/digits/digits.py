"""Reads the digits that `data/digits` holds."""

import csv
from pathlib import Path

SIDE = 8


def read(split):
    """Pictures, each a list of 64 numbers from 0 to 1, and the digits they show; `split` is train or test."""
    with open(Path("data/digits/digits.csv"), newline="") as file:
        rows = [row[1:] for row in csv.reader(file) if row[0] == split]
    return [[int(pixel) / 16 for pixel in pixels] for _, *pixels in rows], [int(digit) for digit, *_ in rows]
