"""The LoRA artifact, loaded by PEFT onto the base in PyTorch, against our own vectors of the adapted model.

    python tests/reference/adapter.py
"""

import sys

import torch
from peft import PeftModel
from torch_models import OUT, DualEncoder, compare, load_file, pictures, texts

base = DualEncoder(OUT / "models/emoji-clip")
ids = texts(OUT / "models/emoji-clip")
with torch.inference_mode():
    plain = base.eval().see(pictures()), torch.cat([base.read(i) for i in ids])
    adapted = PeftModel.from_pretrained(base, OUT / "adapters/emoji-clip-lora").eval()
    model = adapted.get_base_model()
    seen, read = model.see(pictures()), torch.cat([model.read(i) for i in ids])
    features = OUT / "features/adapter"
    fits = compare("adapted pictures", load_file(features / "images-test.safetensors")["image"][:, 0], seen)
    fits &= compare("adapted texts", load_file(features / "texts.safetensors")["text"], read)
    # An adapter that loads into nothing would agree with the base.
    for what, before, after in zip(("pictures", "texts"), plain, (seen, read)):
        moved = (before - after).abs().max().item()
        print(f"the adapter moves {what} by up to {moved:.1e}")
        fits &= moved > 1e-3
sys.exit(not fits)
