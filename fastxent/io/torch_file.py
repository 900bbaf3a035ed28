"""``.pt`` and ``.pth`` files of torch: a tensor, or a dict of tensors, each a column under its key.

torch reads the names, types and places of the tensors with ``weights_only=True``, which runs no code of the file, and
reads none of their values. These are then read range by range, as those of a ``.npy`` file are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastxent.errors import ColumnError, FastxentError, SourceError
from fastxent.io.arranged import Array
from fastxent.io.arrays import ArraysPart, or_error
from fastxent.io.npz import archive, begin_of
from fastxent.io.storage.files import File
from fastxent.io.storage.identity import Version
from fastxent.io.tensors import Stored

_TYPES = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int64": "<i8", "int32": "<i4",
    "int16": "<i2", "int8": "<i1", "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "<u1", "bool": "|b1",
    "float8_e4m3fn": "<u1", "float8_e5m2": "<u1",
}  # fmt: skip
_BITS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # kept as the integers of their bits
_LONGEST_PICKLE = 1 << 20  # bytes that are looked at: it may be compressed to almost nothing
_SAVE = 'save a dict of tensors, such as {"logits": logits, "target": target}, with torch.save'


def is_torch_file(file: File) -> bool:
    """Whether a zip archive was written by torch."""
    with archive(file) as opened:
        return any(name.endswith("/data.pkl") for name in opened.namelist())


def torch_part(file: File, named: Sequence[str]) -> ArraysPart:
    """A file that `torch.save` wrote, each tensor a column; a single tensor is the column "logits"."""
    version = Version.of(file)
    with archive(file) as opened:
        stored = [
            (begin_of(file, opened, member), member)
            for member in opened.infolist()
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        ]
        order = next((opened.read(member) for _, member in stored if member.filename.endswith("/byteorder")), b"little")
    if order != b"little":
        raise SourceError(f"cannot read {file.name}: its bytes are in big-endian order; save it on another machine")
    extents = [(begin, begin + member.compress_size) for begin, member in stored]  # proven to lie in the file
    columns: dict[str, Array | FastxentError] = {
        name: or_error(_array, file, name, tensor, extents, version) for name, tensor in _tensors(file).items()
    }
    return ArraysPart(file.name, "torch", columns, named, file)


def _tensors(file: File) -> dict[str, Any]:
    """The tensors of a file by name, without their values; beside them what is not a tensor."""
    try:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError as error:
        raise SourceError(
            f"cannot read {file.name}: torch is not installed; install it with: pip install 'fastxent[torch]'"
        ) from error
    try:
        with file.open() as handle, FakeTensorMode():
            found = torch.load(handle, weights_only=True, map_location="cpu")
    except Exception as error:
        if _is_sparse(file):  # CSR and the like, which `FakeTensorMode` cannot load
            raise SourceError(f"cannot read {file.name}: it holds a sparse tensor; save logits.to_dense()") from error
        detail = str(error).split("\n")[0][:150].split(". ")[0]
        raise SourceError(f"cannot read {file.name}: {detail or type(error).__name__}; {_SAVE}") from error
    if isinstance(found, torch.Tensor):
        found = {"logits": found}
    if not isinstance(found, Mapping) or not any(isinstance(value, torch.Tensor) for value in found.values()):
        raise SourceError(f"cannot read {file.name}: it holds no dict of tensors; {_SAVE}")
    if len({str(key) for key in found}) < len(found):
        raise SourceError(f"cannot read {file.name}: two of its keys have one name; rename one")
    return {str(key): value for key, value in found.items()}


def _is_sparse(file: File) -> bool:
    """Whether a file holds a sparse tensor."""
    with archive(file) as opened:
        for name in opened.namelist():
            if name.endswith("/data.pkl"):
                with opened.open(name) as data:
                    if b"_rebuild_sparse_tensor" in data.read(_LONGEST_PICKLE):
                        return True
    return False


def _array(file: File, name: str, tensor: Any, extents: Sequence[tuple[int, int]], version: Version | None) -> Stored:
    """A tensor as an array in the file."""
    kind = str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")
    if kind not in _TYPES:
        raise ColumnError(f"cannot read {name!r} of {file.name}: {kind} is not supported; save a tensor of float32")
    if (layout := str(tensor.layout).removeprefix("torch.")) != "strided":
        raise ColumnError(f"cannot read {name!r} of {file.name}: its layout is {layout}; save {name}.to_dense()")
    if tensor.is_neg():  # a view whose numbers are stored with the other sign
        raise ColumnError(
            f"cannot read {name!r} of {file.name}: its negative bit is set; save {name}.resolve_neg().contiguous()"
        )
    if not tensor.dim():
        raise ColumnError(f"cannot read {name!r} of {file.name}: it holds a single number; save a tensor of rows")
    if not tensor.is_contiguous():
        raise ColumnError(f"cannot read {name!r} of {file.name}: it is not contiguous; save {name}.contiguous()")
    dtype = np.dtype(_TYPES[kind])
    place = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if place is None:
        raise SourceError(f"cannot read {file.name}: this version of torch does not tell where tensors lie; upgrade it")
    begin = place + tensor.storage_offset() * dtype.itemsize
    end = begin + tensor.numel() * dtype.itemsize
    if not any(low <= begin and end <= high for low, high in extents):
        raise SourceError(f"cannot read {name!r} of {file.name}: it lies outside the file; write the file again")
    return Stored(file, begin, tuple(tensor.shape), dtype, kind if kind in _BITS else None, version=version)
