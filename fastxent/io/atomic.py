"""Files that are complete under their name, or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from fastxent.errors import OutputError

# What only a write can meet; any other OSError inside the block may come from reading the source, and passes through.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def check_destination(path: str | os.PathLike[str]) -> None:
    """Refuse, before any work is done, a path that could not be written at the end of it."""
    if "://" in os.fsdecode(path):
        raise OutputError(f"cannot write {os.fspath(path)!r}: output goes to local disk; write it there and copy it")
    final = Path(os.path.realpath(path))
    if final.is_dir():
        raise OutputError(f"cannot write {os.fspath(path)!r}: it is a folder; name a file")
    if not final.parent.is_dir():
        raise OutputError(
            f"cannot write {os.fspath(path)!r}: there is no folder {str(final.parent)!r}; create it first"
        )
    place = final if _is_device(final) else final.parent
    if not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise OutputError(f"cannot write {os.fspath(path)!r}: permission denied; choose another place")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends well.

    On any failure or interrupt it is removed, and what stood under ``path`` before still does. Symbolic links
    are followed. A device or a pipe (``/dev/stdout``) has nothing to replace and is written to directly.

    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with atomic_path(f"{folder.name}/figures.json") as temporary:
    ...     _ = temporary.write_text("{}")
    >>> os.listdir(folder.name)
    ['figures.json']
    >>> folder.cleanup()

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, a size limit was met.
    """
    check_destination(path)
    final = Path(os.path.realpath(path))
    if _is_device(final):
        with _explained(path):
            yield final
        return
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _explained(path, every=True):
            # Created here, not by tempfile, so that the umask decides who may read the result.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        with _explained(path):
            yield temporary
        with _explained(path, every=True):
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) under ``path``, whole or not at all."""
    with atomic_path(path) as temporary, _explained(path, every=True):
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str], *, every: bool = False) -> Iterator[None]:
    """Turn the operating system's complaint about a write into one line."""
    try:
        yield
    except OSError as error:
        if not (every or error.errno in _WRITE_ERRORS):
            raise
        raise OutputError(
            f"cannot write {os.fspath(path)!r}: {os.strerror(error.errno) if error.errno else error}; "
            "nothing was left there; make room or choose another place"
        ) from error
