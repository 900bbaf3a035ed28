"""Families of columns that hold the logits together, one column per class: found by a glob, put in class order."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from fastxent.errors import ColumnError


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def families(columns: Sequence[str]) -> list[str]:
    """The columns, ``logit_*`` for all of logit_0, logit_1, ..."""
    stems = {name: name.rstrip("0123456789") for name in columns}
    shared = Counter(stem for name, stem in stems.items() if stem != name)
    return list(dict.fromkeys(f"{stem}*" if stem and shared[stem] > 1 else name for name, stem in stems.items()))


def expand(schema: pa.Schema, pattern: str, file: str, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """Columns that match a glob: in the order of ``classes`` where they are named after those, ``logit_2`` before
    ``logit_10``, any others in the order of the file. A gap in the numbers is an error, not a shift."""
    names = fnmatch.filter(schema.names, pattern)
    if not names:
        raise ColumnError.missing(pattern, schema.names, file)
    ordered = _by_class(names, classes or ())
    if _numbered(names):
        names.sort(key=_natural)
        if ordered not in (None, tuple(names)):
            raise ColumnError(
                f"cannot order the columns {pattern!r} in {file}: their numbers and the names in classes give "
                "different orders; list the columns in class order instead"
            )
    elif ordered is not None:
        return ordered
    edges = re.fullmatch(r"([^*?\[]*)\*([^*?\[]*)", pattern)
    if edges:
        inner = [name[len(edges[1]) : len(name) - len(edges[2])] for name in names]
        numbers = [int(part) for part in inner if part.isdigit()]
        if numbers and len(numbers) < len(names):
            odd = next(name for name, part in zip(names, inner, strict=True) if not part.isdigit())
            raise ColumnError(
                f"{pattern!r} must match only numbered columns in {file}, got {odd!r} as well; list the names instead"
            )
        if numbers and (numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers)))):
            raise ColumnError(
                f"the columns {pattern!r} in {file} must be numbered 0, 1, 2, ..., got {numbers[:3]}...; "
                "list the names in class order instead"
            )
    return tuple(names)


def _by_class(names: Sequence[str], classes: Sequence[str]) -> tuple[str, ...] | None:
    """The columns in the order of the classes, if they are named after them: prob_low, prob_medium, prob_high."""
    given = set(names)
    if len(given) != len(classes) or len(given) != len(names):
        return None
    for first in classes:
        before, found, after = names[0].partition(first)
        if found and given == {f"{before}{name}{after}" for name in classes}:
            return tuple(f"{before}{name}{after}" for name in classes)
    return None


def _numbered(names: Sequence[str]) -> bool:
    """Whether the names differ only in numbers."""
    return len(names) > 1 and len({re.sub(r"\d+", "0", name) for name in names}) == 1


def check_order(names: tuple[str, ...], classes: Sequence[str]) -> None:
    """Refuse a list of columns that names one twice, or names the classes in another order than ``classes``."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ColumnError(f"logits must name each column once, got {twice[0]!r} twice")
    ordered = _by_class(names, classes)
    if ordered is not None and ordered != names and not _numbered(names):
        place = next(i for i, name in enumerate(names) if name != ordered[i])
        raise ColumnError(
            f"logits must follow the order of classes, got column {names[place]!r} for class {place}, "
            f"{classes[place]!r}; name the columns in the order of the classes"
        )
