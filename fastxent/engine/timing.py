"""The time of a run: the seconds of each worker by kind of work, and the share of time in which it was computing.

``read`` is bytes coming in (or waiting for them), ``decode`` making rows of logits of them: pages, levels, codecs, and
all that pyarrow does, which does not tell its own reading apart. ``kernel`` is scoring, ``state`` summing, merging and
making the result, ``write`` output and checkpoints. What is missing to the sum of the threads' time is the loop itself
and its end, when the last units are under way. A thread's utilisation is its processor time over the time of the run:
less than 1 where it waited, for the disk, for another thread, or for a processor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from fastxent.io.storage.spent import SPENT

Item = TypeVar("Item")
KINDS = ("read", "decode", "kernel", "state", "write")


@dataclass
class Clock:
    """One worker's seconds. Its methods are called on the worker's own thread."""

    read: float = 0.0
    decode: float = 0.0
    kernel: float = 0.0
    state: float = 0.0
    write: float = 0.0
    cpu: float = 0.0

    def next(self, items: Iterator[Item]) -> Item | None:
        """The next item of a reader, whose making is reading and decoding; None at its end."""
        read, start = SPENT.read, time.perf_counter()
        item = next(items, None)
        read = SPENT.read - read
        self.read += read
        self.decode += time.perf_counter() - start - read
        return item

    def each(self, items: Iterator[Item]) -> Iterator[Item]:
        """All items of a reader, as `next` gives them."""
        while (item := self.next(items)) is not None:
            yield item

    @property
    def reading(self) -> float:
        return self.read + self.decode


def summary(clocks: list[Clock], elapsed: float, rows: int, row_bytes: int) -> dict[str, Any]:
    """`EvalResult.timing`: wall-clock seconds, rates, and the seconds of all threads by kind."""
    elapsed = max(elapsed, 1e-9)
    total = {f.name: sum(getattr(clock, f.name) for clock in clocks) for f in fields(Clock)}
    return {
        "seconds": elapsed,
        "rows_per_second": rows / elapsed,
        "gb_per_second": rows * row_bytes / elapsed / 1e9,
        "threads": len(clocks),
        **{f"{kind}_seconds": total[kind] for kind in KINDS},
        "utilisation": [min(1.0, clock.cpu / elapsed) for clock in clocks],
    }


def joined(timings: list[dict[str, Any]]) -> dict[str, Any]:
    """`summary` of runs one after the other, with the same threads.

    >>> both = joined([summary([Clock(cpu=10.0)], 10.0, 50, 4), summary([Clock(cpu=15.0)], 30.0, 50, 4)])
    >>> both["seconds"], both["rows_per_second"], both["utilisation"]
    (40.0, 2.5, [0.625])
    """
    seconds = sum(timing["seconds"] for timing in timings)
    found: dict[str, Any] = {"seconds": seconds}
    for rate in ("rows_per_second", "gb_per_second"):
        found[rate] = sum(timing[rate] * timing["seconds"] for timing in timings) / seconds
    found["threads"] = timings[0]["threads"]
    found |= {f"{kind}_seconds": sum(timing[f"{kind}_seconds"] for timing in timings) for kind in KINDS}
    busy = ([share * timing["seconds"] for share in timing["utilisation"]] for timing in timings)
    return {**found, "utilisation": [min(1.0, sum(each) / seconds) for each in zip(*busy, strict=True)]}


def ended(timing: dict[str, Any], seconds: float) -> dict[str, Any]:
    """`summary` of a run after which one thread made the result of its state in so many seconds.

    >>> found = ended(summary([Clock(state=1.0, cpu=10.0)], 10.0, 5000, 4000), 2.5)
    >>> found["seconds"], found["rows_per_second"], found["state_seconds"], found["utilisation"]
    (12.5, 400.0, 3.5, [1.0])
    """
    total = timing["seconds"] + seconds
    share = timing["seconds"] / total
    found = {**timing, "seconds": total}
    for rate in ("rows_per_second", "gb_per_second"):
        found[rate] = timing[rate] * share
    if "utilisation" in timing:
        first, *others = (busy * share for busy in timing["utilisation"])
        found["utilisation"] = [min(1.0, first + seconds / total), *others]
        found["state_seconds"] = timing["state_seconds"] + seconds
    return found


def lines(timing: dict[str, Any]) -> list[str]:
    """`summary` for reading.

    >>> clock = Clock(read=1.0, decode=2.0, kernel=5.0, state=1.0, cpu=9.5)
    >>> print(*lines(summary([clock], 10.0, 5000, 4000)), sep="\\n")
    10 s · 500 rows/s · 0.002 GB/s of logits · 1 thread
    read 10 % · decode 20 % · kernel 50 % · aggregate 10 % · write 0 % · other 10 % of the threads' time
    computing 95 % of the time
    """
    threads = timing.get("threads", timing.get("processors", 1))
    what = "thread" if "threads" in timing else "processor"
    found = [
        f"{timing['seconds']:.3g} s · {timing['rows_per_second']:,.0f} rows/s · "
        f"{timing['gb_per_second']:.3g} GB/s of logits · {threads} {what}{'' if threads == 1 else 's'}"
    ]
    if "utilisation" in timing:
        available = timing["seconds"] * threads
        shares = {kind: timing[f"{kind}_seconds"] / available for kind in KINDS}
        shares["other"] = max(0.0, 1.0 - sum(shares.values()))
        named = [f"{'aggregate' if kind == 'state' else kind} {share:.0%}" for kind, share in shares.items()]
        found.append(" · ".join(named) + " of the threads' time")
        found.append(f"computing {' · '.join(f'{share:.0%}' for share in timing['utilisation'])} of the time")
    if "resumed_rows" in timing:
        found.append(f"{timing['resumed_rows']:,} rows were done before")
    if timing.get("row_groups_skipped"):
        found.append(f"{timing['row_groups_skipped']:,} row groups were skipped: their statistics exclude every row")
    found = [line.replace("%", " %") for line in found]
    for fallback in timing.get("fallbacks", []):
        found.append(f"{fallback['file']} was read through pyarrow, which is slower: {fallback['reason']}")
    return found
