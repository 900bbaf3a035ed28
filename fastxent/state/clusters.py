"""The values of a cluster column, numbered: integers by a compiled table, other values by the keys of slices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from fastxent.kernels.hashed import Numbers
from fastxent.state.keys import EncodedColumn, Keys, place_of

if TYPE_CHECKING:
    import pyarrow as pa

_WHOLE = "int:"  # how the keys of integers begin


class Clusters:
    """Clusters in the order of their first appearance, numbered from 0. Their names are those of `keys.key_of`."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._numbers, self._texts = Numbers(), Keys()
        self._codes = [np.zeros(0, np.int64), np.zeros(0, np.int64)]  # of the numbers and of the texts
        self._count = 0
        names = Keys.restored(keys).names
        places = self.codes_of(names)
        if len(self) < len(names) or not np.array_equal(places, np.arange(len(names))):
            raise ValueError("clusters out of order")

    def __len__(self) -> int:
        return self._count

    def _coded(self, kind: int, found: np.ndarray, known: int) -> np.ndarray:
        """The numbers of clusters of one kind, of which there are ``known``; those that are new get the next ones."""
        codes = self._codes[kind]
        more = known - len(codes)
        if more:
            self._codes[kind] = np.concatenate([codes, np.arange(self._count, self._count + more)])
            self._count += more
        if not len(self._codes[1 - kind]):  # all clusters are of this kind
            return found
        result: np.ndarray = self._codes[kind][found]
        return result

    def codes(self, column: pa.Array, name: str) -> np.ndarray:
        """(n,) the clusters of rows."""
        numbers = _integers(column, name)
        if numbers is not None:
            return self._coded(0, self._numbers.codes(numbers), len(self._numbers))
        encoded = EncodedColumn.of(column, name)
        found: np.ndarray = self.codes_of(encoded.keys)[encoded.index]
        return found

    def codes_of(self, names: list[str]) -> np.ndarray:
        """The clusters of these names."""
        numbers = [_integer(name) for name in names]
        kinds = np.array([number is None for number in numbers], np.int64)
        local = np.empty(len(names), np.int64)
        local[kinds == 0] = self._numbers.codes(np.array([n for n in numbers if n is not None], np.int64))
        local[kinds == 1] = [self._texts.code(name) for name, kind in zip(names, kinds.tolist(), strict=True) if kind]
        firsts = []
        for kind, codes in enumerate(self._codes):
            where = np.flatnonzero(kinds == kind)
            found, first = np.unique(local[where], return_index=True)
            firsts.append(where[first[found >= len(codes)]])
        order = np.sort(np.concatenate(firsts))
        for kind, first in enumerate(firsts):
            self._codes[kind] = np.concatenate([self._codes[kind], self._count + np.searchsorted(order, first)])
        self._count += len(order)
        found = np.empty(len(names), np.int64)
        for kind, codes in enumerate(self._codes):
            found[kinds == kind] = codes[local[kinds == kind]]
        return found

    def absorb(self, other: Clusters) -> np.ndarray:
        """(len(other),) the numbers here of the clusters there."""
        found = np.empty(len(other), np.int64)
        found[other._codes[0]] = self._coded(0, self._numbers.codes(other._numbers.distinct), len(self._numbers))
        texts = np.array([self._texts.code(name) for name in other._texts.names], np.int64)
        found[other._codes[1]] = self._coded(1, texts, len(self._texts))
        return found

    def names(self) -> list[str]:
        """The names in the order of their numbers."""
        found = [""] * len(self)
        for number, code in zip(self._numbers.distinct.tolist(), self._codes[0].tolist(), strict=True):
            found[code] = f"{_WHOLE}{number}"
        for name, code in zip(self._texts.names, self._codes[1].tolist(), strict=True):
            found[code] = name
        return found

    def order(self) -> np.ndarray:
        """The numbers in the order of the sorted names."""
        places = [place_of(name) for name in self.names()]
        return np.array(sorted(range(len(places)), key=places.__getitem__), np.int64)

    def names_in_order(self) -> list[str]:
        """The names in that order."""
        return sorted(self.names(), key=place_of)


def _integer(name: str) -> int | None:
    """The integer of 64 bits that a name stands for; None if it is of another kind."""
    if not name.startswith(_WHOLE):
        return None
    number = int(name[len(_WHOLE) :])
    return number if -(1 << 63) <= number < 1 << 63 and name == f"{_WHOLE}{number}" else None


def _integers(column: pa.Array, name: str) -> np.ndarray | None:
    """A column of integers of 64 bits; None if it holds anything else."""
    import pyarrow as pa
    import pyarrow.types as pt

    from fastxent.io.values import numbers, resolved

    column = numbers(resolved(column, name), name)
    if not pt.is_integer(column.type) or column.null_count:
        return None
    try:
        return np.ascontiguousarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:  # above 2**63
        return None
