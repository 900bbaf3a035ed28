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
from tests.functions.examples import LOGITS, NLL, TARGET, USED, WEIGHT, C, agrees, compute_eps

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
