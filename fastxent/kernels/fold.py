"""Exact sums of what rows contribute, from the columns of their record: blocks of rows are folded into integers.

A block of numbers below 2**(p - 1) is cut at 2**(p - 52): adding 1.5·2**p to a number leaves its upper part in the
pattern of the sum, as an integer in that unit, and the patterns of a block are summed as integers. The rest of each
number is below 2**(p - 53) and is cut again, until nothing is left. Every step is exact, so the order of rows plays no
part. A product x·y is the two doubles x·y and fma(x, y, -x·y), whose sum it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastxent.kernels.exact import EVERY, LIMBS, SCALE, carry, special_flag, split
from fastxent.kernels.jit import jit
from fastxent.kernels.simd.memory import load, store
from fastxent.kernels.summed import add_integer, fold, fold_products, height_of, multiply
from fastxent.kernels.simd.words import load_word

COPY, PRODUCT, RECIPROCAL, BELOW, ONES, COUNTED, INTEGER = range(7)
BLOCK = 1024  # rows folded at a time: a few columns of them stay in the first-level cache
_MOST = 1022  # of p: the power and the unit are doubles
WORDS = LIMBS + 3
_ADDRESSES = [1, 2, 4]  # columns of `Terms.table`


class Summand(NamedTuple):
    """A number of each row, of columns that each hold 8 bytes per row.

    kind: COPY ``a``; PRODUCT a·b; of integers INTEGER ``a``, RECIPROCAL 1/(a + 1) and BELOW, 1 where a < ``limit``;
    ONES; COUNTED, 1 where a or b is not 0.
    """

    kind: int
    a: np.ndarray | None
    b: np.ndarray | None = None
    limit: int = 0


class Terms:
    """What to sum for n rows: where the columns of each summand lie, and which pairs of summands to multiply.

    weight: float64 (n,) or None. Multiplies every summand but ``unweighted``.
    """

    def __init__(
        self,
        summands: list[Summand],
        weight: np.ndarray | None = None,
        unweighted: int | None = None,
    ) -> None:
        self.rows: int | None = None
        self._held: list[np.ndarray] = []  # the memory that the table points to
        self.table = np.zeros((len(summands), 5), np.int64)
        for line, (kind, a, b, limit) in zip(self.table, summands, strict=True):
            line[0], line[3] = kind, limit
            line[1] = self._at(a, np.int64 if kind in (INTEGER, RECIPROCAL, BELOW) else np.float64)
            line[2] = self._at(b, np.float64)
        self.table[:, 4] = self._at(weight, np.float64)
        if unweighted is not None:
            self.table[unweighted, 4] = 0

    def _at(self, column: np.ndarray | None, dtype: type) -> int:
        """The address of a column; 0 if there is none."""
        if column is None:
            return 0
        if self.rows not in (None, len(column)):
            raise ValueError(f"a column of {len(column)} of {self.rows} rows")
        self.rows = len(column)
        column = np.ascontiguousarray(column, dtype)
        self._held.append(column)
        return int(column.ctypes.data)

    def sources(self) -> tuple[np.ndarray, np.ndarray]:
        """(the addresses of the columns that the summands are made of, the places among them of columns 1, 2 and 4 of
        the table). The first address is 0: no column."""
        addresses, places = np.unique(np.append(self.table[:, _ADDRESSES], 0), return_inverse=True)
        return addresses, places[:-1].reshape(-1, len(_ADDRESSES))

    def moved(self, sources: tuple[np.ndarray, np.ndarray], begin: int, places: np.ndarray, room: np.ndarray) -> Terms:
        """Write the rows from ``begin`` on to ``room``, row i at ``places[i]``, and return the terms of these rows.

        sources: of these terms. places: int64 (n,), a permutation. room: float64 (sources, n at least); the terms that
        are returned point to it.
        """
        addresses, of_columns = sources
        move_columns(addresses, begin, places, room)
        found = Terms([])
        found.table = self.table.copy()
        there = room.ctypes.data + room.strides[0] * np.arange(len(addresses))
        found.table[:, _ADDRESSES] = np.where(addresses > 0, there, 0)[of_columns]
        return found

    def block(self, begin: int, count: int) -> np.ndarray:
        """(columns, count) the numbers of rows from ``begin`` on."""
        out, other = np.empty((len(self.table), count)), np.empty(count)
        for line, numbers in zip(self.table, out, strict=True):
            fill(line, begin, count, numbers, other)
        return out


@jit
def move_columns(addresses, begin, places, out):  # type: ignore[no-untyped-def]
    """out[k, places[i]] = the word of 8 bytes ``begin`` + i of each column that is not 0."""
    words = out.view(np.int64)
    for k in range(addresses.size):
        address = addresses[k] + 8 * begin
        if addresses[k]:
            for i in range(places.size):
                words[k, np.uint64(places[i])] = load_word(address + 8 * i)


@jit
def _read(address, begin, n, words):  # type: ignore[no-untyped-def]
    """``n`` words of a column: of the rows from ``begin`` on."""
    address += 8 * begin
    whole = n // 8 * 8
    for i in range(0, whole, 8):
        store(words.ctypes.data + 8 * i, load(address + 8 * i, 0.0), 0.0)
    for i in range(whole, n):
        words[i] = load_word(address + 8 * i)


@jit
def fill(line, begin, n, out, other):  # type: ignore[no-untyped-def]
    """The numbers of one summand, a line of `Terms.table`, for ``n`` rows, see `_read`. ``other``: room for as many.

    Returns how many are 1 if all others are 0, else -1.
    """
    kind, weight = line[0], line[4]
    words = out.view(np.int64)
    count = -1
    if kind == ONES:
        out[:n] = 1.0
        count = n
    else:
        _read(line[1], begin, n, words)
    if kind == PRODUCT:
        if line[2] != line[1]:
            _read(line[2], begin, n, other.view(np.int64))
            for i in range(n):
                out[i] *= other[i]
        else:
            for i in range(n):
                out[i] *= out[i]
    elif kind == COUNTED:
        _read(line[2], begin, n, other.view(np.int64))
        count = 0
        for i in range(n):
            some = (out[i] != 0.0) | (other[i] != 0.0)
            out[i] = 1.0 if some else 0.0
            count += some
    elif kind == RECIPROCAL:
        for i in range(n):
            out[i] = 1.0 / (np.float64(words[i]) + 1.0)
    elif kind == BELOW:
        count = 0
        for i in range(n):
            below = words[i] < line[3]
            out[i] = 1.0 if below else 0.0
            count += below
    elif kind == INTEGER:
        for i in range(n):
            out[i] = np.float64(words[i])
    if not weight:
        return count
    _read(weight, begin, n, other.view(np.int64))
    for i in range(n):
        out[i] *= other[i]
    return -1


@jit
def _add_slowly(values, n, words, special, slot):  # type: ignore[no-untyped-def]
    """Add numbers one by one, of any size; what is not finite sets flags."""
    bits = values.view(np.int64)
    for i in range(n):
        b = bits[i]
        if (b >> 52) & 0x7FF == 0x7FF:
            special[slot] |= special_flag(b)
            continue
        limb, low, high = split(b)
        words[limb] += low
        words[limb + np.uint64(1)] += high
    carry(words, words.size)


@jit
def fold_block(terms, begin, n, space, sums, special):  # type: ignore[no-untyped-def]
    """Add at most `BLOCK` rows to ``sums`` (columns + pairs, WORDS) and flags to ``special``.

    terms, space: see `fold_rows`.
    """
    table, pairs = terms
    room, marks = space
    columns = table.shape[0]
    wide = (n + 7) // 8 * 8
    line = 8 * room.shape[1]
    first_at = room.ctypes.data
    high, low = room[columns], room[columns + 1]
    high_at, low_at = first_at + columns * line, first_at + (columns + 1) * line
    heights, at, counts = marks[0], marks[1], marks[2]
    for k in range(columns):
        at[k] = first_at + k * line
        if wide == n and table[k, 0] == COPY and not table[k, 4]:
            at[k] = table[k, 1] + 8 * begin
            heights[k] = height_of(at[k], n)
            counts[k] = -1
            continue
        counts[k] = fill(table[k], begin, n, room[k], low)
        for i in range(n, wide):
            room[k, i] = 0.0
        if counts[k] >= 0:
            add_integer(sums[k], counts[k], SCALE)
            heights[k] = 1
        else:
            heights[k] = height_of(at[k], wide)
    for p in range(pairs.shape[0]):
        a, b = pairs[p, 0], pairs[p, 1]
        height = heights[a] + heights[b]
        if height < -1500:
            continue
        words = sums[columns + p]
        ordinary = height < _MOST and heights[a] < 1500 and heights[b] < 1500
        if ordinary and fold_products(at[a], at[b], wide, height + 1, words):
            continue
        multiply(at[a], at[b], wide, high_at, low_at)
        if ordinary:
            fold(high_at, high_at, wide, height + 1, words)
            fold(low_at, low_at, wide, height - 52, words)
            continue
        for i in range(n):
            if not abs(high[i]) < np.inf:
                low[i] = 0.0
        _add_slowly(high, n, words, special, columns + p)
        _add_slowly(low, n, words, special, columns + p)
    for k in range(columns):
        if heights[k] < -1500 or counts[k] >= 0:
            continue
        if heights[k] < _MOST:
            fold(at[k], first_at + k * line, wide, heights[k] + 1, sums[k])
        else:
            fill(table[k], begin, n, room[k], low)
            _add_slowly(room[k], n, sums[k], special, k)


def fold_room(columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``space`` of `fold_rows`, for so many columns."""
    return np.empty((columns + 2, BLOCK)), np.empty((3, columns), np.int64)


