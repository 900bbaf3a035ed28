"""The command line end to end: what it prints, what it writes, how it fails."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

import fastxent as fx
from fastxent.cli import cli as program, commands, run
from fastxent.cli.conditions import Condition

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.parquet")
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def dump(path: Path, logits: Any = None, target: Any = None, **columns: Any) -> Path:
    """Write a small dump, in row groups of two rows."""
    logits = [[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.5, 4.0]] if logits is None else logits
    logits = logits if isinstance(logits, pa.Array) else pa.array(logits, pa.list_(pa.float32()))
    target = [0, 1, 2, 2] if target is None else target
    pq.write_table(pa.table({"logits": logits, "target": target, **columns}), path, row_group_size=2)
    return path


# -- results ---------------------------------------------------------------------------------------------------------


def test_the_figures_are_scikit_learns(cli: Cli) -> None:
    code, out, err = cli("eval", DIGITS, "--format", "json", "--top-k", "1,3")
    assert (code, err) == (0, "")
    table = pq.read_table(DIGITS)
    logits = np.array(table["logits"].to_pylist(), dtype=np.float64)
    target = table["target"].to_numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    figures = json.loads(out)["metrics"]
    assert figures["cross_entropy"]["value"] == pytest.approx(log_loss(target, p), rel=2e-6)
    assert figures["accuracy"]["value"] == pytest.approx(accuracy_score(target, logits.argmax(1)), rel=1e-12)
    assert figures["top_3_accuracy"]["value"] == pytest.approx(top_k_accuracy_score(target, p, k=3), rel=1e-12)


def test_the_table_fits_a_terminal_and_is_the_default(cli: Cli) -> None:
    code, out, err = cli("eval", DIGITS, "--by", "fold", "--cluster", "block")
    assert (code, err) == (0, "")
    assert "cross_entropy" in out
    assert "fold 3" in out
    assert max(map(len, out.splitlines())) <= 80
    assert cli("eval", DIGITS, "--by", "fold", "--cluster", "block", "--format", "table")[1].splitlines()[0] in out


def test_markdown_is_a_table(cli: Cli) -> None:
    code, out, err = cli("eval", DIGITS, "--format", "markdown")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("|") and "accuracy" in line]


def test_threads_memory_and_file_order_change_nothing(cli: Cli, tmp_path: Path) -> None:
    table = pq.read_table(DIGITS)
    for k in range(7):
        pq.write_table(table.slice(k * 257, 257), tmp_path / f"part-{k}.parquet", row_group_size=100)
    options = ("--by", "fold", "--cluster", "block", "--format", "json")
    runs = [
        cli("eval", DIGITS, *options, "--threads", "1"),
        cli("eval", DIGITS, *options, "--threads", "2", "--memory", "1MB"),
        cli("eval", *(tmp_path / f"part-{k}.parquet" for k in (3, 0, 6, 1, 5, 2, 4)), *options),
    ]
    assert [code for code, _, _ in runs] == [0, 0, 0]
    figures = [json.dumps([json.loads(out)[key] for key in ("metrics", "calibration", "slices")]) for _, out, _ in runs]
    assert figures[0] == figures[1] == figures[2]


def test_output_and_per_row_files(cli: Cli, tmp_path: Path) -> None:
    where = ("--output", tmp_path / "figures.json", "--per-row", tmp_path / "rows.parquet")
    assert cli("eval", DIGITS, "--id", "id", "--format", "json", *where) == (0, "", ""), "JSON is written once"
    written, printed = (
        json.loads((tmp_path / "figures.json").read_text()),
        json.loads(cli("eval", DIGITS, "-o", "-")[1]),
    )
    assert written["schema"] == printed["schema"] == "fastxent/eval/1"
    assert written["metrics"] == printed["metrics"]
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert sorted(rows["id"].to_pylist()) == list(range(1797))
    assert np.mean(rows["nll"].to_numpy()) == pytest.approx(printed["metrics"]["cross_entropy"]["value"], rel=1e-12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures.json", "rows.parquet"]


def test_report_is_written(cli: Cli, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    code, out, err = cli("eval", DIGITS, "--by", "fold", "--report", report, "--format", "json")
    assert (code, err) == (0, "")
    text = report.read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html>")
    assert f"{json.loads(out)['metrics']['accuracy']['value']:.4f}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_without_its_packages_is_refused_before_the_run(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = ("eval", tmp_path / "none.parquet", "--report", tmp_path / "report.html")
    check_failure(*cli(*report), r"reports need matplotlib; install it with: pip install 'fastxent\[report\]'")


def test_merged_states_are_one_run(cli: Cli, tmp_path: Path) -> None:
    table = pq.read_table(DIGITS)
    for name, part in {"a": table.slice(0, 1000), "b": table.slice(1000)}.items():
        pq.write_table(part, tmp_path / f"{name}.parquet")
        assert cli("eval", tmp_path / f"{name}.parquet", "--cluster", "block", "--state", tmp_path / name)[0] == 0
    code, out, err = cli("merge", tmp_path / "b", tmp_path / "a", "--format", "json", "--state", tmp_path / "all")
    assert (code, err) == (0, "")
    whole = json.loads(cli("eval", DIGITS, "--cluster", "block", "--format", "json")[1])
    for key in ("metrics", "calibration", "rows"):
        assert json.loads(out)[key] == whole[key]
    assert json.loads(cli("merge", tmp_path / "all", "--format", "json")[1])["metrics"] == whole["metrics"]


def test_merge_names_what_it_refuses(cli: Cli, tmp_path: Path) -> None:
    table = pq.read_table(DIGITS)
    for k in range(6):
        pq.write_table(table.slice(k * 300, 300), tmp_path / f"{k}.parquet", row_group_size=100)
    dumps = [tmp_path / f"{k}.parquet" for k in range(6)]
    for k in (1, 2, 3):
        code, _, err = cli("eval", *dumps, "--by", "fold", "--shard", f"{k}/3", "--state", tmp_path / f"{k}.state")
        assert code == 0
        assert err == f"fastxent: warning: these are the figures of part {k} of 3 alone\n"
    one, two, three = (tmp_path / f"{k}.state" for k in (1, 2, 3))
    code, out, err = cli("merge", three, one, two, "--format", "json")
    assert (code, err) == (0, "")
    whole = json.loads(cli("eval", *dumps, "--by", "fold", "--format", "json")[1])
    for key in ("rows", "metrics", "calibration", "slices", "per_class", "nll_histogram", "nll_quantiles"):
        assert json.loads(out)[key] == whole[key]
    check_failure(*cli("merge", three, one), "missing: part 2 of 3; name all states")
    check_failure(*cli("merge", one, two, one), "1.state is given twice; merge each state once")
    (tmp_path / "copy.state").write_bytes(two.read_bytes())
    twice = r"part 2 of 3 is there twice, in .*/2\.state and in .*/copy\.state; merge each shard once"
    check_failure(*cli("merge", one, two, three, tmp_path / "copy.state"), twice)
    assert cli("eval", *dumps, "--shard", "1/3", "--state", tmp_path / "other.state")[0] == 0
    other = r"other\.state does not fit .*/1\.state: states of different configurations do not merge: by=\('fold',\)"
    check_failure(*cli("merge", one, tmp_path / "other.state"), other)
    code, out, err = cli("merge", one, three, "--partial", "--format", "json", "--state", tmp_path / "two.state")
    assert (code, err) == (0, "fastxent: warning: these are the figures of parts 1, 3 of 3 alone\n")
    code, out, err = cli("merge", tmp_path / "two.state", two, "--format", "json")
    assert (code, err, json.loads(out)["metrics"]) == (0, "", whole["metrics"])


def test_merge_counts_no_row_of_a_divided_run_twice(cli: Cli, tmp_path: Path) -> None:
    """The state of an undivided run does not say what it holds: among shards it may be all of them once more."""
    dump, other = tmp_path / "dump.parquet", tmp_path / "other.parquet"
    pq.write_table(pq.read_table(DIGITS).slice(0, 900), dump, row_group_size=100)
    pq.write_table(pq.read_table(DIGITS).slice(900), other)
    for name, *flags in [("1", "--shard", "1/2"), ("2", "--shard", "2/2"), ("whole",)]:
        assert cli("eval", dump, *flags, "--state", tmp_path / name)[0] == 0
    assert cli("eval", other, "--state", tmp_path / "other")[0] == 0
    one, two, whole, rest, merged = (tmp_path / name for name in ("1", "2", "whole", "other", "merged"))
    told = r"{} is whole, {} is not: parts of a divided run do not go together with states of undivided ones, which may"
    for given in ([whole, one, two], [one, two, whole], [two, whole, one]):
        first = next(name for name in given if name != whole)
        check_failure(*cli("merge", *given), told.format(whole, first))
    check_failure(*cli("merge", one, rest, "--partial"), told.format(rest, one))
    assert cli("merge", one, two, "--state", merged)[0] == 0
    check_failure(*cli("merge", whole, merged), f"{merged} holds the same rows as {whole}; merge each state once")
    code, out, err = cli("merge", merged, rest, "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["metrics"] == json.loads(cli("eval", DIGITS, "--format", "json")[1])["metrics"]


def test_verbose_tells_where_the_time_went(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("eval", DIGITS, "--verbose", "--threads", "2", "--resume", tmp_path / "c")
    assert code == 0
    assert re.search(r"[\d,]+ rows/s · .* GB/s of logits · 2 threads\n", err)
    assert re.search(r"read \d+ % · decode \d+ % · kernel \d+ % · state \d+ % · write \d+ % · other \d+ % of", err)
    assert re.search(r"computing \d+ % · \d+ % of the time\n", err)
    assert "1,797 rows were done before" in cli("eval", DIGITS, "--verbose", "--resume", tmp_path / "c")[2]


def test_options_reach_the_figures(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("cat\ndog\neel\n")
    path = dump(tmp_path / "a.parquet", target=["cat", "dog", "eel", None])
    options = ("--classes", f"@{tmp_path}/names", "--class-weight", "1,2,4", "--label-smoothing", "0.1")
    code, out, _ = cli("eval", path, *options, "--temperature", "2", "--format", "json")
    direct = fx.evaluate(
        str(path), classes=["cat", "dog", "eel"], class_weight=[1, 2, 4], label_smoothing=0.1, temperature=2.0
    )
    assert code == 0
    assert json.loads(out)["rows"]["ignored"] == 1
    assert json.loads(out)["metrics"]["cross_entropy"]["value"] == direct.metrics["cross_entropy"].value
    plain = json.loads(cli("eval", path, "--classes", "cat,dog,eel", "--format", "json")[1])
    assert plain["metrics"]["cross_entropy"]["value"] != direct.metrics["cross_entropy"].value


@pytest.mark.parametrize(
    ("command", "function"), [("eval", "evaluate"), ("transform", "transform"), ("convert", "convert")]
)
def test_options_and_their_defaults_are_the_functions(command: str, function: str) -> None:
    parameters = inspect.signature(getattr(fx, function)).parameters
    here = {"format_", "fail_if", "quiet", "verbose", "progress", "help"}
    here |= {"output", "report", "state", "log"} if command == "eval" else {"figures"}
    context = program.commands[command].make_context(command, ["in", "out"], resilient_parsing=True)
    for option in program.commands[command].params:
        if option.name in here:
            continue
        assert option.name in parameters, f"--{option.name} has no keyword"
        if option.param_type_name == "option":
            value, default = context.params[str(option.name)], parameters[str(option.name)].default
            assert (list(default) if isinstance(default, tuple) else default) == value, option.name


def test_progress_is_asked_for_and_goes_to_stderr(cli: Cli) -> None:
    code, out, err = cli("eval", DIGITS, "--format", "json", "--progress")
    assert code == 0
    assert json.loads(out)["rows"]["total"] == 1797
    assert "rows/s" in err
    assert "GB/s" in err
    assert cli("eval", DIGITS, "--format", "json", "--progress", "--quiet")[2] == ""


def test_warnings_are_one_line_each_and_can_be_silenced(cli: Cli, tmp_path: Path) -> None:
    path = dump(tmp_path / "a.parquet", logits=[[0.5, 0.2, 0.2]] * 4)
    code, _, err = cli("eval", path, "--input", "probs")
    assert code == 0
    assert err.startswith("fastxent: warning: ")
    assert err.count("\n") == 1
    assert cli("eval", path, "--input", "probs", "--quiet")[2] == ""


def test_convert_writes_and_prints_what_it_costs(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("convert", DIGITS, tmp_path / "o.parquet", "--dtype", "float16", "--keep", "id,target")
    assert (code, err) == (0, "")
    assert "largest error" in out
    assert pq.read_schema(tmp_path / "o.parquet").names == ["id", "target", "logits"]
    code, out, _ = cli("convert", DIGITS, tmp_path / "o.parquet", "--keep", "", "--format", "json", "--progress")
    assert code == 0
    found = json.loads(out)
    assert (found["schema"], found["rows"], found["rounding"]) == ("fastxent/convert/1", 1797, None)
    assert pq.read_schema(tmp_path / "o.parquet").names == ["logits"]
    code, out, err = cli("convert", DIGITS, tmp_path / "o.arrow", "--format", "markdown", "--verbose")
    assert code == 0
    assert f"| written | {tmp_path}/o.arrow" in out
    assert "rows/s" in err
    figures = [
        json.loads(cli("eval", path, "--format", "json")[1])["metrics"] for path in (DIGITS, tmp_path / "o.arrow")
    ]
    assert figures[0] == figures[1]
    large = dump(tmp_path / "large.parquet", logits=[[1.0, 70000.0]] * 4)
    code, out, err = cli("convert", large, tmp_path / "p.parquet", "--dtype", "float16")
    assert (code, out) == (2, "")
    assert "row 0: logit 1 is 70000, too large for float16" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "p.parquet").exists()


def test_transform_writes_what_it_says(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("transform", DIGITS, tmp_path / "p.parquet", "--kind", "softmax", "--keep", "id,target")
    assert (code, err) == (0, "")
    assert "cross_entropy" in out
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.num_rows == 1797
    assert {"id", "target"} <= set(table.column_names)
    (column,) = set(table.column_names) - {"id", "target"}
    np.testing.assert_allclose(np.array(table[column].to_pylist()).sum(1), 1.0, rtol=1e-6)


def test_inspect_ends_in_a_line_that_runs(cli: Cli, tmp_path: Path) -> None:
    path = dump(tmp_path / "odd name.parquet", kind=["a", "b", "a", "b"], document=[1, 1, 2, 2], n_bytes=[3, 4, 5, 6])
    code, out, err = cli("inspect", path)
    assert (code, err) == (0, "")
    for fact in ("4 in 2 row groups", "3 classes of float32", "list<", "target", "48 B"):
        assert fact in out
    line = out.splitlines()[-1].strip()
    assert line == f"fastxent eval '{path}' --by kind --cluster document --n-bytes n_bytes"
    assert json.loads(cli("inspect", path, "--format", "json")[1])["command"] == line
    code, out, _ = cli(*shlex.split(line)[1:], "--format", "json")
    assert code == 0
    assert set(json.loads(out)["slices"]["kind"]) == {"a", "b"}
    assert "bits_per_byte" in json.loads(out)["metrics"]


def test_inspect_names_what_is_unusual(cli: Cli, tmp_path: Path) -> None:
    columns = {"p_0": [0.1, 0.2], "p_1": [0.9, 0.8], "label": [0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert cli("inspect", tmp_path / "a.parquet")[1].endswith("--logits 'p_*' --input probs --target label\n")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    code, out, _ = cli("inspect", tmp_path / "b.parquet")
    assert code == 0
    assert "No column looks like logits" in out
    check_failure(*cli("inspect", tmp_path / "a.parquet", "--logits", "label"), r"'label' holds no logits.*p_\*")
    check_failure(*cli("inspect", tmp_path / "none.parquet"), r"none\.parquet")


# -- fail-if and exit codes ------------------------------------------------------------------------------------------


def test_fail_if_judges_all_and_exits_1(cli: Cli) -> None:
    conditions = ["accuracy<0.99", "cross_entropy>2.1", "rows.bad>0", "rows.total==1797", "fold=fold 1:accuracy<=1"]
    code, out, err = cli("eval", DIGITS, "--by", "fold", *(part for c in conditions for part in ("--fail-if", c)))
    assert code == 1
    assert "accuracy" in out, "the figures are still printed"
    lines = err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"fastxent: failed: {conditions[k]}" for k in (0, 3, 4)]
    assert cli("eval", DIGITS, "--fail-if", "accuracy<0.5")[0] == 0


def test_nan_passes_no_gate(cli: Cli, tmp_path: Path) -> None:
    path = dump(tmp_path / "a.parquet", target=[-100] * 4)
    code, _, err = cli("eval", path, "--fail-if", "cross_entropy>2.1")
    assert code == 1
    assert "cross_entropy is nan" in err


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("accuracy>0.5", False), ("accuracy>=0.5", True), ("accuracy<5e-1", False), ("accuracy<=.5", True),
        ("accuracy==0.5", True), ("accuracy!=0.5", False), ("accuracy.stderr > 0.01", True), ("rows.bad<1", False),
        ("rows.bad>0", True), ("kind=a=b:c:accuracy<0.4", True), ("accuracy<50%", False), ("accuracy<50.1 %", True),
        ("accuracy.ci95.low<0.4", False), ("accuracy.ci95.high > 0.5", True), ("accuracy.value<=50%", True),
        ("kind=*:accuracy<0.4", True), ("kind=*:accuracy.ci95.low<0.2", False),
    ],
)  # fmt: skip
def test_conditions(text: str, held: bool) -> None:
    part = SimpleNamespace(metrics={"accuracy": SimpleNamespace(value=0.25, stderr=0.1, ci95=(0.2, 0.3))}, rows=None)
    rows = SimpleNamespace(total=9, used=8, ignored=0, bad=1)
    metrics = {"accuracy": SimpleNamespace(value=0.5, stderr=0.02, ci95=(0.4, 0.6))}
    result: Any = SimpleNamespace(metrics=metrics, rows=rows, slices={"kind": {"a=b:c": part}})
    assert bool(Condition.parse(text).check(result)) is held


@pytest.mark.parametrize(
    "text",
    ["", "accuracy", "accuracy=0.5", "accuracy<", "<0.5", "accuracy<x", "a b<1", "a<1<2", "a<nan", "a<1%%", "a<%"],
)
def test_what_is_no_condition(text: str, cli: Cli) -> None:
    code, out, err = cli("eval", DIGITS, "--fail-if", text)
    assert (code, out) == (2, "")
    assert err.startswith("fastxent: error: Invalid value for '--fail-if'")


def test_a_figure_that_will_not_exist_is_found_before_the_run(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("fastxent.engine.job.Job.open", run)
    for condition, flags, told in [
        ("acuracy<0.9", [], "no figure 'acuracy'; did you mean 'accuracy'"),
        ("accuracy.stder>1", [], "no figure 'accuracy.stder'"),
        ("cross_entropy>1", ["--metrics", "accuracy"], "no figure 'cross_entropy'; there is: accuracy, rows.total"),
        ("top_3_accuracy<1", [], "did you mean 'top_5_accuracy'"),
        ("bits_per_byte>1", [], "no figure 'bits_per_byte'"),
        ("rows.odd>1", [], "did you mean 'rows.bad'"),
        ("fold=fold 1:acuracy<1", ["--by", "fold"], "no figure 'acuracy'"),
        ("accuracy.ci95<1", [], "no figure 'accuracy.ci95'; there is: .* accuracy.ci95.low, accuracy.ci95.high"),
        ("fold=*:accuracy<1", [], "add --by fold"),
    ]:
        check_failure(*cli("eval", DIGITS, *flags, "--fail-if", condition), told)
        check_failure(*cli("transform", DIGITS, tmp_path / "o.arrow", *flags, "--fail-if", condition), told)
    good = ("--fail-if", "top_3_accuracy.stderr<1", "--fail-if", "rows.bad>0")
    code, _, err = cli("eval", DIGITS, "--top-k", "3", *good)
    assert (code, "AssertionError: it has begun" in err) == (70, True)


@pytest.mark.parametrize("command", ["convert", "transform"])
@pytest.mark.parametrize("paths", [[], [DIGITS], ["s3://bucket/dump"]])
def test_two_paths_are_needed(cli: Cli, command: str, paths: list[str]) -> None:
    told = f"two paths are needed: SOURCE, what to read, and DEST, the file to write; see fastxent {command} --help"
    check_failure(*cli(command, *paths), told)


@pytest.mark.parametrize("url", ["foo://x", "foo://x/*.parquet"])
def test_an_unknown_scheme_is_one_line(cli: Cli, url: str) -> None:
    for command in (["eval", url], ["inspect", url], ["convert", url, "a.parquet"]):
        check_failure(*cli(*command), r"foo://x.*: no file system is known for foo://; check the spelling, or install")


def test_a_misspelt_figure_is_no_silent_pass(cli: Cli) -> None:
    code, _, err = cli("eval", DIGITS, "--fail-if", "acuracy<0.9")
    assert code == 2
    assert "did you mean 'accuracy'?" in err
    code, out, err = cli("eval", DIGITS, "--fail-if", "fold=fold 1:accuracy<0.9")
    assert (code, out) == (2, "")
    assert "add --by fold" in err
    assert cli("eval", DIGITS, "--by", "fold", "--fail-if", "fold=fold 9:accuracy<0.9")[0] == 2


# -- bad input: one line, exit 2, nothing half-written ---------------------------------------------------------------


def _no_logits(path: Path) -> Path:
    return dump(path, logits=[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], None, [1.0, 2.0, 3.0]])


def _not_parquet(path: Path) -> Path:
    path.write_text("id,logits\n")
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
    "logits make slices": (dump, ["--by", "logits"], r"'logits' of type list.*cannot group rows"),
    "logits are weights": (dump, ["--weight", "logits"], r"'logits' is list.*numbers are needed"),
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
        check_failure(*cli("eval", given, *option.format(f"{tmp_path}/./a.parquet").split()), "is a source of this")
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
    check_failure(*cli("merge", state, "--output", state), "is a source of this")
    check_failure(*cli("report", figures, "--output", figures), "is a source of this")
    assert (state.read_bytes(), figures.read_bytes()) == before
    check_failure(*cli("merge", state, "--output", tmp_path / "b", "--state", tmp_path / "b"), "twice")


def test_missing_columns_to_carry_over(cli: Cli, tmp_path: Path) -> None:
    source = dump(tmp_path / "a.parquet", name=["a", "b", "c", "d"])
    rows = ["--per-row", tmp_path / "rows.parquet"]
    check_failure(*cli("eval", source, *rows, "--id", "nam"), r"no column 'nam'.*did you mean 'name'\?")
    out = tmp_path / "out.parquet"
    check_failure(*cli("transform", source, out, "--keep", "nam"), r"no column 'nam'.*did you mean 'name'\?")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def check_failure(code: int, out: str, err: str, message: str) -> None:
    assert (code, out) == (2, ""), err
    assert err.startswith("fastxent: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert re.search(message, err), err


def test_files_of_other_widths(cli: Cli, tmp_path: Path) -> None:
    dump(tmp_path / "a.parquet")
    dump(tmp_path / "b.parquet", logits=[[0.0, 1.0]] * 4, target=[0] * 4)
    check_failure(*cli("eval", tmp_path / "*.parquet"), r"a\.parquet has 3 classes and \S+b\.parquet has 2")


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


# -- processes: pipes, signals, help ---------------------------------------------------------------------------------


def process(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastxent", *arguments], stderr=subprocess.PIPE, text=True, timeout=300, **settings
    )


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = process("eval", DIGITS, "--format", "json", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = process("eval", DIGITS, stdout=full)
    check_failure(done.returncode, "", done.stderr, r"cannot write to standard output: No space left on device")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_half_way_leaves_nothing(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """The process signals itself when it reports its first progress: some rows are done, and not all."""
    final = tmp_path / "out.parquet"
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    logits = pa.array(list(rng.normal(size=(20_000, 50)).astype(np.float32)))
    pq.write_table(pa.table({"logits": logits, "target": rng.integers(0, 50, 20_000)}), source, row_group_size=500)
    script = f"""
