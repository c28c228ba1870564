"""llama.cpp by llama-cpp-python, on the same GGUF file."""

from llama_cpp import Llama
from peers.serve import THREADS, directory, ids, serve


def chat():
    model = Llama(str(directory() / "model.gguf"), n_ctx=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)
    prompt = ids()[0]

    def step():
        model.reset()
        made = 0
        for _ in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            made += 1
            if made == 64:
                break
        return made

    return step


serve({"chat": chat})
