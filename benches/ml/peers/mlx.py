"""MLX's CPU build, with mlx-lm's LoRA: for Linux, with OpenBLAS in the place of the BLAS it brings."""

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


serve({"lora": language, "qlora": lambda: language(bits=4), "mlp": mlp})
