"""A dict of arrays as a part: NumPy arrays, tensors, Arrow columns, lists, or paths of ``.npy`` files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.errors import ColumnError, SourceError
from fastxent.io.arranged import Array
from fastxent.io.arrays import ArraysPart, Gathered, Held, HeldArrow, or_error
from fastxent.io.buckets import Buckets
from fastxent.io.in_place import InPlace
from fastxent.io.interchange import as_numpy
from fastxent.io.storage.files import File
from fastxent.io.tensors import read_npy, unnamed_tag


def dict_part(source: Mapping[str, Any], named: Sequence[str]) -> ArraysPart:
    """A dict of arrays, or of paths of ``.npy`` files."""
    if not source:
        raise SourceError("source must not be an empty dict; pass arrays such as {'logits': logits, 'target': target}")
    names = [str(name) for name in source]
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ColumnError(f"arrays must have different names, got {twice!r} twice; rename one")
    columns = {name: or_error(held, value, name) for name, value in zip(names, source.values(), strict=True)}
    return ArraysPart("<arrays>", "arrays", columns, named)


def held(value: Any, name: str) -> Array:
    """Return one array of a dict as a column; `ColumnError` if it cannot be one."""
    try:
        return _array(value, name)
    except (pa.ArrowException, TypeError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise ColumnError(f"cannot convert {name!r}, a {type(value).__name__}, to a column: {detail}") from None


def _array(value: Any, name: str) -> Array:
    if isinstance(value, str | os.PathLike):
        file = File(os.fspath(value), os.path.expanduser(os.fspath(value)))
        return read_npy(file)
    if isinstance(value, Gathered | Buckets | InPlace):
        return value
    if isinstance(value, pa.ChunkedArray):
        return HeldArrow(value)
    if isinstance(value, pa.Array):
        return HeldArrow(pa.chunked_array([value]))
    if isinstance(value, list | tuple):
        value = pa.array(value)
        return HeldArrow(pa.chunked_array([value]))
    if hasattr(value, "columns") and hasattr(value, "__arrow_c_stream__"):  # a frame or a table: one column per class
        value = as_numpy(value, name)
    if not isinstance(value, np.ndarray) and hasattr(value, "__arrow_c_stream__"):
        return HeldArrow(pa.chunked_array(value))
    if not isinstance(value, np.ndarray) and hasattr(value, "__arrow_c_array__"):
        return HeldArrow(pa.chunked_array([pa.array(value)]))
    torch = sys.modules.get("torch")
    tag = None
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype == torch.bfloat16:  # types NumPy does not have
            tag, value = "bfloat16", value.view(torch.int16)
        elif value.dtype.is_floating_point and value.dtype.itemsize == 1:
            value = value.float()
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        tag, array = "bfloat16", array.view(np.uint16)
    elif tag is not None:
        array = array.view(np.uint16)
    elif array.dtype.type.__module__ == "ml_dtypes":  # its narrower types, each a part of one of NumPy's
        array = array.astype(np.float32 if "float" in array.dtype.name else np.int8)
    if array.ndim == 0:
        raise ColumnError(f"{name!r} must be an array, got a {type(value).__name__}")
    if array.dtype.hasobject:
        return HeldArrow(pa.chunked_array([pa.array(array)]))
    return Held(array, tag or unnamed_tag(array.dtype))
