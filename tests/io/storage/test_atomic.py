"""A file is complete under its name, or what stood there before still is."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fastxent.errors import OutputError
from fastxent.io.storage.atomic import atomic_path, check_destination, write_atomic


def test_the_content_appears_and_nothing_else(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path, "os.replace is atomic within one file system only"
        temporary.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "whole")]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit, OSError(errno.EIO, "reading failed")])
def test_a_failure_leaves_what_was_there(tmp_path: Path, failure: BaseException | type[BaseException]) -> None:
    (tmp_path / "a.txt").write_text("before")
    with (
        pytest.raises(type(failure) if isinstance(failure, BaseException) else failure),
        atomic_path(tmp_path / "a.txt") as temporary,
    ):
        temporary.write_text("half")
        raise failure
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "before")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_explained(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError, match=os.strerror(code)), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise OSError(code, "from somewhere below")
    assert list(tmp_path.iterdir()) == []


def test_a_real_full_device() -> None:
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomic("/dev/full", "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode), "the device itself must never be replaced"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("before")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_atomic(tmp_path / "link.txt", "after")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "after"


def test_hopeless_destinations_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        check_destination(tmp_path / "absent" / "a.txt")
    with pytest.raises(OutputError, match="it is a folder"):
        check_destination(tmp_path)
    with pytest.raises(OutputError, match=r"'s3://bucket/a\.parquet': the output must be on a local disk"):
        check_destination("s3://bucket/a.parquet")
