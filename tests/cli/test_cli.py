"""The command line end to end: what it prints, what it writes, and its gates."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

import fastxent as fx
from fastxent.cli.conditions import Condition
from fastxent.cli.program import cli as program
from fastxent.results.values import RowCounts, Slice
from tests.cli.running import DIGITS, Cli, check_failure, dump

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
    check_failure(
        *cli(*report), r"cannot draw reports: matplotlib is not installed; run pip install 'fastxent\[report\]'"
    )


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
        assert err == f"fastxent: warning: these metrics are of part {k} of 3 only\n"
    one, two, three = (tmp_path / f"{k}.state" for k in (1, 2, 3))
    code, out, err = cli("merge", three, one, two, "--format", "json")
    assert (code, err) == (0, "")
    whole = json.loads(cli("eval", *dumps, "--by", "fold", "--format", "json")[1])
    for key in ("rows", "metrics", "calibration", "slices", "per_class", "nll_histogram", "nll_quantiles"):
        assert json.loads(out)[key] == whole[key]
    check_failure(*cli("merge", three, one), "missing: part 2 of 3; give the states of all shards")
    check_failure(*cli("merge", one, two, one), "1.state is given twice; merge each state once")
    (tmp_path / "copy.state").write_bytes(two.read_bytes())
    twice = r"part 2 of 3 is there twice, in .*/2\.state and in .*/copy\.state; merge each shard once"
    check_failure(*cli("merge", one, two, three, tmp_path / "copy.state"), twice)
    assert cli("eval", *dumps, "--shard", "1/3", "--state", tmp_path / "other.state")[0] == 0
    other = r"cannot merge .*/other\.state with .*/1\.state: states of different configurations do not merge: by="
    check_failure(*cli("merge", one, tmp_path / "other.state"), other)
    code, out, err = cli("merge", one, three, "--partial", "--format", "json", "--state", tmp_path / "two.state")
    assert (code, err) == (0, "fastxent: warning: these metrics are of parts 1, 3 of 3 only\n")
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
    told = r"{} is whole, {} is not: shards cannot be merged with the states of whole runs, because these may"
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
    assert re.search(r"read \d+ % · decode \d+ % · kernel \d+ % · aggregate \d+ % · write \d+ % · other \d+ % of", err)
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
    ("command", "function"),
    [
        ("eval", "evaluate"),
        ("compare", "compare"),
        ("transform", "transform"),
        ("convert", "convert"),
        ("calibrate", "fit_temperature"),
    ],
)
def test_options_and_their_defaults_are_the_functions(command: str, function: str) -> None:
    parameters = inspect.signature(getattr(fx, function)).parameters
    here = {"format_", "fail_if", "quiet", "verbose", "progress", "help", "others"}
    here |= {"output", "report", "state", "log"} if command in ("eval", "calibrate", "compare") else {"result"}
    context = program.commands[command].make_context(command, ["in", "out"], resilient_parsing=True)
    for option in program.commands[command].params:
        if option.name in here:
            continue
        assert option.name in parameters, f"--{option.name} has no keyword"
        if option.param_type_name == "option":
            value, default = context.params[str(option.name)], parameters[str(option.name)].default
            assert (list(default) if isinstance(default, tuple) else default) == value, option.name
    options = {option.name for option in program.commands[command].params}
    assert parameters.keys() <= options | ({"b"} if "others" in options else set())


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
    check_failure(*cli("inspect", tmp_path / "a.parquet", "--logits", "label"), r"'label' does not hold logits.*p_\*")
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
    part = Slice(RowCounts(4, 4, 0, 0), {"accuracy": fx.Metric(0.25, 0.1, (0.2, 0.3))})
    metrics = {"accuracy": fx.Metric(0.5, 0.02, (0.4, 0.6))}
    result: Any = SimpleNamespace(metrics=metrics, rows=RowCounts(9, 8, 0, 1), slices={"kind": {"a=b:c": part}})
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

    monkeypatch.setattr("fastxent.verbs.evaluation.Evaluation.open", run)
    for condition, flags, told in [
        ("acuracy<0.9", [], "no metric 'acuracy'; did you mean 'accuracy'"),
        ("accuracy.stder>1", [], "no metric 'accuracy.stder'"),
        ("cross_entropy>1", ["--metrics", "accuracy"], "no metric 'cross_entropy'; expected one of accuracy, rows"),
        ("top_3_accuracy<1", [], "did you mean 'top_5_accuracy'"),
        ("bits_per_byte>1", [], "no metric 'bits_per_byte'"),
        ("rows.odd>1", [], "did you mean 'rows.bad'"),
        ("fold=fold 1:acuracy<1", ["--by", "fold"], "no metric 'acuracy'"),
        ("accuracy.ci95<1", [], "no metric 'accuracy.ci95'; expected .* accuracy.ci95.low, accuracy.ci95.high"),
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
    told = f"two paths are needed: SOURCE, the dump to read, and DEST, the file to write; see fastxent {command} --help"
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
                text = getattr(option, "help", None) or ""
                assert 0 < len(text) <= 70, f"{command.name} --{option.name}"
                assert text.endswith("."), text
                assert "default" not in text, "defaults are generated"


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"fastxent {fx.__version__}\n", "")


def test_interrupts_in_any_command_are_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastxent.cli.commands.eval.finish", interrupt)
    assert cli("eval", DIGITS) == (130, "", "fastxent: interrupted; nothing was left half-written\n")
