"""The state is a value: rows in any order, split and merged in any way, give equal bytes and equal figures."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.errors import ColumnError, ConfigError, StateError
from fastxent.options.config import EvalConfig
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, IGNORED, USED
from fastxent.state.averages import AVERAGES
from fastxent.state.distribution import QUANTILES, Distribution
from fastxent.state.evaluation import EvalState
from fastxent.state.metrics import CALIBRATION, FROM_GRID
from fastxent.state.packed import pack, unpack
from scored_cases import CONFIGS, case, config, take

configs = pytest.mark.parametrize("name", CONFIGS)


def state_of(name: str, n: int = 300) -> EvalState:
    cfg, rows = case(name, n)
    return EvalState.empty(cfg).add(rows)


@configs
def test_round_trip(name):
    state = state_of(name)
    data = state.to_bytes()
    back = EvalState.from_bytes(data)
    assert back.to_bytes() == data
    assert back.result().to_json() == state.result().to_json()
    _, more = case(name, 50, seed=9)
    assert back.add(more).to_bytes() == state.add(more).to_bytes()  # a restored state is as good as new


@configs
def test_empty_is_the_identity(name):
    state, empty = state_of(name), EvalState.empty(config(name))
    data = state.to_bytes()
    assert empty.merge(state).to_bytes() == data
    assert state.merge(empty).to_bytes() == data
    assert EvalState.from_bytes(empty.to_bytes()).merge(state).to_bytes() == data
    assert empty.merge(empty).to_bytes() == empty.to_bytes()


@configs
@given(st.lists(st.integers(0, 300), max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=8)
def test_sharded_is_whole(name, cuts, rng: random.Random):
    cfg, rows = case(name, 300)
    whole = EvalState.empty(cfg).add(rows)
    order = list(range(300))
    rng.shuffle(order)
    edges = [0, *sorted(cuts), 300]
    shards = [
        EvalState.empty(cfg).add(take(rows, np.array(order[a:b], np.int64))) for a, b in itertools.pairwise(edges)
    ]
    rng.shuffle(shards)
    while len(shards) > 1:  # in any grouping, some of them by way of bytes
        left, right = shards.pop(rng.randrange(len(shards))), shards.pop(rng.randrange(len(shards)))
        shards.append(left.merge(EvalState.from_bytes(right.to_bytes()) if rng.random() < 0.5 else right))
    assert shards[0].to_bytes() == whole.to_bytes()
    assert shards[0].result().to_json() == whole.result().to_json()


@configs
def test_batches_are_whole(name):
    cfg, rows = case(name, 3000)
    whole = EvalState.empty(cfg).add(rows)
    batched = EvalState.empty(cfg)
    for begin in range(0, 3000, 7):
        assert batched.add(take(rows, np.arange(begin, min(begin + 7, 3000)))) is batched
    assert batched.to_bytes() == whole.to_bytes()


@configs
def test_merge_leaves_its_inputs_alone_and_result_is_idempotent(name):
    left, right = state_of(name), EvalState.empty(config(name)).add(case(name, 90, seed=4)[1])
    before = left.to_bytes(), right.to_bytes(), left.result().to_json()
    merged = left.merge(right)
    assert merged.to_bytes() == right.merge(left).to_bytes()
    merged.add(case(name, 20, seed=5)[1])
    assert (left.to_bytes(), right.to_bytes()) == before[:2]
    assert left.result().to_json() == left.result().to_json() == before[2]


def test_another_configuration_is_refused():
    cfg = config("plain")
    with pytest.raises(StateError, match=r"temperature=1\.0 here, 2\.0 there"):
        EvalState.empty(cfg).merge(EvalState.empty(replace(cfg, temperature=2.0)))


def test_row_counts():
    cfg, rows = case("by", 1000)
    result = EvalState.empty(cfg).add(rows).result()
    counts = {status: int((rows.status == status).sum()) for status in (USED, IGNORED, BAD_LOGITS, BAD_TARGET)}
    assert all(counts.values())
    assert result.rows.total == 1000
    assert (result.rows.used, result.rows.ignored) == (counts[USED], counts[IGNORED])
    assert (result.rows.bad_logits, result.rows.bad_target) == (counts[BAD_LOGITS], counts[BAD_TARGET])
    assert result.rows.bad == counts[BAD_LOGITS] + counts[BAD_TARGET]
    for column in cfg.by:
        assert sum(part.rows.total for part in result.slices[column].values()) == 1000
        assert sum(part.rows.bad for part in result.slices[column].values()) == result.rows.bad


@configs
def test_numbers_of_unused_rows_mean_nothing(name):
    cfg, rows = case(name, 300)
    plain = EvalState.empty(cfg).add(rows).to_bytes()
    unused = rows.status != USED
    for values in (rows.loss, rows.nll, rows.lse, rows.confidence, rows.entropy, rows.brier):
        values[unused] = math.nan
    for values in (rows.target, rows.predicted, rows.rank):
        values[unused] = -(2**62)
    assert EvalState.empty(cfg).add(rows).to_bytes() == plain


def exact(metrics):
    """Metrics of a result as JSON, but what depends on the cells or buckets: a slice has fewer of them."""
    found = {name: dict(metric) for name, metric in metrics.items() if name not in FROM_GRID}
    for name in (*CALIBRATION, *AVERAGES):
        for key in ("stderr", "ci95", "method"):
            found.get(name, {}).pop(key, None)
    return json.dumps(found)


def test_a_slice_of_everything_is_the_whole():
    cfg, rows = case("everything")
    cfg = replace(cfg, by=("all",))
    rows.by = {"all": pa.array(["x"] * len(rows.status))}
    result = EvalState.empty(cfg).add(rows).result()
    values = result.to_dict()
    part = values["slices"]["all"]["x"]
    assert exact(part["metrics"]) == exact(values["metrics"])
    assert part["rows"] == values["rows"]


def test_a_slice_is_an_evaluation_of_its_rows():
    cfg, rows = case("everything", 500)
    sliced = EvalState.empty(cfg).add(rows).result().to_dict()["slices"]
    for column in cfg.by:
        values = rows.by[column].to_pylist()
        for entry in sliced[column].values():
            index = np.array([i for i, value in enumerate(values) if value == entry["value"]])
            alone = EvalState.empty(cfg).add(take(rows, index)).result().to_dict()
            assert exact(alone["metrics"]) == exact(entry["metrics"])
            assert alone["rows"] == entry["rows"]


@pytest.mark.parametrize("name", ["plain", "weight", "class_weight"])
def test_clusters_of_one_row_change_nothing(name):
    cfg, rows = case(name, dirty=False)
    plain = EvalState.empty(cfg).add(rows).result().to_dict()
    rows.cluster = pa.array([f"row {i}" for i in range(len(rows.status))])
    clustered = EvalState.empty(replace(cfg, cluster="id")).add(rows).result().to_dict()
    groups = [(clustered["metrics"], plain["metrics"])]
    groups += [
        (part["metrics"], plain["slices"][column][value]["metrics"])
        for column, parts in clustered["slices"].items()
        for value, part in parts.items()
    ]
    for mine, expected in groups:
        for metric, other in zip(mine.values(), expected.values(), strict=True):
            if metric.get("method") == "wilson" and name != "weight":  # of clusters with Student's t, else with z
                (low, high), (least, most) = metric.pop("ci95"), other.pop("ci95")
                assert low <= least <= most <= high
    for mine, expected in groups:
        assert exact(mine) == exact(expected)
    assert clustered["clusters"] == len(rows.status)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["b", "a", None, "a"]), [None, "a", "b"]),
        (pa.array(["b", "a", None, "a"]).dictionary_encode(), [None, "a", "b"]),
        (pa.DictionaryArray.from_arrays([0, 1, 2, 0], ["x", None, "x"]), [None, "x"]),
        (pa.array(["b", "a", None, "a"], pa.string_view()), [None, "a", "b"]),
        (pa.array(["b", "a", None, "a"], pa.large_string()), [None, "a", "b"]),
        (pa.array([1, 2, None, 1], pa.uint8()), [1, 2, None]),
        (pa.array([True, False, None, True]), [False, True, None]),
        (pa.array([0.5, -0.5, None, math.nan]), ["nan", -0.5, 0.5, None]),
        (pa.array([0, 1, None, 1], pa.date32()), [None, "1970-01-01", "1970-01-02"]),
        (pa.array([1, 1, None, 1], pa.timestamp("ns")), [None, "1970-01-01 00:00:00.000000001"]),
        (pa.array([b"\x01", b"\xff", None, b"\x01"]), [None, "01", "ff"]),
        (pa.nulls(4), [None]),
        (pa.chunked_array([["a"], ["b", "a", "a"]]), ["a", "b"]),
    ],
)
def test_values_of_any_type_make_slices(column, expected):
    cfg = EvalConfig(n_classes=7, by=("k",))
    rows = case("plain", 4, dirty=False)[1]
    rows.by = {"k": column}
    state = EvalState.empty(cfg).add(rows)
    slices = state.result().slices["k"]
    assert sorted(map(repr, slices)) == sorted(map(repr, expected))
    assert sum(part.rows.total for part in slices.values()) == 4
    assert EvalState.from_bytes(state.to_bytes()).result().to_json() == state.result().to_json()


def test_equal_looking_values_of_other_types_stay_apart():
    cfg = EvalConfig(n_classes=7, by=("k",))
    state = EvalState.empty(cfg)
    for column in (pa.array([1]), pa.array(["1"]), pa.array([True]), pa.array([b"1"]), pa.nulls(1), pa.array(["null"])):
        rows = case("plain", 1, dirty=False)[1]
        rows.by = {"k": column}
        state.add(rows)
    result = state.result()
    assert len(result.slices["k"]) == 6
    assert {part.rows.total for part in result.slices["k"].values()} == {1}
    entries = result.to_dict()["slices"]["k"]
    assert len(entries) == 6
    assert type(result).from_json(result.to_json()).to_json() == result.to_json()


def test_a_group_column_of_lists_is_refused():
    cfg, rows = case("by", 4)
    rows.by["kind"] = pa.array([[1], [2], [3], [4]])
    state = EvalState.empty(cfg)
    with pytest.raises(ColumnError, match=r"cannot group rows by column 'kind': its values are of type list<"):
        state.add(rows)
    assert state.to_bytes() == EvalState.empty(cfg).to_bytes()


def test_too_many_slices_are_refused_and_leave_the_state_alone():
    cfg = EvalConfig(n_classes=7, by=("k",))
    rows = case("plain", 6000, dirty=False)[1]
    halves = []
    for begin in (0, 6000):
        rows.by = {"k": pa.array(range(begin, begin + 6000))}
        halves.append(EvalState.empty(cfg).add(rows))
    before = halves[0].to_bytes()
    with pytest.raises(ConfigError, match=r"more than 10000 distinct values.*cluster='k'"):
        halves[0].add(rows)
    with pytest.raises(ConfigError, match="more than 10000 distinct values"):
        halves[0].merge(halves[1])
    assert halves[0].to_bytes() == before


def test_classes_out_of_range_never_reach_memory():
    cfg, rows = case("plain", dirty=False)
    state = EvalState.empty(cfg)
    before = state.to_bytes()
    rows.predicted[7] = 7
    with pytest.raises(ValueError, match="class"):
        state.add(rows)
    assert state.to_bytes() == before


def test_unnormalised_rows_are_told():
    cfg, rows = case("plain")
    rows.unnormalised = 3
    state = EvalState.empty(cfg).add(rows)
    merged = state.merge(state)
    assert any("6 rows of probabilities do not sum to 1" in warning for warning in merged.result().warnings)


@configs
def test_damaged_bytes_are_refused(name):
    data = state_of(name, 40).to_bytes()
    rng = random.Random(1)
    damaged = [b"", data[:7], data[:60], data[:-1], data + b"x", b"PAR1" + data[4:]]
    for _ in range(100):
        at = rng.randrange(len(data))
        damaged.append(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
    for bad in damaged:
        with pytest.raises(StateError):
            EvalState.from_bytes(bad)


def test_bytes_of_another_version_are_refused():
    data = bytearray(state_of("plain").to_bytes())
    data[7] += 1
    with pytest.raises(StateError, match="version 2; this fastxent reads version 1"):
        EvalState.from_bytes(bytes(data))


@configs
def test_well_formed_bytes_that_make_no_state_are_refused(name):
    """Whoever forges a checksum still gets an error, not a crash."""
    header, arrays = unpack(state_of(name, 40).to_bytes())
    EvalState.from_bytes(pack(header, arrays))
    for part in arrays:
        for change in (lambda a: a[:0], lambda a: np.concatenate([a, a]), None):
            forged = {k: (change(v) if change else v) for k, v in arrays.items() if change or k != part}
            if change:
                forged = {**arrays, part: change(arrays[part])}
                if forged[part].shape == arrays[part].shape:
                    continue
            with pytest.raises(StateError):
                EvalState.from_bytes(pack(header, forged))
    for key, value in [("config", {}), ("config", {**header["config"], "bins": 0}), ("clusters", 3), ("slices", [])]:
        with pytest.raises(StateError):
            EvalState.from_bytes(pack({**header, key: value}, arrays))


losses = st.lists(st.one_of(st.floats(0, 1e-8), st.floats(0, 30), st.floats(0, 1e300), st.just(math.inf)), min_size=1)


@given(losses)
def test_quantiles_are_within_their_tolerance(values):
    values = np.array(values)
    distribution = Distribution()
    distribution.count(values)
    ordered = np.sort(values)
    for q, got in distribution.quantiles().items():
        exact = ordered[max(1, math.ceil(q * len(values))) - 1]
        if exact == math.inf or q in (0, 1):
            assert got == exact
        elif 2.0**-30 <= exact < 2.0**17:
            assert abs(got - exact) <= 0.004 * exact
        elif exact < 2.0**-30:
            assert ordered[0] <= got <= 2.0**-30
        else:
            assert 2.0**17 <= got <= ordered[-1]
    assert tuple(distribution.quantiles()) == QUANTILES


@given(losses)
def test_histogram_holds_every_row_in_its_bin(values):
    values = np.array(values)
    distribution = Distribution()
    distribution.count(values)
    shown = distribution.shown()
    assert sum(shown.counts) + shown.infinite == len(values)
    assert not shown.counts or (shown.counts[0] and shown.counts[-1])
    assert len(shown.edges) == (len(shown.counts) + 1 if shown.counts else 0)
    for low, high, count in zip(shown.edges, shown.edges[1:], shown.counts, strict=False):
        assert count == np.sum((values >= low) & (values < high))
