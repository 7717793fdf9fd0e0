"""Processes that start fast: forks of one that has imported numba, because that takes longer than most tests."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Reads a request in each line, runs its code in a forked child as `python -c` would, and prints the exit code.
SERVER = """
import json, os, signal, sys, traceback, types
sys.modules["scipy"] = None  # numba would load its BLAS
import numba, numpy as np
import numba.np.ufunc.parallel
from numba.core import caching, event
numba.njit(lambda x: x[0] + 1)(np.zeros(1))  # the first compilation fills numba's tables
for line in sys.stdin:
    code, arguments, environment, folder, files, seconds = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(seconds)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, file in enumerate(files, 1):
                os.dup2(os.open(file, os.O_WRONLY), number)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
            sys.argv = ["-c", *arguments]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), main.__dict__)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run(code, *arguments, env, cwd=".", timeout=120, often=False):
    """What `python -c` does with the code: a CompletedProcess with text.

    The process has imported numba, but nothing of this package. It is a fresh process if there is no fork, or if the
    environment has other settings of numba, Python or the loader than this process, unless these are needed `often`.
    """
    loaded = ("PYTHONHASHSEED", "LD_LIBRARY_PATH", "LD_PRELOAD")
    settings = {k: v for k, v in env.items() if k.startswith("NUMBA_") or k in loaded}
    usual = all(os.environ.get(k) == v for k, v in settings.items())
    if not hasattr(os, "fork") or not (usual or often):
        call = [sys.executable, "-c", code, *arguments]
        return subprocess.run(call, capture_output=True, text=True, timeout=timeout, check=False, env=env, cwd=cwd)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        for file in files:
            file.touch()
        server = _server(tuple(sorted(settings.items())))
        request = [code, arguments, dict(env), os.path.abspath(cwd), [str(file) for file in files], timeout]
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(code, status, *(file.read_text() for file in files))


@functools.cache
def _server(settings):
    plain = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")} | dict(settings)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([sys.executable, "-c", SERVER], text=True, env=plain, **pipes)
    atexit.register(server.communicate)
    return server
