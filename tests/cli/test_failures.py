"""Bad input and bad usage: one line, exit code 2, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent.cli.program import run
from tests.cli.running import DIGITS, Cli, check_failure, dump


def _no_logits(path: Path) -> Path:
    return dump(path, logits=[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], None, [1.0, 2.0, 3.0]])


def _not_parquet(path: Path) -> Path:
    path.write_bytes(b"\x00id,logits\n")
    return path


def _cut(path: Path) -> Path:
    dump(path)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _row(value: float) -> list[list[float]]:
    return [[0.0, 1.0, 2.0]] * 3 + [[0.0, value, 2.0]]


RAGGED = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0, 3.0]]


def _one_a_class(path: Path) -> Path:
    pq.write_table(pa.table({"logit_0": [0.5, 1.0], "logit_1": [1.5, 0.0], "target": [0, 1]}), path)
    return path


BAD_DUMPS: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "missing file": (lambda path: path, [], r"a\.parquet"),
    "not Parquet": (_not_parquet, [], r"a\.parquet.*"),
    "empty file": (_empty, [], r"a\.parquet"),
    "cut short": (_cut, [], r"a\.parquet"),
    "symbolic link to itself": (_loop, [], r"a\.parquet"),
    "empty glob": (lambda path: path.with_name("*.arrow"), [], r"\*\.arrow"),
    "missing logits": (dump, ["--logits", "logit"], r"no column 'logit'.*did you mean 'logits'\?"),
    "missing target": (dump, ["--target", "targets"], r"no column 'targets'.*did you mean 'target'\?"),
    "missing slice": (dump, ["--by", "zzz"], r"no column 'zzz'.*columns: .*target"),
    "missing cluster": (dump, ["--cluster", "zzz"], r"no column 'zzz'"),
    "missing weight": (dump, ["--weight", "zzz"], r"no column 'zzz'"),
    "missing n_bytes": (dump, ["--n-bytes", "zzz"], r"no column 'zzz'"),
    "logits are text": (lambda path: dump(path, logits=pa.array(["x"] * 4)), [], r"logits.*string"),
    "targets are floats": (
        lambda path: dump(path, target=[0.5, 1.0, 2.0, 0.0]),
        [],
        r"a\.parquet.*row 0: target 0\.5 is not a whole number",
    ),
    "targets are unknown text": (lambda path: dump(path, target=["a", "b", "q", "a"]), ["--classes", "a,b,c"], r"'q'"),
    "ragged": (lambda path: dump(path, logits=RAGGED), [], r"a\.parquet.*row group 1.*row 2.*\b2\b.*\b3\b"),
    "null logits": (_no_logits, [], r"a\.parquet.*row group 1.*row 2.*null"),
    "null in logits": (lambda path: dump(path, logits=[[1.0, None, 3.0]] * 4), [], r"a\.parquet.*row 0.*null"),
    "target too large": (lambda path: dump(path, target=[0, 1, 2, 3]), [], r"a\.parquet.*row group 1.*row 3.*\b3\b"),
    "target negative": (lambda path: dump(path, target=[0, -1, 2, 0]), [], r"a\.parquet.*row group 0.*row 1.*-1\b"),
    "NaN": (lambda path: dump(path, logits=_row(np.nan)), [], r"a\.parquet.*row group 1.*row 3.*(?i:nan)"),
    "+inf": (lambda path: dump(path, logits=_row(np.inf)), [], r"a\.parquet.*row group 1.*row 3.*inf"),
    "unknown metric": (dump, ["--metrics", "acuracy"], r"acuracy"),
    "bits per byte without bytes": (dump, ["--metrics", "bits_per_byte"], r"n[-_]bytes"),
    "memory": (dump, ["--memory", "three potatoes"], r"memory"),
    "smoothing": (dump, ["--label-smoothing", "1.5"], r"label_smoothing must be a number from 0 to 1, got 1\.5"),
    "temperature": (dump, ["--temperature", "0"], r"temperature must be a finite number above 0, got 0"),
    "class weights": (dump, ["--class-weight", "1,2"], "class_weight must have 3 entries, one per class, got 2"),
    "where": (dump, ["--where", "target =="], r"where"),
    "bins": (dump, ["--bins", "1000000000000"], "bins must be an integer from 1 to 10000, got 1000000000000"),
    "threads": (dump, ["--threads", "1000000"], "threads must be an integer from 1 to 1024, got 1000000"),
    "a column of a class": (_one_a_class, [], r"no column 'logits' in .*; did you mean 'logit_\*'\?"),
    "logits make slices": (
        dump,
        ["--by", "logits"],
        r"cannot group rows by column 'logits': its values are of type list",
    ),
    "logits are weights": (dump, ["--weight", "logits"], r"'logits' must hold numbers, got list"),
}


@pytest.mark.parametrize("case", BAD_DUMPS)
def test_bad_input(case: str, cli: Cli, tmp_path: Path) -> None:
    make, options, message = BAD_DUMPS[case]
    source = make(tmp_path / "a.parquet")
    before = sorted(tmp_path.iterdir())
    outputs = ["--output", tmp_path / "o.json", "--per-row", tmp_path / "rows.parquet", "--state", tmp_path / "state"]
    check_failure(*cli("eval", source, *options, *outputs), message)
    assert sorted(tmp_path.iterdir()) == before
    check_failure(*cli("transform", source, tmp_path / "out.parquet", *options), message)
    assert sorted(tmp_path.iterdir()) == before


def test_logits_are_carried_over_where_asked(cli: Cli, tmp_path: Path) -> None:
    source, out = dump(tmp_path / "a.parquet"), tmp_path / "out.parquet"
    assert cli("transform", source, out, "--keep", "logits")[0] == 0
    assert pq.read_table(out)["logits"].to_pylist() == pq.read_table(source)["logits"].to_pylist()


@pytest.mark.parametrize("option", ["--output {}", "--report {}", "--state {}", "--per-row {}", "--log jsonl:{}"])
def test_no_output_replaces_the_source(option: str, cli: Cli, tmp_path: Path) -> None:
    source = dump(tmp_path / "a.parquet")
    before = source.read_bytes()
    for given in (source, tmp_path, tmp_path / "*.parquet", f"file://{source}"):
        check_failure(*cli("eval", given, *option.format(f"{tmp_path}/./a.parquet").split()), "it is an input file")
        assert source.read_bytes() == before


def test_two_outputs_are_two_files(cli: Cli, tmp_path: Path) -> None:
    source = dump(tmp_path / "a.parquet")
    for one, other in (
        ("--output {}", "--report {}"),
        ("--per-row {}", "--state {}"),
        ("--log jsonl:{}", "--state {}"),
    ):
        options = f"{one} {other}".format(tmp_path / "b.parquet", f"{tmp_path}/./b.parquet").split()
        check_failure(*cli("eval", source, *options), r"b\.parquet'.*twice")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert cli("eval", source, "--output", "/dev/null", "--state", "/dev/null")[0] == 0


def test_a_state_or_result_is_not_replaced_by_what_is_made_of_it(cli: Cli, tmp_path: Path) -> None:
    state, figures = tmp_path / "a.state", tmp_path / "a.json"
    assert cli("eval", dump(tmp_path / "a.parquet"), "--state", state, "--output", figures)[0] == 0
    before = state.read_bytes(), figures.read_bytes()
    check_failure(*cli("merge", state, "--output", state), "it is an input file")
    check_failure(*cli("report", figures, "--output", figures), "it is an input file")
    assert (state.read_bytes(), figures.read_bytes()) == before
    check_failure(*cli("merge", state, "--output", tmp_path / "b", "--state", tmp_path / "b"), "twice")


def test_missing_columns_to_carry_over(cli: Cli, tmp_path: Path) -> None:
    source = dump(tmp_path / "a.parquet", name=["a", "b", "c", "d"])
    rows = ["--per-row", tmp_path / "rows.parquet"]
    check_failure(*cli("eval", source, *rows, "--id", "nam"), r"no column 'nam'.*did you mean 'name'\?")
    out = tmp_path / "out.parquet"
    check_failure(*cli("transform", source, out, "--keep", "nam"), r"no column 'nam'.*did you mean 'name'\?")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_files_of_other_widths(cli: Cli, tmp_path: Path) -> None:
    dump(tmp_path / "a.parquet")
    dump(tmp_path / "b.parquet", logits=[[0.0, 1.0]] * 4, target=[0] * 4)
    check_failure(*cli("eval", tmp_path / "*.parquet"), r"got 3 in \S+a\.parquet and 2 in \S+b\.parquet")


@pytest.mark.parametrize("options", [("--logits", "logits"), ("--on-bad-row", "skip")])
def test_bad_rows_stop_or_are_counted(options: tuple[str, str], cli: Cli, tmp_path: Path) -> None:
    path = dump(tmp_path / "a.parquet", logits=_row(np.nan))
    code, out, err = cli("eval", path, *options, "--format", "json")
    if options[0] == "--on-bad-row":
        assert code == 0
        rows = json.loads(out)["rows"]
        assert (rows["total"], rows["used"], rows["ignored"], rows["bad"]) == (4, 3, 0, 1)
    else:
        check_failure(code, out, err, r"--on-bad-row skip")


@pytest.fixture
def unprivileged(capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """A folder everyone may enter, and a process that file permissions bind even if root runs the tests."""
    run(["eval", DIGITS, "--quiet"])  # whatever is imported or compiled on use is in place before the change
    capsys.readouterr()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        euid = os.geteuid()
        yield Path(folder)
        os.seteuid(euid)


def test_unreadable_file(cli: Cli, unprivileged: Path) -> None:
    path = dump(unprivileged / "a.parquet")
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    check_failure(*cli("eval", path), r"(?i)a\.parquet.*permission denied|permission denied.*a\.parquet")


def test_unwritable_folder(cli: Cli, unprivileged: Path) -> None:
    path = dump(unprivileged / "a.parquet")
    path.chmod(0o644)
    unprivileged.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    for arguments in (["eval", path, "--output"], ["eval", path, "--per-row"], ["transform", path]):
        check_failure(*cli(*arguments, unprivileged / "out.parquet"), r"cannot write .*out\.parquet.*permission denied")


@pytest.mark.parametrize("option", ["--output", "--state"])
def test_full_device(option: str, cli: Cli) -> None:
    code, out, err = cli("eval", DIGITS, option, "/dev/full")
    check_failure(code, "", err, r"cannot write '/dev/full': No space left on device")
    assert "cross_entropy" in out, "the figures are printed first"


@pytest.mark.parametrize("command", ["per-row", "output", "transform"])
def test_no_room_for_the_output(command: str, cli: Cli, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails half-way just so."""
    final = tmp_path / "out.parquet"
    final.write_text("before")
    arguments = ["transform", DIGITS, final] if command == "transform" else ["eval", DIGITS, f"--{command}", final]
    assert cli("eval", DIGITS, "--per-row", tmp_path / "warm.parquet")[0] == 0
    (tmp_path / "warm.parquet").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        code, out, err = cli(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_failure(code, "", err, rf"cannot write .*out\.parquet.*{os.strerror(errno.EFBIG)}")
    assert bool(out) is (command == "output"), "what is computed is printed before it is written"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out.parquet", "before")]


@pytest.mark.parametrize(
    "arguments",
    [[], ["evl"], ["eval"], ["merge"], ["transform", DIGITS],
     ["eval", DIGITS, "--bye", "fold"], ["eval", DIGITS, "--threads", "0"], ["eval", DIGITS, "--format", "yaml"],
     ["eval", DIGITS, "--class-weight", "@/nowhere"], ["eval", DIGITS, "--top-k", "0"], ["eval", DIGITS, "--bins", "0"],
     ["eval", DIGITS, "--output", "/nowhere/x"], ["transform", DIGITS, "/nowhere/x.parquet"],
     ["merge", "/nowhere/x"], ["merge", DIGITS]],
)  # fmt: skip
def test_bad_usage(arguments: list[str], cli: Cli) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("fastxent: error: " if arguments else "Usage: ")
    assert err.count("\n") == 1 or not arguments
