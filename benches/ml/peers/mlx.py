"""MLX's CPU build, with mlx-lm's LoRA: for Linux, with OpenBLAS in the place of the BLAS it brings."""

import json

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from peers.serve import directory, ids, serve


def language(bits=None):
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    model, _ = load_model(directory())
    if bits:
        nn.quantize(model, group_size=64, bits=bits)
    model.freeze()
    keys = ["self_attn.q_proj", "self_attn.v_proj"]
    linear_to_lora_layers(model, len(model.layers), {"rank": 8, "scale": 2.0, "dropout": 0.0, "keys": keys})
    optimizer = optim.AdamW(learning_rate=1e-3, weight_decay=0)
    batch = mx.array(ids())

    def loss(model):
        logits = model(batch[:, :-1])
        return nn.losses.cross_entropy(logits, batch[:, 1:], reduction="mean")

    value_and_grad = nn.value_and_grad(model, loss)

    def step():
        value, grads = value_and_grad(model)
        optimizer.update(model, grads)
        mx.eval(model.parameters(), optimizer.state, value)
        return value.item()

    return step


def mlp():
    data = mx.load(str(directory() / "mlp.safetensors"))
    params = {name: data[name] for name in ("w1", "b1", "w2", "b2")}
    x, classes = data["x"], data["one_hot"].argmax(1)
    optimizer = optim.AdamW(learning_rate=1e-3, weight_decay=0)

    def loss(params):
        inner = nn.gelu(x @ params["w1"].T + params["b1"])
        return nn.losses.cross_entropy(inner @ params["w2"].T + params["b2"], classes, reduction="mean")

    def step():
        nonlocal params
        value, grads = mx.value_and_grad(loss)(params)
        params = optimizer.apply_gradients(grads, params)
        mx.eval(params, optimizer.state, value)
        return value.item()

    return step


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def __call__(self, x, mask):
        n, tokens, width = x.shape
        q, k, v = (p(x).reshape(n, tokens, self.heads, -1).swapaxes(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        mixed = mx.fast.scaled_dot_product_attention(q, k, v, scale=(width // self.heads) ** -0.5, mask=mask)
        return self.out_proj(mixed.swapaxes(1, 2).reshape(n, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def __call__(self, x):
        return self.fc2(nn.gelu_fast_approx(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.self_attn, self.mlp = Attention(width, heads), Mlp(width, inner)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def __call__(self, x, mask=None):
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Layers(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, heads, inner = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
        self.layers = [Layer(width, heads, inner) for _ in range(config["num_hidden_layers"])]


class Tower(nn.Module):
    """Either of CLIP's towers, with the hub's names."""

    def __init__(self, config):
        super().__init__()
        width, self.embeddings = config["hidden_size"], nn.Module()
        if "patch_size" in config:
            size, side = config["patch_size"], config["image_size"] // config["patch_size"]
            self.embeddings.patch_embedding = nn.Conv2d(3, width, size, size, bias=False)
            self.embeddings.class_embedding = mx.zeros(width)
            self.embeddings.position_embedding = nn.Embedding(side * side + 1, width)
            self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(width), nn.LayerNorm(width)
        else:
            self.embeddings.token_embedding = nn.Embedding(config["vocab_size"], width)
            self.embeddings.position_embedding = nn.Embedding(config["max_position_embeddings"], width)
            self.final_layer_norm = nn.LayerNorm(width)
        self.encoder = Layers(config)


class Clip(nn.Module):
    def __init__(self, config):
        super().__init__()
        text, vision, width = config["text_config"], config["vision_config"], config["projection_dim"]
        self.text_model, self.vision_model = Tower(text), Tower(vision)
        self.text_projection = nn.Linear(text["hidden_size"], width, bias=False)
        self.visual_projection = nn.Linear(vision["hidden_size"], width, bias=False)
        self.logit_scale = mx.array(0.0)

    def __call__(self, pixels, tokens):
        text, vision = self.text_model, self.vision_model
        x = vision.embeddings.patch_embedding(pixels)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        first = mx.broadcast_to(vision.embeddings.class_embedding, (x.shape[0], 1, x.shape[-1]))
        x = vision.pre_layrnorm(mx.concatenate([first, x], 1) + vision.embeddings.position_embedding.weight)
        for layer in vision.encoder.layers:
            x = layer(x)
        pictures = self.visual_projection(vision.post_layernorm(x[:, 0]))
        length = tokens.shape[1]
        x = text.embeddings.token_embedding(tokens) + text.embeddings.position_embedding.weight[:length]
        for layer in text.encoder.layers:
            x = layer(x, "causal")
        ends = tokens.argmax(1)
        sentences = self.text_projection(text.final_layer_norm(x[mx.arange(len(ends)), ends]))
        pictures, sentences = (v / mx.linalg.norm(v, axis=1, keepdims=True) for v in (pictures, sentences))
        logits = pictures @ sentences.T * mx.exp(self.logit_scale)
        of = mx.arange(len(logits))
        return (nn.losses.cross_entropy(logits, of, reduction="mean") + nn.losses.cross_entropy(logits.T, of, reduction="mean")) / 2


def clip():
    model = Clip(json.loads((directory() / "config.json").read_text()))
    weights = mx.load(str(directory() / "model.safetensors"))
    # Convolutions are [out, height, width, in] here.
    model.load_weights([(name, w.transpose(0, 2, 3, 1) if w.ndim == 4 else w) for name, w in weights.items()])
    pixels, tokens = mx.load(str(directory() / "pixels.safetensors"))["pixels"], mx.array(ids())
    optimizer = optim.AdamW(learning_rate=1e-3, weight_decay=0)
    value_and_grad = nn.value_and_grad(model, lambda model: model(pixels, tokens))

    def step():
        value, grads = value_and_grad(model)
        optimizer.update(model, grads)
        mx.eval(model.parameters(), optimizer.state, value)
        return value.item()

    return step


def affine4():
    values = mx.load(str(directory() / "square.safetensors"))["square"]

    def step():
        made = mx.quantize(values, group_size=64, bits=4)
        mx.eval(*made)
        return 0

    return step


def matvec(bits):
    data = mx.load(str(directory() / "square.safetensors"))
    codes, scales, biases = mx.quantize(data["square"], group_size=64, bits=bits)
    x = data["x"].reshape(1, -1)
    mx.eval(codes, scales, biases, x)

    def step():
        return mx.abs(mx.quantized_matmul(x, codes, scales, biases, transpose=True, group_size=64, bits=bits)).mean().item()

    return step


serve(
    {"lora": language, "qlora": lambda: language(bits=4), "mlp": mlp, "clip": clip, "affine4": affine4}
    | {f"matvec-{bits}": lambda bits=bits: matvec(bits) for bits in (4, 8)}
)
