"""The delete-a-bucket jackknife: its formula, and how often its intervals cover the truth (simulated, fixed seeds)."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.kernels.grid import layout_of, places_of
from fastxent.kernels.hashed import mixed
from fastxent.kernels.ranks import join_cells
from fastxent.results.values import Metric
from fastxent.state import class_buckets, ranking
from fastxent.state.averages import ClassSums, averages, averages_of_each
from fastxent.state.calibration import figures
from fastxent.state.confusion import FEW, Matrix
from fastxent.state.grid import moments_of
from fastxent.state.intervals import student
from fastxent.state.jackknife import drawn, freedom, jackknifed, left_out, without_drawn
from fastxent.state.ranking import Ranked

K = 20


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**12), max_size=20), st.integers(2, 25))
def test_buckets_share_out_all_rows(counts: list[int], buckets: int) -> None:
    found = drawn(np.array(counts, np.int64), buckets)
    assert found.shape == (buckets, len(counts))
    assert (found >= 0).all()
    assert found.sum(axis=0).tolist() == counts
    for count, each in zip(counts, found.T, strict=True):  # binomial: six standard deviations
        assert np.abs(each - count / buckets).max() <= 6 * math.sqrt(count / buckets) + 6


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**9), st.integers(0, 2**32 - 1))
def test_buckets_of_a_confusion_matrix(n_classes: int, most: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = Matrix(n_classes)
    counts = random.integers(0, most + 1, (n_classes, n_classes)) * random.integers(0, 2, (n_classes, n_classes))
    matrix.add_counts(counts)
    whole, *rest = class_buckets.without_drawn(matrix.filled(), n_classes, K).swapaxes(0, 1)
    assert whole.tolist() == _by_class(counts).tolist()
    divided = without_drawn(counts.ravel()[counts.ravel() > 0], K)[1:]
    assert len(rest) == len(divided)
    lefts = []
    for sums, some in zip(rest, divided, strict=True):
        left = np.zeros(n_classes**2, np.int64)
        left[np.flatnonzero(counts)] = some
        lefts.append(left.reshape(counts.shape))
        assert sums.tolist() == _by_class(lefts[-1]).tolist()
    for g, left in enumerate(lefts[:2]):
        expected = averages(_class_sums(left))
        found = averages_of_each(np.stack(rest, axis=1))
        assert {name: values[g] for name, values in found.items()} == pytest.approx(expected, rel=1e-13, nan_ok=True)


def _by_class(counts: np.ndarray) -> np.ndarray:
    """Rows by target, by prediction, and by both where they agree (3, C)."""
    return np.stack([counts.sum(axis=1), counts.sum(axis=0), np.diag(counts)])


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.lists(st.integers(1, 90), max_size=8), st.integers(0, 2**32 - 1))
def test_a_confusion_matrix_of_few_rows_is_that_of_many(n_classes: int, batches: list[int], seed: int) -> None:
    """Whether rows wait or are counted depends on their number; what comes of them does not."""
    random = np.random.default_rng(seed)
    matrices = [Matrix(n_classes) for _ in range(3)]
    total = np.zeros((n_classes, n_classes), np.int64)
    for n in batches:
        target, predicted = random.integers(0, n_classes, (2, n))
        rows = SimpleNamespace(target=target, predicted=predicted)
        matrices[int(random.integers(0, 3))].add(SimpleNamespace(rows=rows, n=n, labelled=True))
        np.add.at(total, (target, predicted), 1)
    whole = Matrix(n_classes)
    for matrix in matrices:
        whole.absorb(matrix)
    dense, loaded = Matrix(n_classes), Matrix(n_classes)
    dense.add_counts(total)
    loaded.load(whole.arrays())
    for found in (whole, loaded):
        found.check(int(total.sum()), int(np.trace(total)))
        assert {name: a.tolist() for name, a in found.arrays().items()} == {
            name: a.tolist() for name, a in dense.arrays().items()
        }
        assert found.result() == dense.result()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30_000), st.integers(0, 1000), st.integers(0, 2**32 - 1))
def test_cells_are_joined_in_order(cells: int, most: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    each = random.integers(0, most + 1, (2, cells)).astype(np.float64)
    counts, firsts = np.zeros((2, 1024)), np.zeros(1024, np.int64)
    used = join_cells(*each, counts, firsts)
    assert 1 <= used <= 1024
    assert firsts[0] == 0
    assert (np.diff(firsts[:used]) > 0).all()
    assert (np.add.reduceat(each, firsts[:used], axis=1) == counts[:, :used]).all()
    share = (counts[:, :used] - each[:, firsts[:used]]) / np.maximum(each.sum(axis=1), 1.0)[:, None]
    assert share.sum(axis=0).max() <= 1.001 / 511  # behind the first


def test_the_formula() -> None:
    without = [0.2, 0.5, 0.4, 0.45]
    stderr = math.sqrt(3 / 4 * sum((x - np.mean(without)) ** 2 for x in without))
    found = jackknifed(Metric(0.4, bounds=(0.3, 0.5)), [0.4, *without])
    assert found.stderr == pytest.approx(stderr, rel=1e-15)
    unbiased = 0.4 - 3 * (np.mean(without) - 0.4)
    half = student(3) * stderr
    assert found.ci95 == pytest.approx((max(0.0, unbiased - half), min(1.0, 0.4 + half)))
    other = jackknifed(Metric(0.4), [0.4, 0.39, 0.4, 0.38, 0.41])  # bias below 0
    assert other.ci95 == pytest.approx((0.4 - student(3) * other.stderr, 0.415 + student(3) * other.stderr))
    assert (found.method, found.bounds) == ("jackknife", (0.3, 0.5))
    for none in (jackknifed(Metric(0.4), [0.4] * 2), jackknifed(Metric(0.4), [0.4, 0.4, math.nan])):
        assert (math.isnan(none.stderr), none.method) == (True, None)
    for figure in (1.0, 0.3 * (1 + 2.0**-52)):
        same = jackknifed(Metric(figure), [figure] * 5 + [figure - 2.0**-54])
        assert (same.stderr, same.method) == (0.0, None)
    coarse = jackknifed(Metric(0.4), [0.2 + x for x in (0.4, *without)])  # all in other cells: the same bias
    assert coarse.ci95 == pytest.approx(found.ci95)
    beyond = jackknifed(Metric(-0.3), [-0.3, -0.31, -0.29, -0.3])
    assert beyond.ci95[0] <= beyond.ci95[1]
    uneven = [0.4, 0.41] * 5 + [0.43, 0.5]
    d = np.array(uneven) - np.mean(uneven)
    of_t = (3.16 - 2.77 / math.sqrt(12)) * (d**2).sum() ** 2 / (d**4).sum()
    assert 1 < of_t < 6
    assert freedom(uneven) == pytest.approx(of_t, rel=1e-13)
    assert freedom([x * 1e-200 for x in uneven]) == pytest.approx(of_t, rel=1e-13)
    few = jackknifed(Metric(0.4), [np.mean(uneven), *uneven])
    assert few.ci95 == pytest.approx((0.4 - student(of_t) * few.stderr, 0.4 + student(of_t) * few.stderr))
    assert [freedom(same) for same in ([0.2, 0.3], [0.2, 0.2, 0.2], [0.0, 1.0] * 10)] == [1, 2, 19]
    each = np.arange(12.0).reshape(4, 3)
    assert left_out(each).tolist() == [each.sum(axis=0).tolist(), *(each.sum(axis=0) - each).tolist()]


# ---- coverage --------------------------------------------------------------------------------------------------------


def covered(intervals: list[Metric], truth: float) -> float:
    assert all(metric.method == "jackknife" for metric in intervals)
    return float(np.mean([metric.ci95[0] <= truth <= metric.ci95[1] for metric in intervals]))


BITS, BINS = 8, 15
CENTRES = (np.searchsorted(layout_of(BITS, BINS).cells, np.arange(places_of(BITS, BINS)), side="right") - 0.5) / 256
SHARES = CENTRES * (1 - CENTRES) / (CENTRES * (1 - CENTRES)).sum()


def errors(counts: np.ndarray, names: tuple[str, ...] = ("expected_calibration_error",)) -> dict[str, np.ndarray]:
    """Figures of rows that are wrong and right (groups, places, 2)."""
    return figures(moments_of(counts, CENTRES[:, None].repeat(2, axis=1)), layout_of(BITS, BINS), names)


def of_calibration(name: str, times: int) -> float:
    """Rows of log-odds that are too large: the truth is far from 0, where a calibration error has next to no bias."""
    right = CENTRES**2 / (CENTRES**2 + (1 - CENTRES) ** 2)
    cells = SHARES[:, None] * np.stack([1 - right, right], axis=1)
    truth = errors((cells * 1e12).astype(np.int64)[None], (name,))[name][0]
    found, random = [], np.random.default_rng(1)
    for counts in random.multinomial(4000, cells.ravel(), size=times).reshape(times, -1, 2):
        value = errors(counts[None], (name,))[name][0]
        found.append(jackknifed(Metric(value), errors(without_drawn(counts, K), (name,))[name]))
    return covered(found, truth)


def of_averages(times: int) -> dict[str, float]:
    """Rows of five classes of different sizes."""
    random = np.random.default_rng(2)
    pairs = np.eye(5) * 0.6 + random.uniform(0.02, 0.15, (5, 5))
    pairs = pairs / pairs.sum(axis=1, keepdims=True) * np.array([0.4, 0.25, 0.15, 0.12, 0.08])[:, None]
    names = ("macro_f1", "matthews_corrcoef", "balanced_accuracy")
    truth = averages(_class_sums((pairs * 1e9).astype(np.int64)))
    found: dict[str, list[Metric]] = {name: [] for name in names}
    for counts in random.multinomial(1500, pairs.ravel() / pairs.sum(), size=times).reshape(times, 5, 5):
        mine = averages(_class_sums(counts))
        rest = without_drawn(counts, K)
        each = [averages(_class_sums(some)) for some in rest]
        for name in names:
            found[name].append(jackknifed(Metric(mine[name]), [some[name] for some in each]))
    return {name: covered(found[name], truth[name]) for name in names}


def _class_sums(counts: np.ndarray) -> ClassSums:
    target, predicted = counts.sum(axis=1), counts.sum(axis=0)
    return ClassSums(np.arange(len(counts)), target + predicted, target, predicted, np.diag(counts))


def of_clusters(clusters: int, times: int, alike: bool) -> dict[str, float]:
    """Rows of clusters that have an intercept and a difficulty in common: accuracy of ranking and of calibration.

    alike: bool. All clusters have 40 rows; otherwise numbers of rows are geometric.
    """
    random = np.random.default_rng(clusters)
    rows, cells = 40, 256
    names = ("expected_calibration_error", "smooth_calibration_error", "discrimination")

    def dump(some: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(cluster, cell of the score, class) of rows."""
        sizes = np.full(some, rows) if alike else random.geometric(1 / rows, some) + rows // 10
        of = np.repeat(np.arange(some), sizes)
        odds = random.normal(0, 1.5, len(of)) + random.normal(0, 0.5, some)[of]
        truth = odds * random.uniform(0.3, 1.0, some)[of]
        right = random.random(len(of)) < 1 / (1 + np.exp(-truth))
        return of, np.minimum((cells / (1 + np.exp(-odds))).astype(int), cells - 1), right.astype(int)

    def counts(of: np.ndarray, cell: np.ndarray, right: np.ndarray, groups: int) -> np.ndarray:
        flat = np.bincount((of * cells + cell) * 2 + right, minlength=groups * cells * 2)
        return flat.reshape(groups, cells, 2)

    def figures_of(sides: np.ndarray) -> dict[str, np.ndarray]:
        shown = np.zeros((len(sides), len(CENTRES), 2), np.int64)
        shown[:, layout_of(BITS, BINS).cells] = sides
        found = errors(shown, names)
        keys = np.arange(cells, dtype=np.uint64)
        ranked = [Ranked(keys, *each.astype(np.float64).T.copy(), True, False) for each in sides]
        for figure in (ranking.roc_auc, ranking.average_precision):
            found[figure.__name__] = np.array([figure(some).value for some in ranked])
        return found

    _, cell, right = dump(20_000)
    truth = {name: values[0] for name, values in figures_of(counts(np.zeros(len(cell), int), cell, right, 1)).items()}
    found: dict[str, list[Metric]] = {name: [] for name in truth}
    for time in range(times):
        of, cell, right = dump(clusters)
        hashed = mixed(np.arange(clusters, dtype=np.uint64) + np.uint64(time * clusters))
        bucket = (((hashed >> np.uint64(32)) * np.uint64(K)) >> np.uint64(32)).astype(int)
        each = counts(bucket[of], cell, right, K)
        whole = each.sum(axis=0)
        rest = np.concatenate([whole[None], (whole - each)[each.any(axis=(1, 2))]])
        for name, values in figures_of(rest).items():
            found[name].append(jackknifed(Metric(values[0]), values))
    return {name: covered(found[name], truth[name]) for name in truth}


