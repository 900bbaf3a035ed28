"""NumPy views of arrays of other libraries, without a copy if the memory layout allows it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastxent.errors import ConfigError
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.options.checks import shown


def as_numpy(values: Any, name: str = "array") -> np.ndarray:
    """Return a NumPy view of an object with DLPack, ``__array__`` or the Arrow PyCapsule interface, or of a sequence.

    A table or frame is (rows, columns). Masked values and nulls are refused: no function has a number for them.
    """
    if isinstance(values, np.ndarray):
        return _plain(values, name)
    torch, pandas = sys.modules.get("torch"), sys.modules.get("pandas")
    if torch is not None and isinstance(values, torch.Tensor):
        return _from_torch(values, torch, name)
    if pandas is not None and isinstance(values, pandas.DataFrame | pandas.Series | pandas.Index):
        return _from_pandas(values, pandas, name)
    if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
        return _from_arrow(values, name)
    if hasattr(values, "__dlpack__"):
        try:
            return np.from_dlpack(values)
        except (BufferError, RuntimeError, TypeError, ValueError):  # another device or dtype: let it convert itself
            pass
    if hasattr(values, "collect") and not hasattr(values, "__array__"):
        raise ConfigError(f"cannot read {name}: a {type(values).__name__} is lazy; pass its .collect()")
    if isinstance(values, list | tuple):
        for value in values:
            if isinstance(value, np.ma.MaskedArray):
                _plain(value, name)
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:  # ragged
        raise ConfigError(f"cannot read {name}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    """The array itself, as no subclass of NumPy's (a matrix has always two dimensions)."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ConfigError(f"{name} must not hold masked values; replace them, for example with .filled()")
    return np.asarray(array)


def _from_torch(values: Any, torch: Any, name: str) -> np.ndarray:
    array: np.ndarray
    try:
        values = values.detach()
        if values.dtype == torch.bfloat16:
            import ml_dtypes

            array = values.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        else:
            array = values.resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, on another device, of a type NumPy does not have
        raise TypeError(f"cannot read {name}: {_first_line(error)}") from None
    return array


def _from_pandas(values: Any, pandas: Any, name: str) -> np.ndarray:
    """Numbers of NumPy's own types as they stand, NaN included; of other types without the missing value."""
    if isinstance(values, pandas.DataFrame):
        if all(isinstance(dtype, np.dtype) and dtype.kind in "fiu" for dtype in values.dtypes):
            return np.asarray(values.to_numpy())
        return _columns([(column, values.iloc[:, k]) for k, column in enumerate(values.columns)], len(values), name)
    dtype = values.dtype
    if isinstance(dtype, pandas.ArrowDtype):
        return _from_arrow(values.array.__arrow_array__(), name)
    if isinstance(getattr(dtype, "numpy_dtype", None), np.dtype):  # Int64, Float64, boolean
        if values.hasnans:
            raise ConfigError(f"{name} must not hold nulls")
        return np.asarray(values.to_numpy(dtype=dtype.numpy_dtype))
    array = np.asarray(values)
    if array.dtype == object and len(array) and not isinstance(array[0], str | bytes) and np.ndim(array[0]) > 0:
        return as_numpy(array.tolist(), name)  # a list or an array in each row
    return array


def _columns(columns: Sequence[tuple[Any, Any]], rows: int, name: str) -> np.ndarray:
    """Columns side by side, of the type that holds them all: (rows, columns)."""
    arrays = [as_numpy(values, f"column {label!r} of {name}") for label, values in columns]
    for (label, _), array in zip(columns, arrays, strict=True):
        if array.shape != (rows,) or array.dtype.kind not in "fiub":
            raise ConfigError(f"column {label!r} of {name} must hold numbers, got {array.dtype}")
    return np.stack(arrays, axis=-1) if arrays else np.empty((rows, 0))


def _from_arrow(values: Any, name: str) -> np.ndarray:
    import pyarrow as pa

    try:
        if isinstance(values, pa.Array | pa.ChunkedArray):
            array = values
        elif hasattr(values, "__arrow_c_array__"):
            array = pa.array(values)
        else:
            array = pa.chunked_array(values)
        if isinstance(array, pa.Array):
            return _of_chunk(array, name)
        chunks = [chunk for chunk in array.chunks if len(chunk)] or [pa.nulls(0, array.type)]
        parts = [_of_chunk(chunk, name) for chunk in chunks]
    except pa.ArrowException as error:
        raise ConfigError(f"cannot read {name}: {_first_line(error)}") from None
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        _same_length(parts[0].shape[1:], part.shape[1:], name)
    return np.concatenate(parts)


