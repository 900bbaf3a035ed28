"""Array functions and memory: any layout, any owner of the buffer, and `out=`."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

import fastxent as fx
import reference as ref
from tests.functions.every_function import TARGET, C, N, assert_same_bits, every_function, unaligned

# ---- layouts -------------------------------------------------------------------------------------------------


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def every_other_class(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 2, axis=-1)[:, ::2]


def every_other_row(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 2, axis=0)[::2]


def padded_rows(x: np.ndarray) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 3)))[:, :-3]


def backwards(x: np.ndarray) -> np.ndarray:
    return x[::-1, ::-1].copy()[::-1, ::-1]


def misplaced_rows(x: np.ndarray) -> np.ndarray:
    """Rows a number of bytes apart that is no multiple of the item's."""
    step = x.shape[1] * x.itemsize + 1
    view = np.ndarray(x.shape, x.dtype, np.zeros(len(x) * step + 1, np.uint8), offset=1, strides=(step, x.itemsize))
    view[...] = x
    return view


LAYOUTS: list[Callable[[np.ndarray], np.ndarray]] = [
    read_only,
    np.asfortranarray,
    every_other_class,
    every_other_row,
    padded_rows,
    backwards,
    unaligned,
    misplaced_rows,
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_any_layout_gives_the_same_bits(layout, dtype):
    x = ref.rows_of("language model", N, C, ref.DTYPES[dtype])
    laid = layout(x)
    np.testing.assert_array_equal(ref.bits_of(laid), ref.bits_of(x))
    assert_same_bits(every_function(laid, layout(TARGET[:, None])[:, 0]), every_function(x, TARGET))
    np.testing.assert_array_equal(ref.bits_of(laid), ref.bits_of(x))  # the input is left alone


def test_broadcast_rows_and_classes():
    row = ref.rows_of("normal", 1, C, np.float32)
    rows, column = np.broadcast_to(row, (N, C)), np.broadcast_to(np.float32([[1], [2]]), (2, C))
    assert rows.strides[0] == column.strides[1] == 0
    assert_same_bits(every_function(rows, TARGET), every_function(rows.copy(), TARGET))
    assert_same_bits(every_function(column, TARGET[:2]), every_function(column.copy(), TARGET[:2]))


@pytest.mark.parametrize("byteorder", ["<f4", ">f4", ">f8"])
def test_either_byte_order(byteorder):
    x = ref.rows_of("normal", N, C, byteorder)
    assert_same_bits(every_function(x, TARGET), every_function(x.astype(x.dtype.newbyteorder("=")), TARGET))


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("shape", [(C,), (1, C), (4, C), (2, 3, C), (2, 2, 2, C)])
def test_leading_dimensions_are_free(shape, dtype):
    x = ref.rows_of("normal", math.prod(shape[:-1]), C, ref.DTYPES[dtype])
    target = np.random.default_rng(4).integers(C, size=len(x))
    flat, shaped = every_function(x, target), every_function(x.reshape(shape), target.reshape(shape[:-1]))
    for name, result in shaped.items():
        assert np.shape(result) in (shape, shape[:-1])
        assert len(np.shape(flat[name])) - 1 == len(np.shape(result)) - len(shape[:-1])
    assert_same_bits({k: np.reshape(v, flat[k].shape) for k, v in shaped.items()}, flat)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_any_axis_may_hold_the_classes(axis):
    x = ref.rows_of("normal", N, C, np.float32).reshape(2, 3, C)
    target, moved = TARGET.reshape(2, 3), np.moveaxis(x, -1, axis)
    last, other = every_function(x, target), every_function(moved, target, axis=axis)
    for name in ("grad", "softmax", "log_softmax"):
        other[name] = np.moveaxis(other[name], axis, -1)
    assert_same_bits(other, last)
    soft = fx.softmax(x)
    soft_loss = fx.cross_entropy(moved, np.moveaxis(soft, -1, axis), axis=axis)
    assert soft_loss == fx.cross_entropy(x, soft)


def test_bfloat16_as_bits_with_a_dtype():
    x = ref.rows_of("normal", N, C, ref.BFLOAT16)
    results, expected = every_function(x.view(np.uint16), TARGET, dtype="bfloat16"), every_function(x, TARGET)
    for name, result in results.items():
        np.testing.assert_array_equal(ref.bits_of(result), ref.bits_of(expected[name]), err_msg=name)


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.complex64, np.bool_, object, "U3"])
def test_logits_of_other_dtypes_are_refused(dtype):
    x = np.zeros((2, 3)).astype(dtype)
    for call in (fx.log_softmax, fx.row_statistics, lambda x: fx.cross_entropy(x, [0, 1])):
        with pytest.raises((TypeError, ValueError), match=r"dtype|float"):
            call(x)


