"""States of binary dumps that are damaged or forged are refused, or are states."""

import random

import numpy as np
import pytest

import fastxent as fx
import mutants
from fastxent.state import packed
from fastxent.state.evaluation import EvalState
from tests.state.test_damage import at_most, forged

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
    rng = random.Random(4)
    made = read = refused = 0
    for _ in range(MUTANTS):
        text = rng.random() < 0.3
        changed = header if not text else mutants.changed(header, rng)
        try:
            data = forged(changed, arrays if text else mutants.changed_arrays(arrays, rng))
        except (LookupError, TypeError):
            continue
        made += 1
        with at_most(50e6):
            try:
                state = EvalState.from_bytes(data)
            except fx.StateError as error:
                refused += "\n" not in str(error) and len(str(error)) < 300
                continue
            result = state.merge(EvalState.empty(state.config)).result()
            assert fx.EvalResult.from_json(result.to_json()) == result
        read += 1
    assert refused > MUTANTS / 2
    assert refused + read == made


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
