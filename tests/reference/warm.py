"""Runs scripts, each in a process that is forked from this one, which has imported what they have in common. See `warm`.

    warm.py STDOUT     reads how many words, then the words; writes the exit code of each script
"""

import os
import runpy
import sys
import traceback

import peft  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPModel, LlamaForCausalLM  # noqa: F401


def run(words, stdout):
    """The script as `python SCRIPT ARG...` has it; its exit code."""
    os.dup2(stdout, 1)
    sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main():
    stdout = int(sys.argv[1])
    # What is forked has one thread: PyTorch begins others when it first computes, which nothing does here.
    while count := sys.stdin.readline():
        words = [sys.stdin.readline().rstrip("\n") for _ in range(int(count))]
        child = os.fork()
        if child == 0:
            sys.stdin = open(os.devnull)
            status = run(words, stdout)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255, flush=True)


main()
