"""States of multilabel dumps that are damaged or forged are refused, or are states."""

import numpy as np
import pytest

import fastxent as fx
from fastxent.state import packed
from fastxent.state.evaluation import EvalState
from tests.state.test_damage import check_mutants, forged

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
    check_mutants(header, arrays, MUTANTS, texts=0.3, seed=4)


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
