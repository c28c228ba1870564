"""Writes scikit-learn's digits as one table: which part each is of, the digit, 64 pixels from 0 to 16."""

import argparse
import csv

import effai
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser()
parser.add_argument("--test", type=float)
parser.add_argument("--seed", type=int)
args = parser.parse_args()

digits = load_digits()
_, test = train_test_split(
    range(len(digits.target)), test_size=args.test, random_state=args.seed, stratify=digits.target
)
test = set(test)
with open("digits.csv", "w", newline="") as file:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["split", "digit", *digits.feature_names])
    for at, (digit, pixels) in enumerate(zip(digits.target, digits.data.astype(int))):
        table.writerow(["test" if at in test else "train", digit, *pixels])
effai.metric("records", len(digits.target))
