"""Batches of few classes that are summed while they are scored give the state of the same rows one by one."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.kernels.fold import BELOW, COPY, PRODUCT, RECIPROCAL, Plan, Summand, Terms
from fastxent.kernels.grouped import ExactSums, Words
from fastxent.scoring import class_sums
from fastxent.scoring.rows import USED
from fastxent.state.evaluation import EvalState

SPECIAL = [0.0, -0.0, 1e4, -1e4, 3e38, -3e38, 1e-45, 17.0, -40.0, 88.0, 0.5, -np.inf]
BROKEN = [np.nan, np.inf]


@st.composite
def dumps(draw):
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    n = draw(st.sampled_from([1, 2, 15, 16, 17, 511, 512, 513, 1100]))
    c = draw(st.sampled_from([2, 3, 4, 5, 10, 17, 48]))
    x = rng.normal(0, draw(st.sampled_from([0.0, 1.0, 4.0, 60.0])), (n, c))
    kind = draw(st.sampled_from(["plain", "special", "broken", "ties", "probabilities"]))
    if kind in ("special", "broken"):
        some = rng.random((n, c)) < draw(st.sampled_from([0.02, 0.3, 1.0]))
        x = np.where(some, rng.choice(SPECIAL + (BROKEN if kind == "broken" else []), (n, c)), x)
    elif kind == "ties":
        x = np.round(x)
    elif kind == "probabilities":
        x = rng.dirichlet(np.ones(c), n)
    target = rng.integers(0, draw(st.sampled_from([1, c])), n)
    wrong = rng.random(n) < draw(st.sampled_from([0.0, 0.1, 1.0]))
    target = np.where(wrong, rng.choice(draw(st.sampled_from([[-100], [-100, -1, c]])), n), target)
    with np.errstate(over="ignore"):
        return {"logits": x.astype(draw(st.sampled_from([np.float32, np.float64, np.float16]))), "target": target}


def both(columns, **options):
    """(state of rows one by one, state of what is summed where it can be, batches that were summed)."""
    batches = []
    with pytest.MonkeyPatch.context() as patch:
        add = EvalState._add_sums
        patch.setattr(EvalState, "_add_sums", lambda state, rows: (batches.append(rows.n), add(state, rows)))
        summed = fx.evaluate(columns, threads=1, **options).state
        before = len(batches)
        patch.setattr(class_sums, "_UNSUMMED", options.get("metrics", ("all",)))
        rows = fx.evaluate(columns, threads=1, **options).state
        assert len(batches) == before
    return rows, summed, batches


@settings(max_examples=120)
@given(data=st.data())
def test_sums_have_the_bits_of_rows(data):
    columns = data.draw(dumps())
    c = columns["logits"].shape[1]
    options = data.draw(
        st.fixed_dictionaries(
            {"bins": st.sampled_from([1, 15, 100])},
            optional={
                "temperature": st.sampled_from([0.7, 3.0]),
                "softcap": st.just(20.0),
                "class_mask": st.just([0, *[1] * (c - 1)]),
                "where": st.sampled_from(["target == 0", "target > 1000"]),
                "metrics": st.sampled_from(
                    [("accuracy",), ("cross_entropy", "z_loss"), ("expected_calibration_error",)]
                ),
                "top_k": st.just((1, 2)),
                "ignore_index": st.just(0),
            },
        )
    )
    rows, summed, batches = both(columns, on_bad_row="skip", **options)
    assert summed.to_bytes() == rows.to_bytes()
    assert summed.result() == rows.result()
    assert sum(batches) == rows.whole.rows[0, USED]


def test_batches_and_blocks_add_up(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(3)
    x, target = rng.normal(0, 3, (30_000, 3)).astype(np.float32), rng.integers(0, 3, 30_000)
    target[::7], x[::11, 0] = -100, np.nan
    table = pa.table({"logits": list(x), "target": target})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=11_000, data_page_size=5_000)
    rows, summed, batches = both(str(tmp_path / "a.parquet"), on_bad_row="skip", where="target != 1")
    assert len(batches) == 3
    assert summed.to_bytes() == rows.to_bytes()
    more = fx.evaluate({"logits": x[9_999:], "target": target[9_999:]}, on_bad_row="skip", where="target != 1")
    some = fx.evaluate({"logits": x[:9_999], "target": target[:9_999]}, on_bad_row="skip", where="target != 1")
    assert more.state.merge(some.state).to_bytes() == rows.to_bytes()


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ([[0.5, 0.5], [0.25, 0.75]], {}),
        ([0, 1], {"label_smoothing": 0.1}),
        ([0, 1], {"class_weight": [1.0, 2.0]}),
        ([0, 1], {"weight": "w"}),
        ([0, 1], {"by": "w"}),
        ([0, 1], {"cluster": "w"}),
        ([0, 1], {"metrics": ("all", "nll_minus_entropy")}),
        ([0, 1], {"metrics": ("all", "classwise_calibration_error")}),
        ([0, 1], {"worst": 1}),
        ([0, 1], {"input": "probs"}),
    ],
)
def test_other_batches_are_scored_row_by_row(target, options):
    x = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    _, _, batches = both({"logits": x, "target": target, "w": [1, 2]}, **options)
    assert not batches


@pytest.mark.parametrize("place", [0, 511, 512, 1500])
@pytest.mark.parametrize(("value", "id", "why"), [(np.nan, 1, "nan"), (0.0, 7, "7")])
def test_the_first_bad_row_is_named(place, value, id, why):
    x, target = np.zeros((2000, 3), np.float32), np.zeros(2000, np.int64)
    x[place, 1], target[place] = value, id
    x[place + 100] = np.nan
    with pytest.raises(fx.BadRowError, match=f"row {place}\\b") as found:
        fx.evaluate({"logits": x, "target": target})
    assert why in str(found.value).lower()


@settings(max_examples=60)
@given(data=st.data())
def test_a_plan_sums_what_all_summands_sum(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 16)))
    n = data.draw(st.sampled_from([1, 9, 700]))
    a, b, rank = rng.normal(0, 1, n), rng.normal(0, 1e-9, n), rng.integers(0, 9, n)
    kinds = [Summand(COPY, a), Summand(COPY, b), Summand(PRODUCT, a, b), Summand(BELOW, rank, limit=1)]
    kinds += [Summand(BELOW, rank, limit=5), Summand(RECIPROCAL, rank)]
    summands = data.draw(st.lists(st.sampled_from(range(len(kinds))), min_size=1, max_size=8))
    places = st.sampled_from(range(len(summands)))
    pairs = data.draw(st.lists(st.tuples(places, places), max_size=6, unique=True))
    terms = Terms([kinds[k] for k in summands])
    exact = ExactSums(len(summands), pairs, groups=1)
    exact.fold(terms, np.zeros(1, np.int64), np.array([0, n]))
    plan = Plan.of(terms.table, np.array(pairs, np.int64).reshape(-1, 2))
    found = ExactSums(len(plan.table), [tuple(pair) for pair in plan.pairs.tolist()], groups=1)
    few = Terms([])
    few.table = plan.table
    some = found.fold(few, np.zeros(1, np.int64), np.array([0, n]))
    whole = ExactSums(len(summands), pairs, groups=1)
    whole.add_words(Words(*plan.sums(*some, np.bincount(rank, minlength=9))), 0)
    assert whole.totals(np.zeros(1, np.int64)) == exact.totals(np.zeros(1, np.int64))
    assert len(np.unique(plan.table, axis=0)) == len(plan.table)
    assert not plan.ranked or len(plan.own) < len(summands) + len(pairs)