def _same_length(one: Any, other: Any, name: str) -> None:
    if one != other:
        one, other = (str(v[0] if isinstance(v, tuple) and len(v) == 1 else v) for v in (one, other))
        raise ConfigError(f"rows of {name} must have one length, got {one} and {other} values")


def _of_chunk(array: Any, name: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    if array.null_count:
        raise ConfigError(f"{name} must not hold nulls")
    array.validate(full=True)  # offsets and indices are followed below
    if isinstance(array, pa.BaseExtensionArray if hasattr(pa, "BaseExtensionArray") else pa.ExtensionArray):
        if hasattr(array, "to_numpy_ndarray"):
            if array.storage.flatten().null_count:
                raise ConfigError(f"{name} must not hold nulls")
            tensors: np.ndarray = array.to_numpy_ndarray()
            return tensors
        return _of_chunk(array.storage, name)
    if types.is_struct(array.type):
        return _columns(list(zip((f.name for f in array.type), array.flatten(), strict=True)), len(array), name)
    if types.is_dictionary(array.type):
        entries: np.ndarray = _of_chunk(array.dictionary, name)[array.indices.to_numpy(zero_copy_only=False)]
        return entries
    if types.is_run_end_encoded(array.type):
        return _of_chunk(pc.run_end_decode(array), name)
    lists = types.is_list, types.is_large_list, types.is_list_view, types.is_large_list_view
    if any(is_list(array.type) for is_list in lists):
        lengths = np.unique(pc.list_value_length(array).to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            _same_length(int(lengths[0]), int(lengths[1]), name)
        size = int(lengths[0]) if len(lengths) else 0
    elif types.is_fixed_size_list(array.type):
        size = array.type.list_size
    else:
        found: np.ndarray = array.to_numpy(zero_copy_only=False)
        return found
    inner = _of_chunk(array.flatten(), name)
    return inner.reshape(len(array), size, *inner.shape[1:])


_KNOWN = {np.dtype(name): name for name in ("float16", "float32", "float64")}  # the text of a dtype takes 4 us


def numbers(values: Any, name: str) -> np.ndarray:
    """`as_numpy` of real numbers or booleans; TypeError for anything else, text that spells numbers included."""
    array = as_numpy(values, name)
    if array.dtype.kind not in "fiub" and str(array.dtype) != "bfloat16":
        raise TypeError(f"{name} must hold numbers, got {kind_of(values, array)}")
    return array


def kind_of(values: Any, array: np.ndarray) -> str:
    """What an error calls the type of the numbers of an array, or of a thing that is none."""
    if array.ndim == 0 and array.dtype == object:
        return "None" if values is None else f"a {type(values).__name__}"
    return shown(array.dtype).removeprefix("dtype(").rstrip(")") if array.dtype.names else str(array.dtype)


def as_floats(values: Any, dtype: str | None = None, name: str = "logits") -> tuple[np.ndarray, str]:
    """(array, dtype name): float32, float64, float16, or 16-bit integers that hold bfloat16.

    ``dtype="bfloat16"`` reads 16-bit integers as such. Anything else that is not floating is an error.
    """
    array = as_numpy(values, name)
    if dtype is None and (known := _KNOWN.get(array.dtype)) is not None:
        return array, known
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    found = str(array.dtype)
    if dtype is not None:
        if not isinstance(dtype, str) or dtype not in FLOAT_TYPES:
            raise ConfigError(f"dtype must be one of {', '.join(map(repr, FLOAT_TYPES))}, got {shown(dtype)}")
        if dtype == "bfloat16" and array.dtype.kind in "ui" and array.dtype.itemsize == 2:
            return array.view(np.uint16), dtype
        if dtype != found:
            raise ConfigError(f"{name} must hold {dtype}, got {kind_of(values, array)}")
    if found == "bfloat16":
        return array.view(np.uint16), found
    if array.dtype.kind == "f" and array.dtype.itemsize in (2, 4, 8):
        return array, array.dtype.name
    if array.dtype.kind == "f":
        return array.astype(np.float64), "float64"
    hint = '; for bfloat16 bits pass dtype="bfloat16"' if found in ("uint16", "int16") else ""
    raise TypeError(f"{name} must hold floating-point numbers, got {kind_of(values, array)}{hint}")