import contextlib, os, sys
from fastxent.cli import commands, main
sent = []
@contextlib.contextmanager
def reporting(*_):
    def report(rows, *rest):
        if 0 < rows < 20_000 and not sent:
            sent.append(rows)
            os.kill(os.getpid(), {int(number)})
    yield report
commands.progress_bar = reporting
sys.argv[1:] = ["transform", {str(source)!r}, {str(final)!r}, "--memory", "1MB"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr == ("fastxent: interrupted; nothing was left half-written\n" if code == 130 else "")
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize(
    "module",
    [
        "fastxent.cli", "click", "fastxent.results.result", "fastxent.cli.convert", "fastxent.verbs.evaluate", "numpy",
        "numba",
        "llvmlite.binding", "pyarrow", "pyarrow.parquet", "fastxent.kernels.rows.wide", "fastxent.state.metrics",
    ],
)  # fmt: skip
def test_an_interrupt_during_an_import_is_one_line(module: str) -> None:
    """It comes while code made from a string runs, as it does when modules define dataclasses: CPython then remembers
    an interrupt, though it is caught, and ends the process by a signal."""
    script = f"""
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["eval", {DIGITS!r}]
from fastxent.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    told = "fastxent: interrupted; nothing was left half-written\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)


@pytest.mark.parametrize("resumable", [False, True])
def test_interrupts_at_any_moment_end_cleanly(tmp_path: Path, resumable: bool) -> None:
    """A dozen, spread over a run from its first lines to its end: 130 and one line, or a result."""
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    logits = pa.array(list(rng.normal(size=(20_000, 50)).astype(np.float32)))
    pq.write_table(pa.table({"logits": logits, "target": rng.integers(0, 50, 20_000)}), source, row_group_size=50)
    folder = ["--resume", str(tmp_path / "progress")] if resumable else []
    arguments = ["eval", str(source), "--threads", "2", "--format", "json", *folder]
    program = f"""
import sys
print(end=".", flush=True)
from fastxent.__main__ import main
sys.argv[1:] = {arguments}
main()
"""
    seconds, codes = 0.0, []
    for moment in [None, None, *range(1, 13)]:
        shutil.rmtree(tmp_path / "progress", ignore_errors=True)
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.read(1) == "."
        start = time.monotonic()
        if moment is not None:
            time.sleep(moment / 13 * seconds)
            child.send_signal(signal.SIGINT)
        out, told = child.communicate(timeout=300)
        if moment is None:  # to its end, for how long that takes: the second time, with all kernels there
            seconds = time.monotonic() - start
        codes.append(child.returncode)
        if child.returncode == 130:
            assert out == ""
            assert re.fullmatch(r"fastxent: interrupted; .*\n", told)
        else:
            assert (child.returncode, told) == (0, "")
            assert json.loads(out)["rows"]["used"] == 20_000
    assert codes[:2] == [0, 0]
    assert 130 in codes


def test_an_interrupt_in_a_callback_from_c_is_not_lost() -> None:
    """ctypes prints such an exception, and goes on; LLVM calls back this way for every kernel that it compiles."""
    script = f"""
import contextlib, ctypes, os, signal, sys, time
from fastxent.cli import commands, main
@contextlib.contextmanager
def reporting(*_):
    ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGINT))()
    time.sleep(20)
    yield None
