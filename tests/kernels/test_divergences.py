"""The divergences of pairs of rows: never below 0, 0 where rows are equal, and right where they hardly differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.launch import CHUNK_ROWS, RowOptions, RowPass, row_buffers
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.pairs import sweep_pairs
from fastxent.kernels.rows.divergences import CHANGE, FIELDS, target_changes
from fastxent.kernels.rows.record import LOG_PROBS

KINDS = [("float32", 10), ("float32", 70), ("float16", 70), ("float64", 70)]  # narrow and wide kernels
# Relative error that is promised; that of a divergence below 1e-4 is absolute. A difference of two float32 numbers of a
# row is off by 1e-6, which a divergence of 1e-5 shows in its fifth digit.
EPSILON = {"float32": 1e-4, "float16": 1e-4, "float64": 1e-9}


def passes(x: np.ndarray, y: np.ndarray, dtypes: tuple[str, str], options: RowOptions | None = None) -> list[RowPass]:
    target = np.zeros(len(x), np.int64)
    stored = [v.astype(ref.DTYPES[d]).view(FLOAT_TYPES[d].stored) for v, d in zip((x, y), dtypes, strict=True)]
    return [
        RowPass(Matrix.of(v, d), target, -100, options or RowOptions(), full=True, chunk=CHUNK_ROWS,
                into=row_buffers(len(x)))
        for v, d in zip(stored, dtypes, strict=True)
    ]  # fmt: skip


def divergences(
    x: np.ndarray, y: np.ndarray, *dtypes: str, options: RowOptions | None = None, floor: bool = False
) -> np.ndarray:
    """(3, rows) KL(a‖b), KL(b‖a) and Jensen-Shannon."""
    out = np.full((FIELDS, len(x)), np.nan)
    sweep_pairs(*passes(x, y, (dtypes[0], dtypes[-1]), options), out, 0, floor=floor)
    return out[:3]


def truth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    kl, js = ref.kl_divergence, ref.js_divergence
    return np.array([f(*pair, reduction="none") for f, pair in ((kl, (x, y)), (kl, (y, x)), (js, (x, y)))], float)


def check(result: np.ndarray, want: np.ndarray, epsilon: float) -> None:
    assert (result >= 0).all()
    infinite = np.isinf(want)
    np.testing.assert_array_equal(np.isinf(result), infinite)
    error = np.abs(np.where(infinite, 0, result) - np.where(infinite, 0, want))
    assert (error <= np.maximum(epsilon * np.where(infinite, 0, want), epsilon * 1e-4)).all(), error.max()


@settings(max_examples=120)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.sampled_from([1e-5, 1e-3, 1e-2, 0.3, 1.0, 10.0, 300.0]),
    st.sampled_from([0.0, 8.0, -100.0, 1e4]),
    st.sampled_from(["none", "a", "b", "both"]),
)
def test_of_rows_at_any_distance(seed, kind, distance, offset, masked):
    dtype, c = kind
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, c)) * 3 + (offset if dtype != "float16" else 0)
    y = x + distance * rng.normal(size=x.shape)
    x[1:3, 1] = -np.inf if masked in ("a", "both") else x[1:3, 1]
    y[1:3, 1] = -np.inf if masked in ("b", "both") else y[1:3, 1]
    x, y = (v.astype(ref.DTYPES[dtype]) for v in (x, y))
    with np.errstate(invalid="ignore"):
        check(divergences(x, y, dtype), truth(x, y), EPSILON[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_of_many_classes_within_what_is_promised(dtype):
    rng = np.random.default_rng(3)
    for distance in (1e-3, 1e-2, 0.1, 1.0):
        x = rng.normal(size=(2, 50_000)) * 4
        x[0, 17] = 30.0  # a confident row
        y = x + distance * rng.normal(size=x.shape)
        x, y = (v.astype(ref.DTYPES[dtype]) for v in (x, y))
        result, want = divergences(x, y, dtype), truth(x, y)
        assert (np.abs(result - want) <= np.maximum(1e-4 * want, 1e-8)).all()


def test_jensen_shannon_of_classes_at_one_distance():
    """Each class adds as much as any other, so that no error of one distance is lost in those of others."""
    for distance in np.geomspace(1e-3, 30, 25):
        half = np.log1p(np.tanh(distance / 2)) - np.log(2), np.log1p(-np.tanh(distance / 2)) - np.log(2)
        x = np.tile(half, 32)[None] - np.log(32)
        y = np.tile(half[::-1], 32)[None] - np.log(32)
        x, y = (v.astype(np.float32) for v in (x, y))
        error = np.abs(divergences(x, y, "float32") / truth(x, y) - 1)
        assert (error < max(5e-6, 1e-7 / distance)).all(), (distance, error)


def test_of_one_class_that_is_far_among_near_ones():
    """A vector has one form if all its classes are near, and another if one is not; -inf is seen in either."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(70, 70)) * 2
    y = x + 0.02 * rng.normal(size=x.shape)
    np.fill_diagonal(y, x.diagonal() + np.linspace(-1.2, 1.2, 70))
    x, y = x.astype(np.float32), y.astype(np.float32)
    check(divergences(x, y, "float32"), truth(x, y), 5e-6)
    x[:, 40] = y[:, 40] = -np.inf
    with np.errstate(invalid="ignore"):
        check(divergences(x, y, "float32"), truth(x, y), 5e-6)


