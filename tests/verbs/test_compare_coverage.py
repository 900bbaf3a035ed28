"""Intervals of differences cover the truth as often as they say, for independent rows and for clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastxent as fx

RUNS, ROWS, CLUSTERS, TRUTH = 1000, 120, 30, 0.05


def dump(nll):
    """Rows of two classes whose target, class 0, costs ``nll``."""
    return {"logits": np.stack([np.zeros(len(nll)), np.log(np.expm1(nll))], axis=1), "target": np.zeros(len(nll), int)}


def simulated(by_cluster):
    """The slices of `RUNS` simulations, one per slice; the expected difference of each is `TRUTH`."""
    rng = np.random.default_rng(4)
    n = RUNS * ROWS
    run, cluster = np.arange(n) // ROWS, np.arange(n) // (ROWS // CLUSTERS)
    easy, drift = rng.normal(size=(2, n // (ROWS // CLUSTERS)))[:, cluster] * [[0.4], [0.1 if by_cluster else 0.0]]
    a = 3 + easy + 0.3 * rng.normal(size=n)
    b = a + TRUTH + drift + 0.2 * rng.normal(size=n)
    first = {**dump(a), "run": run, "cluster": cluster}
    return fx.compare(first, dump(b), by="run", cluster="cluster" if by_cluster else None, largest=0).slices["run"]


@pytest.mark.parametrize("by_cluster", [False, True])
def test_intervals_of_differences(by_cluster):
    found = [part.metrics["cross_entropy"] for part in simulated(by_cluster).values()]
    assert len(found) == RUNS
    inside = [m.difference.ci95[0] <= TRUTH <= m.difference.ci95[1] for m in found]
    assert 0.93 <= np.mean(inside) <= 0.97
    small = np.mean([m.p_value < 0.05 for m in found])
    power = np.mean([TRUTH / m.difference.stderr for m in found])  # a difference of that size is found so often
    assert abs(small - 0.5 * math.erfc((1.96 - power) / math.sqrt(2))) < 0.05
    # paired rows are worth what the correlation says
    for m in found[:50]:
        sides = m.a.stderr**2 + m.b.stderr**2
        narrower = math.sqrt(1 - 2 * m.correlation * m.a.stderr * m.b.stderr / sides)
        assert m.unpaired_stderr == pytest.approx(math.sqrt(sides))
        assert m.difference.stderr == pytest.approx(narrower * m.unpaired_stderr, rel=1e-9)
    assert np.mean([m.difference.stderr / m.unpaired_stderr for m in found]) < 0.5
