"""Checkpoints: a folder of small state files, from which an interrupted run continues.

``run.json`` says what is evaluated: the configuration, and the version of every file. Each ``<24 hex digits>.state``
file holds the state of some finished units and says which; it is written beside its name and then renamed, and checks
itself, so that a run may be killed at any moment, or the machine lose its power. Sums are exact: what was computed
before and after a break adds up to the same bits. Files of other names are never read, changed or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from fastxent.engine.job import Job
from fastxent.engine.recipe import Key, Recipe, S, State
from fastxent.errors import OutputError, StateError
from fastxent.io.storage.atomic import write_atomic
from fastxent.io.storage.identity import Identity
from fastxent.state.packed import DAMAGED, MAGIC, VERSION

if TYPE_CHECKING:
    from fastxent.io.batch import Unit

_MAGIC = b"FXPART1\n"
_OWN = re.compile(r"[0-9a-f]{24}\.state")  # the names of checkpoints
_OWN_TEMPORARY = re.compile(r"\.[0-9a-f]{24}\.tmp")
_EVERY = 0.5  # seconds of a worker's time that a kill may cost
_SHARE = 50  # writing takes less than one part in this of a worker's time


class Checkpoints(Generic[S]):
    """The finished units of a run, on disk and in one state."""

    def __init__(self, folder: str | os.PathLike[str], job: Job[Recipe[S]], shard: str | None = None) -> None:
        self.folder = Path(folder)
        self._recipe = job.recipe
        self._total = job.recipe.empty()
        self._done: set[Key] = set()
        self._met: set[Key] = set()
        self._seen: Counter[tuple[str, int, int, int]] = Counter()
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[float, float]] = {}  # by thread: when its last file was written, and its cost
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._recognise()
        self._hold()
        try:
            self._agree(_description(job, shard))
            self._load()
        except BaseException:
            self.close()
            raise

    # ---- what the loop asks ------------------------------------------------------------------------------------------

    def claim(self, unit: Unit) -> Key | None:
        """The key of a unit that is still to be done; None if it is finished. Not for several threads at once."""
        where = unit.where
        place = (
            where.file, -1 if where.row_group is None else where.row_group, where.first_row,
            -1 if unit.rows is None else unit.rows,
        )  # fmt: skip
        key = (*place, self._seen[place])  # a file may be named twice, and then counts twice
        self._seen[place] += 1
        if key not in self._done:
            return key
        self._met.add(key)
        return None

    def keep(self, units: list[Key], state: S, *, last: bool = True) -> bool:
        """Write the state of some finished units and take it over, if that is due: always if it is the ``last``."""
        me, now = threading.get_ident(), time.perf_counter()
        before, cost = self._kept.setdefault(me, (now, 0.0))
        if not last and now - before < max(_EVERY, cost * _SHARE):
            return False
        self._write(units, state)
        with self._lock:
            self._total.absorb(state)
        end = time.perf_counter()
        self._kept[me] = end, end - now
        return True

    def result(self) -> S:
        """The state of all units, of this run and those before it."""
        if self._met != self._done:
            raise StateError(
                f"cannot continue from {self.folder}: a version of fastxent that divides the dump otherwise wrote it; "
                "name another folder, or delete this one to start again"
            )
        return self._total

    @property
    def finished(self) -> int:
        """The number of units that earlier runs finished."""
        return len(self._done)

    # ---- the folder --------------------------------------------------------------------------------------------------

    def _recognise(self) -> None:
        """Raise an error for a folder with other files, before anything is written to it."""
        others = [p.name for p in self.folder.iterdir() if p.name != "lock" and not p.name.startswith(".")]
        if others and not (self.folder / "run.json").exists():
            raise StateError(
                f"cannot use {self.folder} for checkpoints: it holds {others[0]!r} and no run.json; name an empty "
                "or a new folder"
            )

    def _hold(self) -> None:
        """Lock the folder for this run. The lock ends with the process."""
        with _explained(self.folder):
            self._lock_fd = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StateError(f"{self.folder} is in use by another run; wait for it, or name another folder") from None
        except OSError:  # a filesystem without locks
            pass

    def close(self) -> None:
        """Unlock the folder."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd = -1

    def __enter__(self) -> Checkpoints[S]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _agree(self, now: dict[str, Any]) -> None:
        """Write the description of the run, or compare it with the description in the folder."""
        path = self.folder / "run.json"
        if not os.path.lexists(path):
            write_atomic(path, json.dumps(now, indent=1, ensure_ascii=False) + "\n")
            return
        try:
            if not path.is_file():  # a pipe would be waited for
                raise ValueError("not a regular file")
            before = json.loads(path.read_text(encoding="utf-8"))
            difference = _difference(before, json.loads(json.dumps(now)))
        except DAMAGED:
            raise StateError(f"{path} is damaged; delete {self.folder} to start again") from None
        except OSError as error:
            raise StateError(f"cannot read {path}: {error.strerror}") from error
        if difference is not None:
            raise StateError(
                f"{self.folder} belongs to another run: {difference}; run the same command again, name another folder, "
                "or delete this one to start again"
            )

    def _load(self) -> None:
        """Load every valid state file. The units of a damaged file are run again."""
        there = sorted(path for path in self.folder.iterdir() if path.is_file())
        for path in there:
            if _OWN_TEMPORARY.fullmatch(path.name):  # of a write that was cut off: nobody else is here
                path.unlink(missing_ok=True)
        for path in there:
            if not _OWN.fullmatch(path.name):
                continue
            with _explained(path):
                data = path.read_bytes()
            if data.startswith(MAGIC):  # the state of another run, which somebody keeps here
                continue
            try:
                units, state = _unpack(data, self._recipe.load)
                if self._done & set(units):
                    raise StateError("another file holds the same units")
            except StateError as error:
                warnings.warn(f"cannot use {path}: {error}; its rows are read again", stacklevel=2)
                path.unlink(missing_ok=True)
                continue
            self._total.absorb(state)
            self._done |= set(units)

    def _write(self, units: list[Key], state: S) -> None:
        data = _pack(units, state)
        name = hashlib.sha256(repr(units).encode()).hexdigest()[:24]
        temporary = self.folder / f".{name}.tmp"
        with _explained(self.folder):
            # Not synced to the disk, which would cost more than the unit: a file that a power cut tears is found out.
            temporary.write_bytes(data)
            temporary.replace(self.folder / f"{name}.state")