# ---- other owners of memory ----------------------------------------------------------------------------------


class Array:
    """Speaks `__array__` and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array if dtype is None else self._array.astype(dtype)


class DLPack:
    """Speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Arrow:
    """Speaks the Arrow PyCapsule interface and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        self._array = flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[-1])

    def __arrow_c_array__(self, requested_schema=None):
        return self._array.__arrow_c_array__(requested_schema)


@pytest.mark.parametrize("owner", [Array, DLPack, Arrow])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_arrays_of_others(owner, dtype):
    x = ref.rows_of("normal", N, C, ref.DTYPES[dtype])
    assert_same_bits(every_function(owner(x), owner(TARGET)), every_function(x, TARGET))
    weight = np.arange(C) / 4
    assert fx.cross_entropy(owner(x), owner(TARGET), weight=owner(weight)) == fx.cross_entropy(x, TARGET, weight=weight)


def arrow_forms(x: np.ndarray) -> dict[str, pa.Array]:
    flat = pa.array(x.reshape(-1))
    fixed = pa.FixedSizeListArray.from_arrays(flat, C)
    offsets = np.arange(0, x.size + 1, C)
    return {
        "fixed": fixed,
        "sliced": pa.concat_arrays([fixed.slice(0, 1), fixed]).slice(1),
        "list": pa.ListArray.from_arrays(offsets.astype(np.int32), flat),
        "large list": pa.LargeListArray.from_arrays(offsets, flat),
        "chunked": pa.chunked_array([fixed.slice(0, 2), fixed.slice(2)]),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(x),
    }


@pytest.mark.parametrize("form", ["fixed", "sliced", "list", "large list", "chunked", "tensor"])
def test_arrow_arrays(form):
    x = ref.rows_of("normal", N, C, np.float32)
    target = pa.chunked_array([TARGET]) if form == "chunked" else pa.array(TARGET)
    assert_same_bits(every_function(arrow_forms(x)[form], target), every_function(x, TARGET))


def test_arrow_nulls_and_ragged_lists_are_errors():
    x = ref.rows_of("normal", N, C, np.float32)
    with pytest.raises((TypeError, ValueError), match="null"):
        fx.cross_entropy(x, pa.array([0, None, 1, 2, 3, 4]))
    with pytest.raises((TypeError, ValueError), match="null"):
        fx.log_softmax(pa.array([1.0, None, 2.0]))
    with pytest.raises((TypeError, ValueError), match="null"):
        fx.log_softmax(pa.array([[1.0, 2.0], None]))
    with pytest.raises((TypeError, ValueError), match="length"):
        fx.log_softmax(pa.array([[1.0, 2.0], [1.0]]))


@pytest.mark.parametrize("owner", [read_only, DLPack, Arrow, lambda x: x[:, 4:]])
def test_the_logits_are_not_copied(owner):
    x = owner(np.zeros((4000, 1000), np.float32))
    target = np.zeros(4000, np.int64)
    fx.cross_entropy(x, target), fx.row_statistics(x, target)  # compiled
    tracemalloc.start()
    try:
        fx.cross_entropy(x, target)
        fx.row_statistics(x, target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


# ---- out= ----------------------------------------------------------------------------------------------------

INTO_OUT = {
    "log_softmax": fx.log_softmax,
    "softmax": fx.softmax,
    "grad": lambda x, out=None: fx.cross_entropy_with_grad(x, TARGET, out=out).grad,
    "smooth grad": lambda x, out=None: fx.cross_entropy_with_grad(x, TARGET, label_smoothing=0.1, out=out).grad,
    "soft grad": lambda x, out=None: fx.cross_entropy_with_grad(x, np.full((N, C), 1 / C), out=out).grad,
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, d) for n in INTO_OUT for d in ref.DTYPES if d != "bfloat16" or not n.startswith(("smooth", "soft "))],
)
@pytest.mark.parametrize("family", ["language model", "ascending"])
def test_out_and_in_place(name, dtype, family):
    x = ref.rows_of(family, N, C, ref.DTYPES[dtype])
    expected = ref.bits_of(INTO_OUT[name](x))
    for out in (np.empty_like(x), x.copy()):
        assert INTO_OUT[name](x, out=out) is out
        np.testing.assert_array_equal(ref.bits_of(out), expected)
    inplace = x.copy()
    assert INTO_OUT[name](inplace, out=inplace) is inplace
    np.testing.assert_array_equal(ref.bits_of(inplace), expected)
    wrong_layout = np.asfortranarray(x)
    assert INTO_OUT[name](wrong_layout, out=wrong_layout) is wrong_layout
    np.testing.assert_array_equal(ref.bits_of(wrong_layout), expected)


LOSSES_INTO_OUT = {
    "logsumexp": lambda x, out=None: fx.logsumexp(x, out=out),
    "loss": lambda x, out=None: fx.cross_entropy(x, TARGET, reduction="none", out=out),
    "weighted": lambda x, out=None: fx.cross_entropy(
        x, TARGET, weight=np.arange(1.0, C + 1), reduction="none", out=out
    ),
    "nll": lambda x, out=None: fx.nll_loss(x, TARGET, reduction="none", out=out),
    "binary": lambda x, out=None: fx.binary_cross_entropy_with_logits(
        x[:, 0], np.arange(N) % 2, reduction="none", out=out
    ),
    "binary probs": lambda x, out=None: fx.binary_cross_entropy(
        1 / (1 + x[:, 1] ** 2), np.arange(N) % 2, reduction="none", out=out
    ),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in LOSSES_INTO_OUT for dtype in ("float32", "float64")]
    + [(name, dtype) for name in ("logsumexp", "loss") for dtype in ("float16", "bfloat16")],
)
def test_losses_into_out(name, dtype):
    x = ref.rows_of("normal", N, C, ref.DTYPES[dtype])
    expected = LOSSES_INTO_OUT[name](x)
    raw = np.zeros(8 * N + 1, np.uint8)
    unaligned = raw[1 : 1 + N * expected.itemsize].view(expected.dtype)
    for out in (np.full_like(expected, 7), np.full((N, 3), 7, expected.dtype)[:, 1], unaligned):
        assert LOSSES_INTO_OUT[name](x, out=out) is out
        np.testing.assert_array_equal(ref.bits_of(out), ref.bits_of(expected))


@pytest.mark.parametrize("name", LOSSES_INTO_OUT)
def test_losses_into_memory_that_is_still_read(name):
    x = ref.rows_of("normal", N, C, np.float32)
    expected = LOSSES_INTO_OUT[name](x)
    LOSSES_INTO_OUT[name](x, out=x.reshape(-1)[:N])
    np.testing.assert_array_equal(ref.bits_of(x.reshape(-1)[:N]), ref.bits_of(expected))


@pytest.mark.parametrize("c", [20, 300])
@pytest.mark.parametrize("name", ["weight", "class_mask", "sample_weight", "target"])
def test_losses_into_memory_of_an_argument(name, c):
    n = 900  # more than are taken at a time
    x = np.random.default_rng(3).normal(size=(n, c))
    given = {
        "weight": np.linspace(0.5, 2, c),
        "class_mask": np.arange(c) % 7 != 6,
        "sample_weight": np.linspace(-1, 1, n),
        "target": np.arange(n) % 6,
    }
    target = given.pop("target")
    expected = fx.cross_entropy(x, target, **given, reduction="none")
    out = np.empty(n)
    array = given | {"target": target}
    shared = out.view(array[name].dtype)[: array[name].size]
    shared[:] = array[name]
    array[name] = shared
    fx.cross_entropy(x, **array, reduction="none", out=out)
    np.testing.assert_array_equal(ref.bits_of(out), ref.bits_of(expected))


def test_losses_into_a_tensor_of_another_library_come_back_as_it():
    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return self.values

    x = ref.rows_of("normal", N, C, np.float32)
    out = Tensor(np.empty(N, np.float32))
    assert fx.cross_entropy(x, TARGET, reduction="none", out=out) is out
    np.testing.assert_array_equal(out.values, fx.cross_entropy(x, TARGET, reduction="none"))


def test_losses_go_into_no_list():
    x = ref.rows_of("normal", N, C, np.float64)
    with pytest.raises(TypeError, match="out"):
        fx.cross_entropy(x, TARGET, reduction="none", out=[0.0] * N)


@pytest.mark.parametrize("name", LOSSES_INTO_OUT)
@pytest.mark.parametrize(
    "out", [np.empty(N), np.empty(N + 1, np.float32), np.empty((N, 1), np.float32), read_only(np.empty(N, np.float32))]
)
def test_a_wrong_out_for_losses_is_an_error(name, out):
    with pytest.raises(ValueError, match="out"):
        LOSSES_INTO_OUT[name](ref.rows_of("normal", N, C, np.float32), out=out)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_out_holds_no_scalar(reduction):
    x, out = ref.rows_of("normal", N, C, np.float32), np.empty(N, np.float32)
    with pytest.raises(ValueError, match="out"):
        fx.cross_entropy(x, TARGET, reduction=reduction, out=out)
    with pytest.raises(ValueError, match="out"):
        fx.binary_cross_entropy_with_logits(x[:, 0], np.ones(N), reduction=reduction, out=out)


@pytest.mark.parametrize("name", INTO_OUT)
def test_out_that_overlaps_the_logits_is_right(name):
    buffer = np.zeros((N + 1, C), np.float32)
    for source, out in ((buffer[1:], buffer[:-1]), (buffer[:-1], buffer[1:])):
        source[...] = ref.rows_of("normal", N, C, np.float32)
        expected = INTO_OUT[name](source.copy())
        INTO_OUT[name](source, out=out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", INTO_OUT)
@pytest.mark.parametrize(
    "out",
    [
        np.empty((N, C)),
        np.empty((N, C), np.float16),
        np.empty((N, C + 1), np.float32),
        np.empty((N + 1, C), np.float32),
        np.empty(N * C, np.float32),
        np.broadcast_to(np.float32(0), (N, C)),
        read_only(np.empty((N, C), np.float32)),
        [[0.0] * C] * N,
    ],
    ids=["float64", "float16", "wide", "long", "flat", "broadcast", "read-only", "list"],
)
def test_a_wrong_out_is_an_error(name, out):
    with pytest.raises((TypeError, ValueError), match="out"):
        INTO_OUT[name](ref.rows_of("normal", N, C, np.float32), out=out)


def test_an_error_leaves_the_logits_alone():
    x = ref.rows_of("normal", N, C, np.float32)
    before = x.copy()
    with pytest.raises(ValueError, match="target"):
        fx.cross_entropy_with_grad(x, np.full(N, C), out=x)
    np.testing.assert_array_equal(x, before)
