"""Folders that `save_to_disk` of Hugging Face's datasets wrote: their data files, as ``state.json`` lists them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fastxent.errors import SourceError

STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
Read = Callable[[str], bytes]  # the bytes of a file of the folder


def data_files(folder: str, names: Sequence[str], read: Read) -> list[str]:
    """The files of a folder that hold rows: those of its state if it is a dataset, which may also hold caches.

    folder: str. Its name in errors. names: files in it.
    """
    state = _loaded(read, folder, STATE) if STATE in names else {}
    files = state.get("_data_files")
    if not isinstance(files, list):
        if INFO in names:  # of a dataset: which of its files are caches is not known
            raise _damaged(folder, f"{STATE} is missing or does not list data files")
        return list(names)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise SourceError(
            f"cannot read {folder}: its rows are chosen by indices; call dataset.flatten_indices() and save it again"
        )
    found: list[Any] = [entry.get("filename") if isinstance(entry, dict) else None for entry in files]
    for name in found:
        if name not in names or not name.endswith(".arrow"):
            raise SourceError(
                f"cannot read {folder}: {STATE} lists {name!r}, which is missing or not an .arrow file; "
                "save the dataset again"
            )
    if len(set(found)) < len(found):
        raise SourceError(f"cannot read {folder}: {STATE} lists a file twice; save the dataset again")
    return [str(name) for name in found]


def refuse_splits(folder: str, names: Sequence[str], read: Read) -> None:
    """Raise SourceError for a folder of several splits: their rows are not one dump."""
    if SPLITS not in names:
        return
    splits = _loaded(read, folder, SPLITS).get("splits")
    if not isinstance(splits, list) or not splits:
        raise _damaged(folder, f"{SPLITS} does not list splits")
    raise SourceError(
        f"cannot read {folder}: it holds the splits {', '.join(map(str, splits))}; name one, as in "
        f"{folder.rstrip('/')}/{splits[0]}"
    )


def _loaded(read: Read, folder: str, name: str) -> dict[str, Any]:
    """The object of a JSON file; {} if it holds another value. SourceError if it is damaged: without it, caches would
    be read as data, and missing files would not be missed."""
    try:
        found = json.loads(read(name))
    except (ValueError, RecursionError):
        raise _damaged(folder, f"{name} is not JSON") from None
    return found if isinstance(found, dict) else {}


def _damaged(folder: str, what: str) -> SourceError:
    return SourceError(f"cannot read {folder}: {what}; save the dataset again, or name the data files")
