"""Fine-tuning held against PyTorch, PEFT and mlx-lm, on small Llamas with random weights: logits token by token, losses
record by record, the gradients of one step (over a base of 4 bits too), the weights after ten of AdamW's, and adapters that
the other tools load.

    tune.py draw DIR        makes what tune.kdl reads
    tune.py hold LOGITS     compares; LOGITS is the built example of that name
    tune.py bf16 OUT        compares what MLX trained in bf16, below OUT, with PyTorch's in bf16
"""

import json
import sys
import zipfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from logits import Logits
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
OUT, DRAWN = HERE / "out/tune", HERE / "drawn"
SHAPES = ("tied", "untied")
END = 256
TARGETS = ["q_proj", "v_proj", "down_proj"]
TEXTS = ["7 and 7 are 14!", "Not one of those that were learnt: \u00e4\u00f6\u00fc, " + "and so on " * 8]

# All in 32-bit floats on both sides, whose sums are in another order.
LOSS = 1e-5  # nats of a record's mean loss
GRADIENT = 1e-4  # of the largest entry of a tensor's gradient
STEPS = 1e-3  # of the largest change of a tensor's weights in ten steps of AdamW
# Both round to 8 bits, each where it does.
LOWER_LOSS = 0.05  # nats of a step's mean loss
LOWER_GRADIENT = 0.10  # of the largest entry of a tensor's gradient


def draw(directory):
    directory.mkdir(parents=True, exist_ok=True)
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(sorted(letters))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    assert tokenizer.token_to_id("<end>") == END
    for seed, shape in enumerate(SHAPES):
        torch.manual_seed(seed)
        config = LlamaConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=END + 1, max_position_embeddings=128, initializer_range=0.2, tie_word_embeddings=shape == "tied",
            rope_theta=500.0, bos_token_id=None, eos_token_id=END, pad_token_id=None,
        )
        made = directory / shape
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("norm.weight"):
                    weight.add_(0.2 * torch.randn_like(weight))
        model.save_pretrained(made)
        tokenizer.save(str(made / "tokenizer.json"))
        pack(made, "config.json", "model.safetensors", "tokenizer.json")
        for method in ("lora", "dora"):
            draw_peft(made, method)
            draw_mlx(made, method)
    words = [{"prompt": f"{n} and {n} are", "completion": f" {2 * n}{'!' * (n % 7)}"} for n in range(40)]
    (directory / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))


def pack(made, *names):
    with zipfile.ZipFile(made.with_suffix(".zip"), "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), (made / name).read_bytes())


def draw_peft(base, method):
    """An adapter of PEFT's, whose B is not zero."""
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "up_proj"], use_dora=method == "dora", use_rslora=method == "lora",
        init_lora_weights=False, task_type="CAUSAL_LM",
    )
    made = base.with_name(f"{base.name}-peft-{method}")
    get_peft_model(plain(base), config).save_pretrained(made)
    pack(made, "adapter_config.json", "adapter_model.safetensors")


