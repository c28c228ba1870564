"""Loads a dataset artifact with Hugging Face's `datasets` and checks what our own reader cannot vouch for.

    python tests/reference/dataset.py DIR

Needs `datasets` and `pillow`. Exits 1 with the first thing that is wrong; otherwise prints the counts.
"""

import os
import sys
import tempfile

# `datasets` keeps a cache by path: a fresh one, or a second run reads the first one's rows.
os.environ["HF_HOME"] = tempfile.mkdtemp()
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets  # noqa: E402


def main(directory):
    loaded = datasets.load_dataset(directory)
    group_of_split = {}
    ids = set()
    for split, rows in loaded.items():
        assert rows.features["caption"] == datasets.Value("string"), rows.features
        if "image" in rows.features:
            assert isinstance(rows.features["image"], datasets.Image), rows.features["image"]
            for image in rows["image"]:
                image.convert("RGB").load()
        assert not ids & set(rows["id"]) and len(set(rows["id"])) == len(rows), f"{split}: an id is there twice"
        ids |= set(rows["id"])
        assert all(rows["caption"]), f"{split}: an empty caption"
        # `test` and `test_fluent` share their groups; no group is in two of train, validation and test.
        plain = split.split("_")[0]
        for group in set(rows["group"]):
            assert group_of_split.setdefault(group, plain) == plain, f"`{group}` is in {plain} and {group_of_split[group]}"
        concepts = len(set(rows["concept"])) if "concept" in rows.features else len(set(rows["caption"]))
        print(f"{split:<18} {len(rows):>6} rows {len(set(rows['group'])):>6} groups {concepts:>6} concepts")


if __name__ == "__main__":
    main(sys.argv[1])
