"""Records of comma-separated text: where they end, with quotes as RFC 4180 and pyarrow have them."""

from __future__ import annotations

from fastxent.kernels.jit import jit

_QUOTE, _NEWLINE, _RETURN = 0x22, 0x0A, 0x0D
_START, _FIELD, _QUOTED = 0, 1, 2  # at the start of a field, inside a field, inside quotes


@jit
def records(data, delimiter, most, last, blank):  # type: ignore[no-untyped-def]
    """(number of records, the byte behind them, whether a quote is open there) of the text ``data``.

    A quote opens a quoted part only at the start of a field.

    data: uint8 (n,), from the beginning of a record on.
    delimiter: the byte between two fields.
    most: records to count at most.
    last: bool. The text ends with the data; else a record without a line end is not counted.
    blank: bool. Empty lines are records, as they are where a record has one field.
    """
    count, end, i, state = 0, 0, 0, _START
    n = data.size
    while i < n and count < most:
        c = data[i]
        if state == _QUOTED:
            if c == _QUOTE:
                if i + 1 < n and data[i + 1] == _QUOTE:
                    i += 1
                else:
                    state = _FIELD
        elif c == _NEWLINE or c == _RETURN:
            full = blank or i > end
            if c == _RETURN:
                if i + 1 < n:
                    if data[i + 1] == _NEWLINE:
                        i += 1
                elif not last:  # a line feed may follow
                    return count, end, False
            count += 1 if full else 0
            end, state = i + 1, _START
        elif c == delimiter:
            state = _START
        elif c == _QUOTE and state == _START:
            state = _QUOTED
        else:
            state = _FIELD
        i += 1
    if last and count < most and end < n:
        return count + 1, n, state == _QUOTED
    return count, end, state == _QUOTED
