"""Results that can be logged to trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fastxent.results.trackers import Logged


class Loggable:
    """A result that can be logged."""

    def log(self, tracker: str) -> str:
        """Log the result to a tracker.

        MLflow stores every number by name (of metrics also the standard error and the interval), those of slices too,
        the options, the result as JSON and the report. ``mlflow:`` alone logs to the tracking server that MLflow is set
        to, and into the active run if there is one.

        Args:
            tracker: str. ``jsonl:FILE`` appends one line to FILE; ``mlflow:URI`` creates a run.

        Returns:
            str. The path of the file, or the id of the MLflow run.

        Raises:
            ConfigError: if ``tracker`` is invalid.
            OutputError: if the tracker cannot be written or reached, or MLflow is not installed.
        """
        from fastxent.results.trackers import log

        return log(cast("Logged", self), tracker)
