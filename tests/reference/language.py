"""Language models held against `transformers` and PEFT: tokens, logits, losses record by record, a LoRA adapter put on, and
what is generated without chance.

    language.py LOGITS DATA MODEL LOSSES [ADAPTER ADAPTER_LOSSES]

LOGITS is the built example of that name. The directories and files are effai's; the model is read by `transformers` from the
GGUF file or the safetensors in there.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import torch
from logits import Logits
from torch_models import smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-4  # nats of a record's mean loss, in 32-bit floats on both sides


def model_of(directory):
    extra = {"gguf_file": "model.gguf"} if (directory / "model.gguf").exists() else {}
    model = smollm2(directory) if extra else AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    # Its own reading of the GGUF file's tokenizer, which is without the template.
    tokenizer = AutoTokenizer.from_pretrained(directory, **extra)
    tokenizer.chat_template = json.loads((directory / "tokenizer_config.json").read_text())["chat_template"]
    return model.eval(), tokenizer


def losses(model, tokenizer, rows):
    """The mean loss of each completion's tokens, and how many those are."""
    found = []
    for row in rows:
        messages = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        read = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert whole.startswith(read)
        read = tokenizer(read, add_special_tokens=False)["input_ids"]
        said = tokenizer(whole[len(tokenizer.decode(read)):], add_special_tokens=False)["input_ids"]
        ids = torch.tensor([read + said])
        with torch.no_grad():
            logits = model(ids).logits[0, len(read) - 1 : -1]
        found.append((torch.nn.functional.cross_entropy(logits, ids[0, len(read):]).item(), len(said)))
    return found


def compare(what, ours, theirs):
    assert len(ours) == len(theirs), (what, len(ours), len(theirs))
    worst = 0.0
    for n, ((a, tokens), (b, count)) in enumerate(zip(ours, theirs)):
        assert tokens == count, f"{what}, record {n}: {tokens} tokens count, and {count} in transformers"
        worst = max(worst, abs(a - b))
    assert worst < TOLERANCE, f"{what}: a record's loss is {worst} off"
    print(f"{what}: {len(ours)} records, the worst mean loss {worst:.1e} nats off")


def main():
    logits = Logits(sys.argv[1])
    data, directory, own = (Path(p) for p in sys.argv[2:5])
    rows = parquet.read_table(data / "data/test-00000-of-00001.parquet").to_pylist()
    model, tokenizer = model_of(directory)
    own = json.loads(own.read_text())
    rows = rows[: len(own["losses"])]
    assert len(rows) == 8, f"{len(rows)} records"
    compare("base", own["losses"], losses(model, tokenizer, rows))
    texts = [f"{row['prompt']} {row['completion']}" for row in rows[:4]]

    def ids_of(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def of(model):
        @torch.no_grad()
        def given(ids):
            return model(torch.tensor([ids])).logits[0]

        return given

    logits.close("base: logits", of(model), texts, directory, ids_of=ids_of)
    for answer in own["answers"]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": answer["prompt"]}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**prompt, max_new_tokens=24, do_sample=False, temperature=None, top_p=None, top_k=None)
        text = tokenizer.decode(made[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True)
        assert text == answer["answer"], f"{answer['prompt']}: {answer['answer']!r}, and {text!r} in transformers"
        print(f"generated: {text[:60]!r}")
    if len(sys.argv) > 5:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(model, sys.argv[5]).eval()
        compare("adapter", json.loads(Path(sys.argv[6]).read_text())["losses"], losses(adapted, tokenizer, rows))
        logits.close("adapter: logits", of(adapted), texts, sys.argv[5], directory, ids_of=ids_of)


main()