def _pack(units: list[Key], state: State) -> bytes:
    listing = json.dumps(units).encode()
    body = len(listing).to_bytes(8, "little") + listing + state.to_bytes(compression=1)
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpack(data: bytes, load: Callable[[bytes], S]) -> tuple[list[Key], S]:
    start = len(_MAGIC) + 32
    body = data[start:]
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise StateError("it is damaged")
    end = 8 + int.from_bytes(body[:8], "little")
    try:
        units = [_key(*entry) for entry in json.loads(body[8:end])]
    except DAMAGED:
        raise StateError("it is damaged") from None
    return units, load(body[end:])


def _key(file: str, group: int, first: int, rows: int, which: int) -> Key:
    if not (isinstance(file, str) and all(type(number) is int for number in (group, first, rows, which))):
        raise TypeError("a unit is a file and four integers")
    return file, group, first, rows, which


def _description(job: Job[Recipe[S]], shard: str | None) -> dict[str, Any]:
    return {
        "schema": "fastxent/resume/1",
        "state_version": VERSION,
        "config": job.describe(),
        "dtype": job.source.dtype,
        "shard": shard,
        "files": [identity.to_dict() for identity in job.identities.values()],
    }


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the first difference between two descriptions, in words."""
    for name in ("schema", "state_version", "dtype", "shard"):
        if before[name] != now[name]:
            return f"{name.replace('_', ' ')} {before[name]!r} there, {now[name]!r} here"
    for option, here in now["config"].items():
        there = before["config"].get(option)
        if there != here:
            return f"{option}={_short(there)} there, {_short(here)} here"
    old, new = ({entry["name"]: Identity(**entry) for entry in given["files"]} for given in (before, now))
    for name, identity in old.items():
        if name not in new:
            return f"{name} is no longer among the files"
        changed = identity.difference(new[name])
        if changed is not None:
            return f"{name} has changed: {changed}"
    added = next((name for name in new if name not in old), None)
    return None if added is None else f"{added} was not among the files"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot use {str(path)!r} for checkpoints: {error.strerror or error}") from error
