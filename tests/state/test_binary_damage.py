"""States of binary dumps that are damaged or forged are refused, or are states."""

import numpy as np
import pytest

import fastxent as fx
from fastxent.state import packed
from fastxent.state.evaluation import EvalState
from tests.state.test_damage import at_most, check_mutants, forged

MUTANTS = 120
N = 90


def binary_state(**options):
    rng = np.random.default_rng(2)
    target = np.where(np.arange(N) % 4 == 0, 0.5, rng.integers(0, 2, N))
    columns = {"logits": rng.normal(size=N), "target": target, "kind": rng.choice(["a", "b"], N), "w": rng.random(N)}
    config = fx.EvalConfig(n_classes=2, task="binary", by=("kind",), **options)
    return EvalState.empty(config).update(columns)


@pytest.mark.parametrize("options", [{}, {"weight": "w", "cluster": "kind"}], ids=["plain", "weighted"])
def test_mutants_are_refused_or_are_states(options):
    header, arrays = packed.unpack(binary_state(**options).to_bytes())
    check_mutants(header, arrays, MUTANTS, texts=0.3, seed=4)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scores|counted/lengths", lambda array: array - 61),
        ("scores|counted/lengths", lambda array: array - 30),
        ("scores|counted/cells", lambda array: array + 1),
        ("scores|counted/keys", lambda array: array[::-1].copy()),
        ("scores|counted/rows", lambda array: array * 0),
        ("scores|counted/rows", lambda array: array + 1),
        ("scores by kind|weighed/limbs", lambda array: array * 0),
        ("scores by kind|weighed/keys", lambda array: array[:-1]),
    ],
)
def test_scores_that_contradict_each_other(name, change):
    header, arrays = packed.unpack(binary_state().to_bytes())
    with pytest.raises(fx.StateError, match="damaged saved state"):
        EvalState.from_bytes(forged(header, {**arrays, name: change(arrays[name])}))


def test_numbers_of_cells_whose_sum_overflows():
    """1,024 times 2^53 is 2^63, and twice that is 0 in 64 bits."""
    slices = 2048
    columns = {"logits": np.linspace(-1, 1, slices), "target": np.arange(slices) % 2, "kind": np.arange(slices)}
    config = fx.EvalConfig(n_classes=2, task="binary", by=("kind",))
    header, arrays = packed.unpack(EvalState.empty(config).update(columns).to_bytes())
    name = "scores by kind|counted"
    changed = {f"{name}/cells": np.full(slices, 1 << 53), f"{name}/keys": np.zeros(0, np.int64)}
    with at_most(50e6), pytest.raises(fx.StateError, match="damaged saved state"):
        EvalState.from_bytes(forged(header, {**arrays, **changed}))
