"""Rows that are counted many at once are in the cells that they are in when counted one batch after another."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.kernels import cells
from fastxent.kernels.cells import TOP
from fastxent.kernels.near import mark_prefixes, tally_near
from fastxent.kernels.ranks import list_ranked
from fastxent.state import cells as cells_module, counted as module
from fastxent.state.cells import LONGEST, WIDTH, Cells, keys_of
from fastxent.state.counted import Counted

SPECIAL = [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-40, 3.4e38, -3.4e38, 1e4, -1e4, 1.0, 0.5]


@pytest.fixture(scope="module")
def small():
    """Buffers that a few rows fill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WAITING", 64)
        patch.setattr(module, "_FEW", 5)
        patch.setattr(cells_module, "_ASIDE", 300)
        yield


def listed(counted):
    counted.cells.settle()
    used = counted.used()
    return [counted.cells.lengths.tolist(), used.keys.tolist(), counted.rows_at(used.places).tolist()]


def one_by_one(scores, positive, limit):
    """Counted by the table of slots alone: it has the pages of two owners."""
    counted = Counted(limit)
    counted.cells.resize(2)
    counted.add(keys_of(scores.astype(np.float64)), np.zeros(len(scores), np.int64), positive)
    lengths, *rest = listed(counted)
    return [lengths[:1], *rest]


@st.composite
def dumps(draw, dtype):
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    n = draw(st.integers(1, 400))
    kinds = [
        rng.normal(0, 3, n),
        rng.random(n),
        0.5 + rng.random(n) * 1e-3,
        rng.integers(0, 1 << 63, n, np.uint64).view(np.float64),
        np.round(rng.random(n), 1),
        rng.choice(SPECIAL, n),
        rng.random(n) * 1e-39,
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        mixed = np.choose(rng.integers(0, draw(st.integers(1, len(kinds))), n), kinds).astype(dtype)
    return np.nan_to_num(mixed, nan=0.25, posinf=np.inf, neginf=-np.inf), rng.integers(0, 2, n).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=40)
@given(data=st.data())
def test_many_at_once_are_counted_as_one_by_one(small, dtype, data):
    scores, positive = data.draw(dumps(dtype))
    limit = data.draw(st.sampled_from([20, 40, 128, 1 << 10]))
    counted = Counted(limit)
    counted.cells.resize(1)
    for some in np.array_split(np.arange(len(scores)), data.draw(st.integers(1, 4))):
        counted.hold(scores[some], positive[some])
    assert listed(counted) == one_by_one(scores, positive, limit)


@pytest.mark.parametrize("near", [1 << 6, 1 << 8])
def test_exponents_without_room_are_counted_too(small, monkeypatch, near):
    monkeypatch.setattr(cells_module, "_MOST_NEAR", near)
    rng = np.random.default_rng(5)
    scores, positive = rng.normal(0, 3, 3000).astype(np.float32), rng.integers(0, 2, 3000).astype(np.uint8)
    counted = Counted(300)
    counted.cells.resize(1)
    counted.hold(scores, positive)
    assert listed(counted) == one_by_one(scores, positive, 300)
    assert (counted.cells._starts == cells_module.NO_ROOM).any()


@pytest.mark.parametrize("waits", [(True, True), (True, False), (False, True)])
def test_states_that_wait_merge(small, waits):
    rng = np.random.default_rng(6)
    scores, positive = rng.normal(0, 3, 800).astype(np.float32), rng.integers(0, 2, 800).astype(np.uint8)
    halves = []
    for half, waiting in zip((slice(0, 500), slice(500, 800)), waits, strict=True):
        counted = Counted(60)
        counted.cells.resize(1)
        counted.hold(scores[half], positive[half])
        if not waiting:
            counted.count()
        halves.append(counted)
    halves[0].absorb(halves[1], np.zeros(1, np.int64))
    assert listed(halves[0]) == one_by_one(scores, positive, 60)


def counted_in_parts(scores, positive, limit, parts):
    """One state of each part, merged."""
    states = []
    for some in np.array_split(np.arange(len(scores)), parts):
        counted = Counted(limit)
        counted.cells.resize(1)
        for few in np.array_split(some, 3):
            counted.hold(scores[few], positive[few])
        states.append(counted)
    for other in states[1:]:
        states[0].absorb(other, np.zeros(1, np.int64))
    return states[0]


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("kind", ["even", "one", "steps"])
def test_cells_of_more_rows_than_a_byte_counts(small, parts, kind):
    rng = np.random.default_rng(9)
    scores = {
        "even": rng.normal(0, 3, 200_000),
        "one": np.where(rng.random(200_000) < 0.5, 0.25, rng.random(200_000)),
        "steps": np.sort(rng.normal(0, 3, 200_000)),
    }[kind].astype(np.float32)
    positive = rng.integers(0, 2, len(scores)).astype(np.uint8)
    counted = counted_in_parts(scores, positive, 60, parts)
    lengths, keys, rows = listed(counted)
    keys_now = keys_of(scores.astype(np.float64)) >> np.uint64(LONGEST - lengths[0])
    names, index = np.unique(keys_now, return_inverse=True)
    assert keys == (names << np.uint64(LONGEST - lengths[0])).tolist()
    expected = np.stack([np.bincount(index[positive == side], minlength=len(names)) for side in (0, 1)], axis=1)
    assert rows == expected.tolist()
    assert np.array(rows).max() > 512
    assert counted.cells.has_near
    found = counted.listed()
    assert found[0].tolist() == keys
    assert np.stack(found[1:], axis=1).tolist() == rows
    assert listed(counted) == one_by_one(scores, positive, 60)


def test_rows_of_other_types_are_counted_together(small):
    rng = np.random.default_rng(7)
    scores, positive = rng.normal(0, 3, 300), rng.integers(0, 2, 300).astype(np.uint8)
    counted = Counted(1 << 9)
    counted.cells.resize(1)
    counted.hold(scores[:200], positive[:200])
    counted.hold(scores[200:].astype(np.float32), positive[200:])
    both = np.concatenate([scores[:200], scores[200:].astype(np.float32)])
    assert listed(counted) == one_by_one(both, positive, 1 << 9)


@settings(max_examples=40)
@given(data=st.data())
def test_the_length_that_fits_is_found_at_once(data):
    scores, _ = data.draw(dumps(np.float32))
    limit = data.draw(st.integers(1, 60))
    cells = Cells(limit, lambda moves: None)
    cells.resize(1)
    cells.fit(scores)
    keys = [int(key) for key in keys_of(scores.astype(np.float64))]
    fitting = [n for n in range(1, LONGEST + 1) if len({key >> (WIDTH - n) for key in keys}) <= limit]
    longest = max(fitting, default=0)
    near = TOP <= longest < TOP + 18
    assert cells.lengths.tolist() == [longest if near else LONGEST]


def test_warming_up_compiles_what_many_scores_need():
    module.warm_up("float32")
    for kernel in (cells.near_cells, cells.move_counts, cells.add_pages, list_ranked, mark_prefixes, tally_near):
        assert kernel.signatures


def test_a_state_that_is_settled_between_batches_has_the_same_bits(small):
    rng = np.random.default_rng(8)
    config = fx.EvalConfig(n_classes=2, task="binary", input="probs", logits="p", target="y")
    states = fx.EvalState.empty(config), fx.EvalState.empty(config)
    for _ in range(3):
        columns = {"p": rng.random(90).astype(np.float32), "y": rng.integers(0, 2, 90)}
        for settled, state in enumerate(states):
            state.update(columns)
            if settled:
                state.settle()
    assert states[0] == states[1]
    assert states[1].total == 270
