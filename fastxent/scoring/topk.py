"""Batches of rows that list their likeliest classes: ids and log-probabilities become `TopkRows`.

The listed classes are those of the largest probability, and no other class exceeds the smallest of them. A writer may
add the target to them where it is not among the likeliest. In a row without its log-probability in a column of its own,
a target that is listed last may be such a one: then the classes that are not listed are taken to reach up to the last
but one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from fastxent.errors import BadRowError, ColumnError
from fastxent.io.batch import Batch
from fastxent.io.lists import Listed, listed_rows, places_of
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import listed as k
from fastxent.options.config import EvalConfig
from fastxent.scoring.lookalike import TOLERANCE
from fastxent.scoring.refusal import bad_number, bad_target
from fastxent.scoring.rest import Rest, exp, log
from fastxent.scoring.rows import BAD_LOGITS, BAD_TARGET, IGNORED, USED, KeptColumns, TopkRows
from fastxent.scoring.targets import NO_IGNORE, Preparation, Prepared, logprobs_of

if TYPE_CHECKING:
    import pyarrow as pa

_PARTS = 4.0  # by how many times the precision of a log-probability a sum of probabilities may be wrong


class TopkPreparation(Preparation):
    """Prepares batches of a top-k dump. Targets that are strings without class names get their numbers later."""

    def targets(self, column: pa.Array, dtype: np.dtype[Any]) -> tuple[np.ndarray, Matrix | None]:
        """(class ids, None); 0 for strings without class names, and `NO_IGNORE` for a null."""
        from fastxent.io.columns import is_soft

        if is_soft(column.type):
            raise ColumnError(f"target must hold one class per row in a top-k dump, got {column.type}")
        if not (self.config.classes is None and "string" in str(column.type)):
            return super().targets(column, dtype)
        return np.where(np.asarray(column.is_valid()), 0, NO_IGNORE), None


class _Row(NamedTuple):
    """What is known of n rows beside their lists: float64 (n,), NaN where nothing is.

    own: log-probability of the target. other: of all classes that are not listed. bad: rows whose number is invalid.
    """

    own: np.ndarray
    other: np.ndarray
    bad: np.ndarray


class TopkScorer:
    """Scores batches of a top-k dump under one configuration.

    keeps: bool. Keep the columns for a visitor.
    """

    def __init__(self, config: EvalConfig, dtype: str = "", *, keeps: bool = False) -> None:
        self.config, self.keeps = config, keeps
        self.prepare = TopkPreparation(config)

    def __call__(self, batch: Batch) -> TopkRows:
        """The rows that pass ``where``. `BadRowError` for the first bad row, unless bad rows are skipped."""
        for _ in batch.blocks:  # which hold nothing
            pass
        prepared = self.prepare(batch, np.dtype(np.float64))
        return self.rows(prepared, self.lists(prepared))

    def lists(self, prepared: Prepared) -> Listed:
        """The lists of the rows of a batch."""
        c, columns = self.config, prepared.columns
        return listed_rows(columns[str(c.ids)], columns[str(c.logits)], (str(c.ids), str(c.logits)), c.classes)

    def rows(self, prepared: Prepared, found: Listed) -> TopkRows:
        """Score the rows of a batch that are prepared. Errors as above. found: their lists."""
        c, columns = self.config, prepared.columns
        target = self._targets(prepared, found)
        given = self._given(columns, len(target))
        sums, counts, faults = self._sums(found, target, np.isnan(given.own))
        status = np.full(len(target), USED, np.int8)
        named = counts[k.SIZE] + (counts[k.AHEAD] < 0 if c.target is not None else 0)
        crowded = (named > c.n_classes) & (target != -1)  # by strings, which have no range
        status[(faults[0] != k.GOOD) | given.bad | crowded] = BAD_LOGITS
        status[prepared.target == c.n_classes] = BAD_TARGET
        status[prepared.target == NO_IGNORE] = IGNORED
        if c.on_bad_row == "error" and status.max(initial=0) >= BAD_LOGITS:
            self._refuse(prepared, status, found, faults, given)
        with np.errstate(all="ignore"):  # rows that are not used
            return self._scored(prepared, found, status, (sums, counts), given)

    def _targets(self, prepared: Prepared, found: Listed) -> np.ndarray:
        """The id of each target among the listed ids."""
        c = self.config
        if c.target is None:
            return prepared.target
        column = prepared.columns[c.target]
        if found.texts is None:
            if c.classes is None and "string" in str(column.type):
                raise ColumnError(
                    f"target must hold integers like the ids, got {column.type}; name the classes in order (--classes)"
                )
            return prepared.target
        return places_of(found.texts, column, c.target)

    def _sums(self, found: Listed, target: np.ndarray, added: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the kernel finds: sums, counts and faults. added: whether the target may have joined the list."""
        n, c = len(target), self.config
        sums, counts = np.zeros((k.SUMS, n)), np.zeros((k.COUNTS, n), np.int64)
        faults = np.zeros((2, n), np.int64)
        room = 1 << int(2 * found.sizes.max(initial=1)).bit_length()
        begins, ends = found.starts, found.starts + found.sizes
        entries = len(found.ids)
        if n and (begins.min() < 0 or ends.max() > entries or len(found.logprobs) != entries):
            raise ColumnError("cannot read the lists of ids: rows point outside their values; write the file again")
        text = found.texts is not None
        n_ids = len(found.texts.dictionary) if found.texts is not None else c.n_classes
        rules = n_ids, TOLERANCE, added, not text
        with np.errstate(invalid="ignore"):
            values = found.ids, found.logprobs, exp(found.logprobs)
        k.sum_lists((begins, found.sizes), values, target, rules, np.zeros((2, room), np.int64), sums, counts, faults)
        return sums, counts, faults

    def _given(self, columns: dict[str, pa.Array], rows: int) -> _Row:
        bad = np.zeros(rows, bool)
        numbers = []
        for name in (self.config.target_logprob, self.config.other):
            if name is None:
                numbers.append(np.full(rows, np.nan))
                continue
            values, valid = logprobs_of(columns[name], name)
            with np.errstate(invalid="ignore"):
                bad |= valid & ~(values <= TOLERANCE)
                # the API's way to say that a token is below its cut
                cut = (values <= k.BELOW_CUT) & (values > -np.inf)
            numbers.append(np.where(cut, np.nan, values) if name == self.config.target_logprob else values)
        return _Row(numbers[0], numbers[1], bad)

    def _rest(
        self, sums: np.ndarray, size: np.ndarray, unlisted: np.ndarray, given: _Row, precision: float
    ) -> tuple[Rest, np.ndarray]:
        """(the classes that are not listed, whether the probabilities of a row do not sum to 1). ``unlisted``: p of a
        target that is not listed and known, else 0; such a target is none of these classes."""
        mass, cut = sums[k.MASS], exp(sums[k.CUT])
        known = unlisted > 0.0
        named = ~np.isnan(given.other)
        other = exp(np.where(named, given.other, -np.inf))
        slack = precision * _PARTS * (1.0 - sums[k.P_LOG_P])
        whole = np.where(named, other, 1.0 - mass)
        error = np.where(named, np.where(known, precision * _PARTS * other, 0.0), slack)
        left = whole - unlisted
        classes = np.maximum(self.config.n_classes - size - known, 0.0)
        nothing = (classes == 0.0) | (cut == 0.0)
        low = np.where(nothing, 0.0, np.clip(left - error, 0.0, 1.0))
        high = np.where(nothing, 0.0, np.clip(left + error, 0.0, 1.0))
        complete = classes == 0.0
        excess = np.where(
            named | complete, np.abs(mass + np.where(named, other, unlisted) - 1.0), mass + unlisted - 1.0
        )
        off = (excess > TOLERANCE) | (low > classes * cut + TOLERANCE) | ((cut == 0.0) & (left > TOLERANCE))
        return Rest(low, high, classes, cut, sums[k.CUT]), off

    def _scored(
        self,
        prepared: Prepared,
        found: Listed,
        status: np.ndarray,
        summed: tuple[np.ndarray, np.ndarray],
        given: _Row,
    ) -> TopkRows:
        """The rows, whatever their status."""
        (sums, counts), c, n = summed, self.config, len(status)
        listed = counts[k.AHEAD] >= 0
        own = np.where(np.isnan(given.own), sums[k.TARGET], given.own)
        differs = listed & (np.abs(exp(own) - exp(sums[k.TARGET])) > TOLERANCE + _PARTS * found.precision)
        known = listed | ~np.isnan(own)
        p = np.where(known, exp(np.where(known, own, -np.inf)), 0.0)
        apart = np.where(listed, 0.0, p)
        size = counts[k.SIZE]
        rest, off = self._rest(sums, size + (known & ~listed & (p == 0.0)), apart, given, found.precision)
        squares = sums[k.SQUARES] + apart * apart
        weighted = sums[k.P_LOG_P] + np.where(apart > 0.0, apart * own, 0.0)
        entropy, briers = rest.entropy(), (rest.known_brier(squares, p), rest.open_brier(squares))
        brier = [np.where(known, a, b) for a, b in zip(*briers, strict=True)]
        least, most = rest.target()
        nll = [np.where(known, 0.0 - own, _cost(q)) for q in (most, least)]
        rank = np.where(listed, counts[k.AHEAD], size)
        # a target that may have been added to the likeliest classes, and one that is none of them
        doubtful = listed & (rank == size - 1) & (size > 1) & np.isnan(given.own)
        over = np.where(doubtful | (known & ~listed), rest.above(p), np.where(listed, 0.0, rest.classes - 1.0))
        labelled = c.target is not None
        nothing = np.zeros(n)
        best = np.where(counts[k.BEST] >= 0, counts[k.BEST], 0)
        ids = found.ids if len(found.ids) else np.zeros(1, np.int64)
        exact = nll[0] == nll[1]
        return TopkRows(
            status=status,
            target=prepared.target,
            loss=np.where(exact, nll[0], np.nan) if labelled else nothing,
            class_weight=None,
            nll=np.where(exact, nll[0], np.nan) if labelled else nothing,
            lse=nothing,
            confidence=exp(sums[k.TOP]),
            predicted=ids[best] if found.texts is None else np.zeros(n, np.int64),
            rank=rank,
            entropy=entropy[0] - weighted,
            brier=brier[0] if labelled else nothing,
            weight=prepared.weight,
            n_bytes=prepared.n_bytes,
            cluster=None if c.cluster is None else prepared.columns[c.cluster],
            by={name: prepared.columns[name] for name in c.by},
            scores=prepared.scores,
            unnormalised=int(((off | differs) & (status == USED)).sum()),
            kept=KeptColumns(prepared.columns) if self.keeps else None,
            prepared=prepared,
            nll_low=nll[0] if labelled else nothing,
            nll_high=nll[1] if labelled else nothing,
            rank_high=(rank + np.maximum(over, 0.0)).astype(np.int64),
            entropy_high=entropy[1] - weighted,
            brier_high=brier[1] if labelled else nothing,
            listed=listed.astype(np.float64),
            mass=sums[k.MASS],
            own=np.where(listed, np.nan, given.own),
            rest_low=rest.low,
            rest_high=rest.high,
            cut=rest.cut,
            tokens=_taken(found.texts, best),
        )

    def _refuse(
        self, prepared: Prepared, status: np.ndarray, found: Listed, faults: np.ndarray, given: _Row
    ) -> NoReturn:
        """Raise the error of the first bad row."""
        c, i = self.config, int(np.argmax(status >= BAD_LOGITS))
        if status[i] == BAD_TARGET:
            why = bad_number(c, prepared, i)
            if why is None and c.target is not None:
                why = bad_target(prepared.columns[c.target][i].as_py(), c.n_classes)
        elif i in found.wrong:
            why = found.wrong[i]
        elif faults[0, i] == k.GOOD and not given.bad[i]:
            why = f"its list and its target are more than the {c.n_classes} classes (n_classes)"
        elif faults[0, i] == k.GOOD:
            named = ((c.target_logprob, given.own), (c.other, given.other))
            why = next(f"column {name!r} is {x[i]}" for name, x in named if name is not None and not x[i] <= TOLERANCE)
        else:
            why = self._fault(int(faults[0, i]), int(faults[1, i]), found, i, prepared.columns[str(c.ids)])
        raise BadRowError(prepared.where, prepared.place(i), str(why))

    def _fault(self, fault: int, place: int, found: Listed, i: int, column: pa.Array) -> str:
        """What is wrong with entry ``place`` of the list of row ``i``."""
        if fault == k.EMPTY:
            alone = "; target_logprob without ids evaluates the log-probability of the target alone"
            return f"it lists no class above the cut{alone if self.config.target_logprob else ''}"
        if fault in (k.NOT_A_NUMBER, k.TOO_LARGE):
            return f"log-probability {place} is {found.logprobs[found.starts[i] + place]}"
        value, n = column[i].as_py()[place], self.config.n_classes
        if fault == k.REPEATED:
            return f"id {value!r} is listed twice"
        if isinstance(value, str):
            return f"id {value!r} is not among the classes"
        return f"id {'null' if value is None else value} is outside the {n} classes 0..{n - 1}"


def _cost(p: np.ndarray) -> np.ndarray:
    return 0.0 - log(p)


def _taken(texts: pa.DictionaryArray | None, places: np.ndarray) -> pa.Array | None:
    """The texts at some places; nulls where there are none at all."""
    import pyarrow as pa

    if texts is None:
        return None
    return texts.take(pa.array(places)) if len(texts) else pa.nulls(len(places), pa.large_string())