def test_a_difference_in_a_single_class_is_seen():
    """Bits of other differences must not hide it: together they may look like those of NaN."""
    x = np.zeros((70, 70), np.float32)
    y = x.copy()
    np.fill_diagonal(y, np.geomspace(1e-3, 60, 70))
    y[:, 1::2] += np.float32(1e-3)
    result = divergences(x, y, "float32")
    assert (result > 0).all()
    check(result, truth(x, y), 1e-4)


@pytest.mark.parametrize(("dtype", "c"), KINDS)
@pytest.mark.parametrize("family", ["normal", "wide", "masked", "denormal"])
def test_of_equal_rows_are_0(dtype, c, family):
    x = ref.rows_of(family, 9, c, np.float64)
    assert (divergences(x, x, dtype) == 0).all()


@pytest.mark.parametrize(("dtype", "c"), KINDS)
def test_of_rows_that_differ_by_a_constant_are_0(dtype, c):
    x = np.random.default_rng(5).integers(-60, 60, size=(9, c)) / 4  # exact, shifted or not
    x[:, 3] = -np.inf
    assert (divergences(x, x + 40.0, dtype) == 0).all()


def test_a_class_that_one_row_alone_excludes():
    x = np.zeros((1, 70))
    y = x.copy()
    y[0, 5] = -np.inf
    ab, ba, js = divergences(x, y, "float32")[:, 0]
    assert ab == np.inf
    assert ba == pytest.approx(np.log(70 / 69), rel=1e-6)
    assert 0 < js < np.log(2)


def test_rows_that_share_no_class_are_as_far_apart_as_can_be():
    x = np.full((1, 70), -np.inf)
    y = x.copy()
    x[0, :35], y[0, 35:] = 1.0, 1.0
    ab, ba, js = divergences(x, y, "float32")[:, 0]
    assert (ab, ba) == (np.inf, np.inf)
    assert js == pytest.approx(np.log(2), rel=1e-6)
    assert js <= np.log(2)


def test_rows_that_are_not_used_have_none():
    x = np.zeros((4, 70), np.float32)
    x[1, 3] = np.nan
    x[2, 3] = np.inf
    result = divergences(x, np.zeros_like(x), "float32")
    np.testing.assert_array_equal(np.isnan(result).all(axis=0), [False, True, True, False])


def test_shaped_rows_are_those_of_the_shaped_logits():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 6, 70)) * 5
    mask = np.ones(70, np.uint8)
    mask[4:9] = 0
    options = RowOptions(softcap=7.0, temperature=1.5, class_mask=mask)
    shaped = [np.where(mask > 0, 7.0 * np.tanh(v / 7.0) / 1.5, -np.inf) for v in (x, y)]
    check(divergences(x, y, "float64", options=options), truth(*shaped), 1e-12)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-3, 0.3, 4.0]), st.sampled_from(["none", "a", "b", "both"]))
def test_log_probabilities_above_the_floor(seed, distance, masked):
    """KL is llama.cpp's sum, of rows whose probabilities need not sum to 1."""
    rng = np.random.default_rng(seed)
    x = -rng.exponential(9, size=(5, 70))
    y = x + distance * rng.normal(size=x.shape)
    x[1:3, 1] = -np.inf if masked in ("a", "both") else x[1:3, 1]
    y[1:3, 1] = -np.inf if masked in ("b", "both") else y[1:3, 1]
    x, y = (np.minimum(v, 0.0).astype(np.float32) for v in (x, y))
    got = divergences(x, y, "float32", options=RowOptions(mode=LOG_PROBS), floor=True)
    a, b = (v.astype(np.float64) for v in (x, y))
    with np.errstate(invalid="ignore"):
        for found, p, q in ((got[0], a, b), (got[1], b, a)):
            terms = np.where(p > -16, np.exp(p) * (p - q), 0.0)
            np.testing.assert_allclose(found, terms.sum(axis=1), rtol=1e-5, atol=1e-6 * max(distance, 1e-3))
    np.testing.assert_array_equal(got[2], divergences(x, y, "float32", options=RowOptions(mode=LOG_PROBS))[2])
    if distance == 0.0 and masked in ("none", "both"):
        assert (got == 0).all()


def test_the_change_of_a_probability():
    before, after = np.array([0.0, 1.0, np.inf, 0.5, np.inf, 1e-9] * 3), np.array([0.0, 2.0, 0.0, 0.5, np.inf, 0.0] * 3)
    out = np.empty((FIELDS, 18))
    target_changes(before, after, out[CHANGE])
    np.testing.assert_allclose(out[CHANGE], np.exp(-after) - np.exp(-before), rtol=1e-14, atol=2e-16)
    assert (out[CHANGE][[0, 3, 4]] == 0).all()


def test_rows_that_do_not_fit_together_are_refused():
    x = np.zeros((3, 70))
    out = np.zeros((FIELDS, 3))
    for other, dtypes in ((x[:2], ("float32", "float32")), (x[:, :60], ("float32",) * 2), (x, ("float32", "float64"))):
        with pytest.raises(TypeError, match="shape and compute type"):
            sweep_pairs(*(passes(x, x, dtypes)[0], passes(other, other, dtypes)[1]), out, 0)
    with pytest.raises(TypeError, match="shaped"):
        a, b = passes(x, x, ("float32",) * 2)[0], passes(x, x, ("float32",) * 2, RowOptions(temperature=2.0))[0]
        sweep_pairs(a, b, out, 0)
    with pytest.raises(TypeError, match="log-probabilities"):
        sweep_pairs(*passes(x, x, ("float32",) * 2), out, 0, floor=True)
    for room, column in ((out, 1), (out[:2], 0), (out.astype(np.float32), 0)):
        with pytest.raises(IndexError):
            sweep_pairs(*passes(x, x, ("float32",) * 2), room, column)
