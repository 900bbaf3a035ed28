"""States of multilabel dumps that are damaged or forged are refused, or are states."""

import random

import numpy as np
import pytest

import fastxent as fx
import mutants
from fastxent.state import packed
from fastxent.state.evaluation import EvalState
from tests.state.test_damage import at_most, forged

MUTANTS = 120
N, C = 60, 3


def multilabel_state(**options):
    rng = np.random.default_rng(2)
    target = rng.choice([0.0, 1.0, 0.5, np.nan], (N, C), p=[0.4, 0.4, 0.1, 0.1])
    columns = {
        "logits": rng.normal(size=(N, C)), "target": target, "kind": rng.choice(["a", "b"], N), "w": rng.random(N)
    }  # fmt: skip
    config = fx.EvalConfig(n_classes=C, task="multilabel", by=("kind",), **options)
    return EvalState.empty(config).update(columns)


@pytest.mark.parametrize("options", [{}, {"weight": "w", "cluster": "kind"}], ids=["plain", "weighted"])
def test_mutants_are_refused_or_are_states(options):
    header, arrays = packed.unpack(multilabel_state(**options).to_bytes())
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
        ("classes|counts", lambda array: array + np.array([[0], [0], [99]])),
        ("classes|counts", lambda array: array + np.array([[0], [99], [0]])),
        ("classes|binned", lambda array: array + 99),
        ("labels by kind|binned", lambda array: array[:-1]),
        ("labels by kind|limbs", lambda array: array[:-1]),
        ("scores by kind|counted/cells", lambda array: array + 1),
    ],
)
def test_labels_that_contradict_each_other(name, change):
    header, arrays = packed.unpack(multilabel_state().to_bytes())
    with pytest.raises(fx.StateError, match="damaged saved state"):
        EvalState.from_bytes(forged(header, {**arrays, name: change(arrays[name])}))
