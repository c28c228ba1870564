"""Loads a dataset artifact with the `datasets` library and checks that pictures are decoded.

usage: dataset.py DATASET_DIR
"""

import sys
import tempfile

from datasets import load_dataset

with tempfile.TemporaryDirectory() as cache:
    splits = load_dataset(sys.argv[1], cache_dir=cache)
    for name, split in splits.items():
        row = split[0]
        width, height = row["image"].size
        assert width > 0 and height > 0 and row["caption"]
        print(f"{name}: {len(split)} rows, first {row['caption']!r} {width}x{height}")
