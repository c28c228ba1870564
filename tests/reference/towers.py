"""Compares the vectors of `features` artifacts with PyTorch's for the same weights and inputs.

usage: towers.py TEXT_MODEL_DIR TEXT_FEATURES_DIR

Exits 1 where the largest difference is above 1e-4.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

model_dir, features_dir = map(Path, sys.argv[1:3])
config = json.loads((model_dir / "config.json").read_text())
config.pop("model_type")
model = BertModel(BertConfig(**config)).eval()
missing, _ = model.load_state_dict(load_file(model_dir / "model.safetensors"), strict=False)
assert not [name for name in missing if "position_ids" not in name], missing
tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(64)
texts = json.loads((features_dir / "texts.json").read_text())[:200]
found = load_file(features_dir / "texts.safetensors")["text"][:200]
worst = 0.0
with torch.inference_mode():
    for text, row in zip(texts, found):
        ids = torch.tensor([tokenizer.encode(text).ids])
        pooled = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1)[0]
        worst = max(worst, (pooled - row).abs().max().item())
print(f"{len(texts)} texts, largest difference {worst:.2e}")
sys.exit(worst > 1e-4)
