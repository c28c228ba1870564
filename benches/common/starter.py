"""Starts one command at a time and says what it cost. Run as a small process of its own.

A child's peak memory counts from its parent's, and a large parent starts children slowly: so whoever writes
graphs and tables does not start what is measured. One request and one answer a line, as JSON.
"""

import json
import os
import sys
import time


def measure(request):
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    os.chdir(request["cwd"])
    begin = time.perf_counter()
    pid = os.posix_spawn(request["argv"][0], request["argv"], request["env"], file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - begin
    return {
        "code": os.waitstatus_to_exitcode(status),
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_kib": used.ru_maxrss,
    }


for line in sys.stdin:
    try:
        answer = measure(json.loads(line))
    except OSError as error:
        answer = {"failed": str(error)}
    print(json.dumps(answer), flush=True)