commands.progress_bar = reporting
sys.argv[1:] = ["eval", {DIGITS!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    told = "fastxent: interrupted; nothing was left half-written\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)


def test_an_interrupt_ends_workers_that_wait_for_their_turn(tmp_path: Path) -> None:
    """One long unit in front holds the others' results back: all of them must see the interrupt, and soon."""
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    logits = pa.array(list(rng.normal(size=(40_000, 200)).astype(np.float32)))
    table = pa.table({"logits": logits, "target": rng.integers(0, 200, 40_000)})
    with pq.ParquetWriter(source, table.schema) as writer:
        writer.write_table(table.slice(0, 20_000), row_group_size=20_000)
        writer.write_table(table.slice(20_000), row_group_size=500)
    script = f"""
import os, signal, time
import fastxent as fx
stop, after = [], []
def report(rows, *rest):
    if not stop and rows > 2_000:
        stop.append(rows)
        os.kill(os.getpid(), signal.SIGINT)
    if stop:
        after.append(rows)
        time.sleep(0.01)  # time for the interrupt to be seen
options = dict(threads=4, memory="1MB", progress=report)
try:
    fx.transform({str(source)!r}, {str(tmp_path / "out.parquet")!r}, **options)
except KeyboardInterrupt:
    print(len(after))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100  # of some 1,000 units without a stop
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_help_teaches(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for name in program.commands:
        assert f"\n  {name} " in out
        code, text, _ = cli(name, "--help")
        assert code == 0
        assert "Example" in text, name
        assert f"fastxent {name} " in text
    for line in [line.strip() for line in out.splitlines() if line.startswith("    fastxent ")]:
        assert line.split()[1] in program.commands, line


def test_every_option_says_what_it_does() -> None:
    for command in program.commands.values():
        for option in command.params:
            if option.param_type_name == "option":
                assert getattr(option, "help", None), f"{command.name} --{option.name}"


def test_warmup_leaves_nothing_to_compile() -> None:
    """After it, in the same process, no evaluation of the bundled dump needs code that is not in memory."""
    script = f"""
from fastxent.cli import run
from fastxent.kernels import jit
assert run(["warmup"]) == 0
def load(self, *_):
    raise AssertionError(self._function.__name__)
jit._Cache.load_overload = load
assert run(["eval", {DIGITS!r}, "--format", "json"]) == 0
assert run(["eval", {DIGITS!r}, "--format", "json", "--by", "fold", "--cluster", "block", "--weight", "block"]) == 0
assert run(["eval", {DIGITS!r}, "--format", "json", "--temperature", "1.5"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("fastxent: [")
    folder = Path(done.stdout.splitlines()[0])
    assert list(folder.glob("*.nbc"))


def test_warmup_with_nowhere_to_keep_kernels(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "FASTXENT_CACHE_DIR": str(tmp_path / "file")}
    done = process("warmup", stdout=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("fastxent: error: cannot keep compiled kernels in ")


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"fastxent {fx.__version__}\n", "")


def test_interrupts_in_any_command_are_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_finish", interrupt)
    assert cli("eval", DIGITS) == (130, "", "fastxent: interrupted; nothing was left half-written\n")
