"""The files of a path, glob, folder or URL in a fixed order, and how they are opened."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from fastxent.errors import SourceError
from fastxent.io.storage.remote import RemoteBytes, RemoteFile, look, refusal, transport_errors
from fastxent.io.storage.saved import data_files, refuse_splits
from fastxent.names import public_name

SIDECARS = (".json", ".md", ".txt", ".yaml", ".yml", ".crc", ".html", ".lock", ".log")  # no rows in these
_MOST_JSON = 16 << 20  # bytes of the state of a dataset
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """One file of a source. Picklable."""

    name: str  # as the user would recognise it
    path: str  # within ``filesystem``
    filesystem: pafs.FileSystem | None = None  # None: this machine
    hive: tuple[tuple[str, str | None], ...] = ()  # key=value folders above it
    size: int | None = None  # of a file elsewhere, where a listing told it

    def __post_init__(self) -> None:
        if not self.local:
            object.__setattr__(self, "name", public_name(self.name))

    def open(self) -> pa.NativeFile:
        """Open the file for reading. Where a path is not UTF-8, pyarrow could not open it, but Python can."""
        with reading(self.name):
            if not self.local:
                return pa.PythonFile(RemoteFile(self.remote, self.name), mode="r")
            if os.path.getsize(self.path) == 0:
                raise SourceError(
                    f"cannot read {self.name}: the file is empty (0 bytes); write the file again or omit it"
                )
            return pa.PythonFile(open(self.path, "rb"), mode="r")

    @property
    def local(self) -> bool:
        return self.filesystem is None

    @cached_property
    def remote(self) -> RemoteBytes:
        """The bytes of a file that is not on this machine."""
        assert self.filesystem is not None
        return RemoteBytes(self.filesystem, self.path, self.size)


@contextmanager
def reading(name: str, part: str = "") -> Iterator[None]:
    """Convert errors of the block to a `SourceError` that names the file."""
    try:
        yield
    except (*transport_errors(), ValueError, OverflowError) as error:  # type: ignore[misc]  # mypy loses the type in the tuple
        if (told := refusal(name, error)) is not None:
            raise told from error
        detail = public_name(" ".join(str(error).split()))
        place = f"{name}{f', {part}' if part else ''}"
        cause = detail or type(error).__name__
        raise SourceError(f"cannot read {place}: {cause}; check that the file is complete") from error


def find_files(source: str | os.PathLike[str]) -> list[File]:
    """The files a path, glob, folder or URL means, sorted by name."""
    text = os.fspath(source)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not text:
        raise SourceError("source must not be an empty path; name a file, a folder or a glob")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme and scheme[1] != "file":
        return _find_remote(text, scheme[1])
    return _find_local(unquote(text[7:]) if scheme else os.path.expanduser(text))


def _find_local(text: str) -> list[File]:
    with reading(text):
        if os.path.isfile(text):
            return [File(text, text)]
        if os.path.isdir(text):
            refuse_splits(text, os.listdir(text), partial(_bytes, text))
            return _listed(text, [File(p, p, None, _hive(p, text)) for p in _walk(text)])
        if not any(mark in text for mark in "*?["):
            os.stat(text)  # says why it cannot be had
            raise SourceError(f"cannot read {text}: it is neither a file nor a folder")
        root, paths = _fixed_part(text), _matching(text) if "**" in text else sorted(glob.glob(text))
        inside = (p for path in paths for p in (_walk(path) if os.path.isdir(path) else [path]))
        found = [File(p, p, None, _hive(p, root)) for p in dict.fromkeys(inside)]
        if not found:
            raise SourceError(
                f"cannot read {text!r}: no file matches; check the folder, or quote the pattern for the shell"
            )
        return found


def _walk(folder: str) -> Iterator[str]:
    """The data files below a folder."""
    for base, names in _folders(folder):
        for name in names:
            if _holds_rows(name):
                yield os.path.join(base, name)


def _folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """(path, names of files in it) of a folder and those below it, hidden ones left out. Links are followed last, and
    no folder is entered twice: links may lead in a circle."""
    entered, folders, links = set(), [root], list[str]()
    while folders or links:
        base = folders.pop() if folders else links.pop(0)
        status = os.stat(base)
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(base) as found:
            entries = sorted((entry for entry in found if not _hidden(entry.name)), key=lambda entry: entry.name)
        inside = [entry for entry in entries if entry.is_dir()]
        read = partial(_bytes, base)
        names = data_files(base, [entry.name for entry in entries if not entry.is_dir()], read)
        links += [entry.path for entry in inside if entry.is_symlink()]
        folders += [entry.path for entry in reversed(inside) if not entry.is_symlink()]
        yield base, names


def _bytes(folder: str, name: str) -> bytes:
    with open(os.path.join(folder, name), "rb") as file:
        return file.read(_MOST_JSON)


def _matching(pattern: str) -> list[str]:
    """Files that match a glob with ``**``, or lie in a folder that does, sorted."""
    root = _fixed_part(pattern)
    match, found, whole = _matcher(pattern), [], set()
    for base, names in _folders(root or "."):
        base = base if root else base[2:]
        if match(base) or os.path.dirname(base) in whole:
            whole.add(base)
        for name in names:
            path = os.path.join(base, name)
            data = base not in whole and not pattern.endswith("*")  # a name that is asked for as such
            if (base in whole or match(path)) and (data or _holds_rows(name)):
                found.append(path)
    return sorted(found)


def _matcher(pattern: str) -> Callable[[str], object]:
    """Whether a path matches a glob: ``*`` stays within a folder, ``**`` does not."""
    *folders, last = pattern.split("/")
    parts = ["(?:.*/)?" if part == "**" else _part(part) + "/" for part in folders]
    return re.compile("".join(parts) + (".*" if last == "**" else _part(last))).fullmatch


def _part(pattern: str) -> str:
    return fnmatch.translate(pattern)[4:-3].replace(".*", "[^/]*")


def _holds_rows(name: str) -> bool:
    return not _hidden(name) and not name.lower().endswith(SIDECARS)


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _visible(path: str, root: str) -> bool:
    return not any(_hidden(part) for part in os.path.relpath(path, root or ".").split(os.sep))


def _listed(text: str, files: list[File]) -> list[File]:
    if not files:
        raise SourceError(f"cannot read {text}: the folder holds no data files; name the folder that holds the dump")
    return sorted(files, key=lambda file: file.name)


def _fixed_part(pattern: str) -> str:
    """The folders of a glob before its first wildcard."""
    return os.path.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0])


def _hive(path: str, root: str) -> tuple[tuple[str, str | None], ...]:
    """(key, value) of the ``key=value`` folders between root and file."""
    below = path[len(root) :] if path.startswith(root) else path
    pairs = [part.partition("=") for part in re.split(r"[/\\]", below)[:-1]]
    return tuple((unquote(k), None if v == _HIVE_NULL else unquote(v)) for k, eq, v in pairs if eq and k)


# ---- elsewhere -------------------------------------------------------------------------------------------------------


def _find_remote(url: str, scheme: str) -> list[File]:
    name = public_name(url)
    with reading(name):
        filesystem, path, globbing = _filesystem(url, scheme)
        path = path.rstrip("/")
        bare = url.rstrip("/")
        prefix = bare[: len(bare) - len(path)] if bare.endswith(path) else f"{scheme}://"

        def named(path: str) -> str:
            return public_name(prefix + path)

        info = look(filesystem, path)
        if info.type == pafs.FileType.File:
            return [File(name, path, filesystem, (), info.size)]
        if info.type == pafs.FileType.Directory:
            selected = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
            inside = {f.path: f.size for f in selected if f.type == pafs.FileType.File}
            kept = [p for p in _saved(filesystem, name, path, inside) if _visible(p, path)]
            kept = [p for p in kept if _holds_rows(os.path.basename(p))]
            return _listed(name, [File(named(p), p, filesystem, _hive(p, path), inside[p]) for p in kept])
        if not any(mark in path for mark in "*?["):
            raise SourceError(f"cannot read {name}: no such file or folder; check the path and your access to it")
        found = sorted(globbing.glob(path) if globbing else _glob_arrow(filesystem, path))
        if not found:
            raise SourceError(f"cannot read {name!r}: no file matches; check the folder and your access to it")
        root = _fixed_part(path)
        return [File(named(p), p, filesystem, _hive(p, root)) for p in found]


def _saved(filesystem: pafs.FileSystem, name: str, root: str, files: Iterable[str]) -> list[str]:
    """The files without those that folders saved by datasets do not list."""
    folders: dict[str, list[str]] = {}
    for path in files:
        folders.setdefault(os.path.dirname(path), []).append(os.path.basename(path))

    def read(folder: str, file: str) -> bytes:
        with filesystem.open_input_stream(f"{folder}/{file}") as stream:
            return bytes(stream.read(_MOST_JSON))

    refuse_splits(name, folders.get(root, []), partial(read, root))
    return [
        f"{folder}/{file}" if folder else file
        for folder, names in folders.items()
        for file in data_files(folder, names, partial(read, folder))
    ]


def _filesystem(url: str, scheme: str) -> tuple[pafs.FileSystem, str, Any]:
    """A filesystem for the URL, the path in it, and fsspec's own object where fsspec serves it."""
    name = public_name(url)
    if scheme in ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"):
        try:
            fixed = re.split(r"[*?\[]", url, maxsplit=1)[0]  # a wildcard is no part of a URL
            bare = url if fixed == url else fixed[: fixed.rindex("/")]
            filesystem, path = pafs.FileSystem.from_uri(bare + (_s3_query() if scheme == "s3" else ""))
            return filesystem, path + url[len(bare) :], None
        except (pa.ArrowInvalid, NotImplementedError):
            pass  # a pyarrow built without it
    try:
        import fsspec
    except ImportError as error:
        raise SourceError(
            f"cannot read {name}: fsspec is not installed; install it with: pip install 'fastxent[remote]'"
        ) from error
    if scheme not in (*fsspec.available_protocols(), *fsspec.registry) and "::" not in url:
        raise SourceError(
            f"cannot read {name}: no file system is known for {scheme}://; check the spelling, or install its package"
        )
    try:
        remote, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SourceError(f"cannot read {name}: the package for {scheme}:// is not installed: {error}") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(remote)), path, remote


def _s3_query() -> str:
    """What pyarrow does not take from the usual environment: another server than Amazon's, and the region."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options = {"region": region} if region else {}
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    return f"?{urlencode(options)}" if options else ""


def _glob_arrow(filesystem: pafs.FileSystem, pattern: str) -> list[str]:
    selector = pafs.FileSelector(_fixed_part(pattern), allow_not_found=True, recursive=True)
    match = _matcher(pattern)
    return [f.path for f in filesystem.get_file_info(selector) if f.type == pafs.FileType.File and match(f.path)]
