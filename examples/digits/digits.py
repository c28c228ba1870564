"""Reads the digits that `data/digits` holds, and writes what a model makes of those it has not seen."""

import csv
from pathlib import Path

SIDE = 8


def read(split):
    """Pictures, each a list of 64 numbers from 0 to 1, and the digits they show; `split` is train or test."""
    with open(Path("data/digits/digits.csv"), newline="") as file:
        rows = [row[1:] for row in csv.reader(file) if row[0] == split]
    return [[int(pixel) / 16 for pixel in pixels] for _, *pixels in rows], [int(digit) for digit, *_ in rows]


def write(digits, probabilities):
    """`predictions.csv`: of each digit, in order, how likely the model holds it to be each of the ten."""
    with open("predictions.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["digit", *(f"p_{digit}" for digit in range(10))])
        for digit, row in zip(digits, probabilities):
            table.writerow([digit, *(f"{p:.6f}" for p in row)])
