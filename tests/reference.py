"""Naive float64 oracles: one short function per formula of the package, written to be believed, not to be fast."""

import numpy as np
