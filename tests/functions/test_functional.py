"""The array functions, line by line of what they promise, against the float64 oracle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
import reference as ref
from reference import WIDE

C = 6


def agrees(result, truth, tolerance) -> None:
    """Equal within the tolerance; infinities and NaN in the same places."""
    result, truth = ref.wide(result), ref.wide(truth)
    assert result.shape == truth.shape
    np.testing.assert_array_equal(np.isnan(result), np.isnan(truth))
    np.testing.assert_array_equal(np.where(np.isinf(result), result, 0), np.where(np.isinf(truth), truth, 0))
    finite = np.isfinite(truth)
    error = np.abs(np.where(finite, result, 0) - np.where(finite, truth, 0))
    assert (error <= tolerance).all(), f"off by {float(error.max())}"


def compute_eps(dtype) -> float:
    """Half inputs are computed in float32."""
    return float(np.finfo(np.float64 if np.dtype(dtype) == np.float64 else np.float32).eps)


# dtype, many classes, smoothed or soft, shaped: what selects compiled code. All combinations would take minutes to
# compile; here each pair of values occurs.
KERNELS = [
    ("float32", False, False, False), ("float32", True, True, True),
    ("float64", False, True, True), ("float64", True, False, False),
    ("float16", True, False, True), ("float16", False, True, False),
    ("bfloat16", True, True, False), ("bfloat16", False, False, True),
]  # fmt: skip
FEW_CLASSES = [(1,), (5,), (4, 1), (7, 2), (6, 3), (5, 10), (2, 3, 17)]
MANY_CLASSES = [(3, 70), (2, 257)]


@dataclass(frozen=True)
class Case:
    """What a failure prints; the arrays follow from it."""

    shape: tuple[int, ...]
    dtype: str
    family: str
    target: str  # its dtype; probabilities where it is a float's
    some_ignored: bool
    chosen: list[str]
    reduction: str
    seed: int

    def build(self) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        rng = np.random.default_rng(self.seed)
        rows, classes = math.prod(self.shape[:-1]), self.shape[-1]
        logits = ref.rows_of(self.family, rows, classes, ref.DTYPES[self.dtype], self.seed).reshape(self.shape)
        kind = np.dtype(self.target)
        if kind.kind == "f":
            target = rng.random(self.shape) * np.isfinite(ref.wide(logits))
            target = target / target.sum(axis=-1, keepdims=True)
        else:
            target = rng.integers(min(classes, np.iinfo(kind).max), size=self.shape[:-1])
            if self.some_ignored and kind.kind == "i" and "ignore_index" not in self.chosen:
                target = np.where(rng.random(target.shape) < 0.4, -100, target)
        options = {
            "weight": rng.integers(0, 9, size=classes) / 4,
            "label_smoothing": rng.choice([0.1, 1.0]),
            "sample_weight": rng.integers(-4, 9, size=self.shape[:-1]) / 4,
            "temperature": rng.choice([0.5, 2.0]),
            "softcap": 30.0,
            "z_loss": 1e-3,
            "class_mask": np.arange(classes) % 5 != 4,
            "base": 2.0,
            "ignore_index": 0,
        }
        return logits, target.astype(kind), {k: options[k] for k in self.chosen} | {"reduction": self.reduction}


SHAPING = ["temperature", "softcap", "class_mask"]
OTHERS = ["weight", "sample_weight", "z_loss", "base", "ignore_index"]


@st.composite
def cases(draw):
    dtype, many, smoothed, shaped = draw(st.sampled_from(KERNELS))
    soft = smoothed and draw(st.booleans())
    chosen = draw(st.lists(st.sampled_from(OTHERS), unique=True, max_size=2))
    if {"z_loss", "base"} <= set(chosen):
        chosen.remove("base")
    if smoothed and not (soft and draw(st.booleans())):
        chosen.append("label_smoothing")
    if shaped:
        chosen += draw(st.lists(st.sampled_from(SHAPING), unique=True, min_size=1, max_size=2))
    return Case(
        shape=draw(st.sampled_from(MANY_CLASSES if many else FEW_CLASSES)),
        dtype=dtype,
        family=draw(st.sampled_from(["normal", "language model", "flat", "peaked", "wide", "masked"])),
        target=draw(st.sampled_from(["f4", "f8"] if soft else ["i1", "u1", "i2", "i4", "i8", "u8"])),
        some_ignored=draw(st.booleans()),
        chosen=chosen,
        reduction=draw(st.sampled_from(["none", "sum", "mean"])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@settings(max_examples=300)
@given(cases())
def test_cross_entropy_and_gradient_match_the_oracle(case):
    logits, target, options = case.build()
    with np.errstate(all="ignore"):
        truth, slope = ref.cross_entropy_with_grad(logits, target, **options)
    x = ref.wide(logits)
    size = 1 + float(np.abs(np.where(np.isfinite(x), x, 0)).max()) / options.get("temperature", 1.0)
    weights = 2 * 2 / (math.log(2) * 0.25)  # class times sample weight, over the unit, over the smallest denominator
    each = 16 * compute_eps(logits.dtype) * (size + options.get("z_loss", 0) * size**2) * weights
    rows = 1 if options["reduction"] == "none" else max(1, math.prod(case.shape[:-1]))

    loss = fx.cross_entropy(logits, target, **options)
    with_grad = fx.cross_entropy_with_grad(logits, target, **options)
    if options["reduction"] == "none":
        assert loss.dtype == (np.float64 if logits.dtype == np.float64 else np.float32)
        np.testing.assert_array_equal(ref.bits_of(loss), ref.bits_of(with_grad.loss))
    else:
        assert isinstance(loss, float)
        assert isinstance(with_grad.loss, float)
        assert loss == with_grad.loss or math.isnan(loss)
    agrees(loss, truth, each * rows)
    assert with_grad.grad.dtype == logits.dtype
    info = ref.ml_dtypes.finfo(logits.dtype)
    rounding = float(info.eps) * np.abs(np.where(np.isfinite(slope), slope, 0)) + float(info.smallest_subnormal)
    agrees(with_grad.grad, slope, each + rounding)


# ---- mean, weights, smoothing --------------------------------------------------------------------------------

LOGITS = np.random.default_rng(1).normal(size=(5, C)) * 3
TARGET = np.array([0, 3, -100, 5, 2])
WEIGHT = np.array([0.5, 1.0, 2.0, 0.25, 1.5, 3.0])
NLL = -ref.log_softmax(LOGITS)[[0, 1, 3, 4], [0, 3, 5, 2]]
USED = [0, 1, 3, 4]


def test_mean_with_class_ids_divides_by_the_weights_of_rows_not_ignored():
    w = WEIGHT[TARGET[USED]]
    assert fx.cross_entropy(LOGITS, TARGET, weight=WEIGHT) == pytest.approx(float((w * NLL).sum() / w.sum()), rel=1e-14)


def test_mean_with_soft_targets_divides_by_n():
    soft = np.random.default_rng(2).dirichlet(np.ones(C), size=5)
    rows = -(WEIGHT * soft * ref.log_softmax(LOGITS)).sum(axis=-1)
    assert fx.cross_entropy(LOGITS, soft, weight=WEIGHT) == pytest.approx(float(rows.mean()), rel=1e-14)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1", "?"])
def test_one_hot_targets_equal_class_ids_but_for_the_denominator(dtype):
    one_hot = np.eye(C)[TARGET[USED]].astype(dtype)
    rows = fx.cross_entropy(LOGITS[USED], one_hot, weight=WEIGHT, reduction="none")
    ids = fx.cross_entropy(LOGITS[USED], TARGET[USED], weight=WEIGHT, reduction="none")
    np.testing.assert_allclose(rows, ids, rtol=1e-14)
    assert fx.cross_entropy(LOGITS[USED], one_hot, weight=WEIGHT) == pytest.approx(ids.mean(), rel=1e-14)


def test_sample_weight_multiplies_both_sums_and_may_be_negative():
    s = np.array([1.0, -2.0, 7.0, 0.5, 2.0])
    truth = (s[USED] * NLL).sum() / s[USED].sum()
    assert fx.cross_entropy(LOGITS, TARGET, sample_weight=s) == pytest.approx(float(truth), rel=1e-14)
    none = fx.cross_entropy(LOGITS, TARGET, sample_weight=s, reduction="none")
    np.testing.assert_allclose(none[USED], (s[USED] * NLL).astype(float), rtol=1e-14)
    grad = fx.cross_entropy_with_grad(LOGITS, TARGET, sample_weight=s, reduction="sum").grad
    plain = fx.cross_entropy_with_grad(LOGITS, TARGET, reduction="sum").grad
    np.testing.assert_allclose(grad, plain * s[:, None], rtol=1e-14, atol=1e-17)


def test_the_mean_over_a_total_weight_of_0_is_undefined():
    weight = np.array([1.0, 2.0, 5.0, -3.0, 0.0])  # the third row is ignored
    for target in (TARGET, np.where(TARGET < 0, TARGET, 0)):
        loss, grad = fx.cross_entropy_with_grad(LOGITS, target, sample_weight=weight)
        assert math.isnan(loss)
        assert np.isnan(grad[USED]).all()
        assert not grad[2].any()
        assert math.isnan(fx.cross_entropy(LOGITS, target, sample_weight=weight))
    assert math.isfinite(fx.cross_entropy(LOGITS, TARGET, sample_weight=weight, reduction="sum"))


def test_smoothing_spreads_eps_over_all_classes_with_their_weights():
    eps, log_p = 0.2, ref.log_softmax(LOGITS)[USED]
    rows = (1 - eps) * WEIGHT[TARGET[USED]] * NLL + eps / C * (WEIGHT * -log_p).sum(axis=-1)
    none = fx.cross_entropy(LOGITS, TARGET, weight=WEIGHT, label_smoothing=eps, reduction="none")
    np.testing.assert_allclose(none[USED], rows.astype(float), rtol=1e-14)
    assert none[2] == 0  # ignored rows leave both terms
    mean = fx.cross_entropy(LOGITS, TARGET, weight=WEIGHT, label_smoothing=eps)
    assert mean == pytest.approx(float(rows.sum() / WEIGHT[TARGET[USED]].sum()), rel=1e-14)


@pytest.mark.parametrize("eps", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("function", [fx.cross_entropy, fx.cross_entropy_with_grad, fx.nll_loss])
def test_smoothing_lies_between_0_and_1(function, eps):
    with pytest.raises(ValueError, match="label_smoothing"):
        function(LOGITS, TARGET, label_smoothing=eps)


def test_z_loss_is_added_per_row_without_class_weights():
    lse = ref.logsumexp(LOGITS)[USED]
    rows = WEIGHT[TARGET[USED]] * NLL + 0.3 * lse**2
    none = fx.cross_entropy(LOGITS, TARGET, weight=WEIGHT, z_loss=0.3, reduction="none")
    np.testing.assert_allclose(none[USED], rows.astype(float), rtol=1e-14)
    assert none[2] == 0
    total = fx.cross_entropy(LOGITS, TARGET, weight=WEIGHT, z_loss=0.3, reduction="sum")
    assert total == pytest.approx(float(rows.sum()), rel=1e-14)


def test_softcap_then_temperature_then_class_mask():
    mask = np.array([True, True, True, True, False, True])
    z = 2.0 * np.tanh(LOGITS / 2.0) / 0.7
    options = {"softcap": 2.0, "temperature": 0.7, "class_mask": mask}
    expected = fx.cross_entropy(np.where(mask, z, -np.inf), TARGET, reduction="none")
    np.testing.assert_allclose(fx.cross_entropy(LOGITS, TARGET, reduction="none", **options), expected, rtol=1e-13)
    grad = fx.cross_entropy_with_grad(LOGITS, TARGET, **options).grad
    np.testing.assert_array_equal(grad[:, 4], 0)


def test_softcap_leaves_masked_and_broken_logits_what_they_are():
    rows = np.array([[1.0, -np.inf, 2.0], [1.0, np.inf, 2.0], [np.nan, 1.0, 2.0]])
    loss, grad = fx.cross_entropy_with_grad(rows, [0, 0, 1], softcap=5.0, reduction="none")
    x = 5 * np.tanh(rows[0, [0, 2]] / 5)
    assert loss[0] == pytest.approx(np.logaddexp(*x) - x[0], rel=1e-13)
    assert grad[0, 1] == 0
    assert np.isnan(loss[1:]).all()
    assert np.isnan(grad[1:]).all()


@pytest.mark.parametrize(("base", "unit"), [(None, 1.0), (2, math.log(2)), (10.0, math.log(10))])
def test_base_sets_the_unit(base, unit):
    assert fx.cross_entropy(LOGITS, TARGET, base=base) == pytest.approx(float(NLL.mean()) / unit, rel=1e-14)
    grad = fx.cross_entropy_with_grad(LOGITS, TARGET, base=base).grad
    np.testing.assert_allclose(grad * unit, fx.cross_entropy_with_grad(LOGITS, TARGET).grad, rtol=1e-13, atol=1e-17)


# ---- ignored rows and class ids ------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [-100, -1, 2, 10**6])
def test_the_ignore_test_comes_before_the_range_check(ignore_index):
    target = np.array([0, 3, ignore_index, 5, 1])
    loss, grad = fx.cross_entropy_with_grad(LOGITS, target, ignore_index=ignore_index, reduction="none")
    assert loss[2] == 0
    assert not grad[2].any()
    assert (loss[USED] > 0).all()
    statistics = fx.row_statistics(LOGITS, target, ignore_index=ignore_index)
    assert np.isnan(statistics.nll[2])
    assert np.isnan(statistics.brier[2])
    assert statistics.rank[2] == -1


def test_a_broken_row_that_is_ignored_costs_nothing():
    rows = np.array([[1.0, np.nan], [0.0, 0.0], [-np.inf, -np.inf]])
    loss, grad = fx.cross_entropy_with_grad(rows, [-100, 1, -100], reduction="mean")
    assert loss == pytest.approx(math.log(2), rel=1e-15)
    np.testing.assert_array_equal(grad, [[0, 0], [0.5, -0.5], [0, 0]])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_all_rows_ignored(label_smoothing):
    target = np.full(5, -100)
    assert math.isnan(fx.cross_entropy(LOGITS, target, label_smoothing=label_smoothing))
    assert fx.cross_entropy(LOGITS, target, reduction="sum", label_smoothing=label_smoothing) == 0
    for reduction in ("none", "sum", "mean"):
        result = fx.cross_entropy_with_grad(LOGITS, target, reduction=reduction, label_smoothing=label_smoothing)
        np.testing.assert_array_equal(result.grad, 0)


@pytest.mark.parametrize(("value", "dtype"), [(6, "i8"), (-1, "i4"), (-99, "i1"), (2**62, "i8"), (200, "u1")])
@pytest.mark.parametrize("function", [fx.cross_entropy, fx.cross_entropy_with_grad, fx.nll_loss, fx.row_statistics])
def test_a_class_id_out_of_range_names_the_first_offending_row_and_value(function, value, dtype):
    target = np.array([0, 1, value, 2, value], dtype)
    with pytest.raises(ValueError, match=rf"(?s)\b2\b.*(?<!\d){value}\b|(?<!\d){value}\b.*\b2\b"):
        function(LOGITS, target)


def test_unsigned_class_ids_do_not_wrap_into_the_ignore_index():
    with pytest.raises(ValueError, match=str(2**64 - 100)):
        fx.cross_entropy(LOGITS, np.array([0, 1, 2**64 - 100, 2, 3], np.uint64))
    with pytest.raises(ValueError, match="156"):
        fx.cross_entropy(LOGITS, np.array([0, 1, 156, 2, 3], np.uint8))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8"])
def test_class_ids_of_any_integer_width(dtype):
    expected = fx.cross_entropy(LOGITS, np.array([0, 3, 1, 5, 2]), reduction="none")
    result = fx.cross_entropy(LOGITS, np.array([0, 3, 1, 5, 2], dtype), reduction="none")
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("target", [TARGET.astype(float), TARGET.astype(complex), np.array(list("abcde")), TARGET > 0])
def test_class_ids_are_integers(target):
    with pytest.raises((TypeError, ValueError), match="target"):
        fx.cross_entropy(LOGITS, target)


@pytest.mark.parametrize("shape", [(), (4,), (1,), (5, 1), (1, C), (5, C, 1), (C, 5), (0,)])
def test_what_the_target_is_follows_from_its_dimensions(shape):
    with pytest.raises(ValueError, match="target"):
        fx.cross_entropy(LOGITS, np.zeros(shape, np.int64))


# ---- rows that hold -inf, +inf, NaN --------------------------------------------------------------------------

PAYLOADS = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC01234], np.uint32)


def test_minus_infinity_is_a_masked_class():
    rows = np.array([[0.0, -np.inf, 1.0], [-np.inf, 2.0, -np.inf]])
    np.testing.assert_array_equal(fx.softmax(rows)[[0, 1, 1], [1, 0, 1]], [0, 0, 1])
    np.testing.assert_array_equal(fx.log_softmax(rows)[[0, 1, 1], [1, 0, 1]], [-np.inf, -np.inf, 0])
    np.testing.assert_array_equal(fx.entropy(rows, input="logits")[1], 0)
    np.testing.assert_allclose(fx.row_statistics(rows).entropy, ref.row_statistics(rows).entropy.astype(float))
    soft = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])  # 0 log 0 = 0
    np.testing.assert_allclose(
        fx.cross_entropy(rows, soft, reduction="none"), [np.logaddexp(0, 1) - 0.5, 0.0], rtol=1e-15
    )
    assert fx.kl_divergence(rows, rows) == 0
    assert fx.js_divergence(rows, rows) == pytest.approx(0, abs=1e-15)


def test_a_target_on_a_minus_infinite_logit_costs_infinity():
    rows = np.array([[0.0, -np.inf, 0.0], [0.0, 0.0, 0.0]])
    loss, grad = fx.cross_entropy_with_grad(rows, [1, 1], reduction="none")
    assert loss[0] == np.inf
    np.testing.assert_allclose(grad[0], [0.5, -1.0, 0.5], rtol=1e-15)
    assert fx.cross_entropy(rows, [1, 1]) == np.inf
    assert fx.row_statistics(rows, [1, 1]).rank[0] == 2
    assert fx.focal_loss(rows, [1, 1]) == np.inf


def assert_only_row_is_nan(rows: np.ndarray, bad: int) -> None:
    """Row `bad` is NaN in every result; the others are bit for bit what they are without it."""
    target = np.zeros(len(rows), np.int64)
    good = np.delete(np.arange(len(rows)), bad)
    clean = np.where(np.arange(len(rows))[:, None] == bad, rows.dtype.type(0), rows)
    for of in (
        lambda x: fx.cross_entropy(x, target, reduction="none"),
        lambda x: fx.cross_entropy_with_grad(x, target, reduction="none").grad,
        lambda x: fx.cross_entropy(x, target, reduction="none", label_smoothing=0.1),
        fx.log_softmax,
        fx.softmax,
        lambda x: fx.row_statistics(x, target).nll,
        lambda x: fx.row_statistics(x, target).entropy,
        lambda x: fx.row_statistics(x, target).brier,
        lambda x: fx.row_statistics(x, target).confidence,
        lambda x: fx.row_statistics(x, target).sum_p2,
        lambda x: fx.focal_loss(x, target, reduction="none"),
        lambda x: fx.entropy(x, input="logits"),
    ):
        result = ref.wide(of(rows))
        assert np.isnan(result[bad]).all()
        np.testing.assert_array_equal(result[good], ref.wide(of(clean))[good])
    assert math.isnan(fx.cross_entropy(rows, target))


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, "all -inf"])
@pytest.mark.parametrize("c", [1, 2, 5, 100, 129, 2051])
def test_a_broken_row_is_nan_and_touches_no_other(c, value, dtype):
    for place in {0, c // 2, c - 1}:
        rows = ref.rows_of("normal", 9, c, ref.DTYPES[dtype])
        rows[4, slice(None) if value == "all -inf" else place] = -np.inf if value == "all -inf" else value
        assert_only_row_is_nan(rows, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("c", [1, 2, 100, 2051])
def test_a_broken_row_of_a_pair_is_nan_and_touches_no_other(c, value):
    p, q = (ref.rows_of("normal", 5, c, np.float32, seed=s) for s in (1, 2))
    broken = p.copy()
    broken[2, slice(None) if value == -np.inf else c - 1] = value
    for divergence in (fx.kl_divergence, fx.js_divergence):
        for pair, clean in (((broken, q), (p, q)), ((q, broken), (q, p))):
            rows = divergence(*pair, reduction="none")
            assert np.isnan(rows[2])
            np.testing.assert_array_equal(np.delete(rows, 2), np.delete(divergence(*clean, reduction="none"), 2))


@pytest.mark.parametrize("payload", PAYLOADS, ids=hex)
def test_nan_of_any_payload_at_any_place_is_found(payload):
    for c in (3, 19, 141):
        for place in range(c):
            rows = ref.rows_of("masked", 3, c, np.float32)
            rows[1].view(np.uint32)[place] = payload
            loss, grad = fx.cross_entropy_with_grad(rows, [0, 0, 0], reduction="none")
            assert np.isnan(loss[1])
            assert np.isnan(grad[1]).all()
            assert not np.isnan(loss[[0, 2]]).any()


# ---- predicted class, rank, Brier score ----------------------------------------------------------------------


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 10, 33, 64, 65, 300]), st.sampled_from(list(ref.DTYPES)))
def test_predicted_is_the_first_maximum_and_rank_0_is_argmax_equals_target(seed, c, dtype):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, size=(40, c)).astype(ref.DTYPES[dtype])  # ties everywhere
    rows[rng.random(rows.shape) < 0.1] = -0.0
    target = rng.integers(c, size=40)
    truth, result = ref.row_statistics(rows, target), fx.row_statistics(rows, target)
    np.testing.assert_array_equal(result.predicted, truth.predicted)
    np.testing.assert_array_equal(result.rank, truth.rank)
    np.testing.assert_array_equal(result.rank == 0, result.predicted == target)
    np.testing.assert_array_equal(result.max_logit, ref.wide(rows).max(axis=-1).astype(float))


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1,), (4, 2), (3, 10), (2, 3, 33), (5, 65), (2, 1000)]),
    st.sampled_from(list(ref.DTYPES)),
    st.sampled_from([f for f in ref.FAMILIES if f != "largest"]),
    st.sampled_from([{}, {"temperature": 2.0}, {"softcap": 20.0}, {"class_mask": True}]),
)
def test_row_statistics_match_the_oracle(seed, shape, dtype, family, options):
    rng = np.random.default_rng(seed)
    rows = ref.rows_of(family, math.prod(shape[:-1]), shape[-1], ref.DTYPES[dtype], seed).reshape(shape)
    target = np.where(rng.random(shape[:-1]) < 0.3, -100, rng.integers(shape[-1], size=shape[:-1]))
    if "class_mask" in options:
        options = {"class_mask": np.isfinite(ref.wide(rows)).reshape(-1, shape[-1]).all(axis=0) | (shape[-1] > 0)}
        options["class_mask"][1::3] = False
    with np.errstate(all="ignore"):
        truth = ref.row_statistics(rows, target, **options)
    result = fx.row_statistics(rows, target, **options)
    assert result._fields == truth._fields
    size = 1 + float(np.abs(np.where(np.isfinite(ref.wide(rows)), ref.wide(rows), 0)).max())
    eps = compute_eps(rows.dtype)
    for name in truth._fields:
        value = getattr(result, name)
        assert value.shape == shape[:-1]
        assert value.dtype == (np.int64 if name in ("predicted", "rank") else np.float64)
        if name in ("predicted", "rank"):
            if "softcap" not in options:  # which makes ties in one precision and not in the other
                np.testing.assert_array_equal(value, getattr(truth, name))
        else:
            scale = size if name in ("nll", "lse", "max_logit") or options else 1 + np.log(shape[-1])
            agrees(value, getattr(truth, name), 16 * eps * scale * (1 + np.log(shape[-1])))


def test_row_statistics_without_a_target():
    result = fx.row_statistics(LOGITS)
    assert np.isnan(result.nll).all()
    assert np.isnan(result.brier).all()
    np.testing.assert_array_equal(result.rank, -1)
    np.testing.assert_array_equal(result.predicted, LOGITS.argmax(axis=-1))


def test_a_broken_row_has_neither_a_predicted_class_nor_a_rank():
    for c in (3, 64, 200):
        rows = ref.rows_of("normal", 5, c, np.float32)
        rows[1, 0], rows[2, -1], rows[3] = np.nan, np.inf, -np.inf
        statistics = fx.row_statistics(rows, np.zeros(5, np.int64))
        np.testing.assert_array_equal(statistics.predicted[1:4], -1)
        np.testing.assert_array_equal(statistics.rank[1:4], -1)
        assert (statistics.predicted[[0, 4]] >= 0).all()


def test_brier_score_is_between_0_and_2():
    rows = np.array([[100.0, -100.0, 0.0], [100.0, -100.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(fx.row_statistics(rows, [0, 1, 2]).brier, [0, 2, 2 / 3], atol=1e-15)


# ---- probabilities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("input", ["probs", "log_probs"])
def test_probabilities_are_used_as_given(input):
    p = np.array([[0.2, 0.2, 0.1], [0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
    with np.errstate(divide="ignore"):
        values = p if input == "probs" else np.log(p)
    rows = fx.cross_entropy(values, [0, 2, 0], input=input, reduction="none")
    np.testing.assert_allclose(rows, [-math.log(0.2), -math.log(0.25), np.inf], rtol=1e-15)
    clipped = fx.cross_entropy(values, [0, 2, 0], input=input, reduction="none", clip_eps=1e-3)
    np.testing.assert_allclose(clipped, [-math.log(0.2), -math.log(0.25), -math.log(1e-3)], rtol=1e-14)
    grad = fx.cross_entropy_with_grad(values[:2], [0, 2], input=input, reduction="sum").grad
    slope = -1 / p[:2] if input == "probs" else -np.ones((2, 3))
    np.testing.assert_allclose(grad, slope * np.eye(3)[[0, 2]], rtol=1e-14)
    if input == "log_probs":
        np.testing.assert_array_equal(fx.nll_loss(values, [0, 2, 0], reduction="none"), rows)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["probs", "log_probs"]),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([None, 1e-3]),
    st.sampled_from([{}, {"label_smoothing": 0.1}, {"weight": WEIGHT}, {"base": 2.0}]),
    st.booleans(),
)
def test_cross_entropy_of_probabilities_matches_the_oracle(seed, input, dtype, clip_eps, options, soft):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(C, 0.7), size=8)
    x = (p if input == "probs" else np.log(p)).astype(dtype)
    target = rng.dirichlet(np.ones(C), size=8) if soft else np.where(rng.random(8) < 0.2, -100, rng.integers(C, size=8))
    options = options | {"input": input, "clip_eps": clip_eps, "reduction": "none"}
    truth, slope = ref.cross_entropy_with_grad(x, target, **options)
    loss, grad = fx.cross_entropy_with_grad(x, target, **options)
    np.testing.assert_allclose(
        loss, truth.astype(float), rtol=32 * np.finfo(dtype).eps, atol=1e-6 * (dtype != np.float64)
    )
    np.testing.assert_allclose(grad, slope.astype(float), rtol=32 * np.finfo(dtype).eps)


@pytest.mark.parametrize("input", ["probs", "log_probs"])
def test_row_statistics_of_probabilities(input):
    p = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.25, 0.5, 0.25]])
    with np.errstate(divide="ignore"):
        statistics = fx.row_statistics(p if input == "probs" else np.log(p), [1, 0, -100], input=input)
    np.testing.assert_allclose(statistics.nll, [-math.log(0.3), np.inf, np.nan], rtol=1e-15)
    np.testing.assert_allclose(statistics.confidence, [0.5, 1, 0.5], rtol=1e-15)
    np.testing.assert_array_equal(statistics.predicted, [2, 1, 1])
    np.testing.assert_array_equal(statistics.rank, [1, 1, -1])
    np.testing.assert_allclose(statistics.entropy, ref.entropy(p).astype(float), rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(statistics.brier, [0.04 + 0.49 + 0.25, 2, np.nan], rtol=1e-14)
    np.testing.assert_allclose(statistics.sum_p2, (p**2).sum(axis=-1), rtol=1e-14)


def test_log_loss_clips_as_scikit_learn_does():
    p = np.array([[1.0, 0.0], [0.25, 0.75]])
    rows = [-math.log(np.finfo(np.float64).eps), -math.log(0.75)]
    assert fx.log_loss(p, [1, 1], labels=[0, 1]) == pytest.approx(np.mean(rows), rel=1e-14)
    assert fx.log_loss(p, [1, 1], labels=[0, 1], clip_eps=0.1) == pytest.approx(
        (-math.log(0.1) - math.log(0.75)) / 2, rel=1e-14
    )
    names = fx.log_loss(p, np.array(["b", "a"]), sample_weight=[1.0, 3.0])
    assert names == pytest.approx((rows[0] - 3 * math.log(0.25)) / 4, rel=1e-14)


# ---- empty input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (3, 0, 4)])
def test_empty_input(shape):
    x, target = np.zeros(shape, np.float32), np.zeros(shape[:-1], np.int64)
    assert fx.cross_entropy(x, target, reduction="sum") == 0
    assert math.isnan(fx.cross_entropy(x, target))
    assert math.isnan(fx.cross_entropy(x, np.zeros(shape)))
    assert fx.cross_entropy(x, target, reduction="none").shape == shape[:-1]
    assert fx.cross_entropy_with_grad(x, target).grad.shape == shape
    assert fx.log_softmax(x).shape == fx.softmax(x).shape == shape
    assert fx.logsumexp(x).shape == fx.entropy(x).shape == fx.row_statistics(x, target).rank.shape == shape[:-1]
    assert fx.focal_loss(x, target, reduction="sum") == fx.kl_divergence(x, x, reduction="sum") == 0
    assert math.isnan(fx.js_divergence(x, x))
    assert math.isnan(fx.binary_cross_entropy_with_logits(x, x))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0)])
def test_no_classes_is_an_error(shape):
    x, target = np.zeros(shape), np.zeros(shape[:-1], np.int64)
    for call in (fx.log_softmax, fx.softmax, fx.logsumexp, fx.entropy, fx.row_statistics):
        with pytest.raises(ValueError, match="class"):
            call(x)
    for call in (fx.cross_entropy, fx.cross_entropy_with_grad, fx.nll_loss, fx.focal_loss, fx.row_statistics):
        with pytest.raises(ValueError, match="class"):
            call(x, target)
    for call in (fx.kl_divergence, fx.js_divergence):
        with pytest.raises(ValueError, match="class"):
            call(x, x)


# ---- options that make no sense ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "avg"}, "reduction"),
        ({"input": "scores"}, "input"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"softcap": 0.0}, "softcap"),
        ({"softcap": -3.0}, "softcap"),
        ({"base": 1.0}, "base"),
        ({"base": -2.0}, "base"),
        ({"weight": np.ones(C + 1)}, "weight"),
        ({"weight": np.ones((5, C))}, "weight"),
        ({"sample_weight": np.ones(4)}, "sample_weight"),
        ({"class_mask": np.ones(C - 1, bool)}, "class_mask"),
        ({"axis": 2}, "axis"),
        ({"axis": -3}, "axis"),
        ({"clip_eps": -0.1, "input": "probs"}, "clip_eps"),
        ({"clip_eps": 0.6, "input": "probs"}, "clip_eps"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        fx.cross_entropy(LOGITS, TARGET, **options)


NOT_A_NUMBER = ["1", True, math.nan, math.inf, 1j, [1.0], np.ones(2), object()]


@pytest.mark.parametrize(
    ("call", "names", "optional"),
    [
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, **o), ["label_smoothing", "temperature", "z_loss"], False),
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, **o), ["softcap", "base"], True),
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, **o), ["ignore_index", "axis"], False),
        (lambda **o: fx.cross_entropy(LOGITS, TARGET, input="probs", **o), ["clip_eps"], True),
        (lambda **o: fx.row_statistics(LOGITS, TARGET, **o), ["ignore_index", "temperature", "axis"], False),
        (lambda **o: fx.focal_loss(LOGITS, TARGET + 100, **o), ["gamma", "axis"], False),
        (lambda **o: fx.softmax(LOGITS, **o), ["temperature", "axis"], False),
        (lambda **o: fx.logsumexp(LOGITS, **o), ["temperature", "axis"], False),
        (lambda **o: fx.entropy(LOGITS, **o), ["base"], True),
        (lambda **o: fx.kl_divergence(LOGITS, LOGITS, **o), ["base"], True),
        (lambda **o: fx.log_loss([0.5, 0.5], [0, 1], **o), ["clip_eps"], True),
        (lambda **o: fx.binary_cross_entropy_with_logits(LOGITS, LOGITS, **o), ["label_smoothing"], False),
    ],
)
def test_an_option_of_another_type_is_one_line(call, names, optional):
    for name in names:
        for value in [
            *NOT_A_NUMBER,
            *([1.0] if name in ("axis", "ignore_index") else []),
            *([] if optional else [None]),
        ]:
            with pytest.raises(fx.ConfigError, match=rf"^{name} must be [^\n]*, got [^\n]*$"):
                call(**{name: value})


@pytest.mark.parametrize("value", [None, 1, ["mean"], np.array(["mean", "sum"]), b"mean", "Mean"])
def test_a_choice_of_another_type_is_one_line(value):
    for name, call in {
        "reduction": lambda **o: fx.cross_entropy(LOGITS, TARGET, **o),
        "input": lambda **o: fx.entropy(LOGITS, **o),
        "dtype": lambda **o: fx.softmax(LOGITS, **o) if value is not None else fx.softmax(LOGITS, dtype="none"),
    }.items():
        with pytest.raises(fx.ConfigError, match=rf"^{name} must be one of [^\n]*, got [^\n]*$"):
            call(**{name: value})


# ---- textbook values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("c", [1, 2, 3, 10, 100, 1000, 50257])
def test_uniform_logits_cost_log_c(c, dtype):
    rows = np.full((2, c), 0.5, ref.DTYPES[dtype])
    expected = np.log(c)
    loss = fx.cross_entropy(rows, [0, c - 1], reduction="none")
    assert (ref.ulp_error(loss, np.log(WIDE(c)), loss.dtype) <= 1).all()
    np.testing.assert_allclose(fx.row_statistics(rows).entropy, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fx.entropy(rows, input="logits"), expected, rtol=1e-6, atol=1e-7)


def test_known_values():
    assert fx.cross_entropy(np.array([0.0, math.log(3)]), 1) == pytest.approx(math.log(4 / 3), rel=1e-15)
    assert fx.cross_entropy(np.array([0.0, math.log(3)]), 0, base=2) == pytest.approx(2.0, rel=1e-15)
    assert fx.binary_cross_entropy(np.array([0.9, 0.2]), np.array([1.0, 0.0])) == pytest.approx(
        -(math.log(0.9) + math.log(0.8)) / 2, rel=1e-14
    )
    assert fx.binary_cross_entropy_with_logits(np.array([0.0]), np.array([1.0])) == pytest.approx(
        math.log(2), rel=1e-15
    )
    np.testing.assert_allclose(fx.entropy(np.full((2, 8), 0.125), base=2), [3, 3], rtol=1e-15)
    np.testing.assert_array_equal(fx.entropy(np.eye(3)), 0)
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    assert fx.kl_divergence(p, q, input="probs") == pytest.approx(0.5 * math.log(25 / 9), rel=1e-14)
    assert fx.js_divergence(np.eye(2)[:1], np.eye(2)[1:], input="probs", base=2) == pytest.approx(1.0, rel=1e-15)
    assert fx.kl_divergence(np.eye(2)[:1], np.eye(2)[1:], input="probs") == np.inf


def test_divergences_of_more_rows_than_are_taken_at_once():
    p, q = np.random.default_rng(3).normal(size=(2, 5000, 3))
    for name in ("kl_divergence", "js_divergence"):
        rows = getattr(fx, name)(p, q, reduction="none")
        truth = getattr(ref, name)(p, q, reduction="none").astype(float)
        np.testing.assert_allclose(rows, truth, rtol=1e-12, atol=1e-14)


def test_divergence_is_cross_entropy_minus_entropy():
    x, y = np.random.default_rng(3).normal(size=(2, 6, 50))
    cross = fx.cross_entropy(y, fx.softmax(x), reduction="none")
    np.testing.assert_allclose(
        fx.kl_divergence(x, y, reduction="none"), cross - fx.entropy(x, input="logits"), rtol=1e-12
    )


@pytest.mark.parametrize("alpha", [None, 0.25, WEIGHT])
def test_focal_loss(alpha):
    target = np.array([0, 3, 1, 5, 2])
    plain = fx.cross_entropy(LOGITS, target, reduction="none")
    share = 1.0 if alpha is None else np.broadcast_to(alpha, C)[target]
    np.testing.assert_allclose(
        fx.focal_loss(LOGITS, target, gamma=0.0, alpha=alpha, reduction="none"), share * plain, rtol=1e-14
    )
    for reduction in ("none", "mean", "sum"):
        for gamma in (0.5, 2.0, 5.0):
            truth = ref.focal_loss(LOGITS, target, gamma=gamma, alpha=alpha, reduction=reduction)
            result = fx.focal_loss(LOGITS, target, gamma=gamma, alpha=alpha, reduction=reduction)
            np.testing.assert_allclose(result, truth.astype(float), rtol=1e-12)


# ---- entropy, divergences, binary: against the oracle ---------------------------------------------------------


@settings(max_examples=80)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([  # of dtype, kind of input and number of classes each pair: see KERNELS
        (np.float32, "logits", (3, 10)), (np.float64, "logits", (2, 3, 70)), (np.float32, "probs", (2, 3, 70)),
        (np.float64, "probs", (4,)), (np.float32, "log_probs", (5, 2)), (np.float64, "log_probs", (2, 3, 70)),
    ]),
    st.sampled_from([None, 2.0]),
    st.sampled_from(["none", "sum", "batchmean"]),
)  # fmt: skip
def test_entropy_and_divergences_match_the_oracle(seed, kind, base, reduction):
    dtype, input, shape = kind
    if len(shape) != 2 and reduction == "batchmean":
        reduction = "none"
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=shape) * 3 for _ in range(2))
    if input != "logits":
        x, y = (ref.softmax(v) if input == "probs" else ref.log_softmax(v) for v in (x, y))
    x, y = x.astype(dtype), y.astype(dtype)
    tolerance = 64 * np.finfo(dtype).eps * (1 + math.prod(shape[:-1])) * 10
    agrees(fx.entropy(x, input=input, base=base), ref.entropy(x, input=input, base=base), tolerance)
    for name in ("kl_divergence", "js_divergence"):
        result = getattr(fx, name)(x, y, input=input, reduction=reduction, base=base)
        agrees(result, getattr(ref, name)(x, y, input=input, reduction=reduction, base=base), tolerance)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), (5,), (3, 4), (2, 3, 70)]),
    st.sampled_from(list(ref.DTYPES)),
    st.sampled_from(["logits", "probs"]),
    st.sets(st.sampled_from(["weight", "pos_weight", "label_smoothing"])),
    st.sampled_from(["none", "sum", "mean"]),
    st.booleans(),
)
def test_binary_cross_entropy_matches_the_oracle(seed, shape, dtype, input, names, reduction, soft):
    rng = np.random.default_rng(seed)
    dtype = ref.DTYPES[dtype]
    x = (rng.uniform(0.01, 0.99, size=shape) if input == "probs" else rng.normal(size=shape) * 20).astype(dtype)
    target = rng.random(shape) if soft else rng.integers(2, size=shape)
    options = {
        "weight": rng.uniform(0, 2, size=shape),
        "pos_weight": rng.uniform(0.5, 2, size=shape[-1:]),
        "label_smoothing": 0.1,
    }
    options = {k: v for k, v in options.items() if k in names and (input == "logits" or k == "weight")}
    truth, slope = ref.binary_cross_entropy_with_grad(x, target, input=input, reduction=reduction, **options)
    name = "binary_cross_entropy" + ("_with_logits" if input == "logits" else "")
    loss = getattr(fx, name)(x, target, reduction=reduction, **options)
    result = getattr(fx, name + "_with_grad")(x, target, reduction=reduction, **options)
    eps = compute_eps(dtype)
    scale = 1 + np.abs(np.asarray(truth))
    agrees(loss, truth, 16 * eps * scale)
    agrees(result.loss, truth, 16 * eps * scale)
    assert result.grad.dtype == dtype
    agrees(result.grad, slope, np.abs(slope) * (32 * eps + float(ref.ml_dtypes.finfo(dtype).eps)) + 4 * eps)


def test_binary_edges():
    loss, grad = fx.binary_cross_entropy_with_logits_with_grad(
        np.array([1e4, -1e4, 1e4, np.nan]), np.array([1.0, 0.0, 0.0, 1.0]), reduction="none"
    )
    np.testing.assert_array_equal(loss, [0, 0, 1e4, np.nan])
    np.testing.assert_array_equal(grad, [0, 0, 1, np.nan])
    np.testing.assert_array_equal(
        fx.binary_cross_entropy(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0]), reduction="none"), [0, 0, np.inf]
    )
    with pytest.raises(ValueError, match="target"):
        fx.binary_cross_entropy_with_logits(np.zeros(3), np.zeros(4))
