"""Arrays of other libraries as NumPy's, without a copy where their memory allows."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fastxent.errors import ConfigError
from fastxent.kernels.floats import FLOAT_TYPES


def as_numpy(values: Any, name: str = "array") -> np.ndarray:
    """A NumPy view of anything that speaks DLPack, ``__array__`` or the Arrow PyCapsule interface, or of a sequence."""
    if isinstance(values, np.ndarray):
        return values
    array: np.ndarray
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach()
        if values.dtype == torch.bfloat16:
            import ml_dtypes

            array = values.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        else:
            array = values.numpy()
        return array
    if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
        return _from_arrow(values, name)
    if hasattr(values, "__dlpack__"):
        try:
            return np.from_dlpack(values)
        except (BufferError, RuntimeError, TypeError, ValueError):  # another device or dtype: let it convert itself
            pass
    return np.asarray(values)


def _from_arrow(values: Any, name: str) -> np.ndarray:
    import pyarrow as pa

    if isinstance(values, pa.Array | pa.ChunkedArray):
        array = values
    elif hasattr(values, "__arrow_c_array__"):
        array = pa.array(values)
    else:
        array = pa.chunked_array(values)
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    if isinstance(array, pa.BaseExtensionArray if hasattr(pa, "BaseExtensionArray") else pa.ExtensionArray):
        if hasattr(array, "to_numpy_ndarray"):
            result: np.ndarray = array.to_numpy_ndarray()
            return result
        array = array.storage
    shape = [len(array)]
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise ConfigError(f"{name} holds null rows")
        if pa.types.is_fixed_size_list(array.type):
            shape.append(array.type.list_size)
        else:
            lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
            if len(lengths) > 1:
                raise ConfigError(
                    f"{name} has rows of {lengths[0]} and of {lengths[1]} values; all rows have one length"
                )
            shape.append(int(lengths[0]) if len(lengths) else 0)
        array = array.flatten()
    if array.null_count:
        raise ConfigError(f"{name} holds nulls")
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    found: np.ndarray = array.to_numpy(zero_copy_only=False)
    return found.reshape(shape)


def as_floats(values: Any, dtype: str | None = None, name: str = "logits") -> tuple[np.ndarray, str]:
    """(array, dtype name): float32, float64, float16, or 16-bit integers that hold bfloat16.

    ``dtype="bfloat16"`` reads 16-bit integers as such. Anything else that is not floating is an error.
    """
    array = as_numpy(values, name)
    found = str(array.dtype)
    if dtype is not None:
        if dtype not in FLOAT_TYPES:
            raise ConfigError(f"dtype={dtype!r}; it is one of {', '.join(FLOAT_TYPES)}")
        if dtype == "bfloat16" and array.dtype.kind in "ui" and array.dtype.itemsize == 2:
            return array.view(np.uint16), dtype
        if dtype != found:
            raise ConfigError(f"{name} holds {found}, not {dtype}")
    if found == "bfloat16":
        return array.view(np.uint16), found
    if array.dtype.kind == "f" and array.dtype.itemsize in (2, 4, 8):
        return (array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))), array.dtype.name
    if array.dtype.kind == "f":
        return array.astype(np.float64), "float64"
    hint = '; for bfloat16 bits pass dtype="bfloat16"' if found in ("uint16", "int16") else ""
    raise TypeError(f"{name} holds {found}, not floating-point numbers{hint}")
