"""Where the command line's output goes: files, pipes, and standard streams that are closed, full or left alone."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fastxent as fx
from fastxent.cli import leave, output, progress
from fastxent.results.values import Metric
from tests.cli.running import DIGITS, Cli

PROGRAM = f"'{sys.executable}' -m fastxent"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, in which ``fastxent`` is the program."""
    script = f'fastxent() {{ {PROGRAM} "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=300, env=os.environ | environment, check=False
    )


def test_output_into_pipes_and_standard_streams(tmp_path: Path) -> None:
    piped = shell(f"fastxent eval {DIGITS} --format none --output >(gzip > {tmp_path}/f.gz); wait $!")
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, "", "")
    assert json.loads(gzip.decompress((tmp_path / "f.gz").read_bytes()))["rows"]["total"] == 1797
    for name in ("/dev/stdout", "-"):
        done = shell(f"fastxent eval {DIGITS} --output {name} | cat")
        assert json.loads(done.stdout)["rows"]["total"] == 1797, "the table is not mixed into it"
    done = shell(f"fastxent eval {DIGITS} --format none --output /dev/stderr 2> {tmp_path}/log")
    assert json.loads((tmp_path / "log").read_text())["rows"]["total"] == 1797


def test_output_into_a_fifo(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "fifo").read_text()), daemon=True)
    reader.start()
    assert cli("eval", DIGITS, "--format", "none", "--output", tmp_path / "fifo") == (0, "", "")
    reader.join(timeout=60)
    assert json.loads(found[0])["rows"]["total"] == 1797
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_every_command_writes_its_result(cli: Cli, tmp_path: Path) -> None:
    state, figures = tmp_path / "a.state", tmp_path / "a.json"
    assert cli("eval", DIGITS, "--state", state, "--format", "none", "-o", figures) == (0, "", "")
    schemas = {
        "eval": ["eval", DIGITS],
        "inspect": ["inspect", DIGITS],
        "eval again": ["merge", state],
        "convert": ["convert", DIGITS, tmp_path / "c.parquet"],
        "eval at last": ["transform", DIGITS, tmp_path / "t.arrow"],
    }
    for kind, arguments in schemas.items():
        code, out, err = cli(*arguments, "--output", "-")
        assert (code, err) == (0, "")
        assert json.loads(out)["schema"] == f"fastxent/{kind.split()[0]}/1"
        file = tmp_path / "result.json"
        assert cli(*arguments, "--output", file, "--format", "none") == (0, "", "")
        assert json.loads(file.read_text())["schema"] == json.loads(out)["schema"]
    code, out, err = cli("report", figures, "--output", "-")
    assert (code, err, out[:15].lower()) == (0, "", "<!doctype html>")
    code, out, err = cli("eval", DIGITS, "--output", "-", "--format", "markdown")
    assert (code, out) == (2, "")
    assert "because both write to standard output" in err
    code, out, err = cli("transform", DIGITS, tmp_path / "t.arrow", "--output", "grad")
    assert (code, out, "give --kind grad" in err) == (2, "", True)


def test_merge_reports_and_logs(cli: Cli, tmp_path: Path) -> None:
    state, report, log = tmp_path / "a.state", tmp_path / "r.html", tmp_path / "l.jsonl"
    assert cli("eval", DIGITS, "--state", state, "--format", "none")[0] == 0
    flags = ["--report", report, "--log", f"jsonl:{log}", "--format", "none", "--quiet"]
    assert cli("merge", state, *flags) == (0, "", "")
    assert report.read_text().startswith("<!doctype html>")
    assert json.loads(log.read_text())["rows"]["total"] == 1797


