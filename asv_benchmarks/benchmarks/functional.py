"""The functional kernels."""

import rvtrain as rt

from .common import Benchmark


class Functional(Benchmark):
    """Rows of 1,024 × 2,048, and all cosines of 1,024 rows with 1,024 others."""

    params = (["float32", "float64"], [1, "all"])
    param_names = ("dtype", "threads")

    def prepare(self, dtype, threads):
        self.x = self.normal(1024, 2048, dtype=dtype)
        self.a, self.b = self.normal(2, 1024, 128, dtype=dtype)

    def time_logsumexp(self, *parameters):
        rt.logsumexp(self.x)

    time_logsumexp.pretty_name = "logsumexp"

    def time_cosine_similarity(self, *parameters):
        rt.cosine_similarity(self.a, self.b)

    time_cosine_similarity.pretty_name = "cosine_similarity"
