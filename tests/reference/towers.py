"""The two towers' vectors of the drawn pictures and captions, against PyTorch's for the same weights and inputs.

    python tests/reference/towers.py
"""

import json
import sys

import torch
from torch_models import OUT, bert, compare, efficientnet, load, load_file, mean_pooled, pictures, texts

with torch.inference_mode():
    directory = OUT / "models/efficientnet-lite0"
    tower = efficientnet(json.loads((directory / "config.json").read_text()))
    load(tower, directory)
    ours = load_file(OUT / "features/image-tower/images-test.safetensors")["image"][:, 0]
    fits = compare("picture tower", ours, tower(pictures()))

    directory = OUT / "models/minilm"
    encoder = bert(json.loads((directory / "config.json").read_text()))
    load(encoder, directory)
    ours = load_file(OUT / "features/text-tower/texts.safetensors")["text"]
    fits &= compare("text tower", ours, torch.cat([mean_pooled(encoder, ids) for ids in texts(directory)]))
sys.exit(not fits)
