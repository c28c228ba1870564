"""PyTorch, with PEFT's LoRA and transformers' models."""

import safetensors.torch
import torch
import transformers
from peers.serve import THREADS, directory, ids, serve

torch.set_num_threads(THREADS)


def lora():
    import peft

    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_pretrained(directory(), dtype=torch.float32)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)
    batch = torch.tensor(ids())

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def mlp():
    data = safetensors.torch.load_file(directory() / "mlp.safetensors")
    params = [data[name].clone().requires_grad_(True) for name in ("w1", "b1", "w2", "b2")]
    x, classes = data["x"], data["one_hot"].argmax(1)
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        w1, b1, w2, b2 = params
        inner = torch.nn.functional.gelu(torch.nn.functional.linear(x, w1, b1))
        loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(inner, w2, b2), classes)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def clip():
    model = transformers.CLIPModel.from_pretrained(directory(), dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    pixels = safetensors.torch.load_file(directory() / "pixels.safetensors")["pixels"].permute(0, 3, 1, 2).contiguous()
    batch = torch.tensor(ids())

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=batch, pixel_values=pixels, return_loss=True).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def minilm():
    model = transformers.AutoModel.from_pretrained(directory(), dtype=torch.float32).eval()
    batch = torch.tensor(ids())

    def step():
        with torch.inference_mode():
            return model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state.mean(1).abs().mean().item()

    return step


serve({"lora": lora, "mlp": mlp, "clip": clip, "minilm": minilm})
