"""The record of rows of one number each, against the definitions in a wider float."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

import reference as ref
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.rows import odds

ODD = [0.0, -0.0, 1e-9, -1e-9, 1e-40, 0.5, -3.0, 40.0, -40.0, 90.0, -700.0, 1e4, -1e4, np.inf, -np.inf]
CHANCES = [0.0, -0.0, 1e-40, 1e-9, 1e-3, 0.25, 0.5, 0.75, 1 - 2.0**-11, 1.0]


def record(values, target, dtype, with_logits, smoothing=0.0):
    """(the record, whether a number is invalid) of numbers in their float type."""
    kind = FLOAT_TYPES[dtype]
    stored = np.ascontiguousarray(np.asarray(values).astype(ref.DTYPES[dtype]))
    y = None if target is None else np.ascontiguousarray(target, kind.compute)
    out = np.full((odds.FIELDS, len(stored)), -1.0)
    kernel = odds.odds_kernel(with_logits)
    invalid = kernel(
        stored.ctypes.data, len(stored), kind.tag, 0 if y is None else y.ctypes.data, smoothing, out.ctypes.data,
        out.strides[0],
    )  # fmt: skip
    return out, invalid, ref.wide(stored), None if y is None else ref.wide(y)


def check(values, target, dtype, with_logits, smoothing=0.0):
    out, invalid, x, t = record(values, target, dtype, with_logits, smoothing)
    assert not invalid
    eps = float(np.finfo(FLOAT_TYPES[dtype].compute).eps)
    tiny = float(np.finfo(FLOAT_TYPES[dtype].compute).tiny)
    expected = ref.binary_record(x, t, with_logits, smoothing)
    relative = {odds.NLL: expected.nll, odds.PROBABILITY: expected.probability, odds.ENTROPY: expected.entropy}
    if smoothing:
        relative[odds.LOSS] = expected.loss
    for field, wanted in relative.items():
        np.testing.assert_allclose(out[field], wanted.astype(float), rtol=6 * eps, atol=100 * tiny, err_msg=str(field))
    np.testing.assert_allclose(out[odds.BRIER], expected.brier.astype(float), rtol=6 * eps, atol=4 * eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_odd_numbers(dtype, target):
    check(ODD, np.full(len(ODD), target), dtype, True)
    check(CHANCES, np.full(len(CHANCES), target), dtype, False)
    check(ODD, np.full(len(ODD), target), dtype, True, smoothing=0.25)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    check(np.linspace(-12, 12, 101), np.arange(101) % 2, dtype, True)
    check(np.linspace(0, 1, 101), np.arange(101) % 2, dtype, False)


def test_certain_predictions_cost_nothing_or_everything():
    out, *_ = record([np.inf, -np.inf, np.inf, -np.inf], [1, 0, 0, 1], "float64", True)
    assert out[odds.NLL].tolist() == [0.0, 0.0, np.inf, np.inf]
    assert out[odds.ENTROPY].tolist() == [0.0] * 4
    assert out[odds.BRIER].tolist() == [0.0, 0.0, 1.0, 1.0]
    out, *_ = record([1.0, 0.0, 1.0, 0.0], [1, 0, 0, 1], "float32", False)
    assert out[odds.NLL].tolist() == [0.0, 0.0, np.inf, np.inf]
    assert out[odds.ENTROPY].tolist() == [0.0] * 4


@pytest.mark.parametrize("place", [0, 15, 16, 36])
@pytest.mark.parametrize(("with_logits", "number"), [(True, np.nan), (False, np.nan), (False, 1.5), (False, -0.1)])
def test_invalid_numbers_are_told(place, with_logits, number):
    values = np.full(37, 0.5)
    assert not record(values, np.zeros(37), "float32", with_logits)[1]
    values[place] = number
    assert record(values, np.zeros(37), "float32", with_logits)[1]


def test_without_labels_the_cost_is_left_alone():
    out, *_ = record([0.0, 1.0], None, "float64", True)
    assert (out[[odds.NLL, odds.LOSS, odds.BRIER]] == -1.0).all()
    assert out[odds.PROBABILITY, 0] == 0.5


@given(
    st.lists(st.tuples(st.floats(-60, 60), st.floats(0, 1)), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.125]),
)
def test_any_numbers(rows, smoothing):
    values, target = (np.array(column) for column in zip(*rows, strict=True))
    check(values, target, "float64", True, smoothing)
    check(np.abs(values) / 60, target, "float64", False, smoothing)


def test_a_row_does_not_depend_on_its_place():
    values, target = np.linspace(-9, 9, 50).astype(np.float32), np.arange(50) % 2
    whole = record(values, target, "float32", True)[0]
    for begin in (1, 7, 33):
        assert np.array_equal(record(values[begin:], target[begin:], "float32", True)[0][0], whole[0, begin:])
