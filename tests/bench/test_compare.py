"""Two trees side by side: what is laid out, that processes take turns, and what is said when they cannot."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench import compare, instructions, paired

TINY = compare.Effort(generations=1, rounds=2, bytes=1 << 16, least=1e-4)
NAMES = ["loss-C10-float32-1t", "evaluate-C1000-arrow-ipc"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose package said 1 when committed, and says 2 in the working tree."""
    root = tmp_path / "repository"
    for name in ("fastxent", "bench", "tests"):
        (root / name).mkdir(parents=True)
    (root / "fastxent" / "__init__.py").write_text("1")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "fastxent" / "__init__.py").write_text("2")
    monkeypatch.setattr(compare, "ROOT", root)
    return root


def test_base_is_the_commit_and_head_the_working_tree(repository: Path, tmp_path: Path) -> None:
    sides = compare.lay_out("HEAD", None, tmp_path)
    assert [(sides[side] / "fastxent" / "__init__.py").read_text() for side in compare.SIDES] == ["1", "2"]
    assert all((sides[side] / "bench").resolve() == repository / "bench" for side in compare.SIDES)
    assert compare.main(["no-such-commit"]) == 2
    (tmp_path / "again").mkdir()
    sides = compare.lay_out("HEAD", "HEAD", tmp_path / "again")
    assert [(sides[side] / "fastxent" / "__init__.py").read_text() for side in compare.SIDES] == ["1", "1"]


@pytest.fixture
def trees(tmp_path: Path) -> tuple[dict[str, Path], Path]:
    """(both sides as the working tree, where the dumps are)"""
    sides = {}
    for side in compare.SIDES:
        sides[side] = tmp_path / side
        sides[side].mkdir()
        for name in ("fastxent", "bench", "tests"):
            (sides[side] / name).symlink_to(compare.ROOT / name)
    data = tmp_path / "data"
    data.mkdir()
    x, target, _ = compare.files.dump(compare.taker.CLASSES, TINY.bytes)
    compare.files.write(compare.taker.file_of(data, "arrow-ipc"), x, target, "arrow-ipc")
    return sides, data


def test_processes_of_both_sides_time_every_case(trees: tuple[dict[str, Path], Path]) -> None:
    sides, data = trees
    numbers = compare.warm(sides, NAMES, TINY, data)
    assert list(numbers) == NAMES
    assert min(numbers.values()) >= 1
    seconds = compare.measure(sides, dict.fromkeys(NAMES, 2), TINY, data)
    assert seconds.shape == (1, 4, 2, 2)
    assert (seconds > 0).all()


def test_what_base_cannot_do_is_left_out_and_what_head_cannot_is_an_error(
    trees: tuple[dict[str, Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sides, data = trees
    (sides["base"] / "fastxent").unlink()
    package = sides["base"] / "fastxent"
    package.mkdir()
    for name in (compare.ROOT / "fastxent").iterdir():
        if name.suffix == ".py" or name.is_dir():
            (package / name.name).symlink_to(name)
    source = (compare.ROOT / "fastxent" / "__init__.py").read_text()
    (package / "__init__.py").unlink()
    (package / "__init__.py").write_text(source.replace('"row_statistics"', '"unheard_of"'))
    names = ["record-C10-float32-1t", *NAMES]
    assert list(compare.warm(sides, names, TINY, data)) == NAMES
    assert "left out, base cannot: record-C10-float32-1t" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(compare.CompareError, match=r"head fails record-C10-float32-1t: AttributeError"):
        compare.warm({"base": sides["head"], "head": sides["base"]}, names, TINY, data)


def test_a_tree_that_would_time_another_package_is_refused(tmp_path: Path) -> None:
    for name in ("bench", "tests"):
        (tmp_path / name).symlink_to(compare.ROOT / name)
    with pytest.raises(compare.CompareError, match="would time the fastxent of"), compare.Process(tmp_path, tmp_path):
        pass


def test_cases_are_chosen_by_name() -> None:
    assert compare.chosen("evaluate-C1000-zstd") == ["evaluate-C1000-zstd"]
    assert all(name.startswith("loss-C10-") for name in compare.chosen("^loss-C10-"))
    marked = compare.chosen(None)
    assert {"evaluate-C1000-none", "evaluate-C1000-zstd"} < set(marked)
    assert any(re.fullmatch(r"gradient-C1000-float32-\d+t", name) for name in marked)
    with pytest.raises(compare.CompareError, match="no case is called"):
        compare.chosen("nothing of the kind")


def test_the_table_says_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = np.exp(np.random.default_rng(0).normal(0, 0.001, (6, 4, 5, 2)))
    seconds[:, 2:, :, 0] *= 1.25
    compare.show(paired.verdicts(["slowed", "same"], seconds), seconds, {"slowed": 0.2})
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    slowed, same = (next(line for line in out if line[:1] == [name]) for name in ("slowed", "same"))
    assert slowed[3] == "+25.0%"
    assert slowed[-2:] == ["+20.00%", "SLOWER"]
    assert same[-1] == "-"


# ---- instructions ----------------------------------------------------------------------------------------------

FAKE_PERF = """#!/bin/sh
# perf stat -x, -e EVENT -o FILE -- COMMAND...: every call of a case is 1000 instructions on base and 1200 on head
out=$6
shift 7
"$@" || exit $?
calls=$6; each=1000; startup=5000000
case "$PWD" in */head) each=1200; startup=5100000;; esac
echo "$((startup + ${calls:-0} * each)),,instructions:u,1000,100.00,," > "$out"
"""


@pytest.fixture
def fake_perf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "perf").write_text(FAKE_PERF)
    (folder / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder / "perf"


def test_instructions_of_a_call_are_what_more_calls_add(trees: tuple[dict[str, Path], Path], fake_perf: Path) -> None:
    sides, data = trees
    found, told = instructions.ratios(sides, NAMES[:1], TINY.bytes, data)
    assert found == {NAMES[0]: pytest.approx(0.2)}
    assert told == "instructions counted of 1 cases"


def test_a_machine_that_cannot_count_says_so(fake_perf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_perf.write_text('#!/bin/sh\necho "<not supported>,,instructions:u,0,100.00,," > "$6"\n')
    assert instructions.ratios({}, ["x"], 1, Path()) == (
        {}, "instructions are not counted: this machine does not support the counter",
    )  # fmt: skip
    fake_perf.write_text("#!/bin/sh\nexit 255\n")
    assert instructions.unavailable() == "perf stat is not permitted here"
    monkeypatch.setenv("PATH", str(fake_perf.parent / "nowhere"))
    assert instructions.unavailable() == "perf is not installed"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("# started on\n\n123456,,instructions:u,1000,100.00,,\n", 123456),
        ("<not supported>,,instructions:u,0,100.00,,\n", None),
        ("<not counted>,,instructions:u,0,0.00,,\n", None),
        ("", None),
    ],
)
def test_counts_are_read_from_what_perf_writes(text: str, count: int | None) -> None:
    assert instructions.counted(text) == count
