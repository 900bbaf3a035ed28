"""The pages of a read, found in one call of a kernel, and their rows taken in another.

Writers end a page of a flat column after some 20,000 rows: a few kB, and in Python each would take longer than its
rows. So the headers in the bytes at hand are walked at once. The walk ends before the first page that is not a data
page of an expected encoding, whole and of a size in proportion: nothing is believed here that `pages.PageReader` would
not believe. It goes on there, and all errors of headers are its own.
"""

from __future__ import annotations

import numpy as np

from fastxent.io.parquet import assemble as asm, levels as lv, thrift
from fastxent.io.parquet.snappy import decompress_snappy
from fastxent.io.parquet.unpack import copy
from fastxent.kernels.jit import brief, jit

# slots of a page in the table: where its body begins, its size as stored and decompressed, checksum, entries, encoding
BODY, STORED, SIZE, CRC, ENTRIES, ENCODING = range(6)
# levels before the values of a v2 page, -1 for others; whether the values are compressed; where the page ends
REP, DEF, COMPRESSED, END = range(6, 10)
SLOTS = 10
MALFORMED = -6  # beside the errors of `assemble`: levels that extend past the end of the page
_RLE = 3
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY, _SPLIT = 0, 2, 8, 9  # Encoding of the format


@brief
def walk_pages(buf, table, slots, limits, width, leveled, coded, compressed):  # type: ignore[no-untyped-def]
    """Find the data pages in ``buf``, which begins with the header of one; return how many are in ``table``.

    table: int64 (pages, SLOTS). slots: `thrift.new_header`. limits: a tuple of entries that the pages may have and of
    bytes that they may have decompressed. width: bytes of a number. leveled: whether there are definition levels.
    coded: whether the dictionary is at hand. compressed: whether the chunk is.
    """
    left, most = limits
    pos, total = np.int64(0), np.int64(0)
    for k in range(table.shape[0]):
        size = thrift.read_page_header(buf[pos:], slots)
        if size < 0 or slots[thrift.COMPRESSED] > buf.size - pos - size:
            return k
        n, unpacked, encoding = slots[thrift.NUM_VALUES], slots[thrift.UNCOMPRESSED], slots[thrift.ENCODING]
        second = slots[thrift.TYPE] == thrift.DATA_PAGE_V2
        if not second and slots[thrift.TYPE] != thrift.DATA_PAGE:
            return k
        total += unpacked
        if n == 0 or n > left or total > most or unpacked > 64 + n * (width + 9):
            return k
        packed = compressed and not (second and slots[thrift.IS_COMPRESSED] == 0)
        if not packed and unpacked != slots[thrift.COMPRESSED]:
            return k
        rep, definition = np.int64(-1), np.int64(0)
        if second:
            rep, definition = slots[thrift.REP_BYTES], slots[thrift.DEF_BYTES]
            if rep + definition > min(unpacked, slots[thrift.COMPRESSED]):
                return k
        elif leveled and slots[thrift.DEF_ENCODING] != _RLE:
            return k
        kind = np.int64(asm.PLAIN)
        if encoding == _SPLIT:
            kind = np.int64(asm.SPLIT)
        elif coded and (encoding == _RLE_DICTIONARY or encoding == _PLAIN_DICTIONARY):
            kind = np.int64(asm.DICTIONARY)
        elif encoding != _PLAIN:
            return k
        line, stored = table[k], slots[thrift.COMPRESSED]
        line[BODY], line[STORED], line[SIZE], line[CRC] = pos + size, stored, unpacked, slots[thrift.CRC]
        line[ENTRIES], line[ENCODING], line[REP], line[DEF], line[COMPRESSED] = n, kind, rep, definition, packed
        pos += size + stored
        line[END] = pos
        left -= n
    return np.int64(table.shape[0])


@jit
def decompress_pages(buf, table, data):  # type: ignore[no-untyped-def]
    """Decompress pages of ``buf`` by snappy, one behind the other into ``data``, where ``table`` then has them.

    Returns how many: those before the first that is damaged.
    """
    at = np.int64(0)
    for k in range(table.shape[0]):
        line = table[k]
        begin, split, size = line[BODY], max(np.int64(0), line[REP]) + line[DEF], line[SIZE]
        values = buf[begin + split : begin + line[STORED]]
        copy(buf, begin, data, at, split)
        if not line[COMPRESSED]:
            copy(values, 0, data, at + split, values.size)
        elif size > split and not decompress_snappy(values, data[at + split : at + size]):
            return k
        line[BODY] = at
        at += size
    return np.int64(table.shape[0])


