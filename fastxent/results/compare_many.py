"""The result of `compare_many`: one dump and several others, each compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Self

from fastxent.errors import StateError
from fastxent.results import encoding
from fastxent.results.compare import CompareResult
from fastxent.results.comparisons import SCHEMA, SetValues
from fastxent.results.holm import holm


@dataclass(frozen=True, repr=False, eq=False)
class CompareSet(SetValues[CompareResult]):
    """The result of `compare_many`: read-only values, printed as tables.

    ``result["q4"].metrics["accuracy"].difference`` is the paired difference of the dump "q4" to the base. In each
    comparison ``metrics[name].adjusted_p_value`` is adjusted by Holm for the number of dumps; in slices, for the number
    of slices.

    Attributes:
        base: str. The name of the dump that the others are compared with.
        comparisons: dict of name to CompareResult. The comparison of each other dump with the base, in their order.
        timing: dict or None. Seconds, rates and threads of the run.
        state: ComparisonsState or None. The state that the result was computed from.
    """

    @classmethod
    def of(cls, results: Sequence[CompareResult], timing: dict[str, Any] | None = None) -> Self:
        """Return the set of comparisons with one base, with adjusted p-values."""
        names = dict.fromkeys(name for result in results for name in result.metrics)
        adjusted = {
            name: iter(holm([result.metrics[name].p_value for result in results if name in result.metrics]))
            for name in names
        }
        found = {}
        for result in results:
            metrics = {
                name: replace(metric, adjusted_p_value=next(adjusted[name])) for name, metric in result.metrics.items()
            }
            found[result.names[1]] = replace(result, metrics=metrics)
        return cls(results[0].names[0], found, timing)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the result with these values; the inverse of `to_dict`, without ``state``.

        Raises:
            StateError: if the values are not those of several comparisons.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise StateError(f"cannot read the comparisons: their schema is not {SCHEMA!r}")
        each, base, timing = (values.get(name) for name in ("comparisons", "base", "timing"))
        if not isinstance(each, list) or not each or not isinstance(base, str):
            raise StateError("cannot read the comparisons: they need a base and a list of at least one comparison")
        found = [CompareResult.from_dict(item) for item in each]
        named = {result.names[1]: result for result in found}
        if len(named) < len(found) or {result.names[0] for result in found} != {base} or base in named:
            raise StateError("cannot read the comparisons: each must be of the base and another dump")
        if not (timing is None or isinstance(timing, dict)):
            raise StateError("cannot read the comparisons: timing must be an object")
        return cls(base, named, timing)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the result with this JSON text; the inverse of `to_json`, without ``state``.

        Raises:
            StateError: if the text is not that of several comparisons.
        """
        return cls.from_dict(encoding.read(text, "comparisons"))

    def __repr__(self) -> str:
        from fastxent.results.compare_many_text import terminal

        return terminal(self)

    def to_markdown(self) -> str:
        """Return Markdown tables of the main metrics, divergences and slices of all dumps."""
        from fastxent.results.compare_many_text import markdown

        return markdown(self)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write a self-contained HTML report.

        Args:
            path: str or path. The file to write.

        Raises:
            OutputError: if the file cannot be written, or matplotlib or jinja2 is not installed.
        """
        from fastxent.results.report import set_html, write

        write(set_html, self, path)

    def log(self, tracker: str) -> list[str]:
        """Log each comparison to a tracker, as `CompareResult.log` does.

        Args:
            tracker: str. ``jsonl:FILE`` appends one line per comparison; ``mlflow:URI`` creates one run per comparison,
                below the active run if there is one.

        Returns:
            list of str. The path of the file, or the ids of the MLflow runs.

        Raises:
            ConfigError, OutputError: as `CompareResult.log`.
        """
        from fastxent.results.trackers import log

        return list(dict.fromkeys(log(result, tracker, nested=True) for result in self.comparisons.values()))
