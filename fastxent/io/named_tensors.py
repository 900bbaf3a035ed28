"""A tensor that an option names: an array, or a file as in "head.safetensors", "file:tensor" and "folder:tensor".

A folder is that of a model: one ``.safetensors`` file, or several with an index that names the file of each tensor.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.errors import ColumnError, ConfigError, FastxentError, SourceError
from fastxent.io.arrays import Held
from fastxent.io.dicts import held
from fastxent.io.storage.files import File, reading
from fastxent.io.tensors import NPY_MAGIC, Stored, looks_like_safetensors, read_npy, read_safetensors
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.names import some

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
_USUAL = "lm_head.weight"
_SHOWN = 8  # names
_LONGEST_INDEX = 100 << 20


@dataclass(frozen=True)
class NamedTensor:
    """An array and where it comes from.

    array: Held or Stored. Its numbers.
    kind: "float16" | "bfloat16" | "float32" | "float64". Their type.
    name: str. The array as an error names it.
    files: the files that it is read from; none if it is in memory.
    bias: str or None. The bias that lies beside a weight.
    """

    array: Held | Stored
    kind: str
    name: str
    files: tuple[File, ...] = ()
    bias: str | None = None


def named_tensor(option: str, value: Any) -> NamedTensor:
    """The tensor that the value of an option names. `ConfigError` or `SourceError` if there is none."""
    if isinstance(value, str):
        stored, files, name, bias = _stored(option, value)
        return NamedTensor(stored, _kind(stored, name), name, files, bias)
    try:
        array: Any = held(np.asarray(value, np.float64) if isinstance(value, list | tuple) else value, option)
    except (FastxentError, TypeError, ValueError) as error:
        raise ConfigError(f"{option} must be a file or an array of floats: {' '.join(str(error).split())}") from None
    if not isinstance(array, Held):
        raise ConfigError(f"{option} must be a file or an array of floats, got a {type(value).__name__}")
    return NamedTensor(array, _kind(array, option), option)


def _kind(array: Held | Stored, name: str) -> str:
    dtype = array.values.dtype if isinstance(array, Held) else array.dtype
    kind = array.tag or dtype.name
    if kind not in FLOAT_TYPES:
        raise ConfigError(f"{name} must hold {', '.join(FLOAT_TYPES)}, got {kind}; convert it to float32")
    return kind


_Found = tuple[Stored, tuple[File, ...], str, str | None]  # a tensor, its files, its name, and the bias beside it


def _stored(option: str, text: str) -> _Found:
    """The tensor that text names."""
    if "://" in text:
        raise SourceError(f"cannot read {option} from {text}: it must be a file on this machine; download it first")
    path, tensor = os.path.expanduser(text), ""
    if not os.path.exists(path):
        before, _, after = path.rpartition(":")
        if before and os.path.exists(before):
            path, tensor = before, after
    if os.path.isdir(path):
        inside = [os.path.join(path, name) for name in (_INDEX, _WHOLE)]
        path = next(filter(os.path.exists, inside), "")
        if not path:
            raise SourceError(f"cannot read {option} from {text}: the folder holds neither {_INDEX} nor {_WHOLE}")
    file = File(path, path)
    with reading(path):
        os.stat(path)  # says why it cannot be had
    with file.open() as handle, reading(path):
        head, size = handle.read(16), handle.size()
    if head.startswith(NPY_MAGIC):
        if tensor:
            raise SourceError(f"cannot read {option} from {text}: a .npy file has no names; omit ':{tensor}'")
        array = read_npy(file)
        return array, (file,), path, None
    if path.endswith(".json"):
        shards = _shards(file)
        tensor = _chosen(option, text, list(shards), list(shards), tensor)
        shard = os.path.join(os.path.dirname(path), shards[tensor])
        return _of_safetensors(option, File(shard, shard), tensor, (file,), list(shards))
    if not looks_like_safetensors(head, size):
        raise SourceError(f"cannot read {option} from {path}: it must be a .safetensors or .npy file; convert it")
    found = read_safetensors(file)
    deep = 2 if option == "head" else 1
    fitting = [
        name for name, held in found.items()
        if isinstance(held, Stored) and len(held.shape) == deep and (held.tag or held.dtype.name) in FLOAT_TYPES
    ]  # fmt: skip
    return _of_safetensors(option, file, _chosen(option, text, list(found), fitting, tensor), (), list(found))


def _of_safetensors(option: str, file: File, tensor: str, index: tuple[File, ...], names: list[str]) -> _Found:
    """A tensor of a file. names: of all tensors of the model."""
    with reading(file.name):
        os.stat(file.path)
    found = read_safetensors(file).get(tensor)
    if found is None:
        raise SourceError(
            f"cannot read {option} from {file.name}: the index names its tensor {tensor!r}, which it lacks"
        )
    if isinstance(found, ColumnError):
        raise found
    stem, dot, last = tensor.rpartition(".")
    beside = f"{stem}{dot}bias"
    has_bias = option == "head" and last == "weight" and beside in names
    return found, (file, *index), f"{file.name}:{tensor}", beside if has_bias else None


def _chosen(option: str, text: str, names: list[str], fitting: list[str], tensor: str) -> str:
    """The tensor that is named, that of a language model (also if it does not fit: another would be another head), or
    the only one of those that fit."""
    if tensor in names:
        return tensor
    if not tensor and option == "head" and _USUAL in names:
        return _USUAL
    if not tensor and len(fitting) == 1:
        return fitting[0]
    held = f"it holds {some(map(repr, names), _SHOWN) or 'no tensors'}"
    if tensor:
        raise SourceError(f"cannot read {option} from {text}: there is no tensor {tensor!r}; {held}")
    raise SourceError(f"cannot read {option} from {text}: name one of its tensors, as in '{text}:NAME'; {held}")


def _shards(file: File) -> dict[str, str]:
    """The file of each tensor of a model, as its index tells."""
    with file.open() as handle, reading(file.name):
        if handle.size() > _LONGEST_INDEX:
            raise ValueError("the index is too long")
        try:
            found = json.loads(handle.read().decode("utf-8"))
        except RecursionError:
            raise ValueError("the index is nested too deeply") from None
    shards = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise SourceError(
            f"cannot read {file.name}: it has no object 'weight_map' of file names; use the model's index"
        )
    outside = next((name for name in shards.values() if os.path.basename(name) != name or not name.strip(".")), None)
    if outside is not None:
        raise SourceError(f"cannot read {file.name}: 'weight_map' must name files of its folder, got {outside!r}")
    return shards
