"""Quantized forms of SmolLM2 asked in mlx-lm and in llama.cpp: the same answers, the most likely token each time, as effai gives.

    greedy.py DIR READER:FORM...     DIR/smollm2-FORM in `mlx` or `llama.cpp`, beside what `perplexity` with `ask` wrote of it

llama.cpp rounds what matrices read, which decides between two tokens that are all but equally likely: such draws are told, and the
answer goes on with effai's.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

DRAW = {"mlx": 0.01, "llama.cpp": 0.15}  # nats between the most likely token and effai's
DRAWS = 2  # of all the answers' tokens at most


def mlx(directory):
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(directory)

    def behind(ids, own):
        """Of each token of the answer, by how many nats another one is likelier."""
        logits = model(mx.array([ids + own[:-1]]), cache=make_prompt_cache(model))[0, -len(own) :]
        return [float(row.max() - row[token]) for row, token in zip(logits, own)]

    return behind


def llama_cpp(directory):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(directory / "model.gguf")
    # Its threads spin while they wait for each other: one loses nothing to them.
    params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 512, 1, False, 1
    server = xllamacpp.Server(params)

    def behind(ids, own):
        found = []
        for at, token in enumerate(own):
            asked = {"prompt": ids + own[:at], "temperature": 0, "n_predict": 1, "cache_prompt": True, "logprobs": 3}
            top = server.handle_completions(asked)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            likely = {one["id"]: one["logprob"] for one in top}
            found.append(top[0]["logprob"] - likely.get(token, -float("inf")))
        return found

    return behind


def hold(reader, directory, losses):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    behind, draw = {"mlx": mlx, "llama.cpp": llama_cpp}[reader](directory), DRAW[reader]
    answers = json.loads(losses.read_text())["answers"]
    tokens = draws = 0
    for answer in answers:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": answer["prompt"]}], add_generation_prompt=True)
        ids = list(ids["input_ids"] if hasattr(ids, "keys") else ids)
        own = tokenizer(answer["answer"], add_special_tokens=False)["input_ids"]
        apart = behind(ids, own)
        for at, nats in enumerate(apart):
            before = tokenizer.decode(own[:at])
            assert nats <= draw, f"{answer['prompt']}: after {before!r} {reader} does not say {tokenizer.decode(own[at])!r}, by {nats:.2f} nats"
        tokens, draws = tokens + len(own), draws + sum(nats > 0 for nats in apart)
    assert tokens > 20 and draws <= DRAWS, f"{tokens} tokens, {draws} of them draws"
    print(f"{directory.name} in {reader}: {tokens} tokens of {len(answers)} answers the same, {draws} of them by a draw")


for given in sys.argv[2:]:
    reader, form = given.split(":")
    own = Path(sys.argv[1])
    hold(reader, own / f"smollm2-{form}", own / f"smollm2-{form}-answers/losses.json")