def draw_mlx(base, method):
    """An adapter of mlx-lm's, on the last layer."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    model, _ = load_model(base)
    model.freeze()
    parameters = {"rank": 3, "scale": 1.7, "dropout": 0.0, "keys": ["self_attn.q_proj", "mlp.up_proj"]}
    linear_to_lora_layers(model, 1, parameters, use_dora=method == "dora")
    mx.random.seed(1)
    weights = {name: value + 0.3 * mx.random.normal(value.shape) for name, value in tree_flatten(model.trainable_parameters())}
    made = base.with_name(f"{base.name}-mlx-{method}")
    made.mkdir(exist_ok=True)
    mx.save_safetensors(str(made / "adapters.safetensors"), weights)
    config = {"fine_tune_type": method, "num_layers": 1, "lora_parameters": parameters}
    (made / "adapter_config.json").write_text(json.dumps(config))
    pack(made, "adapter_config.json", "adapters.safetensors")


def rows(split):
    """Token ids and how many of them are read before the completion."""
    import pyarrow.parquet as parquet

    tokenizer = Tokenizer.from_file(str(OUT / "tied/tokenizer.json"))
    found = []
    for row in parquet.read_table(OUT / f"words/data/{split}-00000-of-00001.parquet").to_pylist():
        read, said = (tokenizer.encode(row[name]).ids for name in ("prompt", "completion"))
        found.append((read + said + [END], len(read)))
    return found


def losses(logits_of, split="test"):
    """The mean loss of each completion."""
    found = []
    for ids, read in rows(split):
        logits = logits_of(ids)[read - 1 : -1]
        found.append(functional.cross_entropy(logits, torch.tensor(ids[read:])).item())
    return found


def whole_loss(model):
    """Over all tokens that count of the training split, at once."""
    parts, count = [], 0
    for ids, read in rows("train"):
        logits = model(torch.tensor([ids])).logits[0, read - 1 : -1].float()
        parts.append(functional.cross_entropy(logits, torch.tensor(ids[read:]), reduction="sum"))
        count += len(ids) - read
    return torch.stack(parts).sum() / count


def of_torch(model):
    @torch.no_grad()
    def logits(ids):
        return model(torch.tensor([ids])).logits[0]

    return logits


def plain(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def expanded(shape):
    """The base of 4 bits, its matrices expanded by MLX."""
    import mlx.core as mx

    directory = OUT / f"{shape}-q4"
    packed = mx.load(str(directory / "model.safetensors"))
    settings = json.loads((directory / "config.json").read_text())["quantization"]
    model = plain(OUT / shape)
    own, count = model.state_dict(), 0
    for name, value in packed.items():
        module = name.removesuffix(".weight")
        if f"{module}.scales" in packed and name.endswith(".weight"):
            value = mx.dequantize(
                value, packed[f"{module}.scales"], packed[f"{module}.biases"], settings["group_size"], settings["bits"]
            )
            count += 1
        if not name.endswith((".scales", ".biases")):
            own[name] = torch.tensor(value.tolist())
    # All whose inputs are a multiple of the group: not those of `down_proj`.
    assert count == 2 * 6 + (1 if shape == "tied" else 2), count
    model.load_state_dict(own)
    model.tie_weights()
    return model


def adapted(model, method, state):
    config = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS, use_dora=method == "dora")
    model = get_peft_model(model, config)
    own = dict(model.named_parameters())
    for name, value in state.items():
        with torch.no_grad():
            own[theirs(name)].copy_(value)
    trained = {theirs(name) for name in state}
    assert trained == {name for name, weight in own.items() if weight.requires_grad}, "the same weights are trained"
    return model


def theirs(name):
    name = name.replace("lora_A", "lora_A.default").replace("lora_B", "lora_B.default")
    return "base_model.model." + name.replace("lora_magnitude_vector", "lora_magnitude_vector.default.weight")


def state(target, out=OUT):
    arrays = load_file(out / target / "state.safetensors")
    return {name.removeprefix("param."): value for name, value in arrays.items() if name.startswith("param.")}


def close(what, pairs, tolerance):
    """Each (ours, theirs), off by at most so much of the largest of theirs."""
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    print(f"{what}: {len(pairs)} tensors, {worst:.1e} off of the largest entry")
    assert worst < tolerance, what
    return worst


def close_losses(what, target, found):
    own = json.loads((OUT / target / "losses.json").read_text())["losses"]
    assert len(own) == len(found), what
    worst = max(abs(a - b) for (a, _), b in zip(own, found))
    print(f"{what}: {len(own)} records, the worst mean loss {worst:.1e} nats off")
    assert worst < LOSS, what


def gradients(shape, method):
    if method == "full":
        before, after, model = load_file(OUT / shape / "model.safetensors"), state(f"{shape}-full-sgd-1"), plain(OUT / shape)
        name_of = str
        assert before.keys() == after.keys(), "all weights are trained"
    else:
        # At the first step B is zero and A has no gradient: the second is looked at.
        before, after = state(f"{shape}-{method}-sgd-1"), state(f"{shape}-{method}-sgd-2")
        model = expanded(shape) if method == "qlora" else plain(OUT / shape)
        model, name_of = adapted(model, method, before), theirs
    whole_loss(model).backward()
    grads = {name: weight.grad for name, weight in model.named_parameters()}
    pairs = [(before[name] - after[name], grads[name_of(name)]) for name in after]
    close(f"{shape}, {method}: gradients of a step", pairs, GRADIENT)


def adamw(trained, rate, loss):
    """Ten steps; the loss before each."""
    # Decay is of matrices only.
    groups = [[w for w in trained if w.dim() > 1], [w for w in trained if w.dim() == 1]]
    groups = [{"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.01, 0.0))]
    adam, found = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8), []
    for _ in range(10):
        adam.zero_grad()
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()
        found.append(value.item())
    return found


def ten_steps(shape, method):
    if method == "full":
        before, model, name_of, rate = load_file(OUT / shape / "model.safetensors"), plain(OUT / shape), str, 1e-3
    else:
        before = state(f"{shape}-{method}-begin")
        model, name_of, rate = adapted(plain(OUT / shape), method, before), theirs, 1e-2
    adamw([weight for weight in model.parameters() if weight.requires_grad], rate, lambda: whole_loss(model))
    after, weights = state(f"{shape}-{method}-adamw"), dict(model.named_parameters())
    pairs = [(after[name] - before[name], weights[name_of(name)].detach() - before[name]) for name in after]
    close(f"{shape}, {method}: ten steps of AdamW", pairs, STEPS)


def in_bf16(shape, method, out):
    """A model in bf16 of weights in 32 bits: those that are trained are rounded where they multiply, their gradients are not."""
    made, model, name_of = out / "bf16", plain(OUT / shape), theirs
    steps = json.loads((made / f"{shape}-{method}-adamw/progress.json").read_text())["steps"]
    if method == "full":
        begun = before = load_file(OUT / shape / "model.safetensors")
        after, rate, name_of = state(f"{shape}-full-sgd-1", made), 1e-3, str
    else:
        begun, rate = state(f"{shape}-{method}-begin"), 1e-2
        before, after = (state(f"{shape}-{method}-sgd-{n}", made) for n in (1, 2))
        model = adapted(model, method, begun)

    def trained(weights, precision):
        own = {name_of(name): value.clone().requires_grad_() for name, value in weights.items()}

        def rounded(ids):
            weights = {name: w if "magnitude" in name else w.to(precision) for name, w in own.items()}
            return torch.func.functional_call(model.to(precision), weights, (ids,))

        return own, lambda: whole_loss(rounded)

    def gradients(precision):
        own, loss = trained(before, precision)
        loss().backward()
        return [own[name_of(name)].grad for name in after]

    what, ours = f"{shape}, {method} in bf16", [before[name] - after[name] for name in after]
    exact, lower = gradients(torch.float32), gradients(torch.bfloat16)
    close(f"{what}: gradients of a step", list(zip(ours, lower)), LOWER_GRADIENT)
    own = close(f"{what}: from PyTorch's in f32", list(zip(ours, exact)), LOWER_GRADIENT)
    other = close(f"{what}: PyTorch's from its own in f32", list(zip(lower, exact)), LOWER_GRADIENT)
    assert own < 3 * other, "no coarser than PyTorch's"
    own, loss = trained(begun, torch.bfloat16)
    found = adamw(list(own.values()), rate, loss)
    worst = max(abs(a[1] - b) for a, b in zip(steps, found, strict=True))
    plainly = json.loads((OUT / f"{shape}-{method}-adamw/progress.json").read_text())["steps"]
    apart = max(abs(a[1] - b[1]) for a, b in zip(steps, plainly, strict=True))
    print(f"{what}: ten losses from {found[0]:.3f} to {found[-1]:.3f}, the worst {worst:.1e} nats off; {apart:.1e} from f32's")
    assert worst < LOWER_LOSS and apart > 1e-4, what


def of_mlx(directory, adapter=None):
    import mlx.core as mx
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    model, _ = load_model(directory)
    if adapter:
        model = load_adapters(model, str(adapter))
    model.eval()
    return lambda ids: torch.tensor(model(mx.array([ids]))[0].tolist())


def hold(logits):
    for shape in SHAPES:
        close_losses(f"{shape}: losses", f"{shape}-losses", losses(of_torch(plain(OUT / shape))))
        logits.close(f"{shape}: logits", of_torch(plain(OUT / shape)), TEXTS, OUT / shape)
        logits.close(f"{shape}, 4 bits: logits", of_torch(expanded(shape)), TEXTS, OUT / f"{shape}-q4")
        gradients(shape, "qlora")
        base = losses(of_torch(plain(OUT / shape)))
        for method in ("lora", "dora", "full"):
            gradients(shape, method)
            ten_steps(shape, method)
            directory = OUT / f"{shape}-{method}"
            if method == "full":
                found, mlx = losses(of_torch(plain(directory))), losses(of_mlx(directory))
            else:
                model = PeftModel.from_pretrained(plain(OUT / shape), directory).eval()
                logits.close(f"{shape}, {method}: logits in PEFT", of_torch(model), TEXTS, directory, OUT / shape)
                found, mlx = losses(of_torch(model)), losses(of_mlx(OUT / shape, directory / "mlx"))
            # One that loads into nothing would agree with the base.
            assert max(abs(a - b) for a, b in zip(base, found)) > 0.1, "the training moves losses"
            close_losses(f"{shape}, {method}: losses in PyTorch", f"{shape}-{method}-losses", found)
            close_losses(f"{shape}, {method}: losses in mlx-lm", f"{shape}-{method}-losses", mlx)
        for method in ("lora", "dora"):
            drawn = DRAWN / f"{shape}-peft-{method}"
            model = PeftModel.from_pretrained(plain(OUT / shape), drawn).eval()
            made = OUT / f"{shape}-peft-{method}"
            logits.close(f"{shape}, {method} of PEFT's: logits", of_torch(model), TEXTS, made, OUT / shape)
            found = losses(of_torch(model))
            close_losses(f"{shape}, {method} of PEFT's: losses", f"{shape}-peft-{method}-losses", found)
            found = losses(of_mlx(OUT / shape, DRAWN / f"{shape}-mlx-{method}"))
            close_losses(f"{shape}, {method} of mlx-lm's: losses", f"{shape}-mlx-{method}-losses", found)
            assert max(abs(a - b) for a, b in zip(base, found)) > 0.1, "the adapter moves losses"


if __name__ == "__main__":
    if sys.argv[1] == "draw":
        draw(Path(sys.argv[2]))
    elif sys.argv[1] == "bf16":
        for of in SHAPES:
            for way in ("lora", "dora", "full"):
                in_bf16(of, way, Path(sys.argv[2]))
    else:
        hold(Logits(sys.argv[2]))