def test_one_failed_output_loses_no_other(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(
        "eval", DIGITS, "--report", "/dev/full", "--output", tmp_path / "a.json", "--fail-if", "accuracy>10%"
    )
    assert code == 2, "a report that is missing is more than a gate that held"
    assert "cross_entropy" in out
    assert json.loads((tmp_path / "a.json").read_text())["rows"]["total"] == 1797
    first, second = err.splitlines()
    assert first.startswith("fastxent: failed: accuracy>10% (accuracy is 0.94")
    assert second.startswith("fastxent: error: cannot write '/dev/full': No space left on device")


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        (f"fastxent eval {DIGITS} >&-", 0, ""),
        ("fastxent eval none.parquet >&- 2>&-", 2, ""),
        (f"fastxent eval {DIGITS} --fail-if 'accuracy>0' >&- 2>/dev/full", 1, ""),
        ("fastxent eval none.parquet 2>/dev/full", 2, ""),
        ("fastxent --help >/dev/full", 2, "No space left on device"),
        (f"fastxent eval {DIGITS} --format json >/dev/full", 2, "cannot write to standard output: No space left"),
    ],
)
def test_streams_that_are_closed_or_full(line: str, code: int, told: str) -> None:
    for unbuffered in ("", "1"):
        done = shell(line, PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == code, done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (["--help"], ["eval", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-m", "fastxent", *arguments], stdout=writer, stderr=subprocess.PIPE,
                              text=True, timeout=300, check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([sys.executable, "-m", "fastxent", "eval", "none"], stderr=writer, timeout=300, check=False)
    assert done.returncode == 2
    os.close(writer)


def test_a_write_that_takes_a_part_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unbuffered stdout does: it says how much it took, and raises nothing."""
    taken = bytearray()

    class Raw:
        def write(self, data: memoryview) -> int:
            taken.extend(data[:7])
            return min(7, len(data))

    class Stream:
        buffer, encoding = Raw(), "utf-8"

        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stdout", Stream())
    output.emit("0123456789 × \x1b")
    assert taken.decode() == "0123456789 × \\u001b\n"


def test_a_fault_of_the_program_is_70_and_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a \x1b fault")

    monkeypatch.setattr(fx, "evaluate", fail)
    code, out, err = cli("eval", DIGITS)
    assert (code, out, err.count("\n")) == (leave.INTERNAL, "", 1)
    assert "ZeroDivisionError: a \N{REPLACEMENT CHARACTER} fault; set FASTXENT_TRACEBACK=1 for the traceback" in err
    monkeypatch.setenv("FASTXENT_TRACEBACK", "1")
    code, out, err = cli("eval", DIGITS)
    assert (code, out) == (leave.INTERNAL, "")
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT must be 0"),
        ({"FASTXENT_NUM_THREADS": "abc"}, "FASTXENT_NUM_THREADS must be an integer of at least 1, got 'abc'"),
    ],
)
def test_an_environment_that_cannot_be_is_one_line(environment: dict[str, str], told: str) -> None:
    done = shell(f"fastxent eval {DIGITS}", **environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr


def test_warnings_as_errors_stop_no_run_that_cannot_keep_its_kernels(tmp_path: Path) -> None:
    """Of a table of text, for which one small kernel is compiled."""
    (tmp_path / "dump.csv").write_text("l0,l1,target\n0.5,1.5,1\n2.0,1.0,0\n")
    line = f"fastxent convert {tmp_path}/dump.csv {tmp_path}/dump.arrow --logits 'l*' --format json"
    done = shell(line, PYTHONWARNINGS="error", FASTXENT_CACHE_DIR="/proc/none")
    assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, 2), done.stderr
    assert done.stderr.count("set FASTXENT_CACHE_DIR to a writable folder") == 1


def test_names_of_outputs_that_are_not_utf8(cli: Cli, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/o\xff")
    assert cli("eval", DIGITS, "--format", "none", "-o", f"{name}.json", "--report", f"{name}.html")[0] == 0
    assert Path(f"{name}.json").exists()
    for arguments in (["eval", DIGITS, "--per-row", f"{name}.parquet"], ["transform", DIGITS, f"{name}.arrow"]):
        code, out, err = cli(*arguments)
        assert (code, out) == (2, "")
        assert "Arrow requires file names in UTF-8" in err


def test_warnings_are_said_once(cli: Cli, tmp_path: Path) -> None:
    state = tmp_path / "a.state"
    told = "fastxent: warning: these metrics are of part 1 of 1 only"
    code, out, err = cli("eval", DIGITS, "--shard", "1/1", "--state", state)
    both = out + err
    assert (code, both.count("alone")) == (0, both.count(told))


def test_long_silence_is_broken_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = threading.Event()

    def say(message: str) -> None:
        print(message, file=sys.stderr)
        said.set()

    monkeypatch.setattr(progress, "_MINUTE", 0.01)
    monkeypatch.setattr(progress, "say", say)
    with progress.progress_bar(None, "evaluating") as report:
        assert report is not None
        report(500, 1000, 4000, 8000)
        report.running(Metric(2.25, 0.1, (2.0, 2.5), "t"))
        said.clear()
        assert said.wait(60)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("evaluating 50 %: 500 rows, ")
    assert line.endswith(", cross-entropy 2.25 (2 … 2.5)")
    with progress.progress_bar(False, "evaluating") as report:
        assert report is None


def test_compilation_is_told_and_is_no_part_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from fastxent.cli.compiling import compilations

    seen: list[tuple[int, bool]] = []
    with compilations() as found:
        found.changed = lambda: seen.append((found.count, found.running))
        assert numba.njit(lambda x: x + 1)(1) == 2
        state = progress._State("evaluating", found)
        monkeypatch.setattr(state.compiled, "_depth", 1)
        assert state.doing == f"compiling kernel {found.count}"
        monkeypatch.setattr(state.compiled, "_depth", 0)
    assert seen[0] == (1, True)
    assert seen[-1] == (found.count, False)
    assert found.seconds > 0
    clock = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    state = progress._State("evaluating", found)
    clock[0] += found.seconds + 2.0
    state(10, None, 2_000_000_000, None)
    assert state.rate == "5 rows/s  1.00 GB/s"


@contextmanager
def mode_of(path: Path, mode: int) -> Iterator[None]:
    path.write_text("before")
    path.chmod(mode)
    yield
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() != "before"


def test_a_file_that_is_replaced_keeps_its_mode(cli: Cli, tmp_path: Path) -> None:
    for mode in (0o600, 0o640, 0o666):
        with mode_of(tmp_path / "a.json", mode):
            assert cli("eval", DIGITS, "--format", "none", "--output", tmp_path / "a.json") == (0, "", "")


def test_hangups_are_ignored_under_nohup(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    calls: list[Any] = []
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN if number == signal.SIGHUP else None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: calls.append(number))
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    leave.arrive()
    assert calls == [signal.SIGTERM]
