"""The values of a cluster column, numbered: integers and text by compiled tables, others by the keys of slices."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from fastxent.kernels.hashed import Numbers, mixed
from fastxent.kernels.texts import Texts
from fastxent.state.keys import EncodedColumn, Keys, decoded, integers_of, place_of, texts_of, used_values

if TYPE_CHECKING:
    import pyarrow as pa

_WHOLE, _TEXT = "int:", "str:"  # how the keys of integers and of texts begin
_NUMBERS, _TEXTS, _OTHERS = range(3)  # kinds


class Clusters:
    """Clusters in the order of their first appearance, numbered from 0. Their names are those of `keys.key_of`."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._numbers, self._texts, self._others = Numbers(), Texts(), Keys()
        self._codes = [np.zeros(0, np.int64) for _ in range(3)]  # of the numbers, the texts and the others
        self._count = 0
        self._hashes, self._hashed = np.zeros(0, np.uint64), [0, 0, 0]  # hashes of the first clusters of each kind
        names = Keys.restored(keys).names
        if not names:
            return
        places = self.codes_of(names)
        if len(self) < len(names) or not np.array_equal(places, np.arange(len(names))):
            raise ValueError("clusters out of order")

    def __len__(self) -> int:
        return self._count

    def _coded(self, kind: int, found: np.ndarray) -> np.ndarray:
        """The numbers of clusters, by their places among those of one kind; those that are new get the next ones."""
        codes = self._codes[kind]
        more = len((self._numbers, self._texts, self._others)[kind]) - len(codes)
        if more:
            self._codes[kind] = codes = np.concatenate([codes, np.arange(self._count, self._count + more)])
            self._count += more
        if len(codes) == self._count:  # all clusters are of this kind
            return found
        result: np.ndarray = codes[found]
        return result

    def codes(self, column: pa.Array, name: str) -> np.ndarray:
        """(n,) the clusters of rows."""
        import pyarrow.types as pt

        from fastxent.io.values import numbers, resolved

        column = numbers(resolved(column, name), name)
        if pt.is_dictionary(column.type):
            values, index = used_values(column, name)
            return np.asarray(self.codes(values, name)[index])
        whole, texts = integers_of(column), texts_of(column)
        if whole is not None:
            return self._coded(_NUMBERS, self._numbers.codes(whole))
        if texts is not None:
            return self._coded(_TEXTS, self._texts.codes(*texts))
        encoded = EncodedColumn.of(column, name)
        return np.asarray(self.codes_of(encoded.keys)[encoded.index])

    def codes_of(self, names: list[str]) -> np.ndarray:
        """The clusters of these names."""
        numbers = [_integer(name) for name in names]
        kinds = np.array(
            [
                _NUMBERS if number is not None else _TEXTS if name.startswith(_TEXT) else _OTHERS
                for name, number in zip(names, numbers, strict=True)
            ],
            np.int64,
        )
        local = np.empty(len(names), np.int64)
        chosen = [np.flatnonzero(kinds == kind) for kind in range(3)]
        local[chosen[_NUMBERS]] = self._numbers.codes(np.array([n for n in numbers if n is not None], np.int64))
        texts = [names[i][len(_TEXT) :].encode() for i in chosen[_TEXTS].tolist()]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        local[chosen[_TEXTS]] = self._texts.codes(offsets, np.frombuffer(b"".join(texts), np.uint8))
        local[chosen[_OTHERS]] = [self._others.code(names[i]) for i in chosen[_OTHERS].tolist()]
        firsts = []
        for where, codes in zip(chosen, self._codes, strict=True):
            found, first = np.unique(local[where], return_index=True)
            firsts.append(where[first[found >= len(codes)]])
        order = np.sort(np.concatenate(firsts))
        for kind, first in enumerate(firsts):
            self._codes[kind] = np.concatenate([self._codes[kind], self._count + np.searchsorted(order, first)])
        self._count += len(order)
        found = np.empty(len(names), np.int64)
        for where, codes in zip(chosen, self._codes, strict=True):
            found[where] = codes[local[where]]
        return found

    def absorb(self, other: Clusters) -> np.ndarray:
        """(len(other),) the numbers here of the clusters there."""
        found = np.empty(len(other), np.int64)
        found[other._codes[_NUMBERS]] = self._coded(_NUMBERS, self._numbers.codes(other._numbers.distinct))
        found[other._codes[_TEXTS]] = self._coded(_TEXTS, self._texts.codes(*other._texts.distinct))
        found[other._codes[_OTHERS]] = self._coded(_OTHERS, self._others.absorb(other._others))
        return found

    def hashes(self) -> np.ndarray:
        """(len(self),) uint64 hashes of the clusters, by their values alone."""
        if len(self._hashes) < len(self):
            first, held = self._hashed, np.empty(len(self), np.uint64)
            others = [zlib.crc32(name.encode()) for name in self._others.names[first[_OTHERS] :]]
            numbers = self._numbers.distinct[first[_NUMBERS] :].view(np.uint64)
            found = numbers, self._texts.hashed(first[_TEXTS]), np.array(others, np.uint64)
            held[: len(self._hashes)] = self._hashes
            for codes, done, values in zip(self._codes, first, found, strict=True):
                held[codes[done:]] = mixed(values)
            self._hashes, self._hashed = held, [len(codes) for codes in self._codes]
        return self._hashes

    def names(self) -> list[str]:
        """The names in the order of their numbers."""
        found = [""] * len(self)
        texts = [f"{_TEXT}{text}" for text in decoded(self._texts.listed(), "of clusters")]
        numbers = [f"{_WHOLE}{number}" for number in self._numbers.distinct.tolist()]
        for names, codes in zip((numbers, texts, self._others.names), self._codes, strict=True):
            for name, code in zip(names, codes.tolist(), strict=True):
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
