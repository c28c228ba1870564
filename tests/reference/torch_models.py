"""The models of recipes/clip.kdl in PyTorch, from implementations that are not ours: transformers' BERT and
efficientnet_lite_pytorch's network, whose module names are those of our files."""

import hashlib
import json
import math
import tempfile
from pathlib import Path

import numpy
import torch
import transformers
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, BertConfig, BertModel

HERE = Path(__file__).parent
OUT = HERE / "out"
TOKENS_MAX = 64


def captions():
    lines = (HERE / "drawn" / "captions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def pictures():
    """The drawn pictures as the tower's input: [n, 3, 160, 160], (x - 127) / 128."""
    rows = [numpy.asarray(Image.open(HERE / "drawn" / c["file"]).convert("RGB")) for c in captions()]
    return (torch.tensor(numpy.stack(rows)).permute(0, 3, 1, 2).float() - 127) / 128


def pixels():
    """The same pictures as they are: [n, 3, 160, 160] in 8 bits."""
    rows = [numpy.asarray(Image.open(HERE / "drawn" / c["file"]).convert("RGB")) for c in captions()]
    return numpy.ascontiguousarray(numpy.stack(rows).transpose(0, 3, 1, 2))


def photographs():
    """The same pictures as a camera has them, [n, 480, 640, 3] in 8 bits, and as Pillow makes the tower's input of those."""
    taken, seen = [], []
    for at, picture in enumerate(pixels()[:3].transpose(0, 2, 3, 1)):
        photograph = Image.new("RGB", (640, 480), (250 - 60 * at, 40 * at, 90))
        photograph.paste(Image.fromarray(picture).resize((300 + 40 * at, 400), Image.Resampling.BICUBIC), (30 + 90 * at, 20 * at))
        taken.append(numpy.asarray(photograph))
        square = Image.new("RGB", (640, 640), (255, 255, 255))
        square.paste(photograph, (0, 80))
        # Along the height first, as effai's filters go, with whole numbers in between.
        small = square.resize((640, 160), Image.Resampling.BILINEAR).resize((160, 160), Image.Resampling.BILINEAR)
        seen.append(numpy.asarray(small))
    prepared = (torch.tensor(numpy.stack(seen)).permute(0, 3, 1, 2).float() - 127) / 128
    return numpy.stack(taken), prepared


def texts(directory):
    """Ids of each caption, unpadded: one at a time, so that no mask is trusted."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    return [torch.tensor([tokenizer.encode(c["caption"]).ids]) for c in captions()]


def smollm2(directory):
    """A GGUF file as transformers reads it. That takes it a third of a minute, so what comes of it is kept."""
    digest = hashlib.sha256((directory / "model.gguf").read_bytes()).hexdigest()[:16]
    kept = HERE.parents[1] / "target/reference" / f"gguf-{transformers.__version__}-{digest}"
    if not kept.exists():
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, gguf_file="model.gguf").eval()
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as made:
            torch.save(model, made)
        Path(made.name).replace(kept)
    return torch.load(kept, weights_only=False)


# What emoji are of, and how it is said: those of `exports/emoji-clip-labels-*`.
LABELS = (
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)
PROMPTS = ("an emoji of {}", "{}")


def likely(model, directory, seen):
    """How likely each label is of pictures by their vectors: softmax of what CLIP's logits are, of the means of what prompts say."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    means = []
    for label in LABELS:
        ids = [torch.tensor([tokenizer.encode(prompt.replace("{}", label.lower())).ids]) for prompt in PROMPTS]
        means.append(torch.cat([model.read(i) for i in ids]).mean(0))
    return torch.softmax(model.logit_scale.exp() * seen @ functional.normalize(torch.stack(means), dim=-1).T, -1)


def bert(config):
    config = {key: value for key, value in config.items() if key != "model_type"}
    return BertModel(BertConfig(**config)).eval()


def mean_pooled(model, ids):
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1)


class Tower(EfficientNet):
    """The published network, with padding by the input's own size; pooled features instead of classes."""

    pooled_blocks = ()

    def forward(self, x):
        averages = []
        hooks = [
            self._blocks[number].register_forward_hook(lambda _, __, y: averages.append(y.mean((2, 3))))
            for number in self.pooled_blocks
        ]
        averages.append(self.extract_features(x).mean((2, 3)))
        for hook in hooks:
            hook.remove()
        return torch.cat(averages, 1)


def efficientnet(config):
    tower = Tower.from_name("efficientnet-lite0").eval()
    for parent in list(tower.modules()):
        for name, module in list(parent.named_children()):
            if not isinstance(module, nn.Conv2d):
                continue
            if module.kernel_size == (1, 1):
                # Needs no padding; and PEFT makes its own of a module's class, which takes a plain one.
                setattr(parent, name, nn.Conv2d(module.in_channels, module.out_channels, 1, bias=False))
            else:
                module.static_padding = SamePadding(module)
    tower.pooled_blocks = config.get("pooled_blocks", ())
    return tower


class SamePadding(nn.Module):
    """TensorFlow's "same", for any input size."""

    def __init__(self, convolution):
        super().__init__()
        self.kernel, self.stride = convolution.kernel_size, convolution.stride

    def forward(self, x):
        pads = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel[::-1], self.stride[::-1]):
            total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return functional.pad(x, pads)


class Head(nn.Module):
    def __init__(self, width, config):
        super().__init__()
        self.input_scale = nn.Parameter(torch.ones(width))
        self.input_shift = nn.Parameter(torch.zeros(width))
        self.hidden = config["hidden"] > 0
        self.add_module("0", nn.Linear(width, config["hidden"] or config["dim"]))
        if self.hidden:
            self.add_module("2", nn.Linear(config["hidden"], config["dim"]))

    def forward(self, x):
        x = getattr(self, "0")(x * self.input_scale + self.input_shift)
        if self.hidden:
            x = getattr(self, "2")(functional.gelu(x))
        return functional.normalize(x, dim=-1)


class DualEncoder(nn.Module):
    def __init__(self, directory):
        super().__init__()
        config = json.loads((directory / "config.json").read_text())
        self.text = bert(config["text"])
        self.vision = efficientnet(config["vision"])
        self.text_projection = Head(config["text"]["hidden_size"], config["projection"])
        blocks = config["vision"]["blocks"]
        width = sum(blocks[n]["output"] for n in self.vision.pooled_blocks) + config["vision"]["head_channels"]
        self.vision_projection = Head(width, config["projection"])
        self.logit_scale = nn.Parameter(torch.zeros(1))
        load(self, directory)

    def see(self, x):
        return self.vision_projection(self.vision(x))

    def read(self, ids):
        return self.text_projection(functional.normalize(mean_pooled(self.text, ids), dim=-1))


def load(model, directory):
    """Every weight of the file is used, and every parameter of the model is in it, but for an unused pooler."""
    missing, unexpected = model.load_state_dict(load_file(directory / "model.safetensors"), strict=False)
    missing = [n for n in missing if not any(x in n for x in ("pooler", "num_batches_tracked", "position_ids"))]
    unexpected = [n for n in unexpected if "position_ids" not in n]
    assert not missing and not unexpected, f"{directory}: missing {missing}, unexpected {unexpected}"


def compare(what, ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} and {tuple(theirs.shape)}"
    worst = (ours - theirs).abs().max().item()
    print(f"{what}: {len(ours)} vectors of {ours.shape[-1]}, largest difference {worst:.1e}, allowed {tolerance:.0e}")
    return worst <= tolerance
