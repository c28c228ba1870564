"""CLIP held against transformers and PEFT, on two small models with random weights in the hub's layout: how pictures and
texts are prepared, the towers' vectors, and the losses and weights of a training, of the whole model and of an adapter.

    clip.py draw DIR     makes what clip.kdl reads
    clip.py hold         compares
"""

import json
import math
import sys
from io import BytesIO
from pathlib import Path

import torch
from draw import CAPTIONS, draw as drawing
from peft import PeftModel
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer
from tune import pack

HERE = Path(__file__).parent
OUT, DRAWN = HERE / "out/clip", HERE / "drawn"
FORMS = ("published", "newer")
SIZE = 48
# Of a picture's shorter edge, before it is cropped.
EDGES = {"published": SIZE, "newer": SIZE + 9}
EPOCHS, WARMUP = 6, 2

# 32-bit floats on both sides, whose sums are in another order. Vectors are of length 1.
VECTOR = 1e-5
# Where a picture is resized: PIL's cubic filter and ours round their bytes otherwise.
RESIZED = 3e-3
LOSS = 1e-5  # nats, at each of six steps of AdamW
STEPS = 1e-3  # of the change of a tensor's weights in six steps


def draw_pictures(directory, sizes):
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, size in enumerate(sizes):
        name = f"{number}.png"
        drawing(number).resize(size).save(directory / name)
        caption = f"{CAPTIONS[number % len(CAPTIONS)]} {number}"
        lines.append(json.dumps({"file": name, "caption": caption}))
    (directory / "captions.jsonl").write_text("\n".join(lines) + "\n")


def draw(directory):
    draw_pictures(directory / "clip-odd-pictures", [(160, 160), (161, 90), (30, 47), (47, 200), (58, 56)])
    for seed, form in enumerate(FORMS):
        torch.manual_seed(seed)
        made = directory / f"clip-{form}"
        tokenizer = words()
        end = len(tokenizer) - 1
        # The published files say that texts end with token 2, and mean the one of the highest number.
        act = "quick_gelu" if form == "published" else "gelu"
        text = dict(
            hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, vocab_size=len(tokenizer),
            max_position_embeddings=40, hidden_act=act, eos_token_id=2 if form == "published" else end,
            bos_token_id=end - 1, pad_token_id=end, projection_dim=24,
        )
        vision = dict(
            hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=3, image_size=SIZE,
            patch_size=16, hidden_act=act, projection_dim=24,
        )
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name != "logit_scale":
                    weight.add_(0.1 * torch.randn_like(weight))
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        draw_pictures(directory / f"clip-{form}-pictures", [(EDGES[form], EDGES[form])] * 12)
        processor = CLIPImageProcessor(size={"shortest_edge": EDGES[form]}, crop_size={"height": SIZE, "width": SIZE})
        processor.save_pretrained(made)
        pack(made, "config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json")


def words():
    """CLIP's tokenizer with each byte, alone and at the end of a word, and a few pairs."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters]
    merges = [("r", "e"), ("re", "d</w>"), ("c", "i"), ("ci", "r"), ("w", "h"), ("o", "n</w>")]
    tokens += [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: n for n, token in enumerate(tokens)}, merges=merges)


def inputs(form, data, split):
    """What transformers makes of a split's pictures and captions."""
    source = DRAWN / f"clip-{form}"
    table = parquet.read_table(next((OUT / data).glob(f"**/{split}*.parquet"))).to_pylist()
    pictures = [Image.open(BytesIO(row["image"]["bytes"])).convert("RGB") for row in table]
    processor, tokenizer = CLIPImageProcessor.from_pretrained(source), CLIPTokenizer.from_pretrained(source)
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    captions = [row["caption"] for row in table]
    texts = tokenizer(captions, padding=True, truncation=True, max_length=40, return_tensors="pt")
    return captions, pixels, texts


def vectors(model, pixels, texts):
    found = model(pixel_values=pixels, **texts)
    return found.image_embeds, found.text_embeds


def model(directory):
    # Attention as it is written down: the fused one's sums are in yet another order.
    return CLIPModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def close(what, found, wanted, tolerance):
    worst = (found - wanted).abs().max().item()
    print(f"{what}: at worst {worst:.1e}, {tolerance:.0e} allowed")
    return worst <= tolerance