class Plan(NamedTuple):
    """How the sums of some summands and products are made: of no two that are the same, and those of ranks by rank.

    table: of `Terms`, and pairs: int64 (pairs, 2). What `fold_block` is to sum.
    places: int64 (own,). The sums ``own`` are the ones of these places there.
    own: int64. Of all sums, those of the summands and then of the products.
    ranked: (a sum, the lines of the one or two summands whose product it is). Those that follow from rows by rank.
    """

    table: np.ndarray
    pairs: np.ndarray
    places: np.ndarray
    own: np.ndarray
    ranked: list[tuple[int, np.ndarray]]

    @classmethod
    def of(cls, table: np.ndarray, pairs: np.ndarray) -> Plan:
        """table: of `Terms`, whose integers are ranks. pairs: int64 (pairs, 2)."""
        factors = [np.array([k]) for k in range(len(table))] + list(pairs)
        of_ranks = np.isin(table[:, 0], (BELOW, RECIPROCAL)) & (table[:, 4] == 0)
        ranked = [(k, table[lines]) for k, lines in enumerate(factors) if of_ranks[lines].all()]
        own = np.array([k for k, lines in enumerate(factors) if not of_ranks[lines].all()], np.int64)
        lines, of = np.unique(table, axis=0, return_inverse=True)
        summed = [tuple(of.reshape(-1)[factors[k]].tolist()) for k in own.tolist()]
        kept = sorted({line for sum_ in summed for line in sum_})
        number = {line: k for k, line in enumerate(kept)}
        sums = [(line,) for line in kept] + sorted({sum_ for sum_ in summed if len(sum_) == 2})
        products = np.array([[number[line] for line in sum_] for sum_ in sums[len(kept) :]], np.int64)
        places = np.array([sums.index(sum_) for sum_ in summed], np.int64)
        return cls(lines[kept], products.reshape(-1, 2), places, own, ranked)

    def sums(self, words: np.ndarray, special: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All sums and their flags. words, special: of `fold_block`. ranks: int64 (ranks,). Rows by rank."""
        count = len(self.own) + len(self.ranked)
        all_words, flags = np.zeros((count, WORDS), np.int64), np.zeros(count, np.uint8)
        all_words[self.own], flags[self.own] = words[self.places], special[self.places]
        for k, lines in self.ranked:
            total = sum(rows * _product_at(rank, lines) for rank, rows in enumerate(ranks.tolist()) if rows)
            all_words[k] = np.frombuffer(int(total).to_bytes(4 * WORDS, "little"), "<u4")
        return all_words, flags


def _product_at(rank: int, lines: np.ndarray) -> int:
    """The product of the numbers that summands are at a rank, in units of 2**-SCALE."""
    above, below = 1 << SCALE, 1
    for kind, _, _, limit, _ in lines.tolist():
        number = 1.0 / (rank + 1.0) if kind == RECIPROCAL else float(rank < limit)
        above, below = above * number.as_integer_ratio()[0], below * number.as_integer_ratio()[1]
    return above // below


@jit
def _balance(words):  # type: ignore[no-untyped-def]
    """Hand on carries, to words in -2**31 .. 2**31: few of them are not 0, whatever the sign. (first, end) of those."""
    over = np.int64(0)
    first, end = words.size, 0
    for i in range(words.size):
        word = words[i] + over
        over = (word + (1 << 31)) >> 32
        words[i] = word - (over << 32)
        if words[i]:
            first, end = min(first, i), i + 1
    return first, end


@jit
def merge_words(words, special, group, held, needed):  # type: ignore[no-untyped-def]
    """Add the sums in ``words`` (sums, WORDS) to those of a group, and clear them. False if the window of ``held`` is
    too narrow: ``needed`` says for what.

    held: a tuple (limbs, base, special, pending), see `grouped.ExactSums`.
    """
    limbs, base, flags, pending = held
    first, end = words.shape[1], 0
    for k in range(words.shape[0]):
        low, high = _balance(words[k])
        first, end = min(first, low), max(end, high)
    if first < end and (first < base or end + 1 > base + limbs.shape[2]):
        needed[0], needed[1] = first, end + 1
        return False
    for k in range(words.shape[0]):
        flags[group, k] |= special[k]
        special[k] = 0
        for i in range(first, end):
            limbs[group, k, i - base] += words[k, i]
            words[k, i] = 0
    pending[group] += 1
    if pending[group] >= EVERY // 2:
        pending[group] = 0
        for k in range(words.shape[0]):
            carry(limbs[group, k], limbs.shape[2])
    return True


@jit
def fold_rows(terms, begins, groups, done, room, held):  # type: ignore[no-untyped-def]
    """Add rows to the sums of their groups, of which the first ``done`` are finished. The number of those finished:
    less than all if the window is too narrow, see `merge_words`; call again with a wider one.

    terms: a tuple of the table of `Terms` and int64 (pairs, 2).
    begins: int64 (groups + 1,), the row at which each group begins.
    groups: int64 (groups,), their places in ``held``.
    room: a tuple of `fold_room`; int64 (sums, WORDS) and uint8 (sums,), zeros,
        for the group at hand; the same for all groups together; int64 (2,), zeros, for `merge_words`.
    """
    space, words, special, all_words, all_special, needed = room
    for g in range(done, groups.size):
        if not needed[1]:
            for begin in range(begins[g], begins[g + 1], BLOCK):
                n = min(BLOCK, begins[g + 1] - begin)
                fold_block(terms, begin, n, space, words, special)
            for k in range(words.shape[0]):
                all_special[k] |= special[k]
                first, end = _balance(words[k])
                for i in range(first, end):
                    all_words[k, i] += words[k, i]
        if not merge_words(words, special, groups[g], held, needed):
            return g
        needed[1] = 0
    return groups.size