@pytest.mark.parametrize("name", ["expected_calibration_error", "miscalibration", "discrimination"])
def test_intervals_of_calibration_cover(name: str) -> None:
    assert 0.93 <= of_calibration(name, 500) <= 0.97


def test_intervals_of_averages_over_classes_cover() -> None:
    for name, share in of_averages(500).items():
        assert 0.93 <= share <= 0.97, name


@pytest.mark.parametrize("clusters", [12, 200])
def test_intervals_of_clusters_cover(clusters: int) -> None:
    for name, share in of_clusters(clusters, 500, alike=True).items():
        assert 0.93 <= share <= 0.97, name


def test_intervals_of_few_clusters_of_different_sizes_cover() -> None:
    for name, share in of_clusters(12, 500, alike=False).items():
        assert 0.92 <= share <= 0.97, name


# ---- whole runs ------------------------------------------------------------------------------------------------------


def test_averages_have_intervals_of_rows_and_of_clusters() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(0, 1, (400, 3)) + 2 * np.eye(3)[random.integers(0, 3, 400)]
    dump = {"logits": logits, "target": random.integers(0, 3, 400), "doc": np.arange(400) // 4}
    names = ("macro_f1", "matthews_corrcoef", "balanced_accuracy", "weighted_f1", "macro_precision", "macro_recall")
    plain, clustered = (fx.evaluate(dump, threads=1, **options) for options in ({}, {"cluster": "doc"}))
    for name in names:
        for result in (plain, clustered):
            metric = result.metrics[name]
            assert metric.method == "jackknife"
            assert metric.ci95[0] < metric.value < metric.ci95[1]
            assert 0.01 < metric.stderr < 0.06
    state = clustered.state
    assert fx.EvalState.from_bytes(state.to_bytes()).result().to_json() == state.result().to_json()
    none = fx.evaluate(dump, threads=1, jackknife=0).metrics
    assert all(none[name].method is None for name in (*names, "expected_calibration_error"))


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("n_classes", [3, 70])
def test_averages_of_slices_are_those_of_their_rows_alone(clustered: bool, n_classes: int) -> None:
    random = np.random.default_rng(5)
    target, kind = random.integers(0, n_classes, 900), random.integers(0, 4, 900)
    logits = random.normal(0, 1, (900, n_classes)) + 2 * np.eye(n_classes)[target]
    dump = {"logits": logits, "target": target, "kind": kind, "doc": np.arange(900) // 6}
    options = {"cluster": "doc"} if clustered else {}
    result = fx.evaluate(dump, by="kind", threads=1, **options)
    a, b = (fx.evaluate({k: v[i::2] for k, v in dump.items()}, by="kind", threads=1, **options) for i in range(2))
    names = ("macro_f1", "matthews_corrcoef", "balanced_accuracy", "weighted_f1", "macro_precision", "macro_recall")
    for value, part in result.slices["kind"].items():
        rows = {name: column[kind == value] for name, column in dump.items()}
        alone = fx.evaluate(rows, threads=1, **options).metrics
        for name in names:
            if not clustered and n_classes > FEW:
                assert part.metrics[name].method is None
            else:
                assert part.metrics[name] == alone[name]
                assert part.metrics[name].method == "jackknife"
    assert b.state.merge(a.state).result().slices == result.slices
    calibration = ("expected_calibration_error", "smooth_calibration_error", "discrimination", "uncertainty")
    for value, part in result.slices["kind"].items() if clustered else ():
        alone = fx.evaluate(
            {name: column[kind == value] for name, column in dump.items()}, threads=1, **options
        ).metrics
        for name in calibration:
            assert part.metrics[name].stderr == alone[name].stderr > 0.0
            assert part.metrics[name].method == "jackknife"
    state = fx.EvalState.from_bytes(result.state.to_bytes())
    assert state.to_bytes() == result.state.to_bytes()
    assert state.result().slices == result.slices


def test_averages_of_very_many_slices_have_no_intervals() -> None:
    random = np.random.default_rng(6)
    dump = {"logits": random.normal(0, 1, (402, 3)), "target": random.integers(0, 3, 402), "kind": np.arange(402) // 2}
    for options in ({}, {"cluster": "kind"}):
        result = fx.evaluate(dump, by="kind", threads=1, **options)
        assert all(part.metrics["macro_f1"].method is None for part in result.slices["kind"].values())
        fewer = fx.evaluate({k: v[:400] for k, v in dump.items()}, by="kind", threads=1, **options)
        assert any(part.metrics["macro_f1"].method for part in fewer.slices["kind"].values()) != bool(options)
        state = fx.EvalState.from_bytes(result.state.to_bytes())
        assert state.merge(fewer.state).to_bytes() == fewer.state.merge(state).to_bytes()


def test_the_number_of_buckets_is_checked() -> None:
    for wrong in (1, -1, 101, 2.0, True):
        with pytest.raises(fx.ConfigError, match="jackknife must be "):
            fx.evaluate({"logits": np.zeros((2, 2)), "target": [0, 1]}, jackknife=wrong)
