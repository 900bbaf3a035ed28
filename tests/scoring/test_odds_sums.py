"""Batches of a binary dump that are summed while they are scored give the state of the same rows one by one."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.scoring import odds_sums
from fastxent.state import tasks
from fastxent.state.evaluation import EvalState

SPECIAL = {
    "logits": [0.0, -0.0, 1e4, -1e4, 3e38, 1e-45, -1e-40, 17.0, -40.0, 88.0, 0.5],
    "probs": [0.0, -0.0, 1.0, 1e-45, 1e-40, 1e-30, 1e-9, 1 - 2**-24, 0.5, 0.2, 1 / 15],
}


@st.composite
def dumps(draw, kind):
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    n = draw(st.sampled_from([1, 2, 15, 16, 17, 511, 512, 513, 1100]))
    score = rng.normal(0, 4, n) if kind == "logits" else rng.beta(1, draw(st.sampled_from([1, 50])), n)
    some = rng.random(n) < draw(st.sampled_from([0.0, 0.05, 1.0]))
    score = np.where(some, rng.choice(SPECIAL[kind], n), score).astype(np.float32)
    return {"s": score, "y": rng.choice(draw(st.sampled_from([[0, 1], [-1, 1], [-1, 0, 1], [0], [1]])), n)}


def both(columns, **options):
    """(state of rows one by one, state of what is summed where it can be, batches that were summed)."""
    batches = []
    with pytest.MonkeyPatch.context() as patch:
        add = EvalState._add_sums
        patch.setattr(odds_sums, "_TOGETHER", 100)
        patch.setattr(EvalState, "_add_sums", lambda state, rows: (batches.append(rows.n), add(state, rows)))
        summed = fx.evaluate(columns, logits="s", target="y", threads=1, **options).state
        before = len(batches)
        patch.setattr(odds_sums, "_UNSUMMED", ("all",))
        rows = fx.evaluate(columns, logits="s", target="y", threads=1, **options).state
        assert len(batches) == before
    return rows, summed, batches


@pytest.mark.parametrize("kind", ["logits", "probs"])
@settings(max_examples=60)
@given(data=st.data())
def test_sums_have_the_bits_of_rows(kind, data):
    columns = data.draw(dumps(kind))
    options = data.draw(
        st.fixed_dictionaries(
            {"threshold": st.sampled_from([0.0, 0.2, 0.5, 1.0]), "bins": st.sampled_from([1, 15, 100])},
            optional={
                "temperature": st.sampled_from([0.7, 3.0]) if kind == "logits" else st.just(1.0),
                "clip_eps": st.sampled_from([1e-7, 0.1]) if kind == "probs" else st.none(),
                "where": st.just("y == 1"),
            },
        )
    )
    rows, summed, _ = both(columns, input=kind, **options)
    assert summed.to_bytes() == rows.to_bytes()


def test_plain_batches_are_summed(monkeypatch):
    rng = np.random.default_rng(1)
    score = rng.random(70_000).astype(np.float32)
    columns = {"s": score, "y": (rng.random(70_000) < score).astype(np.int8)}
    rows, summed, batches = both(columns, input="probs")
    assert sum(batches) == 70_000
    assert summed.to_bytes() == rows.to_bytes()
    assert summed.result() == rows.result()
    monkeypatch.setattr(tasks, "_MANY", 1)
    assert summed.result(threads=3) == rows.result()


@pytest.mark.parametrize(
    ("score", "target", "options"),
    [
        ([0.1, np.nan], [0, 1], {"on_bad_row": "skip"}),
        ([0.1, 1.5], [0, 1], {"on_bad_row": "skip"}),
        ([0.1, 0.2], [0, -100], {}),
        ([0.1, 0.2], [0, 3], {"on_bad_row": "skip"}),
        ([0.1, 0.0], [0, 1], {}),
        ([0.1, 0.2], [0.0, 0.25], {}),
        ([0.1, 0.2], [0, 1], {"label_smoothing": 0.1}),
        ([0.1, 0.2], [0, 1], {"metrics": ("all", "nll_minus_entropy")}),
    ],
)
def test_other_batches_are_scored_row_by_row(score, target, options):
    if "metrics" not in options:
        rows, summed, batches = both({"s": np.array(score, np.float32), "y": target}, input="probs", **options)
        assert not batches
        assert summed.to_bytes() == rows.to_bytes()
        return
    result = fx.evaluate(
        {"s": np.array(score, np.float32), "y": target}, logits="s", target="y", input="probs", **options
    )
    assert np.isfinite(result.metrics["nll_minus_entropy"].stderr)


def test_a_bad_row_is_named():
    score = np.array([0.1, 0.2, -0.5], np.float32)
    with pytest.raises(fx.BadRowError, match=r"row 2.*the probability is -0\.5"):
        fx.evaluate({"s": score, "y": [0, 1, 1]}, logits="s", target="y", input="probs")
