"""A binary dump that is evaluated by several tests."""

import numpy as np
import pyarrow as pa
from scipy import special

N = 1500
RNG = np.random.default_rng(3)
ODDS = (RNG.normal(size=N) * 1.5 - 1).astype(np.float32)
PROBS = special.expit(ODDS)
TARGET = (RNG.random(N) < PROBS).astype(np.int8)
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 2.25], N)
KIND = np.array(["ads", "mail", "web"])[RNG.integers(0, 3, N)]
USER = RNG.integers(0, 60, N)


def table(**columns):
    given = {"logits": ODDS, "target": TARGET, "w": WEIGHT, "kind": KIND, "user": USER} | columns
    return pa.table({name: column for name, column in given.items() if column is not None})
