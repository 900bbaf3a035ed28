"""Arrays of other libraries, in every argument: what they hold is read as it is, or refused with one line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import fastxent as fx
from fastxent.io.interchange import as_numpy

X = np.array([[2.0, 1.0], [0.0, 3.0]])
ROWS = X.tolist()
P = np.array([[0.25, 0.75], [0.5, 0.5]])

MATRICES = {
    "pandas frame": lambda: pd.DataFrame(X),
    "index of text": lambda: pd.DataFrame(X, index=["u", "v"]),
    "columns of one name": lambda: pd.DataFrame(X, columns=["a", "a"]),
    "pandas of nullable type": lambda: pd.DataFrame(X).astype("Float64"),
    "pandas of Arrow type": lambda: pd.DataFrame(X).astype("float64[pyarrow]"),
    "integers beside floats": lambda: pd.DataFrame({"a": X[:, 0], "b": X[:, 1].astype(int)}),
    "Series of lists": lambda: pd.Series(ROWS),
    "Series of arrays": lambda: pd.Series(list(X)),
    "Series of Arrow lists": lambda: pd.Series(ROWS, dtype=pd.ArrowDtype(pa.list_(pa.float64()))),
    "polars frame": lambda: pl.DataFrame(X),
    "polars list": lambda: pl.Series(ROWS),
    "polars array": lambda: pl.Series(ROWS, dtype=pl.Array(pl.Float64, 2)),
    "polars struct": lambda: pl.Series([{"a": 2.0, "b": 1.0}, {"a": 0.0, "b": 3.0}]),
    "table": lambda: pa.table({"a": X[:, 0], "b": X[:, 1]}),
    "record batch": lambda: pa.RecordBatch.from_pydict({"a": X[:, 0], "b": X[:, 1]}),
    "list view": lambda: pa.array(ROWS, pa.list_view(pa.float64())),
    "large list view": lambda: pa.array(ROWS, pa.large_list_view(pa.float64())),
    "slice of a list view": lambda: pa.array([[9.0], *ROWS], pa.list_view(pa.float64()))[1:],
    "slice of a list": lambda: pa.array([[9.0], *ROWS])[1:],
    "slice of a fixed-size list": lambda: pa.array([[9.0, 9.0], *ROWS], pa.list_(pa.float64(), 2))[1:],
    "chunks": lambda: pa.chunked_array([ROWS[:1], [], ROWS[1:]], pa.list_(pa.float64())),
    "tensors": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(X),
}


@pytest.mark.parametrize("name", MATRICES)
def test_rows_of_any_library_are_the_same_logits(name):
    np.testing.assert_array_equal(as_numpy(MATRICES[name]()), X)
    assert fx.cross_entropy(MATRICES[name](), [0, 1]) == fx.cross_entropy(X, [0, 1])
    assert fx.evaluate({"logits": as_numpy(MATRICES[name]()), "target": [0, 1]}).rows.used == 2


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_frame_is_a_column_of_a_dict(frame):
    result = fx.evaluate({"logits": frame(X), "target": [0, 1]})
    assert result.metrics["cross_entropy"].value == fx.cross_entropy(X, [0, 1])


COLUMNS = {
    "nullable integers": (lambda: pd.Series([0, 1], dtype="Int64"), [0, 1]),
    "pandas categories": (lambda: pd.Series(["b", "a"], dtype="category"), ["b", "a"]),
    "NaN of pandas": (lambda: pd.Series([0.0, np.nan]), [0.0, np.nan]),
    "polars categories": (lambda: pl.Series(["b", "a"], dtype=pl.Categorical), ["b", "a"]),
    "polars enum": (lambda: pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"])), ["b", "a"]),
    "no polars categories": (lambda: pl.Series([], dtype=pl.Categorical), []),
    "string view": (lambda: pa.array(["b", "a"], pa.string_view()), ["b", "a"]),
    "dictionary of chunks": (
        lambda: pa.chunked_array([pa.array(["b"]).dictionary_encode(), pa.array(["a"]).dictionary_encode()]),
        ["b", "a"],
    ),
    "dictionary of numbers": (lambda: pa.array([3, 5, 3]).dictionary_encode(), [3, 5, 3]),
    "run ends": (lambda: pc.run_end_encode(pa.array([1, 1, 2, 2, 3]))[1:4], [1, 2, 2]),
    "half floats": (lambda: pa.array(np.float16([1, 2])), [1.0, 2.0]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_library_is_its_values(name):
    make, values = COLUMNS[name]
    np.testing.assert_array_equal(as_numpy(make()), np.array(values, as_numpy(make()).dtype))


def test_an_empty_chunked_array_has_no_rows():
    logits = pa.chunked_array([], pa.list_(pa.float32(), 5))
    target = pa.chunked_array([], pa.int64())
    assert fx.cross_entropy(logits, target, reduction="sum") == 0.0
    assert np.isnan(fx.cross_entropy(logits, target))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([[1.0, 2.0], None]), "x must not hold nulls"),
        (pa.array([[1.0, None]]), "x must not hold nulls"),
        (pa.array([[1.0, None]], pa.list_view(pa.float64())), "x must not hold nulls"),
        (pa.nulls(2), "x must not hold nulls"),
        (pa.array(["a", None]).dictionary_encode(), "x must not hold nulls"),
        (pd.Series([1, None], dtype="Int64"), "x must not hold nulls"),
        (pl.DataFrame({"a": [1.0, None]}), "column 'a' of x must not hold nulls"),
        (pd.DataFrame({"a": ["u"], "b": [1.0]}), "column 'a' of x must hold numbers"),
        (pa.array([[1.0], [1.0, 2.0]]), "rows of x must have one length, got 1 and 2 values"),
        (pa.chunked_array([[[1.0]], [[1.0, 2.0]]]), "rows of x must have one length, got 1 and 2 values"),
        ([[1.0], [1.0, 2.0]], "cannot read x: "),
        (pl.LazyFrame({"a": [1.0]}), r"cannot read x: a LazyFrame is lazy; pass its \.collect\(\)"),
        (pa.DictionaryArray.from_arrays(pa.array([0, 9]), pa.array(["a"]), safe=False), "cannot read x: "),
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), "cannot read x: "),
    ],
)
def test_what_has_no_number_in_each_place_is_one_line(values, message):
    with pytest.raises(fx.ConfigError, match=f"^{message}") as error:
        as_numpy(values, "x")
    assert "\n" not in str(error.value)


# ---- masked arrays -------------------------------------------------------------------------------------------


def masked(values: np.ndarray) -> np.ma.MaskedArray:
    result = np.ma.masked_array(values, mask=np.zeros(np.shape(values), bool))
    result[0] = np.ma.masked
    return result


CALLS = {
    "logits": [
        fx.softmax, fx.log_softmax, fx.logsumexp, fx.row_statistics,
        lambda v: fx.cross_entropy(v, [0, 1]), lambda v: fx.cross_entropy_with_grad(v, [0, 1]),
        lambda v: fx.focal_loss(v, [0, 1]), lambda v: fx.binary_cross_entropy_with_logits(v, P),
        lambda v: fx.binary_cross_entropy_with_logits_with_grad(v, P),
    ],
    "probs": [
        lambda v: fx.log_loss(v, [0, 1]), lambda v: fx.binary_cross_entropy(v, P),
        lambda v: fx.binary_cross_entropy_with_grad(v, P),
    ],
    "p": [fx.entropy, lambda v: fx.kl_divergence(v, X), lambda v: fx.js_divergence(v, X)],
    "q": [lambda v: fx.kl_divergence(X, v), lambda v: fx.js_divergence(X, v)],
}  # fmt: skip
BESIDE = {
    "target": [
        (np.array([0, 1]), lambda v: fx.cross_entropy(X, v)), (P, lambda v: fx.cross_entropy(X, v)),
        (np.array([0, 1]), lambda v: fx.row_statistics(X, v)), (np.array([0, 1]), lambda v: fx.focal_loss(X, v)),
        (np.array([0, 1]), lambda v: fx.log_loss(P, v)), (P, lambda v: fx.binary_cross_entropy(P, v)),
    ],
    "weight": [
        (np.ones(2), lambda v: fx.cross_entropy(X, [0, 1], weight=v)),
        (np.ones(2), lambda v: fx.binary_cross_entropy(P, P, weight=v)),
    ],
    "pos_weight": [(np.ones(2), lambda v: fx.binary_cross_entropy_with_logits(X, P, pos_weight=v))],
    "sample_weight": [
        (np.ones(2), lambda v: fx.cross_entropy(X, [0, 1], sample_weight=v)),
        (np.ones(2), lambda v: fx.log_loss(P, [0, 1], sample_weight=v)),
    ],
    "class_mask": [
        (np.ones(2, bool), lambda v: fx.cross_entropy(X, [0, 1], class_mask=v)),
        (np.ones(2, bool), lambda v: fx.row_statistics(X, class_mask=v)),
    ],
    "alpha": [(np.ones(2), lambda v: fx.focal_loss(X, [0, 1], alpha=v))],
    "labels": [(np.array([0, 1]), lambda v: fx.log_loss(P, [0, 1], labels=v))],
    "out": [(np.empty((2, 2)), lambda v: fx.softmax(X, out=v)), (np.empty(2), lambda v: fx.logsumexp(X, out=v))],
}  # fmt: skip
ARGUMENTS = [(name, P if name == "probs" else X, call) for name, calls in CALLS.items() for call in calls]
ARGUMENTS += [(name, values, call) for name, calls in BESIDE.items() for values, call in calls]


@pytest.mark.parametrize(("name", "values", "call"), ARGUMENTS)
def test_masked_values_are_refused_in_every_argument(name, values, call):
    call(np.ma.masked_array(values))  # nothing is masked
    with pytest.raises(fx.ConfigError, match=f"^{name} must not hold masked values"):
        call(masked(values))


def test_masked_values_in_a_list_are_refused():
    for values in ([1.0, np.ma.masked], [masked(np.ones(2)), np.ones(2)]):
        with pytest.raises(fx.ConfigError, match=r"^x must not hold masked values"):
            as_numpy(values, "x")


# ---- byte order, classes of NumPy, places for results --------------------------------------------------------


def test_swapped_bytes_that_hold_bfloat16():
    x = (np.float32([[1, 2], [3, -4]]).view(np.uint32) >> 16).astype(np.uint16)
    expected = fx.softmax(x, dtype="bfloat16")
    np.testing.assert_array_equal(fx.softmax(x.astype(">u2"), dtype="bfloat16"), expected)


@pytest.mark.parametrize(
    "out", [np.empty((2, 2), ">f8"), pd.DataFrame(X), pl.DataFrame(X), pa.table({"a": [1.0]}), [[0.0, 0.0], [0.0, 0.0]]]
)
def test_a_place_that_would_stay_as_it_was_is_refused(out):
    for function in (fx.softmax, fx.log_softmax):
        with pytest.raises((TypeError, ValueError), match=r"^out must be"):
            function(X, out=out)


@pytest.mark.parametrize("target", [np.array(["0.5", "1"]), np.array([0.5j, 1.0]), np.array([None, 1], object)])
def test_probabilities_and_weights_are_numbers_not_text(target):
    two = np.stack([target, target])
    for call in (
        lambda: fx.cross_entropy(X, two),
        lambda: fx.cross_entropy(X, [0, 1], weight=target),
        lambda: fx.cross_entropy(X, [0, 1], sample_weight=target),
        lambda: fx.cross_entropy(X, [0, 1], class_mask=target),
        lambda: fx.binary_cross_entropy(P, two),
        lambda: fx.focal_loss(X, [0, 1], alpha=target),
        lambda: fx.log_loss(two, [0, 1]),
        lambda: fx.log_loss(P, [0, 1], sample_weight=target),
    ):
        with pytest.raises(TypeError, match="must hold numbers, got "):
            call()


def test_a_class_mask_holds_true_and_false():
    expected = fx.cross_entropy(X, [0, 0], class_mask=[True, False])
    assert fx.cross_entropy(X, [0, 0], class_mask=[1, 0]) == fx.cross_entropy(X, [0, 0], class_mask=[1.0, 0.0])
    assert fx.cross_entropy(X, [0, 0], class_mask=[1, 0]) == expected
    for mask in ([0.5, 1.0], [2, 1], [np.nan, 1.0]):
        with pytest.raises(fx.ConfigError, match=r"^class_mask must hold True and False, or 1 and 0"):
            fx.cross_entropy(X, [0, 0], class_mask=mask)
