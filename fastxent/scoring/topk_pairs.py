"""Batches of two top-k dumps: the rows of either, and bounds of their divergences.

The classes that both rows list count exactly. The others of either row are one class of their probability together,
which gives the least that a divergence can be. The most is that of rows which share none of them: infinite for KL.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fastxent.errors import BadRowError
from fastxent.io.batch import rows_at
from fastxent.io.lists import Listed
from fastxent.io.lockstep import PairBatch
from fastxent.kernels.rows.listed import BELOW_CUT
from fastxent.options.config import EvalConfig
from fastxent.scoring.pair_targets import ADVICE, PairTargets
from fastxent.scoring.pairs import Steps, StepScorer, TopkPairRows, join
from fastxent.scoring.rest import exp, log
from fastxent.scoring.rows import USED, TopkRows
from fastxent.scoring.targets import Prepared
from fastxent.scoring.topk import TopkScorer

_LN2 = math.log(2.0)


class Entries(NamedTuple):
    """The known classes of n rows, one after another: those that are listed above the cut, and targets.

    row: of each. ids: numbers that both dumps share. nameless: float64 (n,), p of a target whose id is not known.
    """

    row: np.ndarray
    ids: np.ndarray
    logprobs: np.ndarray
    nameless: np.ndarray


class TopkPairScorer(StepScorer):
    """Scores batches of two top-k dumps under one configuration."""

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        self._scorer = TopkScorer(config)
        self._targets = PairTargets(config, self._scorer.prepare, np.dtype(np.float64))

    def steps(self, batch: PairBatch) -> Steps:
        """Score a batch, whose blocks are sent. `BadRowError` as in `StepScorer`."""
        while (yield) is not None:  # the blocks hold nothing
            pass
        prepared = self._scorer.prepare(batch, np.dtype(np.float64))
        matched = self._targets.matched(prepared, batch.other)
        self._check_texts(prepared, matched)
        lists = [self._scorer.lists(side) for side in (prepared, matched)]
        a, b = (self._scorer.rows(side, held) for side, held in zip((prepared, matched), lists, strict=True))
        b = replace(b, cluster=a.cluster, by=a.by, weight=a.weight, n_bytes=a.n_bytes)
        join(a, b)
        targets = None if self.config.target is None else prepared.columns[self.config.target]
        with np.errstate(all="ignore"):  # rows that are not used
            mine, theirs = _entries(lists, (a, b), targets)
            bounds = _divergences(mine, theirs, (a, b))
        same = _same(a, b, lists)
        return pair_of(batch, prepared, (a, b), bounds, same)

    def _check_texts(self, prepared: Prepared, matched: Prepared) -> None:
        """`BadRowError` for the first target of the second dump that is another string."""
        name = self.config.target
        if name is None or "string" not in str(prepared.columns[name].type) or self.config.classes is not None:
            return
        here, there = (side.columns[name].cast(pa.large_string()).to_pylist() for side in (matched, prepared))
        for i, (mine, theirs) in enumerate(zip(here, there, strict=True)):
            if mine != theirs:
                place = f"{prepared.where.file}, {prepared.where.place(prepared.place(i)).spot}"
                why = f"the target is {mine!r}, but {theirs!r} in {place}"
                raise BadRowError(matched.where, matched.place(i), why, ADVICE)


Bounds = dict[str, tuple[np.ndarray, np.ndarray]]  # "ab", "ba", "js" -> the least and the most of each row


def pair_of(
    batch: PairBatch, prepared: Prepared, sides: tuple[TopkRows, TopkRows], bounds: Bounds, same: np.ndarray
) -> TopkPairRows:
    """The rows of two dumps and what sets them apart. same: where both have the same likeliest class."""
    a, b = sides
    n, where = len(a.status), batch.where
    with np.errstate(all="ignore"):  # rows that are not used
        ends = [(exp(-rows.nll_high), exp(-rows.nll_low)) for rows in sides]
    change = ends[1][0] - ends[0][1], ends[1][1] - ends[0][0]
    places = np.arange(n) if prepared.index is None else prepared.index
    return TopkPairRows(
        **vars(a), other=b, kl_ab=bounds["ab"][0], kl_ba=bounds["ba"][0], js=bounds["js"][0], change=change[0],
        file=where.file, row=rows_at(where, places), kl_ab_high=bounds["ab"][1], kl_ba_high=bounds["ba"][1],
        js_high=bounds["js"][1], change_high=change[1], same=same & (a.status == USED),
    )  # fmt: skip


def _entries(lists: list[Listed], rows: tuple[TopkRows, TopkRows], targets: pa.Array | None) -> list[Entries]:
    """The known classes of both dumps. targets: the column, if there is one."""
    a, b = lists
    ids = rows[0].target
    if a.texts is not None and b.texts is not None:  # numbers that both share
        texts = [a.texts.dictionary_decode(), b.texts.dictionary_decode()]
        texts += [] if targets is None else [targets.cast(pa.large_string())]
        coded = pa.concat_arrays(texts).dictionary_encode()
        numbers = np.asarray(coded.indices.fill_null(-1)).astype(np.int64)
        first, second, own = np.split(numbers, [len(a.ids), len(a.ids) + len(b.ids)])
        lists = [a._replace(ids=first), b._replace(ids=second)]
        ids = ids if targets is None else own
    return [entries_of(*side, ids) for side in zip(lists, rows, strict=True)]


def entries_of(side: Listed, rows: TopkRows, target: np.ndarray) -> Entries:
    """The known classes of a dump, in the order of rows and ids. target: ids, which are negative if there are none."""
    row = np.repeat(np.arange(len(side.sizes)), side.sizes)
    first = np.cumsum(side.sizes) - side.sizes
    place = np.arange(len(row)) + np.repeat(side.starts - first, side.sizes)
    ids, logprobs, used = side.ids[place], side.logprobs[place], rows.status == USED
    held = ((logprobs > BELOW_CUT) | np.isneginf(logprobs)) & used[row]
    known = used & ~np.isnan(rows.own)
    nameless = np.where(known & (target < 0), exp(np.where(known, rows.own, -np.inf)), 0.0)
    known &= target >= 0
    row = np.concatenate([row[held], np.flatnonzero(known)])
    ids = np.concatenate([ids[held], target[known]])
    logprobs = np.concatenate([logprobs[held], rows.own[known]])
    order = np.lexsort((ids, row))
    return Entries(row[order], ids[order], np.minimum(logprobs[order], 0.0), nameless)


def of_shared(row: np.ndarray, x: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What classes that are known in both dumps add to KL(p‖q), KL(q‖p) and JS of n rows. x, y: log p and log q."""
    p, q = exp(x), exp(y)
    middle = log((p + q) / 2.0)
    # -inf on both sides costs nothing, on one side of the divergence an infinite amount
    pq, qp = np.where(p > 0.0, p * (x - y), 0.0), np.where(q > 0.0, q * (y - x), 0.0)
    js = np.where(p > 0.0, p * (x - middle), 0.0) + np.where(q > 0.0, q * (y - middle), 0.0)
    found = (np.bincount(row, values, n) for values in (pq, qp, js / 2.0))
    return next(found), next(found), next(found)


