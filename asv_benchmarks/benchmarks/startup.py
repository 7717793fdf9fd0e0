"""From ``python`` to a result: the import, the first call that compiles, and the first that finds it compiled."""

import subprocess
import sys

from .common import ONCE

FIRST_CALL = """
x = np.random.default_rng(0).normal(size=(2, 256, 64)).astype(np.float32)
rt.InfoNCELoss().compute_with_gradients(*x, wrt=('anchors', 'positives'))
"""
FIRST_SEARCH = """
x = np.random.default_rng(0).normal(size=(2, 256, 64)).astype(np.float32)
rt.top_k(*x, 10)
"""
IMPORTS = "import numpy as np, rvtrain as rt"


class Startup:
    """Each sample is a process of its own."""

    version = "1"
    timeout = 300
    number = 1
    rounds = 1
    repeat = 1 if ONCE else 7
    warmup_time = 0


class Import(Startup):
    """``import rvtrain``, which loads no numba, after the interpreter has started."""

    def timeraw_import(self):
        return "import rvtrain"

    timeraw_import.pretty_name = "import rvtrain"


class FirstCall(Startup):
    """InfoNCE with both gradients, and a search, their kernels in the cache."""

    def setup(self):
        for call in (FIRST_CALL, FIRST_SEARCH):
            subprocess.run([sys.executable, "-c", IMPORTS + call], check=True)

    def timeraw_warm(self):
        return IMPORTS + FIRST_CALL

    def timeraw_search(self):
        return IMPORTS + FIRST_SEARCH

    timeraw_warm.pretty_name = "first InfoNCE of a process, compiled before"
    timeraw_search.pretty_name = "first search of a process, compiled before"


class Cold(Startup):
    """The same on an empty cache."""

    repeat = 1 if ONCE else 2

    def timeraw_cold(self):
        prepare = "import os, tempfile\nfolder = tempfile.TemporaryDirectory()\n"
        return IMPORTS + FIRST_CALL, prepare + "os.environ['RVTRAIN_CACHE_DIR'] = folder.name"

    timeraw_cold.pretty_name = "first InfoNCE of a process, compiled by it"
