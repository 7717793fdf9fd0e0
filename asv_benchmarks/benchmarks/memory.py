"""Peak memory of a process that makes one large call: what grows with the square of a batch would show."""

import numba
import numpy as np

import rvtrain as rt

from .common import Benchmark, all_threads


class Peak(Benchmark):
    """A process with its inputs, its compiled code and one call. Scores of 16,384 pairs would take 1 GiB."""

    def prepare(self):
        small = np.ones((2, 64, 128), np.float32)
        self.infonce(*small)
        self.mine(small[0])
        rt.release_workspaces()
        numba.set_num_threads(all_threads())
        self.anchors, self.positives = self.rng().standard_normal((2, 16_384, 128), "float32")
        self.candidates = np.tile(self.anchors, (12, 1))

    def infonce(self, anchors, positives):
        rt.InfoNCELoss().compute_with_gradients(anchors, positives, wrt=("anchors", "positives"))

    def mine(self, anchors):
        rt.HardNegativeMiner.hardest().mine(anchors, anchors, 10)

    def peakmem_infonce(self):
        self.infonce(self.anchors, self.positives)

    peakmem_infonce.pretty_name = "InfoNCE of 16,384 × 128 and both gradients"

    def peakmem_mining(self):
        rt.HardNegativeMiner.hardest().mine(self.anchors[:256], self.candidates, 10)

    peakmem_mining.pretty_name = "hardest of 196,608 × 128 for 256 anchors"

    def peakmem_training(self):
        model = rt.TwoTower(rt.LinearAdapter(128), rt.LinearAdapter(128))
        rt.Trainer(model, epochs=1, batch_size=2048, progress=False).fit(self.anchors, self.positives)

    peakmem_training.pretty_name = "an epoch of 16,384 pairs in batches of 2048"
