"""Warnings about the files of a source: a file that is named twice, or files of several splits."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from fastxent.io.storage.files import File

_SPLITS = {
    "train": "train", "training": "train", "valid": "validation", "validation": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip


def doubts(files: Sequence[File]) -> list[str]:
    """Warnings about the files of a source: the same file twice, or several splits of a data set."""
    first: dict[object, str] = {}
    twice: list[tuple[str, str]] = []
    for file in files:
        key = _key(file)
        if key in first:
            twice.append((first[key], file.name))
        first.setdefault(key, file.name)
    found = []
    if twice:
        before, name = twice[0]
        also = f", also as {name}" if name != before else ""
        more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
        found.append(f"{before} is named twice{also}{more}: its rows count twice; name each file once")
    splits: dict[str, str] = {}
    folders = [os.path.dirname(file.path).split("/") for file in files]
    shared = next((k for k, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), 1 << 20)
    for file, folder in zip(files, folders, strict=True):
        split = _split([*folder[shared:], os.path.basename(file.path)])
        if split is not None:
            splits.setdefault(split, file.name)
    if len(splits) > 1:
        named = ", ".join(f"{split} ({name})" for split, name in sorted(splits.items()))
        found.append(f"the files belong to several splits, {named}: the metrics combine all of them; name one split")
    return found


def _key(file: File) -> object:
    """The same for all names of a file."""
    if file.filesystem is not None:
        return file.filesystem.type_name, file.path
    try:
        status = os.stat(file.path)
    except OSError:  # removed since
        return file.path
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(file.path)


def _split(parts: list[str]) -> str | None:
    """The split that a file's name or folder tells. One in a ``key=value`` folder is a column."""
    words = (word.lower() for part in parts if "=" not in part for word in re.split(r"[-_. ]", part))
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)
