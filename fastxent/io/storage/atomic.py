"""Atomic writes: a file is complete under its name, or it does not exist."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from fastxent.errors import OutputError

# What only a write can meet; any other OSError inside the block may come from reading the source, and passes through.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|stdout|stderr)|/proc/self/fd/(\d+)")


def check_destination(path: str | os.PathLike[str]) -> None:
    """Raise an error before the run if the path cannot be written."""
    if "://" in os.fsdecode(path):
        raise OutputError(
            f"cannot write {os.fspath(path)!r}: the output must be on a local disk; write it there and copy it"
        )
    final = Path(os.path.realpath(path))
    if final.is_dir():
        raise OutputError(f"cannot write {os.fspath(path)!r}: it is a folder; name a file")
    device = _is_device(path)
    if not device and not final.parent.is_dir():
        raise OutputError(
            f"cannot write {os.fspath(path)!r}: the folder {str(final.parent)!r} does not exist; create it first"
        )
    place = path if device else final.parent
    if not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise OutputError(f"cannot write {os.fspath(path)!r}: permission denied; choose another place")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends well.

    On any failure or interrupt it is removed, and what stood under ``path`` before still does. Symbolic links
    are followed, and the mode and owner of a file that is replaced are kept. A device or a pipe (``/dev/stdout``) has
    nothing to replace and is written to directly.

    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with atomic_path(f"{folder.name}/result.json") as temporary:
    ...     _ = temporary.write_text("{}")
    >>> os.listdir(folder.name)
    ['result.json']
    >>> folder.cleanup()

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, a size limit was met.
    """
    check_destination(path)
    if _is_device(path):
        with _explained(path):
            yield Path(path)
        return
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".{final.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with _explained(path, every=True):
            _create(temporary, final)
        with _explained(path):
            yield temporary
        with _explained(path, every=True):
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) under ``path``, whole or not at all.

    What no UTF-8 can hold, the bytes of a file name, is written as a JSON escape.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    if (descriptor := _descriptor(path)) is not None:
        with _explained(path, every=True), open(os.dup(descriptor), "wb") as stream:
            stream.write(data)
        return
    with atomic_path(path) as temporary, _explained(path, every=True):
        temporary.write_bytes(data)


def _create(temporary: Path, final: Path) -> None:
    """Create the temporary file, readable for those who may read the file that it replaces; else as the umask says."""
    try:
        before = os.stat(final)
    except FileNotFoundError:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if hasattr(os, "chown") and (os.geteuid(), os.getegid()) != (before.st_uid, before.st_gid):
        with contextlib.suppress(PermissionError):  # only root may give a file away
            os.chown(temporary, before.st_uid, before.st_gid)
    os.chmod(temporary, stat.S_IMODE(before.st_mode))


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """The number of an open file that ``path`` names: it is written to where it stands, whatever it leads to."""
    found = _DESCRIPTOR.fullmatch(os.fspath(path))
    if found is None:
        return None
    return int(found[1] or found[2] or (1 if found[0] == "/dev/stdout" else 2))


def _is_device(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is there, and neither a file nor a folder. A link to a pipe resolves to no path at all."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str], *, every: bool = False) -> Iterator[None]:
    """Return the error of a failed write, in one line."""
    try:
        yield
    except OSError as error:
        if not (every or error.errno in _WRITE_ERRORS):
            raise
        raise OutputError(
            f"cannot write {os.fspath(path)!r}: {os.strerror(error.errno) if error.errno else error}; "
            "no file was left; free some space or choose another place"
        ) from error