def _divergences(a: Entries, b: Entries, rows: tuple[TopkRows, TopkRows]) -> Bounds:
    """The least and the most of KL(a‖b), KL(b‖a) and JS of each row."""
    n = len(rows[0].status)
    top = 1 + max(int(a.ids.max(initial=0)), int(b.ids.max(initial=0)))
    keys = a.row * top + a.ids, b.row * top + b.ids
    _, mine, theirs = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    ab, ba, js = of_shared(a.row[mine], a.logprobs[mine], b.logprobs[theirs], n)
    sides = ((rows[0], a, mine), (rows[1], b, theirs))
    left = [_left(side, entries, places, n) for side, entries, places in sides]
    js_low, js_high = _least_js(*left), (left[0][1] + left[1][1]) / 2.0 * _LN2
    return {
        "ab": _kl(ab, *left), "ba": _kl(ba, *reversed(left)),
        "js": (np.maximum(js + js_low, 0.0), np.maximum(np.minimum(np.maximum(js + js_high, js + js_low), _LN2), 0.0)),
    }  # fmt: skip


def _left(rows: TopkRows, entries: Entries, shared: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most probability of the classes that not both rows list. shared: places of the others."""
    left = np.ones(len(entries.row), bool)
    left[shared] = False
    alone = np.bincount(entries.row[left], exp(entries.logprobs[left]), n) + entries.nameless
    return alone + rows.rest_low, alone + rows.rest_high


def _kl(shared: np.ndarray, p: tuple[np.ndarray, np.ndarray], q: tuple[np.ndarray, np.ndarray]) -> tuple[
    np.ndarray, np.ndarray
]:  # fmt: skip
    """The least and the most KL divergence. shared: of the classes that both list. p, q: of the others together."""
    turn = np.clip(q[1] / math.e, *p)
    least = np.full(len(shared), np.inf)
    for mass in (*p, turn):
        some = mass > 0.0
        ratio = log(np.where(some, mass, 1.0)) - log(q[1])
        least = np.minimum(least, np.where(some, mass * ratio, 0.0))
    low = np.maximum(shared + least, 0.0)
    return low, np.where(p[1] > 0.0, np.inf, np.maximum(shared, low))


def _least_js(p: tuple[np.ndarray, np.ndarray], q: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The least Jensen-Shannon divergence of one class of probability p and q, of which limits are known."""
    overlap = (p[0] <= q[1]) & (q[0] <= p[1])
    first, second = np.where(p[0] > q[1], p[0], p[1]), np.where(p[0] > q[1], q[1], q[0])
    middle = log((first + second) / 2.0)
    found = np.zeros(len(first))
    for mass in (first, second):
        some = mass > 0.0
        found += np.where(some, mass * (log(np.where(some, mass, 1.0)) - middle), 0.0)
    return np.where(overlap, 0.0, found / 2.0)


def _same(a: TopkRows, b: TopkRows, lists: list[Listed]) -> np.ndarray:
    """Where both dumps have the same likeliest class."""
    if lists[0].texts is None:
        same: np.ndarray = a.predicted == b.predicted
        return same
    mine, theirs = (rows.tokens.to_pylist() if rows.tokens is not None else [] for rows in (a, b))
    return np.array([x == y for x, y in zip(mine, theirs, strict=True)], bool)
