"""Quantized forms of SmolLM2 asked in mlx-lm and in llama.cpp: the same answers, the most likely token each time, as effai gives.

    greedy.py mlx|llama.cpp MODEL LOSSES     a model's directory, and what `perplexity` with `ask` wrote of it
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer


def mlx(directory, tokenizer):
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(directory)

    def text(ids, count):
        made, cache, given = [], make_prompt_cache(model), ids
        while len(made) < count:
            token = int(mx.argmax(model(mx.array([given]), cache=cache)[0, -1]))
            if token == tokenizer.eos_token_id:
                break
            made.append(token)
            given = [token]
        return tokenizer.decode(made, skip_special_tokens=True)

    return text


def llama_cpp(directory, _):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(directory / "model.gguf")
    # Its threads spin while they wait for each other: one loses nothing to them.
    params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 512, 1, False, 1
    server = xllamacpp.Server(params)

    def text(ids, count):
        asked = {"prompt": ids, "temperature": 0, "n_predict": count, "cache_prompt": False}
        return server.handle_completions(asked)["choices"][0]["text"]

    return text


def main():
    reader, directory, losses = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text_of = {"mlx": mlx, "llama.cpp": llama_cpp}[reader](directory, tokenizer)
    answers = json.loads(losses.read_text())["answers"]
    assert answers
    for answer in answers:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": answer["prompt"]}], add_generation_prompt=True)
        ids = list(ids["input_ids"] if hasattr(ids, "keys") else ids)
        own = tokenizer(answer["answer"], add_special_tokens=False)["input_ids"]
        text = text_of(ids, len(own))
        assert text == answer["answer"], f"{answer['prompt']}: {answer['answer']!r}, and {text!r} in {reader}"
        print(f"{directory.name} in {reader}: {len(own)} tokens the same: {text[:50]!r}")


main()
