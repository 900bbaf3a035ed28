"""JSON text: values over several lines, or in one array, as a line for each."""

from __future__ import annotations

from fastxent.kernels.jit import jit

_QUOTE, _BACKSLASH, _COMMA, _SPACE, _NEWLINE, _RETURN = 0x22, 0x5C, 0x2C, 0x20, 0x0A, 0x0D
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
