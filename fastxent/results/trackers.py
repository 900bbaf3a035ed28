"""Log results to experiment trackers: a JSON-lines file, or MLflow.

One text names a tracker, such as ``jsonl:runs.jsonl`` or ``mlflow:https://tracking.example.org``. Trackers get only
values that the JSON of a result holds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from fastxent.errors import ConfigError, OutputError
from fastxent.io.storage.atomic import check_destination
from fastxent.results.comparison import Compared, CompareValues, numbers
from fastxent.results.evaluation import EvalValues
from fastxent.results.values import Metric, Slice, labels

Logged = EvalValues | CompareValues
EXPERIMENT = "fastxent"  # unless MLFLOW_EXPERIMENT_NAME is set
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # per request to MLflow
_LONGEST_NAME, _LONGEST_PARAM = 250, 500
_SQL = ("sqlite", "mysql", "postgresql", "mssql")
# Used unless the user has set them: a server that does not answer is an error within seconds (by MLflow's defaults,
# after ten minutes), and a local folder is allowed.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
_UNSAFE = re.compile(r"[^\w\-. ]")  # slashes make groups; not all file systems allow colons


def check(tracker: str) -> None:
    """Check a tracker before the run.

    Args:
        tracker: str. ``jsonl:FILE`` or ``mlflow:URI``.

    Raises:
        ConfigError: if ``tracker`` is invalid.
        OutputError: if the file cannot be written, or a package is not installed.
    """
    kind, place = _parsed(tracker)
    if kind == "jsonl":
        check_destination(place)
    else:
        _mlflow()
        _check_store(place)


def log(result: Logged, tracker: str, *, nested: bool = False) -> str:
    """Log a result.

    Args:
        result: EvalValues or CompareValues. The result.
        tracker: str. ``jsonl:FILE`` or ``mlflow:URI``.
        nested: bool. In an active MLflow run, create a run below it: several results do not overwrite each other.

    Returns:
        str. The path of the file, or the id of the MLflow run.
    """
    kind, place = _parsed(tracker)
    return _append(result, place) if kind == "jsonl" else _run(result, place, nested)


def _parsed(tracker: str) -> tuple[str, str]:
    kind, colon, place = tracker.partition(":")
    if kind not in ("jsonl", "mlflow") or not colon or (kind == "jsonl" and not place):
        raise ConfigError(f"invalid tracker {tracker!r}; expected 'jsonl:FILE' or 'mlflow:URI'")
    return kind, place


# ---- JSON lines ------------------------------------------------------------------------------------------------


def _append(result: Logged, path: str) -> str:
    """Append one line: the time, and the JSON of the result. If the write fails, the file is unchanged."""
    check_destination(path)
    values = {"logged": datetime.now(UTC).isoformat(timespec="seconds"), **result.to_dict()}
    line = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = line.encode(errors="backslashreplace") + b"\n"
    try:
        # Unbuffered, in append mode: lines of several processes do not mix.
        with open(path, "ab+", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if before and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                data = b"\n" + data  # after an incomplete line of another program
            if file.write(data) != len(data):
                file.truncate(before)
                raise OutputError(f"cannot append to {path!r}: the disk is full; the file is unchanged")
    except OSError as error:
        raise OutputError(f"cannot append to {path!r}: {error.strerror or error}") from error
    return path


# ---- MLflow ----------------------------------------------------------------------------------------------------


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise OutputError(
            f"cannot log to MLflow: {error.name} is not installed; run pip install 'fastxent[mlflow]'"
        ) from error
    return mlflow


def _check_store(uri: str) -> None:
    """Refuse a database if its packages are not installed; MLflow would report an unknown scheme."""
    scheme = re.split(r"[+:]", uri, maxsplit=1)[0]
    lacking = [name for name in ("sqlalchemy", "alembic") if importlib.util.find_spec(name) is None]
    if scheme in _SQL and lacking:
        raise OutputError(
            f"cannot log to MLflow at {scheme}: {' and '.join(lacking)} must be installed; run pip install mlflow"
        )


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Set `_MLFLOW_SETTINGS` in the environment, which MLflow reads at each request."""
    missing = {name: value for name, value in _MLFLOW_SETTINGS.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _run(result: Logged, uri: str, nested: bool) -> str:
    """Log to a new run. If ``uri`` is empty, use the server that MLflow is set to, and its active run if any."""
    mlflow = _mlflow()
    _check_store(uri)
    with _settings():
        return _logged(mlflow, result, uri, nested)


def _logged(mlflow: Any, result: Logged, uri: str, nested: bool) -> str:
    from mlflow.entities import Metric as Point, Param

    active = mlflow.active_run() if not uri else None
    now = int(datetime.now(UTC).timestamp() * 1000)
    try:
        client = mlflow.MlflowClient(uri or None)
        if nested and active is not None:
            parent, active = active.info, None
            tags = {"mlflow.parentRunId": parent.run_id}
            run = client.create_run(parent.experiment_id, run_name=_name(result), tags=tags)
        else:
            run = active or client.create_run(_experiment(client), run_name=_name(result))
        done = "FAILED"
        try:
            params = [Param(name, text) for name, text in _params(result)]
            points = [Point(name, value, now, 0) for name, value in _metrics(result)]
            for i in range(0, len(params), _MOST_PARAMS):
                client.log_batch(run.info.run_id, params=params[i : i + _MOST_PARAMS])
            for i in range(0, len(points), _MOST_METRICS):
                client.log_batch(run.info.run_id, metrics=points[i : i + _MOST_METRICS])
            for name, text in _artifacts(result):
                client.log_text(run.info.run_id, text, name)
            done = "FINISHED"
        finally:
            if active is None:
                client.set_terminated(run.info.run_id, done)
    except (mlflow.MlflowException, OSError) as error:  # errors of requests are OSErrors
        place, said = uri or "its default", " ".join(str(error).split())
        raise OutputError(f"cannot log to MLflow at {place!r}: {said}") from error
    return str(run.info.run_id)


def _experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _name(result: Logged) -> str | None:
    if isinstance(result, CompareValues):
        return " → ".join(result.names)
    return os.path.basename(result.files[0]) or None if len(result.files) == 1 else None


def _params(result: Logged) -> Iterator[tuple[str, str]]:
    """Yield options, input files and versions. Long values are cut; the artifact ``result.json`` has them whole."""
    values = result.config.to_dict() | {"files": list(result.files)}
    values |= {f"version.{_safe(name)}": version for name, version in result.versions.items()}
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield name, text if len(text) <= _LONGEST_PARAM else text[: _LONGEST_PARAM - 1] + "…"


def _metrics(result: Logged) -> Iterator[tuple[str, float]]:
    """Yield counts of rows and all metrics with standard errors and intervals; slices as ``slice/column/value/…``.

    NaN is skipped.
    """
    found: dict[str, float] = {f"rows/{name}": float(n) for name, n in vars(result.rows).items()}
    if isinstance(result, CompareValues):
        found |= _paired("", result)
    else:
        found |= _with_errors("", result.metrics)
    slices: Mapping[str, Mapping[Any, Slice | Compared]] = result.slices
    for column, parts in slices.items():
        for label, part in zip(labels(parts), parts.values(), strict=True):
            place = f"slice/{_safe(column)}/{_safe(label)}"
            while f"{place}/rows" in found:  # two values with the same safe name
                place += "_"
            found[f"{place}/rows"] = float(part.rows.used)
            found |= (
                _paired(f"{place}/", part) if isinstance(part, Compared) else _with_errors(f"{place}/", part.metrics)
            )
    for name, value in found.items():
        if not math.isnan(value):
            yield name, value


def _with_errors(prefix: str, metrics: dict[str, Metric]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        values = (metric.value, metric.stderr, *metric.ci95, *(metric.bounds or (math.nan, math.nan)))
        endings = ("", "_stderr", "_ci95_low", "_ci95_high", "_bounds_low", "_bounds_high")
        place = f"{prefix}{_safe(name)}"
        while place in found:  # two scores with the same safe name
            place += "_"
        found |= {f"{place}{ending}": value for ending, value in zip(endings, values, strict=True)}
    return found


def _paired(prefix: str, part: Compared) -> dict[str, float]:
    """Every number of a comparison but the counts of rows."""
    return {f"{prefix}{name}": value for name, value in numbers(part).items() if not name.startswith("rows.")}


def _safe(text: str) -> str:
    """Return a part of a name that MLflow accepts: letters, digits and ``_-. ``, not only dots."""
    safe = _UNSAFE.sub("_", text).strip(" .")[: (_LONGEST_NAME - 60) // 2]
    return safe or "_"


def _artifacts(result: Logged) -> Iterator[tuple[str, str]]:
    """Yield the result as JSON, and the report if matplotlib and jinja2 are installed."""
    yield "result.json", result.to_json()
    if all(importlib.util.find_spec(name) for name in ("jinja2", "matplotlib")):
        from fastxent.results.report import comparison_html, html

        yield "report.html", comparison_html(result) if isinstance(result, CompareValues) else html(result)