def hold_vectors(form, data, target, loaded, tolerance=VECTOR):
    captions, pixels, texts = inputs(form, data, "test")
    with torch.inference_mode():
        pictures, sentences = vectors(loaded, pixels, texts)
    ours = load_file(OUT / target / "images-test.safetensors")["image"][:, 0]
    fits = close(f"{target}, pictures", ours, pictures, tolerance)
    index = {text: n for n, text in enumerate(json.loads((OUT / target / "texts.json").read_text()))}
    ours = load_file(OUT / target / "texts.safetensors")["text"][[index[caption] for caption in captions]]
    return fits & close(f"{target}, captions", ours, sentences, VECTOR)


def train(form, trained, params, peak):
    """The training of clip.kdl, by PyTorch's AdamW; its losses."""
    _, pixels, texts = inputs(form, f"{form}-drawn", "train")
    groups = [[p for p in params if p.ndim >= 2], [p for p in params if p.ndim < 2]]
    groups = [{"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.01, 0.0))]
    adam = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), eps=1e-8)
    losses, of = [], torch.arange(len(pixels))
    scale = next(p for name, p in trained.named_parameters() if name.endswith("logit_scale"))
    for step in range(EPOCHS):
        rate = peak * min((step + 1) / WARMUP, 1.0) * 0.5 * (1 + math.cos(math.pi * step / EPOCHS))
        for group in adam.param_groups:
            group["lr"] = rate
        pictures, sentences = vectors(trained, pixels, texts)
        logits = pictures @ sentences.T * scale.exp()
        loss = (functional.cross_entropy(logits, of) + functional.cross_entropy(logits.T, of)) / 2
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        with torch.no_grad():
            scale.clamp_(0, math.log(100))
        losses.append(loss.item())
    return losses


def close_weights(what, found, wanted, before):
    """Each tensor's change in training, as a whole: Adam divides each gradient by its own size, so where one is all but zero, its
    rounding decides the step."""
    worst = max(
        ((found[name] - weight).norm() / (weight - before[name]).norm().clamp(min=1e-12)).item()
        for name, weight in wanted.items()
    )
    print(f"{what}: weights off by {worst:.1e} of their change at worst, {STEPS:.0e} allowed")
    return worst <= STEPS


def close_losses(what, target, wanted):
    found = [loss for _, loss in json.loads((OUT / target / "training.json").read_text())["train"]]
    assert len(found) == EPOCHS and found[-1] < found[0] - 0.05, "the training learns"
    return close(f"{what}: losses", torch.tensor(found), torch.tensor(wanted), LOSS)


def hold_full(form):
    target = f"{form}-full"
    trained = model(OUT / form)
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    losses = train(form, trained, list(trained.parameters()), 1e-3)
    fits = close_losses(target, target, losses)
    found = load_file(OUT / target / "model.safetensors")
    wanted = {name: weight for name, weight in trained.state_dict().items() if name in found}
    assert len(wanted) == len(found) == len(list(trained.parameters()))
    # A bias of keys changes nothing, so its gradient is noise.
    wanted = {name: weight for name, weight in wanted.items() if not name.endswith("k_proj.bias")}
    return fits & close_weights(target, found, wanted, before)


def hold_lora(form):
    target = f"{form}-lora"
    trained = PeftModel.from_pretrained(model(OUT / form), OUT / f"{form}-lora-begin", is_trainable=True)
    scale = trained.base_model.model.logit_scale.requires_grad_(True)
    params = [p for p in trained.parameters() if p.requires_grad]
    losses = train(form, trained, params, 1e-2)
    assert scale.grad is not None
    fits = close_losses(target, target, losses)
    loaded = PeftModel.from_pretrained(model(OUT / form), OUT / target)
    return fits & hold_vectors(form, f"{form}-drawn", f"{form}-lora-features", loaded)


def hold():
    fits = True
    for form in FORMS:
        fits &= hold_vectors(form, f"{form}-drawn", f"{form}-features", model(OUT / form))
        fits &= hold_vectors(form, "odd", f"{form}-odd-features", model(OUT / form), RESIZED)
        fits &= hold_full(form)
        fits &= hold_lora(form)
    sys.exit(0 if fits else "something is farther off than is allowed")


if __name__ == "__main__":
    draw(Path(sys.argv[2])) if sys.argv[1] == "draw" else hold()
