"""JSON text: values over several lines, or in one array, as a line for each; lines without some of their members."""

from __future__ import annotations

from fastxent.kernels.jit import jit

_QUOTE, _BACKSLASH, _COMMA, _COLON, _SPACE, _TAB, _NEWLINE, _RETURN = 0x22, 0x5C, 0x2C, 0x3A, 0x20, 0x09, 0x0A, 0x0D
_OPEN, _CLOSE = (0x7B, 0x5B), (0x7D, 0x5D)  # objects and arrays


@jit
def one_per_line(data):  # type: ignore[no-untyped-def]
    """Put each of the JSON values in ``data``, which are divided by commas or white space, on a line of its own. Only
    bytes outside of strings change, and none moves. The end of the last object or array that is whole; 0 if none is,
    and -1 minus the place of a bracket that closes nothing.

    data: uint8 (n,), from the beginning of a value on.
    """
    depth, end = 0, 0
    inside = False
    i = 0
    while i < data.size:
        c = data[i]
        if inside:
            if c == _BACKSLASH:
                i += 1
            elif c == _QUOTE:
                inside = False
        elif c == _QUOTE:
            inside = True
        elif c == _OPEN[0] or c == _OPEN[1]:
            depth += 1
        elif c == _CLOSE[0] or c == _CLOSE[1]:
            depth -= 1
            if depth < 0:
                return -1 - i
            if depth == 0:
                end = i + 1
        elif c == _COMMA and depth == 0:
            data[i] = _NEWLINE
        elif (c == _NEWLINE or c == _RETURN) and depth > 0:
            data[i] = _SPACE
        i += 1
    return end


@jit
def _string_end(data, i):  # type: ignore[no-untyped-def]
    """The place behind the string that begins at ``i``; -1 if it does not end in its line."""
    i += 1
    while i < data.size and data[i] != _NEWLINE:
        if data[i] == _QUOTE:
            return i + 1
        if data[i] == _BACKSLASH:
            i += 1
            if i == data.size or data[i] == _NEWLINE:
                return -1
        i += 1
    return -1


@jit
def _value_end(data, i):  # type: ignore[no-untyped-def]
    """The place behind the value that begins at ``i``; -1 if it does not end in its line."""
    depth = 0
    while i < data.size and data[i] != _NEWLINE:
        c = data[i]
        if c == _QUOTE:
            i = _string_end(data, i)
            if i < 0 or depth == 0:
                return i
            continue
        if c == _OPEN[0] or c == _OPEN[1]:
            depth += 1
        elif c == _CLOSE[0] or c == _CLOSE[1]:
            if depth <= 1:
                return i + depth
            depth -= 1
        elif c == _COMMA and depth == 0:
            return i
        i += 1
    return -1


@jit
def _behind_spaces(data, i):  # type: ignore[no-untyped-def]
    while i < data.size and (data[i] == _SPACE or data[i] == _TAB or data[i] == _RETURN):
        i += 1
    return i


@jit
def _is_named(data, begin, end, names):  # type: ignore[no-untyped-def]
    """Whether the bytes are a row of ``names``."""
    for k in range(names.shape[0]):
        same = end - begin <= names.shape[1]
        for j in range(names.shape[1]):
            if same:
                same = names[k, j] == (data[begin + j] if j < end - begin else 0)
        if same:
            return True
    return False


@jit
def without_members(data, names, out):  # type: ignore[no-untyped-def]
    """Copy JSON values, one per line, without the members of some names. The number of bytes; -1 where the text is not
    JSON, as far as these members tell.

    data, out: uint8 (n,). names: uint8 (k, width), each with its quotes and zeros behind them.
    """
    i = n = 0
    while i < data.size:
        if data[i] != _QUOTE:
            out[n] = data[i]
            i, n = i + 1, n + 1
            continue
        end = _string_end(data, i)
        if end < 0:
            return -1
        colon = _behind_spaces(data, end)
        if colon == data.size or data[colon] != _COLON or not _is_named(data, i, end, names):
            while i < end:
                out[n] = data[i]
                i, n = i + 1, n + 1
            continue
        end = _value_end(data, _behind_spaces(data, colon + 1))
        if end < 0:
            return -1
        i = _behind_spaces(data, end)
        if i < data.size and data[i] == _COMMA:
            i = _behind_spaces(data, i + 1)
            if i == data.size or data[i] != _QUOTE:
                return -1
        elif i < data.size and data[i] == _CLOSE[0]:  # the last member takes the comma before it along
            while n and (out[n - 1] == _SPACE or out[n - 1] == _TAB or out[n - 1] == _RETURN):
                n -= 1
            if n and out[n - 1] == _COMMA:
                n -= 1
        else:
            return -1
    return n