@jit
def take_pages(pages, cursor, s, given, into, valid, nesting, wanted):  # type: ignore[no-untyped-def]
    """The next rows of ``pages`` to ``into``, 0 for a null, or past them if not ``wanted``.

    pages: a tuple of data and table. data: uint8. The bodies, decompressed: BODY and SIZE of a page tell where.
    cursor: int64 (10,). The page that is being read, where its levels and its values begin, whether it has no nulls,
    (out) the number of nulls, and scratch. given: what `assemble` takes values from, but for the page. valid: uint8
    (rows,), 1; set to 0 for a null. Returns the number of rows, less than there is room for only at the end of the
    last page, or an error code.
    """
    data, table = pages
    parts, rows, at = cursor[5:10], valid.size, np.int64(0)
    while at < rows:
        k = cursor[0]
        if s[asm.ENTRIES] == 0:
            k += 1
            if k == table.shape[0]:
                return at
            line = table[k]
            cursor[0], begin, end = k, line[BODY], line[BODY] + line[SIZE]
            if not wanted and line[ENTRIES] <= rows - at:
                at += line[ENTRIES]
                continue
            levels = data[begin:end]
            found = lv.examine(levels, line[REP], line[DEF], line[ENTRIES], nesting, parts)
            if found < 0:
                return np.int64(MALFORMED)
            cursor[1], cursor[2], cursor[3] = begin, begin, found & lv.REGULAR
            if line[REP] >= 0:
                cursor[2] = begin + line[REP] + line[DEF]
            values = data[cursor[2] : end]
            if not asm.begin_page(s, parts, values, line[ENTRIES], 0, 1, line[ENCODING], into.numbers.itemsize):
                return np.int64(asm.BAD_VALUES)
        line = table[k]
        end = line[BODY] + line[SIZE]
        n = min(rows - at, s[asm.ENTRIES])
        page = asm.Values(data[cursor[2] : end], given.dictionary, given.lengths)
        some = valid[at : at + n] if cursor[3] == 0 else valid[:0]
        nulls = take_flat(data[cursor[1] : end], page, s, into, some, at, n, wanted)
        if nulls < 0:
            return nulls
        cursor[4] += nulls
        at += n
    return at


@brief
def take_flat(levels, given, s, into, valid, at, k, wanted):  # type: ignore[no-untyped-def]
    """The next k entries of the page in ``s`` to ``into.numbers[at:]``, 0 for a null, or past them if not ``wanted``.

    ``valid``: uint8 (k,). 1 for a number, 0 for a null; of no size for a page without nulls. Returns the number of
    nulls, or an error code.
    """
    good = _validity(levels, s, valid) if valid.size else k
    if good < 0:
        return np.int64(asm.BAD_LEVELS)
    code = asm.take(given, s, into, at, good, wanted)
    if code < 0:
        return np.int64(code)
    s[asm.ENTRIES] -= k
    if wanted and good < k:  # the numbers lie together: each to its place, the last one first
        numbers, place = into.numbers, at + good
        for i in range(k - 1, -1, -1):
            place -= valid[i]
            numbers[at + i] = numbers[place]
            if not valid[i]:
                numbers[at + i] = 0
    return k - good if s[asm.ENTRIES] or asm.used_up(s) else np.int64(asm.BAD_VALUES)


@jit
def _validity(levels, s, valid):  # type: ignore[no-untyped-def]
    """Write the next definition levels, of one bit each, to ``valid``; their sum, or -1 where they end too early."""
    done, good = np.int64(0), np.int64(0)
    while done < valid.size:
        if s[asm.DEF + lv.LEFT] == 0 and not asm.next_run(levels, s, asm.DEF):
            return np.int64(-1)
        count = min(valid.size - done, s[asm.DEF + lv.LEFT])
        s[asm.DEF + lv.LEFT] -= count
        bit, value = s[asm.DEF + lv.BIT], s[asm.DEF + lv.VALUE]
        packed = s[asm.DEF + lv.PACKED] != 0
        for i in range(done, done + count):
            if packed:
                value = np.int64(levels[bit >> 3] >> (bit & 7)) & 1
                bit += 1
            valid[i] = value
            good += value
        s[asm.DEF + lv.BIT] = bit
        done += count
    return good
