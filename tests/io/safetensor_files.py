"""Files of tensors as safetensors writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def safetensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write a .safetensors file."""
    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64"}
    header, data = {}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": kinds[array.dtype.name], "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
